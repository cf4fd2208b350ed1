import {
  EVENT_SUPPRESS_SIZE,
  RING_EVENT_FLAGS_DESC,
  RING_EVENT_FLAGS_DISABLE,
  RING_EVENT_FLAGS_ENABLE,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_USED,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_DESC_SIZE,
} from '../params.js';
import { type AvailBytes, measurePackedAvailBytes, NO_AVAIL_BYTES } from './avail-bytes.js';
import type { VirtqueueElement } from './device-element.js';
import { DeviceQueueBase } from './device-queue-base.js';
import type { DeviceQueueState } from './device-queue-state.js';
import type { PartSizes } from './device-rings.js';
import type { DeviceQueueOptions } from './device-types.js';
import {
  DESC_FLAGS,
  EVENT_FLAGS,
  EVENT_OFF_WRAP,
  isDescAvail,
  offWrap,
  packedNeedEvent,
} from './packed-layout.js';
import type { UsedOrder } from './used-order.js';

const PART_SIZES: PartSizes = { avail: EVENT_SUPPRESS_SIZE, used: EVENT_SUPPRESS_SIZE };

/**
 * The device's half of a packed virtqueue, access for access as QEMU does it.
 * [VIRTIO v1.2 §2.8 "Packed Virtqueues"] [qemu v7.2 hw/virtio/virtio.c virtqueue_packed_pop]
 *
 * Deviates: the buffer ID is the last descriptor's, as the specification has it, where QEMU takes
 * the first's. Of several buffers flushed at once each used descriptor lies where the buffers
 * before it end; QEMU 7.2 puts them side by side, which is wrong for chains. A used descriptor says
 * by its write flag whether there is something in the buffer; QEMU never does. `isEmpty` is true
 * for a broken device; QEMU's block device goes round for ever there.
 */
export class PackedDeviceQueue extends DeviceQueueBase {
  protected override readonly layout = 'packed';
  // The wrap counters are in the flags' bit AVAIL: what an available descriptor carries.
  #availWrap = VIRTQ_DESC_F_AVAIL;
  #usedWrap = VIRTQ_DESC_F_AVAIL;
  // Where the driver is asked to kick, with EVENT_IDX.
  #shadowAvailIdx = 0;
  #shadowAvailWrap = VIRTQ_DESC_F_AVAIL;
  // Buffers that were filled and not flushed: head, bytes, descriptors.
  #filled = new Uint32Array(0);

  constructor(options: DeviceQueueOptions) {
    super(options);
    this.resized();
  }

