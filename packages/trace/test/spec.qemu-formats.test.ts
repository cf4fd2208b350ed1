// The catalogue against the printf formats of QEMU's trace-events files, as C expands them on a
// 64-bit host. The recordings prove the events that they contain; this covers the others too.
import { expect, test } from 'vitest';
import { eventCatalogue, findEvent } from '../src/index.js';

const PUT = 'liobn=0x%lx ioba=0x%lx tce=0x%lx ret=%ld';
const GET = 'liobn=0x%lx ioba=0x%lx ret=%ld tce=0x%lx';
const INDIRECT = 'liobn=0x%lx ioba=0x%lx tcelist=0x%lx iobaN=0x%lx tceN=0x%lx ret=%ld';
const STUFF = 'liobn=0x%lx ioba=0x%lx tcevalue=0x%lx npages=%ld ret=%ld';
const IOTLB = 'sid 0x%x iova 0x%lx slpte 0x%lx domain 0x%x';
const BLK = 'vdev %p req %p sector %lu nsectors %zu';

/**
 * [qemu v7.2 hw/ppc/trace-events] [qemu v7.2 hw/virtio/trace-events] [qemu v7.2 hw/block/trace-events]
 * [qemu v7.2 hw/i386/trace-events]; the formats of the SMMUv3, of virtio-iommu and of
 * the channel subsystem as `strings qemu-system-aarch64` and `-s390x` have them.
 */
