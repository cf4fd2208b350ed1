/** What an interrupt reports: used buffers, or a change of the configuration or status. */
export type InterruptCause = 'queue' | 'config';

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
 * The registers in which driver and device meet. In a model they are method calls; the PCI and
 * MMIO register layouts are adapters to this. [VIRTIO v1.2 §2 "Basic Facilities of a Virtio Device"]
 */
export interface VirtioTransport {
  /** The type of device, such as `VIRTIO_ID_BLOCK`. */
  readonly deviceId: number;
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
  /** The available buffer notification, for short a kick. */
  notifyQueue(index: number): void;
  /** Reads the device configuration space; what lies beyond its end reads as ones. */
  readConfig(offset: number, into: Uint8Array): void;
  /**
   * Registers who hears of interrupts, in place of whoever did before. With cause `queue`, `index`
   * says which queue's vector it was, as MSI-X can.
   */
  onInterrupt(handler: (cause: InterruptCause, index?: number) => void): void;
}
