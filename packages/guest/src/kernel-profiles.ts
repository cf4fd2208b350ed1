/** What differs from kernel to kernel, as data. */

/** How a kernel sets up the second DMA window. */
export interface DdwProfile {
  /**
   * How large memory can become, which sizes the window: the largest of the hotplug limit and all
   * memory, or only what `ibm,lrdr-capacity` says.
   */
  readonly maxMemoryFrom: 'dram-and-lrdr' | 'lrdr-only';
  readonly source: string;
}

/** One kernel. */
export interface KernelProfile {
  readonly id: string;
  readonly title: string;
  /** Bytes of a page, as the distribution built it. */
  readonly pageSize: number;
  readonly ddw: DdwProfile;
}

export const KERNEL_PROFILES: readonly KernelProfile[] = [
  {
    id: 'linux-6.1',
    title: 'Linux 6.1 (Debian 12, 64 KiB pages)',
    pageSize: 65536,
    ddw: {
      maxMemoryFrom: 'dram-and-lrdr',
      source: '[linux v6.1 arch/powerpc/platforms/pseries/iommu.c ddw_memory_hotplug_max]',
    },
  },
  {
    id: 'linux-6.12',
    title: 'Linux 6.12 (Debian 13, 4 KiB pages)',
    pageSize: 4096,
    ddw: {
      maxMemoryFrom: 'lrdr-only',
      source: '[linux commit 6aa989ab2bd0, in 6.12.y]',
    },
  },
];

/** The profile with this id, or undefined. */
export function findKernelProfile(id: string): KernelProfile | undefined {
  return KERNEL_PROFILES.find((profile) => profile.id === id);
}
