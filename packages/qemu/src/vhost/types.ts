import type { DmaAccess } from '@pinhole/memory';

/** What a translation lets a device do, as messages have it: bits, as in `DmaAccess`. [linux v6.1.176 include/uapi/linux/vhost_types.h] */
export const VHOST_ACCESS_RO = 1;
export const VHOST_ACCESS_RW = 3;

/** A message between QEMU and the data plane; bus addresses and sizes in bytes. [linux v6.1.176 include/uapi/linux/vhost_types.h vhost_iotlb_msg] */
export type VhostIotlbMessage =
  /** From the data plane: which memory is at `iova`? */
  | { readonly type: 'MISS'; readonly iova: bigint; readonly perm: number }
  /** To it: `size` bytes from `iova` on are guest memory from `gpa` on (really: an address of QEMU's). */
  | {
      readonly type: 'UPDATE';
      readonly iova: bigint;
      readonly gpa: number;
      readonly size: bigint;
      readonly perm: number;
    }
  /** To it: forget what overlaps these bytes. */
  | { readonly type: 'INVALIDATE'; readonly iova: bigint; readonly size: bigint }
  /** From it, and no more than a number: nobody sends it, and QEMU refuses it. */
  | { readonly type: 'ACCESS_FAIL'; readonly iova: bigint; readonly perm: number };

/** What handling a message gives: 0, or a negative error number as Linux has them. */
export const EFAULT = 14;
export const EINVAL = 22;
export const ENOTSUP = 95;

/** The mapping that an address lies in. [qemu v7.2 include/exec/memory.h IOMMUTLBEntry] */
export interface IommuTlbEntry {
  /** The first byte on the bus, and in guest memory. */
  readonly iova: bigint;
  readonly gpa: number;
  /** Bytes: the IOMMU's page. */
  readonly size: bigint;
}

/**
 * A bus behind an IOMMU, as vhost wants it: what an architecture gives for its devices to be served
 * by vhost. [qemu v7.2 include/exec/memory.h IOMMUMemoryRegion]
 */
export interface IommuAddressSpace {
  /** For people: `PCI host bridge 0`. */
  readonly name: string;
  /**
   * The page around `iova`, if a device may access it so. One translation, which counts as such.
   * [qemu v7.2 softmmu/physmem.c address_space_get_iotlb_entry]
   */
  getIotlbEntry(iova: bigint, access: DmaAccess): IommuTlbEntry | undefined;
  /**
   * Has `notify` called for each page whose mapping ends, with its bus address and size, until the
   * function that is returned is called; whatever windows open and close meanwhile. A mapping that is
   * replaced by another has not ended. [qemu v7.2 include/exec/memory.h IOMMU_NOTIFIER_UNMAP]
   */
  addUnmapNotifier(notify: (iova: bigint, size: bigint) => void): () => void;
}

/** What a data plane did. Messages are counted when they are handled. */
export interface VhostCounters {
  /** Translations that it asked QEMU for. */
  readonly misses: number;
  /** Translations that it was given: one for each miss that led somewhere, and QEMU's own pushes. */
  readonly updates: number;
  /** Messages to forget, one for each page that was unmapped, whether it was remembered or not. */
  readonly invalidates: number;
  /** Translations that made room for newer ones. */
  readonly evictions: number;
  /** How often a queue stopped to wait for a translation. */
  readonly stalls: number;
  /** The most translations that it ever had. */
  readonly entriesPeak: number;
  /** Updates by their size in bytes. */
  readonly granules: Readonly<Record<string, number>>;
}
