import { hex, NO_TRACE, type Tracer } from '@pinhole/base';
import { VirtioError } from '../errors.js';
import {
  hasFeature,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
  VIRTIO_LEGACY_FEATURES,
} from '../features.js';
import type { DeviceQueue } from '../ring/device-queue.js';
import {
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_CONFIG_S_FEATURES_OK,
  VIRTIO_CONFIG_S_NEEDS_RESET,
} from '../status.js';
import { ISR_CONFIG, ISR_QUEUE } from '../transport/pci-common-config.js';
import type { InterruptHandler, QueueSetup } from '../transport/transport.js';
import type { DeviceHooks, PlugOptions, VirtioDeviceOptions } from './device-options.js';
import { DeviceQueues } from './device-queues.js';
import { checkState, type SavedDevice } from './device-state.js';

/**
 * What all virtio devices have in common, in QEMU's manner: features, status, queues, interrupts
 * and errors; what the registers of a transport act on. [qemu v7.2 hw/virtio/virtio.c]
 *
 * Deviates from the specification as QEMU does: a kick before DRIVER_OK is served.
 */
export class VirtioDeviceCore {
  readonly deviceId: number;
  readonly id: string;
  readonly tracer: Tracer;
  /** The messages of `fail`, oldest first. */
  readonly errors: string[] = [];
  /** Notifications, both ways, since the device was made: what a driver's kicks and its interrupts cost. */
  readonly notifications = { kicks: 0, interrupts: 0 };
  readonly #options: VirtioDeviceOptions;
  readonly #hooks: DeviceHooks;
  readonly #config: Uint8Array;
  readonly #usesEventFds: boolean;
  readonly #queues: DeviceQueues;
  #offered: bigint;
  #isBigEndianGuest = false;
  #accepted = 0n;
  #status = 0;
  #isr = 0;
  #generation = 0;
  #isBroken = false;
  #isDisabled = false;
  #hasStarted = false;
  #interrupt: InterruptHandler | undefined;

  constructor(options: VirtioDeviceOptions) {
    this.deviceId = options.deviceId;
    this.id = options.id ?? 'vd0';
    this.tracer = options.tracer ?? NO_TRACE;
    this.#options = options;
    this.#hooks = options.hooks ?? {};
    this.#config = options.config ?? new Uint8Array(0);
    this.#usesEventFds = options.usesEventFds ?? true;
    this.#offered = options.features;
    this.#queues = new DeviceQueues(this, options);
  }

  /** The queues, in the layout and byte order that the accepted features mean. */
  get queues(): readonly DeviceQueue[] {
    return this.#queues.list;
  }

  /** All features that are offered, the transport's included. */
  get offeredFeatures(): bigint {
    return this.#offered;
  }

  /** Those of them that a driver sees that does not go the legacy way. */
  get modernFeatures(): bigint {
    return this.#offered & ~(VIRTIO_LEGACY_FEATURES | (this.#options.legacyFeatures ?? 0n));
  }

  /** The features in force: offered and accepted. */
  get features(): bigint {
    return this.#accepted;
  }

  /** The device status. */
  get status(): number {
    return this.#status;
  }

  /** The ISR status: what there was to interrupt for, since it was cleared. */
  get isr(): number {
    return this.#isr;
  }

  /** Changes with the configuration space. */
  get generation(): number {
    return this.#generation;
  }

  /** Bytes of the configuration space. */
  get configSize(): number {
    return this.#config.length;
  }

  /**
   * Whether fields of the rings, of the configuration space and of requests are big-endian: for a
   * legacy driver of a big-endian guest. [qemu v7.2 include/hw/virtio/virtio-access.h virtio_access_is_big_endian]
   */
  get isBigEndian(): boolean {
    return this.#isBigEndianGuest && !hasFeature(this.#accepted, VIRTIO_F_VERSION_1);
  }

  /** Whether the device leaves its queues alone: it failed, or may not use the bus. */
  get isBroken(): boolean {
    return this.#isBroken || this.#isDisabled;
  }

  /** A transport is put in front of the device. [qemu v7.2 hw/virtio/virtio-bus.c virtio_bus_device_plugged] */
  plug(options: PlugOptions): void {
    this.#offered = (this.#options.features | (options.added ?? 0n)) & ~(options.removed ?? 0n);
    this.#isBigEndianGuest = options.isBigEndianGuest ?? false;
    this.#selectQueues();
  }

  /** Registers who hears of interrupts, in place of whoever did before. The ISR says why. */
  onInterrupt(handler: InterruptHandler): void {
    this.#interrupt = handler;
  }

