import { type Tracer, u16 } from '@pinhole/base';
import { hasFeature, VIRTIO_F_NOTIFY_ON_EMPTY, VIRTIO_RING_F_EVENT_IDX } from '../features.js';
import {
  QEMU_ELEMENT_SIZE,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_USED_F_NO_NOTIFY,
  VIRTQUEUE_MAX_SIZE,
} from '../params.js';
import type { QueueSetup } from '../transport/transport.js';
import { type AvailBytes, measureAvailBytes } from './avail-bytes.js';
import { DescriptorChain } from './descriptor-chain.js';
import { ElementPool, type VirtqueueElement } from './device-element.js';
import type { DeviceQueue, DeviceQueueOptions, QueueOwner } from './device-queue.js';
import { DeviceRings } from './device-rings.js';
import { createSpaceMapper } from './dma-mapper.js';
import { RegionCache } from './region-cache.js';
import { availEntryOffset, RING_FLAGS, RING_IDX, usedEntryOffset } from './split-layout.js';
import { vringNeedEvent } from './vring-need-event.js';

/**
 * The device's half of a split virtqueue, access for access as QEMU does it: behind an IOMMU each
 * access is a translation that a log shows. Fields are little-endian whatever the guest is: the
 * device is not a legacy one. [qemu v7.2 hw/virtio/virtio.c]
 *
 * Nothing in guest memory can make it throw or go round for ever: a chain ends after as many
 * descriptors as its table holds, or 1024 segments.
 */
export class SplitDeviceQueue implements DeviceQueue {
  readonly id: string;
  readonly maxSize: number;
  readonly #owner: QueueOwner;
  readonly #tracer: Tracer;
  readonly #rings: DeviceRings;
  readonly #table: RegionCache;
  readonly #chain: DescriptorChain;
  readonly #pool: ElementPool;
  readonly #elementSize: number;
  #size: number;
  #setup: QueueSetup | undefined;
  // Which addresses are not 0: QEMU takes 0 for "not set".
  #hasDesc = false;
  #hasAvail = false;
  #hasUsed = false;
  #hasEventIdx = false;
  #hasNotifyOnEmpty = false;
  #lastAvailIdx = 0;
  // The last value of avail.idx that was read: saves reading it again.
  #shadowAvailIdx = 0;
  #usedIdx = 0;
  #signalledUsed = 0;
  #isSignalledUsedValid = false;
  #isNotificationOn = true;
  #inUse = 0;

  constructor(options: DeviceQueueOptions) {
    const { memory, space } = options;
    this.id = options.id;
    this.maxSize = options.maxSize;
    this.#size = options.maxSize;
    this.#owner = options.owner;
    this.#tracer = options.owner.tracer;
    this.#rings = new DeviceRings(memory, space);
    this.#table = new RegionCache(memory, space);
    const mapper = options.mapper ?? createSpaceMapper(space);
    this.#chain = new DescriptorChain(this.#rings.desc, this.#table, mapper);
    this.#pool = new ElementPool(`${options.id}e`);
    this.#elementSize = options.elementSize ?? QEMU_ELEMENT_SIZE;
  }

  /** Entries in the ring. */
  get size(): number {
    return this.#size;
  }

  /** Whether the driver gave the addresses: kicks are heard only then. */
  get isConfigured(): boolean {
    return this.#hasDesc;
  }

  /** Elements taken and not yet returned. */
  get inUse(): number {
    return this.#inUse;
  }

  /** Where the device goes on reading the available ring: free-running, 16 bits. */
  get lastAvailIdx(): number {
    return this.#lastAvailIdx;
  }

  /** Where the device goes on writing the used ring: free-running, 16 bits. */
  get usedIdx(): number {
    return this.#usedIdx;
  }

  /** Whether the driver is asked for kicks. [qemu v7.2 hw/virtio/virtio.c virtio_queue_get_notification] */
  get isNotificationOn(): boolean {
    return this.#isNotificationOn;
  }

