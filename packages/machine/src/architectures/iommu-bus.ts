/** A PCI bus with an emulated IOMMU, or with none: what is the same on x86-64 and arm64. */
import { ModelError, type Tracer } from '@pinhole/base';
import {
  createDirectDmaOps,
  createIntelIommuDriver,
  createPhysicalDmaOps,
  createSmmuV3Driver,
  createVirtioIommuDriver,
  type DecisionStep,
  type DeviceDma,
  type GuestPages,
  type IommuCounts,
  type IommuDriver,
  IovaDma,
  type IovaDmaOptions,
  type KernelProfile,
  parseIommuCommandLine,
} from '@pinhole/guest';
import {
  createSystemMemorySpace,
  DmaAccess,
  type DmaSpace,
  type GuestMemory,
  IOMMU_PAGE_SIZE,
  type IommuObserver,
  IommuSpace,
  type IommuSpaceOptions,
  type PageOwnership,
} from '@pinhole/memory';
import type { DeviceReach } from '../architecture.js';
import type { MachineConfig } from '../scenario-config.js';

type Iommu = Exclude<MachineConfig['iommu'], 'none'>;

/** What is different about an IOMMU, as QEMU and Linux have it. */
interface IommuModel {
  readonly addressBits: number;
  /** 0: none. */
  readonly iotlbSize: number;
  readonly source: string;
  createDriver(hardware: IommuSpace, isDeferred: boolean): IommuDriver;
}

const IOMMU_MODELS: Readonly<Record<Iommu, IommuModel>> = {
  'intel-iommu': {
    addressBits: 39,
    iotlbSize: 1024,
    source: '[linux v6.1 drivers/iommu/intel/iommu.c]',
    createDriver: (hardware) => createIntelIommuDriver({ hardware }),
  },
  'virtio-iommu': {
    addressBits: 48,
    iotlbSize: 0,
    source: '[linux v6.1 drivers/iommu/virtio-iommu.c]',
    createDriver: (hardware, isDeferred) => createVirtioIommuDriver({ hardware, isDeferred }),
  },
  smmuv3: {
    addressBits: 48,
    iotlbSize: 256,
    source: '[linux v6.1 drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c]',
    createDriver: (hardware) => createSmmuV3Driver({ hardware }),
  },
};

/** Options of {@link buildIommuBus}. */
export interface IommuBusOptions {
  readonly platform: 'x86-64' | 'arm64';
  readonly iommu: Iommu;
  readonly qemu: MachineConfig['qemu'];
  readonly kernel: KernelProfile;
  readonly cmdline: string;
  readonly guestMemory: GuestMemory;
  readonly hypervisorMemory: GuestMemory;
  readonly pages: GuestPages;
  readonly reserved: NonNullable<IovaDmaOptions['reserved']>;
  readonly interrupts?: NonNullable<IommuSpaceOptions['interrupts']>;
  /** The other way round: where they go, mapped as buffers are. */
  readonly doorbell?: IovaDmaOptions['doorbell'];
  /** What the DMA API is where the IOMMU is not used. */
  readonly direct: DeviceDma;
  readonly tracer: Tracer;
}

/** What an IOMMU adds to a platform. */
export interface IommuBus {
  readonly busSpace: DmaSpace;
  readonly dma: DeviceDma;
  /** Absent: the guest leaves it alone, and it passes devices through. */
  readonly space?: IommuSpace;
  counts(): IommuBusCounts;
  /** The timer of deferred invalidation fires, if something waits for it. */
  settle(): void;
}

/** What the driver did, and what devices could do by it. */
export interface IommuBusCounts {
  readonly iommu: IommuCounts;
  /** Pages mapped, but for those whose unmap is under way; and the most that there ever were. */
  readonly tcesLive: number;
  readonly tcesPeak: number;
  readonly pagesStale?: number;
  readonly translations: number;
}

/** Of a bus without an IOMMU that is used. */
export const NO_COUNTS: IommuBusCounts = {
  iommu: { maps: 0, unmaps: 0, commands: 0 },
  tcesLive: 0,
  tcesPeak: 0,
  translations: 0,
};

/** @throws ModelError for one that the machine does not have, with those that it has. */
export function checkIommu(
  iommu: MachineConfig['iommu'],
  arch: string,
  has: readonly MachineConfig['iommu'][],
): void {
  if (has.includes(iommu)) return;
  throw new ModelError(
    'E_MACHINE',
    `expected ${has.map((name) => JSON.stringify(name)).join(' or ')}: what a machine of ${arch} can have, found "${iommu}"`,
    { details: { path: 'machine.iommu' } },
  );
}

