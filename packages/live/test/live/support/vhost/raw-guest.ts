/**
 * A guest that decides itself what is mapped where, and gives the disk any bus address: with a
 * transcript of what it did, of each IOTLB message, and of what came of it.
 */
import { createHash } from 'node:crypto';
import { Rtas } from '@pinhole/guest';
import { H_PUT_TCE, H_PUT_TCE_INDIRECT, H_STUFF_TCE, RTAS_TOKENS } from '@pinhole/hcall';
import type { DmaOps } from '@pinhole/memory';
import { spaprPhbBuid } from '@pinhole/tce';
import {
  createDriverQueue,
  createPciModernTransport,
  type DriverQueue,
  featureBits,
  negotiateFeatures,
  setDriverOk,
  VIRTIO_BLK_S_OK,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
  type VirtioTransport,
} from '@pinhole/virtio';
import { shapeOf, type VhostSetup, type VhostSide } from './sides.js';

export const PAGE = 0x1000;
/** In a TCE: the device may read, and write. */
export const READ = 1;
export const WRITE = 2;
/** Where the windows of the first bridge are, and their LIOBNs. */
export const SECOND_WINDOW: bigint = 2n ** 59n;
const LIOBNS = [0x8000_0000n, 0x8000_0001n] as const;

/** Memory: the guest's own things, and pages to map. */
const TCE_LIST = 0x0100_0000;
const RTAS_CELLS = 0x0100_1000;
const RINGS = 0x0200_0000;
const RING_ROOM = 0x1_0000;
const REQUESTS = 0x0300_0000;
export const BUFFERS = 0x0400_0000;
export const BUFFER_COUNT = 24;
/** On the bus, in the default window: rings and requests as above, and where pages are mapped. */
export const PLAY = 0x0800_0000;
/** A request's header, and its status byte behind it. */
const REQUEST_ROOM = 32;
const HEADER = 16;
const REQUEST_COUNT = PAGE / REQUEST_ROOM;
const UNTOUCHED = 0xaa;

interface Flying {
  readonly name: string;
  readonly slot: number;
}

export class RawGuest {
  readonly transcript: string[] = [];
  readonly side: VhostSide;
  readonly #setup: VhostSetup;
  readonly #rtas: Rtas;
  #transport: VirtioTransport | undefined;
  #queues: DriverQueue<Flying>[] = [];
  #heard = 0;
  #slot = 0;
  #count = 0;

  constructor(side: VhostSide, setup: VhostSetup) {
    this.side = side;
    this.#setup = setup;
    const { memory, hypercalls } = side;
    this.#rtas = new Rtas({ hypercalls, memory, buffer: RTAS_CELLS });
    this.#heard = side.messages().length;
    for (let i = 0; i < BUFFER_COUNT; i += 1) memory.fill(BUFFERS + i * PAGE, PAGE, 0x40 + i);
  }

  /** The fewest descriptors that a queue has left. */
  get room(): number {
    return Math.min(...this.#queues.map(({ numFree }) => numFree));
  }

  /** Whether a request waits. */
  get isWaiting(): boolean {
    return this.#queues.some(({ numFree, size }) => numFree < size);
  }

  /** Resets the disk and brings it up; `unmapped`: without its rings. */
  start(unmapped = false): void {
    this.#step(`start${unmapped ? ', rings not mapped' : ''}`, () => {
      const made = createPciModernTransport(this.side.pciFunction(shapeOf(this.#setup)));
      if (!made.ok) throw new Error(made.message);
      const { transport } = made;
      this.#transport = transport;
      const { iommuPlatform, packed = false, queues = 1 } = this.#setup;
      const bits = [VIRTIO_F_VERSION_1];
      if (iommuPlatform) bits.push(VIRTIO_F_ACCESS_PLATFORM);
      if (packed) bits.push(VIRTIO_F_RING_PACKED);
      const negotiated = negotiateFeatures(transport, { supported: featureBits(...bits) });
      if (!negotiated.ok) throw new Error(negotiated.message);
      this.side.settle();
      this.#queues = Array.from({ length: queues }, (_, index) => {
        const queue = this.#createQueue(index, packed);
        const rings = RINGS + index * RING_ROOM;
        for (let at = rings; at < rings + RING_ROOM; at += PAGE) {
          this.#put(0, at, unmapped ? 0 : at, unmapped ? 0 : READ | WRITE);
        }
        transport.setupQueue(index, queue.setup);
        return queue;
      });
      this.#put(0, REQUESTS, REQUESTS, READ | WRITE);
      this.side.memory.fill(REQUESTS, PAGE, UNTOUCHED);
      setDriverOk(transport);
      this.side.settle();
      return `features ${hex(this.side.backendFeatures())}`;
    });
  }

