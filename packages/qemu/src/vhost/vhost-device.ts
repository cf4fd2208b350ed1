import { NO_TRACE, type Tracer } from '@pinhole/base';
import { DmaAccess, type DmaSpace, type GuestMemory } from '@pinhole/memory';
import {
  type DeviceQueue,
  featureBits,
  hasFeature,
  type QueueSetup,
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_RING_PACKED,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTQ_DESC_SIZE,
} from '@pinhole/virtio';
import type { BufferMapper } from '../qemu-mapper.js';
import { StallingQueue } from './stalling-queue.js';
import {
  EFAULT,
  EINVAL,
  ENOTSUP,
  type IommuAddressSpace,
  VHOST_ACCESS_RO,
  VHOST_ACCESS_RW,
  type VhostCounters,
  type VhostIotlbMessage,
} from './types.js';
import { VhostBackend } from './vhost-backend.js';
import { VHOST_MAX_IOTLB_ENTRIES } from './vhost-iotlb.js';
import { VhostMapper } from './vhost-mapper.js';
import { VhostStall } from './vhost-stall.js';

/** That a device is served by vhost, and what its bus is. */
export interface VhostSettings {
  /** The bus, if there is an IOMMU in front of it. */
  readonly iommu?: IommuAddressSpace;
  /**
   * Where QEMU's half is if it is not this one: it takes the data plane's messages, and gives its own
   * to `backend`. There is no use for `iommu` then.
   */
  readonly frontEnd?: (message: VhostIotlbMessage) => void;
  /** vhost's `max_iotlb_entries`; 0: no limit. Default: 2048. */
  readonly maxIotlbEntries?: number;
  /** Wraps what the data plane sees of memory, for who wants to watch. */
  readonly watch?: (space: DmaSpace) => DmaSpace;
}

/** Options of {@link VhostDevice}. */
export interface VhostDeviceOptions extends VhostSettings {
  /** Names it in traces. */
  readonly id: string;
  /** Guest memory as QEMU sees it. */
  readonly memory: GuestMemory;
  readonly systemMemory: DmaSpace;
  /** `iommu_platform=on`. */
  readonly iommuPlatform: boolean;
  readonly tracer?: Tracer;
  /** Works on a queue as if it had been kicked. */
  readonly kick: (queue: number) => void;
  /** What the driver chose for each queue. */
  readonly queues: () => readonly (QueueSetup | undefined)[];
  /** The features in force. */
  readonly features: () => bigint;
}

/**
 * QEMU's half of a device that vhost serves, and the data plane with it: rings and buffers are reached
 * through an IOTLB, or past any IOMMU. [qemu v7.2 hw/virtio/vhost.c]
 */
export class VhostDevice {
  /** The address space that the data plane works in, and why. */
  readonly space: DmaSpace;
  readonly because: string;
  readonly mapper: BufferMapper;
  /** What a queue stopped at first. */
  firstStall: VhostStall | undefined;
  /** The data plane's half of the IOTLB; absent: it has none. */
  readonly backend: VhostBackend | undefined;
  readonly #options: VhostDeviceOptions;
  readonly #iommu: IommuAddressSpace | undefined;
  readonly #tracer: Tracer;
  // By queue: the generation in which all of its rings were there.
  readonly #prefetched = new Map<number, number>();
  #isStarted = false;
  #stalls = 0;
  #removeNotifier: (() => void) | undefined;

