/**
 * The event catalogue: everything that a trace can contain, as data. Names and argument order are
 * those of QEMU's and Linux's tracepoints; a template says how the source prints the arguments.
 *
 * What the source declares as 64 bits is `bigint`, return codes too; narrower integers, sizes
 * (`size_t`) and hypercall opcodes are `number`; the pointers of the traced program are strings:
 * identities, not addresses.
 */

import { IOMMU_ROWS, type Row } from './iommu-events.js';
import { parseTemplate } from './template.js';
import type { EventSource, EventSpec } from './types.js';

const PUT = 'liobn={liobn:x64} ioba={ioba:x64} tce={tce:x64} ret={ret:d64}';
const GET = 'liobn={liobn:x64} ioba={ioba:x64} ret={ret:d64} tce={tce:x64}';
const INDIRECT =
  'liobn={liobn:x64} ioba={ioba:x64} tcelist={tcelist:x64} iobaN={iobaN:x64} tceN={tceN:x64} ret={ret:d64}';
const STUFF =
  'liobn={liobn:x64} ioba={ioba:x64} tcevalue={tcevalue:x64} npages={npages:d64} ret={ret:d64}';

/** The TCE hypercalls and DDW calls. [qemu v7.2 hw/ppc/trace-events spapr_iommu.c] */
const HYPERVISOR_ROWS: readonly Row[] = [
  ['spapr_iommu_put', PUT, 'H_PUT_TCE on a table that is not a PCI window'],
  ['spapr_iommu_get', GET, 'H_GET_TCE on a table that is not a PCI window'],
  ['spapr_iommu_indirect', INDIRECT, 'H_PUT_TCE_INDIRECT on a table that is not a PCI window'],
  ['spapr_iommu_stuff', STUFF, 'H_STUFF_TCE on a table that is not a PCI window'],
  ['spapr_iommu_pci_put', PUT, 'H_PUT_TCE: one entry of a PCI window'],
  ['spapr_iommu_pci_get', GET, 'H_GET_TCE: reads one entry of a PCI window'],
  [
    'spapr_iommu_pci_indirect',
    INDIRECT,
    'H_PUT_TCE_INDIRECT: a list of entries; iobaN is the index of the last one, tceN its value',
  ],
  [
    'spapr_iommu_pci_stuff',
    STUFF,
    'H_STUFF_TCE: one value into many entries; ioba is the address after the last one',
  ],
  [
    'spapr_iommu_xlate',
    'liobn={liobn:x64} {ioba:x64} -> {tce:x64} perm={perm:u32} mask={pgsize:x32}',
    'a device access through a window; ioba counts from the start of the window',
  ],
  [
    'spapr_iommu_new_table',
    'liobn={liobn:x64} table={table:ptr} fd={fd:d32}',
    'a TCE table is allocated; fd is -1 unless KVM holds it',
  ],
  [
    'spapr_iommu_ddw_query',
    'buid={buid:x64} addr={addr:x32}, {wa:u32} windows available, max window size={win_size:x64}, mask={pgmask:x32}',
    'ibm,query-pe-dma-window',
  ],
  [
    'spapr_iommu_ddw_create',
    'buid={buid:x64} addr={addr:x32}, page size={pg_size:x64}, requested={req_size:x64}, start addr={start:x64}, liobn={liobn:x32}',
    'ibm,create-pe-dma-window',
  ],
  ['spapr_iommu_ddw_remove', 'liobn={liobn:x32}', 'ibm,remove-pe-dma-window'],
  [
    'spapr_iommu_ddw_reset',
    'buid={buid:x64} addr={addr:x32}',
    'ibm,reset-pe-dma-window, and every reset of a PHB',
  ],
];

const BLK_HANDLE = 'vdev {vdev:ptr} req {req:ptr} sector {sector:u64} nsectors {nsectors:u53}';

