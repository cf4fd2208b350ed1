/** How many events of each kind each trace has. One row a run, one column an event. */

/** The recorded runs. */
export const RECORDING_NAMES = [
  'linux6.1-arm64-smmuv3',
  'linux6.1-ddw',
  'linux6.1-pinhole',
  'linux6.1-x86-intel-iommu',
  'linux6.12-arm64-plain',
  'linux6.12-arm64-smmuv3',
  'linux6.12-arm64-swiotlb',
  'linux6.12-arm64-virtio-iommu',
  'linux6.12-bypass',
  'linux6.12-ddw',
  'linux6.12-ddw-lost',
  'linux6.12-pinhole',
  'linux6.12-pinhole-mix',
  'linux6.12-pinhole-net',
  'linux6.12-pinhole-noindirect',
  'linux6.12-pinhole-packed',
  'linux6.12-pinhole-rng',
  'linux6.12-pinhole-smp2',
  'linux6.12-qemu10-ddw',
  'linux6.12-s390x-ccw-bypass',
  'linux6.12-s390x-ccw-flag',
  'linux6.12-s390x-ccw-swiotlb',
  'linux6.12-x86-intel-iommu',
  'linux6.12-x86-plain',
  'linux6.12-x86-swiotlb',
  'linux6.12-x86-virtio-iommu',
  'linux7.2-ddw',
  'linux7.2-ddw-lost',
] as const;

type Name = (typeof RECORDING_NAMES)[number];
type Table = Readonly<Record<Name, readonly number[]>>;

const QEMU_COLUMNS = [
  'spapr_iommu_new_table',
  'spapr_iommu_pci_put',
  'spapr_iommu_pci_indirect',
  'spapr_iommu_pci_stuff',
  'spapr_iommu_xlate',
  'spapr_iommu_ddw_query',
  'spapr_iommu_ddw_create',
  'virtio_blk_handle_read',
  'virtio_blk_handle_write',
  'virtio_blk_req_complete',
  'virtio_queue_notify',
  'virtio_notify',
  'virtio_set_status',
  'virtqueue_alloc_element',
  'virtqueue_fill',
  'virtqueue_flush',
  'virtqueue_pop',
];

