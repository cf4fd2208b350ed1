/** What an interrupt reports: used buffers, or a change of the configuration or status. */
export type InterruptCause = 'queue' | 'config';

/**
 * Who hears of interrupts. `index` says which queue's vector it was, where there is one a queue, as
 * MSI-X can have.
 */
export type InterruptHandler = (cause: InterruptCause, index?: number) => void;

/** The parts of one queue, as the driver hands them to the device. All addresses are bus addresses. */
export interface QueueSetup {
  /** Entries in the ring; the driver may choose fewer than `queueMaxSize`. */
  readonly size: number;
  /** The descriptor area. */
  readonly desc: bigint;
  /** The driver area. */
  readonly avail: bigint;
  /** The device area. */
  readonly used: bigint;
}

/**
 * A device as its driver reaches it, whatever the registers look like. A driver's transport does
 * every call by register accesses. [VIRTIO v1.2 §2 "Basic Facilities of a Virtio Device"]
 * [linux v6.1 include/linux/virtio_config.h virtio_config_ops]
 */
export interface VirtioTransport {
  /** The type of device, such as `VIRTIO_ID_BLOCK`. */
  readonly deviceId: number;
  /** Driven through the legacy interface: no FEATURES_OK, guest-endian rings and configuration. */
  readonly isLegacy: boolean;
  /** Bytes to which the used ring of a split ring is aligned, where that is the transport's to say. */
  readonly ringAlign?: number;
  readDeviceFeatures(): bigint;
  /** Has no effect once FEATURES_OK is set. */
  writeDriverFeatures(bits: bigint): void;
  readStatus(): number;
  /** Writes the device status; 0 resets the device. */
  writeStatus(value: number): void;
  /** The most entries that queue `index` can have; 0: there is no such queue. */
  queueMaxSize(index: number): number;
  /** Sets the addresses of queue `index` and enables it. */
  setupQueue(index: number, setup: QueueSetup): void;
  /**
   * Takes queue `index` back from the device, if VIRTIO_F_RING_RESET was negotiated: the device has
   * dropped its buffers when this returns true, and it can be set up anew.
   */
  resetQueue(index: number): boolean;
  /**
   * The available buffer notification, for short a kick. `data`, with VIRTIO_F_NOTIFICATION_DATA:
   * what the queue's `notificationData` says.
   */
  notifyQueue(index: number, data?: number): void;
  /** Reads the device configuration space; what lies beyond its end reads as ones. */
  readConfig(offset: number, into: Uint8Array): void;
  /** Writes the device configuration space, where the driver may. */
  writeConfig(offset: number, from: Uint8Array): void;
  /** Changes when the configuration space does. [VIRTIO v1.2 §2.5 "Device Configuration Space"] */
  configGeneration(): number;
  /** Registers who hears of interrupts, in place of whoever did before. */
  onInterrupt(handler: InterruptHandler): void;
  /**
   * Looks whether the device interrupts, as the handler of a shared interrupt line does, and passes
   * it on: for a machine that has nobody to deliver interrupts. True if there was one.
   */
  pollInterrupt(): boolean;
}
