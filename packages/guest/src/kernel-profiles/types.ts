/** What differs from kernel to kernel, as data. The mechanisms read these; none asks for a version. */

/** How virtio decides between the DMA API and physical addresses. */
export interface VringRule {
  /** A policy of `VIRTIO_DMA_POLICIES`. */
  readonly policy: string;
  /** Asked once and kept in the ring, or anew at each map. */
  readonly decided: 'ring-creation' | 'each-map';
  /** What `virtqueue_add` returns when a buffer cannot be mapped, and what virtio-blk makes of it. */
  readonly mapError: MapErrorRule;
  /** Feature bits of rings and transport that came later: they are not accepted. */
  readonly unknownFeatures: readonly number[];
  readonly source: string;
}

/** -ENOMEM is tried again later by the block layer; -EIO fails the request. */
export interface MapErrorRule {
  readonly errno: '-EIO' | '-ENOMEM';
  readonly request: 'io-error' | 'requeue';
  readonly source: string;
}

/** Whether a guest whose memory is restricted refuses a device without the flag. */
export interface RestrictedAccessRule {
  readonly kind: 'none' | 'arch-hook' | 'platform-callback';
  /** Platforms that install one, and say yes when their memory is protected. powerpc never does. */
  readonly platforms: readonly ('s390x' | 'x86-64' | 'xen')[];
  readonly source: string;
}

/** How a map, an unmap or an allocation comes to the direct path or to the IOMMU's. */
export interface DispatchRule {
  /**
   * `set-ops`: the device's operations are replaced when its mask is set. `iommu-bypass`: the IOMMU
   * operations look at a flag of the device. `dma-ops-bypass`: the generic code does.
   */
  readonly bypass: 'set-ops' | 'iommu-bypass' | 'dma-ops-bypass';
  /** `arch_dma_map_page_direct` and `arch_dma_unmap_page_direct` decide by address, once a limit is set. */
  readonly hasArchDirect: boolean;
  /** `arch_dma_alloc_direct`: coherent memory too is direct, whatever the masks can reach. */
  readonly hasArchAllocDirect: boolean;
  /** When `enable_ddw` sets `bus_dma_limit`. */
  readonly busDmaLimit: 'never' | 'persistent-memory' | 'whenever-direct';
  /**
   * A device whose buffers go direct with a limit is left `dma_ops_bypass` false (until 6.19), or has
   * it set and the limit printed (from 7.0).
   */
  readonly bypassWithLimit: boolean;
  readonly source: string;
}

/** How a kernel sets up the second DMA window. */
export interface DdwProfile {
  /** Which DMA masks ask for it. */
  readonly masks: 'exactly-64-bit' | 'more-than-32-bit';
  /**
   * How large memory can become, which sizes the window: the largest of the hotplug limit and all
   * memory, or only what `ibm,lrdr-capacity` says.
   */
  readonly maxMemoryFrom: 'dram-and-lrdr' | 'lrdr-only';
  /** For a window that exists: whether it is direct was kept with it, or is judged by its size. */
  readonly existingIsDirectBy: 'stored' | 'size';
  /** Page shifts that the kernel knows; it takes the largest on offer. */
  readonly pageShifts: readonly number[];
  /** A query may have six outputs, with a 64-bit largest block. */
  readonly hasSixOutputs: boolean;
  /** The query's message ends with what was answered. */
  readonly printsQuery: boolean;
  /** A window smaller than memory is used, with an allocator over it. */
  readonly hasDynamicWindows: boolean;
  /** Makes room by removing the default window. */
  readonly removesDefaultWindow: boolean;
  /** One window with a direct part for memory and an allocated part behind it. */
  readonly hasHybridWindows: boolean;
  /** Asks a bridge for limited-address mode when a mask is smaller than 64 bits; prints `lsa_`. */
  readonly hasLimitedAddressMode: boolean;
  /** Looks for `ibm,pmemory`. */
  readonly knowsPersistentMemory: boolean;
  /** Queries each bridge once at boot, for VFIO. */
  readonly queriesAtBoot: boolean;
  /**
   * What `enable_ddw` answers is a flag that stays set when a later step fails, or (before 5.11) the
   * window's offset, 0 on failure.
   */
  readonly answersDirectAfterFailure: boolean;
  readonly source: string;
}

