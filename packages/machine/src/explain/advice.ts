/** What a path means: dangers, and costs that people do not expect. */
import { formatSize } from '@pinhole/base';
import type { PathId, Risk } from './explanation.js';
import type { DeviceFacts, MachineFacts } from './facts.js';
import { leakPerRead } from './guest-adapter.js';
import type { ModelRun } from './model-run.js';
import { hasIommu } from './qemu-steps.js';

/** What advice is given about. */
export interface AdviceContext {
  readonly machine: MachineFacts;
  readonly device: DeviceFacts;
  readonly flag: boolean;
  readonly path: PathId;
  /** Absent: there was none. */
  readonly run?: ModelRun | undefined;
}

interface RiskRule {
  readonly id: string;
  readonly severity: Risk['severity'];
  readonly when: (context: AdviceContext) => boolean;
  readonly text: (context: AdviceContext) => string;
  readonly source: string;
}

const MIB = 2 ** 20;
/** Most translations that the kernel's vhost keeps. [linux v6.1 drivers/vhost/vhost.c max_iotlb_entries] */
const VHOST_IOTLB_ENTRIES = 2048;
const SMALL_WINDOW = 64 * MIB;

const isVhost = ({ device }: AdviceContext): boolean => device.worker !== 'qemu';
const hasIotlb = (context: AdviceContext): boolean =>
  isVhost(context) && context.flag && hasIommu(context.machine, context.device);
const isWindow = ({ path }: AdviceContext): boolean => path.startsWith('default-window');
const windowSize = ({ run }: AdviceContext): number =>
  run?.scenario.machine.dmaWindowSize ?? 2 ** 30;

