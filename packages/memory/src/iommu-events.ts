/** A change of what an IOMMU translates, as its notifiers see it. [qemu v7.2 include/exec/memory.h IOMMUTLBEvent] */
export interface IommuEvent {
  /** UNMAP: no translation of this range that somebody keeps is valid any more. */
  readonly type: 'MAP' | 'UNMAP';
  /** Aligned to its own length. */
  readonly iova: bigint;
  /** Guest-physical; meaningful for MAP. */
  readonly translatedAddr: bigint;
  /** Length minus one; the length is a power of two. */
  readonly addrMask: bigint;
  /** Bits 0 (read) and 1 (write). */
  readonly perm: number;
}

/** Who wants to know: vhost, VFIO. [qemu v7.2 include/exec/memory.h IOMMUNotifier] */
export interface IommuNotifier {
  /** Default: both. vhost asks for UNMAP alone. */
  readonly types?: readonly IommuEvent['type'][];
  /** Hears of one range. It may translate, but not map or unmap. */
  notify(event: IommuEvent): void;
}

/**
 * Calls `visit` for the blocks that make up pages [pfn, pfn + count): each a power of two of pages
 * and aligned to its length, as notifications are. [qemu v7.2 include/exec/memory.h dma_aligned_pow2_mask]
 */
export function forEachAlignedBlock(
  pfn: number,
  count: number,
  visit: (pfn: number, count: number) => void,
): void {
  for (let at = pfn, left = count; left > 0; ) {
    let block = 2 ** Math.floor(Math.log2(left));
    while (at % block !== 0) block /= 2;
    visit(at, block);
    at += block;
    left -= block;
  }
}
