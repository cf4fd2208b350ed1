import { VirtioError } from '../errors.js';
import { VIRTQ_DESC_F_AVAIL, VIRTQ_DESC_F_USED, VIRTQUEUE_SPEC_MAX_SIZE } from '../params.js';
import { vringNeedEvent } from './vring-need-event.js';

/** Offset of a descriptor's flags. [VIRTIO v1.2 §2.8.13 "The Virtqueue Descriptor Format"] */
export const DESC_FLAGS = 14;

/** Offsets within an event suppression structure. [VIRTIO v1.2 §2.8.14 "Event Suppression Structure Format"] */
export const EVENT_OFF_WRAP = 0;
export const EVENT_FLAGS = 2;
const EVENT_WRAP = 0x8000;

// In this file a wrap counter of 1 is VIRTQ_DESC_F_AVAIL, as in the flags of descriptors; 0 is 0.

/** Whether the driver made a descriptor with these flags available in this lap of the device. [qemu v7.2 hw/virtio/virtio.c is_desc_avail] */
export function isDescAvail(flags: number, wrap: number): boolean {
  const avail = flags & VIRTQ_DESC_F_AVAIL;
  return avail === wrap && ((flags & VIRTQ_DESC_F_USED) === 0) === (avail !== 0);
}

/** Whether the device used a descriptor with these flags in this lap of the driver. [linux v6.1 drivers/virtio/virtio_ring.c is_used_desc_packed] */
export function isDescUsed(flags: number, wrap: number): boolean {
  const avail = flags & VIRTQ_DESC_F_AVAIL;
  return avail === wrap && ((flags & VIRTQ_DESC_F_USED) === 0) === (avail === 0);
}

/** A place in the ring and the wrap counter there, as the event suppression structure has it. */
export function offWrap(index: number, wrap: number): number {
  return wrap === 0 ? index : index | EVENT_WRAP;
}

/**
 * Whether the other side wants to hear of a step from `oldIdx` to `newIdx`; `wrap` is the counter at
 * `newIdx`. [qemu v7.2 hw/virtio/virtio.c vring_packed_need_event]
 */
export function packedNeedEvent(
  wanted: number,
  wrap: number,
  size: number,
  newIdx: number,
  oldIdx: number,
): boolean {
  const index = wanted & ~EVENT_WRAP;
  const isSameLap = ((wanted & EVENT_WRAP) !== 0) === (wrap !== 0);
  return vringNeedEvent(isSameLap ? index : index - size, newIdx, oldIdx);
}

/**
 * "Packed virtqueues support up to 2^15 entries each", and the size "does not have to be a power of
 * 2". [VIRTIO v1.2 §2.8 "Packed Virtqueues", §2.8.10.1 "Structure Size and Alignment"]
 * @throws VirtioError `E_QUEUE_SIZE`
 */
export function checkPackedQueueSize(size: number): void {
  if (Number.isInteger(size) && size > 0 && size <= VIRTQUEUE_SPEC_MAX_SIZE) return;
  throw new VirtioError(
    'E_QUEUE_SIZE',
    `expected a queue size from 1 to ${VIRTQUEUE_SPEC_MAX_SIZE}, found ${size}`,
    { details: { size } },
  );
}
