import { NO_TRACE, NotModelled, type Tracer } from '@pinhole/base';
import type { DmaSpace, GuestMemory } from '@pinhole/memory';
import { VirtioError } from '../errors.js';
import {
  hasFeature,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from '../features.js';
import type { DeviceQueue } from '../ring/device-queue.js';
import { createDeviceQueue } from '../ring/device-queue.js';
import type { DmaMapper } from '../ring/dma-mapper.js';
import {
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_CONFIG_S_FEATURES_OK,
  VIRTIO_CONFIG_S_NEEDS_RESET,
} from '../status.js';
import type { InterruptCause, QueueSetup, VirtioTransport } from '../transport/transport.js';

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
  /** The device is reset: drop all requests. */
  readonly reset?: () => void;
}

/** See the constructor of `VirtioDeviceCore`. */
export interface VirtioDeviceOptions {
  /** The type, such as `VIRTIO_ID_BLOCK`. */
  readonly deviceId: number;
  /** Names the device in traces; queue 1 of `vd0` is `vd0q1`. */
  readonly id?: string;
  /** The features that are offered. */
  readonly features: bigint;
  /** The configuration space; the model may change it in place. */
  readonly config?: Uint8Array;
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

/**
 * What all virtio devices have in common, in QEMU's manner: features, status, queues, interrupts
 * and errors. [qemu v7.2 hw/virtio/virtio.c]
 *
 * Deviates from the specification as QEMU does: a kick before DRIVER_OK is served.
 */
export class VirtioDeviceCore implements VirtioTransport {
  readonly deviceId: number;
  readonly isLegacy = false;
  readonly id: string;
  readonly tracer: Tracer;
  readonly queues: readonly DeviceQueue[];
  /** The messages of `fail`, oldest first. */
  readonly errors: string[] = [];
  readonly #options: VirtioDeviceOptions;
  readonly #hooks: DeviceHooks;
  readonly #config: Uint8Array;
  readonly #usesEventFds: boolean;
  #accepted = 0n;
  #status = 0;
  #isBroken = false;
  #hasStarted = false;
  #interrupt: ((cause: InterruptCause, index?: number) => void) | undefined;

  /** @throws NotModelled when the packed ring is offered. */
  constructor(options: VirtioDeviceOptions) {
    if (hasFeature(options.features, VIRTIO_F_RING_PACKED)) {
      throw new NotModelled('the packed virtqueue (VIRTIO_F_RING_PACKED)');
    }
    const { memory, space, mapper, elementSize } = options;
    this.deviceId = options.deviceId;
    this.id = options.id ?? 'vd0';
    this.tracer = options.tracer ?? NO_TRACE;
    this.#options = options;
    this.#hooks = options.hooks ?? {};
    this.#config = options.config ?? new Uint8Array(0);
    this.#usesEventFds = options.usesEventFds ?? true;
    this.queues = options.queues.map(({ maxSize }, index) => {
      const queue = { owner: this, id: `${this.id}q${index}`, maxSize, memory, space };
      const extras = {
        ...(mapper === undefined ? {} : { mapper }),
        ...(elementSize === undefined ? {} : { elementSize }),
      };
      return createDeviceQueue(false, { ...queue, ...extras });
    });
  }

  /** The features in force: offered and accepted. */
  get features(): bigint {
    return this.#accepted;
  }

  get isBroken(): boolean {
    return this.#isBroken;
  }

  readDeviceFeatures(): bigint {
    return this.#options.features;
  }

