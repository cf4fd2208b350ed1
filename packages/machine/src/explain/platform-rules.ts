/** Platforms other than pseries: answered from rules, without a run of the model. */
import { findKernelProfile } from '@pinhole/guest';
import type { Answer, ExplanationStep, PathId } from './explanation.js';
import type { ConfidentialKind, DeviceFacts, MachineFacts } from './facts.js';
import { hasParameter, READ_SIZES } from './model-run.js';
import { hasIommu } from './qemu-steps.js';

/** What a rule looks at. */
export interface RuleQuestion {
  readonly machine: MachineFacts;
  readonly device: DeviceFacts;
  readonly flag: boolean;
  /** Such as `linux-6.12`. */
  readonly kernel: string;
}

/** One row: when it holds, and what then happens. The first that holds decides. */
interface PlatformRule {
  readonly id: string;
  readonly when: (question: RuleQuestion) => boolean;
  readonly path: PathId;
  readonly steps: (question: RuleQuestion) => readonly Omit<ExplanationStep, 'side'>[];
  /** How often each byte of a read is copied. */
  readonly copiesOfRead: number;
  readonly reach: string;
}

const VRING = '[linux v6.1 drivers/virtio/virtio_ring.c vring_use_dma_api]';
const FEATURES_OK = '[linux v6.1 drivers/virtio/virtio.c virtio_features_ok]';

/** Guests whose kernel can refuse a device without bit 33, by the platform that its profile names. */
const REFUSING: Readonly<Partial<Record<ConfidentialKind, 's390x' | 'x86-64'>>> = {
  's390-pv': 's390x',
  sev: 'x86-64',
  tdx: 'x86-64',
};

const GUESTS: Readonly<Record<ConfidentialKind, string>> = {
  pef: 'a PEF guest',
  sev: 'an SEV guest',
  tdx: 'a TDX guest',
  's390-pv': 'a protected guest (s390 Secure Execution)',
  cca: 'a CCA realm',
};

const SHARE: Readonly<Record<ConfidentialKind, string>> = {
  pef: '[linux v6.1 arch/powerpc/platforms/pseries/svm.c svm_swiotlb_init]',
  sev: '[linux v6.1 arch/x86/mm/mem_encrypt_amd.c sev_setup_arch]',
  tdx: '[linux v6.1 arch/x86/coco/core.c cc_platform_has]',
  's390-pv': '[linux v6.1 arch/s390/mm/init.c pv_init]',
  cca: '[linux commit fbf979a01375]',
};

function isRefused({ machine, device, flag, kernel }: RuleQuestion): boolean {
  const { confidential } = machine;
  const platform = confidential && REFUSING[confidential.kind];
  const rule = findKernelProfile(kernel)?.restrictedAccess;
  if (platform === undefined || rule?.platforms.includes(platform) !== true) return false;
  return !flag || device.mode === 'legacy';
}

function usesBounce({ machine, flag }: RuleQuestion): boolean {
  return flag && (machine.confidential !== undefined || hasParameter(machine, 'swiotlb=force'));
}

const flagStep = (flag: boolean): Omit<ExplanationStep, 'side'> => ({
  text: flag ? 'virtio uses the DMA API' : 'virtio uses physical addresses, past the DMA API',
  fact: flag ? 'bit 33 was offered and accepted' : 'bit 33 was not offered',
  source: VRING,
});

