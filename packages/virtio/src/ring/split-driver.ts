import { type Gpa, type HiLo, joinU64, NO_TRACE, type Tracer, u16 } from '@pinhole/base';
import { DmaDirection, type DmaOps, type GuestMemory } from '@pinhole/memory';
import { VirtioError } from '../errors.js';
import {
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_DESC_SIZE,
  VIRTQ_USED_F_NO_NOTIFY,
} from '../params.js';
import type { QueueSetup } from '../transport/transport.js';
import { DriverDescriptors } from './driver-descriptors.js';
import type { DriverQueue } from './driver-queue.js';
import type {
  AddResult,
  BadRing,
  DriverQueueOptions,
  Segment,
  UsedBuffer,
} from './driver-types.js';
import {
  availEntryOffset,
  checkQueueSize,
  RING_FLAGS,
  RING_IDX,
  type SplitRingLayout,
  splitRingLayout,
  usedEntryOffset,
} from './split-layout.js';
import { vringNeedEvent } from './vring-need-event.js';

/**
 * Allocates a ring and makes the driver's half of it. `undefined`: no room, not even for a smaller
 * one. [linux v6.1 drivers/virtio/virtio_ring.c vring_alloc_queue_split]
 * @throws VirtioError `E_QUEUE_SIZE`
 */
export function createSplitDriverQueue<T>(
  options: DriverQueueOptions,
): SplitDriverQueue<T> | undefined {
  checkQueueSize(options.size);
  const { dma, layoutAlign, pageSize = 4096, mayReduceSize = true } = options;
  const address: HiLo = { hi: 0, lo: 0 };
  for (let size = options.size; size > 0; size >>>= 1) {
    const layout = splitRingLayout(size, layoutAlign);
    const gpa = dma.allocCoherent(layout.total, address);
    if (gpa !== undefined) return new SplitDriverQueue(options, layout, gpa, address);
    if (!mayReduceSize || layout.total <= pageSize) return undefined;
  }
  return undefined;
}

/**
 * The driver's half of a split virtqueue, mapping for mapping as Linux does it.
 * [linux v6.1 drivers/virtio/virtio_ring.c]
 *
 * The device can write the used ring, and a careless device more: what the driver acts upon (the
 * addresses to unmap, the free list) is in its own memory, not in the ring. From the ring come only
 * an index and a length. Unlike Linux the end of a chain, too, is known without the ring.
 */
export class SplitDriverQueue<T> implements DriverQueue<T> {
  readonly id: string;
  readonly size: number;
  readonly layout: SplitRingLayout;
  /** Where the ring lies in guest memory. */
  readonly ringGpa: Gpa;
  readonly #options: DriverQueueOptions;
  readonly #memory: GuestMemory;
  readonly #dma: DmaOps;
  readonly #tracer: Tracer;
  readonly #busHi: number;
  readonly #busLo: number;
  readonly #descs: DriverDescriptors;
  readonly #tokens: (T | undefined)[];
  readonly #address: HiLo = { hi: 0, lo: 0 };
  readonly #used: { kind: 'used'; token: T; length: number };
  #numFree: number;
  #freeHead = 0;
  #numAdded = 0;
  #lastUsedIdx = 0;
  #availIdxShadow = 0;
  #availFlagsShadow = 0;
  #wasEventTriggered = false;
  #brokenBy: BadRing | undefined;
  #isBroken = false;
  #isFreed = false;

  /** Use `createSplitDriverQueue`. */
  constructor(options: DriverQueueOptions, layout: SplitRingLayout, ringGpa: Gpa, address: HiLo) {
    this.id = options.id ?? 'vq0';
    this.size = layout.size;
    this.layout = layout;
    this.ringGpa = ringGpa;
    this.#options = options;
    this.#memory = options.memory;
    this.#dma = options.dma;
    this.#tracer = options.tracer ?? NO_TRACE;
    this.#busHi = address.hi;
    this.#busLo = address.lo;
    this.#descs = new DriverDescriptors(options.memory, ringGpa + layout.desc, layout.size);
    this.#tokens = new Array<T | undefined>(layout.size).fill(undefined);
    this.#used = { kind: 'used', token: undefined as T, length: 0 };
    this.#numFree = layout.size;
  }

