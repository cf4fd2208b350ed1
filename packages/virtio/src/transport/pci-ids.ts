import { VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_NET, VIRTIO_ID_RNG } from '../features.js';

/** What PCI says of a type of device. */
export interface PciDeviceType {
  /** The PCI device id with a legacy interface. */
  readonly transitionalId: number;
  readonly classCode: number;
  /** MSI-X vectors, if not one for each queue and one for the configuration. */
  readonly vectors?: number;
}

const PCI_CLASS_STORAGE_SCSI = 0x0100;
const PCI_CLASS_NETWORK_ETHERNET = 0x0200;
const PCI_CLASS_COMMUNICATION_OTHER = 0x0780;
const PCI_CLASS_OTHERS = 0x00ff;
/** Where the ids of legacy devices begin. */
const TRANSITIONAL_BASE = 0x1000;

/**
 * By virtio device id. [VIRTIO v1.2 §4.1.2.1 "Device Requirements: PCI Device Discovery"]
 * [qemu v7.2 hw/virtio/virtio-blk-pci.c, virtio-net-pci.c, virtio-rng-pci.c, virtio-serial-pci.c]
 */
const TYPES: Readonly<Record<number, PciDeviceType>> = {
  [VIRTIO_ID_NET]: { transitionalId: 0x1000, classCode: PCI_CLASS_NETWORK_ETHERNET },
  [VIRTIO_ID_BLOCK]: { transitionalId: 0x1001, classCode: PCI_CLASS_STORAGE_SCSI },
  [VIRTIO_ID_CONSOLE]: {
    transitionalId: 0x1003,
    classCode: PCI_CLASS_COMMUNICATION_OTHER,
    vectors: 2,
  },
  [VIRTIO_ID_RNG]: { transitionalId: 0x1005, classCode: PCI_CLASS_OTHERS },
};

/** A type that is not listed has the id that QEMU's base gives, and no class of its own. */
export function pciDeviceType(deviceId: number): PciDeviceType {
  return (
    TYPES[deviceId] ?? {
      transitionalId: TRANSITIONAL_BASE + deviceId,
      classCode: PCI_CLASS_OTHERS,
    }
  );
}
