import { VirtioError } from '../errors.js';
import { VIRTQ_DESC_SIZE, VIRTQ_USED_ELEM_SIZE, VIRTQUEUE_SPEC_MAX_SIZE } from '../params.js';

/** Offsets within the available and within the used ring. [VIRTIO v1.2 §2.7.6, §2.7.8] */
export const RING_FLAGS = 0;
/** Where the driver (device) puts the next entry, modulo the queue size; free-running. */
export const RING_IDX = 2;
/** The first entry. */
const RING_ENTRIES = 4;

/** Offset of `ring[i]` in the available ring; with `i` the queue size, of `used_event`. */
export function availEntryOffset(i: number): number {
  return RING_ENTRIES + 2 * i;
}

/** Offset of `ring[i]` in the used ring; with `i` the queue size, of `avail_event`. */
export function usedEntryOffset(i: number): number {
  return RING_ENTRIES + VIRTQ_USED_ELEM_SIZE * i;
}

/** Bytes of the descriptor table. [VIRTIO v1.2 §2.7 "Split Virtqueues"] */
export function descTableSize(size: number): number {
  return VIRTQ_DESC_SIZE * size;
}

/** Bytes of the available ring; `used_event` is there only with EVENT_IDX. */
export function availRingSize(size: number, hasEventIdx: boolean): number {
  return availEntryOffset(size) + (hasEventIdx ? 2 : 0);
}

/** Bytes of the used ring; `avail_event` is there only with EVENT_IDX. */
export function usedRingSize(size: number, hasEventIdx: boolean): number {
  return usedEntryOffset(size) + (hasEventIdx ? 2 : 0);
}

/** Where the three parts lie in one allocation, in bytes from its start. */
export interface SplitRingLayout {
  readonly size: number;
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  /** `used_event`: in the driver's part, the device reads it. */
  readonly usedEvent: number;
  /** `avail_event`: in the device's part, the driver reads it. */
  readonly availEvent: number;
  /** Of the whole allocation. */
  readonly total: number;
}

/**
 * One allocation for all parts, the used ring at a multiple of `align`. Room for both event fields
 * is always there, whatever was negotiated. [linux v6.1 include/uapi/linux/virtio_ring.h vring_size]
 * @throws VirtioError `E_QUEUE_SIZE`
 */
export function splitRingLayout(size: number, align: number): SplitRingLayout {
  checkQueueSize(size);
  const avail = descTableSize(size);
  const usedEvent = avail + availEntryOffset(size);
  const used = Math.ceil((usedEvent + 2) / align) * align;
  const availEvent = used + usedEntryOffset(size);
  return { size, desc: 0, avail, used, usedEvent, availEvent, total: availEvent + 2 };
}

/**
 * "Queue Size value is always a power of 2. The maximum Queue Size value is 32768."
 * [VIRTIO v1.2 §2.7 "Split Virtqueues"]
 * @throws VirtioError `E_QUEUE_SIZE`
 */
export function checkQueueSize(size: number): void {
  const isPowerOfTwo = Number.isInteger(size) && size > 0 && (size & (size - 1)) === 0;
  if (isPowerOfTwo && size <= VIRTQUEUE_SPEC_MAX_SIZE) return;
  throw new VirtioError(
    'E_QUEUE_SIZE',
    `expected a queue size that is a power of two from 1 to ${VIRTQUEUE_SPEC_MAX_SIZE}, found ${size}`,
    { details: { size } },
  );
}