  /** What the device is to be told. */
  get setup(): QueueSetup {
    const base = joinU64(this.#busHi, this.#busLo);
    const { size, desc, avail, used } = this.layout;
    return {
      size,
      desc: base + BigInt(desc),
      avail: base + BigInt(avail),
      used: base + BigInt(used),
    };
  }

  /** Free descriptors. */
  get numFree(): number {
    return this.#numFree;
  }

  /** What the device did wrong, if it did. */
  get brokenBy(): BadRing | undefined {
    return this.#brokenBy;
  }

  /** After a bad used entry, and after `free`: nothing can be added, nothing comes back. */
  get isBroken(): boolean {
    return this.#isBroken;
  }

  /**
   * Offers a buffer: pieces that the device reads, then pieces that it writes. `token` comes back
   * with it. Maps the pieces in order, then the indirect table if there is one; when a mapping
   * fails, ends those before it, first to last.
   * [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_add_split]
   * @throws VirtioError `E_EMPTY_BUFFER` without any piece.
   */
  add(out: readonly Segment[], inn: readonly Segment[], token: T): AddResult {
    const total = out.length + inn.length;
    if (total === 0) {
      throw new VirtioError('E_EMPTY_BUFFER', 'expected at least one segment, found none');
    }
    if (this.#isBroken) return 'broken';
    const head = this.#freeHead;
    const tableLength = VIRTQ_DESC_SIZE * total;
    const table =
      this.#options.hasIndirect && total > 1 && this.#numFree > 0
        ? this.#options.tables.allocate(tableLength)
        : undefined;
    const descsUsed = table === undefined ? total : 1;
    if (this.#numFree < descsUsed) {
      // For historical reasons: prod the device, if there is something for it to read.
      if (out.length > 0) this.#options.notify?.();
      return 'ring-full';
    }
    const isAdded =
      table === undefined
        ? this.#addDirect(head, out, inn)
        : this.#addIndirect(head, table, out, inn);
    if (!isAdded) {
      if (table !== undefined) this.#options.tables.free(table, tableLength);
      return 'no-dma-space';
    }
    this.#numFree -= descsUsed;
    this.#tokens[head] = token;
    this.#expose(head);
    return 'ok';
  }

  /**
   * Whether the device wants a kick for what was added since the last call.
   * [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_kick_prepare_split]
   */
  kickPrepare(): boolean {
    const newIdx = this.#availIdxShadow;
    const oldIdx = u16(newIdx - this.#numAdded);
    this.#numAdded = 0;
    const ring = this.ringGpa;
    if (this.#options.hasEventIdx) {
      const availEvent = this.#memory.readU16Le(ring + this.layout.availEvent);
      return vringNeedEvent(availEvent, newIdx, oldIdx);
    }
    const flags = this.#memory.readU16Le(ring + this.layout.used + RING_FLAGS);
    return (flags & VIRTQ_USED_F_NO_NOTIFY) === 0;
  }

  /**
   * Kicks the device if it wants that, and says whether it did.
   * [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_kick]
   */
  kick(): boolean {
    if (!this.kickPrepare() || this.#isBroken) return false;
    this.#options.notify?.();
    return true;
  }

  /** Whether buffers came back that `getUsed` did not give yet. */
  hasUsed(): boolean {
    return this.#lastUsedIdx !== this.#readUsedIdx();
  }

  /**
   * The next buffer that the device returned, its mappings ended: the table's first, then the
   * pieces' in order. The object is the queue's own and good until the next call.
   * [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_get_buf_ctx_split]
   */
  getUsed(): UsedBuffer<T> | BadRing | undefined {
    if (this.#isBroken || !this.hasUsed()) return undefined;
    const entry = this.layout.used + usedEntryOffset(this.#lastUsedIdx & (this.size - 1));
    const id = this.#memory.readU32Le(this.ringGpa + entry);
    const length = this.#memory.readU32Le(this.ringGpa + entry + 4);
    if (id >= this.size) return this.#bad(id, `id ${id} out of range`);
    if (!this.#descs.isHead(id)) return this.#bad(id, `id ${id} is not a head!`);
    this.#used.token = this.#tokens[id] as T;
    this.#used.length = length;
    this.#detach(id);
    this.#lastUsedIdx = u16(this.#lastUsedIdx + 1);
    if ((this.#availFlagsShadow & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0) {
      this.#writeUsedEvent(this.#lastUsedIdx);
    }
    return this.#used;
  }

  /**
   * What the driver's interrupt handler begins with: false if it has nothing to do here.
   * [linux v6.1 drivers/virtio/virtio_ring.c vring_interrupt]
   */
  noteInterrupt(): boolean {
    if (!this.hasUsed()) return false;
    if (!this.#isBroken && this.#options.hasEventIdx) this.#wasEventTriggered = true;
    return true;
  }

  /**
   * Asks the device to spare interrupts: an advice. With EVENT_IDX, an event just triggered will
   * not come again by itself, and nothing is written.
   * [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_disable_cb_split]
   */
  disableCallbacks(): void {
    if ((this.#availFlagsShadow & VIRTQ_AVAIL_F_NO_INTERRUPT) !== 0) return;
    this.#availFlagsShadow |= VIRTQ_AVAIL_F_NO_INTERRUPT;
    if (this.#wasEventTriggered) return;
    if (this.#options.hasEventIdx) this.#writeUsedEvent(0);
    else this.#writeAvailFlags();
  }

  /**
   * Asks for interrupts again. False if buffers came back in the meantime: process them first.
   * [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_enable_cb]
   */
  enableCallbacks(): boolean {
    this.#wasEventTriggered = false;
    if ((this.#availFlagsShadow & VIRTQ_AVAIL_F_NO_INTERRUPT) !== 0) {
      this.#availFlagsShadow &= ~VIRTQ_AVAIL_F_NO_INTERRUPT;
      if (!this.#options.hasEventIdx) this.#writeAvailFlags();
    }
    this.#writeUsedEvent(this.#lastUsedIdx);
    return this.#isBroken || !this.hasUsed();
  }

  /**
   * Takes back a buffer that the device still holds; for a device that was reset. Undefined when
   * all are back. [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_detach_unused_buf_split]
   */
  detachUnused(): { token: T } | undefined {
    for (let head = 0; head < this.size; head += 1) {
      if (!this.#descs.isHead(head)) continue;
      const token = this.#tokens[head] as T;
      this.#detach(head);
      this.#availIdxShadow = u16(this.#availIdxShadow - 1);
      this.#writeAvailIdx();
      return { token };
    }
    return undefined;
  }

  /** Gives the ring's memory back; the queue is over. [linux v6.1 drivers/virtio/virtio_ring.c vring_free] */
  free(): void {
    if (this.#isFreed) return;
    this.#isFreed = true;
    this.#isBroken = true;
    this.#dma.freeCoherent(this.ringGpa, this.#busHi, this.#busLo, this.layout.total);
  }

  // Into the ring's own descriptors, from `head` along the free list.
  #addDirect(head: number, out: readonly Segment[], inn: readonly Segment[]): boolean {
    const descs = this.#descs;
    const total = out.length + inn.length;
    let index = head;
    for (let n = 0; n < total; n += 1) {
      const isIn = n >= out.length;
      const { gpa, length } = isIn ? inn[n - out.length]! : out[n]!;
      if (!this.#dma.map(gpa, length, direction(isIn), this.#address)) {
        this.#unmapDirect(head, n);
        return false;
      }
      const more = n < total - 1 ? VIRTQ_DESC_F_NEXT : 0;
      descs.writeRing(index, this.#address, length, (isIn ? VIRTQ_DESC_F_WRITE : 0) | more);
      index = descs.next[index]!;
    }
    this.#freeHead = index;
    descs.begin(head, total, 0);
    return true;
  }

  // Into a table, which is mapped once it is filled.
  #addIndirect(
    head: number,
    table: Gpa,
    out: readonly Segment[],
    inn: readonly Segment[],
  ): boolean {
    const descs = this.#descs;
    const total = out.length + inn.length;
    descs.beginTable(head, table, total);
    for (let n = 0; n < total; n += 1) {
      const isIn = n >= out.length;
      const { gpa, length } = isIn ? inn[n - out.length]! : out[n]!;
      if (!this.#dma.map(gpa, length, direction(isIn), this.#address)) {
        this.#unmapTable(head, n);
        return false;
      }
      const more = n < total - 1 ? VIRTQ_DESC_F_NEXT : 0;
      descs.writeTable(head, n, this.#address, length, (isIn ? VIRTQ_DESC_F_WRITE : 0) | more);
    }
    const tableLength = VIRTQ_DESC_SIZE * total;
    if (!this.#dma.map(table, tableLength, DmaDirection.TO_DEVICE, this.#address)) {
      this.#unmapTable(head, total);
      return false;
    }
    descs.writeRing(head, this.#address, tableLength, VIRTQ_DESC_F_INDIRECT);
    this.#freeHead = descs.next[head]!;
    descs.begin(head, 1, total);
    return true;
  }

  // The new entry must be in the ring before the index shows it. [VIRTIO v1.2 §2.7.13.3.1]
  #expose(head: number): void {
    const entry = this.layout.avail + availEntryOffset(this.#availIdxShadow & (this.size - 1));
    this.#memory.writeU16Le(this.ringGpa + entry, head);
    this.#availIdxShadow = u16(this.#availIdxShadow + 1);
    this.#writeAvailIdx();
    this.#numAdded += 1;
    // So many without a kick that the next comparison of indices would go wrong.
    if (this.#numAdded === 0xffff) this.kick();
  }

  // Ends the mappings of a buffer and frees its descriptors.
  #detach(head: number): void {
    const descs = this.#descs;
    const count = descs.chainLength(head);
    const tableEntries = descs.tableEntries(head);
    this.#tokens[head] = undefined;
    const last = this.#unmapDirect(head, count);
    descs.next[last] = this.#freeHead;
    this.#freeHead = head;
    this.#numFree += count;
    if (tableEntries > 0) {
      this.#unmapTable(head, tableEntries);
      this.#options.tables.free(descs.tableGpa(head), VIRTQ_DESC_SIZE * tableEntries);
    }
    descs.end(head);
  }

  // Unmaps `count` ring descriptors from `head` on, and returns the last one.
  #unmapDirect(head: number, count: number): number {
    const descs = this.#descs;
    let last = head;
    for (let n = 0, index = head; n < count; n += 1) {
      const isIn = (descs.flags[index]! & VIRTQ_DESC_F_WRITE) !== 0;
      this.#dma.unmap(descs.hi[index]!, descs.lo[index]!, descs.len[index]!, direction(isIn));
      last = index;
      index = descs.next[index]!;
    }
    return last;
  }

  #unmapTable(head: number, count: number): void {
    const words = this.#descs.tableWords(head);
    for (let at = 0; at < 4 * count; at += 4) {
      const isIn = (words[at + 3]! & VIRTQ_DESC_F_WRITE) !== 0;
      this.#dma.unmap(words[at]!, words[at + 1]!, words[at + 2]!, direction(isIn));
    }
  }

  #bad(id: number, message: string): BadRing {
    this.#isBroken = true;
    this.#brokenBy = { kind: 'bad-ring', id, message };
    if (this.#tracer.on) {
      this.#tracer.event('guest', 'virtqueue_bad_ring', { vq: this.id, message });
    }
    return this.#brokenBy;
  }

  #readUsedIdx(): number {
    return this.#memory.readU16Le(this.ringGpa + this.layout.used + RING_IDX);
  }

  #writeAvailIdx(): void {
    this.#memory.writeU16Le(this.ringGpa + this.layout.avail + RING_IDX, this.#availIdxShadow);
  }

  #writeAvailFlags(): void {
    this.#memory.writeU16Le(this.ringGpa + this.layout.avail + RING_FLAGS, this.#availFlagsShadow);
  }

  #writeUsedEvent(value: number): void {
    this.#memory.writeU16Le(this.ringGpa + this.layout.usedEvent, value);
  }
}

function direction(isIn: boolean): DmaDirection {
  return isIn ? DmaDirection.FROM_DEVICE : DmaDirection.TO_DEVICE;
}
