import type { Scenario } from '../scenario-config.js';
import type { VirtioTransport } from './virtio-models.js';

/** Platforms that inputs can describe. */
export type PlatformId = 'pseries' | 'x86' | 's390x' | 'arm64' | 'xen' | 'powernv';

/** What makes the guest's memory private. */
export type ConfidentialKind = 'pef' | 'sev' | 'tdx' | 's390-pv' | 'cca' | 'pkvm';

/** A PCI host bridge of a pseries machine, as its options or its device tree have it. */
export interface BridgeFacts {
  readonly index: number;
  /** Dynamic DMA windows; `undefined`: as the machine type has it. */
  readonly ddw?: boolean | undefined;
  readonly dmaWindowSize?: number | undefined;
  readonly dmaWindowAddress?: bigint | undefined;
  readonly dma64WindowAddress?: bigint | undefined;
  readonly pageSizes?: bigint | undefined;
  /** It has `ibm,ddw-extensions` index 3. */
  readonly limitedAddressMode?: boolean | undefined;
}

/** Something that is known of a machine, and from where. */
export interface Fact {
  readonly what: string;
  readonly value: string;
  /** Such as `-m`, `/rtas ibm,lrdr-capacity`, `line 249`, `default`. */
  readonly from: string;
}

/** What an input says about a machine. */
export interface MachineFacts {
  readonly platform: PlatformId;
  readonly machineType: string;
  /** Bytes. */
  readonly memory: number;
  readonly maxMemory?: number | undefined;
  readonly cpus: number;
  readonly accel: 'tcg' | 'kvm' | 'other';
  /** The QEMU that this must be; `undefined`: 7.2 is assumed, and 10.0 looked at. */
  readonly qemu?: '7.2' | '10.0' | undefined;
  /** pseries only; the first is bridge 0. */
  readonly bridges: readonly BridgeFacts[];
  /** An emulated IOMMU of another platform: `intel-iommu`, `smmuv3`. */
  readonly viommu?: string | undefined;
  readonly confidential?: { readonly kind: ConfidentialKind; readonly from: string } | undefined;
  /** The guest kernel's own parameters. */
  readonly kernelParameters: string;
  /** Where the bus shows memory, if not where it is: of an Arm device tree. */
  readonly dmaRanges?: readonly { cpu: bigint; bus: bigint; size: bigint }[] | undefined;
  /** Of a guest of Xen: grants are its bus addresses; `undefined`: nothing says so. */
  readonly grants?: boolean | undefined;
  /** The scenario that says this: what of it is not here is taken from it. */
  readonly scenario?: Scenario | undefined;
  /** QEMU does not start with this. */
  readonly refusals: readonly Refusal[];
  readonly facts: readonly Fact[];
}

/** QEMU's own words. */
export interface Refusal {
  readonly message: string;
  readonly source: string;
}

/** What an input says about one virtio device. */
export interface DeviceFacts {
  /** For people: its id, or its driver and a number. */
  readonly name: string;
  readonly driver: string;
  readonly kind: string;
  readonly transport: VirtioTransport;
  /** Where it is: `bus pci.0 of host bridge 0`. */
  readonly place: string;
  /** Index of its host bridge among `bridges`; 0 elsewhere. */
  readonly bridge: number;
  /** The platform's IOMMU, if it has one, does not see it. */
  readonly isPastViommu: boolean;
  /** `undefined`: nothing says so. */
  readonly mode: 'modern' | 'transitional' | 'legacy' | undefined;
  readonly modeBecause: string;
  /** `VIRTIO_F_ACCESS_PLATFORM`; `undefined`: nothing says so, and both answers are given. */
  readonly iommuPlatform: boolean | undefined;
  readonly flagBecause: string;
  readonly refusal?: Refusal | undefined;
  readonly packed: boolean;
  readonly indirect: boolean;
  readonly eventIdx: boolean;
  /** As given; `undefined`: the device's default. */
  readonly queues?: number | undefined;
  /** Who works the queues. */
  readonly worker: 'qemu' | 'vhost' | 'vhost-user' | 'vhost-vdpa';
  /** PCI ATS, which lets vhost hear of translations one by one. */
  readonly ats: boolean;
}

/** A word of the input that nothing was made of. */
export interface NotUnderstood {
  /** As written, shortened. */
  readonly text: string;
  readonly effect: 'none' | 'may-matter';
  readonly why: string;
}
