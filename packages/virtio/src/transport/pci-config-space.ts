import {
  PCI_CAPABILITY_LIST,
  PCI_COMMAND,
  PCI_COMMAND_IO,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_DEVICE_ID,
  PCI_STATUS,
  PCI_STATUS_CAP_LIST,
  PCI_SUBSYSTEM_ID,
  PCI_VENDOR_ID,
} from './pci-capabilities.js';
import type { RegisterWidth } from './registers.js';

/** Bytes of configuration space: a conventional function's. [PCI 3.0 §6.1] */
const PCI_CONFIG_SPACE_SIZE = 256;
/** Where the device-dependent part begins. */
const PCI_CONFIG_HEADER_SIZE = 0x40;
export const PCI_REVISION_ID = 0x08;
const PCI_CLASS_DEVICE = 0x0a;
const PCI_CACHE_LINE_SIZE = 0x0c;
const PCI_BASE_ADDRESS_0 = 0x10;
const PCI_SUBSYSTEM_VENDOR_ID = 0x2c;
const PCI_INTERRUPT_LINE = 0x3c;
const PCI_INTERRUPT_PIN = 0x3d;
const PCI_COMMAND_SERR = 0x100;
/** The function does not assert its line. */
export const PCI_COMMAND_INTX_DISABLE = 0x400;
/** The line would be asserted. */
const PCI_STATUS_INTERRUPT = 0x8;

/** The kinds of BARs: the low bits of the register. [PCI 3.0 §6.2.5.1 "Address Maps"] */
export const PCI_BASE_ADDRESS_SPACE_IO = 0x1;
export const PCI_BASE_ADDRESS_SPACE_MEMORY = 0x0;
/** Prefetchable memory, 64-bit: takes two registers. */
export const PCI_BASE_ADDRESS_MEM_PREFETCH_64 = 0xc;

/** What identifies a function. */
export interface PciIdentity {
  readonly vendorId: number;
  readonly deviceId: number;
  readonly revision: number;
  /** Base class and subclass: `0x0100`. */
  readonly classCode: number;
  readonly subsystemVendorId: number;
  readonly subsystemId: number;
}

/**
 * The configuration space of a conventional PCI function: bytes, and which of their bits can be
 * written. What no capability takes is scratch memory. [qemu v7.2 hw/pci/pci.c pci_init_wmask]
 */
export class PciConfigSpace {
  readonly #bytes = new Uint8Array(PCI_CONFIG_SPACE_SIZE);
  readonly #writable = new Uint8Array(PCI_CONFIG_SPACE_SIZE);
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #bars: { readonly at: number; readonly type: number }[] = [];
  #nextCapability = PCI_CONFIG_HEADER_SIZE;

  constructor(identity: PciIdentity) {
    const view = this.#view;
    view.setUint16(PCI_VENDOR_ID, identity.vendorId, true);
    view.setUint16(PCI_DEVICE_ID, identity.deviceId, true);
    view.setUint8(PCI_REVISION_ID, identity.revision);
    view.setUint16(PCI_CLASS_DEVICE, identity.classCode, true);
    view.setUint16(PCI_SUBSYSTEM_VENDOR_ID, identity.subsystemVendorId, true);
    view.setUint16(PCI_SUBSYSTEM_ID, identity.subsystemId, true);
    view.setUint8(PCI_INTERRUPT_PIN, 1);
    this.#writable[PCI_CACHE_LINE_SIZE] = 0xff;
    this.#writable[PCI_INTERRUPT_LINE] = 0xff;
    const command =
      PCI_COMMAND_IO |
      PCI_COMMAND_MEMORY |
      PCI_COMMAND_MASTER |
      PCI_COMMAND_SERR |
      PCI_COMMAND_INTX_DISABLE;
    this.allowWrites(PCI_COMMAND, 2, command);
    this.#writable.fill(0xff, PCI_CONFIG_HEADER_SIZE);
  }

  /** The COMMAND register. */
  get command(): number {
    return this.#view.getUint16(PCI_COMMAND, true);
  }

  /** Bits of COMMAND that the device itself sets. */
  setCommand(bits: number): void {
    this.#view.setUint16(PCI_COMMAND, this.command | bits, true);
  }

