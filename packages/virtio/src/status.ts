/** The bits of the device status field. [VIRTIO v1.2 §2.1 "Device Status Field"] */

/** The guest has found the device and knows it for a virtio device. */
export const VIRTIO_CONFIG_S_ACKNOWLEDGE = 0x01;
/** The guest knows how to drive the device. */
export const VIRTIO_CONFIG_S_DRIVER = 0x02;
/** The driver is set up: the device is live. */
export const VIRTIO_CONFIG_S_DRIVER_OK = 0x04;
/** Feature negotiation is complete. The device may refuse: the driver reads it back. */
export const VIRTIO_CONFIG_S_FEATURES_OK = 0x08;
/** Set by the device: an error from which only a reset recovers. */
export const VIRTIO_CONFIG_S_NEEDS_RESET = 0x40;
/** The guest has given up on the device. */
export const VIRTIO_CONFIG_S_FAILED = 0x80;