  /**
   * The driver accepts features: "The driver MUST NOT accept a feature which the device did not
   * offer": one that does is not heard. After FEATURES_OK nothing is.
   * [qemu v7.2 hw/virtio/virtio.c virtio_set_features]
   */
  setFeatures(bits: bigint): void {
    if ((this.#status & VIRTIO_CONFIG_S_FEATURES_OK) !== 0) return;
    const accepted = bits & this.#offered;
    this.#hooks.setFeatures?.(accepted);
    this.#accepted = accepted;
    this.#selectQueues();
    for (const queue of this.queues) queue.setFeatures(accepted);
  }

  /**
   * The driver writes the status. 0 is no more than a value here: the transport resets its registers
   * and the device then. [qemu v7.2 hw/virtio/virtio-pci.c virtio_pci_common_write VIRTIO_PCI_COMMON_STATUS]
   */
  setStatus(value: number): void {
    const status = value & 0xff;
    const isLive = (status & VIRTIO_CONFIG_S_DRIVER_OK) !== 0;
    if (!isLive) this.#hasStarted = false;
    this.#changeStatus(status);
    if (!isLive || this.#hasStarted) return;
    this.#hasStarted = true;
    if (this.#usesEventFds) this.#kickAll();
  }

  /**
   * Whether the device may use the bus. Without, it stops, and its queues are left alone until it
   * may again, or is reset. [qemu v7.2 hw/virtio/virtio-pci.c virtio_write_config]
   */
  setBusMaster(isOn: boolean): void {
    this.#isDisabled = !isOn;
    if (isOn) return;
    this.#hasStarted = false;
    this.#changeStatus(this.#status & ~VIRTIO_CONFIG_S_DRIVER_OK);
  }

  /** Sets the status once more, as the log shows. [qemu v7.2 hw/virtio/virtio.c virtio_reset] */
  reset(): void {
    this.#hasStarted = false;
    this.#changeStatus(0);
    this.#hooks.reset?.();
    this.#isBroken = false;
    this.#isDisabled = false;
    this.#accepted = 0n;
    this.#isr = 0;
    for (let index = 0; index < this.queues.length; index += 1) this.#queues.reset(index);
    this.#selectQueues();
  }

  /** Entries of queue `index`; 0: there is no such queue. */
  queueSize(index: number): number {
    return this.#queues.size(index);
  }

  /** The most entries that a driver may choose for queue `index`, if it is there. */
  largestQueueSize(index: number): number {
    return this.#queues.largestSize(index);
  }

  /** The driver chooses the size, which it sees at once and the queue when its addresses come. */
  setQueueSize(index: number, size: number): void {
    this.#queues.setSize(index, size);
  }

  /** Where the driver said that queue `index` lies, if it did. */
  queueSetup(index: number): QueueSetup | undefined {
    return this.#queues.setup(index);
  }

  /** The driver gives the addresses of queue `index`. */
  setQueueRings(index: number, rings: Omit<QueueSetup, 'size'>): void {
    this.#queues.setRings(index, rings);
  }

  /** The driver takes queue `index` back. [qemu v7.2 hw/virtio/virtio.c virtio_queue_reset] */
  resetQueue(index: number): boolean {
    const queue = this.queues[index];
    if (queue === undefined) return false;
    this.#hooks.resetQueue?.(index);
    this.#queues.reset(index);
    queue.setFeatures(this.#accepted);
    return true;
  }

  /**
   * Ignored for a queue that is not there or not set up, and while the device is broken. The data
   * of a notification is a hint that QEMU makes no use of.
   * [qemu v7.2 hw/virtio/virtio.c virtio_queue_notify]
   */
  notifyQueue(index: number, _data?: number): void {
    this.notifications.kicks += 1;
    this.#serveQueue(index);
  }

  #serveQueue(index: number): void {
    const queue = this.queues[index];
    if (queue === undefined || !queue.isConfigured || this.#isBroken) return;
    if (this.tracer.on) {
      const args = { vdev: this.id, n: index, vq: queue.id };
      this.tracer.event('device', 'virtio_queue_notify', args);
    }
    this.#options.queues[index]!.handleOutput(queue);
  }

  /** A read that reaches beyond the end gives ones. [qemu v7.2 hw/virtio/virtio.c virtio_config_modern_readl] */
  readConfig(offset: number, into: Uint8Array): void {
    const end = offset + into.length;
    if (offset < 0 || end > this.#config.length) {
      into.fill(0xff);
      return;
    }
    this.#hooks.getConfig?.(this.#config);
    into.set(this.#guestOrder(this.#config).subarray(offset, end));
  }

  /** A write that reaches beyond the end is lost. */
  writeConfig(offset: number, from: Uint8Array): void {
    if (offset < 0 || offset + from.length > this.#config.length) return;
    const config = this.#guestOrder(this.#config).slice();
    config.set(from, offset);
    this.#hooks.setConfig?.(this.#guestOrder(config));
  }

  // A legacy driver has every field in its own byte order. The same there and back.
  #guestOrder(config: Uint8Array): Uint8Array {
    if (!this.isBigEndian) return config;
    const swapped = config.slice();
    for (const { offset, length } of this.#options.configFields ?? []) {
      swapped.subarray(offset, offset + length).reverse();
    }
    return swapped;
  }

  /** Takes bits out of the ISR, and says what it was. */
  clearIsr(bits = 0xff): number {
    const isr = this.#isr;
    this.#isr &= ~bits;
    return isr;
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
    this.#isr |= ISR_QUEUE;
    this.notifications.interrupts += 1;
    // An irqfd is signalled even when the device is broken. [qemu v7.2 hw/virtio/virtio.c virtio_notify_irqfd]
    if (this.#usesEventFds || !this.isBroken) this.#interrupt?.('queue', index);
    return true;
  }

  /**
   * The configuration changed: interrupts the driver if it is up.
   * [qemu v7.2 hw/virtio/virtio.c virtio_notify_config]
   *
   * Deviates: the generation changes before DRIVER_OK, too, as a driver expects that reads the
   * configuration while it sets the device up.
   */
  notifyConfig(): void {
    this.#generation = (this.#generation + 1) >>> 0;
    if ((this.#status & VIRTIO_CONFIG_S_DRIVER_OK) !== 0) this.#interruptConfig();
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
      if ((this.#status & VIRTIO_CONFIG_S_DRIVER_OK) !== 0) this.notifyConfig();
    }
    this.#isBroken = true;
  }

  /** The device at rest, as plain data. [qemu v7.2 hw/virtio/virtio.c virtio_save] */
  save(): SavedDevice {
    return {
      deviceId: this.deviceId,
      status: this.#status,
      features: hex(this.#accepted),
      isr: this.#isr,
      generation: this.#generation,
      isBroken: this.#isBroken,
      isDisabled: this.#isDisabled,
      hasStarted: this.#hasStarted,
      config: [...this.#config],
      queues: this.#queues.save(),
    };
  }

  /**
   * Goes on where a device of the same kind was saved. [qemu v7.2 hw/virtio/virtio.c virtio_load]
   * @throws VirtioError `E_DEVICE_STATE`, `E_QUEUE_STATE`
   */
  restore(state: SavedDevice): void {
    const accepted = BigInt(state.features);
    const unknown = accepted & ~this.#offered;
    const { length } = this.#config;
    checkState(state.deviceId === this.deviceId, 'device id', this.deviceId, state.deviceId);
    checkState(unknown === 0n, 'features', hex(this.#offered), state.features);
    checkState(state.config.length === length, 'bytes of config', length, state.config.length);
    const queues = this.queues.length;
    checkState(state.queues.length === queues, 'queues', queues, state.queues.length);
    this.#hooks.setFeatures?.(accepted);
    this.#accepted = accepted;
    this.#config.set(state.config);
    this.#status = state.status;
    this.#isr = state.isr;
    this.#generation = state.generation;
    this.#isBroken = state.isBroken;
    this.#isDisabled = state.isDisabled;
    this.#hasStarted = state.hasStarted;
    this.#selectQueues();
    for (const queue of this.queues) queue.setFeatures(accepted);
    // Last: a ring that cannot be mapped any more breaks the device.
    try {
      this.#queues.restore(state.queues);
    } catch (error) {
      this.reset();
      throw error;
    }
  }

  #interruptConfig(): void {
    this.#isr |= ISR_QUEUE | ISR_CONFIG;
    if (!this.isBroken) this.#interrupt?.('config');
  }

  /** [qemu v7.2 hw/virtio/virtio.c virtio_set_status] */
  #changeStatus(status: number): void {
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
    const isOffered = hasFeature(this.#offered, VIRTIO_F_ACCESS_PLATFORM);
    if (isOffered && !hasFeature(accepted, VIRTIO_F_ACCESS_PLATFORM)) return false;
    return this.#hooks.validateFeatures?.(accepted) ?? true;
  }

  /** Buffers may be waiting already. [qemu v7.2 hw/block/dataplane/virtio-blk.c virtio_blk_data_plane_start] */
  #kickAll(): void {
    for (let index = 0; index < this.queues.length; index += 1) this.#serveQueue(index);
  }

  #selectQueues(): void {
    this.#queues.select(hasFeature(this.#accepted, VIRTIO_F_RING_PACKED), this.isBigEndian);
  }
}
