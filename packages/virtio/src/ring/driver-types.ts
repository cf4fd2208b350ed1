import type { Gpa, Tracer } from '@pinhole/base';
import type { DmaOps, GuestMemory } from '@pinhole/memory';

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
