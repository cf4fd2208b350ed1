/** Numbers of the Linux guest. */

/** Small IOVA pools of a large window. [linux v6.1 arch/powerpc/include/asm/iommu.h IOMMU_NR_POOLS] */
export const IOMMU_NR_POOLS = 4;
/** A window of at least this many bytes has four small pools, else one. [linux v6.1 arch/powerpc/kernel/iommu.c iommu_init_table] */
export const IOMMU_POOLS_FROM = 0x4000_0000;
/** Small allocations advance to the next block of this many entries. [linux v6.1 arch/powerpc/platforms/pseries/iommu.c iommu_table_setparms_common] */
export const IOMMU_BLOCK_SIZE = 16;
/** More pages than this come from the large pool. [linux v6.1 arch/powerpc/kernel/iommu.c iommu_range_alloc] */
export const IOMMU_LARGE_ALLOC = 15;
/** Entries of one H_PUT_TCE_INDIRECT or H_STUFF_TCE. [linux v6.1 arch/powerpc/platforms/pseries/iommu.c] */
export const TCE_CALL_MAX = 512;

/** Physical address bits of a kernel with 64 KiB or 4 KiB pages. [linux v6.12 arch/powerpc/include/asm/book3s/64/hash-64k.h H_MAX_PHYSMEM_BITS] */
export const MAX_PHYSMEM_BITS_64K = 51;
export const MAX_PHYSMEM_BITS_4K = 46;
/** What must be left for persistent memory in a split window. [linux v6.12 arch/powerpc/include/asm/iommu.h MIN_DDW_VPMEM_DMA_WINDOW] */
export const MIN_DDW_VPMEM_DMA_WINDOW: bigint = 2n ** 31n;

/** log2 of a bounce slot in bytes. [linux v6.1 include/linux/swiotlb.h IO_TLB_SHIFT] */
export const IO_TLB_SHIFT = 11;
export const IO_TLB_SIZE = 2048;
/** Slots of one mapping at most: 256 KiB. [linux v6.1 include/linux/swiotlb.h IO_TLB_SEGSIZE] */
export const IO_TLB_SEGSIZE = 128;
/** Bounce pool by default: 64 MiB. [linux v6.1 include/linux/swiotlb.h IO_TLB_DEFAULT_SIZE] */
export const IO_TLB_DEFAULT_SIZE: number = 64 * 2 ** 20;

/**
 * Bytes of a cache line, as kernels are built for each architecture.
 * [linux v6.1 arch/{powerpc,x86,arm64,s390}/include/asm/cache.h L1_CACHE_SHIFT; arch/x86/Kconfig.cpu
 * X86_L1_CACHE_SHIFT for GENERIC_CPU]
 */
export const SMP_CACHE_BYTES: Readonly<Record<'ppc64' | 'x86-64' | 'arm64' | 's390x', number>> = {
  ppc64: 128,
  'x86-64': 64,
  arm64: 64,
  s390x: 256,
};

/** Largest request of the block layer in bytes. [linux v6.1 include/linux/blkdev.h BLK_DEF_MAX_SECTORS] */
export const BLK_DEF_MAX_BYTES: number = 2560 * 512;
