import { NO_TRACE, Tracer } from '@pinhole/base';
import type { DmaSpace } from '@pinhole/memory';
import {
  createDeviceQueue,
  createSpaceMapper,
  type DeviceQueue,
  type DeviceQueueOptions,
  type DmaMapper,
  featureBits,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_NOTIFY_ON_EMPTY,
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_EVENT_IDX,
  type VirtqueueElement,
} from '../../src/index.js';
import { CheckedMemory } from './checked-memory.js';
import { BufferSpace, CheckedMapper, Iommu, RingSpace } from './checked-space.js';
import {
  BIG_ENDIAN,
  DEVICE_EVENT_IDX,
  DEVICE_IN_ORDER,
  DEVICE_IOMMU,
  DEVICE_PLAIN_MAPPER,
  DEVICE_WINDOWS,
  DeviceOp,
  NOTIFY_ON_EMPTY,
  TRACED,
} from './device-op.js';
import { noteRings, placeRings, sizeOf } from './device-rings.js';
import { check } from './finding.js';
import { HostileDriver } from './hostile-driver.js';
import { mostSegments, NaiveChain } from './naive-chain.js';
import { lengthOf, STEP } from './program.js';

// Accesses and translations that a device may need, by what it does. A descriptor is read in at most
// four accesses, each in at most five pieces where it is not mapped.
const PER_DESCRIPTOR = 48;
const PER_CALL = 64;
const MOST_PAGES = 512;
/** Queues whose waiting chains are measured: the cost is that of all their tables. */
const MOST_MEASURED = 64;

/** An element in flight. */
interface Taken {
  readonly element: VirtqueueElement;
  readonly head: number;
  readonly ndescs: number;
  readonly segments: number;
  /** Which pop took it. */
  readonly serial: number;
}

export type MakeDeviceQueue = (isPacked: boolean, options: DeviceQueueOptions) => DeviceQueue;

/**
 * The device's half against a hostile driver. After every step: nothing was thrown, every access was
 * to what is the device's to touch, the work was bounded, and what a naive reader of the ring makes of
 * it is what the queue made of it.
 */
export class DeviceTarget {
  /** What the last run took: entries of the queue, accesses and translations. */
  cost = 0;
  readonly #isPacked: boolean;
  readonly #make: MakeDeviceQueue;
  readonly #hits: Uint8Array;
  readonly #memory = new CheckedMemory();
  readonly #iommu = new Iommu(this.#memory);
  readonly #rings = new RingSpace(this.#iommu);
  readonly #mapper: CheckedMapper = new CheckedMapper(
    createSpaceMapper(new BufferSpace(this.#iommu)),
  );
  readonly #naive = new NaiveChain(this.#memory, this.#iommu);
  readonly #driver = new HostileDriver(this.#memory, this.#iommu, this.#rings);
  readonly #tracer = new Tracer({ emit() {} });
  readonly #owner = { isBroken: false, tracer: NO_TRACE, fail: (): void => {} };
  readonly #elements = new Set<VirtqueueElement>();
  #queue!: DeviceQueue;
  #features = 0n;
  #hasEventIdx = false;
  #hasInOrder = false;
  #isPlain = false;
  #size = 0;
  // The model: what the queue must hold.
  #taken: Taken[] = [];
  #filled: Taken[] = [];
  #order: { serial: number; ndescs: number; isFinished: boolean }[] = [];
  #lastAvail = 0;
  #availWrap = 1;
  #inUse = 0;
  #serial = 0;
  #lastSerial = -1;
  #peak = 0;
  #largest = 0;
  #saves = 0;
  // Something that nobody can foresee happened to the queue, or to the step.
  #isTorn = false;
  #hasDetached = false;
  #isDisturbed = false;
  #failures = 0;
  #message = '';
  #outcome = 0;

  /** `hits` is where new states are noted; its length is a power of two. */
  constructor(
    isPacked: boolean,
    hits: Uint8Array,
    make: MakeDeviceQueue = createDeviceQueue as MakeDeviceQueue,
  ) {
    this.#isPacked = isPacked;
    this.#make = make;
    this.#hits = hits;
    this.#memory.permissions = this.#rings;
    this.#memory.onCountdown = () => {
      this.#isDisturbed = true;
      this.#driver.strike();
    };
    const owner = this.#owner;
    owner.fail = (...args: unknown[]): void => {
      owner.isBroken = true;
      this.#failures += 1;
      this.#message = String(args[0]);
    };
  }

