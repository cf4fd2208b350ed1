import { ModelError } from '@pinhole/base';
import {
  GuestPages,
  hasRestrictedVirtioAccess,
  type PhbDescription,
  PseriesDma,
  parseKernelCommandLine,
  readPhbDescription,
  SMP_CACHE_BYTES,
} from '@pinhole/guest';
import { createUltravisor, HCALL_NAMES, ULTRACALL_NAMES } from '@pinhole/hcall';
import {
  createGuestMemory,
  createSystemMemorySpace,
  type DmaSpace,
  type GuestMemory,
  HypervisorView,
  type MemoryRegion,
  PageOwnership,
} from '@pinhole/memory';
import { phbIommu } from '@pinhole/qemu';
import type { SpaprPhb } from '@pinhole/tce';
import {
  type Architecture,
  type DeviceReach,
  defineArchitecture,
  type Platform,
  type PlatformOptions,
} from '../architecture.js';
import type { MachineConfig } from '../scenario-config.js';
import { createSpaprMachine } from '../spapr-config.js';
import { checkIommu, physicalDma } from './iommu-bus.js';

/** Below this the kernel image and what firmware left; pages come from above. */
const KERNEL_BASE = 16 * 2 ** 20;
const MIN_MEMORY = 256 * 2 ** 20;
/** The lowest address at which a device could place its own memory; RAM must end below. */
const MAX_MEMORY = 2 ** 46;
/** The largest default window of the model. */
const MAX_WINDOW = 2 ** 40;

/** IBM POWER under PAPR, with QEMU as its hypervisor. */
export const pseries: Architecture = defineArchitecture({
  id: 'pseries',
  title: 'pseries (PAPR)',
  variants: [
    {
      id: 'pseries-pinhole',
      title: 'default window only',
      machine: { memory: '2GiB', ddw: false },
    },
    {
      id: 'pseries-ddw',
      title: 'second window',
      machine: { memory: '2GiB', maxMemory: '4GiB' },
    },
    {
      id: 'pseries-ddw-lost',
      title: 'second window, no maxmem',
      machine: { memory: '2GiB' },
    },
    {
      id: 'pseries-kvm',
      title: 'default window only, TCEs in KVM',
      machine: { memory: '2GiB', ddw: false, tceHandler: 'kvm' },
    },
  ],
  secure: 'PEF',
  build: buildPseries,
});

function buildPseries(options: PlatformOptions): Platform {
  const { machine, guest, kernel, rng, tracer } = options;
  checkMachine(machine);
  const guestMemory = createGuestMemory({ regions: [{ base: 0, size: machine.memory }] });
  const ownership = new PageOwnership({ pageSize: kernel.pageSize });
  const view = guest.secure ? new HypervisorView(guestMemory, ownership) : undefined;
  const hypervisorMemory: GuestMemory = view ?? guestMemory;
  const hypervisor = createSpaprMachine(machine, { memory: hypervisorMemory, tracer });
  const { hypercalls } = hypervisor;
  const phb = hypervisor.iommu.phbs[0] as SpaprPhb;
  const half = Math.floor(machine.memory / 2 ** 21) * 2 ** 20;
  const pages = new GuestPages({
    pageSize: kernel.pageSize,
    kernel: { base: KERNEL_BASE, size: half - KERNEL_BASE },
    user: { base: half, size: machine.memory - half },
    rng,
  });
  const ultravisor = guest.secure
    ? createUltravisor({ memory: guestMemory, ownership, tracer })
    : undefined;
  const pseriesDma = new PseriesDma({
    kernel,
    memory: guestMemory,
    pages,
    hypercalls,
    phb: readPhbDescription(hypervisor.deviceTree()) as PhbDescription,
    hasMultiTce: true,
    cpus: machine.cpus,
    commandLine: parseKernelCommandLine(guest.cmdline),
    tracer,
    ...(ultravisor === undefined ? {} : { ultracalls: ultravisor }),
  });
  // Any PCI device that asks for 64-bit DMA sets the windows up, whatever virtio does later.
  const dma = pseriesDma.probe();
  const hook = guest.secure
    ? { answer: true, because: 'a secure guest', dma: pseriesDma.physicalOps() }
    : {
        answer: false,
        because: 'not a secure guest',
        dma: physicalDma(guestMemory, pages),
      };
  const { swiotlb } = pseriesDma;
  const meter = new ReachMeter(phb, guestMemory, guest.secure ? ownership : undefined);
  return {
    guestMemory,
    hypervisorMemory,
    ...(guest.secure ? { observer: new HypervisorView(guestMemory, ownership) } : {}),
    systemMemory: createSystemMemorySpace(hypervisorMemory),
    busSpace: phb,
    iommu: phbIommu(phb),
    pages,
    smpCacheBytes: SMP_CACHE_BYTES.ppc64,
    dma,
    hook,
    hasRestrictedMemoryAccess: hasRestrictedVirtioAccess(kernel, 'pseries', guest.secure),
    ...(swiotlb === undefined ? {} : { bouncePool: { base: swiotlb.base, size: swiotlb.size } }),
    counters: () => ({
      hcalls: {
        ...byName(hypercalls.counts, HCALL_NAMES),
        ...(ultravisor === undefined ? {} : byName(ultravisor.counts, ULTRACALL_NAMES)),
      },
      tcesWritten: sum(phb, (table) => table.entriesWritten),
      tcesLive: sum(phb, (table) => table.live),
      tcesPeak: sum(phb, (table) => table.peakLive),
      translations: phb.translations,
      iommu: { maps: 0, unmaps: 0, commands: 0 },
      bytesBounced: swiotlb?.bytesBounced ?? 0,
      bytesShared: ownership.sharedBytes,
      ciphertextBytesRead: view?.ciphertextBytesRead ?? 0,
      privateBytesWriteRefused: view?.privateBytesWriteRefused ?? 0,
    }),
    reach: (space) => meter.measure(space),
  };
}