/** Virtqueues and devices. [qemu v7.2 hw/virtio/trace-events] [qemu v7.2 hw/block/trace-events] */
const DEVICE_ROWS: readonly Row[] = [
  [
    'virtqueue_alloc_element',
    'elem {elem:ptr} size {sz:d53} in_num {in_num:u32} out_num {out_num:u32}',
    'room for a request with in_num writable and out_num readable segments',
  ],
  [
    'virtqueue_fill',
    'vq {vq:ptr} elem {elem:ptr} len {len:u32} idx {idx:u32}',
    'a request goes to the used ring, with len bytes written',
  ],
  ['virtqueue_flush', 'vq {vq:ptr} count {count:u32}', 'the used index moves by count'],
  [
    'virtqueue_pop',
    'vq {vq:ptr} elem {elem:ptr} in_num {in_num:u32} out_num {out_num:u32}',
    'the device takes a request off the queue',
  ],
  ['virtio_queue_notify', 'vdev {vdev:ptr} n {n:d32} vq {vq:ptr}', 'the driver kicks queue n'],
  ['virtio_notify_irqfd', 'vdev {vdev:ptr} vq {vq:ptr}', 'the device interrupts through an irqfd'],
  ['virtio_notify', 'vdev {vdev:ptr} vq {vq:ptr}', 'the device interrupts the driver'],
  ['virtio_set_status', 'vdev {vdev:ptr} val {val:u32}', 'the driver writes the device status'],
  ['virtio_blk_handle_read', BLK_HANDLE, 'virtio-blk starts a read'],
  ['virtio_blk_handle_write', BLK_HANDLE, 'virtio-blk starts a write'],
  [
    'virtio_blk_req_complete',
    'vdev {vdev:ptr} req {req:ptr} status {status:d32}',
    'virtio-blk writes the status byte of a request',
  ],
  [
    'virtio_blk_rw_complete',
    'vdev {vdev:ptr} req {req:ptr} ret {ret:d32}',
    'the backend is done with a read or write',
  ],
  ['vhost_iotlb_miss', '{dev:ptr} step {step:d32}', 'vhost asks QEMU for a translation'],
];

/** The channel subsystem and virtio behind it. [qemu v7.2 hw/s390x/trace-events] */
const CHANNEL_ROWS: readonly Row[] = [
  [
    'virtio_ccw_interpret_ccw',
    'VIRTIO-CCW: {subchannel:str}: interpret command {cmd_code:x32}',
    'a channel command for a virtio device begins',
  ],
  [
    'virtio_ccw_new_device',
    'VIRTIO-CCW: add subchannel {subchannel:str}, devno {devno:str} ({devno_mode:str})',
    'a virtio device gets a subchannel',
  ],
  [
    'virtio_ccw_set_ind',
    'VIRTIO-CCW: indicator at {ind_loc:u64}: {ind_old:x32}->{ind_new:x32}',
    'a bit of an indicator is set, for a queue or for a summary',
  ],
  ['css_adapter_interrupt', 'CSS: adapter I/O interrupt (isc {isc:x32})', 'adapters interrupt'],
  [
    'css_io_interrupt',
    'CSS: I/O interrupt on sch {subchannel:str} (intparm {intparm:str}, isc {isc:x32}) {unsolicited:str}',
    'a subchannel interrupts: a channel program has ended, or `(unsolicited)`',
  ],
];

const DEVICE_DIR = '{device:str} dir={dir:str}';
const AT = 'dma_addr={dma_addr:h64} size={size:u53}';
const MAP = `${DEVICE_DIR} ${AT} phys_addr={phys_addr:h64} attrs={attrs:str}`;
const UNMAP = `${DEVICE_DIR} ${AT} attrs={attrs:str}`;
const ALLOC = `${AT} virt_addr={virt_addr:str} flags={flags:str} attrs={attrs:str}`;
const FREE = `${AT} virt_addr={virt_addr:str} attrs={attrs:str}`;
const SYNC = `${DEVICE_DIR} ${AT}`;
const SG = 'dma_addrs={dma_addrs:arr} sizes={sizes:arr}';
const SG_MAPPED = `${SG} phys_addrs={phys_addrs:arr} attrs={attrs:str}`;
/** The kernel keeps the first 128 entries of a longer list; `nents` and `ents` are the real counts. */
const SG_COUNTS = 'nents={traced_nents:d32}/{nents:d32} ents={traced_ents:d32}/{ents:d32}';

/**
 * What the guest's kernel traces. A mapping that failed has the DMA address ffffffffffffffff.
 * [linux v6.12 include/trace/events/dma.h] [linux v7.0 include/trace/events/dma.h]
 * [linux v6.12 include/trace/events/swiotlb.h] [linux v6.12 include/trace/events/iommu.h]
 * [linux v6.12 arch/powerpc/include/asm/trace.h]; those of s390 as the recorded traces have them.
 */
