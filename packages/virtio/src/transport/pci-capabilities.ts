import type { MmioRegion, PciFunction } from './registers.js';

/** Configuration space: offsets and bits. [PCI 3.0 §6.1, §6.2] */
export const PCI_VENDOR_ID = 0x00;
export const PCI_DEVICE_ID = 0x02;
export const PCI_COMMAND = 0x04;
export const PCI_COMMAND_IO = 0x1;
export const PCI_COMMAND_MEMORY = 0x2;
/** The function may write to the bus: data, and interrupts by message. */
export const PCI_COMMAND_MASTER = 0x4;
export const PCI_STATUS = 0x06;
export const PCI_STATUS_CAP_LIST = 0x10;
export const PCI_SUBSYSTEM_ID = 0x2e;
export const PCI_CAPABILITY_LIST = 0x34;
/** [PCI 3.0 appendix H] */
export const PCI_CAP_ID_VNDR = 0x09;
export const PCI_CAP_ID_MSIX = 0x11;

/** [VIRTIO v1.2 §4.1.2 "PCI Device Discovery"] */
export const PCI_VENDOR_ID_REDHAT_QUMRANET = 0x1af4;
/** Modern devices have this plus the virtio device id as their PCI device id. */
export const VIRTIO_PCI_DEVICE_ID_BASE = 0x1040;

/** `cfg_type` of a virtio capability. [VIRTIO v1.2 §4.1.4 "Virtio Structure PCI Capabilities"] */
export const VIRTIO_PCI_CAP_COMMON_CFG = 1;
export const VIRTIO_PCI_CAP_NOTIFY_CFG = 2;
export const VIRTIO_PCI_CAP_ISR_CFG = 3;
export const VIRTIO_PCI_CAP_DEVICE_CFG = 4;
export const VIRTIO_PCI_CAP_PCI_CFG = 5;

/** Capabilities are dwords between the header and the end of the first 256 bytes. */
const CAPABILITIES_MAX = 48;
const BARS = 6;

/** Where a capability says that a structure lies. */
export interface VirtioCapability {
  /** Offset of the capability itself in configuration space. */
  readonly at: number;
  readonly bar: number;
  /** Of the structure in the BAR, in bytes. */
  readonly offset: number;
  readonly length: number;
}

/** A structure of a virtio function: a part of one of its BARs. */
export interface PciStructure {
  readonly region: MmioRegion;
  readonly offset: number;
  readonly length: number;
}

/**
 * The offsets of all capabilities with this id, in the order of the list. A list that goes round, or
 * leaves its place, ends there.
 */
export function findPciCapabilities(fn: PciFunction, id: number): number[] {
  const found: number[] = [];
  if ((fn.configRead(PCI_STATUS, 2) & PCI_STATUS_CAP_LIST) === 0) return found;
  let at = fn.configRead(PCI_CAPABILITY_LIST, 1) & ~3;
  for (let n = 0; at >= 0x40 && n < CAPABILITIES_MAX; n += 1) {
    if (fn.configRead(at, 1) === id) found.push(at);
    at = fn.configRead(at + 1, 1) & ~3;
  }
  return found;
}

/**
 * The first virtio capability of a type whose BAR is there: "the driver MUST ignore" those with a
 * BAR value that is reserved. [linux v6.1 drivers/virtio/virtio_pci_modern_dev.c
 * virtio_pci_find_capability]
 */
export function findVirtioCapability(fn: PciFunction, type: number): VirtioCapability | undefined {
  for (const at of findPciCapabilities(fn, PCI_CAP_ID_VNDR)) {
    const bar = fn.configRead(at + 4, 1);
    if (bar >= BARS || fn.configRead(at + 3, 1) !== type || fn.bar(bar) === undefined) continue;
    return { at, bar, offset: fn.configRead(at + 8, 4), length: fn.configRead(at + 12, 4) };
  }
  return undefined;
}

/**
 * Opens the structure that a capability describes, or says what is wrong with it.
 * [linux v6.1 drivers/virtio/virtio_pci_modern_dev.c vp_modern_map_capability]
 */
export function mapVirtioCapability(
  fn: PciFunction,
  capability: VirtioCapability,
  minLength: number,
  align: number,
): PciStructure | string {
  const { bar, offset, length } = capability;
  const region = fn.bar(bar);
  if (length < minLength) return `bad capability len ${length} (>=${minLength} expected)`;
  if (offset % align !== 0) return `offset ${offset} not aligned to ${align}`;
  if (region === undefined || offset + minLength > region.size) {
    const size = region?.size ?? 0;
    return `map virtio ${minLength}@${offset} out of range on bar ${bar} length ${size}`;
  }
  return { region, offset, length: Math.min(length, region.size - offset) };
}
