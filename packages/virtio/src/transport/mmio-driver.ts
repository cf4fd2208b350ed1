import { hi32, lo32 } from '@pinhole/base';
import { readConfigField, writeConfigField } from './config-access.js';
import { MMIO_MAGIC, MMIO_VERSION, Mmio } from './mmio-registers.js';
import { ISR_CONFIG, ISR_QUEUE } from './pci-common-config.js';
import type { PciInterrupts } from './pci-interrupts.js';
import type { MmioRegion } from './registers.js';
import type { InterruptHandler, QueueSetup, VirtioTransport } from './transport.js';

/**
 * The guest's page. [linux v6.1 drivers/virtio/virtio_mmio.c VIRTIO_MMIO_VRING_ALIGN]
 * Deviates: 4 KiB also where the guest's pages are larger.
 */
const VIRTIO_MMIO_VRING_ALIGN = 4096;
/** Reads of a register that the device is to change; the kernel has no such limit. */
const POLLS = 1000;

/** See `createMmioTransport`. */
export interface MmioTransportOptions {
  /** Who delivers the interrupt. Without, `pollInterrupt` has to be called. */
  readonly interrupts?: Pick<PciInterrupts, 'onLine'>;
}

/**
 * A transport, or why there is none: `no-device` is a place that is ready for a device and has
 * none, which is no error. `message` is the kernel's.
 */
export type MmioTransportResult =
  | { readonly ok: true; readonly transport: VirtioTransport }
  | { readonly ok: false; readonly reason: 'no-device' | 'bad'; readonly message: string };

/**
 * Drives a virtio device behind memory-mapped I/O, version 2.
 * [linux v6.1 drivers/virtio/virtio_mmio.c virtio_mmio_probe]
 *
 * Deviates: version 1, the legacy interface, is refused.
 */
export function createMmioTransport(
  region: MmioRegion,
  options: MmioTransportOptions = {},
): MmioTransportResult {
  const magic = region.read(Mmio.MAGIC_VALUE, 4);
  if (magic !== MMIO_MAGIC) {
    const message = `Wrong magic value 0x${magic.toString(16).padStart(8, '0')}!`;
    return { ok: false, reason: 'bad', message };
  }
  const version = region.read(Mmio.VERSION, 4);
  if (version !== MMIO_VERSION) {
    return { ok: false, reason: 'bad', message: `Version ${version} not supported!` };
  }
  const deviceId = region.read(Mmio.DEVICE_ID, 4);
  if (deviceId === 0) return { ok: false, reason: 'no-device', message: 'no device' };
  return { ok: true, transport: new MmioTransport(region, deviceId, options.interrupts) };
}

/** [linux v6.1 drivers/virtio/virtio_mmio.c] */
class MmioTransport implements VirtioTransport {
  readonly deviceId: number;
  readonly isLegacy = false;
  readonly ringAlign: number = VIRTIO_MMIO_VRING_ALIGN;
  readonly #region: MmioRegion;
  #handler: InterruptHandler | undefined;

  constructor(
    region: MmioRegion,
    deviceId: number,
    interrupts: Pick<PciInterrupts, 'onLine'> | undefined,
  ) {
    this.deviceId = deviceId;
    this.#region = region;
    interrupts?.onLine(() => this.pollInterrupt());
  }

  readDeviceFeatures(): bigint {
    this.#write(Mmio.DEVICE_FEATURES_SEL, 1);
    const high = BigInt(this.#read(Mmio.DEVICE_FEATURES));
    this.#write(Mmio.DEVICE_FEATURES_SEL, 0);
    return (high << 32n) | BigInt(this.#read(Mmio.DEVICE_FEATURES));
  }

  writeDriverFeatures(bits: bigint): void {
    this.#write(Mmio.DRIVER_FEATURES_SEL, 1);
    this.#write(Mmio.DRIVER_FEATURES, hi32(bits));
    this.#write(Mmio.DRIVER_FEATURES_SEL, 0);
    this.#write(Mmio.DRIVER_FEATURES, lo32(bits));
  }

  readStatus(): number {
    return this.#read(Mmio.STATUS) & 0xff;
  }

  writeStatus(value: number): void {
    this.#write(Mmio.STATUS, value);
    if (value !== 0) return;
    for (let n = 0; n < POLLS && this.readStatus() !== 0; n += 1);
  }

  queueMaxSize(index: number): number {
    this.#write(Mmio.QUEUE_SEL, index);
    return this.#read(Mmio.QUEUE_NUM_MAX);
  }

  /** [linux v6.1 drivers/virtio/virtio_mmio.c vm_setup_vq] */
  setupQueue(index: number, setup: QueueSetup): void {
    this.#write(Mmio.QUEUE_SEL, index);
    this.#write(Mmio.QUEUE_NUM, setup.size);
    this.#writeAddress(Mmio.QUEUE_DESC, setup.desc);
    this.#writeAddress(Mmio.QUEUE_DRIVER, setup.avail);
    this.#writeAddress(Mmio.QUEUE_DEVICE, setup.used);
    this.#write(Mmio.QUEUE_READY, 1);
  }

  /** [VIRTIO v1.2 §4.2.2.2 "Driver Requirements: MMIO Device Register Layout"] */
  resetQueue(index: number): boolean {
    this.#write(Mmio.QUEUE_SEL, index);
    this.#write(Mmio.QUEUE_RESET, 1);
    for (let n = 0; n < POLLS; n += 1) {
      if (this.#read(Mmio.QUEUE_RESET) === 0) return this.#read(Mmio.QUEUE_READY) === 0;
    }
    return false;
  }

  notifyQueue(index: number, data?: number): void {
    this.#write(Mmio.QUEUE_NOTIFY, data ?? index);
  }

  readConfig(offset: number, into: Uint8Array): void {
    if (this.#isConfig(offset, into.length)) {
      readConfigField(this.#region, Mmio.CONFIG + offset, into);
    } else {
      into.fill(0xff);
    }
  }

  writeConfig(offset: number, from: Uint8Array): void {
    if (!this.#isConfig(offset, from.length)) return;
    writeConfigField(this.#region, Mmio.CONFIG + offset, from);
  }

  configGeneration(): number {
    return this.#read(Mmio.CONFIG_GENERATION);
  }

  onInterrupt(handler: InterruptHandler): void {
    this.#handler = handler;
  }

  /** Acknowledged before it is handled: what comes in the meantime is a new one. [linux v6.1 drivers/virtio/virtio_mmio.c vm_interrupt] */
  pollInterrupt(): boolean {
    const status = this.#read(Mmio.INTERRUPT_STATUS) & (ISR_QUEUE | ISR_CONFIG);
    if (status === 0) return false;
    this.#write(Mmio.INTERRUPT_ACK, status);
    if ((status & ISR_CONFIG) !== 0) this.#handler?.('config');
    if ((status & ISR_QUEUE) !== 0) this.#handler?.('queue');
    return true;
  }

  #isConfig(offset: number, length: number): boolean {
    return offset >= 0 && Mmio.CONFIG + offset + length <= this.#region.size;
  }

  #read(register: number): number {
    return this.#region.read(register, 4);
  }

  #write(register: number, value: number): void {
    this.#region.write(register, 4, value >>> 0);
  }

  #writeAddress(register: number, address: bigint): void {
    this.#write(register, lo32(address));
    this.#write(register + 4, hi32(address));
  }
}