const LINUX_ROWS: readonly Row[] = [
  [
    's390_cio_ssch',
    'schid={schid:str} cc={cc:d32}',
    'the guest starts a channel program (START SUBCHANNEL)',
  ],
  [
    's390_cio_tsch',
    'schid={schid:str} cc={cc:d32} dcc={dcc:d32} pno={pno:d32} fctl={fctl:x32} actl={actl:x32} stctl={stctl:x32} dstat={dstat:x32} cstat={cstat:x32}',
    'how it ended (TEST SUBCHANNEL): device status, subchannel status',
  ],
  ['s390_diagnose', 'nr={nr:x32}', 'the guest calls its hypervisor; 0x500 is a kick'],
  ['hcall_entry', 'opcode={opcode:u53}', 'the guest enters a hypercall'],
  ['hcall_exit', 'opcode={opcode:u53} retval={retval:r64}', 'the hypercall returns'],
  ['dma_map_page', MAP, 'a buffer gets a DMA address (before 7.0)'],
  ['dma_map_phys', MAP, 'a buffer gets a DMA address (7.0 and later)'],
  ['dma_map_resource', MAP, 'a device gets a DMA address of another device (before 7.0)'],
  ['dma_unmap_page', UNMAP, 'a DMA address is given back (before 7.0)'],
  ['dma_unmap_phys', UNMAP, 'a DMA address is given back (7.0 and later)'],
  ['dma_unmap_resource', UNMAP, 'a DMA address of another device is given back (before 7.0)'],
  [
    'dma_alloc',
    `${DEVICE_DIR} ${ALLOC}`,
    'coherent memory, such as a ring, is allocated',
    `{device:str} ${ALLOC}`,
  ],
  ['dma_free', `${DEVICE_DIR} ${FREE}`, 'coherent memory is freed', `{device:str} ${FREE}`],
  ['dma_alloc_pages', `${DEVICE_DIR} ${ALLOC}`, 'pages for non-coherent DMA are allocated'],
  ['dma_free_pages', `${DEVICE_DIR} ${FREE}`, 'pages for non-coherent DMA are freed'],
  [
    'dma_alloc_sgt',
    `${DEVICE_DIR} ${AT} phys_addrs={phys_addrs:arr} flags={flags:str} attrs={attrs:str}`,
    'memory that need not be contiguous is allocated; dma_addr is that of its first piece',
  ],
  ['dma_alloc_sgt_err', `${DEVICE_DIR} ${ALLOC}`, 'such an allocation fails'],
  [
    'dma_free_sgt',
    `${DEVICE_DIR} ${AT} phys_addrs={phys_addrs:arr}`,
    'memory that need not be contiguous is freed',
  ],
  [
    'dma_map_sg',
    `${DEVICE_DIR} ${SG_COUNTS} ${SG_MAPPED}`,
    'a list of nents buffers becomes ents ranges of DMA addresses',
    `${DEVICE_DIR} ${SG_COUNTS} [{truncated:str}] ${SG_MAPPED}`,
    `${DEVICE_DIR} ${SG_MAPPED}`,
  ],
  [
    'dma_map_sg_err',
    // The kernel calls them dma_addrs, but they are the buffers' physical addresses.
    `${DEVICE_DIR} dma_addrs={phys_addrs:arr} err={err:d32} attrs={attrs:str}`,
    'a list of buffers cannot be mapped',
  ],
  [
    'dma_unmap_sg',
    `${DEVICE_DIR} phys_addrs={phys_addrs:arr} attrs={attrs:str}`,
    'the DMA addresses of a list are given back; it has the physical ones',
  ],
  ['dma_sync_single_for_cpu', SYNC, 'the CPU will look at a mapped buffer'],
  ['dma_sync_single_for_device', SYNC, 'the device gets a mapped buffer back'],
  ['dma_sync_sg_for_cpu', `${DEVICE_DIR} ${SG}`, 'the CPU will look at a mapped list'],
  ['dma_sync_sg_for_device', `${DEVICE_DIR} ${SG}`, 'the device gets a mapped list back'],
  [
    'map',
    'IOMMU: iova={iova:p64} - {end:p64} paddr={paddr:p64} size={size:u53}',
    'an IOMMU domain maps a range; end is the address after it',
    'IOMMU: iova={iova:p64} paddr={paddr:p64} size={size:u53}',
  ],
  [
    'unmap',
    'IOMMU: iova={iova:p64} - {end:p64} size={size:u53} unmapped_size={unmapped_size:u53}',
    'an IOMMU domain unmaps a range; end is the address after it',
    'IOMMU: iova={iova:p64} size={size:u53} unmapped_size={unmapped_size:u53}',
  ],
  [
    'swiotlb_bounced',
    'dev_name: {dev_name:str} dma_mask={dma_mask:h64} dev_addr={dev_addr:h64} size={size:u53} {force:str}',
    'a buffer gets a bounce buffer',
  ],
  ['tracing_mark_write', '{message:str}', 'a line written to trace_marker'],
];

