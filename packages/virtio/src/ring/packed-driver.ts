import { type Gpa, type HiLo, joinU64, u16 } from '@pinhole/base';
import type { DmaOps } from '@pinhole/memory';
import {
  EVENT_SUPPRESS_SIZE,
  RING_EVENT_FLAGS_DESC,
  RING_EVENT_FLAGS_DISABLE,
  RING_EVENT_FLAGS_ENABLE,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_USED,
  VIRTQ_DESC_SIZE,
} from '../params.js';
import type { QueueSetup } from '../transport/transport.js';
import { DriverQueueBase } from './driver-queue-base.js';
import type { DriverQueueOptions } from './driver-types.js';
import {
  checkPackedQueueSize,
  DESC_FLAGS,
  EVENT_FLAGS,
  EVENT_OFF_WRAP,
  isDescUsed,
  offWrap,
  packedNeedEvent,
} from './packed-layout.js';
import { RingMemory } from './ring-memory.js';
import { descTableSize } from './split-layout.js';

/** An allocation that both sides use. */
interface Part {
  readonly ring: RingMemory;
  readonly hi: number;
  readonly lo: number;
  readonly length: number;
}

/**
 * Allocates the ring and the two event suppression structures, and makes the driver's half of it.
 * `undefined`: no room. [linux v6.1 drivers/virtio/virtio_ring.c vring_alloc_queue_packed]
 * @throws VirtioError `E_QUEUE_SIZE`
 */
export function createPackedDriverQueue<T>(
  options: DriverQueueOptions,
): PackedDriverQueue<T> | undefined {
  checkPackedQueueSize(options.size);
  const lengths = [descTableSize(options.size), EVENT_SUPPRESS_SIZE, EVENT_SUPPRESS_SIZE];
  const parts: Part[] = [];
  for (const length of lengths) {
    const address: HiLo = { hi: 0, lo: 0 };
    const gpa = options.dma.allocCoherent(length, address);
    if (gpa === undefined) {
      for (const part of parts) freePart(options.dma, part);
      return undefined;
    }
    parts.push({ ring: new RingMemory(options.memory, gpa, length), ...address, length });
  }
  return new PackedDriverQueue(options, parts as [Part, Part, Part]);
}

/**
 * The driver's half of a packed virtqueue. [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_add_packed]
 *
 * Deviates: where a piece cannot be mapped, `add` says the same as for a split ring; Linux 6.1
 * returns -EIO.
 */
export class PackedDriverQueue<T> extends DriverQueueBase<T> {
  protected override readonly retriesDirect = true;
  readonly #desc: RingMemory;
  readonly #driver: RingMemory;
  readonly #device: RingMemory;
  readonly #parts: readonly [Part, Part, Part];
  readonly #dma: DmaOps;
  readonly #hasEventIdx: boolean;
  readonly #index: number;
  // The wrap counters are in the flags' bit AVAIL.
  #nextAvailIdx = 0;
  #availWrap = VIRTQ_DESC_F_AVAIL;
  #lastUsedIdx = 0;
  #usedWrap = VIRTQ_DESC_F_AVAIL;
  #eventFlagsShadow = RING_EVENT_FLAGS_ENABLE;
  // What hands over the buffer that is being written.
  #headFlags = 0;

  /** Use `createDriverQueue`. */
  constructor(options: DriverQueueOptions, parts: readonly [Part, Part, Part]) {
    super(options, options.size);
    this.#desc = parts[0].ring;
    this.#driver = parts[1].ring;
    this.#device = parts[2].ring;
    this.#parts = parts;
    this.#dma = options.dma;
    this.#hasEventIdx = options.hasEventIdx;
    this.#index = options.index ?? 0;
  }

  override get ringGpa(): Gpa {
    return this.#desc.gpa;
  }

  override get setup(): QueueSetup {
    const [desc, avail, used] = this.#parts;
    return {
      size: this.size,
      desc: joinU64(desc.hi, desc.lo),
      avail: joinU64(avail.hi, avail.lo),
      used: joinU64(used.hi, used.lo),
    };
  }