/** The IOMMU, its driver in the guest if the kernel has one and uses it, and the DMA ops over both. */
export function buildIommuBus(options: IommuBusOptions): IommuBus {
  const { iommu, guestMemory, hypervisorMemory, pages } = options;
  const model = IOMMU_MODELS[iommu];
  const steps: DecisionStep[] = [];
  const why = whyPassedThrough(options, model, steps);
  if (why !== undefined) {
    const busSpace = passThrough(hypervisorMemory, iommu);
    const { direct } = options;
    const dma = {
      ...direct,
      because: `${why}; ${direct.because}`,
      steps: [...steps, ...direct.steps],
    };
    return { busSpace, dma, counts: () => NO_COUNTS, settle: () => undefined };
  }
  const isDeferred = isInvalidationDeferred(options, steps);
  const space = new IommuSpace({
    name: iommu,
    memory: hypervisorMemory,
    addressBits: model.addressBits,
    iotlbSize: model.iotlbSize,
    ...(options.interrupts === undefined ? {} : { interrupts: options.interrupts }),
    // Since 8.0 all is told. [qemu commit 3e090e3489db]
    ...(iommu === 'intel-iommu' && options.qemu === '7.2'
      ? { invalidateAllTells: 'known' as const }
      : {}),
    ...(options.tracer.on && iommu === 'intel-iommu'
      ? { observer: vtdObserver(options.tracer) }
      : {}),
  });
  const driver = model.createDriver(space, isDeferred);
  const ops = new IovaDma({
    driver,
    memory: guestMemory,
    pages,
    reserved: options.reserved,
    ...(options.doorbell === undefined ? {} : { doorbell: options.doorbell }),
    apertureEnd: (1n << BigInt(model.addressBits)) - 1n,
    isDeferred,
    isSacOnce: options.kernel.iommuDma.isSacOnce,
    tracer: options.tracer,
  });
  const dma: DeviceDma = {
    ops,
    isBounced: false,
    hasBusOffset: true,
    because: `${iommu}: each buffer gets a bus address of its own, ${isDeferred ? 'invalidated later, many at once' : 'invalidated at its unmap'}`,
    steps,
  };
  return {
    busSpace: space,
    dma,
    space,
    counts: () => ({
      iommu: { ...driver.counts },
      tcesLive: space.livePages - driver.waitingPages,
      tcesPeak: space.peakPages,
      pagesStale: space.stalePages + driver.waitingPages,
      translations: space.translations,
    }),
    settle: () => {
      if (ops.deferred > 0) ops.flush();
    },
  };
}

/** The domain and the device of this machine, as QEMU's log has them. */
const DOMAIN = 3;
const DEVICE = '00:01.00';
const SID = 8;

// What QEMU's VT-d reports.
function vtdObserver(tracer: Tracer): IommuObserver {
  const mask = BigInt(IOMMU_PAGE_SIZE - 1);
  return {
    translated(iova, gpa, access) {
      if (gpa === undefined) {
        const write = access === DmaAccess.WRITE ? 1 : 0;
        // [qemu v7.2 hw/i386/intel_iommu_internal.h VTD_FR_WRITE, VTD_FR_READ]
        const args = { sid: SID, fault: write === 1 ? 5 : 6, addr: iova, write };
        tracer.event('hypervisor', 'vtd_dmar_fault', args);
        return;
      }
      const page = BigInt(gpa) & ~mask;
      const args = { dev: DEVICE, iova: iova & ~mask, gpa: page, mask };
      tracer.event('hypervisor', 'vtd_dmar_translate', args);
    },
    invalidated(pfn, count = 1) {
      if (pfn === undefined) {
        tracer.event('hypervisor', 'vtd_inv_desc_iotlb_domain', { domain: DOMAIN });
        return;
      }
      const addr = BigInt(pfn) * BigInt(IOMMU_PAGE_SIZE);
      const args = { domain: DOMAIN, addr, mask: Math.log2(count) };
      tracer.event('hypervisor', 'vtd_inv_desc_iotlb_pages', args);
    },
  };
}

// [linux v6.1 drivers/iommu/iommu.c iommu_subsys_init, iommu_get_def_domain_type]
function whyPassedThrough(
  { iommu, platform, kernel, cmdline }: IommuBusOptions,
  { source }: IommuModel,
  steps: DecisionStep[],
): string | undefined {
  const { isOff, isPassthrough } = parseIommuCommandLine(cmdline);
  const step = (what: string, fact: string, from = source): void => {
    steps.push({ what, fact, source: from });
  };
  const hasDriver = iommu !== 'virtio-iommu' || kernel.iommuDma.virtioIommu.includes(platform);
  if (!hasDriver) {
    step('the driver of the IOMMU', `${kernel.id} has none for it`, kernel.iommuDma.source);
    return `no driver for ${iommu}, which lets devices bypass it`;
  }
  if (isOff && platform === 'x86-64' && iommu === 'intel-iommu') {
    step('intel_iommu_setup: is the IOMMU used?', 'no: the command line says off');
    return `${iommu} is switched off`;
  }
  step('the driver of the IOMMU', iommu);
  if (!isPassthrough) return undefined;
  step(
    'iommu_get_def_domain_type: what domain does the device get?',
    'passed through: the command line says so',
    '[linux v6.1 drivers/iommu/iommu.c iommu_subsys_init]',
  );
  return `${iommu} passes the device through`;
}

