import { u16 } from '@pinhole/base';
import { VIRTQ_AVAIL_F_NO_INTERRUPT, VIRTQ_USED_F_NO_NOTIFY } from '../params.js';
import { type AvailBytes, measureAvailBytes, NO_AVAIL_BYTES } from './avail-bytes.js';
import type { VirtqueueElement } from './device-element.js';
import { DeviceQueueBase } from './device-queue-base.js';
import type { PartSizes } from './device-rings.js';
import {
  availEntryOffset,
  availRingSize,
  RING_FLAGS,
  RING_IDX,
  usedEntryOffset,
  usedRingSize,
} from './split-layout.js';
import type { UsedOrder } from './used-order.js';
import { vringNeedEvent } from './vring-need-event.js';

/**
 * The device's half of a split virtqueue, access for access as QEMU does it: behind an IOMMU each
 * access is a translation that a log shows. [qemu v7.2 hw/virtio/virtio.c]
 *
 * Nothing in guest memory can make it throw or go round for ever: a chain ends after as many
 * descriptors as its table holds, or 1024 segments.
 */
export class SplitDeviceQueue extends DeviceQueueBase {
  protected override readonly layout = 'split';
  // The last value of avail.idx that was read: saves reading it again.
  #shadowAvailIdx = 0;
  // Size - 1 for a power of two from 2 on, otherwise 0.
  #mask = 0;