// biome-ignore format: one row a run
const QEMU_EVENTS: Table = {
  'linux6.1-arm64-smmuv3': [0, 0, 0, 0, 0, 0, 0, 93, 4, 97, 92, 0, 14, 97, 97, 97, 97],
  'linux6.1-ddw': [2, 0, 1, 512, 1378, 1, 1, 74, 2, 76, 77, 0, 13, 76, 76, 76, 76],
  'linux6.1-pinhole': [1, 228, 152, 891, 3891, 0, 0, 74, 2, 76, 77, 0, 13, 76, 76, 76, 76],
  'linux6.1-x86-intel-iommu': [0, 0, 0, 0, 0, 0, 0, 92, 2, 94, 96, 0, 19, 94, 94, 94, 94],
  'linux6.12-arm64-plain': [0, 0, 0, 0, 0, 0, 0, 89, 2, 91, 92, 0, 16, 91, 91, 91, 91],
  'linux6.12-arm64-smmuv3': [0, 0, 0, 0, 0, 0, 0, 89, 2, 91, 92, 0, 16, 91, 91, 91, 91],
  'linux6.12-arm64-swiotlb': [0, 0, 0, 0, 0, 0, 0, 89, 2, 91, 92, 0, 16, 91, 91, 91, 91],
  'linux6.12-arm64-virtio-iommu': [0, 0, 0, 0, 0, 0, 0, 89, 2, 91, 5001, 1, 32, 5004, 5004, 5004, 5004],
  'linux6.12-bypass': [1, 0, 0, 512, 0, 2, 0, 90, 2, 92, 93, 0, 13, 92, 92, 92, 92],
  'linux6.12-ddw': [2, 0, 1, 512, 3692, 2, 1, 90, 2, 92, 93, 0, 13, 92, 92, 92, 92],
  'linux6.12-ddw-lost': [1, 1271, 94, 1876, 5025, 2, 0, 90, 2, 92, 93, 0, 13, 92, 92, 92, 92],
  'linux6.12-pinhole': [1, 1123, 98, 1732, 4881, 0, 0, 90, 2, 92, 93, 0, 13, 92, 92, 92, 92],
  'linux6.12-pinhole-mix': [1, 2395, 115, 3021, 9007, 0, 0, 171, 11, 183, 184, 0, 13, 183, 183, 183, 183],
  'linux6.12-pinhole-net': [1, 2078, 264, 2008, 14835, 0, 0, 66, 0, 66, 683, 1194, 37, 1268, 1268, 1268, 1268],
  'linux6.12-pinhole-noindirect': [1, 1819, 30, 2360, 5509, 0, 0, 90, 2, 92, 93, 0, 13, 92, 92, 92, 92],
  'linux6.12-pinhole-packed': [1, 1890, 35, 2434, 11906, 0, 0, 90, 2, 92, 93, 0, 13, 92, 92, 0, 92],
  'linux6.12-pinhole-rng': [1, 286, 131, 927, 2299, 0, 0, 70, 0, 70, 79, 7, 25, 77, 77, 77, 77],
  'linux6.12-pinhole-smp2': [1, 1478, 164, 2152, 8122, 0, 0, 171, 11, 183, 181, 0, 13, 183, 183, 183, 183],
  'linux6.12-qemu10-ddw': [2, 0, 1, 512, 4588, 2, 1, 90, 2, 92, 93, 92, 13, 92, 92, 92, 92],
  'linux6.12-s390x-ccw-bypass': [0, 0, 0, 0, 0, 0, 0, 89, 2, 91, 183, 0, 8, 91, 91, 91, 91],
  'linux6.12-s390x-ccw-flag': [0, 0, 0, 0, 0, 0, 0, 89, 2, 91, 183, 0, 8, 91, 91, 91, 91],
  'linux6.12-s390x-ccw-swiotlb': [0, 0, 0, 0, 0, 0, 0, 89, 2, 91, 183, 0, 8, 91, 91, 91, 91],
  'linux6.12-x86-intel-iommu': [0, 0, 0, 0, 0, 0, 0, 184, 4, 188, 192, 0, 38, 188, 188, 188, 188],
  'linux6.12-x86-plain': [0, 0, 0, 0, 0, 0, 0, 92, 2, 94, 96, 0, 19, 94, 94, 94, 94],
  'linux6.12-x86-swiotlb': [0, 0, 0, 0, 0, 0, 0, 184, 4, 188, 192, 0, 38, 188, 188, 188, 188],
  'linux6.12-x86-virtio-iommu': [0, 0, 0, 0, 0, 0, 0, 92, 2, 94, 1991, 1, 47, 3855, 3855, 3855, 3855],
  'linux7.2-ddw': [3, 0, 1, 1024, 5722, 4, 1, 94, 4, 98, 93, 0, 25, 98, 98, 98, 98],
  'linux7.2-ddw-lost': [1, 2458, 13, 512, 6164, 2, 0, 94, 4, 98, 93, 0, 15, 98, 98, 98, 98],
};

/** Of a virtual channel subsystem, in each of its runs. */
const CHANNEL_EVENTS: Readonly<Record<string, number>> = {
  css_adapter_interrupt: 91,
  css_io_interrupt: 38,
  virtio_ccw_interpret_ccw: 36,
  virtio_ccw_new_device: 1,
  virtio_ccw_set_ind: 182,
};

