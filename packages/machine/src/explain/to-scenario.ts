/** The scenario of a machine that was described: what of each platform the model has, and what not. */
import { formatSize } from '@pinhole/base';
import { findKernelProfile } from '@pinhole/guest';
import { parseScenario } from '../scenario.js';
import type { Scenario } from '../scenario-config.js';
import { ExplainError } from './errors.js';
import type { ConfidentialKind, DeviceFacts, MachineFacts, PlatformId } from './facts.js';
import { hasIommu } from './qemu-steps.js';

/** The reads that are counted. Bytes. */
export const READ_SIZES: readonly number[] = [4096, 65536, 2 ** 20];

/** What of a machine an answer is asked for. */
export interface ModelQuestion {
  readonly machine: MachineFacts;
  readonly device: DeviceFacts;
  readonly kernel: string;
  readonly iommuPlatform: boolean;
  /** Of a guest of Xen: grants are its bus addresses. */
  readonly grants: boolean;
  readonly qemu: '7.2' | '10.0';
  /** `path=value`, as `--set` has it. */
  readonly set: readonly string[];
}

/** What the model has of a platform. */
interface PlatformModel {
  /** As `machine.arch` has it. */
  readonly arch: string;
  /** What `guest.secure` stands for. */
  readonly secure: readonly ConfidentialKind[];
  /** Machine types that it stands for, and its own name, where it is not the only one. */
  readonly inPlaceOf?: { readonly types: RegExp; readonly name: string };
  /** Bytes of memory that its machines can have, where a path does not depend on them. */
  readonly memory?: { readonly min: number; readonly max: number };
  /** Keys of `machine` that only it has. */
  readonly machine: (question: ModelQuestion) => Readonly<Record<string, unknown>>;
  /** Why there is no such machine. */
  readonly missing?: (question: ModelQuestion) => string | undefined;
}

const MIB = 2 ** 20;
const GIB = 2 ** 30;
/** Where memory starts. [qemu v7.2 hw/arm/virt.c base_memmap VIRT_MEM] */
const ARM_RAM = 0x4000_0000n;

/** Names of emulated IOMMUs on command lines and in device trees, by the model's. */
const IOMMU_NAMES: Readonly<Record<string, string>> = {
  'intel-iommu': 'intel-iommu',
  'virtio-iommu': 'virtio-iommu',
  'virtio-iommu-pci': 'virtio-iommu',
  'virtio,iommu': 'virtio-iommu',
  'virtio,pci-iommu': 'virtio-iommu',
  smmuv3: 'smmuv3',
  'arm-smmuv3': 'smmuv3',
  'arm,smmu-v3': 'smmuv3',
};

const iommuOf = ({ machine, device }: ModelQuestion): string =>
  hasIommu(machine, device) ? (IOMMU_NAMES[machine.viommu ?? ''] ?? 'none') : 'none';

// A device without bit 33 goes past any IOMMU, also one that is not known.
const unknownIommu = (question: ModelQuestion): string | undefined => {
  const { machine, device, iommuPlatform } = question;
  const isKnown = !hasIommu(machine, device) || iommuOf(question) !== 'none';
  return isKnown || !iommuPlatform ? undefined : `the model does not have ${machine.viommu ?? ''}`;
};

const PLATFORM_MODELS: Readonly<Record<PlatformId, PlatformModel | string>> = {
  pseries: {
    arch: 'pseries',
    secure: ['pef'],
    machine: ({ machine, device }) => {
      const bridge = machine.bridges.find(({ index }) => index === device.bridge);
      const { index: _index, ...options } = bridge ?? { index: 0 };
      const tceHandler = machine.accel === 'kvm' ? 'kvm' : 'qemu';
      return { maxMemory: machine.maxMemory, type: machine.machineType, tceHandler, ...options };
    },
  },
  x86: {
    arch: 'x86-64',
    secure: ['sev', 'tdx'],
    inPlaceOf: { types: /^(pc$|pc-i440fx|microvm)/, name: 'q35' },
    memory: { min: 256 * MIB, max: 512 * GIB },
    machine: (question) => ({ iommu: iommuOf(question) }),
    missing: unknownIommu,
  },
  arm64: {
    arch: 'arm64',
    secure: ['cca', 'pkvm'],
    memory: { min: 256 * MIB, max: 2 ** 40 },
    machine: (question) => ({ iommu: iommuOf(question), dmaRanges: rangesOf(question) }),
    missing: (question) =>
      rangesOf(question)?.length === 0
        ? 'its dma-ranges show nothing of the memory that a machine of the model has, which starts at 1 GiB'
        : unknownIommu(question),
  },
  s390x: {
    arch: 's390x',
    secure: ['s390-pv'],
    memory: { min: 256 * MIB, max: 2 ** 40 },
    machine: () => ({}),
    // [qemu hw/s390x/s390-pci-bus.c s390_pci_dma_iommu]
    missing: ({ device, iommuPlatform }) =>
      device.transport === 'pci' && iommuPlatform
        ? "the model does not have s390x's PCI, whose devices are behind an IOMMU of their own: virtio-ccw only"
        : undefined,
  },
  xen: {
    arch: 'xen',
    secure: [],
    memory: { min: 256 * MIB, max: 3 * GIB },
    machine: ({ grants }) => ({ settings: { grants } }),
  },
  powernv: 'the model does not have powernv machines',
};

