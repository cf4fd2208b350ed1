/**
 * The kernels, oldest first. Each says what it changed; the rest is the one's before it.
 * "By date": the commit and its date were read, the release follows from them.
 */
import { VIRTIO_F_RING_PACKED, VIRTIO_F_RING_RESET } from '@pinhole/virtio';
import type { AllocatorProfile, KernelProfile } from './types.js';

const KIB_4 = 4096;
const KIB_64 = 65536;
const ALL_SHIFTS = [12, 16, 21, 24, 25, 26, 27, 28, 34];

const allocator: AllocatorProfile = {
  nrPools: 4,
  largeAlloc: 15,
  blockSize: 16,
  poolsFrom: 2 ** 30,
  source: '[linux v6.1 arch/powerpc/kernel/iommu.c iommu_init_table, iommu_range_alloc]',
};

/** As it was when the 2018 RFC was sent. */
export const linux418: KernelProfile = {
  id: 'linux-4.18',
  title: 'Linux 4.18, before the 2018 RFC (64 KiB pages)',
  since: [4, 8, 0],
  pageSizes: [KIB_4, KIB_64],
  pageSize: KIB_64,
  vring: {
    policy: 'upstream',
    decided: 'each-map',
    mapError: {
      errno: '-EIO',
      request: 'io-error',
      source: '[linux v4.19 drivers/virtio/virtio_ring.c virtqueue_add]',
    },
    // [linux drivers/virtio/virtio_ring.c vring_transport_features], as it was before 5.0.
    unknownFeatures: [VIRTIO_F_RING_PACKED, VIRTIO_F_RING_RESET],
    source: '[linux v4.19 drivers/virtio/virtio_ring.c vring_use_dma_api]',
  },
  restrictedAccess: {
    kind: 'none',
    platforms: [],
    source: '[linux commit 0afa15e1a529], 5.10 by date, is the first',
  },
  dispatch: {
    bypass: 'set-ops',
    hasArchDirect: false,
    hasArchAllocDirect: false,
    busDmaLimit: 'never',
    bypassWithLimit: false,
    source: '[linux v4.18 arch/powerpc/platforms/pseries/iommu.c dma_set_mask_pSeriesLP]',
  },
  ddw: {
    masks: 'exactly-64-bit',
    maxMemoryFrom: 'dram-and-lrdr',
    existingIsDirectBy: 'stored',
    pageShifts: [12, 16, 24],
    hasSixOutputs: false,
    printsQuery: false,
    hasDynamicWindows: false,
    removesDefaultWindow: false,
    hasHybridWindows: false,
    hasLimitedAddressMode: false,
    knowsPersistentMemory: false,
    queriesAtBoot: false,
    answersDirectAfterFailure: false,
    source:
      'UNVERIFIED: the text of 4.18 was not read; from a distribution kernel 4.18 with later changes [arch/powerpc/platforms/pseries/iommu.c enable_ddw], without those',
  },
  tce: {
    secure: 'unknown',
    source: 'UNVERIFIED: no secure guests before 5.4',
  },
  allocator,
  swiotlb: {
    isForcedForSecure: false,
    hasAreas: false,
    search: 'page-strides',
    isSizedForEncryption: false,
    arm64Pool: 'default',
    source: '[linux commit 2efbc58f157a], 5.4 by date, is the first',
  },
  // intel-iommu had its own copy of what the generic code does, with the same allocator, which it asked
  // for a power of two of pages always. Deviates: for more than 32 pages here only what the others ask.
  iommuDma: {
    isSacOnce: false,
    virtioIommu: [],
    virtioIommuDefers: false,
    vtdHearsStrict: false,
    source: 'UNVERIFIED: the text of 4.18 was not read; virtio-iommu came with 5.3, from memory',
  },
  trace: { source: '[linux v6.12 include/trace/events/dma.h] is the first' },
};

/** 4.18 as the RFC of 2018 would have made it. */
export const rfc2018: KernelProfile = {
  ...withoutRelease(linux418),
  id: 'rfc-2018',
  title: 'Linux 4.18 with the 2018 RFC: the flag, or arch_virtio_wants_dma_ops()',
  vring: {
    ...linux418.vring,
    policy: 'rfc-2018',
    source:
      '[linuxppc-dev 2018-08-08 "Re: [RFC 0/4] Virtio uses DMA API for all devices"], never merged',
  },
  // The RFC was for secure guests, whose bounce pool came to the kernel a year later.
  swiotlb: { ...linux418.swiotlb, isForcedForSecure: true },
  tce: { ...linux418.tce, secure: 'no-put-indirect' },
};

