import { NO_TRACE, Tracer } from '@pinhole/base';
import { DmaDirection } from '@pinhole/memory';
import {
  createDriverQueue,
  type DriverQueue,
  type DriverQueueOptions,
  type Segment,
} from '../../src/index.js';
import { CheckedDma } from './checked-dma.js';
import { CheckedMemory } from './checked-memory.js';
import {
  DRIVER_BIG_ENDIAN,
  DRIVER_EVENT_IDX,
  DRIVER_FAR,
  DRIVER_IN_ORDER,
  DRIVER_INDIRECT,
  DRIVER_KEEPS_SIZE,
  DRIVER_OPERATIONS,
  DRIVER_TRACED,
  DRIVER_WINDOWS,
  DriverOp,
} from './driver-op.js';
import { DriverView } from './driver-view.js';
import { check } from './finding.js';
import { BUFFERS, lengthOf, STEP } from './program.js';

const SPLIT_SIZES = [8, 1, 2, 4, 16, 64, 32, 256];
const PACKED_SIZES = [8, 1, 2, 4, 16, 3, 5, 13, 7, 64, 9, 256];
const ALIGNMENTS = [128, 64, 4, 4096];
const VALID_LENGTHS = [16, 4096, 1, 512, 8192, 48, 4095, 9000];
// Accesses that a call may need: for itself, and for each piece of a buffer.
const PER_CALL = 64;
const PER_PIECE = 16;

/** A buffer that the device has. */
interface Sent {
  readonly token: number;
  readonly id: number;
  readonly ndescs: number;
  readonly mappings: number;
  readonly inBytes: number;
  readonly hasTable: boolean;
}

export type MakeDriverQueue = (options: DriverQueueOptions) => DriverQueue<number> | undefined;

/**
 * The driver's half against a hostile device, which writes the rings between the driver's calls. After
 * every step: nothing was thrown, every access was to what is the driver's to touch, every mapping ends
 * once, and what comes back was given and is what a naive reader of the ring expects.
 */
export class DriverTarget {
  /** What the last run took: entries of the queue, and accesses. */
  cost = 0;
  readonly #isPacked: boolean;
  readonly #hits: Uint8Array;
  readonly #make: MakeDriverQueue;
  readonly #memory = new CheckedMemory();
  readonly #dma = new CheckedDma(this.#memory);
  readonly #view: DriverView;
  readonly #tracer = new Tracer({ emit() {} });
  #queue!: DriverQueue<number>;
  #isFreed = false;
  #hasIndirect = false;
  #hasInOrder = false;
  #hasEventIdx = false;
  #isBroken = false;
  #notified = 0;
  #sent = new Map<number, Sent>();
  #row: Sent[] = [];
  // With IN_ORDER: buffers that one used entry returned, and its length.
  #batch = 0;
  #batchLength = 0;
  #token = 0;
  #added = 0;
  #outcome = 0;

  constructor(
    isPacked: boolean,
    hits: Uint8Array,
    make: MakeDriverQueue = createDriverQueue as MakeDriverQueue,
  ) {
    this.#isPacked = isPacked;
    this.#hits = hits;
    this.#make = make;
    this.#memory.permissions = this.#dma;
    this.#view = new DriverView(isPacked, this.#memory, this.#dma);
  }

