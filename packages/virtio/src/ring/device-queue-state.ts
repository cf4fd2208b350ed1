import { VirtioError } from '../errors.js';
import { VIRTQUEUE_MAX_SIZE } from '../params.js';

/**
 * The device's half of a queue at rest, as plain data. Which features were accepted is the device's
 * to keep. [qemu v7.2 hw/virtio/virtio.c vmstate_virtqueue, vmstate_packed_virtqueue]
 */
export interface DeviceQueueState {
  readonly layout: 'split' | 'packed';
  readonly size: number;
  /** Bus addresses, such as `0x10000`; absent before the driver gave any. */
  readonly rings?: { readonly desc: string; readonly avail: string; readonly used: string };
  readonly lastAvailIdx: number;
  readonly usedIdx: number;
  /** Packed only: the wrap counters at the two indices, 0 or 1. */
  readonly lastAvailWrapCounter?: number;
  readonly usedWrapCounter?: number;
  readonly inUse: number;
  readonly isNotificationOn: boolean;
  /** `usedIdx` when the driver was last interrupted; absent: not known, it will be interrupted. */
  readonly signalledUsed?: number;
  /** With IN_ORDER: the buffers in flight, as they were taken. */
  readonly row?: readonly OrderedBuffer[];
}

/** A buffer in flight in a queue that returns them in order. */
export interface OrderedBuffer {
  readonly head: number;
  readonly ndescs: number;
  /** It is finished, with so many bytes in it, and waits for those before it. */
  readonly written?: number;
}

/**
 * An element in flight, as plain data: a device keeps those that it works on beside the state of the
 * queue. The segments are bus addresses: they are mapped anew. [qemu v7.2 hw/virtio/virtio.c qemu_put_virtqueue_element]
 */
export interface ElementState {
  readonly head: number;
  readonly ndescs: number;
  /** With IN_ORDER: its place in the queue's `row`. */
  readonly place: number;
  readonly out: readonly SavedSegment[];
  readonly in: readonly SavedSegment[];
}

/** A segment of an element: a bus address, such as `0x10000`, and bytes. */
export interface SavedSegment {
  readonly address: string;
  readonly length: number;
}

/** The queue that a state is for. */
export interface QueueShape {
  readonly layout: 'split' | 'packed';
  /** The most entries. */
  readonly maxSize: number;
  readonly hasInOrder: boolean;
}

/**
 * Refuses what no queue can be in. [qemu v7.2 hw/virtio/virtio.c virtio_load]
 * @throws VirtioError `E_QUEUE_STATE`
 */
export function checkQueueState(state: DeviceQueueState, shape: QueueShape): void {
  refuse(sizeProblem(state, shape) ?? inFlightProblem(state, shape), { state });
}

/**
 * Refuses an element that is not in flight in a queue with so many descriptors in use, and one of
 * more segments than any has. [qemu v7.2 hw/virtio/virtio.c qemu_get_virtqueue_element]
 * @throws VirtioError `E_QUEUE_STATE`
 */
export function checkElementState(element: ElementState, inUse: number, buffers: number): void {
  const { head, ndescs, place } = element;
  const isGood = isIndex(head, 0x1_0000) && isIndex(ndescs - 1, inUse) && isIndex(place, buffers);
  const found = `head ${head} of ${ndescs} descriptors at place ${place}`;
  refuse(isGood ? undefined : `expected one of ${inUse} descriptors in flight, found ${found}`, {
    element,
  });
  const count = element.out.length + element.in.length;
  const isSmall = count <= VIRTQUEUE_MAX_SIZE;
  refuse(isSmall ? undefined : `expected at most ${VIRTQUEUE_MAX_SIZE} segments, found ${count}`, {
    head,
  });
}

function refuse(problem: string | undefined, details: Record<string, unknown>): void {
  if (problem !== undefined) throw new VirtioError('E_QUEUE_STATE', problem, { details });
}

function sizeProblem(state: DeviceQueueState, shape: QueueShape): string | undefined {
  const { size, lastAvailIdx, usedIdx } = state;
  if (state.layout !== shape.layout) {
    return `expected the state of a ${shape.layout} queue, found one of a ${state.layout} queue`;
  }
  if (!isIndex(size - 1, shape.maxSize)) {
    return `expected a size from 1 to ${shape.maxSize}, found ${size}`;
  }
  const end = shape.layout === 'packed' ? size : 0x1_0000;
  if (!isIndex(lastAvailIdx, end) || !isIndex(usedIdx, end)) {
    return `expected indices below ${end}, found ${lastAvailIdx} (avail) and ${usedIdx} (used)`;
  }
  if (state.rings === undefined && lastAvailIdx !== 0) {
    return `expected index 0 of a queue without addresses, found ${lastAvailIdx}`;
  }
  return undefined;
}

function inFlightProblem(state: DeviceQueueState, shape: QueueShape): string | undefined {
  const { size, lastAvailIdx, usedIdx, inUse, row = [] } = state;
  const distance =
    shape.layout === 'packed' ? packedDistance(state) : (lastAvailIdx - usedIdx) & 0xffff;
  if (!isIndex(distance, size + 1)) {
    return `expected at most ${size} descriptors from used index ${usedIdx} to avail index ${lastAvailIdx}, found ${distance}`;
  }
  if (!isIndex(inUse, distance + 1)) {
    return `expected at most ${distance} descriptors in flight, found ${inUse}`;
  }
  if (!shape.hasInOrder) return undefined;
  const taken = row.reduce((sum, { ndescs }) => sum + Math.max(ndescs, 1), 0);
  // A device that refused a chain of a split ring is past it.
  return taken <= distance
    ? undefined
    : `expected a row of at most ${distance} descriptors in flight, found one of ${taken}`;
}

// Descriptors from the used index to the available index; negative if they cannot be so.
function packedDistance(state: DeviceQueueState): number {
  const { size, lastAvailIdx, usedIdx } = state;
  const lap = state.lastAvailWrapCounter === state.usedWrapCounter ? 0 : size;
  return lastAvailIdx - usedIdx + lap;
}

function isIndex(value: number, end: number): boolean {
  return Number.isInteger(value) && value >= 0 && value < end;
}
