import type { VirtioDeviceCore } from '../device/device-core.js';
import { checkState } from '../device/device-state.js';
import { truncate } from './config-registers.js';
import { Msix } from './msix.js';
import {
  PCI_CAP_ID_VNDR,
  PCI_COMMAND,
  PCI_COMMAND_IO,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_VENDOR_ID_REDHAT_QUMRANET,
  VIRTIO_PCI_CAP_NOTIFY_CFG,
  VIRTIO_PCI_CAP_PCI_CFG,
  VIRTIO_PCI_DEVICE_ID_BASE,
} from './pci-capabilities.js';
import { ISR_QUEUE, VIRTIO_MSI_NO_VECTOR } from './pci-common-config.js';
import { PciCommonRegisters } from './pci-common-registers.js';
import {
  PCI_BASE_ADDRESS_MEM_PREFETCH_64,
  PCI_BASE_ADDRESS_SPACE_IO,
  PCI_BASE_ADDRESS_SPACE_MEMORY,
  PCI_COMMAND_INTX_DISABLE,
  PciConfigSpace,
} from './pci-config-space.js';
import type {
  PciInterrupt,
  SavedVirtioPci,
  VirtioPciDevice,
  VirtioPciOptions,
} from './pci-device-types.js';
import { pciDeviceType } from './pci-ids.js';
import { LEGACY_BAR, legacyConfigOffset } from './pci-legacy.js';
import { PciLegacyRegisters } from './pci-legacy-registers.js';
import {
  MODERN_STRUCTURES,
  NOTIFY_OFF_MULTIPLIER,
  PciModernRegion,
  STRUCTURE_SIZE,
} from './pci-modern-region.js';
import { PciVectors } from './pci-vectors.js';
import { QueueRegisterFile } from './queue-registers.js';
import type { MmioRegion, RegisterWidth } from './registers.js';
import type { InterruptCause } from './transport.js';

const MSIX_BAR = 1;
const MODERN_BAR = 4;
/** Subsystem of a device without a legacy interface. [qemu v7.2 include/hw/pci/pci.h PCI_SUBDEVICE_ID_QEMU] */
const PCI_SUBDEVICE_ID_QEMU = 0x1100;
/** `pci_cfg_data` in its capability. */
const CFG_DATA = 16;

/** A virtio device as a function: see `createVirtioPci`. */
export class VirtioPciFunction implements VirtioPciDevice {
  readonly name: string;
  readonly #core: VirtioDeviceCore;
  readonly #space: PciConfigSpace;
  readonly #queues: QueueRegisterFile;
  readonly #common: PciCommonRegisters;
  readonly #vectors: PciVectors;
  readonly #msix: Msix | undefined;
  readonly #modern: PciModernRegion | undefined;
  readonly #bars: (MmioRegion | undefined)[] = new Array<MmioRegion | undefined>(6).fill(undefined);
  // Where the capability is through which configuration accesses reach the structures; 0: nowhere.
  readonly #cfgAt: number = 0;
  #arePlaced = false;
  #isLineHigh = false;
  #interrupt: ((interrupt: PciInterrupt) => void) | undefined;

