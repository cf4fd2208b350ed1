import { lo32 } from '@pinhole/base';
import { VirtioError } from '../errors.js';
import { splitRingLayout } from '../ring/split-layout.js';
import {
  PCI_COMMAND,
  PCI_COMMAND_IO,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_DEVICE_ID,
  PCI_SUBSYSTEM_ID,
  PCI_VENDOR_ID,
  PCI_VENDOR_ID_REDHAT_QUMRANET,
} from './pci-capabilities.js';
import { ISR_CONFIG, ISR_QUEUE } from './pci-common-config.js';
import { PCI_REVISION_ID } from './pci-config-space.js';
import { PciDriverVectors } from './pci-driver-vectors.js';
import type { PciInterrupts } from './pci-interrupts.js';
import {
  LEGACY_BAR,
  PciLegacy as Legacy,
  legacyConfigOffset,
  VIRTIO_PCI_QUEUE_ADDR_SHIFT,
  VIRTIO_PCI_VRING_ALIGN,
} from './pci-legacy.js';
import type { PciTransportOptions, PciTransportResult } from './pci-modern-driver.js';
import { VIRTIO_QUEUE_MAX } from './queue-registers.js';
import type { MmioRegion, PciFunction } from './registers.js';
import type { InterruptHandler, QueueSetup, VirtioTransport } from './transport.js';

/** PCI device ids of devices that can have a legacy interface. */
const LEGACY_ID_FIRST = 0x1000;
const LEGACY_ID_LAST = 0x103f;
/** [linux v6.1 include/uapi/linux/virtio_pci.h VIRTIO_PCI_ABI_VERSION] */
const VIRTIO_PCI_ABI_VERSION = 0;

/**
 * Drives a virtio function through its legacy interface. Enables its I/O space and bus mastering.
 * [linux v6.1 drivers/virtio/virtio_pci_legacy_dev.c vp_legacy_probe]
 */
export function createPciLegacyTransport(
  fn: PciFunction,
  options: PciTransportOptions = {},
): PciTransportResult {
  const vendor = fn.configRead(PCI_VENDOR_ID, 2);
  const id = fn.configRead(PCI_DEVICE_ID, 2);
  const isOurs = id >= LEGACY_ID_FIRST && id <= LEGACY_ID_LAST;
  const revision = fn.configRead(PCI_REVISION_ID, 1);
  if (vendor !== PCI_VENDOR_ID_REDHAT_QUMRANET || !isOurs || revision !== VIRTIO_PCI_ABI_VERSION) {
    const found = `${hex4(vendor)}:${hex4(id)} revision ${revision}`;
    const message = `expected a legacy virtio function (1af4:1000 to 1af4:103f, revision 0) at ${fn.name}, found ${found}`;
    return { ok: false, reason: 'no-device', message };
  }
  const region = fn.bar(LEGACY_BAR);
  if (region === undefined) {
    return { ok: false, reason: 'bad', message: `expected BAR 0 at ${fn.name}, found none` };
  }
  const command = fn.configRead(PCI_COMMAND, 2);
  const enable = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
  fn.configWrite(PCI_COMMAND, 2, command | enable);
  const deviceId = fn.configRead(PCI_SUBSYSTEM_ID, 2);
  const transport = new PciLegacyTransport(fn, region, deviceId, options.interrupts);
  return { ok: true, transport };
}

/** [linux v6.1 drivers/virtio/virtio_pci_legacy.c] */
class PciLegacyTransport implements VirtioTransport {
  readonly deviceId: number;
  readonly isLegacy = true;
  readonly ringAlign: number = VIRTIO_PCI_VRING_ALIGN;
  readonly #region: MmioRegion;
  readonly #vectors: PciDriverVectors;
  #handler: InterruptHandler | undefined;