/** In the order of asking. */
const PLATFORM_RULES: readonly PlatformRule[] = [
  {
    id: 'refused',
    when: isRefused,
    path: 'refused',
    copiesOfRead: 0,
    reach: 'nothing: there is no driver',
    steps: ({ machine, device }) => [
      {
        text: `the driver gives up: "device must provide ${device.mode === 'legacy' ? 'VIRTIO_F_VERSION_1' : 'VIRTIO_F_ACCESS_PLATFORM'}"`,
        fact: `${GUESTS[machine.confidential?.kind ?? 'sev']}, and bit 33 was not offered`,
        source: FEATURES_OK,
      },
    ],
  },
  {
    id: 'private-memory',
    when: ({ machine, flag }) => machine.confidential !== undefined && !flag,
    path: 'unreachable',
    copiesOfRead: 0,
    reach: 'addresses of all memory, but none of what is private in clear',
    steps: ({ machine }) => [
      {
        text: 'this kernel does not refuse such a device',
        fact: GUESTS[machine.confidential?.kind ?? 'sev'],
        source: FEATURES_OK,
      },
      flagStep(false),
      {
        text: 'the device gets addresses of private pages, which it cannot read',
        fact: 'nothing was shared',
        source: VRING,
      },
    ],
  },
  {
    id: 'bounced',
    when: usesBounce,
    path: 'bounced',
    copiesOfRead: 2,
    reach: 'the bounce pool and the rings; nothing else is shared',
    steps: ({ machine }) => [
      flagStep(true),
      {
        text: 'every buffer is copied to a shared pool: in when it is mapped (reads, too), out when it is unmapped',
        fact:
          machine.confidential === undefined ? 'swiotlb=force' : GUESTS[machine.confidential.kind],
        source:
          machine.confidential === undefined
            ? '[linux v6.1 kernel/dma/direct.h dma_direct_map_page]'
            : SHARE[machine.confidential.kind],
      },
    ],
  },
  {
    id: 'viommu',
    when: (question) =>
      question.flag &&
      hasIommu(question.machine, question.device) &&
      !/\b(iommu\.passthrough=1|iommu=pt|intel_iommu=off|amd_iommu=off)\b/.test(
        question.machine.kernelParameters,
      ),
    path: 'viommu',
    copiesOfRead: 0,
    reach: 'what is mapped at the time: the rings and buffers in flight',
    steps: ({ machine }) => [
      flagStep(true),
      {
        text: `dma-iommu gives out bus addresses: a page table entry written per page mapped, and an invalidation that QEMU has to hear of (${machine.viommu ?? ''})`,
        fact:
          machine.platform === 'x86'
            ? `${machine.viommu ?? ''}; a kernel that does not switch it on (intel_iommu=on) uses physical addresses instead`
            : (machine.viommu ?? ''),
        source: '[linux v6.1 kernel/dma/mapping.c dma_map_page_attrs]',
      },
    ],
  },
  {
    id: 'bus-offset',
    when: ({ machine, flag }) =>
      flag && machine.dmaRanges?.some(({ cpu, bus }) => cpu !== bus) === true,
    path: 'bus-offset',
    copiesOfRead: 0,
    reach: 'all of memory that dma-ranges shows',
    steps: ({ machine }) => [
      flagStep(true),
      {
        text: 'bus addresses are physical ones less the offset of their range',
        fact: (machine.dmaRanges ?? [])
          .map(
            ({ cpu, bus }) =>
              `dma-ranges: 0x${cpu.toString(16)} is 0x${bus.toString(16)} on the bus`,
          )
          .join('; '),
        source: '[linux v6.1 drivers/of/device.c of_dma_configure_id]',
      },
    ],
  },
  {
    id: 'bypass-window',
    when: ({ machine, flag }) => machine.platform === 'powernv' && flag,
    path: 'bypass-window',
    copiesOfRead: 0,
    reach: 'all of memory',
    steps: () => [
      flagStep(true),
      {
        text: 'the host bridge maps all of memory at 2^59 once; UNVERIFIED: not held against a recording',
        fact: 'powernv',
        source: '',
      },
    ],
  },
  {
    id: 'no-iommu',
    when: ({ flag }) => flag,
    path: 'no-iommu',
    copiesOfRead: 0,
    reach: 'all of memory',
    steps: ({ machine, device }) => [
      flagStep(true),
      {
        text: 'the DMA API maps directly: bus addresses are physical addresses, nothing is done per buffer',
        fact:
          machine.viommu === undefined
            ? 'no IOMMU in this machine'
            : device.isPastViommu || device.transport !== 'pci'
              ? `${machine.viommu} does not see this device`
              : `${machine.viommu}, but passed through: ${machine.kernelParameters}`,
        source: '[linux v6.1 kernel/dma/mapping.c dma_go_direct]',
      },
    ],
  },
  {
    id: 'physical',
    when: () => true,
    path: 'physical',
    copiesOfRead: 0,
    reach: 'all of memory',
    steps: () => [flagStep(false)],
  },
];

/** The part of an answer that a rule gives. */
export function applyRule(
  question: RuleQuestion,
): Pick<Answer, 'cost' | 'reach'> & { path: PathId; steps: ExplanationStep[] } {
  const rule = PLATFORM_RULES.find(({ when }) => when(question)) as PlatformRule;
  const steps = rule.steps(question).map((step) => ({ side: 'guest' as const, ...step }));
  const isCounted = rule.path !== 'refused' && rule.path !== 'unreachable';
  return {
    path: rule.path,
    steps,
    reach: {
      bytes: rule.reach === 'all of memory' ? question.machine.memory : null,
      text: rule.reach,
    },
    cost: isCounted
      ? {
          origin: 'rule',
          rows: READ_SIZES.map((size) => ({
            size,
            requests: null,
            segments: null,
            hcalls: 0,
            translations: rule.path === 'viommu' ? null : 0,
            bytesCopied: size * rule.copiesOfRead,
          })),
          times: null,
          notes: costNotes(rule),
        }
      : null,
  };
}

function costNotes(rule: PlatformRule): string[] {
  if (rule.path === 'viommu') {
    return [
      'an emulated IOMMU costs accesses to its registers and queues rather than hypercalls; they are not counted here',
    ];
  }
  return rule.copiesOfRead > 0
    ? ['data only; request headers and status bytes are copied as well', 'a write is copied once']
    : [];
}