/** 4.18 as the RFC's patches would have made it. */
export const rfc2018DirectOps: KernelProfile = {
  ...rfc2018,
  id: 'rfc-2018-direct-ops',
  title: 'Linux 4.18 with the 2018 RFC as sent: DMA ops always, virtio-direct by default',
  vring: { ...rfc2018.vring, policy: 'rfc-2018-direct-ops' },
};

/** 4.18 with the counter-proposal: the DMA API whatever the device says. */
export const alwaysFlag: KernelProfile = {
  ...rfc2018,
  id: 'always-flag',
  title: 'Linux 4.18 on hosts that always set the flag (the counter-proposal of 2018)',
  vring: {
    ...rfc2018.vring,
    policy: 'always-flag',
    source: '[linux-kernel 2018-08-07, C. Hellwig: set the flag on any VM], never merged',
  },
};

export const linux54: KernelProfile = {
  ...linux418,
  id: 'linux-5.4',
  title: 'Linux 5.4: secure guests bounce',
  since: [5, 1, 0],
  vring: {
    ...linux418.vring,
    // 5.10 takes the packed ring of a real QEMU, and leaves its RING_RESET; 6.1 takes both.
    unknownFeatures: [VIRTIO_F_RING_RESET],
    mapError: {
      errno: '-ENOMEM',
      request: 'requeue',
      source:
        '[linux commit f7728002c1c7 "virtio_ring: fix return code on DMA mapping fails"], 5.4 by date',
    },
  },
  dispatch: {
    ...linux418.dispatch,
    bypass: 'iommu-bypass',
    source: '[linux v5.4 arch/powerpc/kernel/dma-iommu.c dma_iommu_dma_supported]',
  },
  tce: {
    secure: 'no-pci-dma-ops',
    source: 'UNVERIFIED: from memory of 5.4; commit 17a0364cb07c (5.6 by date) ended it',
  },
  swiotlb: {
    isForcedForSecure: true,
    hasAreas: false,
    search: 'page-strides',
    isSizedForEncryption: false,
    arm64Pool: 'default',
    source: '[linux v6.1 arch/powerpc/platforms/pseries/svm.c svm_swiotlb_init], since 5.4 by date',
  },
  iommuDma: {
    ...linux418.iommuDma,
    virtioIommu: ['arm64'],
    source: 'UNVERIFIED: from memory: virtio-iommu came with 5.3, for Arm device trees',
  },
};

export const linux510: KernelProfile = {
  ...linux54,
  id: 'linux-5.10',
  title: 'Linux 5.10 (Debian 11, 64 KiB pages): dma_ops_bypass, restricted-access hook',
  since: [5, 9, 0],
  restrictedAccess: {
    kind: 'arch-hook',
    platforms: ['s390x'],
    source: '[linux commit 0afa15e1a529], 5.10 by date',
  },
  dispatch: {
    ...linux54.dispatch,
    bypass: 'dma-ops-bypass',
    source: '[linux commit d35834c64820], 5.9 by date',
  },
  ddw: {
    ...linux54.ddw,
    hasSixOutputs: true,
    removesDefaultWindow: true,
    source:
      'UNVERIFIED: the text of 5.10 was not read; from a distribution kernel with these changes [arch/powerpc/platforms/pseries/iommu.c enable_ddw]',
  },
  tce: {
    secure: 'no-put-indirect',
    source:
      '[linux v6.1 arch/powerpc/platforms/pseries/firmware.c], commit 17a0364cb07c, 5.6 by date',
  },
  iommuDma: {
    ...linux54.iommuDma,
    source:
      '[linux v5.10 drivers/iommu/Kconfig VIRTIO_IOMMU, drivers/iommu/intel/iommu.c intel_unmap, drivers/iommu/iommu.c iommu_dma_setup]; Debian 11 builds no virtio-iommu',
  },
};

