import { hi32, lo32 } from '@pinhole/base';
import { readConfigField, writeConfigField } from './config-access.js';
import {
  findVirtioCapability,
  mapVirtioCapability,
  PCI_COMMAND,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_DEVICE_ID,
  PCI_SUBSYSTEM_ID,
  PCI_VENDOR_ID,
  PCI_VENDOR_ID_REDHAT_QUMRANET,
  type PciStructure,
  VIRTIO_PCI_CAP_COMMON_CFG,
  VIRTIO_PCI_CAP_DEVICE_CFG,
  VIRTIO_PCI_CAP_ISR_CFG,
  VIRTIO_PCI_CAP_NOTIFY_CFG,
  VIRTIO_PCI_DEVICE_ID_BASE,
} from './pci-capabilities.js';
import { PciCommonConfig as Common, ISR_CONFIG, ISR_QUEUE } from './pci-common-config.js';
import { PciDriverVectors } from './pci-driver-vectors.js';
import type { PciInterrupts } from './pci-interrupts.js';
import type { PciFunction, RegisterWidth } from './registers.js';
import type { InterruptHandler, QueueSetup, VirtioTransport } from './transport.js';

/** Reads of the status after a reset; the kernel has no such limit. */
const RESET_POLLS = 1000;

/** See `createPciModernTransport`. */
export interface PciTransportOptions {
  /** Who delivers interrupts. Without, `pollInterrupt` has to be called. */
  readonly interrupts?: PciInterrupts;
}

/** A transport, or why the function cannot be driven. `message` is the kernel's. */
export type PciTransportResult =
  | { readonly ok: true; readonly transport: VirtioTransport }
  | {
      readonly ok: false;
      readonly reason: 'no-device' | 'no-modern' | 'bad';
      readonly message: string;
    };

/**
 * Finds the structures of a modern (or transitional) virtio function and drives it through them.
 * Enables its memory space and bus mastering.
 * [linux v6.1 drivers/virtio/virtio_pci_modern_dev.c vp_modern_probe]
 */