  constructor(options: VhostDeviceOptions) {
    const { id, memory, iommu, iommuPlatform, systemMemory, maxIotlbEntries, frontEnd } = options;
    this.#options = options;
    this.#tracer = options.tracer ?? NO_TRACE;
    // [qemu v7.2 hw/virtio/vhost.c vhost_dev_has_iommu]
    this.#iommu = iommuPlatform && frontEnd === undefined ? iommu : undefined;
    const limit = maxIotlbEntries ?? VHOST_MAX_IOTLB_ENTRIES;
    if (this.#iommu !== undefined || (iommuPlatform && frontEnd !== undefined)) {
      this.backend = new VhostBackend({
        id,
        memory,
        maxIotlbEntries: limit,
        send: frontEnd ?? ((message) => this.handleIotlbMessage(message)),
        retry: (queue) => options.kick(queue),
        tracer: this.#tracer,
      });
    }
    const space = this.backend ?? systemMemory;
    this.space = options.watch?.(space) ?? space;
    this.because = explain(options, limit);
    this.mapper = new VhostMapper(this.space);
  }

  get counters(): VhostCounters {
    return { ...(this.backend?.counters ?? NOTHING), stalls: this.#stalls };
  }

  /** The features that the data plane is told. [qemu v7.2 hw/virtio/vhost.c vhost_dev_set_features] */
  get backendFeatures(): bigint {
    const features = this.#options.features();
    return this.backend === undefined
      ? features & ~featureBits(VIRTIO_F_ACCESS_PLATFORM)
      : features;
  }

  /** The driver writes the status: the data plane runs while DRIVER_OK is set. [qemu v7.2 hw/block/vhost-user-blk.c vhost_user_blk_set_status] */
  setStatus(status: number): void {
    const shouldStart = (status & VIRTIO_CONFIG_S_DRIVER_OK) !== 0;
    if (shouldStart === this.#isStarted) return;
    this.#isStarted = shouldStart;
    if (shouldStart) this.#start();
    else this.#stop();
  }

  /** One queue is taken back. */
  resetQueue(queue: number): void {
    this.#prefetched.delete(queue);
    this.backend?.forget(queue);
  }

  /**
   * Works on a kicked queue: `handle` finds it empty from where a translation does not come. Nothing
   * happens before the rings can all be reached.
   */
  serve(queue: DeviceQueue, index: number, handle: (queue: DeviceQueue) => void): void {
    if (!this.#isStarted) return;
    this.backend?.forget(index);
    try {
      this.#prefetch(index);
      handle(new StallingQueue(queue, (stall) => this.#wait(index, stall)));
    } catch (error) {
      if (!(error instanceof VhostStall)) throw error;
      this.#wait(index, error);
    }
  }

  /**
   * A message of the data plane. [qemu v7.2 hw/virtio/vhost-backend.c vhost_backend_handle_iotlb_msg]
   * @returns 0, or a negative error number, of which the data plane hears nothing.
   */
  handleIotlbMessage(message: VhostIotlbMessage): number {
    if (message.type === 'MISS') {
      const isWrite = message.perm !== VHOST_ACCESS_RO;
      return this.#iotlbMiss(message.iova, isWrite ? DmaAccess.WRITE : DmaAccess.READ);
    }
    return message.type === 'ACCESS_FAIL' ? -ENOTSUP : -EINVAL;
  }

  /** [qemu v7.2 hw/virtio/vhost.c vhost_dev_start] */
  #start(): void {
    const { backend } = this;
    const iommu = this.#iommu;
    if (backend === undefined || iommu === undefined) return;
    this.#removeNotifier = iommu.addUnmapNotifier((iova, size) => {
      backend.receive({ type: 'INVALIDATE', iova, size });
    });
    // Also for a queue that the driver does not use, whose address is 0.
    for (const setup of this.#options.queues()) {
      this.#iotlbMiss(setup?.used ?? 0n, DmaAccess.WRITE);
    }
  }

  /** [qemu v7.2 hw/virtio/vhost.c vhost_dev_stop] */
  #stop(): void {
    this.#removeNotifier?.();
    this.#removeNotifier = undefined;
    this.#prefetched.clear();
    this.backend?.flush();
  }

  /**
   * Translates and tells the data plane, which may do anything there then: who asks whether a page may
   * be read learns that it may be written. Where there is nothing the data plane is told nothing.
   * [qemu v7.2 hw/virtio/vhost.c vhost_device_iotlb_miss]
   */
  #iotlbMiss(iova: bigint, access: DmaAccess): number {
    this.#traceMiss(1);
    const entry = this.#iommu?.getIotlbEntry(iova, access);
    if (entry === undefined) {
      this.#traceMiss(2);
      return -EFAULT;
    }
    const { memory } = this.#options;
    const region = memory.regions.find(
      ({ base, size }) => entry.gpa >= base && entry.gpa < base + size,
    );
    if (region === undefined) {
      this.#traceMiss(3);
      return -EFAULT;
    }
    const inRegion = BigInt(region.base + region.size - entry.gpa);
    const update = {
      type: 'UPDATE' as const,
      iova: entry.iova,
      gpa: entry.gpa,
      size: entry.size < inRegion ? entry.size : inRegion,
      perm: VHOST_ACCESS_RW,
    };
    const ret = this.backend?.receive(update) ?? -EFAULT;
    this.#traceMiss(ret === 0 ? 2 : 4);
    return ret;
  }