  /** What STATUS says of the interrupt line. */
  setInterruptStatus(isPending: boolean): void {
    const status = this.#view.getUint16(PCI_STATUS, true) & ~PCI_STATUS_INTERRUPT;
    this.#view.setUint16(PCI_STATUS, isPending ? status | PCI_STATUS_INTERRUPT : status, true);
  }

  /** What lies outside reads as ones. */
  read(offset: number, width: RegisterWidth): number {
    if (offset < 0 || offset + width > PCI_CONFIG_SPACE_SIZE) return 2 ** (8 * width) - 1;
    if (width === 1) return this.#view.getUint8(offset);
    return width === 2 ? this.#view.getUint16(offset, true) : this.#view.getUint32(offset, true);
  }

  /** Changes those bits that can be written. */
  write(offset: number, width: RegisterWidth, value: number): void {
    if (offset < 0 || offset + width > PCI_CONFIG_SPACE_SIZE) return;
    for (let i = 0; i < width; i += 1) {
      const at = offset + i;
      const mask = this.#writable[at]!;
      this.#bytes[at] = (this.#bytes[at]! & ~mask) | ((value >>> (8 * i)) & mask);
    }
  }

  /** Writes a register that drivers cannot write. */
  set(offset: number, width: RegisterWidth, value: number): void {
    if (width === 1) this.#view.setUint8(offset, value);
    else if (width === 2) this.#view.setUint16(offset, value, true);
    else this.#view.setUint32(offset, value, true);
  }

  /** Says which bits of a register drivers can write. */
  allowWrites(offset: number, width: RegisterWidth, mask: number): void {
    for (let i = 0; i < width; i += 1) this.#writable[offset + i] = mask >>> (8 * i);
  }

  /**
   * Puts a capability before those that are there; drivers cannot write it. `body` follows the id
   * and the pointer. [qemu v7.2 hw/pci/pci.c pci_add_capability]
   */
  addCapability(id: number, body: Uint8Array): number {
    const at = this.#nextCapability;
    this.#bytes[at] = id;
    this.#bytes[at + 1] = this.#bytes[PCI_CAPABILITY_LIST]!;
    this.#bytes.set(body, at + 2);
    this.#writable.fill(0, at, at + 2 + body.length);
    this.#bytes[PCI_CAPABILITY_LIST] = at;
    this.#bytes[PCI_STATUS] = this.#bytes[PCI_STATUS]! | PCI_STATUS_CAP_LIST;
    this.#nextCapability = at + Math.ceil((2 + body.length) / 4) * 4;
    return at;
  }

  /** A BAR of a size that is a power of two. [qemu v7.2 hw/pci/pci.c pci_register_bar] */
  addBar(index: number, type: number, size: number): void {
    const at = PCI_BASE_ADDRESS_0 + 4 * index;
    this.#bars.push({ at, type });
    this.#view.setUint32(at, type, true);
    this.allowWrites(at, 4, ~(size - 1) >>> 0);
    if (type === PCI_BASE_ADDRESS_MEM_PREFETCH_64) this.allowWrites(at + 4, 4, 0xffff_ffff);
  }

  /** What a reset of the function does to the header. [qemu v7.2 hw/pci/pci.c pci_do_device_reset] */
  reset(): void {
    this.#view.setUint16(PCI_COMMAND, 0, true);
    this.#bytes[PCI_CACHE_LINE_SIZE] = 0;
    this.#bytes[PCI_INTERRUPT_LINE] = 0;
    for (const { at, type } of this.#bars) {
      this.#view.setUint32(at, type, true);
      if (type === PCI_BASE_ADDRESS_MEM_PREFETCH_64) this.#view.setUint32(at + 4, 0, true);
    }
  }

  save(): number[] {
    return [...this.#bytes];
  }

  /** False, and nothing done, if these are the bytes of another function. [qemu v7.2 hw/pci/pci.c get_pci_config_device] */
  restore(bytes: readonly number[]): boolean {
    const isSame = this.#bytes.every((byte, at) => {
      const isStatus = at === PCI_STATUS || at === PCI_STATUS + 1;
      return isStatus || ((byte ^ (bytes[at] ?? -1)) & ~this.#writable[at]!) === 0;
    });
    if (isSame) this.#bytes.set(bytes.slice(0, PCI_CONFIG_SPACE_SIZE));
    return isSame;
  }
}