  /** Looks at the flags of the next descriptor. [qemu v7.2 hw/virtio/virtio.c virtio_queue_packed_empty_rcu] */
  override isEmpty(): boolean {
    if (this.owner.isBroken || !this.rings.isOpen) return true;
    const flags = this.rings.desc.readU16(VIRTQ_DESC_SIZE * this.lastAvailIdx + DESC_FLAGS);
    return !isDescAvail(flags, this.#availWrap);
  }

  /**
   * Takes the next buffer, or nothing if there is none or the driver's chain is bad: then the
   * device is broken. [qemu v7.2 hw/virtio/virtio.c virtqueue_packed_pop]
   */
  override pop(): VirtqueueElement | undefined {
    if (this.isEmpty()) return undefined;
    if (this.inUse >= this.size || this.order?.isFull) return this.fail('Virtqueue size exceeded');
    if (!this.mayPop()) return undefined;
    const element = this.pool.take(0);
    const problem = this.chain.mapPacked(this.lastAvailIdx, this.size, element);
    if (problem !== undefined) return this.failChain(element, problem);
    // Descriptors that are in flight, made available once more.
    if (this.inUse + element.ndescs > this.size) {
      return this.failChain(element, 'Virtqueue size exceeded');
    }
    this.lastAvailIdx += element.ndescs;
    if (this.lastAvailIdx >= this.size) {
      this.lastAvailIdx -= this.size;
      this.#availWrap ^= VIRTQ_DESC_F_AVAIL;
    }
    this.#shadowAvailIdx = this.lastAvailIdx;
    this.#shadowAvailWrap = this.#availWrap;
    this.taken(element);
    return element;
  }

  override push(element: VirtqueueElement, written: number): void {
    const { order, tracer, owner, rings } = this;
    if (order !== undefined || tracer.on || owner.isBroken || !rings.isOpen) {
      super.push(element, written);
      return;
    }
    this.chain.unmap(element, written);
    this.#writeUsed(0, element.head, written);
    this.#advanceUsed(element.ndescs);
    this.pool.give(element);
  }

  /**
   * Whether the driver wants an interrupt for what was flushed: its event suppression structure is
   * read, flags first. [qemu v7.2 hw/virtio/virtio.c virtio_packed_should_notify]
   */
  override shouldNotify(): boolean {
    if (!this.rings.isOpen) return false;
    const { avail } = this.rings;
    const flags = avail.readU16(EVENT_FLAGS);
    const wanted = avail.readU16(EVENT_OFF_WRAP);
    const old = this.signalledUsed;
    const wasValid = this.isSignalledUsedValid;
    this.signalledUsed = this.usedIdx;
    this.isSignalledUsedValid = true;
    if (flags === RING_EVENT_FLAGS_DISABLE) return false;
    if (flags === RING_EVENT_FLAGS_ENABLE) return true;
    return !wasValid || packedNeedEvent(wanted, this.#usedWrap, this.size, this.usedIdx, old);
  }

  /** [qemu v7.2 hw/virtio/virtio.c virtqueue_packed_get_avail_bytes] */
  override availBytes(maxIn: number, maxOut: number): AvailBytes {
    if (!this.isConfigured || !this.rings.isOpen) return NO_AVAIL_BYTES;
    const at = { idx: this.lastAvailIdx, wrap: this.#availWrap };
    const input = { ring: this.rings.desc, table: this.table, size: this.size, maxIn, maxOut };
    const result = measurePackedAvailBytes(input, at);
    if (typeof result === 'string') {
      this.fail(result);
      return NO_AVAIL_BYTES;
    }
    // A kick is wanted for what is not there yet.
    if (result.isAll) {
      this.#shadowAvailIdx = at.idx;
      this.#shadowAvailWrap = at.wrap;
    }
    return { inBytes: result.inBytes, outBytes: result.outBytes };
  }

  protected override saveWraps(): { lastAvailWrapCounter: number; usedWrapCounter: number } {
    return {
      lastAvailWrapCounter: this.#availWrap === 0 ? 0 : 1,
      usedWrapCounter: this.#usedWrap === 0 ? 0 : 1,
    };
  }

  protected override restored(state: DeviceQueueState): void {
    this.#availWrap = state.lastAvailWrapCounter === 0 ? 0 : VIRTQ_DESC_F_AVAIL;
    this.#usedWrap = state.usedWrapCounter === 0 ? 0 : VIRTQ_DESC_F_AVAIL;
    this.#shadowAvailIdx = this.lastAvailIdx;
    this.#shadowAvailWrap = this.#availWrap;
  }

  protected override partSizes(): PartSizes {
    return PART_SIZES;
  }

  // The driver may give another size without a reset, with buffers in flight: no index is beyond it.
  protected override resized(): void {
    this.lastAvailIdx %= this.size;
    this.usedIdx %= this.size;
    this.#availWrap = VIRTQ_DESC_F_AVAIL;
    this.#usedWrap = VIRTQ_DESC_F_AVAIL;
    this.#shadowAvailIdx = 0;
    this.#shadowAvailWrap = VIRTQ_DESC_F_AVAIL;
    this.#filled = new Uint32Array(3 * this.size);
  }

  /** [qemu v7.2 hw/virtio/virtio.c virtio_queue_packed_set_notification] */
  protected override writeNotification(isOn: boolean): void {
    if (!this.rings.isOpen) return;
    const { used } = this.rings;
    // QEMU reads the structure first, and does nothing with it.
    used.readU16(EVENT_FLAGS);
    used.readU16(EVENT_OFF_WRAP);
    if (!isOn) {
      used.writeU16(EVENT_FLAGS, RING_EVENT_FLAGS_DISABLE);
    } else if (this.hasEventIdx) {
      used.writeU16(EVENT_OFF_WRAP, offWrap(this.#shadowAvailIdx, this.#shadowAvailWrap));
      used.writeU16(EVENT_FLAGS, RING_EVENT_FLAGS_DESC);
    } else {
      used.writeU16(EVENT_FLAGS, RING_EVENT_FLAGS_ENABLE);
    }
  }

  /** [qemu v7.2 hw/virtio/virtio.c virtqueue_packed_fill] */
  protected override fillUsed(element: VirtqueueElement, written: number, offset: number): void {
    const at = 3 * offset;
    this.#filled[at] = element.head;
    this.#filled[at + 1] = written;
    this.#filled[at + 2] = element.ndescs;
  }

  /** The first used descriptor comes last: with it the driver sees them all. [qemu v7.2 hw/virtio/virtio.c virtqueue_packed_flush] */
  protected override flushUsed(count: number): void {
    if (!this.isConfigured) return;
    const filled = this.#filled;
    let ndescs = filled[2]!;
    for (let at = 3; at < 3 * count; at += 3) {
      this.#writeUsed(ndescs, filled[at]!, filled[at + 1]!);
      ndescs += filled[at + 2]!;
    }
    this.#writeUsed(0, filled[0]!, filled[1]!);
    this.#advanceUsed(ndescs);
  }

  protected override flushInOrder(order: UsedOrder): void {
    const first = order.ready;
    if (!this.isConfigured || first < 0) return;
    order.shift();
    let ndescs = order.ndescs(first);
    for (let slot = order.ready; slot >= 0; slot = order.ready) {
      this.#writeUsed(ndescs, order.head(slot), order.written(slot));
      ndescs += order.ndescs(slot);
      order.shift();
    }
    this.#writeUsed(0, order.head(first), order.written(first));
    this.#advanceUsed(ndescs);
  }

  /** [qemu v7.2 hw/virtio/virtio.c virtqueue_packed_rewind] */
  protected override rewind(ndescs: number): void {
    this.lastAvailIdx -= ndescs;
    if (this.lastAvailIdx < 0) {
      this.lastAvailIdx = this.size - 1 - ((-this.lastAvailIdx - 1) % this.size);
      this.#availWrap ^= VIRTQ_DESC_F_AVAIL;
    }
  }

  /** [qemu v7.2 hw/virtio/virtio.c virtqueue_packed_fill_desc] */
  #writeUsed(offset: number, id: number, written: number): void {
    let index = this.usedIdx + offset;
    let wrap = this.#usedWrap;
    if (index >= this.size) {
      index = (index - this.size) % this.size;
      wrap ^= VIRTQ_DESC_F_AVAIL;
    }
    const isUsed = wrap === 0 ? 0 : VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED;
    const flags = written > 0 ? isUsed | VIRTQ_DESC_F_WRITE : isUsed;
    this.rings.desc.writePackedDescriptor(VIRTQ_DESC_SIZE * index, id, written, flags);
  }

  #advanceUsed(ndescs: number): void {
    this.inUse -= ndescs;
    this.usedIdx += ndescs;
    if (this.usedIdx >= this.size) {
      this.usedIdx = (this.usedIdx - this.size) % this.size;
      this.#usedWrap ^= VIRTQ_DESC_F_AVAIL;
      this.isSignalledUsedValid = false;
    }
  }
}
