import type { Rng, Tracer } from '@pinhole/base';
import type { DeviceDma, GuestPages, KernelProfile } from '@pinhole/guest';
import type { DmaSpace, GuestMemory } from '@pinhole/memory';
import type { IommuAddressSpace } from '@pinhole/qemu';
import type { VirtioDeviceCore, VirtioTransport } from '@pinhole/virtio';
import type { GuestConfig, MachineConfig } from './scenario-config.js';

/** What an architecture is given to build from. */
export interface PlatformOptions {
  readonly machine: MachineConfig;
  readonly guest: GuestConfig;
  readonly kernel: KernelProfile;
  readonly rng: Rng;
  readonly tracer: Tracer;
}

/** What a platform can count; all since it was built. */
export interface PlatformCounters {
  /** Hypercalls by name. Empty where the guest makes none. */
  readonly hcalls: Readonly<Record<string, number>>;
  /** TCEs that hypercalls wrote; absent where there are none. */
  readonly tcesWritten?: number;
  /** IOMMU entries that grant a permission, now, and the most there ever were. */
  readonly tcesLive: number;
  readonly tcesPeak: number;
  /** Pages that the guest unmapped and a device still reaches; absent where an unmap holds at once. */
  readonly pagesStale?: number;
  /** Translations that devices asked an IOMMU for. */
  readonly translations: number;
  /**
   * What the guest's driver of an IOMMU without hypercalls did: pages or ranges that it mapped and
   * unmapped, and commands (queued invalidations, virtio-iommu requests) that made the hypervisor act.
   */
  readonly iommu: { readonly maps: number; readonly unmaps: number; readonly commands: number };
  /** Bytes copied into and out of bounce buffers. */
  readonly bytesBounced: number;
  /** Of a secure guest: bytes shared with the hypervisor. */
  readonly bytesShared: number;
  /** Of a secure guest: bytes of private memory that the hypervisor side read as ciphertext. */
  readonly ciphertextBytesRead: number;
  /** Of a secure guest: bytes that it tried to write to private memory. */
  readonly privateBytesWriteRefused: number;
}

/** How much guest memory a device could get at, in bytes. */
export interface DeviceReach {
  /** What it can address. */
  readonly addressable: number;
  /** What of that it would see in clear. */
  readonly plaintext: number;
}

/** A machine with a booted guest: everything but the device and its driver. */
export interface Platform {
  /** Guest memory as the guest sees it. */
  readonly guestMemory: GuestMemory;
  /** Guest memory as the hypervisor and its devices see it. */
  readonly hypervisorMemory: GuestMemory;
  /** Of a secure guest: the hypervisor's view once more, for looking without being counted. */
  readonly observer?: GuestMemory;
  readonly systemMemory: DmaSpace;
  /**
   * The bus-master address space that the device's transport has. Absent where it has none (ccw,
   * MMIO): QEMU's devices then work in system memory, whatever the flag says.
   */
  readonly busSpace?: DmaSpace;
  /** The IOMMU in front of `busSpace`, for vhost. Absent: there is none, and vhost has no IOTLB. */
  readonly iommu?: IommuAddressSpace;
  /** Puts a device on the platform's bus. Default: a modern PCI function with MSI-X. */
  readonly connect?: (core: VirtioDeviceCore) => VirtioTransport;
  readonly pages: GuestPages;
  /** SMP_CACHE_BYTES of the guest's kernel: what a split ring's used part is aligned to. Default: 64. */
  readonly smpCacheBytes?: number;
  /** What the DMA API is for a device on the bus. */
  readonly dma: DeviceDma;
  /** The answer of `arch_virtio_wants_dma_ops()`, and the DMA ops that go with it. */
  readonly hook: { readonly answer: boolean; readonly because: string; readonly dma: DeviceDma };
  /**
   * Virtio uses the DMA API whatever is negotiated, and why: a guest of Xen does.
   * [linux v6.1 drivers/virtio/virtio_ring.c vring_use_dma_api]
   */
  readonly alwaysDmaApi?: string;
  /** The kernel refuses a virtio device without VERSION_1 and ACCESS_PLATFORM. Default: it does not. */
  readonly hasRestrictedMemoryAccess?: boolean;
  /** The bounce pool: shared memory that a device may always use. */
  readonly bouncePool?: { readonly base: number; readonly size: number };
  /**
   * Nothing happens for a while: the guest's timers fire. Called when the workload is over and counted.
   * Default: there are none.
   */
  settle?(): void;
  counters(): PlatformCounters;
  /** What a device in `space` could reach now. */
  reach(space: DmaSpace): DeviceReach;
}

/** One machine of an architecture worth a row of its own, as what to change in a scenario. */
export interface PlatformVariant {
  /** Starts with the architecture's id: `pseries-ddw`. */
  readonly id: string;
  readonly title: string;
  /** As in a scenario file; `arch` comes from the architecture. */
  readonly machine?: Readonly<Record<string, unknown>>;
  readonly guest?: Readonly<Record<string, unknown>>;
}

/** A platform of the model, as data and one function. */
export interface Architecture {
  /** As scenarios name it. */
  readonly id: string;
  readonly title: string;
  /** Its machines, as rows of `pinhole matrix`; one at least. */
  readonly variants: readonly PlatformVariant[];
  /** What `guest.secure` is there: `PEF`, `SEV`. Absent: it has no secure guests. */
  readonly secure?: string;
  /** @throws ModelError when such a machine cannot exist. */
  readonly build: (options: PlatformOptions) => Platform;
}

/** Declares an architecture; the identity, for its types. */
export function defineArchitecture(architecture: Architecture): Architecture {
  return architecture;
}
