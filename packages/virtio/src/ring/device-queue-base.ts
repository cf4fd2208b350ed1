import { hex, joinU64, type Tracer } from '@pinhole/base';
import {
  hasFeature,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_NOTIFY_ON_EMPTY,
  VIRTIO_RING_F_EVENT_IDX,
} from '../features.js';
import { QEMU_ELEMENT_SIZE, VIRTQUEUE_MAX_SIZE, VIRTQUEUE_SPEC_MAX_SIZE } from '../params.js';
import type { QueueSetup } from '../transport/transport.js';
import type { AvailBytes } from './avail-bytes.js';
import { DescriptorChain } from './descriptor-chain.js';
import { ElementPool, type VirtqueueElement } from './device-element.js';
import {
  checkElementState,
  checkQueueState,
  type DeviceQueueState,
  type ElementState,
} from './device-queue-state.js';
import { DeviceRings, type PartSizes } from './device-rings.js';
import type { DeviceQueue, DeviceQueueOptions, QueueOwner } from './device-types.js';
import { RegionCache } from './region-cache.js';
import { UsedOrder } from './used-order.js';

/** What the device's half of a queue is in either layout. [qemu v7.2 hw/virtio/virtio.c VirtQueue] */
export abstract class DeviceQueueBase implements DeviceQueue {
  readonly id: string;
  readonly maxSize: number;
  size: number;
  isConfigured = false;
  inUse = 0;
  lastAvailIdx = 0;
  usedIdx = 0;
  isNotificationOn = true;
  protected readonly owner: QueueOwner;
  protected readonly tracer: Tracer;
  protected readonly rings: DeviceRings;
  /** For indirect tables: opened anew for each. */
  protected readonly table: RegionCache;
  protected readonly chain: DescriptorChain;
  protected readonly pool: ElementPool;
  // Which addresses are not 0: QEMU takes 0 for "not set".
  protected hasAvail = false;
  protected hasUsed = false;
  protected hasEventIdx = false;
  protected hasNotifyOnEmpty = false;
  /** `usedIdx` when the driver was last interrupted, if that is known. */
  protected signalledUsed = 0;
  protected isSignalledUsedValid = false;
  /** With IN_ORDER: the buffers in flight, as they were taken. */
  protected order: UsedOrder | undefined;
  readonly #elementSize: number;
  #popsLeft = Number.POSITIVE_INFINITY;
  #setup: QueueSetup | undefined;

  constructor(options: DeviceQueueOptions) {
    const { memory, space, isBigEndian = false } = options;
    this.id = options.id;
    this.maxSize = options.maxSize;
    this.size = options.maxSize;
    this.owner = options.owner;
    this.tracer = options.owner.tracer;
    this.rings = new DeviceRings(memory, space, isBigEndian);
    this.table = new RegionCache(memory, space, isBigEndian);
    this.chain = new DescriptorChain(this.rings.desc, this.table, options);
    this.pool = new ElementPool(`${options.id}e`);
    this.#elementSize = options.elementSize ?? QEMU_ELEMENT_SIZE;
  }

  /** Takes up what the driver accepted. EVENT_IDX makes the split rings two bytes longer. */
  setFeatures(features: bigint): void {
    this.hasEventIdx = hasFeature(features, VIRTIO_RING_F_EVENT_IDX);
    this.hasNotifyOnEmpty = hasFeature(features, VIRTIO_F_NOTIFY_ON_EMPTY);
    this.order = hasFeature(features, VIRTIO_F_IN_ORDER) ? new UsedOrder(this.size) : undefined;
    if (this.hasEventIdx) this.#openRings();
  }

  /**
   * The driver gives size and addresses. A size that cannot be leaves the old one.
   * [qemu v7.2 hw/virtio/virtio.c virtio_queue_set_num, virtio_queue_set_rings]
   */
  configure(setup: QueueSetup): void {
    if (setup.size > 0 && setup.size <= this.#largestSize) this.size = setup.size;
    this.#setup = { ...setup, size: this.size };
    if (this.order !== undefined) this.order = new UsedOrder(this.size);
    this.resized();
    this.#openRings();
  }

  /** Back to the start. What was popped before must not be returned after. [qemu v7.2 hw/virtio/virtio.c __virtio_queue_reset] */
  reset(): void {
    this.hasEventIdx = false;
    this.hasNotifyOnEmpty = false;
    this.order = undefined;
    this.#restart();
  }

  // All but the features.
  #restart(): void {
    this.#setup = undefined;
    this.#openRings();
    this.size = this.maxSize;
    this.lastAvailIdx = 0;
    this.usedIdx = 0;
    this.signalledUsed = 0;
    this.isSignalledUsedValid = false;
    this.isNotificationOn = true;
    this.inUse = 0;
    if (this.order !== undefined) this.order = new UsedOrder(this.size);
    this.resized();
  }