/** Which TCE hypercalls a kernel makes. */
export interface TceProfile {
  /**
   * What a secure guest does without: nothing is said about it, PCI devices have no DMA operations at
   * all, or H_PUT_TCE_INDIRECT is left out.
   */
  readonly secure: 'unknown' | 'no-pci-dma-ops' | 'no-put-indirect';
  readonly source: string;
}

/** Numbers of the IOVA allocator. [linux v6.1 arch/powerpc/kernel/iommu.c] */
export interface AllocatorProfile {
  readonly nrPools: number;
  /** More entries than this come from the large pool. */
  readonly largeAlloc: number;
  readonly blockSize: number;
  /** Windows of at least this many bytes have `nrPools` small pools, others one. */
  readonly poolsFrom: number;
  readonly source: string;
}

/** Bounce buffers. */
export interface SwiotlbProfile {
  /** A secure pseries guest bounces everything. */
  readonly isForcedForSecure: boolean;
  /** The pool has one area a CPU. */
  readonly hasAreas: boolean;
  /**
   * Which slots a buffer of a page or more can get: `page-strides`, page-aligned ones, and for a device
   * with alignment bits of its own as many times fewer; `page-or-mask`, page-aligned ones, or those that
   * such a device asks for.
   */
  readonly search: 'page-strides' | 'page-or-mask';
  /** An encrypted x86 guest's pool is 6 % of memory, from 64 MiB to 1 GiB; else 64 MiB. */
  readonly isSizedForEncryption: boolean;
  /**
   * Of an arm64 machine whose memory ends below 4 GiB, which needs a pool for small buffers alone: as any
   * other, or a 1024th of memory. `swiotlb=force` does not make it larger.
   */
  readonly arm64Pool: 'default' | 'a-1024th';
  readonly source: string;
}

/** The generic DMA API over an IOMMU. */
export interface IommuDmaProfile {
  /** After the first address below 4 GiB that could not be had, nobody tries any more. */
  readonly isSacOnce: boolean;
  /** Where there is a driver of virtio-iommu. */
  readonly virtioIommu: readonly ('x86-64' | 'arm64')[];
  /** It can defer its unmaps. */
  readonly virtioIommuDefers: boolean;
  /** VT-d's driver listens to `iommu.strict=`; that of 5.10 has only `intel_iommu=strict`. */
  readonly vtdHearsStrict: boolean;
  readonly source: string;
}

/** How a kernel's ftrace calls a mapping. */
export interface TraceProfile {
  /** Absent: it has no DMA events. */
  readonly mapEvent?: 'dma_map_page' | 'dma_map_phys';
  readonly unmapEvent?: 'dma_unmap_page' | 'dma_unmap_phys';
  readonly source: string;
}

/** One kernel. */
export interface KernelProfile {
  readonly id: string;
  readonly title: string;
  /**
   * The first release that it stands for: major, minor, patch. Absent: a kernel that never was, but
   * could have been.
   */
  readonly since?: readonly [major: number, minor: number, patch: number];
  /** Bytes that a page can have on powerpc64. */
  readonly pageSizes: readonly number[];
  /** Bytes of a page, as Debian built it. */
  readonly pageSize: number;
  readonly vring: VringRule;
  readonly restrictedAccess: RestrictedAccessRule;
  readonly dispatch: DispatchRule;
  readonly ddw: DdwProfile;
  readonly tce: TceProfile;
  readonly allocator: AllocatorProfile;
  readonly swiotlb: SwiotlbProfile;
  readonly iommuDma: IommuDmaProfile;
  readonly trace: TraceProfile;
}
