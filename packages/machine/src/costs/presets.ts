/**
 * The machines that there are constants for. A range that is cited or measured goes from the lowest
 * to the highest figure of its source, and its middle is the geometric mean of the two unless the
 * source has a middle itself. Nothing here is fitted to a figure that docs/COSTS.md checks.
 */
import { nearestName } from '@pinhole/base';
import { MachineError } from '../errors.js';
import type { CostConstant, CostPreset, CostRange, CostStatus } from './types.js';

const constant =
  (status: CostStatus, unit: CostConstant['unit'] = 'ns') =>
  (low: number, mid: number, high: number, source: string): CostConstant => ({
    ...({ low, mid, high } satisfies CostRange),
    unit,
    status,
    source,
  });
const measured = constant('measured');
const cited = constant('cited');
const assumed = constant('assumed');
const measuredRate = constant('measured', 'bytes/s');
const assumedRate = constant('assumed', 'bytes/s');
const citedRate = constant('cited', 'bytes/s');

const BENCH = 'packages/live/test/bench/costs.mjs';
const LINUX_GUEST = 'packages/live/test/bench/support/linux-guest.sh';

/** Of x86-64, where it is cited; elsewhere a guess, and as good as any. */
const REQUEST = [25_000, 48_000, 93_000] as const;
const TRANSFER = [0.39e9, 0.95e9, 2.3e9] as const;

/** What depends more on host and storage than on the guest's architecture. */
const HOST = {
  request: assumed(
    ...REQUEST,
    'as cited for x86-kvm; notifications, a few microseconds there, are in it',
  ),
  transfer: assumedRate(...TRANSFER, 'as cited for x86-kvm'),
  translation: assumed(30, 100, 400, 'address_space_translate and one IOMMU lookup in QEMU'),
  iotlbMiss: assumed(
    5_000,
    20_000,
    100_000,
    'two system calls, two context switches, the BQL and all locks of the virtqueues; no figure was published',
  ),
  iotlbInvalidation: assumed(
    1_000,
    3_000,
    10_000,
    'one write to the vhost device, which takes all locks of the virtqueues; no figure was published',
  ),
  bounce: assumedRate(4e9, 6e9, 10e9, 'memcpy of a server CPU'),
} as const;

/** Where no figure of the architecture's own was found. */
const NOTIFICATIONS = {
  kick: assumed(0, 0, 0, 'part of the request'),
  interrupt: assumed(0, 0, 0, 'part of the request'),
} as const;

/** What an IOMMU that is driven through memory and registers costs its guest. */
const IOMMU_GUEST = cited(
  53,
  262,
  1_300,
  "page tables alone, iommu_map and iommu_unmap of 4 KiB: 53 to 88 ns [iommu list 2025-10-07, message 0-v6-0fb54a1d9850+36b-iommu_pt_jgg@nvidia.com]; the whole DMA API of a HiSilicon server by 8 and 16 threads, a real SMMU's invalidations included: 0.5 to 1.3 us [dma_map_benchmark, linux-kselftest 2020-11-16, message 20201116060848.1848-3-song.bao.hua@hisilicon.com, and linux-kernel 2025-05-16, message 20250516014034.1577549-5-xiaqinxin@huawei.com]",
);

/** PEF's. */
const ULTRACALL = assumed(
  5_000,
  20_000,
  100_000,
  'an ultracall, and a page that leaves secure memory',
);

const POWER9_EXIT =
  'exit from the guest and entry into it: 826 and 324 ns at the shortest, 3542 and 4044 for a guest of one hypercall [linux commit b44bb1b7cbba]';

