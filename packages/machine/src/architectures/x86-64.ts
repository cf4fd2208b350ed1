import { ModelError } from '@pinhole/base';
import {
  createDirectDmaOps,
  type DecisionStep,
  type DeviceDma,
  GuestPages,
  hasRestrictedVirtioAccess,
  type KernelProfile,
  parseKernelCommandLine,
  SMP_CACHE_BYTES,
  Swiotlb,
  swiotlbPool,
} from '@pinhole/guest';
import {
  createGuestMemory,
  createSystemMemorySpace,
  type GuestMemory,
  HypervisorView,
  type MemoryRegion,
  PageOwnership,
} from '@pinhole/memory';
import { spaceIommu } from '@pinhole/qemu';
import {
  type Architecture,
  defineArchitecture,
  type Platform,
  type PlatformOptions,
} from '../architecture.js';
import type { GuestConfig, MachineConfig } from '../scenario-config.js';
import {
  buildIommuBus,
  checkIommu,
  directDma,
  type IommuBus,
  IommuReach,
  NO_COUNTS,
  physicalDma,
} from './iommu-bus.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const PAGE_SIZE = 4096;
/** Below this the kernel image and what firmware left; pages come from above. */
const KERNEL_BASE = 16 * MIB;
const MIN_MEMORY = 256 * MIB;
/** From about 1 TiB on QEMU moves memory out of the way of AMD's HyperTransport range. */
const MAX_MEMORY = 512 * GIB;
/** Memory from here on is cut at 2 GiB. [qemu v7.2 hw/i386/pc_q35.c pc_q35_init] */
const LOW_MEMORY = 0xb000_0000;
/** [qemu v7.2 hw/pci-host/q35.c, hw/i386/acpi-build.c build_dsdt] */
const MMCONFIG = { base: 0xb000_0000, size: 256 * MIB } as const;
const PCI_HOLE_END = 0xfec0_0000;
const PCI_HOLE64_SIZE = 32 * GIB;
/** Writes here are interrupts. [linux v6.1 drivers/iommu/intel/iommu.c intel_iommu_get_resv_regions] */
const INTERRUPTS = { base: 0xfee0_0000, size: MIB } as const;
/** [linux v6.1 include/linux/swiotlb.h IO_TLB_MIN_SLABS] */
const MIN_POOL = MIB;

/** QEMU's q35. Pages are 4 KiB, whatever a kernel has elsewhere. */
export const x8664: Architecture = defineArchitecture({
  id: 'x86-64',
  title: 'x86-64 (q35)',
  variants: [
    { id: 'x86-64', title: 'no IOMMU', machine: { memory: '2GiB' } },
    {
      id: 'x86-64-intel-iommu',
      title: 'intel-iommu',
      machine: { memory: '2GiB', iommu: 'intel-iommu' },
    },
    {
      id: 'x86-64-virtio-iommu',
      title: 'virtio-iommu',
      machine: { memory: '2GiB', iommu: 'virtio-iommu' },
    },
    {
      id: 'x86-64-swiotlb',
      title: 'no IOMMU, swiotlb=force',
      machine: { memory: '2GiB' },
      guest: { cmdline: 'swiotlb=force' },
    },
  ],
  secure: 'SEV/TDX',
  build: buildX8664,
});