const FORMATS: Readonly<Record<string, string>> = {
  spapr_iommu_put: PUT,
  spapr_iommu_get: GET,
  spapr_iommu_indirect: INDIRECT,
  spapr_iommu_stuff: STUFF,
  spapr_iommu_pci_put: PUT,
  spapr_iommu_pci_get: GET,
  spapr_iommu_pci_indirect: INDIRECT,
  spapr_iommu_pci_stuff: STUFF,
  spapr_iommu_xlate: 'liobn=0x%lx 0x%lx -> 0x%lx perm=%u mask=0x%x',
  spapr_iommu_new_table: 'liobn=0x%lx table=%p fd=%d',
  spapr_iommu_ddw_query:
    'buid=0x%lx addr=0x%x, %u windows available, max window size=0x%lx, mask=0x%x',
  spapr_iommu_ddw_create:
    'buid=0x%lx addr=0x%x, page size=0x%lx, requested=0x%lx, start addr=0x%lx, liobn=0x%x',
  spapr_iommu_ddw_remove: 'liobn=0x%x',
  spapr_iommu_ddw_reset: 'buid=0x%lx addr=0x%x',
  virtqueue_alloc_element: 'elem %p size %zd in_num %u out_num %u',
  virtqueue_fill: 'vq %p elem %p len %u idx %u',
  virtqueue_flush: 'vq %p count %u',
  virtqueue_pop: 'vq %p elem %p in_num %u out_num %u',
  virtio_queue_notify: 'vdev %p n %d vq %p',
  virtio_notify_irqfd: 'vdev %p vq %p',
  virtio_notify: 'vdev %p vq %p',
  virtio_set_status: 'vdev %p val %u',
  virtio_blk_handle_read: BLK,
  virtio_blk_handle_write: BLK,
  virtio_blk_req_complete: 'vdev %p req %p status %d',
  virtio_blk_rw_complete: 'vdev %p req %p ret %d',
  vhost_iotlb_miss: '%p step %d',
  // QEMU has %02x:%02x.%02x for the device.
  vtd_dmar_translate: 'dev %s iova 0x%lx -> gpa 0x%lx mask 0x%lx',
  vtd_iotlb_page_hit: `IOTLB page hit ${IOTLB}`,
  vtd_iotlb_page_update: `IOTLB page update ${IOTLB}`,
  vtd_inv_desc: 'invalidate desc type %s high 0x%lx low 0x%lx',
  vtd_inv_desc_cc_global: 'context invalidate globally',
  vtd_inv_desc_iotlb_global: 'iotlb invalidate global',
  vtd_inv_desc_iotlb_domain: 'iotlb invalidate whole domain 0x%x',
  vtd_inv_desc_iotlb_pages: 'iotlb invalidate domain 0x%x addr 0x%lx mask 0x%x',
  vtd_inv_desc_iec: 'granularity 0x%x index 0x%x mask 0x%x',
  vtd_inv_desc_wait_sw: 'wait invalidate status write addr 0x%lx data 0x%x',
  vtd_dmar_fault: 'sid 0x%x fault %d addr 0x%lx write %d',
  smmu_iotlb_lookup_hit: 'IOTLB cache HIT asid=%d addr=0x%lx hit=%d miss=%d hit rate=%d',
  smmu_iotlb_lookup_miss: 'IOTLB cache MISS asid=%d addr=0x%lx hit=%d miss=%d hit rate=%d',
  smmu_iotlb_insert: 'IOTLB ++ asid=%d addr=0x%lx tg=%d level=%d',
  smmu_iotlb_inv_all: 'IOTLB invalidate all',
  smmu_iotlb_inv_asid: 'IOTLB invalidate asid=%d',
  smmuv3_translate_success: '%s sid=0x%x iova=0x%lx translated=0x%lx perm=0x%x',
  smmuv3_translate_disable: '%s sid=0x%x bypass (smmu disabled) iova:0x%lx is_write=%d',
  smmuv3_translate_bypass: '%s sid=0x%x STE bypass iova:0x%lx is_write=%d',
  smmuv3_translate_abort: '%s sid=0x%x abort on iova:0x%lx is_write=%d',
  smmuv3_cmdq_tlbi_nh: '',
  smmuv3_cmdq_tlbi_nh_asid: 'asid=%d',
  smmuv3_cmdq_cfgi_ste: 'streamid= 0x%x',
  smmuv3_cmdq_cfgi_ste_range: 'start=0x%x - end=0x%x',
  smmuv3_cmdq_cfgi_cd: 'sid=0x%x',
  smmuv3_s1_range_inval: 'vmid=%d asid=%d addr=0x%lx tg=%d num_pages=0x%lx ttl=%d leaf=%d',
  smmuv3_record_event: '%s sid=0x%x',
  virtio_iommu_device_reset: 'reset!',
  virtio_iommu_attach: 'domain=%d endpoint=%d',
  virtio_iommu_detach: 'domain=%d endpoint=%d',
  virtio_iommu_map: 'domain=%d virt_start=0x%lx virt_end=0x%lx phys_start=0x%lx flags=%d',
  virtio_iommu_unmap: 'domain=%d virt_start=0x%lx virt_end=0x%lx',
  virtio_iommu_unmap_done: 'domain=%d virt_start=0x%lx virt_end=0x%lx',
  virtio_iommu_translate: 'mr=%s rid=%d addr=0x%lx flag=%d',
  virtio_iommu_translate_out: '0x%lx -> 0x%lx for sid=%d',
  virtio_iommu_report_fault: 'FAULT reason=%d flags=%d endpoint=%d address =0x%lx',
  virtio_iommu_fill_resv_property: 'dev= %d, type=%d start=0x%lx end=0x%lx',
  // QEMU has %x.%x.%04x for the subchannel, and 0x%04x and 0x%08x for devno and intparm.
  virtio_ccw_interpret_ccw: 'VIRTIO-CCW: %s: interpret command 0x%x',
  virtio_ccw_new_device: 'VIRTIO-CCW: add subchannel %s, devno %s (%s)',
  virtio_ccw_set_ind: 'VIRTIO-CCW: indicator at %lu: 0x%x->0x%x',
  css_adapter_interrupt: 'CSS: adapter I/O interrupt (isc 0x%x)',
  css_io_interrupt: 'CSS: I/O interrupt on sch %s (intparm %s, isc 0x%x) %s',
};

const MAP = '%s dir=%s dma_addr=%llx size=%zu phys_addr=%llx attrs=%s';
const UNMAP = '%s dir=%s dma_addr=%llx size=%zu attrs=%s';
// With `no_hash_pointers` or without, %p is hex digits; the text is kept as it is.
const ALLOC = '%s dir=%s dma_addr=%llx size=%zu virt_addr=%s flags=%s attrs=%s';
const FREE = '%s dir=%s dma_addr=%llx size=%zu virt_addr=%s attrs=%s';
const SG = 'dma_addrs=%a sizes=%a phys_addrs=%a attrs=%s';

/**
 * What TP_printk has; `%a` is `%s` with `__print_array`. [linux v6.12 include/trace/events/dma.h]
 * [linux v7.0 include/trace/events/dma.h] [linux v6.12 include/trace/events/iommu.h]
 */