/** All presets; the first one that names an architecture is its default. */
export const COST_PRESETS: readonly CostPreset[] = [
  {
    id: 'power9-kvm',
    title: 'POWER9, KVM-HV with radix, Linux 5.17 or later',
    architectures: ['pseries'],
    constants: {
      ...HOST,
      kick: cited(1_150, 2_950, 7_590, POWER9_EXIT),
      interrupt: cited(
        1_342,
        1_493,
        1_660,
        'interrupt path on POWER8, before and after [linux commit 123857a70560]',
      ),
      hcallInQemu: assumed(
        2_150,
        5_800,
        15_600,
        `an exit as for a kick, and 1 to 8 us in QEMU, a guess`,
      ),
      hcallInKvm: cited(
        1_150,
        2_950,
        7_590,
        `${POWER9_EXIT}; since [linux commit 9dc2babc185e] POWER9 answers none in real mode`,
      ),
      tceInQemu: assumed(20, 60, 300, 'one put_tce_emu, as measured for power9-tcg'),
      tceInKvm: assumed(20, 60, 300, 'as QEMU takes'),
      sharePage: ULTRACALL,
    },
  },
  {
    id: 'power9-tcg',
    title: 'POWER9 emulated by QEMU 7.2 (TCG) on two busy cores of an AMD EPYC, Linux 6.1 as guest',
    architectures: ['pseries'],
    constants: {
      request: measured(
        139_000,
        407_000,
        803_000,
        `${LINUX_GUEST}: lowest, middle and highest of five fits of request + bytes / transfer to direct reads of 64 KiB and 1 MiB, flag off`,
      ),
      transfer: measuredRate(0.84e9, 2e9, 4.7e9, 'the same five fits'),
      kick: measured(0, 0, 0, 'part of the request as it was measured'),
      interrupt: measured(0, 0, 0, 'part of the request as it was measured'),
      hcallInQemu: measured(
        239,
        1_309,
        6_364,
        `H_PUT_TCE, bare, without the guest's code around it: best, median and 90 % of ${BENCH}`,
      ),
      tceInQemu: measured(
        10,
        35,
        76,
        `H_PUT_TCE_INDIRECT and H_STUFF_TCE of 512 less those of 1: best, median and 90 % of ${BENCH}`,
      ),
      sharePage: ULTRACALL,
      translation: measured(
        0,
        33,
        102,
        `CPU time that each further segment takes behind a second window, less the same with the flag off; 10 %, median and 90 % of four runs of ${BENCH}, of which the lowest are noise below 0`,
      ),
      iotlbMiss: measured(
        25_389,
        67_729,
        145_707,
        `vhost-user: from the backend's message to QEMU's answer, 4000 times: ${BENCH}`,
      ),
      iotlbInvalidation: measured(
        52_136,
        61_621,
        67_956,
        `vhost-user: H_PUT_TCE that unmaps less one that maps, 240 times: ${BENCH}`,
      ),
      bounce: HOST.bounce,
    },
  },
  {
    id: 'x86-kvm',
    title: 'x86-64, KVM at 2 to 4 GHz',
    architectures: ['x86-64'],
    constants: {
      ...HOST,
      request: cited(
        ...REQUEST,
        'a request of 4 KiB, one at a time, less its data, with kick and interrupt: 26.8 to 29.7 us on an Optane SSD, by 4 jobs 134,562 to 149,426 a second [linux-kernel 2021-06-03, message YLj1kUiTTlLm5HwU@stefanha-x1.localdomain]; 95 us on another SSD, 10,500 a second [qemu commit bdd6a90a9e5f]',
      ),
      transfer: citedRate(
        ...TRANSFER,
        '512 KiB, one at a time: 745 to 1980 a second [qemu commit bdd6a90a9e5f]; 128 KiB by 4 jobs: 16,154 to 17,680 in all, the limit of that disk [message YLj1kUiTTlLm5HwU@stefanha-x1.localdomain]',
      ),
      kick: cited(0, 0, 0, 'part of the request as it was measured'),
      interrupt: cited(0, 0, 0, 'part of the request as it was measured'),
      bounce: measuredRate(
        5.7e9,
        15e9,
        53e9,
        `one CPU of an AMD EPYC: copies of 4 KiB and 64 KiB of memory not touched for a while, and of 4 KiB just copied: ${BENCH}; swiotlb's search for a slot is left out`,
      ),
      iommuMap: IOMMU_GUEST,
      iommuCommand: assumed(
        1_000,
        3_000,
        10_000,
        'KVM_RUN and back takes 2528 cycles on AMD [lkml.iu.edu/hypermail/linux/kernel/2012.2/00527.html]; what QEMU does then is a guess',
      ),
    },
  },
  {
    id: 'arm64-kvm',
    title: 'arm64, KVM, from a Kunpeng 920 to a Phytium S2500',
    architectures: ['arm64'],
    constants: {
      ...HOST,
      kick: cited(
        638,
        1_171,
        2_150,
        'mmio_read_vgic, an access that the host kernel answers [kvm-unit-tests micro-bench on both, kvm list 2023-11-01, message ZUIwt6jWBN037XVf@monolith]',
      ),
      interrupt: cited(
        2_162,
        3_442,
        5_481,
        'lpi, an MSI from its cause to its handler [same message]',
      ),
      iommuMap: IOMMU_GUEST,
      iommuCommand: cited(
        2_301,
        4_083,
        7_244,
        'mmio_read_user, an access that QEMU answers [same message]; what an IOMMU does then is left out',
      ),
      sharePage: assumed(
        400,
        2_000,
        10_000,
        'an hvc takes 408 ns [same message]; page tables of stage 2 are a guess',
      ),
    },
  },
  {
    id: 's390x-kvm',
    title: 'IBM Z, KVM; no figure of such a machine was found',
    architectures: ['s390x'],
    constants: {
      ...HOST,
      ...NOTIFICATIONS,
      sharePage: assumed(400, 2_000, 10_000, 'an ultravisor call'),
    },
  },
  {
    id: 'xen',
    title: 'Xen, the device in another domain; no figure of virtio on Xen was found',
    architectures: ['xen'],
    constants: {
      ...HOST,
      ...NOTIFICATIONS,
      iommuMap: assumed(50, 200, 1_000, 'an entry of the grant table, without an exit'),
      translation: assumed(
        1_000,
        5_000,
        20_000,
        'a grant mapped and unmapped by hypercalls of the other domain, whose TLBs are flushed [lkml 2012-10-18, "Persistent grant maps for xen blkdrivers", lkml.iu.edu/hypermail/linux/kernel/1210.2/01917.html]',
      ),
    },
  },
];

/** The preset of that name. @throws MachineError `E_COSTS` */
export function findCostPreset(id: string): CostPreset {
  const found = COST_PRESETS.find((preset) => preset.id === id);
  if (found !== undefined) return found;
  const names = COST_PRESETS.map((preset) => preset.id);
  const near = nearestName(id, names);
  const hint = near === undefined ? '' : `; did you mean ${near}?`;
  throw new MachineError('E_COSTS', [
    { path: '', message: `costs: expected ${names.join(', ')}; found "${id}"${hint}` },
  ]);
}

/** The preset of an architecture by default; `undefined` for one that Pinhole does not have. */
export function defaultCostPreset(architecture: string): CostPreset | undefined {
  return COST_PRESETS.find(({ architectures }) => architectures.includes(architecture));
}
