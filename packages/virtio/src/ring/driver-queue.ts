import type { Gpa } from '@pinhole/base';
import type { QueueSetup } from '../transport/transport.js';
import type {
  AddResult,
  BadRing,
  DriverQueueOptions,
  Segment,
  UsedBuffer,
} from './driver-types.js';
import { createPackedDriverQueue } from './packed-driver.js';
import { createSplitDriverQueue } from './split-driver.js';

/**
 * The driver's half of a virtqueue, whatever its layout. `T` is what the driver wants back with a
 * buffer. [linux v6.1 drivers/virtio/virtio_ring.c]
 */
export interface DriverQueue<T> {
  /** Names the queue in traces. */
  readonly id: string;
  /** Entries in the ring. */
  readonly size: number;
  /** Where the ring, or of a packed one the descriptor ring, lies in guest memory. */
  readonly ringGpa: Gpa;
  /** What the device is to be told. */
  readonly setup: QueueSetup;
  /**
   * What a kick carries with VIRTIO_F_NOTIFICATION_DATA: number of the queue, and above it where the
   * next available entry goes. [VIRTIO v1.2 §2.9 "Driver Notifications"]
   */
  readonly notificationData: number;
  /** Free descriptors. */
  readonly numFree: number;
  /** What the device did wrong, if it did. */
  readonly brokenBy: BadRing | undefined;
  /** After a bad used entry, and after `free`: nothing can be added, nothing comes back. */
  readonly isBroken: boolean;
  /** Offers a buffer: pieces that the device reads, then pieces that it writes. */
  add(out: readonly Segment[], inn: readonly Segment[], token: T): AddResult;
  /** Whether the device wants a kick for what was added since the last call. */
  kickPrepare(): boolean;
  /** Kicks the device if it wants that, and says whether it did. */
  kick(): boolean;
  /** Whether buffers came back that `getUsed` did not give yet. */
  hasUsed(): boolean;
  /** The next buffer that the device returned, its mappings ended; good until the next call. */
  getUsed(): UsedBuffer<T> | BadRing | undefined;
  /** What the driver's interrupt handler begins with: false if it has nothing to do here. */
  noteInterrupt(): boolean;
  /** Asks the device to spare interrupts: an advice. */
  disableCallbacks(): void;
  /** Asks for interrupts again. False if buffers came back in the meantime. */
  enableCallbacks(): boolean;
  /** Takes back a buffer that the device still holds; for a device that was reset. */
  detachUnused(): { token: T } | undefined;
  /**
   * Back to the start, in the same memory: for a queue that the device has reset, once
   * `detachUnused` found all buffers.
   * @throws VirtioError `E_QUEUE_IN_USE`
   */
  reset(): void;
  /** Gives the ring's memory back; the queue is over. */
  free(): void;
}

/**
 * Allocates a ring of the layout that was negotiated and makes the driver's half of it.
 * `undefined`: no room, not even for a smaller one.
 * @throws VirtioError `E_QUEUE_SIZE`
 */
export function createDriverQueue<T>(options: DriverQueueOptions): DriverQueue<T> | undefined {
  return options.isPacked === true
    ? createPackedDriverQueue<T>(options)
    : createSplitDriverQueue<T>(options);
}