export function createPciModernTransport(
  fn: PciFunction,
  options: PciTransportOptions = {},
): PciTransportResult {
  const pciId = fn.configRead(PCI_DEVICE_ID, 2);
  const vendor = fn.configRead(PCI_VENDOR_ID, 2);
  if (vendor !== PCI_VENDOR_ID_REDHAT_QUMRANET || pciId < 0x1000 || pciId > 0x107f) {
    const message = `expected a virtio function (1af4:1000 to 1af4:107f) at ${fn.name}, found ${id(vendor)}:${id(pciId)}`;
    return { ok: false, reason: 'no-device', message };
  }
  // A transitional device has its virtio id as the subsystem's.
  const deviceId =
    pciId < VIRTIO_PCI_DEVICE_ID_BASE
      ? fn.configRead(PCI_SUBSYSTEM_ID, 2)
      : pciId - VIRTIO_PCI_DEVICE_ID_BASE;
  const command = fn.configRead(PCI_COMMAND, 2);
  fn.configWrite(PCI_COMMAND, 2, command | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
  const common = findVirtioCapability(fn, VIRTIO_PCI_CAP_COMMON_CFG);
  if (common === undefined) {
    return { ok: false, reason: 'no-modern', message: 'virtio_pci: leaving for legacy driver' };
  }
  const isr = findVirtioCapability(fn, VIRTIO_PCI_CAP_ISR_CFG);
  const notify = findVirtioCapability(fn, VIRTIO_PCI_CAP_NOTIFY_CFG);
  if (isr === undefined || notify === undefined) {
    const at = [common.at, isr?.at ?? 0, notify?.at ?? 0].join('/');
    return { ok: false, reason: 'bad', message: `virtio_pci: missing capabilities ${at}` };
  }
  const config = findVirtioCapability(fn, VIRTIO_PCI_CAP_DEVICE_CFG);
  const mapped = [
    mapVirtioCapability(fn, common, Common.QUEUE_NOTIFY_DATA, 4),
    mapVirtioCapability(fn, isr, 1, 1),
    mapVirtioCapability(fn, notify, 2, 2),
    config === undefined ? undefined : mapVirtioCapability(fn, config, 0, 4),
  ] as const;
  for (const result of mapped) {
    if (typeof result === 'string') {
      return { ok: false, reason: 'bad', message: `virtio_pci: ${result}` };
    }
  }
  const [commonAt, isrAt, notifyAt, configAt] = mapped as readonly PciStructure[];
  const structures = {
    fn,
    deviceId,
    common: commonAt as PciStructure,
    isr: isrAt as PciStructure,
    notify: notifyAt as PciStructure,
    notifyOffMultiplier: fn.configRead(notify.at + 16, 4),
    config: configAt,
  };
  return { ok: true, transport: new PciModernTransport(structures, options.interrupts) };
}

interface Structures {
  readonly fn: PciFunction;
  readonly deviceId: number;
  readonly common: PciStructure;
  readonly isr: PciStructure;
  readonly notify: PciStructure;
  readonly notifyOffMultiplier: number;
  readonly config: PciStructure | undefined;
}

/** [linux v6.1 drivers/virtio/virtio_pci_modern.c] */
class PciModernTransport implements VirtioTransport {
  readonly deviceId: number;
  readonly isLegacy = false;
  readonly #s: Structures;
  readonly #numQueues: number;
  /** Where in the notification structure each queue is kicked; -1: nowhere in it. */
  readonly #notifyAt = new Map<number, number>();
  readonly #vectors: PciDriverVectors;
  #handler: InterruptHandler | undefined;

  constructor(structures: Structures, interrupts: PciInterrupts | undefined) {
    this.#s = structures;
    this.deviceId = structures.deviceId;
    this.#numQueues = this.#read(Common.NUM_QUEUES, 2);
    this.#vectors = new PciDriverVectors({
      fn: structures.fn,
      interrupts,
      numQueues: this.#numQueues,
      onInterrupt: (cause, index) => this.#handler?.(cause, index),
      setConfigVector: (vector) => {
        this.#write(Common.CONFIG_MSIX_VECTOR, 2, vector);
        return this.#read(Common.CONFIG_MSIX_VECTOR, 2);
      },
    });
    interrupts?.onLine(() => this.pollInterrupt());
  }

  readDeviceFeatures(): bigint {
    this.#write(Common.DEVICE_FEATURE_SELECT, 4, 0);
    const low = this.#read(Common.DEVICE_FEATURE, 4);
    this.#write(Common.DEVICE_FEATURE_SELECT, 4, 1);
    return (BigInt(this.#read(Common.DEVICE_FEATURE, 4)) << 32n) | BigInt(low);
  }

  writeDriverFeatures(bits: bigint): void {
    this.#write(Common.DRIVER_FEATURE_SELECT, 4, 0);
    this.#write(Common.DRIVER_FEATURE, 4, lo32(bits));
    this.#write(Common.DRIVER_FEATURE_SELECT, 4, 1);
    this.#write(Common.DRIVER_FEATURE, 4, hi32(bits));
  }

  readStatus(): number {
    return this.#read(Common.DEVICE_STATUS, 1);
  }

  /**
   * "After writing 0 to device_status, the driver MUST wait for a read of device_status to return
   * 0": a device for which that takes for ever keeps a status, which the driver sees.
   */
  writeStatus(value: number): void {
    this.#write(Common.DEVICE_STATUS, 1, value);
    if (value !== 0) return;
    this.#notifyAt.clear();
    this.#vectors.forget();
    for (let n = 0; n < RESET_POLLS && this.readStatus() !== 0; n += 1);
  }

  queueMaxSize(index: number): number {
    if (index >= this.#numQueues) return 0;
    this.#write(Common.QUEUE_SELECT, 2, index);
    const size = this.#read(Common.QUEUE_SIZE, 2);
    return size !== 0 && this.#locateNotify(index) >= 0 ? size : 0;
  }

  /** [linux v6.1 drivers/virtio/virtio_pci_modern.c vp_active_vq] */
  setupQueue(index: number, setup: QueueSetup): void {
    this.#vectors.prepare();
    this.#write(Common.QUEUE_SELECT, 2, index);
    this.#locateNotify(index);
    this.#write(Common.QUEUE_SIZE, 2, setup.size);
    this.#write64(Common.QUEUE_DESC, setup.desc);
    this.#write64(Common.QUEUE_DRIVER, setup.avail);
    this.#write64(Common.QUEUE_DEVICE, setup.used);
    this.#vectors.mapQueue(index, (vector) => {
      this.#write(Common.QUEUE_MSIX_VECTOR, 2, vector);
      return this.#read(Common.QUEUE_MSIX_VECTOR, 2);
    });
    this.#write(Common.QUEUE_ENABLE, 2, 1);
  }

  /** [linux v6.1 drivers/virtio/virtio_pci_modern_dev.c vp_modern_set_queue_reset] */
  resetQueue(index: number): boolean {
    if (this.#s.common.length < Common.QUEUE_RESET + 2) return false;
    this.#write(Common.QUEUE_SELECT, 2, index);
    this.#write(Common.QUEUE_RESET, 2, 1);
    for (let n = 0; n < RESET_POLLS; n += 1) {
      if (this.#read(Common.QUEUE_RESET, 2) !== 0) continue;
      return this.#read(Common.QUEUE_ENABLE, 2) === 0;
    }
    return false;
  }

  notifyQueue(index: number, data?: number): void {
    const at = this.#notifyAt.get(index) ?? -1;
    if (at < 0) return;
    const { region, length, offset } = this.#s.notify;
    if (data === undefined) region.write(offset + at, 2, index);
    else if (at + 4 <= length) region.write(offset + at, 4, data);
  }

  readConfig(offset: number, into: Uint8Array): void {
    const { config } = this.#s;
    if (config === undefined || offset < 0 || offset + into.length > config.length) {
      into.fill(0xff);
      return;
    }
    readConfigField(config.region, config.offset + offset, into);
  }

  writeConfig(offset: number, from: Uint8Array): void {
    const { config } = this.#s;
    if (config === undefined || offset < 0 || offset + from.length > config.length) return;
    writeConfigField(config.region, config.offset + offset, from);
  }

  configGeneration(): number {
    return this.#read(Common.CONFIG_GENERATION, 1);
  }

  onInterrupt(handler: InterruptHandler): void {
    this.#handler = handler;
  }

  /** Reading the ISR status clears it. [linux v6.1 drivers/virtio/virtio_pci_common.c vp_interrupt] */
  pollInterrupt(): boolean {
    const { region, offset } = this.#s.isr;
    const isr = region.read(offset, 1);
    if ((isr & ISR_CONFIG) !== 0) this.#handler?.('config');
    if ((isr & ISR_QUEUE) !== 0) this.#handler?.('queue');
    return isr !== 0;
  }

  /** [linux v6.1 drivers/virtio/virtio_pci_modern_dev.c vp_modern_map_vq_notify] */
  #locateNotify(index: number): number {
    const at = this.#read(Common.QUEUE_NOTIFY_OFF, 2) * this.#s.notifyOffMultiplier;
    const isInside = at + 2 <= this.#s.notify.length && at % 2 === 0;
    this.#notifyAt.set(index, isInside ? at : -1);
    return isInside ? at : -1;
  }

  #read(register: number, width: RegisterWidth): number {
    return this.#s.common.region.read(this.#s.common.offset + register, width);
  }

  #write(register: number, width: RegisterWidth, value: number): void {
    this.#s.common.region.write(this.#s.common.offset + register, width, value);
  }

  #write64(register: number, value: bigint): void {
    this.#write(register, 4, lo32(value));
    this.#write(register + 4, 4, hi32(value));
  }
}

const id = (value: number): string => value.toString(16).padStart(4, '0');