  /** Runs a program to its end. @throws whatever is found */
  run(input: Uint8Array): void {
    this.#begin(input);
    let before = 0;
    for (let at = STEP; at + STEP <= input.length; at += STEP) {
      const operation = input[at]! % 24;
      this.#beginStep();
      const failures = this.#failures;
      this.#outcome = 0;
      this.#step(operation, input, at);
      if (failures !== this.#failures) {
        this.#outcome = 64 + ((this.#message.charCodeAt(0) + this.#message.charCodeAt(9)) & 31);
      }
      this.#checkState();
      const place = (before * 61 + operation * 17 + this.#outcome * 229) & (this.#hits.length - 1);
      this.#hits[place] = 1;
      before = operation + this.#outcome * 5;
    }
    this.#end();
  }

  #begin(input: Uint8Array): void {
    const flags = input[0] ?? 0;
    const more = input[1] ?? 0;
    const memory = this.#memory;
    memory.reset();
    this.#iommu.reset();
    this.#iommu.isIdentity = (flags & DEVICE_IOMMU) === 0;
    memory.hasWindows = (flags & DEVICE_WINDOWS) !== 0;
    memory.hasWords = (more & 2) !== 0;
    this.#rings.hasGeneration = (more & 4) !== 0;
    memory.isBig = !this.#isPacked && (flags & BIG_ENDIAN) !== 0;
    this.#isPlain = (flags & DEVICE_PLAIN_MAPPER) !== 0;
    this.#mapper.reset();
    this.#mapper.hasBounce = (more & 1) !== 0;
    this.#rings.isShared = this.#isPlain;
    this.#rings.beginStep();
    for (const area of this.#rings.areas) area.end = 0;
    this.#owner.isBroken = false;
    this.#owner.tracer = (flags & TRACED) !== 0 ? this.#tracer : NO_TRACE;
    this.#hasEventIdx = (flags & DEVICE_EVENT_IDX) !== 0;
    this.#hasInOrder = (flags & DEVICE_IN_ORDER) !== 0;
    this.#features = featureBits(
      VIRTIO_F_VERSION_1,
      ...(this.#hasEventIdx ? [VIRTIO_RING_F_EVENT_IDX] : []),
      ...(this.#hasInOrder ? [VIRTIO_F_IN_ORDER] : []),
      ...((flags & NOTIFY_ON_EMPTY) !== 0 ? [VIRTIO_F_NOTIFY_ON_EMPTY] : []),
    );
    this.#size = sizeOf(input[2] ?? 0);
    this.#failures = 0;
    this.#elements.clear();
    this.#peak = 0;
    this.#largest = this.#size;
    this.#saves = 0;
    this.cost = this.#size;
    this.#serial = 0;
    this.#queue = this.#makeQueue();
    this.#queue.setFeatures(this.#features);
    this.#forget();
    this.#configure(input[3] ?? 0);
    this.#wind((input[4] ?? 0) | ((input[5] ?? 0) << 8));
  }

  #makeQueue(): DeviceQueue {
    const options: DeviceQueueOptions = {
      owner: this.#owner,
      id: 'q',
      maxSize: this.#size,
      memory: this.#memory,
      space: this.#rings as DmaSpace,
      isBigEndian: this.#memory.isBig,
      ...(this.#isPlain ? {} : { mapper: this.#mapper as DmaMapper }),
    };
    return this.#make(this.#isPacked, options);
  }

  #forget(): void {
    this.#taken = [];
    this.#filled = [];
    this.#order = [];
    this.#lastAvail = 0;
    this.#availWrap = 1;
    this.#inUse = 0;
    this.#lastSerial = -1;
    this.#isTorn = false;
    this.#hasDetached = false;
  }

  #configure(where: number): void {
    const setup = placeRings(this.#size, where);
    noteRings(this.#rings, setup, this.#isPacked, this.#hasEventIdx);
    this.#driver.begin(setup, this.#isPacked, this.#hasEventIdx);
    this.#queue.configure(setup);
  }

  // Starts somewhere else than at the beginning: near the wrap, for example.
  #wind(index: number): void {
    if (index === 0) return;
    const { size } = this.#queue;
    const start = this.#isPacked ? index % size : index & 0xffff;
    const wrap = this.#isPacked ? (index >> 15) & 1 : 1;
    this.#driver.wind(start, wrap);
    this.#lastAvail = start;
    this.#availWrap = wrap;
    const state = this.#queue.save();
    if (state.rings === undefined || this.#owner.isBroken) {
      this.#isTorn = true;
      return;
    }
    this.#queue.restore({
      ...state,
      lastAvailIdx: start,
      usedIdx: start,
      ...(this.#isPacked ? { lastAvailWrapCounter: wrap, usedWrapCounter: wrap } : {}),
    });
  }

