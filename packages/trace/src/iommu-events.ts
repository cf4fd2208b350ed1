/** The events of QEMU's emulated IOMMUs: a part of the catalogue in `events.ts`. */

/** An event: name, template, what it says, and other forms of the template. */
export type Row = readonly [name: string, template: string, summary: string, ...variants: string[]];

const IOTLB = 'sid {sid:x32} iova {iova:x64} slpte {slpte:x64} domain {domain:x32}';

/** The emulated VT-d: what devices access, and what the guest invalidates. [qemu v7.2 hw/i386/trace-events] */
const VTD_ROWS: readonly Row[] = [
  [
    'vtd_dmar_translate',
    'dev {dev:str} iova {iova:x64} -> gpa {gpa:x64} mask {mask:x64}',
    'a device access through the IOMMU',
  ],
  ['vtd_iotlb_page_hit', `IOTLB page hit ${IOTLB}`, 'its translation is cached'],
  ['vtd_iotlb_page_update', `IOTLB page update ${IOTLB}`, 'its translation is read and cached'],
  [
    'vtd_inv_desc',
    'invalidate desc type {type:str} high {hi:x64} low {lo:x64}',
    'the guest queued an invalidation',
  ],
  ['vtd_inv_desc_cc_global', 'context invalidate globally', 'of all context entries'],
  ['vtd_inv_desc_iotlb_global', 'iotlb invalidate global', 'of all cached translations'],
  [
    'vtd_inv_desc_iotlb_domain',
    'iotlb invalidate whole domain {domain:x32}',
    "of a domain's cached translations",
  ],
  [
    'vtd_inv_desc_iotlb_pages',
    'iotlb invalidate domain {domain:x32} addr {addr:x64} mask {mask:x32}',
    'of the cached translations of 2^mask pages',
  ],
  [
    'vtd_inv_desc_iec',
    'granularity {granularity:x32} index {index:x32} mask {mask:x32}',
    'of cached interrupt remapping entries',
  ],
  [
    'vtd_inv_desc_wait_sw',
    'wait invalidate status write addr {addr:x64} data {data:x32}',
    'the guest asked to be told when all before are done',
  ],
  [
    'vtd_dmar_fault',
    'sid {sid:x32} fault {fault:d32} addr {addr:x64} write {write:d32}',
    'an access through the IOMMU is denied',
  ],
];

const SMMU_LOOKUP =
  'asid={asid:d32} addr={addr:x64} hit={hit:d32} miss={miss:d32} hit rate={rate:d32}';
const SMMU_DEVICE = '{mr:str} sid={sid:x32}';

/** The emulated SMMUv3: what devices access, and what the guest invalidates. [qemu v7.2 hw/arm/trace-events] */
const SMMU_ROWS: readonly Row[] = [
  ['smmu_iotlb_lookup_hit', `IOTLB cache HIT ${SMMU_LOOKUP}`, 'a translation is cached'],
  ['smmu_iotlb_lookup_miss', `IOTLB cache MISS ${SMMU_LOOKUP}`, 'a translation is not cached'],
  [
    'smmu_iotlb_insert',
    'IOTLB ++ asid={asid:d32} addr={addr:x64} tg={tg:d32} level={level:d32}',
    'a translation is read and cached',
  ],
  ['smmu_iotlb_inv_all', 'IOTLB invalidate all', 'of all cached translations'],
  ['smmu_iotlb_inv_asid', 'IOTLB invalidate asid={asid:d32}', 'of those of one address space'],
  [
    'smmuv3_translate_success',
    `${SMMU_DEVICE} iova={iova:x64} translated={translated:x64} perm={perm:x32}`,
    'a device access through the IOMMU',
  ],
  [
    'smmuv3_translate_disable',
    `${SMMU_DEVICE} bypass (smmu disabled) iova:{iova:x64} is_write={is_write:d32}`,
    'an access while the IOMMU is off',
  ],
  [
    'smmuv3_translate_bypass',
    `${SMMU_DEVICE} STE bypass iova:{iova:x64} is_write={is_write:d32}`,
    'an access of a device that goes past the tables',
  ],
  [
    'smmuv3_translate_abort',
    `${SMMU_DEVICE} abort on iova:{iova:x64} is_write={is_write:d32}`,
    'an access is denied',
  ],
  ['smmuv3_cmdq_tlbi_nh', '', 'the guest invalidates all translations'],
  ['smmuv3_cmdq_tlbi_nh_asid', 'asid={asid:d32}', 'the guest invalidates an address space'],
  ['smmuv3_cmdq_cfgi_ste', 'streamid= {streamid:x32}', "the guest changed a stream's table entry"],
  [
    'smmuv3_cmdq_cfgi_ste_range',
    'start={start:x32} - end={end:x32}',
    'the guest changed table entries of streams',
  ],
  ['smmuv3_cmdq_cfgi_cd', 'sid={sid:x32}', "the guest changed a stream's context descriptor"],
  [
    'smmuv3_s1_range_inval',
    'vmid={vmid:d32} asid={asid:d32} addr={addr:x64} tg={tg:d32} num_pages={num_pages:x64} ttl={ttl:d32} leaf={leaf:d32}',
    'the guest invalidates a range',
  ],
  ['smmuv3_record_event', '{type:str} sid={sid:x32}', 'an access through the IOMMU failed'],
];

const VIOMMU_RANGE = 'domain={domain:d32} virt_start={virt_start:x64} virt_end={virt_end:x64}';

/** virtio-iommu: the guest's requests, and what devices access. [qemu v7.2 hw/virtio/trace-events] */
const VIOMMU_ROWS: readonly Row[] = [
  ['virtio_iommu_device_reset', 'reset!', 'the device is reset: all domains are gone'],
  ['virtio_iommu_attach', 'domain={domain:d32} endpoint={endpoint:d32}', 'ATTACH: a device joins'],
  ['virtio_iommu_detach', 'domain={domain:d32} endpoint={endpoint:d32}', 'DETACH: a device leaves'],
  [
    'virtio_iommu_map',
    `${VIOMMU_RANGE} phys_start={phys_start:x64} flags={flags:d32}`,
    'MAP: virt_end is the last byte; flags 1 read, 2 write',
  ],
  ['virtio_iommu_unmap', VIOMMU_RANGE, 'UNMAP: all mappings in the range are to go'],
  ['virtio_iommu_unmap_done', VIOMMU_RANGE, 'a mapping is gone'],
  [
    'virtio_iommu_translate',
    'mr={mr:str} rid={rid:d32} addr={addr:x64} flag={flag:d32}',
    'a device access through the IOMMU; flag 1 read, 2 write',
  ],
  [
    'virtio_iommu_translate_out',
    '{virt_addr:x64} -> {phys_addr:x64} for sid={sid:d32}',
    'where a mapping takes it',
  ],
  [
    'virtio_iommu_report_fault',
    'FAULT reason={reason:d32} flags={flags:d32} endpoint={endpoint:d32} address ={addr:x64}',
    'an access through the IOMMU is denied',
  ],
  [
    'virtio_iommu_fill_resv_property',
    'dev= {endpoint:d32}, type={subtype:d32} start={start:x64} end={end:x64}',
    'PROBE: addresses that are never mapped; type 1 interrupts',
  ],
];

/** All of them. */
export const IOMMU_ROWS: readonly Row[] = [...VTD_ROWS, ...SMMU_ROWS, ...VIOMMU_ROWS];