type OwnRow = readonly [actor: string, kind: 'point' | 'span', ...Row];

/** What only a model can see. */
const OWN_ROWS: readonly OwnRow[] = [
  [
    'guest',
    'span',
    'blk_request',
    'op={op:str} sector={sector:u64} length={length:u53}',
    'the guest issues one block request and waits for it',
  ],
  ['guest', 'point', 'guest_warn', 'message={message:str}', 'the guest logs a warning'],
  [
    'guest',
    'point',
    'virtqueue_bad_ring',
    'vq={vq:str} message={message:str}',
    'the driver finds the device in error and stops using the queue',
  ],
  [
    'guest',
    'span',
    'rtas_call',
    'name={name:str} status={status:d32}',
    'the guest calls RTAS; the status comes with the end',
  ],
  [
    'hypervisor',
    'span',
    'hcall',
    'name={name:str} ret={ret:d53}',
    'the hypervisor serves a hypercall; the return code comes with the end',
  ],
  [
    'hypervisor',
    'point',
    'uv_share_page',
    'gfn={gfn:x64} count={count:u64}',
    'a secure guest shares pages with the hypervisor',
  ],
  [
    'hypervisor',
    'point',
    'uv_unshare_page',
    'gfn={gfn:x64} count={count:u64}',
    'a secure guest takes shared pages back',
  ],
  [
    'device',
    'point',
    'vhost_iotlb_update',
    'dev={dev:str} iova={iova:x64} gpa={gpa:x64} size={size:x64} perm={perm:u32}',
    'QEMU gives vhost a translation: an answer, or pushed; perm 3 is read and write',
  ],
  [
    'device',
    'point',
    'vhost_iotlb_invalidate',
    'dev={dev:str} iova={iova:x64} size={size:x64}',
    'a page was unmapped: vhost forgets what overlaps it',
  ],
  [
    'device',
    'point',
    'vhost_iotlb_evict',
    'dev={dev:str} iova={iova:x64} size={size:x64}',
    'the IOTLB is full: the oldest translation makes room',
  ],
  [
    'device',
    'point',
    'vhost_stall',
    'dev={dev:str} n={n:u32} iova={iova:x64} write={write:u32} why={why:str}',
    'queue n waits for a translation that does not come',
  ],
  [
    'device',
    'point',
    'virtio_error',
    'vdev={vdev:str} message={message:str}',
    'the device finds the driver in error and stops',
  ],
  ['device', 'span', 'blk_io', 'vdev={vdev:str} n={n:u32}', 'a block device serves a kick'],
  [
    'device',
    'point',
    'backend_read',
    'offset={offset:u64} length={length:u53}',
    'the backend reads its image',
  ],
  [
    'device',
    'point',
    'backend_write',
    'offset={offset:u64} length={length:u53}',
    'the backend writes its image',
  ],
];

function spec(source: EventSource, actor: string, span: boolean, row: Row): EventSpec {
  const [name, template, summary, ...variants] = row;
  const args = parseTemplate(template).fields.map((field) => field.arg);
  return Object.freeze({ name, source, actor, span, args, template, variants, summary });
}

/** Every event that Pinhole reads, writes or makes, grouped by source. */
export const eventCatalogue: readonly EventSpec[] = Object.freeze([
  ...HYPERVISOR_ROWS.map((row) => spec('qemu', 'hypervisor', false, row)),
  ...DEVICE_ROWS.map((row) => spec('qemu', 'device', false, row)),
  ...CHANNEL_ROWS.map((row) => spec('qemu', 'device', false, row)),
  ...IOMMU_ROWS.map((row) => spec('qemu', 'hypervisor', false, row)),
  ...LINUX_ROWS.map((row) => spec('linux', 'guest', false, row)),
  ...OWN_ROWS.map(([actor, kind, ...row]) => spec('pinhole', actor, kind === 'span', row)),
]);