  /** Asks the driver for kicks, or to spare them: an advice. [qemu v7.2 hw/virtio/virtio.c virtio_queue_set_notification] */
  setNotification(isOn: boolean): void {
    this.isNotificationOn = isOn;
    if (this.isConfigured) this.writeNotification(isOn);
  }

  /** See `DeviceQueue`. */
  limitPops(count: number): void {
    this.#popsLeft = count;
  }

  /** Counts an element about to be taken; false, and the device broken, beyond the limit. */
  protected mayPop(): boolean {
    if (this.#popsLeft > 0) {
      this.#popsLeft -= 1;
      return true;
    }
    this.fail('Virtqueue never becomes empty');
    return false;
  }

  abstract isEmpty(): boolean;
  abstract pop(): VirtqueueElement | undefined;
  abstract shouldNotify(): boolean;
  abstract availBytes(maxIn: number, maxOut: number): AvailBytes;

  /** Returns a buffer with `written` bytes in it: `fill` and `flush`. [qemu v7.2 hw/virtio/virtio.c virtqueue_push] */
  push(element: VirtqueueElement, written: number): void {
    this.fill(element, written, 0);
    this.flush(1);
  }

  /**
   * Puts a buffer aside for the driver, `offset` buffers after those that were flushed. The element
   * is over. With IN_ORDER its place is where it was taken, whatever `offset` says.
   * [qemu v7.2 hw/virtio/virtio.c virtqueue_fill]
   */
  fill(element: VirtqueueElement, written: number, offset: number): void {
    if (this.tracer.on) this.#traceFill(element, written, offset);
    this.chain.unmap(element, written);
    if (!this.owner.isBroken) {
      if (this.order === undefined) this.fillUsed(element, written, offset);
      else this.order.finish(element.slot, written);
    }
    this.pool.give(element);
  }

  /**
   * Shows the driver `count` filled buffers. With IN_ORDER: those that are finished and have no
   * unfinished one before them. [qemu v7.2 hw/virtio/virtio.c virtqueue_flush]
   * [qemu v9.2 hw/virtio/virtio.c virtqueue_ordered_flush]
   */
  flush(count: number): void {
    if (this.owner.isBroken) this.inUse -= count;
    else if (this.order === undefined) this.flushUsed(count);
    else this.flushInOrder(this.order);
  }

  /** Gives up an element without returning it to the driver. [qemu v7.2 hw/virtio/virtio.c virtqueue_detach_element] */
  detach(element: VirtqueueElement, written = 0): void {
    this.inUse -= element.ndescs;
    this.chain.unmap(element, written);
    this.pool.give(element);
  }

  /** As if the element popped last had not been. [qemu v7.2 hw/virtio/virtio.c virtqueue_unpop] */
  unpop(element: VirtqueueElement): void {
    this.order?.untake(element.slot);
    this.rewind(element.ndescs);
    this.detach(element);
  }

  // Nothing else has changed before the chain was read as a whole.
  discard(lastAvailIdx: number): void {
    this.lastAvailIdx = lastAvailIdx;
  }

  save(): DeviceQueueState {
    const setup = this.#setup;
    return {
      layout: this.layout,
      size: this.size,
      ...(setup === undefined ? {} : { rings: addressesOf(setup) }),
      lastAvailIdx: this.lastAvailIdx,
      usedIdx: this.usedIdx,
      ...this.saveWraps(),
      inUse: this.inUse,
      isNotificationOn: this.isNotificationOn,
      ...(this.isSignalledUsedValid ? { signalledUsed: this.signalledUsed } : {}),
      ...(this.order === undefined ? {} : { row: this.order.save() }),
    };
  }