/** Emulated IOMMUs and channel subsystems have events of their own. */
const PLATFORM_EVENTS: Readonly<Partial<Record<Name, Readonly<Record<string, number>>>>> = {
  'linux6.12-x86-intel-iommu': {
    vtd_dmar_translate: 11020,
    vtd_inv_desc: 178,
    vtd_inv_desc_cc_global: 2,
    vtd_inv_desc_iec: 50,
    vtd_inv_desc_iotlb_domain: 35,
    vtd_inv_desc_iotlb_global: 2,
    vtd_inv_desc_wait_sw: 89,
    vtd_iotlb_page_hit: 5104,
    vtd_iotlb_page_update: 5916,
  },
  'linux6.12-arm64-smmuv3': {
    smmu_iotlb_insert: 2944,
    smmu_iotlb_inv_all: 7,
    smmu_iotlb_inv_asid: 2,
    smmu_iotlb_lookup_hit: 3238,
    smmu_iotlb_lookup_miss: 2944,
    smmuv3_cmdq_cfgi_cd: 4,
    smmuv3_cmdq_cfgi_ste: 4,
    smmuv3_cmdq_cfgi_ste_range: 1,
    smmuv3_cmdq_tlbi_nh: 1,
    smmuv3_cmdq_tlbi_nh_asid: 2,
    smmuv3_s1_range_inval: 2458,
    smmuv3_translate_success: 6182,
  },
  'linux6.12-x86-virtio-iommu': {
    virtio_iommu_attach: 2,
    virtio_iommu_device_reset: 3,
    virtio_iommu_fill_resv_property: 2,
    virtio_iommu_map: 1879,
    virtio_iommu_translate: 5636,
    virtio_iommu_translate_out: 5543,
    virtio_iommu_unmap: 1878,
    virtio_iommu_unmap_done: 1878,
  },
  'linux6.12-arm64-virtio-iommu': {
    virtio_iommu_attach: 2,
    virtio_iommu_device_reset: 3,
    virtio_iommu_fill_resv_property: 2,
    virtio_iommu_map: 2455,
    virtio_iommu_translate: 6192,
    virtio_iommu_translate_out: 6101,
    virtio_iommu_unmap: 2454,
    virtio_iommu_unmap_done: 2454,
  },
  'linux6.12-s390x-ccw-bypass': CHANNEL_EVENTS,
  'linux6.12-s390x-ccw-flag': CHANNEL_EVENTS,
  'linux6.12-s390x-ccw-swiotlb': CHANNEL_EVENTS,
  'linux6.1-arm64-smmuv3': {
    smmu_iotlb_insert: 2959,
    smmu_iotlb_inv_all: 7,
    smmu_iotlb_inv_asid: 2,
    smmu_iotlb_lookup_hit: 3746,
    smmu_iotlb_lookup_miss: 2959,
    smmuv3_cmdq_cfgi_ste: 4,
    smmuv3_cmdq_cfgi_ste_range: 1,
    smmuv3_cmdq_tlbi_nh: 1,
    smmuv3_cmdq_tlbi_nh_asid: 2,
    smmuv3_s1_range_inval: 2932,
    smmuv3_translate_success: 6705,
  },
  'linux6.1-x86-intel-iommu': {
    vtd_dmar_translate: 6500,
    vtd_inv_desc: 114,
    vtd_inv_desc_cc_global: 1,
    vtd_inv_desc_iec: 25,
    vtd_inv_desc_iotlb_domain: 30,
    vtd_inv_desc_iotlb_global: 1,
    vtd_inv_desc_wait_sw: 57,
    vtd_iotlb_page_hit: 3524,
    vtd_iotlb_page_update: 2976,
  },
};

const GUEST_COLUMNS = [
  'tracing_mark_write',
  'hcall_entry',
  'hcall_exit',
  'dma_map_page',
  'dma_unmap_page',
  'dma_map_phys',
  'dma_unmap_phys',
  'dma_alloc',
  'swiotlb_bounced',
  'map',
  'unmap',
  's390_cio_ssch',
  's390_cio_tsch',
  's390_diagnose',
];