  constructor(options: VirtioPciOptions) {
    const { device, mode } = options;
    const type = pciDeviceType(device.deviceId);
    const isModern = mode === 'modern';
    this.name = options.name ?? '0000:00:00.0';
    this.#core = device;
    this.#space = new PciConfigSpace({
      vendorId: PCI_VENDOR_ID_REDHAT_QUMRANET,
      deviceId: isModern ? VIRTIO_PCI_DEVICE_ID_BASE + device.deviceId : type.transitionalId,
      revision: isModern ? 1 : 0,
      classCode: type.classCode,
      subsystemVendorId: PCI_VENDOR_ID_REDHAT_QUMRANET,
      subsystemId: isModern ? PCI_SUBDEVICE_ID_QEMU : device.deviceId,
    });
    this.#queues = new QueueRegisterFile(device);
    if (mode !== 'legacy') this.#cfgAt = this.#addStructures();
    const vectors = options.msixVectors ?? type.vectors ?? device.queues.length + 1;
    if (vectors > 0) {
      this.#msix = new Msix(this.#space, vectors, MSIX_BAR, (...message) => this.#send(...message));
      this.#addBar(MSIX_BAR, PCI_BASE_ADDRESS_SPACE_MEMORY, this.#msix.region);
    }
    this.#vectors = new PciVectors(this.#msix, this.#queues);
    const reset = (): void => this.#resetDevice();
    const readIsr = (): number => this.#readIsr();
    this.#common = new PciCommonRegisters(device, this.#queues, this.#vectors, reset);
    if (mode !== 'legacy') {
      this.#modern = new PciModernRegion(device, this.#common, readIsr);
      this.#addBar(MODERN_BAR, PCI_BASE_ADDRESS_MEM_PREFETCH_64, this.#modern);
    }
    if (!isModern) this.#addLegacy(reset, readIsr);
    device.onInterrupt((cause, index) => this.#onInterrupt(cause, index));
  }

  /** Through the capability for it, reaches the structures. [VIRTIO v1.2 §4.1.4.9 "PCI configuration access capability"] */
  configRead(offset: number, width: RegisterWidth): number {
    const at = this.#cfgAccess(offset, width);
    if (at !== undefined) {
      const value = this.#modern!.read(at.offset, at.width);
      this.#space.set(this.#cfgAt + CFG_DATA, at.width, value);
    }
    return this.#space.read(offset, width);
  }

  /** [qemu v7.2 hw/virtio/virtio-pci.c virtio_write_config, hw/pci/pci.c pci_default_write_config] */
  configWrite(offset: number, width: RegisterWidth, value: number): void {
    const wasOff = this.#isLineOff;
    this.#space.write(offset, width, value);
    const isCommand = offset <= PCI_COMMAND && PCI_COMMAND < offset + width;
    if (isCommand && this.#isLineOff !== wasOff && this.#isLineHigh) {
      this.#interrupt?.({ kind: 'intx', asserted: wasOff });
    }
    if (this.#msix?.noteConfigWrite(offset, width) === true) this.#setLine(false);
    if (isCommand) {
      this.#core.setBusMaster((this.#space.command & PCI_COMMAND_MASTER) !== 0);
    }
    const at = this.#cfgAccess(offset, width);
    if (at === undefined) return;
    const data = this.#space.read(this.#cfgAt + CFG_DATA, at.width);
    this.#modern!.write(at.offset, at.width, data);
  }

  /** The first time after a reset, BARs are enabled, as firmware does. */
  bar(index: number): MmioRegion | undefined {
    const region = this.#bars[index];
    if (region !== undefined && !this.#arePlaced) {
      this.#arePlaced = true;
      const io = this.#bars[LEGACY_BAR] === undefined ? 0 : PCI_COMMAND_IO;
      this.#space.setCommand(PCI_COMMAND_MEMORY | io);
    }
    return region;
  }

  onInterrupt(handler: (interrupt: PciInterrupt) => void): void {
    this.#interrupt = handler;
  }

  reset(): void {
    this.#resetDevice();
    this.#setLine(false);
    this.#space.reset();
    this.#msix?.reset();
    this.#arePlaced = false;
  }

  save(): SavedVirtioPci {
    return {
      config: this.#space.save(),
      common: this.#common.save(),
      queues: this.#queues.save(),
      configVector: this.#vectors.config,
      ...(this.#msix === undefined ? {} : { msix: this.#msix.save() }),
      isLineHigh: this.#isLineHigh,
      arePlaced: this.#arePlaced,
      device: this.#core.save(),
    };
  }

  restore(state: SavedVirtioPci): void {
    const vectors = [state.configVector, ...state.queues.queues.map(({ vector }) => vector)];
    const end = this.#msix?.vectors ?? 0;
    const isVector = (n: number): boolean => n === VIRTIO_MSI_NO_VECTOR || (n >= 0 && n < end);
    checkState(vectors.every(isVector), 'vectors', `below ${end}`, vectors.join());
    checkState(this.#space.restore(state.config), 'configuration space', this.name, 'another');
    if (state.msix !== undefined) this.#msix?.restore(state.msix);
    this.#common.restore(state.common);
    this.#queues.restore(state.queues);
    this.#vectors.restore(state.configVector, state.queues.queues);
    this.#isLineHigh = state.isLineHigh;
    this.#arePlaced = state.arePlaced;
    this.#core.restore(state.device);
  }

  /** The virtio capabilities, in QEMU's order. */
  #addStructures(): number {
    for (const [i, type] of MODERN_STRUCTURES.entries()) {
      const extra = type === VIRTIO_PCI_CAP_NOTIFY_CFG ? [NOTIFY_OFF_MULTIPLIER] : [];
      const where = [MODERN_BAR, STRUCTURE_SIZE * i, STRUCTURE_SIZE, ...extra];
      this.#space.addCapability(PCI_CAP_ID_VNDR, virtioCapability(type, where));
    }
    const at = this.#space.addCapability(
      PCI_CAP_ID_VNDR,
      virtioCapability(VIRTIO_PCI_CAP_PCI_CFG, [0, 0, 0, 0]),
    );
    this.#space.allowWrites(at + 4, 1, 0xff);
    for (const dword of [8, 12, CFG_DATA]) this.#space.allowWrites(at + dword, 4, 0xffff_ffff);
    return at;
  }

  #addLegacy(reset: () => void, readIsr: () => number): void {
    const msix = this.#msix;
    const registers = new PciLegacyRegisters(this.#core, this.#queues, this.#vectors, {
      get isMsixEnabled() {
        return msix?.isEnabled ?? false;
      },
      readIsr,
      enableBusMaster: () => this.#space.setCommand(PCI_COMMAND_MASTER),
      reset,
    });
    const end = legacyConfigOffset(msix !== undefined) + this.#core.configSize;
    this.#addBar(LEGACY_BAR, PCI_BASE_ADDRESS_SPACE_IO, {
      size: 2 ** Math.ceil(Math.log2(end)),
      read: (offset, width) => truncate(registers.read(offset, width), width),
      write: (offset, width, value) => registers.write(offset, width, truncate(value, width)),
    });
  }

  /** A BAR that is not enabled is not there: nobody answers. */
  #addBar(index: number, type: number, region: MmioRegion): void {
    const { size } = region;
    this.#space.addBar(index, type, size);
    const enable = type === PCI_BASE_ADDRESS_SPACE_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
    const isEnabled = (): boolean => (this.#space.command & enable) !== 0;
    const isInside = (offset: number, width: number): boolean =>
      offset >= 0 && offset + width <= size && offset % width === 0;
    this.#bars[index] = {
      size,
      read: (offset, width) => {
        if (!isEnabled()) return 2 ** (8 * width) - 1;
        return isInside(offset, width) ? region.read(offset, width) : 0;
      },
      write: (offset, width, value) => {
        if (isEnabled() && isInside(offset, width)) region.write(offset, width, value);
      },
    };
  }

  /** What an access of configuration space asks of the structures, if it touches `pci_cfg_data`. */
  #cfgAccess(offset: number, width: number): { offset: number; width: RegisterWidth } | undefined {
    const data = this.#cfgAt + CFG_DATA;
    if (this.#cfgAt === 0 || offset + width <= data || offset >= data + 4) return undefined;
    const length = this.#space.read(this.#cfgAt + 12, 4);
    if (length !== 1 && length !== 2 && length !== 4) return undefined;
    const at = this.#space.read(this.#cfgAt + 8, 4);
    const aligned = at - (at % length);
    // As in QEMU nobody looks at which BAR it is to be.
    return aligned < this.#modern!.size ? { offset: aligned, width: length } : undefined;
  }

  /** [qemu v7.2 hw/virtio/virtio-pci.c virtio_pci_notify] */
  #onInterrupt(cause: InterruptCause, index = 0): void {
    if (this.#msix?.isEnabled !== true) {
      this.#setLine((this.#core.isr & ISR_QUEUE) !== 0);
      return;
    }
    const vector = cause === 'config' ? this.#vectors.config : this.#vectors.queue(index);
    if (vector !== VIRTIO_MSI_NO_VECTOR) this.#msix.notify(vector);
  }

  /** A message is a write to the bus, for which the function must be its master. */
  #send(vector: number, address: bigint, data: number): void {
    if ((this.#space.command & PCI_COMMAND_MASTER) === 0) return;
    this.#interrupt?.({ kind: 'msix', vector, address, data });
  }

  #readIsr(): number {
    const isr = this.#core.clearIsr();
    this.#setLine(false);
    return isr;
  }

  get #isLineOff(): boolean {
    return (this.#space.command & PCI_COMMAND_INTX_DISABLE) !== 0;
  }

  /** [qemu v7.2 hw/pci/pci.c pci_irq_handler] */
  #setLine(isHigh: boolean): void {
    if (isHigh === this.#isLineHigh) return;
    this.#isLineHigh = isHigh;
    this.#space.setInterruptStatus(isHigh);
    if (!this.#isLineOff) this.#interrupt?.({ kind: 'intx', asserted: isHigh });
  }

  /** [qemu v7.2 hw/virtio/virtio-pci.c virtio_pci_reset] */
  #resetDevice(): void {
    this.#core.reset();
    if (this.#msix?.isEnabled !== true) this.#setLine(false);
    this.#vectors.reset();
    this.#queues.reset();
  }
}

/** What follows id and pointer: `where` is BAR, offset, length, and what belongs to the type. */
function virtioCapability(type: number, where: readonly number[]): Uint8Array {
  const [bar = 0, ...dwords] = where;
  const view = new DataView(new ArrayBuffer(6 + 4 * dwords.length));
  view.setUint8(0, 2 + view.byteLength);
  view.setUint8(1, type);
  view.setUint8(2, bar);
  for (const [i, dword] of dwords.entries()) view.setUint32(6 + 4 * i, dword, true);
  return new Uint8Array(view.buffer);
}