function byName(
  counts: ReadonlyMap<number, number>,
  names: ReadonlyMap<number, string>,
): Record<string, number> {
  return Object.fromEntries(
    [...counts].map(([opcode, count]) => [names.get(opcode) ?? 'unknown', count]),
  );
}

function sum(phb: SpaprPhb, of: (table: SpaprPhb['tables'][number]) => number): number {
  return phb.tables.reduce((total, table) => total + of(table), 0);
}

/** Measures what a device reaches; remembers it until a table changes. */
class ReachMeter {
  readonly #phb: SpaprPhb;
  readonly #memory: GuestMemory;
  readonly #ownership: PageOwnership | undefined;
  #changes = -1;
  #last: DeviceReach = { addressable: 0, plaintext: 0 };

  constructor(phb: SpaprPhb, memory: GuestMemory, ownership: PageOwnership | undefined) {
    this.#phb = phb;
    this.#memory = memory;
    this.#ownership = ownership;
  }

  measure(space: DmaSpace): DeviceReach {
    if (space.isIdentity) return this.#sum(this.#memory.regions);
    const changes = sum(this.#phb, (table) => table.changes);
    if (changes === this.#changes) return this.#last;
    this.#changes = changes;
    const runs = sum(this.#phb, (table) => table.live);
    const pages = { gpa: new Float64Array(runs), size: 0, count: 0 };
    const total = { addressable: 0, plaintext: 0 };
    const settle = (): void => {
      // A page that two entries of a window map counts once.
      const sorted = pages.gpa.subarray(0, pages.count).sort();
      const { size } = pages;
      const regions = [...sorted]
        .filter((gpa, i) => gpa !== sorted[i - 1] && this.#memory.isBacked(gpa, size))
        .map((base) => ({ base, size }));
      const { addressable, plaintext } = this.#sum(regions);
      total.addressable += addressable;
      total.plaintext += plaintext;
      pages.count = 0;
    };
    this.#phb.forEachReachable((gpa, size) => {
      if (size !== pages.size) settle();
      pages.size = size;
      pages.gpa[pages.count] = Number(gpa);
      pages.count += 1;
    });
    settle();
    this.#last = total;
    return total;
  }

  #sum(regions: readonly MemoryRegion[]): DeviceReach {
    let addressable = 0;
    let plaintext = 0;
    for (const { base, size } of regions) {
      addressable += size;
      plaintext +=
        this.#ownership === undefined ? size : this.#ownership.sharedBytesWithin(base, size);
    }
    return { addressable, plaintext };
  }
}

function checkMachine(machine: MachineConfig): void {
  const fail = (path: string, message: string): never => {
    throw new ModelError('E_MACHINE', message, { details: { path } });
  };
  const { memory, maxMemory } = machine;
  if (memory < MIN_MEMORY || memory > MAX_MEMORY || memory % 2 ** 24 !== 0) {
    fail(
      'machine.memory',
      `expected a multiple of 16 MiB from 256 MiB to 64 TiB, found ${memory} bytes`,
    );
  }
  if (maxMemory !== undefined && (maxMemory < memory || maxMemory > MAX_MEMORY)) {
    fail(
      'machine.maxMemory',
      `expected from ${memory} (the memory) to 64 TiB, found ${maxMemory} bytes`,
    );
  }
  if (machine.dmaWindowSize > MAX_WINDOW) {
    fail(
      'machine.dmaWindowSize',
      `expected at most 1 TiB (the guest keeps a bit for each page), found ${machine.dmaWindowSize} bytes`,
    );
  }
  if (machine.dmaRanges !== undefined) {
    fail('machine.dmaRanges', 'a pseries host bridge has windows, not dma-ranges: leave this out');
  }
  // Its own cannot be left out, and is not one of these.
  checkIommu(machine.iommu, 'pseries', ['none']);
}
