import { ModelError } from '@pinhole/base';
import {
  createDirectDmaOps,
  type DeviceDma,
  GuestPages,
  hasRestrictedVirtioAccess,
  type IovaDomainOptions,
  parseKernelCommandLine,
  SMP_CACHE_BYTES,
  Swiotlb,
  swiotlbPool,
} from '@pinhole/guest';
import {
  createGuestMemory,
  createRangesSpace,
  createSystemMemorySpace,
  type DmaRange,
  type GuestMemory,
  HypervisorView,
  PageOwnership,
} from '@pinhole/memory';
import { rangesIommu, spaceIommu } from '@pinhole/qemu';
import {
  type Architecture,
  defineArchitecture,
  type Platform,
  type PlatformOptions,
} from '../architecture.js';
import type { MachineConfig } from '../scenario-config.js';
import {
  buildIommuBus,
  checkIommu,
  type IommuBus,
  IommuReach,
  NO_COUNTS,
  physicalDma,
} from './iommu-bus.js';

/** Where memory starts. [qemu v7.2 hw/arm/virt.c base_memmap VIRT_MEM] */
const RAM_BASE = 0x4000_0000;
const MIN_MEMORY = 256 * 2 ** 20;
const MAX_MEMORY = 2 ** 40;
/** Debian's; what a kernel has elsewhere does not matter here. */
const PAGE_SIZE = 4096;
/**
 * The pool of a protected guest, at the end of the last range.
 * [linux v6.1 Documentation/devicetree/bindings/reserved-memory/shared-dma-pool.yaml], the example's size
 */
const POOL_SIZE = 64 * 2 ** 20;
/**
 * Where devices have their memory, which no buffer may have for its bus address.
 * [qemu v7.2 hw/arm/virt.c base_memmap VIRT_PCIE_MMIO, extended_memmap VIRT_HIGH_PCIE_MMIO]
 * [linux v6.1 drivers/iommu/dma-iommu.c iova_reserve_pci_windows]
 */
const RESERVED: NonNullable<IovaDomainOptions['reserved']> = [
  { lo: 0x1_0000, hi: 0x3_efef },
  { lo: 0x800_0000, hi: 0xfff_ffff },
];

/**
 * What a device's interrupts are written to: SMMUv3 translates them; virtio-iommu of QEMU reserves it.
 * [qemu v7.2 hw/arm/virt.c base_memmap VIRT_GIC_V2M, virt_set_virtio_iommu's reserved region]
 */
const GIC_V2M = 0x802_0000;

/**
 * Arm: without an IOMMU the bus shows memory where `dma-ranges` says. Kernel objects come from the
 * first range, user pages from the last, as low and high memory do. A protected guest (pKVM) has a
 * restricted-dma-pool, which all of its devices' memory comes from, unless they are behind an IOMMU.
 *
 * Deviates: a host that touches private memory of such a guest is stopped; here it reads ciphertext.
 * Interrupts, which SMMUv3 translates too, go without: `translations` counts what rings and buffers need.
 */
export const arm64: Architecture = defineArchitecture({
  id: 'arm64',
  title: 'arm64',
  variants: [
    { id: 'arm64', title: 'no IOMMU', machine: { memory: '2GiB' } },
    {
      id: 'arm64-offset',
      title: 'no IOMMU, dma-ranges with an offset',
      machine: {
        memory: '2GiB',
        dmaRanges: [
          { cpu: '0x40000000', bus: '0x40000000', size: '1GiB' },
          { cpu: '0x80000000', bus: '0x0', size: '1GiB' },
        ],
      },
    },
    { id: 'arm64-smmuv3', title: 'SMMUv3', machine: { memory: '2GiB', iommu: 'smmuv3' } },
  ],
  secure: 'pKVM',
  build: buildArm64,
});

