import type { Tracer } from '@pinhole/base';
import type { DmaSpace, GuestMemory } from '@pinhole/memory';
import type { ConfigPart } from '../formats/config-layout.js';
import type { DeviceQueue } from '../ring/device-queue.js';
import type { DmaMapper } from '../ring/dma-mapper.js';

/** One queue of a device model. */
export interface DeviceQueueModel {
  /** The most entries that the driver may choose. */
  readonly maxSize: number;
  /** The driver kicked: pop, work, push. */
  readonly handleOutput: (queue: DeviceQueue) => void;
}

/** Where a device model takes part in the life of the device. */
export interface DeviceHooks {
  /** Whether the device can work with what the driver accepted; false refuses FEATURES_OK. */
  readonly validateFeatures?: (accepted: bigint) => boolean;
  /** The driver wrote features; `accepted` are those of them that were offered. */
  readonly setFeatures?: (accepted: bigint) => void;
  /** The driver writes a new status, which takes effect after. */
  readonly setStatus?: (status: number) => void;
  /**
   * The driver wrote to the configuration space: `config` is what it would be now, a copy. The model
   * takes over what may be written. [qemu v7.2 hw/virtio/virtio.c virtio_config_modern_writeb]
   */
  readonly setConfig?: (config: Uint8Array) => void;
  /** One queue is reset: drop its requests. */
  readonly resetQueue?: (index: number) => void;
  /** The driver reads the configuration space: the model may bring it up to date. */
  readonly getConfig?: (config: Uint8Array) => void;
  /** The device is reset: drop all requests. */
  readonly reset?: () => void;
}

/** See the constructor of `VirtioDeviceCore`. */
export interface VirtioDeviceOptions {
  /** The type, such as `VIRTIO_ID_BLOCK`. */
  readonly deviceId: number;
  /** Names the device in traces; queue 1 of `vd0` is `vd0q1`. */
  readonly id?: string;
  /** The features that are offered. The transport adds its own. */
  readonly features: bigint;
  /** Features of these that only a legacy driver sees, besides those that all devices have. */
  readonly legacyFeatures?: bigint;
  /**
   * The configuration space; the model may change it in place. Little-endian, but for a driver that
   * goes the legacy way: see `isBigEndian`.
   */
  readonly config?: Uint8Array;
  /** The numbers in it, which a legacy driver sees in its own byte order. */
  readonly configFields?: readonly ConfigPart[];
  /** Guest memory, as the hypervisor sees it. */
  readonly memory: GuestMemory;
  /** The device's view of memory. */
  readonly space: DmaSpace;
  /** How buffers are reached; by default through `space`. */
  readonly mapper?: DmaMapper;
  readonly queues: readonly DeviceQueueModel[];
  /** What traces give as the size of a request. */
  readonly elementSize?: number;
  /**
   * Notifications pass through event descriptors (QEMU's `ioeventfd=on`, and for virtio-blk with it
   * the data plane): every queue is kicked once at DRIVER_OK, and interrupts trace as
   * `virtio_notify_irqfd`. Default true.
   */
  readonly usesEventFds?: boolean;
  readonly hooks?: DeviceHooks;
  readonly tracer?: Tracer;
}

/** What a transport brings along when it is put in front of a device. */
export interface PlugOptions {
  /** Features that the device has through the transport. */
  readonly added?: bigint;
  /** Features that cannot be had through it. */
  readonly removed?: bigint;
  /** The byte order of legacy drivers. Default false. */
  readonly isBigEndianGuest?: boolean;
}