const LINUX_FORMATS: Readonly<Record<string, string | readonly string[]>> = {
  // The recorded traces prove these; the kernel has %x.%x.%04x for the subchannel.
  s390_cio_ssch: 'schid=%s cc=%d',
  s390_cio_tsch:
    'schid=%s cc=%d dcc=%d pno=%d fctl=0x%x actl=0x%x stctl=0x%x dstat=0x%x cstat=0x%x',
  s390_diagnose: 'nr=0x%x',
  hcall_entry: 'opcode=%lu',
  hcall_exit: 'opcode=%lu retval=%lu',
  dma_map_page: MAP,
  dma_map_phys: MAP,
  dma_map_resource: MAP,
  dma_unmap_page: UNMAP,
  dma_unmap_phys: UNMAP,
  dma_unmap_resource: UNMAP,
  dma_alloc: [ALLOC, ALLOC.replace(' dir=%s', '')],
  dma_free: [FREE, FREE.replace(' dir=%s', '')],
  dma_alloc_pages: ALLOC,
  dma_free_pages: FREE,
  dma_alloc_sgt: '%s dir=%s dma_addr=%llx size=%zu phys_addrs=%a flags=%s attrs=%s',
  dma_alloc_sgt_err: ALLOC,
  dma_free_sgt: '%s dir=%s dma_addr=%llx size=%zu phys_addrs=%a',
  dma_map_sg: [
    `%s dir=%s nents=%d/%d ents=%d/%d ${SG}`,
    // Here the kernel prints " [TRUNCATED]" or nothing.
    `%s dir=%s nents=%d/%d ents=%d/%d [%s] ${SG}`,
    `%s dir=%s ${SG}`,
  ],
  dma_map_sg_err: '%s dir=%s dma_addrs=%a err=%d attrs=%s',
  dma_unmap_sg: '%s dir=%s phys_addrs=%a attrs=%s',
  dma_sync_single_for_cpu: '%s dir=%s dma_addr=%llx size=%zu',
  dma_sync_single_for_device: '%s dir=%s dma_addr=%llx size=%zu',
  dma_sync_sg_for_cpu: '%s dir=%s dma_addrs=%a sizes=%a',
  dma_sync_sg_for_device: '%s dir=%s dma_addrs=%a sizes=%a',
  map: [
    'IOMMU: iova=0x%016llx - 0x%016llx paddr=0x%016llx size=%zu',
    'IOMMU: iova=0x%016llx paddr=0x%016llx size=%zu',
  ],
  unmap: [
    'IOMMU: iova=0x%016llx - 0x%016llx size=%zu unmapped_size=%zu',
    'IOMMU: iova=0x%016llx size=%zu unmapped_size=%zu',
  ],
  swiotlb_bounced: 'dev_name: %s dma_mask=%llx dev_addr=%llx size=%zu %s',
  tracing_mark_write: '%s',
};

const CONVERSIONS: Readonly<Record<string, string>> = {
  x64: '0x%lx',
  h64: '%llx',
  p64: '0x%016llx',
  u64: '%lu',
  d64: '%ld',
  r64: '%lu',
  x32: '0x%x',
  u32: '%u',
  d32: '%d',
  u53: '%zu',
  d53: '%zd',
  ptr: '%p',
  str: '%s',
  arr: '%a',
};

/** The usual form and the variants. */
function printfOf(name: string): string[] {
  const event = findEvent(name);
  const forms = event === undefined ? [] : [event.template, ...event.variants];
  return forms.map((form) =>
    form.replaceAll(/\{\w+:(\w+)\}/g, (_, format) => {
      // Linux declares an opcode as unsigned long.
      return name.startsWith('hcall_') ? '%lu' : (CONVERSIONS[format as string] ?? '?');
    }),
  );
}

test.each(Object.entries({ ...FORMATS, ...LINUX_FORMATS }))('%s prints %s', (name, format) => {
  expect(printfOf(name)).toEqual([format].flat());
});

test.each([
  ['qemu', FORMATS],
  ['linux', LINUX_FORMATS],
] as const)('these are all events of %s', (source, formats) => {
  const names = eventCatalogue.filter((event) => event.source === source).map(({ name }) => name);
  expect(names.sort()).toEqual(Object.keys(formats).sort());
});
