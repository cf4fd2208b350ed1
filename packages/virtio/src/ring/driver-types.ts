import type { Gpa, Tracer } from '@pinhole/base';
import type { DmaOps, GuestMemory } from '@pinhole/memory';
import type { QueueSetup } from '../transport/transport.js';

/** A physically contiguous piece of a buffer: one element of Linux's scatter list. */
export interface Segment {
  readonly gpa: Gpa;
  readonly length: number;
}

/** Guest memory for indirect tables: the kernel's `kmalloc`. */
export interface TableAllocator {
  /** `undefined`: no memory; the buffer goes into the ring itself then. */
  allocate(length: number): Gpa | undefined;
  free(gpa: Gpa, length: number): void;
}

/**
 * How an `add` ended; what Linux returns is in `ADD_ERRNO`.
 * - `ring-full`: not enough free descriptors; try again after `getUsed`.
 * - `no-dma-space`: a piece could not be mapped; nothing stays mapped.
 * - `broken`: the device misbehaved; the queue is out of use.
 */
export type AddResult = 'ok' | 'ring-full' | 'no-dma-space' | 'broken';

/** -ENOSPC, -ENOMEM and -EIO. [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_add_split] */
export const ADD_ERRNO: Readonly<Record<AddResult, number>> = {
  ok: 0,
  'ring-full': -28,
  'no-dma-space': -12,
  broken: -5,
};

/** A buffer that came back. */
export interface UsedBuffer<T> {
  readonly kind: 'used';
  readonly token: T;
  /** Bytes written, as the device says: it may say anything. */
  readonly length: number;
}

/** The device returned what it cannot have: the queue is broken. */
export interface BadRing {
  readonly kind: 'bad-ring';
  readonly id: number;
  /** As Linux puts it: `id 300 out of range`, `id 3 is not a head!`; and `id 3 is ahead of its turn`. */
  readonly message: string;
}

/** See `createDriverQueue`. */
export interface DriverQueueOptions {
  /** Names the queue in traces. */
  readonly id?: string;
  /** Guest memory, as the guest sees it. */
  readonly memory: GuestMemory;
  readonly dma: DmaOps;
  readonly tables: TableAllocator;
  /** VIRTIO_F_RING_PACKED was negotiated. */
  readonly isPacked?: boolean;
  /** Entries: a power of two in a split ring, any number from 1 to 32768 in a packed one. */
  readonly size: number;
  /** Number of the queue, for `notificationData`. Default 0. */
  readonly index?: number;
  /** Split rings only: multiple at which the used ring lies in the allocation: SMP_CACHE_BYTES for PCI; 128 on ppc64. */
  readonly layoutAlign: number;
  /** VIRTIO_RING_F_INDIRECT_DESC was negotiated. */
  readonly hasIndirect: boolean;
  /** VIRTIO_RING_F_EVENT_IDX was negotiated. */
  readonly hasEventIdx: boolean;
  /** VIRTIO_F_IN_ORDER was negotiated: buffers come back in the order in which they were added. */
  readonly hasInOrder?: boolean;
  /**
   * A legacy driver on a big-endian machine: the ring has its byte order. Split rings only.
   * [VIRTIO v1.2 §2.7.3 "Legacy Interfaces: A Note on Virtqueue Endianness"]
   */
  readonly isBigEndian?: boolean;
  /** Split rings only: take a smaller ring when there is no room for this one. Default true, as for PCI. */
  readonly mayReduceSize?: boolean;
  /** The kernel's page size: a ring that fits one page is not made smaller. Default 4096. */
  readonly pageSize?: number;
  /** Kicks the device. */
  readonly notify?: () => void;
  readonly tracer?: Tracer;
}

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
