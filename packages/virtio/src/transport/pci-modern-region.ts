import type { VirtioDeviceCore } from '../device/device-core.js';
import { hasFeature, VIRTIO_F_NOTIFICATION_DATA } from '../features.js';
import { readDeviceConfig, truncate, writeDeviceConfig } from './config-registers.js';
import {
  VIRTIO_PCI_CAP_COMMON_CFG,
  VIRTIO_PCI_CAP_DEVICE_CFG,
  VIRTIO_PCI_CAP_ISR_CFG,
  VIRTIO_PCI_CAP_NOTIFY_CFG,
} from './pci-capabilities.js';
import type { PciCommonRegisters } from './pci-common-registers.js';
import type { MmioRegion, RegisterWidth } from './registers.js';

/** Each structure has 4 KiB of the BAR: the notifications have 4 bytes for each of 1024 queues. */
export const STRUCTURE_SIZE = 0x1000;
/** Bytes from one queue's notification address to the next. */
export const NOTIFY_OFF_MULTIPLIER = 4;
/** The structures in the order in which they lie in the BAR. [qemu v7.2 hw/virtio/virtio-pci.c virtio_pci_realize] */
export const MODERN_STRUCTURES: readonly number[] = [
  VIRTIO_PCI_CAP_COMMON_CFG,
  VIRTIO_PCI_CAP_ISR_CFG,
  VIRTIO_PCI_CAP_DEVICE_CFG,
  VIRTIO_PCI_CAP_NOTIFY_CFG,
];

/**
 * The BAR of the modern structures. An access that is not aligned reads 0 and writes nothing.
 * [VIRTIO v1.2 §4.1.4 "Virtio Structure PCI Capabilities"]
 */
export class PciModernRegion implements MmioRegion {
  readonly size: number = STRUCTURE_SIZE * MODERN_STRUCTURES.length;
  readonly #core: VirtioDeviceCore;
  readonly #common: PciCommonRegisters;
  readonly #readIsr: () => number;

  constructor(core: VirtioDeviceCore, common: PciCommonRegisters, readIsr: () => number) {
    this.#core = core;
    this.#common = common;
    this.#readIsr = readIsr;
  }

  read(offset: number, width: RegisterWidth): number {
    if (offset < 0 || offset + width > this.size || offset % width !== 0) return 0;
    const at = offset % STRUCTURE_SIZE;
    switch (MODERN_STRUCTURES[(offset - at) / STRUCTURE_SIZE]) {
      case VIRTIO_PCI_CAP_COMMON_CFG:
        return truncate(this.#common.read(at), width);
      case VIRTIO_PCI_CAP_ISR_CFG:
        return this.#readIsr();
      case VIRTIO_PCI_CAP_DEVICE_CFG:
        return readDeviceConfig(this.#core, at, width);
      default:
        return 0;
    }
  }

  write(offset: number, width: RegisterWidth, value: number): void {
    if (offset < 0 || offset + width > this.size || offset % width !== 0) return;
    const at = offset % STRUCTURE_SIZE;
    switch (MODERN_STRUCTURES[(offset - at) / STRUCTURE_SIZE]) {
      case VIRTIO_PCI_CAP_COMMON_CFG:
        this.#common.write(at, truncate(value, width));
        return;
      case VIRTIO_PCI_CAP_DEVICE_CFG:
        writeDeviceConfig(this.#core, at, width, value);
        return;
      case VIRTIO_PCI_CAP_NOTIFY_CFG:
        this.#notify(Math.floor(at / NOTIFY_OFF_MULTIPLIER), truncate(value, width));
        return;
    }
  }

  /** The address says which queue; the value is no news but with NOTIFICATION_DATA. */
  #notify(index: number, value: number): void {
    const hasData = hasFeature(this.#core.features, VIRTIO_F_NOTIFICATION_DATA);
    if (hasData) this.#core.notifyQueue(index, value);
    else this.#core.notifyQueue(index);
  }
}