  /**
   * "The driver MUST NOT accept a feature which the device did not offer": one that does is not
   * heard. After FEATURES_OK nothing is. [qemu v7.2 hw/virtio/virtio.c virtio_set_features]
   */
  writeDriverFeatures(bits: bigint): void {
    if ((this.#status & VIRTIO_CONFIG_S_FEATURES_OK) !== 0) return;
    const accepted = bits & this.#options.features;
    this.#hooks.setFeatures?.(accepted);
    this.#accepted = accepted;
    for (const queue of this.queues) queue.setFeatures(accepted);
  }

  readStatus(): number {
    return this.#status;
  }

  /** [qemu v7.2 hw/virtio/virtio-pci.c virtio_pci_common_write VIRTIO_PCI_COMMON_STATUS] */
  writeStatus(value: number): void {
    const status = value & 0xff;
    const isLive = (status & VIRTIO_CONFIG_S_DRIVER_OK) !== 0;
    if (!isLive) this.#hasStarted = false;
    this.#setStatus(status);
    if (isLive && !this.#hasStarted) {
      this.#hasStarted = true;
      if (this.#usesEventFds) this.#kickAll();
    }
    if (this.#status === 0) this.#reset();
  }

  queueMaxSize(index: number): number {
    return this.queues[index]?.maxSize ?? 0;
  }

  setupQueue(index: number, setup: QueueSetup): void {
    this.queues[index]?.configure(setup);
  }

  /** Ignored for a queue that is not there or not set up, and while the device is broken. */
  notifyQueue(index: number): void {
    const queue = this.queues[index];
    if (queue === undefined || !queue.isConfigured || this.#isBroken) return;
    if (this.tracer.on) {
      const args = { vdev: this.id, n: index, vq: queue.id };
      this.tracer.event('device', 'virtio_queue_notify', args);
    }
    this.#options.queues[index]!.handleOutput(queue);
  }

  readConfig(offset: number, into: Uint8Array): void {
    const end = offset + into.length;
    if (offset >= 0 && end <= this.#config.length) into.set(this.#config.subarray(offset, end));
    else into.fill(0xff);
  }

  /** A write that reaches beyond the end is lost. */
  writeConfig(offset: number, from: Uint8Array): void {
    if (offset < 0 || offset + from.length > this.#config.length) return;
    const config = this.#config.slice();
    config.set(from, offset);
    this.#hooks.setConfig?.(config);
  }

  configGeneration(): number {
    return 0;
  }

  resetQueue(index: number): boolean {
    if (this.queues[index] !== undefined) this.#hooks.resetQueue?.(index);
    this.queues[index]?.reset();
    return true;
  }

  pollInterrupt(): boolean {
    return false;
  }

  onInterrupt(handler: (cause: InterruptCause, index?: number) => void): void {
    this.#interrupt = handler;
  }

  /**
   * Interrupts the driver for what queue `index` returned, unless it does not want to know.
   * @returns whether the driver was to be interrupted.
   * @throws VirtioError `E_QUEUE_INDEX`
   */
  notifyDriver(index: number): boolean {
    const queue = this.queues[index];
    if (queue === undefined) {
      throw new VirtioError('E_QUEUE_INDEX', `expected a queue of ${this.id}, found ${index}`, {
        details: { index, queues: this.queues.length },
      });
    }
    if (!queue.shouldNotify()) return false;
    if (this.tracer.on) {
      const name = this.#usesEventFds ? 'virtio_notify_irqfd' : 'virtio_notify';
      this.tracer.event('device', name, { vdev: this.id, vq: queue.id });
    }
    // An irqfd is signalled even when the device is broken. [qemu v7.2 hw/virtio/virtio.c virtio_notify_irqfd]
    if (this.#usesEventFds || !this.#isBroken) this.#interrupt?.('queue', index);
    return true;
  }

  /** The configuration changed: interrupts the driver if it is up. [qemu v7.2 hw/virtio/virtio.c virtio_notify_config] */
  notifyConfig(): void {
    if ((this.#status & VIRTIO_CONFIG_S_DRIVER_OK) === 0 || this.#isBroken) return;
    this.#interrupt?.('config');
  }

  /**
   * The driver is in error. The device says so (DEVICE_NEEDS_RESET) to a driver that knows the bit,
   * and is deaf until the reset. [qemu v7.2 hw/virtio/virtio.c virtio_error]
   */
  fail(message: string): void {
    this.errors.push(message);
    if (this.tracer.on) {
      this.tracer.event('device', 'virtio_error', { vdev: this.id, message });
    }
    if (hasFeature(this.#accepted, VIRTIO_F_VERSION_1)) {
      this.#status |= VIRTIO_CONFIG_S_NEEDS_RESET;
      this.notifyConfig();
    }
    this.#isBroken = true;
  }

  /** [qemu v7.2 hw/virtio/virtio.c virtio_set_status] */
  #setStatus(status: number): void {
    if (this.tracer.on) {
      this.tracer.event('device', 'virtio_set_status', { vdev: this.id, val: status });
    }
    const isNegotiated =
      (status & VIRTIO_CONFIG_S_FEATURES_OK) !== 0 &&
      (this.#status & VIRTIO_CONFIG_S_FEATURES_OK) === 0;
    // A refusal leaves the whole status as it was: the driver sees it when it reads it back.
    if (isNegotiated && !this.#acceptsFeatures()) return;
    this.#hooks.setStatus?.(status);
    // This drops DEVICE_NEEDS_RESET; the device stays broken.
    this.#status = status;
  }

  /** A legacy driver is never refused. [qemu v7.2 hw/virtio/virtio.c virtio_validate_features] */
  #acceptsFeatures(): boolean {
    const accepted = this.#accepted;
    if (!hasFeature(accepted, VIRTIO_F_VERSION_1)) return true;
    const isOffered = hasFeature(this.#options.features, VIRTIO_F_ACCESS_PLATFORM);
    if (isOffered && !hasFeature(accepted, VIRTIO_F_ACCESS_PLATFORM)) return false;
    return this.#hooks.validateFeatures?.(accepted) ?? true;
  }

  /** Buffers may be waiting already. [qemu v7.2 hw/block/dataplane/virtio-blk.c virtio_blk_data_plane_start] */
  #kickAll(): void {
    for (let index = 0; index < this.queues.length; index += 1) this.notifyQueue(index);
  }

  /** Sets the status once more, as the log shows. [qemu v7.2 hw/virtio/virtio.c virtio_reset] */
  #reset(): void {
    this.#setStatus(0);
    this.#hooks.reset?.();
    this.#isBroken = false;
    this.#accepted = 0n;
    for (const queue of this.queues) queue.reset();
  }
}
