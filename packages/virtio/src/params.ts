/** Numbers of the specification and of the implementations that are modelled. */

/** The largest queue: a power of two that 16-bit indices can tell full from empty. [VIRTIO v1.2 §2.7 "Split Virtqueues"] */
export const VIRTQUEUE_SPEC_MAX_SIZE = 32_768;
/** The largest queue, and the most pieces of one buffer, in QEMU. [qemu v7.2 hw/virtio/virtio.c virtqueue_map_desc] */
export const VIRTQUEUE_MAX_SIZE = 1024;
/** Bytes of one descriptor, in a ring or an indirect table. [VIRTIO v1.2 §2.7.5 "The Virtqueue Descriptor Table"] */
export const VIRTQ_DESC_SIZE = 16;
/** Bytes of one entry of the used ring. [VIRTIO v1.2 §2.7.8 "The Virtqueue Used Ring"] */
export const VIRTQ_USED_ELEM_SIZE = 8;

/** Descriptor flags. [VIRTIO v1.2 §2.7.5 "The Virtqueue Descriptor Table"] */
export const VIRTQ_DESC_F_NEXT = 1;
/** The device writes the buffer; otherwise it reads it. */
export const VIRTQ_DESC_F_WRITE = 2;
/** The buffer is a table of descriptors. */
export const VIRTQ_DESC_F_INDIRECT = 4;

/** Descriptor flags of the packed ring. [VIRTIO v1.2 §2.8.1 "Driver and Device Ring Wrap Counters"] */
export const VIRTQ_DESC_F_AVAIL = 0x80;
/** The device is done with it, when it equals `VIRTQ_DESC_F_AVAIL` and the wrap counter. */
export const VIRTQ_DESC_F_USED = 0x8000;

/** Bytes of an event suppression structure. [VIRTIO v1.2 §2.8.14 "Event Suppression Structure Format"] */
export const EVENT_SUPPRESS_SIZE = 4;
/** Which events the writer of the structure wants. [VIRTIO v1.2 §2.8.10 "Driver and Device Event Suppression"] */
export const RING_EVENT_FLAGS_ENABLE = 0;
/** None. */
export const RING_EVENT_FLAGS_DISABLE = 1;
/** The event of one descriptor; only with EVENT_IDX. */
export const RING_EVENT_FLAGS_DESC = 2;

/** In `avail.flags`, by the driver: spare me interrupts. [VIRTIO v1.2 §2.7.6 "The Virtqueue Available Ring"] */
export const VIRTQ_AVAIL_F_NO_INTERRUPT = 1;
/** In `used.flags`, by the device: spare me kicks. [VIRTIO v1.2 §2.7.8 "The Virtqueue Used Ring"] */
export const VIRTQ_USED_F_NO_NOTIFY = 1;

/** `sizeof(VirtQueueElement)` on a 64-bit host: what QEMU traces for a device without a larger request. */
export const QEMU_ELEMENT_SIZE = 56;