  #beginStep(): void {
    this.#rings.beginStep();
    this.#memory.work = 0;
    this.#iommu.work = 0;
    this.#isDisturbed = false;
  }

  #checkWork(most: number): void {
    const work = this.#memory.work + this.#iommu.work;
    this.cost += work;
    check(work <= most, `a step takes ${work} accesses and translations, expected at most ${most}`);
    this.#memory.work = 0;
    this.#iommu.work = 0;
  }

  #step(operation: number, input: Uint8Array, at: number): void {
    const a = input[at + 1]!;
    const b = input[at + 2]!;
    const c = input[at + 3]!;
    switch (operation) {
      case DeviceOp.DRAIN:
        this.#drain(a, b, c);
        break;
      case DeviceOp.POP:
        for (let n = a & 3; n >= 0; n -= 1) this.#pop();
        break;
      case DeviceOp.PUSH:
        if (this.#filled.length === 0) this.#push(a, writtenOf(b));
        break;
      case DeviceOp.FILL:
        this.#fill(a, writtenOf(b));
        break;
      case DeviceOp.FLUSH:
        this.#flush();
        break;
      case DeviceOp.UNPOP:
        this.#unpop();
        break;
      case DeviceOp.DETACH:
        this.#detach(a);
        break;
      case DeviceOp.AVAIL_BYTES:
        this.#availBytes(lengthOf(a), lengthOf(b));
        break;
      case DeviceOp.SET_NOTIFICATION:
        this.#queue.setNotification((a & 1) !== 0);
        this.#checkWork(PER_CALL);
        break;
      case DeviceOp.SHOULD_NOTIFY:
        this.#outcome = this.#queue.shouldNotify() ? 1 : 0;
        this.#checkWork(PER_CALL);
        break;
      case DeviceOp.IS_EMPTY:
        this.#isEmpty();
        break;
      case DeviceOp.SAVE:
        this.#saveAndRestore(a);
        break;
      case DeviceOp.RESET:
        this.#reset(a, b, c);
        break;
      case DeviceOp.CONFIGURE:
        this.#reconfigure(a, b);
        break;
      case DeviceOp.BATCH:
        for (let n = a & 7; n >= 0; n -= 1) this.#fill(b, writtenOf(c));
        this.#flush();
        break;
      default:
        this.#driver.step(operation, input, at);
    }
  }

  #pop(): VirtqueueElement | undefined {
    const queue = this.#queue;
    const wasBroken = this.#owner.isBroken;
    const { lastAvailIdx, size } = queue;
    const verdict = this.#foresee();
    const head = this.#driver.head;
    this.#beginStep();
    const element = queue.pop();
    const naive = this.#naive;
    const isKnown = verdict !== 'unknown' && !this.#isDisturbed;
    const most = mostSegments(size) + 2;
    const visited = isKnown ? naive.visited + 1 : most;
    const pages = isKnown ? 2 * naive.pages : most * MOST_PAGES;
    if (wasBroken) {
      check(element === undefined, 'a broken device takes a buffer');
      check(this.#memory.work + this.#iommu.work === 0, 'a broken device looks at its queue');
      return undefined;
    }
    this.#checkWork(PER_CALL + PER_DESCRIPTOR * visited + pages);
    if (element === undefined) {
      this.#lastAvail = queue.lastAvailIdx;
      if (!isKnown) return undefined;
      if (this.#owner.isBroken) {
        const ndescs = this.#isPacked && verdict === 'good' ? naive.ndescs : 1;
        const isFull = this.#inUse + ndescs > size || this.#order.length >= size;
        check(verdict === 'bad' || isFull, `a good chain is refused: ${this.#message}`);
      } else {
        check(this.#driver.isAvailEmpty(lastAvailIdx, this.#availWrap), 'a buffer is not taken');
      }
      return undefined;
    }
    check(!this.#owner.isBroken, 'a device breaks and takes a buffer');
    this.#outcome = 1 + Math.min(element.outNum, 3) + 4 * Math.min(element.inNum, 3);
    if (isKnown) this.#compare(element, verdict, head);
    this.#checkElement(element);
    this.#take(element);
    return element;
  }

  // What a naive reader makes of the next chain; its head is the driver's `head`.
  #foresee(): 'good' | 'bad' | 'unknown' {
    const { lastAvailIdx, size } = this.#queue;
    const verdict = this.#driver.nextHead(lastAvailIdx, size, this.#memory.hasWindows);
    if (verdict !== 'good' || this.#isTorn) return this.#isTorn ? 'unknown' : verdict;
    this.#naive.written =
      this.#hasEventIdx && !this.#isPacked ? this.#driver.availEventGpa(size) : -1;
    const desc = this.#rings.areas[0].start;
    const at = this.#isPacked ? lastAvailIdx : this.#driver.head;
    const chain = this.#naive.decode(this.#isPacked, desc, size, at);
    return chain === 'bad' && this.#mapper.hasBounce && !this.#isPlain ? 'unknown' : chain;
  }

  #compare(element: VirtqueueElement, verdict: string, head: number): void {
    const naive = this.#naive;
    check(verdict === 'good', 'a bad chain is taken');
    check(element.head === (this.#isPacked ? naive.id : head), 'the buffer has another name');
    check(element.ndescs === naive.ndescs, 'the buffer takes up other descriptors');
    const isSame = element.outNum === naive.outNum && element.inNum === naive.inNum;
    check(isSame, 'the buffer has other segments');
    for (let i = 0; i < naive.outNum + naive.inNum; i += 1) {
      const isRight = element.gpa[i] === naive.gpa[i] && element.length[i] === naive.length[i];
      check(isRight, `segment ${i} of the buffer lies elsewhere`);
    }
  }

  #checkElement(element: VirtqueueElement): void {
    const { outNum, inNum, gpa, length, ndescs } = element;
    const count = outNum + inNum;
    const most = mostSegments(this.#queue.size);
    check(count > 0 && count <= most, `a buffer has ${count} segments`);
    // Room grows by doubling, and an element may be from before the queue became smaller.
    const room = mostSegments(Math.max(this.#largest, this.#queue.size));
    check(gpa.length < 2 * room, 'an element has room for more segments than there can be');
    check(ndescs >= 1 && ndescs <= this.#queue.size, 'a buffer takes up more than the ring');
    for (let i = 0; i < count; i += 1) {
      const isBounced = gpa[i] === -1 && length[i]! <= 4096 && this.#mapper.hasBounce;
      check(
        length[i]! > 0 && (isBounced || this.#memory.isBacked(gpa[i]!, length[i]!)),
        'a segment is no memory',
      );
    }
    check(!this.#taken.some((taken) => taken.element === element), 'an element is taken twice');
  }

  #take(element: VirtqueueElement): void {
    const { head, ndescs, outNum, inNum } = element;
    const serial = this.#serial;
    this.#serial += 1;
    this.#lastSerial = serial;
    this.#taken.push({ element, head, ndescs, segments: outNum + inNum, serial });
    if (this.#hasInOrder) this.#order.push({ serial, ndescs, isFinished: false });
    this.#inUse += ndescs;
    this.#lastAvail += this.#isPacked ? ndescs : 1;
    if (!this.#isPacked) this.#lastAvail &= 0xffff;
    else if (this.#lastAvail >= this.#queue.size) {
      this.#lastAvail -= this.#queue.size;
      this.#availWrap ^= 1;
    }
    this.#elements.add(element);
    this.#peak = Math.max(this.#peak, this.#taken.length);
  }

  // Writes into a buffer as a device does: its own writable segments, nothing else.
  #serve(element: VirtqueueElement): void {
    const { outNum, inNum, gpa, length } = element;
    for (let i = outNum; i < outNum + Math.min(inNum, 2); i += 1) {
      if (gpa[i]! < 0) continue;
      const bytes = Math.min(length[i]!, 16);
      this.#memory.touch(gpa[i]!, bytes);
      this.#memory.bytes.fill(0xa5, gpa[i]!, gpa[i]! + bytes);
    }
  }

  #choose(which: number): Taken | undefined {
    const taken = this.#taken;
    return taken.length === 0 ? undefined : taken.splice(which % taken.length, 1)[0];
  }

  #push(which: number, written: number): void {
    const chosen = this.#choose(which);
    if (chosen === undefined) return;
    if ((which & 0x80) !== 0) this.#serve(chosen.element);
    const { usedIdx } = this.#queue;
    const wrap = this.#queueUsedWrap();
    this.#beginStep();
    this.#queue.push(chosen.element, written);
    this.#checkWork(PER_CALL + PER_CALL * (1 + this.#order.length));
    this.#finish([chosen], 1);
    if (this.#hasInOrder || this.#isTorn || this.#isDisturbed || this.#owner.isBroken) return;
    check(
      this.#driver.isUsed(usedIdx, wrap, this.#queue.size, chosen.head, written),
      'a buffer that went back is not in the ring',
    );
  }

  #queueUsedWrap(): number {
    return this.#isPacked ? (this.#queue.save().usedWrapCounter ?? 1) : 1;
  }

  #fill(which: number, written: number): void {
    if (this.#filled.length >= this.#queue.size) return;
    const chosen = this.#choose(which);
    if (chosen === undefined) return;
    if ((which & 0x80) !== 0) this.#serve(chosen.element);
    this.#beginStep();
    this.#queue.fill(chosen.element, written, this.#filled.length);
    this.#checkWork(PER_CALL);
    this.#filled.push(chosen);
    this.#lastSerial = -1;
  }

  #flush(): void {
    const count = this.#filled.length;
    if (count === 0) return;
    this.#beginStep();
    this.#queue.flush(count);
    this.#checkWork(PER_CALL + PER_CALL * (count + this.#order.length));
    this.#finish(this.#filled.splice(0), count);
  }

  // Buffers went back, or will when those before them do.
  #finish(done: readonly Taken[], count: number): void {
    this.#lastSerial = -1;
    if (this.#owner.isBroken) {
      // As QEMU counts, whatever the buffers take up.
      this.#inUse -= count;
      return;
    }
    if (!this.#queue.isConfigured || !this.#driver.hasUsed) {
      this.#isTorn = true;
      return;
    }
    if (!this.#hasInOrder) {
      for (const { ndescs } of done) this.#inUse -= ndescs;
      return;
    }
    for (const { serial } of done) {
      const place = this.#order.find((entry) => entry.serial === serial);
      if (place !== undefined) place.isFinished = true;
    }
    while (this.#order[0]?.isFinished === true) this.#inUse -= this.#order.shift()!.ndescs;
  }

  #unpop(): void {
    const last = this.#taken.at(-1);
    if (last === undefined || last.serial !== this.#lastSerial || this.#filled.length > 0) return;
    this.#taken.pop();
    this.#order.pop();
    this.#lastSerial = -1;
    this.#queue.unpop(last.element);
    this.#checkWork(PER_CALL);
    this.#inUse -= last.ndescs;
    this.#lastAvail -= this.#isPacked ? last.ndescs : 1;
    if (!this.#isPacked) this.#lastAvail &= 0xffff;
    else if (this.#lastAvail < 0) {
      this.#lastAvail += this.#queue.size;
      this.#availWrap ^= 1;
    }
  }

  #detach(which: number): void {
    const chosen = this.#choose(which);
    if (chosen === undefined) return;
    this.#hasDetached = true;
    this.#lastSerial = -1;
    this.#queue.detach(chosen.element);
    this.#checkWork(PER_CALL);
    this.#inUse -= chosen.ndescs;
  }

  #isEmpty(): void {
    const isEmpty = this.#queue.isEmpty();
    this.#checkWork(PER_CALL);
    if (this.#owner.isBroken) check(isEmpty, 'a broken device has something to do');
    this.#outcome = isEmpty ? 1 : 0;
  }

  #availBytes(maxIn: number, maxOut: number): void {
    if (this.#queue.size > MOST_MEASURED) return;
    const { inUse, lastAvailIdx } = this.#queue;
    const { inBytes, outBytes } = this.#queue.availBytes(maxIn, maxOut);
    const { size } = this.#queue;
    this.#checkWork(PER_CALL * (size + 1) + PER_DESCRIPTOR * size * (mostSegments(size) + 2));
    this.#outcome = (inBytes > 0 ? 1 : 0) + (outBytes > 0 ? 2 : 0);
    check(
      inUse === this.#queue.inUse && lastAvailIdx === this.#queue.lastAvailIdx,
      'measuring takes buffers',
    );
    check(
      inBytes >= 0 && inBytes < 2 ** 32 && outBytes >= 0 && outBytes < 2 ** 32,
      'a measure is no 32-bit number',
    );
  }

  // QEMU's loop, bounded: the driver may add while the device takes.
  #drain(most: number, written: number, flags: number): void {
    if (this.#filled.length > 0) return;
    let left = 1 + (most & 31);
    for (let round = 0; round < 3; round += 1) {
      this.#queue.setNotification(false);
      while (left > 0 && this.#pop() !== undefined) {
        left -= 1;
        if ((flags & 1) === 0) this.#push(this.#taken.length - 1, writtenOf(written));
      }
      this.#queue.setNotification(true);
      if ((flags & 2) === 0) this.#queue.shouldNotify();
      this.#beginStep();
      if (this.#queue.isEmpty() || left === 0) break;
    }
  }

  #saveAndRestore(flags: number): void {
    // What is filled and not flushed is nowhere; a queue with holes cannot be saved.
    if (this.#saves === 2) return;
    this.#saves += 1;
    if (this.#filled.length > 0 || this.#hasDetached || this.#isTorn) return;
    const queue = this.#queue;
    const state = queue.save();
    const elements = this.#taken.map(({ element }) => queue.saveElement(element));
    const isSame = (flags & 1) === 0;
    if (isSame) for (const { element } of this.#taken) queue.detach(element);
    else {
      for (const { element } of this.#taken) queue.detach(element);
      this.#queue = this.#makeQueue();
      this.#queue.setFeatures(this.#features);
      this.#elements.clear();
      this.#peak = this.#taken.length;
    }
    this.#beginStep();
    this.#queue.restore(state);
    this.#checkWork(2 * PER_CALL);
    const before = this.#taken;
    this.#taken = [];
    for (const [i, taken] of before.entries()) {
      this.#beginStep();
      const element = this.#queue.restoreElement(elements[i]!);
      this.#checkWork(PER_CALL + (taken.segments + 1) * MOST_PAGES);
      if (element === undefined) {
        check(this.#owner.isBroken, 'an element is lost and the device is not broken');
        this.#isTorn = true;
        continue;
      }
      check(
        element.head === taken.head && element.ndescs === taken.ndescs,
        'a restored element is another one',
      );
      this.#elements.add(element);
      this.#taken.push({ ...taken, element, segments: element.outNum + element.inNum });
    }
    this.#lastSerial = -1;
    this.#peak = Math.max(this.#peak, this.#taken.length);
    this.#outcome = before.length > 0 ? 1 : 0;
  }

  #reset(flags: number, size: number, where: number): void {
    this.#detachAll();
    this.#owner.isBroken = false;
    this.#queue.reset();
    this.#checkWork(PER_CALL);
    check(this.#queue.pop() === undefined, 'a queue that was reset takes a buffer');
    check(this.#queue.inUse === 0, 'a queue that was reset has buffers in flight');
    this.#forget();
    if ((flags & 1) !== 0) this.#size = Math.min(sizeOf(size), this.#queue.maxSize);
    else this.#size = this.#queue.maxSize;
    // A ring that starts anew is empty.
    if ((flags & 2) === 0) this.#memory.reset();
    this.#queue.setFeatures(this.#features);
    this.#configure((flags & 4) === 0 ? 0 : where);
  }

  // The driver gives other addresses and another size while the device is at work.
  #reconfigure(size: number, where: number): void {
    if (this.#filled.length > 0) return;
    this.#isTorn = true;
    this.#size = sizeOf(size);
    this.#largest = Math.max(this.#largest, this.#size);
    const setup = placeRings(this.#size, where);
    const before = this.#queue.size;
    this.#queue.configure(setup);
    this.#checkWork(PER_CALL);
    const actual = { ...setup, size: this.#queue.size };
    check(
      actual.size === before || actual.size === setup.size,
      'a queue has a size that nobody chose',
    );
    noteRings(this.#rings, actual, this.#isPacked, this.#hasEventIdx);
    this.#driver.begin(actual, this.#isPacked, this.#hasEventIdx);
    this.#order = [];
  }

  #detachAll(): void {
    if (this.#filled.length > 0) this.#flush();
    for (const { element } of this.#taken.splice(0)) this.#queue.detach(element);
    this.#checkWork(PER_CALL);
    check(this.#mapper.live === 0, `${this.#mapper.live} mappings do not end`);
  }

  #checkState(): void {
    const queue = this.#queue;
    const isTorn = this.#isTorn;
    let segments = 0;
    for (const taken of this.#taken) segments += taken.segments;
    if (!this.#isPlain) check(this.#mapper.live === segments, 'mappings and elements do not agree');
    check(
      this.#elements.size <= this.#peak + 1,
      `${this.#elements.size} elements for ${this.#peak} buffers`,
    );
    check(Number.isInteger(queue.usedIdx) && Number.isInteger(queue.lastAvailIdx), 'no index');
    if (isTorn) return;
    check(queue.inUse === this.#inUse, `in use: ${queue.inUse}, expected ${this.#inUse}`);
    check(this.#owner.isBroken || queue.inUse <= queue.size, 'more in flight than the queue holds');
    check(
      queue.lastAvailIdx === this.#lastAvail,
      `last available index ${queue.lastAvailIdx}, expected ${this.#lastAvail}`,
    );
  }

  #end(): void {
    this.#beginStep();
    this.#detachAll();
  }
}

/** How many bytes a device says that it wrote: often a lot. */
function writtenOf(byte: number): number {
  return lengthOf(byte);
}
