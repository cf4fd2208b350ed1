import type { Rng, Tracer } from '@pinhole/base';
import type { DeviceDma, GuestPages, KernelProfile } from '@pinhole/guest';
import type { DmaSpace, GuestMemory } from '@pinhole/memory';
import type { GuestConfig, MachineConfig } from './scenario-schema.js';

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
  /** IOMMU entries that grant a permission, now, and the most there ever were. */
  readonly tcesLive: number;
  readonly tcesPeak: number;
  /** Translations that devices asked an IOMMU for. */
  readonly translations: number;
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
  /** The bus-master address space of a PCI function. */
  readonly busSpace: DmaSpace;
  readonly pages: GuestPages;
  /** What the DMA API is for a device on the bus. */
  readonly dma: DeviceDma;
  /** The answer of `arch_virtio_wants_dma_ops()`, and the DMA ops that go with it. */
  readonly hook: { readonly answer: boolean; readonly because: string; readonly dma: DeviceDma };
  /** The kernel refuses a virtio device without VERSION_1 and ACCESS_PLATFORM. Default: it does not. */
  readonly hasRestrictedMemoryAccess?: boolean;
  /** The bounce pool: shared memory that a device may always use. */
  readonly bouncePool?: { readonly base: number; readonly size: number };
  counters(): PlatformCounters;
  /** What a device in `space` could reach now. */
  reach(space: DmaSpace): DeviceReach;
}

/** A platform of the model, as data and one function. */
export interface Architecture {
  /** As scenarios name it. */
  readonly id: string;
  readonly title: string;
  /** @throws ModelError when such a machine cannot exist. */
  readonly build: (options: PlatformOptions) => Platform;
}

/** Declares an architecture; the identity, for its types. */
export function defineArchitecture(architecture: Architecture): Architecture {
  return architecture;
}