  /** Runs a program to its end. @throws whatever is found */
  run(input: Uint8Array): void {
    if (!this.#begin(input)) return;
    let before = 0;
    for (let at = STEP; at + STEP <= input.length; at += STEP) {
      const operation = input[at]! % DRIVER_OPERATIONS;
      this.#memory.work = 0;
      this.#outcome = 0;
      this.#step(operation, input, at);
      this.#checkState();
      this.#hits[(before * 61 + operation * 17 + this.#outcome * 229) & (this.#hits.length - 1)] =
        1;
      before = operation + this.#outcome * 5;
    }
    this.#end();
  }

  #begin(input: Uint8Array): boolean {
    const flags = input[0] ?? 0;
    const memory = this.#memory;
    const dma = this.#dma;
    memory.reset();
    memory.hasWindows = (flags & DRIVER_WINDOWS) !== 0;
    memory.hasWords = (input[4] ?? 0) % 2 === 1;
    memory.isBig = !this.#isPacked && (flags & DRIVER_BIG_ENDIAN) !== 0;
    dma.reset();
    dma.high = (flags & DRIVER_FAR) !== 0 ? 0x800_0001 : 0;
    dma.largest = input[2] === 0 ? 0x10_0000 : (input[2] ?? 0) * 64;
    this.#hasIndirect = (flags & DRIVER_INDIRECT) !== 0;
    this.#hasInOrder = (flags & DRIVER_IN_ORDER) !== 0;
    this.#hasEventIdx = (flags & DRIVER_EVENT_IDX) !== 0;
    this.#isFreed = false;
    this.#token = 0;
    const sizes = this.#isPacked ? PACKED_SIZES : SPLIT_SIZES;
    const size = sizes[(input[1] ?? 0) % sizes.length]!;
    this.cost = size;
    const queue = this.#make({
      memory,
      dma,
      tables: dma,
      isPacked: this.#isPacked,
      size,
      layoutAlign: ALIGNMENTS[(input[3] ?? 0) & 3]!,
      hasIndirect: this.#hasIndirect,
      hasEventIdx: this.#hasEventIdx,
      hasInOrder: this.#hasInOrder,
      isBigEndian: memory.isBig,
      mayReduceSize: (flags & DRIVER_KEEPS_SIZE) === 0,
      notify: () => {
        this.#notified += 1;
      },
      tracer: (flags & DRIVER_TRACED) !== 0 ? this.#tracer : NO_TRACE,
    });
    if (queue === undefined) {
      check(
        dma.parts.every(({ isLive }) => !isLive),
        'a queue that was not made keeps its memory',
      );
      return false;
    }
    this.#queue = queue;
    this.#view.begin(queue.size, queue.setup);
    this.#forget();
    return true;
  }

  #forget(): void {
    this.#sent.clear();
    this.#row = [];
    this.#batch = 0;
    this.#added = 0;
    this.#isBroken = false;
    this.#view.restart();
  }

  #step(operation: number, input: Uint8Array, at: number): void {
    const a = input[at + 1]!;
    const b = input[at + 2]!;
    const c = input[at + 3]!;
    const view = this.#view;
    switch (operation) {
      case DriverOp.ADD:
        this.#add(a, b, c);
        break;
      case DriverOp.USE:
        this.#use(a, lengthOf(b));
        break;
      case DriverOp.USE_RAW:
        view.use(a | (b << 8) | ((input[at + 4]! & 1) << 16), lengthOf(c), 1);
        break;
      case DriverOp.GET:
        for (let n = a & 3; n >= 0; n -= 1) this.#get();
        break;
      case DriverOp.MOVE_USED:
        view.moveUsed(a | (b << 8), (c & 1) === 0);
        break;
      case DriverOp.EVENT:
        view.writeEvent(a | (b << 8), c);
        break;
      case DriverOp.POKE:
        this.#dma.poke(a | (b << 8), c | (input[at + 4]! << 8));
        break;
      case DriverOp.FAIL_DMA:
        this.#dma.mappingsLeft = (a & 128) !== 0 ? 4096 : a & 15;
        break;
      case DriverOp.FAIL_TABLE:
        this.#dma.tablesLeft = (a & 128) !== 0 ? 4096 : a & 3;
        break;
      case DriverOp.RESTART:
        this.#restart();
        break;
      case DriverOp.FREE:
        this.#free();
        break;
      case DriverOp.ROUND:
        for (let n = a & 15; n >= 0; n -= 1) {
          this.#add(b, c, n);
          this.#use(0, lengthOf(input[at + 4]!));
          this.#get();
        }
        break;
      default:
        if (!this.#isFreed) this.#signal(operation);
    }
  }

  // What has to do with kicks and interrupts.
  #signal(operation: number): void {
    const queue = this.#queue;
    const hasUsed = this.#hasUsed();
    switch (operation) {
      case DriverOp.KICK:
      case DriverOp.KICK_PREPARE: {
        const isWanted = this.#view.wantsKick(this.#added, this.#hasEventIdx);
        const before = this.#notified;
        const isKick = operation === DriverOp.KICK;
        const result = isKick ? queue.kick() : queue.kickPrepare();
        const expected = isWanted && !(isKick && this.#isBroken);
        check(isWanted === undefined || result === expected, 'a kick is lost, or one too many');
        const kicks = isKick && result ? 1 : 0;
        check(this.#notified - before === kicks, 'a kick does not reach the device');
        this.#added = 0;
        this.#outcome = result ? 1 : 0;
        break;
      }
      case DriverOp.HAS_USED:
        check(queue.hasUsed() === hasUsed, 'what came back is not seen, or what did not is');
        break;
      case DriverOp.NOTE_INTERRUPT:
        check(queue.noteInterrupt() === hasUsed, 'an interrupt is taken for another');
        break;
      case DriverOp.ENABLE: {
        const isQuiet = queue.enableCallbacks();
        check(isQuiet === (this.#isBroken || !hasUsed), 'interrupts are on and buffers wait');
        this.#outcome = isQuiet ? 1 : 0;
        break;
      }
      default:
        queue.disableCallbacks();
    }
    this.#checkWork(PER_CALL);
  }

  #hasUsed(): boolean {
    return this.#batch > 0 || this.#view.hasUsed();
  }

  #checkWork(most: number): void {
    const { work } = this.#memory;
    check(work <= most, `a call takes ${work} accesses, expected at most ${most}`);
    this.cost += work;
    this.#memory.work = 0;
  }

  #add(shape: number, lengths: number, pages: number): void {
    const outNum = shape & 7;
    const inNum = (shape >> 3) & 7;
    const total = outNum + inNum;
    if (total === 0) return;
    const segments: Segment[] = [];
    for (let i = 0; i < total; i += 1) {
      const length = VALID_LENGTHS[(lengths + 3 * i) & 7]!;
      segments.push({ gpa: BUFFERS + 4096 * ((pages + 3 * i) & 31) + (lengths & 15), length });
    }
    const queue = this.#queue;
    const dma = this.#dma;
    const { liveMappings, liveTables, failures, next } = dma;
    const free = queue.numFree;
    const token = this.#token;
    this.#token += 1;
    const result = queue.add(segments.slice(0, outNum), segments.slice(outNum), token);
    this.#checkWork(PER_CALL + PER_PIECE * total);
    const failed = dma.failures - failures;
    const hasTable = dma.liveTables > liveTables;
    const ndescs = hasTable ? 1 : total;
    if (result !== 'ok') {
      this.#outcome = result === 'broken' ? 1 : result === 'ring-full' ? 2 : 3;
      check(dma.liveMappings === liveMappings, 'a buffer that was not added stays mapped');
      check(dma.liveTables === liveTables, 'a buffer that was not added keeps its table');
      check(result !== 'broken' || this.#isBroken || this.#isFreed, 'a good queue is broken');
      check(result !== 'no-dma-space' || failed > 0, 'a mapping failed that did not');
      const mayBeFull = free < total && (!this.#hasIndirect || total === 1 || free === 0);
      check(result !== 'ring-full' || mayBeFull || failed > 0, 'a ring is full that is not');
      return;
    }
    this.#outcome = 4 + (hasTable ? 1 : 0) + (failed > 0 ? 2 : 0);
    check(!this.#isBroken && !this.#isFreed, 'a broken queue takes a buffer');
    check(free >= ndescs, 'a full ring takes a buffer');
    const mappings = total + (hasTable ? 1 : 0);
    check(dma.liveMappings === liveMappings + mappings, 'a buffer is not mapped as it should be');
    // A try that failed comes first.
    const first = dma.next - mappings;
    check(first >= next, 'mappings are missing');
    for (let i = 0; i < total; i += 1) {
      const direction = i < outNum ? DmaDirection.TO_DEVICE : DmaDirection.FROM_DEVICE;
      const { gpa, length } = segments[i]!;
      const isRight = dma.gpa[first + i] === gpa && dma.length[first + i] === length;
      check(isRight && dma.direction[first + i] === direction, `piece ${i} is mapped otherwise`);
    }
    const id = this.#view.checkAdded(first, outNum, inNum, hasTable);
    check(!this.#sent.has(id), 'a buffer has the name of another');
    const inBytes = segments.slice(outNum).reduce((sum, { length }) => sum + length, 0);
    const sent = { token, id, ndescs, mappings, inBytes, hasTable };
    this.#sent.set(id, sent);
    this.#row.push(sent);
    this.#added += this.#isPacked ? ndescs : 1;
  }

  // The device returns a buffer that it has, as it should.
  #use(which: number, length: number): void {
    if (this.#row.length <= this.#batch) return;
    const left = this.#row.length - this.#batch;
    const sent = this.#row[this.#batch + (which % left)]!;
    this.#view.use(sent.id, length, this.#isPacked ? sent.ndescs : 1);
  }

  #get(): void {
    const expected = this.#foresee();
    this.#memory.work = 0;
    const result = this.#queue.getUsed();
    this.#checkWork(PER_CALL);
    if (expected === undefined) {
      check(result === undefined, 'a buffer comes back that nobody returned');
      return;
    }
    check(result !== undefined, 'a buffer does not come back');
    if (expected === 'bad') {
      check(result.kind === 'bad-ring', 'the device returns what it cannot have, unnoticed');
      check(this.#queue.brokenBy !== undefined, 'nothing says why a queue is broken');
      this.#isBroken = true;
      this.#outcome = 1 + (result.message.length & 7);
      return;
    }
    check(result.kind === 'used', 'a good buffer is refused');
    const { sent, length } = expected;
    check(result.token === sent.token, `token ${result.token} comes back, not ${sent.token}`);
    check(result.length === length, `${result.length} bytes came back, not ${length}`);
    this.#sent.delete(sent.id);
    this.#row.splice(this.#row.indexOf(sent), 1);
    this.#view.advance(this.#isPacked ? sent.ndescs : 1);
    this.#outcome = 16;
  }

  // What a naive reader of the used ring says of the next buffer.
  #foresee(): { sent: Sent; length: number } | 'bad' | undefined {
    if (this.#isBroken || this.#isFreed || !this.#hasUsed()) return undefined;
    if (!this.#hasInOrder) {
      const { id, length } = this.#view.used();
      const sent = this.#sent.get(id);
      return sent === undefined ? 'bad' : { sent, length };
    }
    if (this.#batch === 0) {
      const { id, length, count } = this.#view.used();
      const place = this.#row.findIndex((sent) => sent.id === id);
      if (place < 0 || place >= count) return 'bad';
      this.#batch = place + 1;
      this.#batchLength = length;
    }
    this.#batch -= 1;
    const sent = this.#row[0]!;
    return { sent, length: this.#batch === 0 ? this.#batchLength : sent.inBytes };
  }

  #detachAll(): void {
    const tokens = new Set([...this.#sent.values()].map(({ token }) => token));
    for (let count = tokens.size; count > 0; count -= 1) {
      this.#memory.work = 0;
      const detached = this.#queue.detachUnused();
      this.#checkWork(PER_CALL);
      check(detached !== undefined, 'a buffer that the device has is lost');
      check(
        tokens.delete(detached.token),
        `token ${detached.token} is taken back and was not given`,
      );
    }
    check(this.#queue.detachUnused() === undefined, 'more is taken back than was given');
    check(this.#queue.numFree === this.#queue.size, 'descriptors are missing at the end');
    check(this.#dma.liveMappings === 0, `${this.#dma.liveMappings} mappings do not end`);
    check(this.#dma.liveTables === 0, `${this.#dma.liveTables} tables are not given back`);
    this.#forget();
  }

  // The device was reset.
  #restart(): void {
    if (this.#isFreed) return;
    this.#detachAll();
    this.#memory.work = 0;
    this.#queue.reset();
    this.#checkWork(PER_CALL);
    check(!this.#queue.isBroken, 'a queue that starts anew is broken');
    check(!this.#queue.hasUsed(), 'a queue that starts anew has buffers');
  }

  #free(): void {
    if (this.#isFreed) return;
    this.#detachAll();
    this.#queue.free();
    this.#queue.free();
    this.#isFreed = true;
    check(
      this.#dma.parts.every(({ isLive }) => !isLive),
      'memory of the ring is not given back',
    );
  }

  #checkState(): void {
    const queue = this.#queue;
    let ndescs = 0;
    let mappings = 0;
    let tables = 0;
    for (const sent of this.#sent.values()) {
      ndescs += sent.ndescs;
      mappings += sent.mappings;
      if (sent.hasTable) tables += 1;
    }
    check(queue.numFree === queue.size - ndescs, 'free descriptors do not add up');
    check(this.#dma.liveMappings === mappings, 'mappings do not add up');
    check(this.#dma.liveTables === tables, 'tables do not add up');
    check(queue.isBroken === (this.#isBroken || this.#isFreed), 'broken, or not?');
  }

  #end(): void {
    this.#free();
  }
}