  override get notificationData(): number {
    return ((offWrap(this.#nextAvailIdx, this.#availWrap) << 16) | this.#index) >>> 0;
  }

  /** [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_kick_prepare_packed] */
  override kickPrepare(): boolean {
    const newIdx = this.#nextAvailIdx;
    const oldIdx = u16(newIdx - this.numAdded);
    this.numAdded = 0;
    const event = this.#device.readU32(EVENT_OFF_WRAP);
    const flags = event >>> 16;
    if (flags !== RING_EVENT_FLAGS_DESC) return flags !== RING_EVENT_FLAGS_DISABLE;
    return packedNeedEvent(event & 0xffff, this.#availWrap, this.size, newIdx, oldIdx);
  }

  /**
   * Asks the device to spare interrupts: an advice. An event just triggered will not come again by
   * itself, and nothing is written. [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_disable_cb_packed]
   */
  override disableCallbacks(): void {
    if (this.#eventFlagsShadow === RING_EVENT_FLAGS_DISABLE) return;
    this.#eventFlagsShadow = RING_EVENT_FLAGS_DISABLE;
    if (!this.wasEventTriggered) this.#driver.writeU16(EVENT_FLAGS, this.#eventFlagsShadow);
  }

  /**
   * Asks for interrupts again: the place first, then the flags. False if buffers came back in the
   * meantime: process them first. [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_enable_cb_prepare_packed]
   */
  override enableCallbacks(): boolean {
    this.wasEventTriggered = false;
    if (this.#hasEventIdx) this.#writeUsedEvent();
    if (this.#eventFlagsShadow === RING_EVENT_FLAGS_DISABLE) {
      this.#eventFlagsShadow = this.#hasEventIdx ? RING_EVENT_FLAGS_DESC : RING_EVENT_FLAGS_ENABLE;
      this.#driver.writeU16(EVENT_FLAGS, this.#eventFlagsShadow);
    }
    return this.isBroken || !this.hasUsed();
  }

  protected override ringFull(): void {}

  protected override writeRing(
    head: number,
    _index: number,
    n: number,
    length: number,
    flags: number,
  ): void {
    let place = this.#nextAvailIdx + n;
    let wrap = this.#availWrap;
    if (place >= this.size) {
      place -= this.size;
      wrap ^= VIRTQ_DESC_F_AVAIL;
    }
    const at = VIRTQ_DESC_SIZE * place;
    const available = flags | (wrap === 0 ? VIRTQ_DESC_F_USED : VIRTQ_DESC_F_AVAIL);
    if (n > 0) {
      this.#desc.writeDescriptor(at, this.address, length, head, available);
      return;
    }
    this.#desc.writeBuffer(at, this.address, length);
    this.#desc.writeU16(at + 12, head);
    // "A driver MUST NOT make the first descriptor in the list available before all subsequent
    // descriptors comprising the list are made available." [VIRTIO v1.2 §2.8.16]
    this.#headFlags = available;
  }

  protected override expose(_head: number, ndescs: number): void {
    this.#desc.writeU16(VIRTQ_DESC_SIZE * this.#nextAvailIdx + DESC_FLAGS, this.#headFlags);
    this.#nextAvailIdx += ndescs;
    if (this.#nextAvailIdx >= this.size) {
      this.#nextAvailIdx -= this.size;
      this.#availWrap ^= VIRTQ_DESC_F_AVAIL;
    }
    // More than 16 bits hold: any event is wanted then.
    this.numAdded = Math.min(this.numAdded + ndescs, 0xffff);
  }

  protected override unexpose(): void {}

  protected override hasUsedEntry(): boolean {
    const flags = this.#desc.readU16(VIRTQ_DESC_SIZE * this.#lastUsedIdx + DESC_FLAGS);
    return isDescUsed(flags, this.#usedWrap);
  }

  protected override usedCount(): number {
    return this.size;
  }

  protected override usedId(): number {
    return this.#desc.readU16(VIRTQ_DESC_SIZE * this.#lastUsedIdx + 12);
  }

  protected override usedLength(): number {
    return this.#desc.readU32(VIRTQ_DESC_SIZE * this.#lastUsedIdx + 8);
  }

  protected override advanceUsed(ndescs: number): void {
    this.#lastUsedIdx += ndescs;
    if (this.#lastUsedIdx >= this.size) {
      this.#lastUsedIdx -= this.size;
      this.#usedWrap ^= VIRTQ_DESC_F_AVAIL;
    }
    if (this.#eventFlagsShadow === RING_EVENT_FLAGS_DESC) this.#writeUsedEvent();
  }

  protected override restart(): void {
    this.#nextAvailIdx = 0;
    this.#availWrap = VIRTQ_DESC_F_AVAIL;
    this.#lastUsedIdx = 0;
    this.#usedWrap = VIRTQ_DESC_F_AVAIL;
    this.#eventFlagsShadow = RING_EVENT_FLAGS_ENABLE;
    for (const { ring, length } of this.#parts) ring.clear(length);
  }

  protected override freeRing(): void {
    for (const part of this.#parts) freePart(this.#dma, part);
  }

  #writeUsedEvent(): void {
    this.#driver.writeU16(EVENT_OFF_WRAP, offWrap(this.#lastUsedIdx, this.#usedWrap));
  }
}

function freePart(dma: DmaOps, { ring, hi, lo, length }: Part): void {
  dma.freeCoherent(ring.gpa, hi, lo, length);
}