function buildArm64(options: PlatformOptions): Platform {
  const { machine, guest, kernel, rng } = options;
  const ranges = checkedRanges(machine, guest.secure);
  const memory = createGuestMemory({ regions: [{ base: RAM_BASE, size: machine.memory }] });
  const ownership = guest.secure ? new PageOwnership({ pageSize: PAGE_SIZE }) : undefined;
  const view = ownership === undefined ? undefined : new HypervisorView(memory, ownership);
  const hypervisorMemory: GuestMemory = view ?? memory;
  const first = ranges[0] as DmaRange;
  const last = ranges.at(-1) as DmaRange;
  // [linux v6.1 drivers/of/device.c of_dma_configure_id]: where there is no IOMMU.
  const restricted =
    ownership === undefined || machine.iommu !== 'none'
      ? undefined
      : restrictedPool(options, memory, last, ownership);
  const dmaEnd = Math.max(...ranges.map(({ cpuStart, size }) => cpuStart + size));
  const swiotlb =
    restricted ?? (guest.secure ? undefined : forcedPool(options, memory, last, dmaEnd));
  const poolSize = swiotlb?.size ?? 0;
  const isOne = ranges.length === 1;
  const half = Math.floor(first.size / 2 ** 13) * 2 ** 12;
  const pages = new GuestPages({
    pageSize: PAGE_SIZE,
    // The first page is the kernel image's: no ring lies there, which a range may have at bus address 0.
    kernel: { base: first.cpuStart + PAGE_SIZE, size: (isOne ? half : first.size) - PAGE_SIZE },
    user: isOne
      ? { base: first.cpuStart + half, size: first.size - half - poolSize }
      : { base: last.cpuStart, size: last.size - poolSize },
    rng,
  });
  const hasBusOffset = ranges.some(({ cpuStart, dmaStart }) => BigInt(cpuStart) !== dmaStart);
  const direct: DeviceDma = {
    ops: createDirectDmaOps({
      memory,
      pages,
      ranges,
      ...(swiotlb === undefined
        ? {}
        : { forceBounce: swiotlb, isPoolForAlloc: restricted !== undefined }),
      cpu: () => 0,
    }),
    isBounced: swiotlb !== undefined,
    hasBusOffset,
    because: `dma-direct: ${swiotlb === undefined ? '' : restricted === undefined ? 'bounce buffers (swiotlb=force), ' : 'restricted-dma-pool, '}${
      hasBusOffset
        ? 'physical addresses moved as dma-ranges says'
        : 'bus addresses are physical addresses'
    }`,
    steps: [
      ...ranges.map(({ cpuStart, dmaStart, size }) => ({
        what: 'dma-ranges',
        fact: `memory at 0x${cpuStart.toString(16)} is at 0x${dmaStart.toString(16)} on the bus, 0x${size.toString(16)} bytes`,
        source: '[linux v6.1 kernel/dma/direct.c, drivers/of/device.c of_dma_configure_id]',
      })),
      ...(restricted === undefined
        ? []
        : [
            {
              what: 'of_dma_set_restricted_buffer: has the device a pool of its own?',
              fact: `yes: 0x${restricted.size.toString(16)} bytes at 0x${restricted.base.toString(16)}, for buffers and rings`,
              source: '[linux v6.1 drivers/of/device.c of_dma_set_restricted_buffer]',
            },
          ]),
    ],
  };
  const bus: IommuBus | undefined =
    machine.iommu === 'none'
      ? undefined
      : buildIommuBus({
          platform: 'arm64',
          iommu: machine.iommu,
          qemu: machine.qemu,
          kernel,
          cmdline: guest.cmdline,
          guestMemory: memory,
          hypervisorMemory,
          pages,
          reserved: RESERVED,
          ...(machine.iommu === 'smmuv3' ? { doorbell: GIC_V2M } : {}),
          direct,
          tracer: options.tracer,
        });
  const onBus = ranges.reduce((sum, { size }) => sum + size, 0);
  const busSpace = bus?.busSpace ?? createRangesSpace(hypervisorMemory, ranges);
  const iommuForVhost =
    bus?.space !== undefined
      ? { iommu: spaceIommu(bus.space) }
      : bus === undefined && machine.dmaRanges !== undefined
        ? { iommu: rangesIommu(busSpace) }
        : {};
  const behindIommu = new IommuReach(memory, ownership, bus?.space);
  return {
    guestMemory: memory,
    hypervisorMemory,
    ...(ownership === undefined ? {} : { observer: new HypervisorView(memory, ownership) }),
    systemMemory: createSystemMemorySpace(hypervisorMemory),
    ...iommuForVhost,
    busSpace,
    pages,
    smpCacheBytes: SMP_CACHE_BYTES.arm64,
    dma: bus?.dma ?? direct,
    hook: guest.secure
      ? { answer: true, because: 'guest memory is protected', dma: direct }
      : {
          answer: hasBusOffset,
          because: hasBusOffset ? 'its bus has a DMA offset' : 'its bus has no DMA offset',
          dma: hasBusOffset ? direct : physicalDma(memory, pages),
        },
    hasRestrictedMemoryAccess: hasRestrictedVirtioAccess(kernel, 'arm64', guest.secure),
    ...(swiotlb === undefined ? {} : { bouncePool: { base: swiotlb.base, size: swiotlb.size } }),
    settle: () => bus?.settle(),
    counters: () => ({
      hcalls: restricted === undefined ? {} : { [MEM_SHARE]: restricted.size / PAGE_SIZE },
      ...(bus?.counts() ?? NO_COUNTS),
      bytesBounced: swiotlb?.bytesBounced ?? 0,
      bytesShared: ownership?.sharedBytes ?? 0,
      ciphertextBytesRead: view?.ciphertextBytesRead ?? 0,
      privateBytesWriteRefused: view?.privateBytesWriteRefused ?? 0,
    }),
    reach: (space) => {
      if (space === bus?.space) return behindIommu.measure(space);
      const bytes = space.isIdentity ? machine.memory : onBus;
      return { addressable: bytes, plaintext: ownership?.sharedBytes ?? bytes };
    },
  };
}

