import type { Outcome } from './outcome.js';

/** IOMMUs by QEMU's names; which machine can have which is the architecture's to say. */
export const IOMMUS = ['none', 'intel-iommu', 'virtio-iommu', 'smmuv3'] as const;

/** A disk transfer of a workload, cut into direct I/Os. Bytes; multiples of 512. */
export interface Transfer {
  readonly offset: number;
  readonly length: number;
  readonly block: number;
}

/** One step of a workload. */
export type WorkloadOperation =
  | { readonly read: Transfer }
  | { readonly write: Transfer & { readonly fill?: number | undefined } };

/** A PCI host bridge of a pseries machine; what is left out is the machine type's. */
export interface HostBridgeConfig {
  readonly ddw?: boolean | undefined;
  readonly dmaWindowSize: number;
  readonly dmaWindowAddress?: bigint | undefined;
  readonly dma64WindowAddress?: bigint | undefined;
  readonly pageSizes?: bigint | undefined;
  readonly limitedAddressMode: boolean;
}

/** The part of a scenario that describes hardware. Sizes in bytes. */
export interface MachineConfig extends HostBridgeConfig {
  readonly arch: string;
  readonly memory: number;
  readonly maxMemory?: number | undefined;
  readonly cpus: 1;
  readonly qemu: '7.2' | '10.0';
  readonly type: string;
  readonly tceHandler: 'qemu' | 'kvm';
  /** With `kvm`: the host has KVM_CAP_SPAPR_TCE_VFIO, and vhost hears of no unmap. */
  readonly kvmTceVfio: boolean;
  readonly hostBridges: readonly (HostBridgeConfig & { readonly index: number })[];
  readonly vio: readonly {
    readonly reg: number;
    readonly name: string;
    readonly windowSize: number;
  }[];
  readonly dmaRanges?:
    | readonly { readonly cpu: number; readonly bus: bigint; readonly size: number }[]
    | undefined;
  readonly iommu: (typeof IOMMUS)[number];
  /** What an architecture from elsewhere asks for; checked by its `build`. */
  readonly settings: Readonly<Record<string, string | number | boolean>>;
}

/** The part that describes the kernel. */
export interface GuestConfig {
  readonly kernel: string;
  readonly policy: string;
  readonly secure: boolean;
  readonly cmdline: string;
}

/** One device. */
export interface DeviceConfig {
  readonly type: 'virtio-blk';
  readonly iommuPlatform: boolean;
  readonly packed: boolean;
  readonly indirect: boolean;
  readonly eventIdx: boolean;
  readonly queues: number;
  readonly vhost: 'off' | 'on';
  /** As the file has it: relative to the scenario. */
  readonly image?: string | undefined;
}

/** A scenario, checked and complete. */
export interface Scenario {
  readonly title: string;
  readonly machine: MachineConfig;
  readonly guest: GuestConfig;
  /** Exactly one. */
  readonly devices: readonly DeviceConfig[];
  readonly workload: readonly WorkloadOperation[];
  /** How the run must end; a run that ends otherwise has failed. */
  readonly expect?: Outcome | undefined;
  readonly seed: number;
}
