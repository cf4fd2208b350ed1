/**
 * What a guest's console says about its DMA: one interface a fact, told apart by `kind`. What the
 * kernel prints as 64 bits is `bigint`.
 */

/** What every fact has. */
export interface ConsoleFactBase {
  /** From 1. A console that prints dmesg at the end says the same twice, with the same `t`. */
  readonly line: number;
  /** Microseconds since boot, where the line has them. */
  readonly t?: number;
}

/** Which kernel boots. */
export interface KernelFact extends ConsoleFactBase {
  readonly kind: 'kernel';
  /** As of `uname -r`. */
  readonly release: string;
  /** Builder, compiler, number and date of the build. */
  readonly build: string;
}

/** The kernel's command line. */
export interface CommandLineFact extends ConsoleFactBase {
  readonly kind: 'command-line';
  readonly commandLine: string;
}

/**
 * The size of the kernel's pages. No kernel prints it; it follows from the line of a hash table, which
 * has its size in bytes and as a power of two of pages. [linux v6.12 mm/mm_init.c alloc_large_system_hash]
 */
export interface PageSizeFact extends ConsoleFactBase {
  readonly kind: 'page-size';
  readonly bytes: number;
}

/** How many CPUs run. [linux v6.12 kernel/smp.c smp_init] */
export interface CpusFact extends ConsoleFactBase {
  readonly kind: 'cpus';
  readonly cpus: number;
  readonly nodes: number;
}

/** How much memory the kernel has. A 6.1 on POWER prints 0 as available. */
export interface MemoryFact extends ConsoleFactBase {
  readonly kind: 'memory';
  readonly availableBytes: number;
  readonly totalBytes: number;
}

/** A PCI host bridge, as the firmware or the kernel finds it. */
export interface HostBridgeFact extends ConsoleFactBase {
  readonly kind: 'host-bridge';
  /** Its path in the device tree. */
  readonly path: string;
  /** The unit address; on pseries, the BUID. */
  readonly buid: bigint;
}

/** A PCI function with its ids. */
export interface PciDeviceFact extends ConsoleFactBase {
  readonly kind: 'pci-device';
  readonly source: 'firmware' | 'kernel';
  /** `0000:00:01.0`; without the domain from the firmware. */
  readonly address: string;
  readonly vendor: number;
  readonly device: number;
  /** The bridge that the firmware was listing. */
  readonly buid?: bigint;
  /** As the firmware names it: `virtio [ block ]`. */
  readonly name?: string;
}

/** Which IOMMU group a device is in. */
export interface IommuGroupFact extends ConsoleFactBase {
  readonly kind: 'iommu-group';
  readonly device: string;
  readonly group: number;
}

/** The first TCE table. [linux v6.12 arch/powerpc/kernel/iommu.c iommu_init_table] */
export interface IommuTableFact extends ConsoleFactBase {
  readonly kind: 'iommu-table';
  /** False with `iommu=novmerge`. */
  readonly virtualMerging: boolean;
}

/** What devices get by default. [linux v6.12 drivers/iommu/iommu.c iommu_subsys_init] */
export interface IommuDomainFact extends ConsoleFactBase {
  readonly kind: 'iommu-domain';
  /** `Translated` or `Passthrough`. */
  readonly domain: string;
  readonly fromCommandLine: boolean;
}

/**
 * When the IOMMU forgets what is unmapped: at once (strict), or all of it together, later.
 * [linux v6.12 drivers/iommu/iommu.c iommu_subsys_init]
 */
export interface IommuPolicyFact extends ConsoleFactBase {
  readonly kind: 'iommu-policy';
  readonly isStrict: boolean;
}

/** The answer to ibm,query-pe-dma-window. [linux v6.12 arch/powerpc/platforms/pseries/iommu.c query_ddw] */
export interface DdwQueryFact extends ConsoleFactBase {
  readonly kind: 'ddw-query';
  readonly device: string;
  /** The token of the RTAS call. */
  readonly token: number;
  readonly configAddr: number;
  readonly buid: bigint;
  /** 0 is success. */
  readonly status: number;
  /** In TCEs. Old kernels do not print these three. */
  readonly largestBlock?: bigint;
  /** Bit 0 is 4 KiB, bit 1 64 KiB, bit 2 16 MiB. */
  readonly pageSizes?: number;
  readonly windowsAvailable?: number;
}

/** The answer to ibm,create-pe-dma-window. [linux v6.12 arch/powerpc/platforms/pseries/iommu.c create_ddw] */
export interface DdwCreateFact extends ConsoleFactBase {
  readonly kind: 'ddw-create';
  readonly device: string;
  readonly token: number;
  readonly configAddr: number;
  readonly buid: bigint;
  readonly pageShift: number;
  readonly windowShift: number;
  /** 0 is success; only then do the others mean anything. */
  readonly status: number;
  readonly liobn: number;
  readonly address: bigint;
}

/** ibm,reset-pe-dma-window failed. [linux v6.12 arch/powerpc/platforms/pseries/iommu.c reset_dma_window] */
export interface DdwResetFact extends ConsoleFactBase {
  readonly kind: 'ddw-reset';
  readonly device: string;
  readonly token: number;
  readonly configAddr: number;
  readonly buid: bigint;
  readonly status: number;
}