  /** Takes up what the driver accepted. EVENT_IDX makes the rings two bytes longer. */
  setFeatures(features: bigint): void {
    this.#hasEventIdx = hasFeature(features, VIRTIO_RING_F_EVENT_IDX);
    this.#hasNotifyOnEmpty = hasFeature(features, VIRTIO_F_NOTIFY_ON_EMPTY);
    if (this.#hasEventIdx) this.#openRings();
  }

  /**
   * The driver gives size and addresses. A size that QEMU does not take leaves the old one.
   * [qemu v7.2 hw/virtio/virtio.c virtio_queue_set_num, virtio_queue_set_rings]
   */
  configure(setup: QueueSetup): void {
    if (setup.size > 0 && setup.size <= VIRTQUEUE_MAX_SIZE) this.#size = setup.size;
    this.#setup = { ...setup, size: this.#size };
    this.#openRings();
  }

  /** Back to the start. What was popped before must not be returned after. */
  reset(): void {
    this.#setup = undefined;
    this.#openRings();
    this.#size = this.maxSize;
    this.#hasEventIdx = false;
    this.#hasNotifyOnEmpty = false;
    this.#lastAvailIdx = 0;
    this.#shadowAvailIdx = 0;
    this.#usedIdx = 0;
    this.#signalledUsed = 0;
    this.#isSignalledUsedValid = false;
    this.#isNotificationOn = true;
    this.#inUse = 0;
  }

  /**
   * Asks the driver for kicks, or to spare them: an advice. With EVENT_IDX reads `avail.idx`
   * either way, and when turning on writes it to `avail_event`; otherwise reads and writes
   * `used.flags`. [qemu v7.2 hw/virtio/virtio.c virtio_queue_split_set_notification]
   */
  setNotification(isOn: boolean): void {
    this.#isNotificationOn = isOn;
    if (!this.#hasDesc) return;
    if (this.#hasEventIdx) {
      const idx = this.#readAvailIdx();
      if (isOn) this.#rings.used.writeU16(usedEntryOffset(this.#size), idx);
    } else {
      const { used } = this.#rings;
      const flags = used.readU16(RING_FLAGS);
      const others = flags & ~VIRTQ_USED_F_NO_NOTIFY;
      used.writeU16(RING_FLAGS, isOn ? others : others | VIRTQ_USED_F_NO_NOTIFY);
    }
  }

  /** Reads `avail.idx` only if all that was seen of it is done. [qemu v7.2 hw/virtio/virtio.c virtio_queue_split_empty] */
  isEmpty(): boolean {
    if (this.#owner.isBroken || !this.#hasAvail) return true;
    if (this.#shadowAvailIdx !== this.#lastAvailIdx) return false;
    return this.#readAvailIdx() === this.#lastAvailIdx;
  }

  /**
   * Takes the next buffer, or nothing if there is none or the driver's chain is bad: then the
   * device is broken. [qemu v7.2 hw/virtio/virtio.c virtqueue_split_pop]
   */
  pop(): VirtqueueElement | undefined {
    if (this.isEmpty()) return undefined;
    if (this.#inUse >= this.#size) return this.#fail('Virtqueue size exceeded');
    const head = this.#takeHead(this.#lastAvailIdx);
    this.#lastAvailIdx = u16(this.#lastAvailIdx + 1);
    if (head < 0) return undefined;
    if (this.#hasEventIdx && this.#isNotificationOn) {
      this.#rings.used.writeU16(usedEntryOffset(this.#size), this.#lastAvailIdx);
    }
    if (!this.#rings.isOpen) return this.#fail('Region caches not initialized');
    const element = this.#pool.take(head);
    const problem = this.#chain.map(head, this.#size, element);
    if (problem !== undefined) {
      this.#chain.undoMap(element);
      this.#pool.give(element);
      return this.#fail(problem);
    }
    this.#inUse += 1;
    if (this.#tracer.on) this.#tracePop(element);
    return element;
  }

  /** Returns a buffer with `written` bytes in it: `fill` and `flush`. [qemu v7.2 hw/virtio/virtio.c virtqueue_push] */
  push(element: VirtqueueElement, written: number): void {
    this.fill(element, written, 0);
    this.flush(1);
  }

  /**
   * Puts a buffer into the used ring, `offset` entries after those that were flushed. The element
   * is over. [qemu v7.2 hw/virtio/virtio.c virtqueue_fill]
   */
  fill(element: VirtqueueElement, written: number, offset: number): void {
    if (this.#tracer.on) {
      const args = { vq: this.id, elem: element.id, len: written, idx: offset };
      this.#tracer.event('device', 'virtqueue_fill', args);
    }
    this.#chain.unmap(element, written);
    if (!this.#owner.isBroken && this.#hasUsed) {
      const entry = usedEntryOffset((this.#usedIdx + offset) % this.#size);
      this.#rings.used.writeU32Pair(entry, element.head, written);
    }
    this.#pool.give(element);
  }

  /** Shows the driver `count` filled entries. [qemu v7.2 hw/virtio/virtio.c virtqueue_split_flush] */
  flush(count: number): void {
    if (this.#owner.isBroken) {
      this.#inUse -= count;
      return;
    }
    if (!this.#hasUsed) return;
    if (this.#tracer.on) this.#tracer.event('device', 'virtqueue_flush', { vq: this.id, count });
    const newIdx = u16(this.#usedIdx + count);
    this.#rings.used.writeU16(RING_IDX, newIdx);
    this.#usedIdx = newIdx;
    this.#inUse -= count;
    // The index overtook the one last signalled: what that said is stale.
    if (((newIdx - this.#signalledUsed) << 16) >> 16 < count) this.#isSignalledUsedValid = false;
  }

  /** Gives up an element without returning it to the driver. [qemu v7.2 hw/virtio/virtio.c virtqueue_detach_element] */
  detach(element: VirtqueueElement, written = 0): void {
    this.#inUse -= 1;
    this.#chain.unmap(element, written);
    this.#pool.give(element);
  }

  /** As if the element popped last had not been. [qemu v7.2 hw/virtio/virtio.c virtqueue_unpop] */
  unpop(element: VirtqueueElement): void {
    this.#lastAvailIdx = u16(this.#lastAvailIdx - 1);
    this.detach(element);
  }

  /**
   * Whether the driver wants an interrupt for what was flushed. With EVENT_IDX the first time
   * after set-up is yes without a look at `used_event`; otherwise `avail.flags` says.
   * [qemu v7.2 hw/virtio/virtio.c virtio_split_should_notify]
   */
  shouldNotify(): boolean {
    if (this.#hasNotifyOnEmpty && this.#inUse === 0 && this.isEmpty()) return true;
    if (!this.#hasEventIdx) {
      return (this.#rings.avail.readU16(RING_FLAGS) & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0;
    }
    const wasValid = this.#isSignalledUsedValid;
    const old = this.#signalledUsed;
    this.#isSignalledUsedValid = true;
    this.#signalledUsed = this.#usedIdx;
    return (
      !wasValid ||
      vringNeedEvent(this.#rings.avail.readU16(availEntryOffset(this.#size)), this.#usedIdx, old)
    );
  }

  /**
   * How many bytes the waiting buffers hold, without taking them; stops counting when both limits
   * are reached. Zero and broken if a chain is bad. [qemu v7.2 hw/virtio/virtio.c virtqueue_get_avail_bytes]
   */
  availBytes(maxIn: number, maxOut: number): AvailBytes {
    if (!this.isConfigured || !this.#rings.isOpen) return { inBytes: 0, outBytes: 0 };
    return measureAvailBytes({
      rings: this.#rings,
      table: this.#table,
      size: this.#size,
      lastAvailIdx: this.#lastAvailIdx,
      readAvailIdx: () => this.#readAvailIdx(),
      fail: (message) => this.#owner.fail(message),
      maxIn,
      maxOut,
    });
  }

  #readAvailIdx(): number {
    if (!this.#rings.isOpen) return 0;
    const idx = this.#rings.avail.readU16(RING_IDX);
    this.#shadowAvailIdx = idx;
    return idx;
  }

  // The head that the driver put at `idx`, or -1: no descriptor.
  #takeHead(idx: number): number {
    const head = this.#rings.avail.readU16(availEntryOffset(idx % this.#size));
    if (head < this.#size) return head;
    this.#fail(`Guest says index ${head} is available`);
    return -1;
  }

  #openRings(): void {
    const setup = this.#setup;
    this.#hasDesc = setup !== undefined && setup.desc !== 0n;
    this.#hasAvail = setup !== undefined && setup.avail !== 0n;
    this.#hasUsed = setup !== undefined && setup.used !== 0n;
    if (setup === undefined || !this.#hasDesc) {
      this.#rings.close();
      return;
    }
    const failed = this.#rings.open(setup, this.#hasEventIdx);
    if (failed !== undefined) this.#fail(`Cannot map ${failed}`);
  }

  #fail(message: string): undefined {
    this.#owner.fail(message);
    return undefined;
  }

  #tracePop(element: VirtqueueElement): void {
    const { id: elem, inNum: in_num, outNum: out_num } = element;
    const alloc = { elem, sz: this.#elementSize, in_num, out_num };
    this.#tracer.event('device', 'virtqueue_alloc_element', alloc);
    this.#tracer.event('device', 'virtqueue_pop', { vq: this.id, elem, in_num, out_num });
  }
}