/** The hypercall with which the guest shares a page, by the kernel's name. */
const MEM_SHARE = 'ARM_SMCCC_VENDOR_HYP_KVM_MEM_SHARE_FUNC_ID';

/**
 * Memory that is set aside for devices and shared, a call a page, when the first of them comes.
 * [linux v6.1 kernel/dma/swiotlb.c rmem_swiotlb_device_init]
 * [linux drivers/virt/coco/pkvm-guest/arm-pkvm-guest.c pkvm_set_memory_decrypted]
 * UNVERIFIED: which release has that call; older kernels stand for Android's, which had it before.
 */
function restrictedPool(
  { kernel, tracer }: PlatformOptions,
  memory: GuestMemory,
  range: DmaRange,
  ownership: PageOwnership,
): Swiotlb {
  const base = range.cpuStart + range.size - POOL_SIZE;
  ownership.share(base, POOL_SIZE);
  return createPool({ kernel, tracer }, memory, base, { size: POOL_SIZE, areas: 1 });
}

/**
 * The pool of `swiotlb=force`, for buffers alone; halved until it fits. `dmaEnd`: beyond it no device reaches
 * memory, so that a kernel which finds some there makes a whole pool.
 * [linux v6.12 arch/arm64/mm/init.c zone_sizes_init, mem_init, kernel/dma/swiotlb.c swiotlb_adjust_size]
 */
function forcedPool(
  { kernel, tracer, machine, guest }: PlatformOptions,
  memory: GuestMemory,
  range: DmaRange,
  dmaEnd: number,
): Swiotlb | undefined {
  const { swiotlb: asked } = parseKernelCommandLine(guest.cmdline);
  if (asked.noforce || !asked.force) return undefined;
  const memoryEnd = RAM_BASE + machine.memory;
  const isForSmall =
    kernel.swiotlb.arm64Pool === 'a-1024th' && memoryEnd <= Math.min(2 ** 32, dmaEnd);
  const isDefault = asked.bytes === POOL_SIZE;
  const bytes = isForSmall && isDefault ? Math.min(POOL_SIZE, machine.memory / 1024) : asked.bytes;
  const { bytes: size, areas } = swiotlbPool(
    { ...asked, bytes },
    kernel.swiotlb.hasAreas ? machine.cpus : 1,
  );
  let fits = size;
  while (fits > range.size / 2) fits /= 2;
  const base = range.cpuStart + range.size - fits;
  return createPool({ kernel, tracer }, memory, base, { size: fits, areas });
}