function buildX8664(options: PlatformOptions): Platform {
  const { machine, guest, kernel, rng } = options;
  checkMachine(machine);
  const regions = memoryRegions(machine.memory);
  const guestMemory = createGuestMemory({ regions });
  const ownership = guest.secure ? new PageOwnership({ pageSize: PAGE_SIZE }) : undefined;
  const view = ownership === undefined ? undefined : new HypervisorView(guestMemory, ownership);
  const hypervisorMemory: GuestMemory = view ?? guestMemory;
  const low = regions[0] as MemoryRegion;
  const pool = poolOf(machine, guest, kernel, low.size);
  const pages = guestPages(regions, low.size - (pool?.size ?? 0), rng);
  let swiotlb: Swiotlb | undefined;
  if (pool !== undefined) {
    ownership?.share(pool.base, pool.size);
    swiotlb = new Swiotlb({
      memory: guestMemory,
      base: pool.base,
      size: pool.size,
      pageSize: PAGE_SIZE,
      cpus: pool.areas,
      search: kernel.swiotlb.search,
      onFull: (message) => {
        if (options.tracer.on) options.tracer.event('guest', 'guest_warn', { message });
      },
    });
  }
  const direct =
    swiotlb === undefined && ownership === undefined
      ? directDma({
          guestMemory,
          pages,
          because: 'dma-direct: bus addresses are physical addresses',
        })
      : bounceDma({ guestMemory, pages, swiotlb, ownership, guest });
  const bus: IommuBus | undefined =
    machine.iommu === 'none'
      ? undefined
      : buildIommuBus({
          platform: 'x86-64',
          iommu: machine.iommu,
          qemu: machine.qemu,
          kernel,
          cmdline: guest.cmdline,
          guestMemory,
          hypervisorMemory,
          pages,
          reserved: reservedIovas(regions),
          interrupts: INTERRUPTS,
          direct,
          tracer: options.tracer,
        });
  const dma = bus?.dma ?? direct;
  const reach = new IommuReach(guestMemory, ownership, bus?.space);
  return {
    guestMemory,
    hypervisorMemory,
    ...(ownership === undefined ? {} : { observer: new HypervisorView(guestMemory, ownership) }),
    systemMemory: createSystemMemorySpace(hypervisorMemory),
    ...(bus?.space === undefined ? {} : { iommu: spaceIommu(bus.space) }),
    busSpace: bus?.busSpace ?? createSystemMemorySpace(hypervisorMemory),
    pages,
    smpCacheBytes: SMP_CACHE_BYTES['x86-64'],
    dma,
    hook: guest.secure
      ? // A device without the flag is past the IOMMU: bounce slots at their physical addresses.
        { answer: true, because: 'guest memory is encrypted', dma: direct }
      : {
          answer: false,
          because: 'guest memory is not encrypted',
          dma: physicalDma(guestMemory, pages),
        },
    hasRestrictedMemoryAccess: hasRestrictedVirtioAccess(kernel, 'x86-64', guest.secure),
    ...(swiotlb === undefined ? {} : { bouncePool: { base: swiotlb.base, size: swiotlb.size } }),
    settle: () => bus?.settle(),
    counters: () => ({
      hcalls: {},
      ...(bus?.counts() ?? NO_COUNTS),
      bytesBounced: swiotlb?.bytesBounced ?? 0,
      bytesShared: ownership?.sharedBytes ?? 0,
      ciphertextBytesRead: view?.ciphertextBytesRead ?? 0,
      privateBytesWriteRefused: view?.privateBytesWriteRefused ?? 0,
    }),
    reach: (space) => reach.measure(space),
  };
}

/** Below the hole for devices, and above 4 GiB. [qemu v7.2 hw/i386/pc_q35.c pc_q35_init] */
function memoryRegions(memory: number): MemoryRegion[] {
  const low = memory >= LOW_MEMORY ? 2 * GIB : memory;
  const high = memory - low;
  return [{ base: 0, size: low }, ...(high === 0 ? [] : [{ base: 4 * GIB, size: high }])];
}

// Kernel objects come from low memory; user pages from above 4 GiB where there is any.
function guestPages(
  regions: readonly MemoryRegion[],
  lowEnd: number,
  rng: PlatformOptions['rng'],
): GuestPages {
  const high = regions[1];
  const half = Math.floor(lowEnd / 2 / MIB) * MIB;
  return new GuestPages({
    pageSize: PAGE_SIZE,
    kernel: { base: KERNEL_BASE, size: (high === undefined ? half : lowEnd) - KERNEL_BASE },
    user: high ?? { base: half, size: lowEnd - half },
    rng,
  });
}

/**
 * Host bridge windows and the interrupts' range, which no buffer may have for its bus address.
 * [linux v6.1 drivers/iommu/dma-iommu.c iova_reserve_pci_windows, iova_reserve_iommu_regions]
 */
function reservedIovas(regions: readonly MemoryRegion[]): { lo: number; hi: number }[] {
  const lowEnd = (regions[0] as MemoryRegion).size;
  const high = regions[1];
  const hole64 = high === undefined ? 4 * GIB : Math.ceil((high.base + high.size) / GIB) * GIB;
  const mmconfigEnd = MMCONFIG.base + MMCONFIG.size;
  const ranges: [start: number, end: number][] = [
    [0xa_0000, 0xc_0000],
    [Math.min(lowEnd, MMCONFIG.base), MMCONFIG.base],
    [mmconfigEnd, PCI_HOLE_END],
    [INTERRUPTS.base, INTERRUPTS.base + INTERRUPTS.size],
    [hole64, hole64 + PCI_HOLE64_SIZE],
  ];
  return ranges.flatMap(([start, end]) =>
    start < end ? [{ lo: start / PAGE_SIZE, hi: end / PAGE_SIZE - 1 }] : [],
  );
}

