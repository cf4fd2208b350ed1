import { ModelError } from '@pinhole/base';
import {
  createDirectDmaOps,
  type DeviceDma,
  GuestPages,
  type IovaDomainOptions,
  parseKernelCommandLine,
} from '@pinhole/guest';
import {
  createGuestMemory,
  createRangesSpace,
  createSystemMemorySpace,
  type DmaRange,
} from '@pinhole/memory';
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
 * Where devices have their memory, which no buffer may have for its bus address.
 * [qemu v7.2 hw/arm/virt.c base_memmap VIRT_PCIE_MMIO, extended_memmap VIRT_HIGH_PCIE_MMIO]
 * [linux v6.1 drivers/iommu/dma-iommu.c iova_reserve_pci_windows]
 */
const RESERVED: NonNullable<IovaDomainOptions['reserved']> = [
  { lo: 0x1_0000, hi: 0x3_efef },
  { lo: 0x800_0000, hi: 0xfff_ffff },
];

/**
 * Arm: without an IOMMU the bus shows memory where `dma-ranges` says. Kernel objects come from the
 * first range, user pages from the last, as low and high memory do.
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
  build: buildArm64,
});

function buildArm64(options: PlatformOptions): Platform {
  const { machine, guest, kernel, rng } = options;
  checkCommandLine(guest.cmdline);
  const ranges = checkedRanges(machine, guest.secure);
  const memory = createGuestMemory({ regions: [{ base: RAM_BASE, size: machine.memory }] });
  const first = ranges[0] as DmaRange;
  const last = ranges.at(-1) as DmaRange;
  const isOne = ranges.length === 1;
  const half = Math.floor(first.size / 2 ** 13) * 2 ** 12;
  const pages = new GuestPages({
    pageSize: PAGE_SIZE,
    kernel: { base: first.cpuStart, size: isOne ? half : first.size },
    user: isOne
      ? { base: first.cpuStart + half, size: first.size - half }
      : { base: last.cpuStart, size: last.size },
    rng,
  });
  const hasBusOffset = ranges.some(({ cpuStart, dmaStart }) => BigInt(cpuStart) !== dmaStart);
  const direct: DeviceDma = {
    ops: createDirectDmaOps({ memory, pages, ranges, cpu: () => 0 }),
    isBounced: false,
    hasBusOffset,
    because: hasBusOffset
      ? 'dma-direct: physical addresses moved as dma-ranges says'
      : 'dma-direct: bus addresses are physical addresses',
    steps: ranges.map(({ cpuStart, dmaStart, size }) => ({
      what: 'dma-ranges',
      fact: `memory at 0x${cpuStart.toString(16)} is at 0x${dmaStart.toString(16)} on the bus, 0x${size.toString(16)} bytes`,
      source: '[linux v6.1 kernel/dma/direct.c, drivers/of/device.c of_dma_configure_id]',
    })),
  };
  const bus: IommuBus | undefined =
    machine.iommu === 'none'
      ? undefined
      : buildIommuBus({
          platform: 'arm64',
          iommu: machine.iommu,
          kernel,
          cmdline: guest.cmdline,
          guestMemory: memory,
          hypervisorMemory: memory,
          pages,
          reserved: RESERVED,
          direct,
        });
  const onBus = ranges.reduce((sum, { size }) => sum + size, 0);
  const behindIommu = new IommuReach(memory, undefined, bus?.space);
  return {
    guestMemory: memory,
    hypervisorMemory: memory,
    systemMemory: createSystemMemorySpace(memory),
    busSpace: bus?.busSpace ?? createRangesSpace(memory, ranges),
    pages,
    dma: bus?.dma ?? direct,
    hook: {
      answer: hasBusOffset,
      because: hasBusOffset ? 'its bus has a DMA offset' : 'its bus has no DMA offset',
      dma: hasBusOffset ? direct : physicalDma(memory, pages),
    },
    counters: () => ({
      hcalls: {},
      ...(bus?.counts() ?? NO_COUNTS),
      bytesBounced: 0,
      bytesShared: 0,
      ciphertextBytesRead: 0,
      privateBytesWriteRefused: 0,
    }),
    reach: (space) => {
      if (space === bus?.space) return behindIommu.measure(space);
      const bytes = space.isIdentity ? machine.memory : onBus;
      return { addressable: bytes, plaintext: bytes };
    },
  };
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
  if (isSecure) fail('guest.secure', 'a secure arm64 guest is not modelled');
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
  if (ranges.length === 0) fail('machine.dmaRanges', 'expected at least one range, found none');
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

function checkCommandLine(cmdline: string): void {
  const { force } = parseKernelCommandLine(cmdline).swiotlb;
  if (!force) return;
  throw new ModelError('E_MACHINE', 'swiotlb=force is modelled for pseries only', {
    details: { path: 'guest.cmdline' },
  });
}