/** Why there is no second window, or what became of it. [linux v6.12 arch/powerpc/platforms/pseries/iommu.c enable_ddw] */
export interface DdwNoteFact extends ConsoleFactBase {
  readonly kind: 'ddw-note';
  readonly device: string;
  readonly message: string;
}

/** How a device is mapped in the end. [linux v6.12 arch/powerpc/platforms/pseries/iommu.c enable_ddw] */
export interface DirectMappingFact extends ConsoleFactBase {
  readonly kind: 'direct-mapping';
  readonly device: string;
  readonly lsaRequired: boolean;
  readonly lsaEnabled: boolean;
  readonly directMapping: boolean;
}

/** A 64-bit device that may not reach all memory directly. [linux v6.12 arch/powerpc/kernel/dma-iommu.c] */
export interface DmaLimitFact extends ConsoleFactBase {
  readonly kind: 'dma-limit';
  readonly device: string;
  readonly limit: bigint;
}

/** No room in the window. The kernel prints only some of these: see `SuppressedFact`. [linux v6.12 arch/powerpc/kernel/iommu.c ppc_iommu_map_sg] */
export interface IommuAllocFailedFact extends ConsoleFactBase {
  readonly kind: 'iommu-alloc-failed';
  /** Old kernels do not print it. */
  readonly device?: string;
  /** Of the kernel's pointers: hashed, unless it runs with no_hash_pointers. */
  readonly table: string;
  readonly vaddr: string;
  readonly npages: number;
}

/** How many messages the kernel left out before this line. [linux v6.12 lib/ratelimit.c ___ratelimit] */
export interface SuppressedFact extends ConsoleFactBase {
  readonly kind: 'suppressed';
  /** The function that would have printed them, such as `iommu_map_page`. */
  readonly function: string;
  readonly count: number;
}

/** The pool of bounce buffers. [linux v6.12 kernel/dma/swiotlb.c swiotlb_print_info] */
export interface SwiotlbFact extends ConsoleFactBase {
  readonly kind: 'swiotlb';
  readonly start: bigint;
  readonly end: bigint;
  readonly bytes: number;
}

/** Into how many areas, each with its own lock, the pool is divided. */
export interface SwiotlbAreasFact extends ConsoleFactBase {
  readonly kind: 'swiotlb-areas';
  readonly areas: number;
}

/** No room in the pool of bounce buffers. [linux v6.12 kernel/dma/swiotlb.c swiotlb_tbl_map_single] */
export interface SwiotlbFullFact extends ConsoleFactBase {
  readonly kind: 'swiotlb-full';
  readonly device: string;
  readonly bytes: number;
  readonly totalSlots: number;
  readonly usedSlots: number;
}

/** A driver turned a device down for a feature that the guest needs. [linux v6.12 drivers/virtio/virtio.c virtio_features_ok] */
export interface VirtioRequiredFact extends ConsoleFactBase {
  readonly kind: 'virtio-required';
  readonly device: string;
  /** `VIRTIO_F_ACCESS_PLATFORM`. */
  readonly feature: string;
}

/** A device did not accept the driver's features. [linux v6.12 drivers/virtio/virtio.c virtio_features_ok] */
export interface VirtioRefusedFact extends ConsoleFactBase {
  readonly kind: 'virtio-refused';
  readonly device: string;
  readonly status: number;
}

/** The features that driver and device agreed on: the text of sysfs' `features`. */
export interface VirtioFeaturesFact extends ConsoleFactBase {
  readonly kind: 'virtio-features';
  /** `virtio0`, where the line says it. */
  readonly device?: string;
  readonly features: bigint;
  /** How many bits the kernel prints: 64, or 128 as 7.2 does. */
  readonly width: number;
  readonly status?: number;
}

/** An encrypted guest on x86. */
export interface MemoryEncryptionFact extends ConsoleFactBase {
  readonly kind: 'memory-encryption';
  /** `AMD SEV SEV-ES SEV-SNP`, `Intel TDX`. */
  readonly features: string;
}

/** Under which hypervisor a guest runs, where its kernel names one. */
export interface HypervisorFact extends ConsoleFactBase {
  readonly kind: 'hypervisor';
  /** `Xen HVM`, `Xen PV`, `KVM` on x86; `Xen` on Arm. */
  readonly name: string;
}

/** Anything that a console reader finds. */
export type ConsoleFact =
  | KernelFact
  | CommandLineFact
  | PageSizeFact
  | CpusFact
  | MemoryFact
  | HostBridgeFact
  | PciDeviceFact
  | IommuGroupFact
  | IommuTableFact
  | IommuDomainFact
  | IommuPolicyFact
  | DdwQueryFact
  | DdwCreateFact
  | DdwResetFact
  | DdwNoteFact
  | DirectMappingFact
  | DmaLimitFact
  | IommuAllocFailedFact
  | SuppressedFact
  | SwiotlbFact
  | SwiotlbAreasFact
  | SwiotlbFullFact
  | VirtioRequiredFact
  | VirtioRefusedFact
  | VirtioFeaturesFact
  | MemoryEncryptionFact
  | HypervisorFact;