  restore(state: DeviceQueueState): void {
    const { layout, order } = this;
    checkQueueState(state, { layout, maxSize: this.#largestSize, hasInOrder: order !== undefined });
    this.#restart();
    this.size = state.size;
    const { rings } = state;
    if (rings !== undefined) {
      const { desc, avail, used } = rings;
      const setup = { desc: BigInt(desc), avail: BigInt(avail), used: BigInt(used) };
      this.configure({ size: state.size, ...setup });
    }
    this.lastAvailIdx = state.lastAvailIdx;
    this.usedIdx = state.usedIdx;
    this.inUse = state.inUse;
    this.isNotificationOn = state.isNotificationOn;
    this.isSignalledUsedValid = state.signalledUsed !== undefined;
    this.signalledUsed = state.signalledUsed ?? 0;
    this.order?.restore(state.row ?? []);
    this.restored(state);
  }

  saveElement(element: VirtqueueElement): ElementState {
    const { head, ndescs, outNum, inNum } = element;
    const segments = Array.from({ length: outNum + inNum }, (_, i) => ({
      address: hex(joinU64(element.bus[2 * i]!, element.bus[2 * i + 1]!)),
      length: element.length[i]!,
    }));
    const place = this.order?.placeOf(element.slot) ?? 0;
    return { head, ndescs, place, out: segments.slice(0, outNum), in: segments.slice(outNum) };
  }

  restoreElement(state: ElementState): VirtqueueElement | undefined {
    checkElementState(state, this.inUse, this.order?.count ?? 1);
    const element = this.pool.take(state.head);
    element.ndescs = state.ndescs;
    element.slot = state.place;
    for (const isWrite of [false, true]) {
      for (const { address, length } of isWrite ? state.in : state.out) {
        if (this.chain.remap(element, BigInt(address), length, isWrite)) continue;
        return this.failChain(element, 'virtio: error trying to map MMIO memory');
      }
    }
    return element;
  }

  protected abstract readonly layout: 'split' | 'packed';
  protected abstract saveWraps(): Pick<
    DeviceQueueState,
    'lastAvailWrapCounter' | 'usedWrapCounter'
  >;
  /** The indices are those of `state`. */
  protected abstract restored(state: DeviceQueueState): void;
  /** The part sizes of the layout. */
  protected abstract partSizes(): PartSizes;
  /** The size may have changed, and everything is at its start. */
  protected abstract resized(): void;
  protected abstract writeNotification(isOn: boolean): void;
  protected abstract fillUsed(element: VirtqueueElement, written: number, offset: number): void;
  protected abstract flushUsed(count: number): void;
  protected abstract flushInOrder(order: UsedOrder): void;
  /** Takes `lastAvailIdx` back by so many descriptors. */
  protected abstract rewind(ndescs: number): void;

  /** A good chain was read: the element is in flight. */
  protected taken(element: VirtqueueElement): void {
    this.inUse += element.ndescs;
    if (this.order !== undefined) this.order.take(element);
    if (this.tracer.on) this.#tracePop(element);
  }

  protected fail(message: string): undefined {
    this.owner.fail(message);
    return undefined;
  }

  /** A bad chain: its mappings end, and the device is broken. */
  protected failChain(element: VirtqueueElement, message: string): undefined {
    this.chain.undoMap(element);
    this.pool.give(element);
    return this.fail(message);
  }

  // QEMU takes up to 1024, whatever it said the most was.
  get #largestSize(): number {
    return Math.min(Math.max(this.maxSize, VIRTQUEUE_MAX_SIZE), VIRTQUEUE_SPEC_MAX_SIZE);
  }

  #openRings(): void {
    const setup = this.#setup;
    this.isConfigured = setup !== undefined && setup.desc !== 0n;
    this.hasAvail = setup !== undefined && setup.avail !== 0n;
    this.hasUsed = setup !== undefined && setup.used !== 0n;
    if (setup === undefined || !this.isConfigured) {
      this.rings.close();
      return;
    }
    const failed = this.rings.open(setup, this.partSizes());
    if (failed !== undefined) this.fail(`Cannot map ${failed}`);
  }

  #traceFill(element: VirtqueueElement, written: number, offset: number): void {
    const args = { vq: this.id, elem: element.id, len: written, idx: offset };
    this.tracer.event('device', 'virtqueue_fill', args);
  }

  #tracePop(element: VirtqueueElement): void {
    const { id: elem, inNum: in_num, outNum: out_num } = element;
    const alloc = { elem, sz: this.#elementSize, in_num, out_num };
    this.tracer.event('device', 'virtqueue_alloc_element', alloc);
    this.tracer.event('device', 'virtqueue_pop', { vq: this.id, elem, in_num, out_num });
  }
}

function addressesOf(setup: QueueSetup): NonNullable<DeviceQueueState['rings']> {
  return { desc: hex(setup.desc), avail: hex(setup.avail), used: hex(setup.used) };
}