  #prefetch(index: number): void {
    const { backend } = this;
    const setup = this.#options.queues()[index];
    if (backend === undefined || setup === undefined) return;
    if (this.#prefetched.get(index) === backend.generation) return;
    const features = this.#options.features();
    const [avail, used] = partSizes(setup.size, features);
    backend.prefetch(setup.desc, VIRTQ_DESC_SIZE * setup.size, DmaAccess.READ);
    backend.prefetch(setup.avail, avail, DmaAccess.READ);
    backend.prefetch(setup.used, used, DmaAccess.WRITE);
    this.#prefetched.set(index, backend.generation);
  }

  #wait(queue: number, stall: VhostStall): void {
    this.#stalls += 1;
    this.firstStall ??= stall;
    if (stall.reason === 'no translation') this.backend?.wait(queue, stall.iova);
    if (!this.#tracer.on) return;
    const { iova, access, reason } = stall;
    const write = access === DmaAccess.WRITE ? 1 : 0;
    const args = { dev: this.#options.id, n: queue, iova, write, why: reason };
    this.#tracer.event('device', 'vhost_stall', args);
  }

  #traceMiss(step: number): void {
    if (!this.#tracer.on) return;
    this.#tracer.event('device', 'vhost_iotlb_miss', { dev: this.#options.id, step });
  }
}

const NOTHING = {
  misses: 0,
  updates: 0,
  invalidates: 0,
  evictions: 0,
  entriesPeak: 0,
  granules: {},
};

/** Bytes of the driver's and of the device's part. [linux v6.1.176 drivers/vhost/vhost.c vhost_get_avail_size, vhost_get_used_size] */
function partSizes(size: number, features: bigint): readonly [avail: number, used: number] {
  // The event suppression structures.
  if (hasFeature(features, VIRTIO_F_RING_PACKED)) return [4, 4];
  const event = hasFeature(features, VIRTIO_RING_F_EVENT_IDX) ? 2 : 0;
  return [4 + 2 * size + event, 4 + 8 * size + event];
}

function explain(options: VhostDeviceOptions, limit: number): string {
  const { iommu, iommuPlatform, frontEnd } = options;
  if (!iommuPlatform) {
    return 'vhost, iommu_platform=off: system memory, past any IOMMU; no IOTLB';
  }
  const bus = frontEnd === undefined ? iommu?.name : 'whatever the front-end answers for';
  if (bus === undefined) {
    return 'vhost, iommu_platform=on, but no IOMMU: ACCESS_PLATFORM is hidden from the backend, which takes addresses for guest-physical ones; no IOTLB';
  }
  const entries = limit === 0 ? 'any number of' : String(limit);
  return `vhost, iommu_platform=on: bus addresses of ${bus}, through an IOTLB of ${entries} entries`;
}
