import { type Gpa, type HiLo, joinU64, u16 } from '@pinhole/base';
import type { DmaOps } from '@pinhole/memory';
import { VIRTQ_AVAIL_F_NO_INTERRUPT, VIRTQ_DESC_SIZE, VIRTQ_USED_F_NO_NOTIFY } from '../params.js';
import type { QueueSetup } from '../transport/transport.js';
import { DriverQueueBase } from './driver-queue-base.js';
import type { DriverQueueOptions } from './driver-types.js';
import { RingMemory } from './ring-memory.js';
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

/** The driver's half of a split virtqueue. [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_add_split] */
export class SplitDriverQueue<T> extends DriverQueueBase<T> {
  protected override readonly retriesDirect = false;
  readonly #layout: SplitRingLayout;
  readonly #ring: RingMemory;
  readonly #dma: DmaOps;
  readonly #busHi: number;
  readonly #busLo: number;
  readonly #hasEventIdx: boolean;
  readonly #index: number;
  readonly #notify: (() => void) | undefined;
  #lastUsedIdx = 0;
  #availIdxShadow = 0;
  #availFlagsShadow = 0;

  /** Use `createDriverQueue`. */
  constructor(options: DriverQueueOptions, layout: SplitRingLayout, ringGpa: Gpa, address: HiLo) {
    super(options, layout.size);
    this.#layout = layout;
    this.#ring = new RingMemory(options.memory, ringGpa, layout.total, options.isBigEndian);
    this.#dma = options.dma;
    this.#busHi = address.hi;
    this.#busLo = address.lo;
    this.#hasEventIdx = options.hasEventIdx;
    this.#index = options.index ?? 0;
    this.#notify = options.notify;
  }

  override get ringGpa(): Gpa {
    return this.#ring.gpa;
  }

  override get setup(): QueueSetup {
    const base = joinU64(this.#busHi, this.#busLo);
    const { size, desc, avail, used } = this.#layout;
    return {
      size,
      desc: base + BigInt(desc),
      avail: base + BigInt(avail),
      used: base + BigInt(used),
    };
  }

  override get notificationData(): number {
    return ((this.#availIdxShadow << 16) | this.#index) >>> 0;
  }

  /** [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_kick_prepare_split] */
  override kickPrepare(): boolean {
    const newIdx = this.#availIdxShadow;
    const oldIdx = u16(newIdx - this.numAdded);
    this.numAdded = 0;
    if (this.#hasEventIdx) {
      return vringNeedEvent(this.#ring.readU16(this.#layout.availEvent), newIdx, oldIdx);
    }
    const flags = this.#ring.readU16(this.#layout.used + RING_FLAGS);
    return (flags & VIRTQ_USED_F_NO_NOTIFY) === 0;
  }

  /**
   * Asks the device to spare interrupts: an advice. With EVENT_IDX, an event just triggered will
   * not come again by itself, and nothing is written.
   * [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_disable_cb_split]
   */
  override disableCallbacks(): void {
    if ((this.#availFlagsShadow & VIRTQ_AVAIL_F_NO_INTERRUPT) !== 0) return;
    this.#availFlagsShadow |= VIRTQ_AVAIL_F_NO_INTERRUPT;
    if (this.wasEventTriggered) return;
    if (this.#hasEventIdx) this.#ring.writeU16(this.#layout.usedEvent, 0);
    else this.#writeAvailFlags();
  }

  /**
   * Asks for interrupts again. False if buffers came back in the meantime: process them first.
   * [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_enable_cb]
   */
  override enableCallbacks(): boolean {
    this.wasEventTriggered = false;
    if ((this.#availFlagsShadow & VIRTQ_AVAIL_F_NO_INTERRUPT) !== 0) {
      this.#availFlagsShadow &= ~VIRTQ_AVAIL_F_NO_INTERRUPT;
      if (!this.#hasEventIdx) this.#writeAvailFlags();
    }
    this.#ring.writeU16(this.#layout.usedEvent, this.#lastUsedIdx);
    return this.isBroken || !this.hasUsed();
  }

  /** For historical reasons: prod the device, if there is something for it to read. */
  protected override ringFull(hasOut: boolean): void {
    if (hasOut) this.#notify?.();
  }

  protected override writeRing(
    _head: number,
    index: number,
    _n: number,
    length: number,
    flags: number,
  ): void {
    const at = this.#layout.desc + VIRTQ_DESC_SIZE * index;
    this.#ring.writeDescriptor(at, this.address, length, flags, this.descs.next[index]!);
  }

  /** The new entry must be in the ring before the index shows it. [VIRTIO v1.2 §2.7.13.3.1] */
  protected override expose(head: number): void {
    const entry = availEntryOffset(this.#availIdxShadow & (this.size - 1));
    this.#ring.writeU16(this.#layout.avail + entry, head);
    this.#availIdxShadow = u16(this.#availIdxShadow + 1);
    this.#writeAvailIdx();
    this.numAdded += 1;
    // So many without a kick that the next comparison of indices would go wrong.
    if (this.numAdded === 0xffff) this.kick();
  }

  protected override unexpose(): void {
    this.#availIdxShadow = u16(this.#availIdxShadow - 1);
    this.#writeAvailIdx();
  }

  protected override hasUsedEntry(): boolean {
    return this.#lastUsedIdx !== this.#readUsedIdx();
  }

  protected override usedCount(): number {
    return u16(this.#readUsedIdx() - this.#lastUsedIdx);
  }

  protected override usedId(): number {
    return this.#ring.readU32(this.#usedEntry());
  }

  protected override usedLength(): number {
    return this.#ring.readU32(this.#usedEntry() + 4);
  }

  protected override advanceUsed(): void {
    this.#lastUsedIdx = u16(this.#lastUsedIdx + 1);
    if ((this.#availFlagsShadow & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0) {
      this.#ring.writeU16(this.#layout.usedEvent, this.#lastUsedIdx);
    }
  }

  protected override restart(): void {
    this.#lastUsedIdx = 0;
    this.#availIdxShadow = 0;
    this.#availFlagsShadow = 0;
    this.#ring.clear(this.#layout.total);
  }

  protected override freeRing(): void {
    this.#dma.freeCoherent(this.ringGpa, this.#busHi, this.#busLo, this.#layout.total);
  }

  #usedEntry(): number {
    return this.#layout.used + usedEntryOffset(this.#lastUsedIdx & (this.size - 1));
  }

  #readUsedIdx(): number {
    return this.#ring.readU16(this.#layout.used + RING_IDX);
  }

  #writeAvailIdx(): void {
    this.#ring.writeU16(this.#layout.avail + RING_IDX, this.#availIdxShadow);
  }

  #writeAvailFlags(): void {
    this.#ring.writeU16(this.#layout.avail + RING_FLAGS, this.#availFlagsShadow);
  }
}