/**
 * Why no scenario says what this machine does; `undefined`: {@link toScenario} makes one.
 */
export function whyNoScenario(question: ModelQuestion): string | undefined {
  const { machine } = question;
  if (machine.scenario !== undefined) return undefined;
  const model = PLATFORM_MODELS[machine.platform];
  if (typeof model === 'string') return model;
  const kind = machine.confidential?.kind;
  if (kind !== undefined && !model.secure.includes(kind)) {
    return `the model does not have ${kind} guests on ${model.arch}`;
  }
  return model.missing?.(question);
}

/** How the scenario's machine differs from the one that was described, and what is the same for all that. */
export function scenarioNotes(question: ModelQuestion): string[] {
  const { machine, device } = question;
  const model = PLATFORM_MODELS[machine.platform];
  if (typeof model === 'string' || machine.scenario !== undefined) return [];
  const memory = memoryOf(machine, model);
  const { types, name } = model.inPlaceOf ?? {};
  return [
    ...(memory === machine.memory
      ? []
      : [
          `counted with ${formatSize(memory)} of memory, which a machine of the model can have: the path and the counts do not depend on it`,
        ]),
    ...(types?.test(machine.machineType) === true
      ? [
          `counted on ${name} in place of ${machine.machineType}: no IOMMU but the one given is on either`,
        ]
      : []),
    ...(device.transport === 'mmio' ? ['counted with a PCI device in place of virtio-mmio'] : []),
    ...(machine.confidential?.kind === 'cca'
      ? ["counted on a pKVM guest in place of a CCA realm, with a pool that is the device's own"]
      : []),
  ];
}

/**
 * The scenario of a machine with one block device in place of the one asked about.
 * @throws MachineError `E_SCENARIO`; ExplainError `E_KERNEL` where `set` names another kernel.
 */
export function toScenario(question: ModelQuestion): Scenario {
  const { machine, device, kernel, iommuPlatform, qemu, set } = question;
  const given = machine.scenario;
  const model = PLATFORM_MODELS[machine.platform];
  const own =
    given === undefined && typeof model !== 'string'
      ? { arch: model.arch, memory: memoryOf(machine, model), ...model.machine(question) }
      : changedMachine(question);
  const { packed, indirect, eventIdx } = device;
  const document = {
    machine: { ...own, qemu },
    guest: {
      kernel,
      policy: given === undefined ? undefined : policyOf(given),
      secure: given?.guest.secure ?? machine.confidential !== undefined,
      cmdline: machine.kernelParameters,
    },
    devices: [
      { ...given?.devices[0], type: 'virtio-blk', iommuPlatform, packed, indirect, eventIdx },
    ],
    workload: [4096, ...READ_SIZES].map((block, at) => ({
      read: { offset: at * 4096, length: block, block },
    })),
    seed: given?.seed,
  };
  const text = JSON.stringify(document, (_key, value: unknown) =>
    typeof value === 'bigint' ? `0x${value.toString(16)}` : value,
  );
  const scenario = parseScenario(text, { file: 'the machine described', set });
  if (scenario.guest.kernel !== kernel) {
    throw new ExplainError(
      'E_KERNEL',
      `--set guest.kernel: expected the kernel as --kernel ${scenario.guest.kernel}, found it here, where ${kernel} is explained`,
    );
  }
  return scenario;
}

/** Whether a kernel parameter is there: `disable_ddw`, or `swiotlb=force` with its value. */
export function hasParameter(machine: MachineFacts, name: string): boolean {
  return machine.kernelParameters.split(/\s+/).includes(name);
}

// A scenario's machine, with what a fix changes of the facts.
function changedMachine({ machine, grants }: ModelQuestion): Record<string, unknown> {
  const given = machine.scenario;
  if (given === undefined) throw new Error('a machine that the model does not have');
  if (machine.platform !== 'pseries') {
    const { settings } = given.machine;
    return {
      ...given.machine,
      settings: machine.platform === 'xen' ? { ...settings, grants } : settings,
    };
  }
  const { index: _index, ...bridge } = machine.bridges[0] ?? { index: 0 };
  const { maxMemory, machineType } = machine;
  return { ...given.machine, maxMemory, type: machineType, ...bridge };
}

// What its own kernel would do was not asked for: another kernel does what it would do itself.
function policyOf({ guest }: Scenario): string | undefined {
  const isOwn = findKernelProfile(guest.kernel)?.vring.policy === guest.policy;
  return isOwn ? undefined : guest.policy;
}

function memoryOf({ memory }: MachineFacts, model: PlatformModel): number {
  if (model.memory === undefined) return memory;
  const { min, max } = model.memory;
  return Math.min(Math.max(Math.ceil(memory / MIB) * MIB, min), max);
}

// Ranges that move nothing are none; of the others, what shows memory of the model's machine.
function rangesOf({
  machine,
}: ModelQuestion): { cpu: bigint; bus: bigint; size: bigint }[] | undefined {
  const { dmaRanges, memory } = machine;
  if (dmaRanges?.some(({ cpu, bus }) => cpu !== bus) !== true) return undefined;
  const end = ARM_RAM + BigInt(memory);
  return dmaRanges.flatMap(({ cpu, bus, size }) => {
    const from = cpu > ARM_RAM ? cpu : ARM_RAM;
    const to = cpu + size < end ? cpu + size : end;
    return from < to ? [{ cpu: from, bus: bus + from - cpu, size: to - from }] : [];
  });
}
