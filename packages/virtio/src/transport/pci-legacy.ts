/**
 * Offsets in the legacy interface's BAR, which is BAR 0. The device configuration follows.
 * [VIRTIO v1.2 §4.1.4.10 "Legacy Interfaces: A Note on PCI Device Layout"]
 * [linux v6.1 include/uapi/linux/virtio_pci.h]
 */
export const PciLegacy = {
  HOST_FEATURES: 0,
  GUEST_FEATURES: 4,
  QUEUE_PFN: 8,
  QUEUE_NUM: 12,
  QUEUE_SEL: 14,
  QUEUE_NOTIFY: 16,
  STATUS: 18,
  ISR: 19,
  /** This one and the next are there only while MSI-X is enabled. */
  CONFIG_VECTOR: 20,
  QUEUE_VECTOR: 22,
} as const;

/** The BAR of the legacy interface. */
export const LEGACY_BAR = 0;

/** A queue's address is given in pages of this size, whatever the guest's are. */
export const VIRTIO_PCI_QUEUE_ADDR_SHIFT = 12;
/** Where the used ring begins: a multiple of this. */
export const VIRTIO_PCI_VRING_ALIGN = 4096;

/** Where the device configuration begins. [linux v6.1 include/uapi/linux/virtio_pci.h VIRTIO_PCI_CONFIG_OFF] */
export function legacyConfigOffset(isMsixEnabled: boolean): number {
  return isMsixEnabled ? 24 : 20;
}