export const linux61: KernelProfile = {
  ...linux510,
  id: 'linux-6.1',
  title: 'Linux 6.1 (Debian 12, 64 KiB pages)',
  since: [5, 15, 0],
  vring: {
    ...linux510.vring,
    decided: 'ring-creation',
    unknownFeatures: [],
    source: '[linux v6.1 drivers/virtio/virtio_ring.c vring_use_dma_api]',
  },
  restrictedAccess: {
    kind: 'platform-callback',
    platforms: ['s390x', 'x86-64', 'xen'],
    source: '[linux v6.1 drivers/virtio/virtio.c virtio_features_ok]',
  },
  dispatch: {
    bypass: 'dma-ops-bypass',
    hasArchDirect: true,
    hasArchAllocDirect: false,
    busDmaLimit: 'persistent-memory',
    bypassWithLimit: false,
    source:
      '[linux v6.1 kernel/dma/mapping.c dma_go_direct, arch/powerpc/kernel/dma-iommu.c dma_iommu_dma_supported]',
  },
  ddw: {
    masks: 'exactly-64-bit',
    maxMemoryFrom: 'dram-and-lrdr',
    existingIsDirectBy: 'size',
    pageShifts: ALL_SHIFTS,
    hasSixOutputs: true,
    printsQuery: true,
    hasDynamicWindows: true,
    removesDefaultWindow: true,
    hasHybridWindows: false,
    hasLimitedAddressMode: false,
    knowsPersistentMemory: true,
    queriesAtBoot: false,
    answersDirectAfterFailure: true,
    source: '[linux v6.1 arch/powerpc/platforms/pseries/iommu.c enable_ddw]',
  },
  swiotlb: {
    isForcedForSecure: true,
    hasAreas: true,
    search: 'page-strides',
    isSizedForEncryption: true,
    arm64Pool: 'default',
    source:
      '[linux v6.1 kernel/dma/swiotlb.c swiotlb_init_io_tlb_mem, swiotlb_do_find_slots; arch/x86/mm/mem_encrypt_amd.c sev_setup_arch]',
  },
  iommuDma: {
    ...linux510.iommuDma,
    virtioIommu: ['x86-64', 'arm64'],
    vtdHearsStrict: true,
    source:
      '[linux v6.1 drivers/iommu/Kconfig VIRTIO_IOMMU, dma-iommu.c iommu_dma_init_domain, virtio-iommu.c viommu_domain_alloc]; Debian 12 builds no virtio-iommu',
  },
};

export const linux6120: KernelProfile = {
  ...linux61,
  id: 'linux-6.12.0',
  title: 'Linux 6.12 before the two changes to its second window (4 KiB pages)',
  since: [6, 12, 0],
  pageSize: KIB_4,
  ddw: {
    ...linux61.ddw,
    existingIsDirectBy: 'stored',
    hasHybridWindows: true,
    queriesAtBoot: true,
    source:
      '[linux v6.12 arch/powerpc/platforms/pseries/iommu.c enable_ddw] without commits 67dfc11982f7 and 6aa989ab2bd0',
  },
  swiotlb: {
    ...linux61.swiotlb,
    search: 'page-or-mask',
    arm64Pool: 'a-1024th',
    source:
      '[linux v6.12 kernel/dma/swiotlb.c swiotlb_search_pool_area, arch/arm64/mm/init.c mem_init]',
  },
  iommuDma: {
    ...linux61.iommuDma,
    isSacOnce: true,
    virtioIommuDefers: true,
    source:
      '[linux v6.12 drivers/iommu/dma-iommu.c iommu_dma_alloc_iova, virtio-iommu.c viommu_capable], neither in v6.1; UNVERIFIED: since 6.5 and 6.8, from memory',
  },
  trace: {
    mapEvent: 'dma_map_page',
    unmapEvent: 'dma_unmap_page',
    source: '[linux v6.12 include/trace/events/dma.h]',
  },
};

export const linux612: KernelProfile = {
  ...linux6120,
  id: 'linux-6.12',
  title: 'Linux 6.12.y (Debian 13, 4 KiB pages)',
  // UNVERIFIED: the first release with both; picked for 6.12 in May 2025, there in 6.12.107.
  since: [6, 12, 30],
  ddw: {
    ...linux6120.ddw,
    masks: 'more-than-32-bit',
    maxMemoryFrom: 'lrdr-only',
    hasLimitedAddressMode: true,
    source: '[linux v6.12.117 arch/powerpc/platforms/pseries/iommu.c enable_ddw]',
  },
};

export const linux72: KernelProfile = {
  ...linux612,
  id: 'linux-7.2',
  title: 'Linux 7.2 (4 KiB pages): bus_dma_limit whenever memory is mapped',
  since: [7, 0, 0],
  dispatch: {
    ...linux612.dispatch,
    hasArchAllocDirect: true,
    busDmaLimit: 'whenever-direct',
    bypassWithLimit: true,
    source:
      '[linux commit 1471c517cf7d, linuxppc-dev 2025-11-07 "powerpc/iommu: bypass DMA APIs for coherent allocations for pre-mapped memory"], 7.0 by date',
  },
  trace: {
    mapEvent: 'dma_map_phys',
    unmapEvent: 'dma_unmap_phys',
    source: 'the recording linux7.2-ddw',
  },
};

function withoutRelease(profile: KernelProfile): KernelProfile {
  const { since, ...rest } = profile;
  return since === undefined ? profile : rest;
}