  constructor(
    fn: PciFunction,
    region: MmioRegion,
    deviceId: number,
    interrupts: PciInterrupts | undefined,
  ) {
    this.deviceId = deviceId;
    this.#region = region;
    this.#vectors = new PciDriverVectors({
      fn,
      interrupts,
      numQueues: this.#countQueues(),
      onInterrupt: (cause, index) => this.#handler?.(cause, index),
      setConfigVector: (vector) => {
        region.write(Legacy.CONFIG_VECTOR, 2, vector);
        return region.read(Legacy.CONFIG_VECTOR, 2);
      },
    });
    interrupts?.onLine(() => this.pollInterrupt());
  }

  readDeviceFeatures(): bigint {
    return BigInt(this.#region.read(Legacy.HOST_FEATURES, 4));
  }

  /** There are 32 of them. */
  writeDriverFeatures(bits: bigint): void {
    this.#region.write(Legacy.GUEST_FEATURES, 4, lo32(bits));
  }

  readStatus(): number {
    return this.#region.read(Legacy.STATUS, 1);
  }

  /** A reset is over when the status was read once more: that flushes the write. */
  writeStatus(value: number): void {
    this.#region.write(Legacy.STATUS, 1, value);
    if (value !== 0) return;
    this.#vectors.forget();
    this.readStatus();
  }

  queueMaxSize(index: number): number {
    this.#region.write(Legacy.QUEUE_SEL, 2, index);
    return this.#region.read(Legacy.QUEUE_NUM, 2);
  }

  /**
   * The ring has the size that the device says, lies on a page, below 2^44, in one piece.
   * @throws VirtioError `E_LEGACY_QUEUE`
   */
  setupQueue(index: number, setup: QueueSetup): void {
    this.#vectors.prepare();
    const pfn = legacyPfn(setup, this.queueMaxSize(index));
    this.#region.write(Legacy.QUEUE_PFN, 4, pfn);
    this.#vectors.mapQueue(index, (vector) => {
      this.#region.write(Legacy.QUEUE_VECTOR, 2, vector);
      return this.#region.read(Legacy.QUEUE_VECTOR, 2);
    });
  }

  /** The legacy interface has no such thing: what looks like it resets the device. */
  resetQueue(_index: number): boolean {
    return false;
  }

  notifyQueue(index: number): void {
    this.#region.write(Legacy.QUEUE_NOTIFY, 2, index);
  }

  /** Byte by byte: the byte order is the reader's business. [linux v6.1 drivers/virtio/virtio_pci_legacy.c vp_get] */
  readConfig(offset: number, into: Uint8Array): void {
    const at = this.#configAt + offset;
    const isInside = offset >= 0 && at + into.length <= this.#region.size;
    for (let i = 0; i < into.length; i += 1) {
      into[i] = isInside ? this.#region.read(at + i, 1) : 0xff;
    }
  }

  writeConfig(offset: number, from: Uint8Array): void {
    const at = this.#configAt + offset;
    if (offset < 0 || at + from.length > this.#region.size) return;
    for (const [i, byte] of from.entries()) this.#region.write(at + i, 1, byte);
  }

  /** There is none. */
  configGeneration(): number {
    return 0;
  }

  onInterrupt(handler: InterruptHandler): void {
    this.#handler = handler;
  }

  /** Reading the ISR status clears it. [linux v6.1 drivers/virtio/virtio_pci_common.c vp_interrupt] */
  pollInterrupt(): boolean {
    const isr = this.#region.read(Legacy.ISR, 1);
    if ((isr & ISR_CONFIG) !== 0) this.#handler?.('config');
    if ((isr & ISR_QUEUE) !== 0) this.#handler?.('queue');
    return isr !== 0;
  }

  get #configAt(): number {
    return legacyConfigOffset(this.#vectors.isEnabled);
  }

  /** Nothing says how many there are. */
  #countQueues(): number {
    let count = 0;
    while (count < VIRTIO_QUEUE_MAX && this.queueMaxSize(count) !== 0) count += 1;
    return count;
  }
}

/** What QUEUE_PFN says of a ring. */
function legacyPfn(setup: QueueSetup, size: number): number {
  const { desc, avail, used } = setup;
  const pfn = desc >> BigInt(VIRTIO_PCI_QUEUE_ADDR_SHIFT);
  const problem = (expected: string, found: bigint | number): VirtioError =>
    new VirtioError('E_LEGACY_QUEUE', `expected ${expected}, found ${found}`, {
      details: { setup },
    });
  if (setup.size !== size) throw problem(`a ring of the device's size ${size}`, setup.size);
  if (desc % BigInt(VIRTIO_PCI_VRING_ALIGN) !== 0n) throw problem('a ring on a page', desc);
  if (pfn >> 32n !== 0n) throw problem('a ring below 2^44', desc);
  const layout = splitRingLayout(size, VIRTIO_PCI_VRING_ALIGN);
  if (avail - desc !== BigInt(layout.avail) || used - desc !== BigInt(layout.used)) {
    throw problem(`avail at +${layout.avail} and used at +${layout.used}`, used - desc);
  }
  return Number(pfn);
}

const hex4 = (value: number): string => value.toString(16).padStart(4, '0');