/**
 * By default x86 kernels are built to defer, Arm's are not; virtio-iommu's driver has to know how.
 * (intel-iommu defers as QEMU has it by default, without caching mode.)
 * [linux v6.1 drivers/iommu/Kconfig IOMMU_DEFAULT_DMA_LAZY; drivers/iommu/intel/iommu.c intel_iommu_init]
 */
function isInvalidationDeferred(
  { iommu, platform, kernel, cmdline }: IommuBusOptions,
  steps: DecisionStep[],
): boolean {
  const { isStrict: asked, isIntelStrict } = parseIommuCommandLine(cmdline);
  const isHeard = iommu !== 'intel-iommu' || kernel.iommuDma.vtdHearsStrict || isIntelStrict;
  const isStrict = isHeard ? asked : undefined;
  const isWanted = isStrict === undefined ? platform === 'x86-64' : !isStrict;
  const isAble = iommu !== 'virtio-iommu' || kernel.iommuDma.virtioIommuDefers;
  const why =
    isStrict === undefined
      ? `built so for ${platform}${asked === undefined ? '' : ', and iommu.strict= is not for this driver'}`
      : isIntelStrict
        ? 'intel_iommu=strict'
        : `iommu.strict=${isStrict ? 1 : 0}`;
  steps.push({
    what: 'iommu_dma_init_fq: is invalidation deferred?',
    fact: isWanted && !isAble ? 'no: the driver cannot' : `${isWanted ? 'yes' : 'no'}: ${why}`,
    source: '[linux v6.1 drivers/iommu/Kconfig, drivers/iommu/dma-iommu.c iommu_dma_init_domain]',
  });
  return isWanted && isAble;
}

// Nothing is translated: the device has system memory.
function passThrough(memory: GuestMemory, iommu: string): DmaSpace {
  const system = createSystemMemorySpace(memory);
  return {
    name: `system memory, past ${iommu}`,
    isIdentity: true,
    translate: (hi, lo, length, access, out) => system.translate(hi, lo, length, access, out),
    covers: (hi, lo, length) => system.covers(hi, lo, length),
  };
}

/** DMA ops whose bus addresses are physical ones. */
export function directDma(options: {
  readonly guestMemory: GuestMemory;
  readonly pages: GuestPages;
  readonly because: string;
  readonly steps?: readonly DecisionStep[];
}): DeviceDma {
  const { guestMemory: memory, pages, because, steps = [] } = options;
  const ranges = memory.regions.map(({ base, size }) => {
    return { cpuStart: base, dmaStart: BigInt(base), size };
  });
  const ops = createDirectDmaOps({ memory, pages, ranges, cpu: () => 0 });
  return { ops, isBounced: false, hasBusOffset: false, because, steps };
}

/** What virtio does without the DMA API. */
export function physicalDma(memory: GuestMemory, pages: GuestPages): DeviceDma {
  return {
    ops: createPhysicalDmaOps({ memory, pages }),
    isBounced: false,
    hasBusOffset: false,
    because: 'physical addresses',
    steps: [],
  };
}

/** How much of memory a device reaches; remembers it until the IOMMU's mappings change. */
export class IommuReach {
  readonly #memory: GuestMemory;
  readonly #ownership: PageOwnership | undefined;
  readonly #space: IommuSpace | undefined;
  #changes = -1;
  #last: DeviceReach = { addressable: 0, plaintext: 0 };

  constructor(memory: GuestMemory, ownership?: PageOwnership, space?: IommuSpace) {
    this.#memory = memory;
    this.#ownership = ownership;
    this.#space = space;
  }

  measure(of: DmaSpace): DeviceReach {
    const space = this.#space;
    if (of !== space || space === undefined) return this.#all();
    if (space.changes === this.#changes) return this.#last;
    const total = { addressable: 0, plaintext: 0 };
    space.forEachReachable((gpa, length) => {
      if (!this.#memory.isBacked(gpa, length)) return;
      total.addressable += length;
      total.plaintext += this.#plaintext(gpa, length);
    });
    this.#changes = space.changes;
    this.#last = total;
    return total;
  }

  #all(): DeviceReach {
    let addressable = 0;
    let plaintext = 0;
    for (const { base, size } of this.#memory.regions) {
      addressable += size;
      plaintext += this.#plaintext(base, size);
    }
    return { addressable, plaintext };
  }

  #plaintext(gpa: number, length: number): number {
    return this.#ownership === undefined ? length : this.#ownership.sharedBytesWithin(gpa, length);
  }
}