function createPool(
  { kernel, tracer }: Pick<PlatformOptions, 'kernel' | 'tracer'>,
  memory: GuestMemory,
  base: number,
  { size, areas }: { readonly size: number; readonly areas: number },
): Swiotlb {
  return new Swiotlb({
    memory,
    base,
    size,
    pageSize: PAGE_SIZE,
    cpus: areas,
    search: kernel.swiotlb.search,
    onFull: (message) => {
      if (tracer.on) tracer.event('guest', 'guest_warn', { message });
    },
  });
}

function checkedRanges(machine: MachineConfig, isSecure: boolean): DmaRange[] {
  const fail = (path: string, message: string): never => {
    throw new ModelError('E_MACHINE', message, { details: { path } });
  };
  const { memory } = machine;
  if (memory < MIN_MEMORY || memory > MAX_MEMORY || memory % 2 ** 20 !== 0) {
    fail(
      'machine.memory',
      `expected a multiple of 1 MiB from 256 MiB to 1 TiB, found ${memory} bytes`,
    );
  }
  if (machine.maxMemory !== undefined)
    fail('machine.maxMemory', 'hotplug is modelled for pseries only');
  checkIommu(machine.iommu, 'arm64', ['none', 'smmuv3', 'virtio-iommu']);
  if (machine.iommu !== 'none' && machine.dmaRanges !== undefined) {
    fail('machine.dmaRanges', 'behind an IOMMU the bus has no dma-ranges: leave one of them out');
  }
  const whole = { cpu: RAM_BASE, bus: BigInt(RAM_BASE), size: memory };
  const ranges = (machine.dmaRanges ?? [whole]).map(({ cpu, bus, size }, i) => {
    const path = `machine.dmaRanges[${i}]`;
    if (cpu < RAM_BASE || cpu + size > RAM_BASE + memory || size < 2 ** 20) {
      fail(
        path,
        `expected at least 1 MiB inside memory (0x${RAM_BASE.toString(16)} to 0x${(RAM_BASE + memory).toString(16)}), found 0x${size.toString(16)} bytes at 0x${cpu.toString(16)}`,
      );
    }
    if (cpu % 65536 !== 0) fail(`${path}.cpu`, 'expected a multiple of 64 KiB');
    if (bus + BigInt(size) > 2n ** 64n)
      fail(`${path}.bus`, 'the range ends beyond 2^64 on the bus');
    return { cpuStart: cpu, dmaStart: bus, size };
  });
  const last = ranges.at(-1);
  if (last === undefined)
    return fail('machine.dmaRanges', 'expected at least one range, found none');
  if (isSecure && machine.iommu === 'none' && last.size < 2 * POOL_SIZE) {
    fail(
      'machine.dmaRanges',
      `expected a last range of at least ${2 * POOL_SIZE} bytes, with the pool of a protected guest at its end, found ${last.size}`,
    );
  }
  ranges.forEach((a, i) => {
    const clash = ranges
      .slice(i + 1)
      .some(
        (b) =>
          (a.cpuStart < b.cpuStart + b.size && b.cpuStart < a.cpuStart + a.size) ||
          (a.dmaStart < b.dmaStart + BigInt(b.size) && b.dmaStart < a.dmaStart + BigInt(a.size)),
      );
    if (clash) fail(`machine.dmaRanges[${i}]`, 'overlaps another range, in memory or on the bus');
  });
  return ranges;
}