  /** One TCE: of the play area's `page`, or of any bus address in a window. */
  map(page: number, gpa: number, perm: number, window: 0 | 1 = 0): void {
    const ioba = window === 0 ? PLAY + page * PAGE : page * PAGE;
    this.#step(`map ${page} ${hex(gpa)} ${perm} ${window}`, () => {
      const ret = this.#put(window, ioba, gpa, perm);
      return ret === 0 ? undefined : String(ret);
    });
  }

  /** H_STUFF_TCE: `count` TCEs at once. */
  stuff(page: number, count: number, tce = 0n): void {
    this.#step(`stuff ${page} ${count} ${hex(tce)}`, () => {
      const args = [LIOBNS[0], BigInt(PLAY + page * PAGE), tce, BigInt(count)];
      return String(this.side.hypercalls.call(H_STUFF_TCE, args).ret);
    });
  }

  /** H_PUT_TCE_INDIRECT. */
  indirect(page: number, tces: readonly bigint[]): void {
    this.#step(`indirect ${page} ${tces.map(hex).join(' ')}`, () => {
      for (const [i, tce] of tces.entries()) this.side.memory.writeU64Be(TCE_LIST + 8 * i, tce);
      const [ioba, list] = [PLAY + page * PAGE, TCE_LIST].map(BigInt) as [bigint, bigint];
      const args = [LIOBNS[0], ioba, list, BigInt(tces.length)];
      return String(this.side.hypercalls.call(H_PUT_TCE_INDIRECT, args).ret);
    });
  }

  /** A read or a write of one sector and more, `length` bytes at a bus address, and a kick. */
  transfer(op: 'read' | 'write', sector: number, bus: bigint, length: number, queue = 0): void {
    this.#step(`${op} ${sector} ${hex(bus)} ${length} queue ${queue}`, () => {
      this.#submit(op, sector, bus, length, queue);
    });
  }

  kick(queue = 0): void {
    this.#step(`kick ${queue}`, () => {
      this.#transport?.notifyQueue(queue);
    });
  }

  /** A second window: `pageShift` bits a page, 2^`windowShift` bytes. */
  createWindow(pageShift: number, windowShift: number): void {
    this.#step(`window of ${2 ** pageShift}`, () => {
      const args = [0, ...buid(), pageShift, windowShift];
      const rets = this.#rtas.call(RTAS_TOKENS['ibm,create-pe-dma-window'], args, 4);
      return rets.map((cell) => cell.toString(16)).join(' ');
    });
  }

  removeWindow(window: 0 | 1): void {
    this.#step(`remove window ${window}`, () => {
      const args = [Number(LIOBNS[window])];
      return String(this.#rtas.call(RTAS_TOKENS['ibm,remove-pe-dma-window'], args, 1));
    });
  }

  /** Windows as at the start. */
  resetWindows(): void {
    this.#step('reset windows', () => {
      const args = [0, ...buid()];
      return String(this.#rtas.call(RTAS_TOKENS['ibm,reset-pe-dma-window'], args, 1));
    });
  }

  /** Only resets the disk. */
  stop(): void {
    this.#step('stop', () => {
      this.#transport?.writeStatus(0);
    });
    this.#queues = [];
  }

  // What was done, what was said, what came back, and what all pages hold then.
  #step(name: string, act: () => unknown): void {
    this.transcript.push(`> ${name}`);
    const result = act();
    this.side.settle();
    const messages = this.side.messages();
    this.transcript.push(...messages.slice(this.#heard));
    this.#heard = messages.length;
    if (typeof result === 'string') this.transcript.push(`= ${result}`);
    this.#collect();
    const pages = new Uint8Array(BUFFER_COUNT * PAGE);
    this.side.memory.read(BUFFERS, pages);
    this.transcript.push(`= memory ${digest(pages)}`);
  }

  #submit(op: 'read' | 'write', sector: number, bus: bigint, length: number, index: number): void {
    const { memory } = this.side;
    const queue = this.#queues[index];
    if (queue === undefined) throw new Error(`no queue ${index}`);
    const slot = this.#slot;
    this.#slot = (slot + 1) % REQUEST_COUNT;
    this.#count += 1;
    const at = REQUESTS + slot * REQUEST_ROOM;
    memory.fill(at, REQUEST_ROOM, UNTOUCHED);
    memory.writeU32Le(at, op === 'write' ? 1 : 0);
    memory.writeU32Le(at + 4, 0);
    memory.writeU64Le(at + 8, BigInt(sector));
    const header = { gpa: at, length: HEADER };
    const status = { gpa: at + HEADER, length: 1 };
    const data = { gpa: this.#token(bus), length };
    const [out, inn] = op === 'write' ? [[header, data], [status]] : [[header], [data, status]];
    const added = queue.add(out, inn, { name: `${op} ${this.#count}`, slot });
    if (added !== 'ok') throw new Error(added);
    this.#transport?.notifyQueue(index);
  }

  #collect(): void {
    for (const queue of this.#queues) {
      for (;;) {
        const used = queue.getUsed();
        if (used === undefined) break;
        if (used.kind === 'bad-ring') throw new Error(used.message);
        const { name, slot } = used.token;
        const status = this.side.memory.readU8(REQUESTS + slot * REQUEST_ROOM + HEADER);
        const how = status === VIRTIO_BLK_S_OK ? 'ok' : `status ${status}`;
        this.transcript.push(`= ${name}: ${how}, used ${used.length}`);
      }
    }
  }

  #put(window: 0 | 1, ioba: number, gpa: number, perm: number): number {
    const tce = perm === 0 ? 0n : BigInt(gpa) | BigInt(perm);
    const base = window === 0 ? 0n : SECOND_WINDOW;
    const args = [LIOBNS[window], base + BigInt(ioba), tce];
    return this.side.hypercalls.call(H_PUT_TCE, args).ret;
  }

  readonly #tokens: bigint[] = [];

  // Driver queues think in guest memory: a data buffer's "address" is a number for its bus address.
  #token(bus: bigint): number {
    this.#tokens.push(bus);
    return TOKENS + this.#tokens.length * TOKEN_ROOM;
  }

  #createQueue(index: number, isPacked: boolean): DriverQueue<Flying> {
    const { memory } = this.side;
    let next = RINGS + index * RING_ROOM;
    const dma: DmaOps = {
      name: 'as it is told',
      maxMappingSize: 2 ** 31,
      map: (gpa, _length, _direction, out) => {
        const bus = gpa > TOKENS ? this.#tokens[(gpa - TOKENS) / TOKEN_ROOM - 1] : BigInt(gpa);
        if (bus === undefined) return false;
        out.hi = Number(bus >> 32n);
        out.lo = Number(bus & 0xffff_ffffn);
        return true;
      },
      unmap: () => {},
      allocCoherent: (length, out) => {
        const gpa = next;
        next += Math.ceil(length / PAGE) * PAGE;
        memory.fill(gpa, length, 0);
        out.hi = 0;
        out.lo = gpa;
        return gpa;
      },
      freeCoherent: () => {},
    };
    const size = this.#transport?.queueMaxSize(index) ?? 0;
    const queue = createDriverQueue<Flying>({
      memory,
      dma,
      tables: { allocate: () => undefined, free: () => {} },
      size,
      index,
      isPacked,
      layoutAlign: PAGE,
      hasIndirect: false,
      hasEventIdx: false,
    });
    if (queue === undefined) throw new Error('no room for the ring');
    return queue;
  }
}

const TOKENS = 2 ** 48;
const TOKEN_ROOM = 2 ** 33;

const hex = (value: number | bigint): string => `0x${value.toString(16)}`;
const digest = (bytes: Uint8Array): string =>
  createHash('sha256').update(bytes).digest('hex').slice(0, 16);

function buid(): [number, number] {
  const value = spaprPhbBuid(0);
  return [Number(value >> 32n), Number(value & 0xffff_ffffn)];
}
