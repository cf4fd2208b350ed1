/**
 * Feature bits that do not depend on the device type, by bit number, spelt as the specification
 * spells them. [VIRTIO v1.2 §6 "Reserved Feature Bits"]
 */

/** Legacy: notify when the device runs out of buffers, even if suppressed. [VIRTIO v1.2 §6.3] */
export const VIRTIO_F_NOTIFY_ON_EMPTY = 24;
/** Legacy: any descriptor layout is accepted; a matter of course since 1.0. [VIRTIO v1.2 §6.3] */
export const VIRTIO_F_ANY_LAYOUT = 27;
/**
 * The driver can use indirect descriptor tables. The specification writes VIRTIO_F_INDIRECT_DESC;
 * this is the name that its appendix and all code use. [VIRTIO v1.2 §6]
 */
export const VIRTIO_RING_F_INDIRECT_DESC = 28;
/** `used_event` and `avail_event` replace the notification flags. [VIRTIO v1.2 §6] */
export const VIRTIO_RING_F_EVENT_IDX = 29;
/** "UNUSED": QEMU finds out early drivers that accept everything by it. [VIRTIO v1.2 §6.3] */
export const VIRTIO_F_BAD_FEATURE = 30;
/** Compliance with the standard; absent on a legacy device or driver. [VIRTIO v1.2 §6] */
export const VIRTIO_F_VERSION_1 = 32;
/** The device's access to memory is limited or translated by the platform. [VIRTIO v1.2 §6] */
export const VIRTIO_F_ACCESS_PLATFORM = 33;
/** The name of bit 33 until 2018, which QEMU 7.2 still uses. */
export const VIRTIO_F_IOMMU_PLATFORM = 33;
/** The packed virtqueue layout. [VIRTIO v1.2 §6] */
export const VIRTIO_F_RING_PACKED = 34;
/** Buffers are used in the order in which they were made available. [VIRTIO v1.2 §6] */
export const VIRTIO_F_IN_ORDER = 35;
/** Memory is ordered as the platform's devices order it. [VIRTIO v1.2 §6] */
export const VIRTIO_F_ORDER_PLATFORM = 36;
/** Single Root I/O Virtualization. [VIRTIO v1.2 §6] */
export const VIRTIO_F_SR_IOV = 37;
/** The driver passes extra data in its notifications. [VIRTIO v1.2 §6] */
export const VIRTIO_F_NOTIFICATION_DATA = 38;
/** The device gives the identifier that a notification carries. [VIRTIO v1.2 §6] */
export const VIRTIO_F_NOTIF_CONFIG_DATA = 39;
/** The driver can reset one queue. [VIRTIO v1.2 §6] */
export const VIRTIO_F_RING_RESET = 40;

/** Device types. [VIRTIO v1.2 §5 "Device Types"] */
export const VIRTIO_ID_NET = 1;
/** [VIRTIO v1.2 §5.2.1 "Device ID"] */
export const VIRTIO_ID_BLOCK = 2;
/** [VIRTIO v1.2 §5.3.1 "Device ID"] */
export const VIRTIO_ID_CONSOLE = 3;
/** The entropy device. [VIRTIO v1.2 §5.4.1 "Device ID"] */
export const VIRTIO_ID_RNG = 4;

const ONE = 1n;

/** The 64-bit value with only feature bit `n` set. */
export function featureBit(n: number): bigint {
  return ONE << BigInt(n);
}

/** The 64-bit value with all these feature bits set. */
export function featureBits(...bits: readonly number[]): bigint {
  let value = 0n;
  for (const bit of bits) value |= featureBit(bit);
  return value;
}

/** Whether `bits` holds feature bit `bit`. */
export function hasFeature(bits: bigint, bit: number): boolean {
  return ((bits >> BigInt(bit)) & ONE) === ONE;
}

/** What only legacy drivers see of the features of any device. [qemu v7.2 include/hw/virtio/virtio.h VIRTIO_LEGACY_FEATURES] */
export const VIRTIO_LEGACY_FEATURES: bigint = featureBits(
  VIRTIO_F_NOTIFY_ON_EMPTY,
  VIRTIO_F_ANY_LAYOUT,
  VIRTIO_F_BAD_FEATURE,
);