  /** Reads `avail.idx` only if all that was seen of it is done. [qemu v7.2 hw/virtio/virtio.c virtio_queue_split_empty] */
  override isEmpty(): boolean {
    if (this.owner.isBroken || !this.hasAvail) return true;
    if (this.#shadowAvailIdx !== this.lastAvailIdx) return false;
    return this.#readAvailIdx() === this.lastAvailIdx;
  }

  /**
   * Takes the next buffer, or nothing if there is none or the driver's chain is bad: then the
   * device is broken. [qemu v7.2 hw/virtio/virtio.c virtqueue_split_pop]
   */
  override pop(): VirtqueueElement | undefined {
    if (this.isEmpty()) return undefined;
    if (this.inUse >= this.size || this.order?.isFull) return this.fail('Virtqueue size exceeded');
    if (!this.mayPop()) return undefined;
    const head = this.#takeHead(this.lastAvailIdx);
    this.lastAvailIdx = u16(this.lastAvailIdx + 1);
    if (head < 0) return undefined;
    if (this.hasEventIdx && this.isNotificationOn) {
      this.rings.used.writeU16(usedEntryOffset(this.size), this.lastAvailIdx);
    }
    if (!this.rings.isOpen) return this.fail('Region caches not initialized');
    const element = this.pool.take(head);
    const problem = this.chain.map(head, this.size, element);
    if (problem !== undefined) return this.failChain(element, problem);
    this.taken(element);
    return element;
  }

  override push(element: VirtqueueElement, written: number): void {
    if (this.order !== undefined || this.tracer.on || this.owner.isBroken || !this.hasUsed) {
      super.push(element, written);
      return;
    }
    this.chain.unmap(element, written);
    this.rings.used.writeU32Pair(usedEntryOffset(this.#slot(this.usedIdx)), element.head, written);
    this.#showUsed(1);
    this.pool.give(element);
  }

  /**
   * Whether the driver wants an interrupt for what was flushed. With EVENT_IDX the first time
   * after set-up is yes without a look at `used_event`; otherwise `avail.flags` says.
   * [qemu v7.2 hw/virtio/virtio.c virtio_split_should_notify]
   */
  override shouldNotify(): boolean {
    if (this.hasNotifyOnEmpty && this.inUse === 0 && this.isEmpty()) return true;
    const { avail } = this.rings;
    if (!this.hasEventIdx) return (avail.readU16(RING_FLAGS) & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0;
    const wasValid = this.isSignalledUsedValid;
    const old = this.signalledUsed;
    this.isSignalledUsedValid = true;
    this.signalledUsed = this.usedIdx;
    return (
      !wasValid || vringNeedEvent(avail.readU16(availEntryOffset(this.size)), this.usedIdx, old)
    );
  }

  /**
   * How many bytes the waiting buffers hold, without taking them; stops counting when both limits
   * are reached. Zero and broken if a chain is bad. [qemu v7.2 hw/virtio/virtio.c virtqueue_get_avail_bytes]
   */
  override availBytes(maxIn: number, maxOut: number): AvailBytes {
    if (!this.isConfigured || !this.rings.isOpen) return NO_AVAIL_BYTES;
    return measureAvailBytes({
      rings: this.rings,
      table: this.table,
      size: this.size,
      lastAvailIdx: this.lastAvailIdx,
      readAvailIdx: () => this.#readAvailIdx(),
      fail: (message) => this.owner.fail(message),
      maxIn,
      maxOut,
    });
  }

  protected override saveWraps(): Record<string, never> {
    return {};
  }

  /** A driver whose index is far off is in error. [qemu v7.2 hw/virtio/virtio.c virtio_load] */
  protected override restored(): void {
    this.#shadowAvailIdx = this.lastAvailIdx;
    const { size, lastAvailIdx } = this;
    if (!this.rings.isOpen) return;
    const idx = this.#readAvailIdx();
    const delta = u16(idx - lastAvailIdx);
    if (delta <= size) return;
    const at = lastAvailIdx.toString(16);
    this.fail(
      `VQ ${this.id} size 0x${size.toString(16)} Guest index 0x${idx.toString(16)} inconsistent with Host index 0x${at}: delta 0x${delta.toString(16)}`,
    );
  }

  protected override partSizes(): PartSizes {
    const { size, hasEventIdx } = this;
    return { avail: availRingSize(size, hasEventIdx), used: usedRingSize(size, hasEventIdx) };
  }

  protected override resized(): void {
    this.#mask = (this.size & (this.size - 1)) === 0 ? this.size - 1 : 0;
    this.#shadowAvailIdx = this.lastAvailIdx;
  }

  /**
   * With EVENT_IDX reads `avail.idx` either way, and when turning on writes it to `avail_event`;
   * otherwise reads and writes `used.flags`. [qemu v7.2 hw/virtio/virtio.c virtio_queue_split_set_notification]
   */
  protected override writeNotification(isOn: boolean): void {
    const { used } = this.rings;
    if (this.hasEventIdx) {
      const idx = this.#readAvailIdx();
      if (isOn) used.writeU16(usedEntryOffset(this.size), idx);
    } else {
      const others = used.readU16(RING_FLAGS) & ~VIRTQ_USED_F_NO_NOTIFY;
      used.writeU16(RING_FLAGS, isOn ? others : others | VIRTQ_USED_F_NO_NOTIFY);
    }
  }

  /** [qemu v7.2 hw/virtio/virtio.c virtqueue_split_fill] */
  protected override fillUsed(element: VirtqueueElement, written: number, offset: number): void {
    if (!this.hasUsed) return;
    const entry = usedEntryOffset(this.#slot(this.usedIdx + offset));
    this.rings.used.writeU32Pair(entry, element.head, written);
  }

  /** [qemu v7.2 hw/virtio/virtio.c virtqueue_split_flush] */
  protected override flushUsed(count: number): void {
    if (!this.hasUsed) return;
    if (this.tracer.on) this.tracer.event('device', 'virtqueue_flush', { vq: this.id, count });
    this.#showUsed(count);
  }

  protected override flushInOrder(order: UsedOrder): void {
    if (!this.hasUsed) return;
    let count = 0;
    for (let slot = order.ready; slot >= 0; slot = order.ready) {
      const entry = usedEntryOffset(this.#slot(this.usedIdx + count));
      this.rings.used.writeU32Pair(entry, order.head(slot), order.written(slot));
      order.shift();
      count += 1;
    }
    if (count > 0) this.#showUsed(count);
  }

  protected override rewind(ndescs: number): void {
    this.lastAvailIdx = u16(this.lastAvailIdx - ndescs);
  }

  // Place of a free-running index in a ring. A driver may have chosen a size that is no power of two.
  #slot(idx: number): number {
    return this.#mask === 0 ? idx % this.size : idx & this.#mask;
  }

  #showUsed(count: number): void {
    const newIdx = u16(this.usedIdx + count);
    this.rings.used.writeU16(RING_IDX, newIdx);
    this.usedIdx = newIdx;
    this.inUse -= count;
    // The index overtook the one last signalled: what that said is stale.
    if (((newIdx - this.signalledUsed) << 16) >> 16 < count) this.isSignalledUsedValid = false;
  }

  #readAvailIdx(): number {
    if (!this.rings.isOpen) return 0;
    const idx = this.rings.avail.readU16(RING_IDX);
    this.#shadowAvailIdx = idx;
    return idx;
  }

  // The head that the driver put at `idx`, or -1: no descriptor.
  #takeHead(idx: number): number {
    const head = this.rings.avail.readU16(availEntryOffset(this.#slot(idx)));
    if (head < this.size) return head;
    this.fail(`Guest says index ${head} is available`);
    return -1;
  }
}