/**
 * The bounce pool: at the end of low memory; halved until it fits. Nobody has one who needs none.
 * [linux v6.1 arch/x86/kernel/pci-dma.c pci_swiotlb_detect, arch/x86/mm/mem_encrypt_amd.c
 * sev_setup_arch, kernel/dma/swiotlb.c swiotlb_init_remap]
 *
 * Deviates: what else the kernel takes from the end of low memory is not there.
 */
function poolOf(
  machine: MachineConfig,
  guest: GuestConfig,
  kernel: KernelProfile,
  lowEnd: number,
): { base: number; size: number; areas: number } | undefined {
  const { swiotlb: asked } = parseKernelCommandLine(guest.cmdline);
  if (asked.noforce || !(asked.force || guest.secure)) return undefined;
  const isDefault = asked.bytes === 64 * MIB;
  const isSized = guest.secure && isDefault && kernel.swiotlb.isSizedForEncryption;
  const sixPercent = Math.floor((machine.memory * 6) / 100);
  const bytes = isSized ? Math.min(Math.max(sixPercent, 64 * MIB), GIB) : asked.bytes;
  const pool = swiotlbPool(
    { ...asked, bytes: Math.ceil(bytes / (256 * 1024)) * 256 * 1024 },
    kernel.swiotlb.hasAreas ? machine.cpus : 1,
  );
  let size = pool.bytes;
  // Room for the kernel and its pages.
  while (size > MIN_POOL && size > lowEnd / 2) size = Math.max(MIN_POOL, size / 2);
  return { base: lowEnd - size, size, areas: pool.areas };
}

function bounceDma(options: {
  readonly guestMemory: GuestMemory;
  readonly pages: GuestPages;
  readonly swiotlb: Swiotlb | undefined;
  readonly ownership: PageOwnership | undefined;
  readonly guest: GuestConfig;
}): DeviceDma {
  const { guestMemory: memory, pages, swiotlb, ownership, guest } = options;
  const ranges = memory.regions.map(({ base, size }) => {
    return { cpuStart: base, dmaStart: BigInt(base), size };
  });
  const ops = createDirectDmaOps({
    memory,
    pages,
    ranges,
    ...(swiotlb === undefined ? {} : { forceBounce: swiotlb }),
    ...(ownership === undefined
      ? {}
      : {
          // [linux v6.1 arch/x86/mm/mem_encrypt.c force_dma_unencrypted]
          setShared: (gpa: number, length: number, isShared: boolean) => {
            if (isShared) ownership.share(gpa, length);
            else ownership.unshare(gpa, length);
          },
        }),
    cpu: () => 0,
  });
  const why = guest.secure ? 'guest memory is encrypted' : 'swiotlb=force';
  const steps: DecisionStep[] = [
    {
      what: 'pci_swiotlb_detect: do all buffers bounce?',
      fact: swiotlb === undefined ? 'no: swiotlb=noforce' : `yes: ${why}`,
      source: '[linux v6.1 arch/x86/kernel/pci-dma.c pci_swiotlb_detect]',
    },
  ];
  return {
    ops,
    isBounced: swiotlb !== undefined,
    hasBusOffset: false,
    because:
      swiotlb === undefined
        ? 'dma-direct: physical addresses, of private memory'
        : `dma-direct: bounce buffers, at their physical addresses (${why})`,
    steps,
  };
}

function checkMachine(machine: MachineConfig): void {
  const fail = (path: string, message: string): never => {
    throw new ModelError('E_MACHINE', message, { details: { path } });
  };
  const { memory } = machine;
  if (memory < MIN_MEMORY || memory > MAX_MEMORY || memory % MIB !== 0) {
    fail(
      'machine.memory',
      `expected a multiple of 1 MiB from 256 MiB to 512 GiB, found ${memory} bytes`,
    );
  }
  if (machine.maxMemory !== undefined) {
    fail('machine.maxMemory', 'hotplug is modelled for pseries only');
  }
  if (machine.dmaRanges !== undefined) {
    fail('machine.dmaRanges', 'the host bridge of q35 shows memory where it is: leave this out');
  }
  checkIommu(machine.iommu, 'x86-64', ['none', 'intel-iommu', 'virtio-iommu']);
}