const RULES: readonly RiskRule[] = [
  {
    id: 'leak',
    severity: 'error',
    when: ({ path }) => path === 'default-window-leak',
    text: (context) => {
      const entries = windowSize(context) / 4096;
      const perRead = context.run === undefined ? 0 : leakPerRead(context.run);
      const reads = perRead > 0 ? Math.floor(entries / perRead) : 0;
      return `Nothing is ever unmapped: each read of 4 KiB leaves ${perRead} entries behind, so the window's ${entries} entries are used up after about ${reads} of them ("iommu_alloc failed"). The device keeps access to every buffer it ever had.`;
    },
    source: '[linux commit 1471c517cf7d]',
  },
  {
    id: 'ciphertext',
    severity: 'error',
    when: ({ path }) => path === 'unreachable',
    text: () =>
      'The device is given addresses of private pages: it reads ciphertext and its writes are refused or lost. I/O fails or returns wrong data.',
    source: '[linux v6.1 drivers/virtio/virtio_ring.c vring_use_dma_api]',
  },
  {
    id: 'hypercalls',
    severity: 'warning',
    when: ({ path }) => path === 'default-window' || path === 'second-window-dynamic',
    text: () =>
      'Every buffer costs a hypercall to map and one to unmap: 2(n+3) for a request of n data segments with an indirect table. Costs grow with requests and segments, not with bytes.',
    source: '[linux v6.1 arch/powerpc/platforms/pseries/iommu.c tce_buildmulti_pSeriesLP]',
  },
  {
    id: 'iommu-commands',
    severity: 'warning',
    when: ({ path, run }) => path === 'viommu' && (run?.rows[0]?.iommu.commands ?? 0) >= 1,
    text: ({ run }) => {
      const { maps = 0, commands = 0 } = run?.rows[0]?.iommu ?? {};
      return `Each request has the hypervisor act: a read of 4 KiB costs ${maps} maps and ${commands} commands to the IOMMU. Costs grow with requests and segments, not with bytes.`;
    },
    source: '[linux v6.1 drivers/iommu/dma-iommu.c __iommu_dma_unmap]',
  },
  {
    id: 'deferred-invalidation',
    severity: 'note',
    when: ({ path, run }) => path === 'viommu' && run?.deferral !== undefined,
    text: () =>
      'Invalidation is deferred: a buffer that was unmapped stays in reach of the device until one invalidation serves many. iommu.strict=1 makes each unmap hold at once, at a command each.',
    source: '[linux v6.1 drivers/iommu/dma-iommu.c queue_iova]',
  },
  {
    id: 'iommu-default',
    severity: 'note',
    when: ({ path, machine }) =>
      path === 'viommu' &&
      machine.viommu === 'intel-iommu' &&
      !/\bintel_iommu=on\b/.test(machine.kernelParameters),
    text: () =>
      'The kernel parameters do not have intel_iommu=on: a kernel that was built to leave VT-d off by default uses physical addresses instead, and the IOMMU lets them pass.',
    source: '[linux v6.1 drivers/iommu/intel/iommu.c intel_iommu_setup]',
  },
  {
    id: 'no-room',
    severity: 'error',
    when: ({ run }) => /no room on the bus/.test(run?.report.data.firstFailure ?? ''),
    text: (context) =>
      `Reads that do not fit the window of ${formatSize(windowSize(context))} never go through: only those whose cost is shown do.`,
    source: '[linux v6.1 arch/powerpc/kernel/iommu.c iommu_range_alloc]',
  },
  {
    id: 'mismatched',
    severity: 'error',
    when: ({ path }) => path === 'mismatched',
    text: () =>
      'The guest maps buffers through the bus, but the device was not told (iommu_platform=off) and takes the addresses for physical ones: I/O fails, or goes to the wrong memory.',
    source: '[qemu v7.2 hw/virtio/virtio-bus.c virtio_bus_device_plugged]',
  },
  {
    id: 'small-window',
    severity: 'warning',
    when: (context) => isWindow(context) && windowSize(context) < SMALL_WINDOW,
    text: (context) =>
      `The window is only ${formatSize(windowSize(context))}: a request that finds no room in it is tried again for ever ("iommu_alloc failed" fills the log, and no I/O error is reported).`,
    source: '[linux v6.1 drivers/block/virtio_blk.c virtblk_fail_to_queue]',
  },
  {
    id: 'vhost-iotlb-thrash',
    severity: 'warning',
    when: (context) => hasIotlb(context) && (isWindow(context) || context.path === 'viommu'),
    text: () =>
      'vhost with an IOTLB and a mapping per buffer: each buffer is a miss (a message to QEMU and back, all queues locked) and each unmap an invalidation. Users report hundreds of MB/s falling below 1 MB/s. Without vhost the same path is slow, not dead.',
    source: '[linux v6.1 drivers/vhost/vhost.c vhost_iotlb_miss]',
  },
  {
    id: 'vhost-iotlb-entries',
    severity: 'warning',
    when: (context) =>
      hasIotlb(context) &&
      context.path === 'second-window' &&
      context.machine.memory / (16 * MIB) > VHOST_IOTLB_ENTRIES,
    text: ({ machine }) =>
      `vhost keeps ${VHOST_IOTLB_ENTRIES} translations of 16 MiB each (32 GiB): this guest has ${formatSize(machine.memory)}, so old ones are dropped and asked for again. Raise vhost's max_iotlb_entries.`,
    source: '[linux v6.1 drivers/vhost/vhost.c vhost_iotlb_alloc]',
  },
  {
    id: 'vhost-iotlb-warm-up',
    severity: 'note',
    when: (context) =>
      hasIotlb(context) &&
      context.path === 'second-window' &&
      context.machine.memory / (16 * MIB) <= VHOST_IOTLB_ENTRIES,
    text: () =>
      'vhost asks for each 16 MiB page once, at its first use; after that the IOTLB costs nothing.',
    source: '[qemu v7.2 hw/virtio/vhost.c vhost_device_iotlb_miss]',
  },
  {
    id: 'vhost-flag-without-iommu',
    severity: 'note',
    when: (context) =>
      isVhost(context) && context.flag && !hasIommu(context.machine, context.device),
    text: ({ device }) =>
      device.driver.includes('vsock')
        ? 'vhost takes bit 33 to mean that an IOTLB is set up. QEMU hides the bit where there is no IOMMU; a VMM that offers it and sets none up gets -EFAULT from vhost.'
        : 'Harmless here: QEMU hides bit 33 from vhost where there is no IOMMU, so there is no IOTLB. QEMU before 5.0 did not, and vhost was about ten times slower.',
    source: '[qemu v7.2 hw/virtio/vhost.c vhost_dev_has_iommu]',
  },
  {
    id: 'flag-without-iommu',
    severity: 'note',
    when: (context) =>
      context.path === 'no-iommu' && context.flag && !hasIommu(context.machine, context.device),
    text: () =>
      'iommu_platform=on is harmless without an IOMMU: the addresses are the same as without it. It costs nothing per buffer; only drivers that do not know bit 33 lose the device.',
    source: '[linux v6.1 kernel/dma/mapping.c dma_go_direct]',
  },
  {
    id: 'unused-iommu',
    severity: 'warning',
    when: ({ machine, device, path }) =>
      machine.platform !== 'pseries' &&
      hasIommu(machine, device) &&
      (path === 'physical' || path === 'no-iommu'),
    text: ({ machine, flag }) =>
      flag
        ? `There is an IOMMU (${machine.viommu ?? ''}), and the guest has it pass this device through: it gives no protection from this device.`
        : `There is an IOMMU (${machine.viommu ?? ''}), and this device goes past it: it gives no protection from this device. Without iommu_platform=on guest user space cannot have it either (VFIO).`,
    source: '[qemu v7.2 hw/virtio/virtio-bus.c virtio_bus_device_plugged]',
  },
  {
    id: 'all-memory',
    severity: 'note',
    when: ({ path, machine }) =>
      path === 'physical' ||
      path === 'no-iommu' ||
      (path === 'bounced' && machine.confidential === undefined),
    text: ({ machine }) =>
      `The device, and who works its queues, can read and write all ${formatSize(machine.memory)} of the guest; nothing that the guest does limits it.`,
    source: '[qemu v7.2 hw/virtio/virtio-bus.c virtio_bus_device_plugged]',
  },
  {
    id: 'no-protection',
    severity: 'note',
    when: ({ path }) => path === 'second-window',
    text: () =>
      'The second window maps all of memory for reading and writing: no hypercalls, and no protection either.',
    source: '[linux v6.1 arch/powerpc/platforms/pseries/iommu.c tce_setrange_multi_pSeriesLP]',
  },
  {
    id: 'bounce-limits',
    severity: 'warning',
    when: ({ path }) => path === 'bounced' || path === 'second-window-bounced',
    text: ({ run }) =>
      `Every byte is copied: twice for a read, once for a write. One mapping is 256 KiB at most, whatever the size of the pool; the pool has ${formatSize(run?.bouncePool ?? 0)} ("swiotlb buffer is full" when it does not suffice; swiotlb=SLOTS, of 2 KiB each, makes it larger).`,
    source: '[linux v6.1 kernel/dma/swiotlb.c swiotlb_tbl_map_single]',
  },
  {
    id: 'driver-must-accept',
    severity: 'note',
    when: ({ flag, path }) => flag && path !== 'qemu-refuses' && path !== 'refused',
    text: () =>
      'A driver that does not accept bit 33 gets no device: QEMU does not let FEATURES_OK stick. This holds for firmware and for Windows drivers, too; what is said about the guest here is said of Linux.',
    source: '[qemu v7.2 hw/virtio/virtio.c virtio_validate_features]',
  },
];

/** In the order of their weight. */
export function risksOf(context: AdviceContext): Risk[] {
  return RULES.filter(({ when }) => when(context)).map(({ id, severity, text, source }) => ({
    id,
    severity,
    text: text(context),
    source,
  }));
}