/** Before 6.12 the kernel has no DMA events. */
// biome-ignore format: one row a run
const GUEST_EVENTS: Table = {
  'linux6.1-arm64-smmuv3': [8, 0, 0, 0, 0, 0, 0, 0, 0, 2935, 2932, 0, 0, 0],
  'linux6.1-ddw': [8, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
  'linux6.1-pinhole': [8, 759, 759, 0, 0, 0, 0, 0, 0, 0, 0],
  'linux6.1-x86-intel-iommu': [8, 0, 0, 0, 0, 0, 0, 0, 0, 2832, 2830, 0, 0, 0],
  'linux6.12-arm64-plain': [8, 0, 0, 1158, 1158, 0, 0, 1, 0, 0, 0],
  'linux6.12-arm64-smmuv3': [8, 0, 0, 2442, 2442, 0, 0, 1, 0, 2445, 2442],
  'linux6.12-arm64-swiotlb': [8, 0, 0, 1222, 1222, 0, 0, 1, 1222, 0, 0],
  'linux6.12-arm64-virtio-iommu': [8, 0, 0, 2452, 2452, 0, 0, 1, 0, 2453, 2452],
  'linux6.12-bypass': [8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
  'linux6.12-ddw': [8, 0, 0, 1476, 1476, 0, 0, 1, 0, 0, 0],
  'linux6.12-ddw-lost': [8, 2729, 2729, 1364, 1364, 0, 0, 1, 0, 0, 0],
  'linux6.12-pinhole': [8, 2441, 2441, 1220, 1220, 0, 0, 1, 0, 0, 0],
  'linux6.12-pinhole-mix': [12, 5019, 5019, 2509, 2509, 0, 0, 1, 0, 0, 0],
  'linux6.12-pinhole-net': [6, 3217, 3217, 1719, 1494, 0, 0, 4, 0, 0, 0],
  'linux6.12-pinhole-noindirect': [8, 3697, 3697, 1848, 1848, 0, 0, 1, 0, 0, 0],
  'linux6.12-pinhole-packed': [8, 3847, 3847, 1922, 1922, 0, 0, 3, 0, 0, 0],
  'linux6.12-pinhole-rng': [6, 832, 832, 415, 415, 0, 0, 2, 0, 0, 0],
  'linux6.12-pinhole-smp2': [12, 3282, 3282, 1640, 1640, 0, 0, 2, 0, 0, 0],
  'linux6.12-qemu10-ddw': [8, 0, 0, 1924, 1924, 0, 0, 1, 0, 0, 0],
  'linux6.12-s390x-ccw-bypass': [8, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 32, 32, 91],
  'linux6.12-s390x-ccw-flag': [8, 0, 0, 2452, 2452, 0, 0, 2, 0, 0, 0, 32, 32, 91],
  'linux6.12-s390x-ccw-swiotlb': [8, 0, 0, 2448, 2448, 0, 0, 2, 0, 0, 0, 32, 32, 91],
  'linux6.12-x86-intel-iommu': [8, 0, 0, 1872, 1872, 0, 0, 1, 0, 1874, 1872],
  'linux6.12-x86-plain': [8, 0, 0, 2450, 2450, 0, 0, 1, 0, 0, 0],
  'linux6.12-x86-swiotlb': [8, 0, 0, 2258, 2258, 0, 0, 1, 2258, 0, 0],
  'linux6.12-x86-virtio-iommu': [8, 0, 0, 1870, 1870, 0, 0, 1, 0, 1871, 1870],
  'linux7.2-ddw': [8, 0, 0, 0, 0, 2482, 2482, 1, 0, 0, 0],
  'linux7.2-ddw-lost': [8, 2471, 2471, 0, 0, 2470, 2470, 1, 0, 0, 0],
};

/** The events in QEMU's log of a run. */
export function qemuEvents(name: Name): Record<string, number> {
  return { ...countsOf(QEMU_COLUMNS, QEMU_EVENTS[name]), ...PLATFORM_EVENTS[name] };
}

/** The events in the guest's trace of a run. */
export function guestEvents(name: Name): Record<string, number> {
  return countsOf(GUEST_COLUMNS, GUEST_EVENTS[name]);
}

/** Events that did not happen are left out, as in `meta.json`. */
function countsOf(columns: readonly string[], row: readonly number[]): Record<string, number> {
  return Object.fromEntries(
    columns.map((column, index) => [column, row[index] ?? 0] as const).filter(([, n]) => n > 0),
  );
}
