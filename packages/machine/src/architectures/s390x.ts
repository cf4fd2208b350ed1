import { invariant, ModelError } from '@pinhole/base';
import {
  createDirectDmaOps,
  type DecisionStep,
  type DeviceDma,
  GuestPages,
  hasRestrictedVirtioAccess,
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
  PageOwnership,
} from '@pinhole/memory';
import {
  CCW_AREA_SIZE,
  connectCcwInterrupts,
  createCcwTransport,
  createVirtioCcw,
  type VirtioDeviceCore,
  type VirtioTransport,
} from '@pinhole/virtio';
import {
  type Architecture,
  defineArchitecture,
  type Platform,
  type PlatformOptions,
} from '../architecture.js';
import type { MachineConfig } from '../scenario-config.js';
import { checkIommu, directDma, IommuReach, physicalDma } from './iommu-bus.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const PAGE_SIZE = 4096;
/** Below this the kernel image and what firmware left; pages come from above. */
const KERNEL_BASE = 16 * MIB;
const MIN_MEMORY = 256 * MIB;
const MAX_MEMORY = 2 ** 40;
/**
 * The coherent mask of a channel device is 31 bits wide: rings, payloads and the pool lie below.
 * [linux v6.1 drivers/s390/cio/css.c css_alloc_subchannel]
 */
const COHERENT_END = 2 * GIB;

/**
 * IBM Z: virtio behind channel I/O, whose devices have no IOMMU and no address space of their own.
 * Secure Execution makes memory private, page by page.
 */
export const s390x: Architecture = defineArchitecture({
  id: 's390x',
  title: 's390x (virtio-ccw)',
  variants: [{ id: 's390x', title: 'channel I/O', machine: { memory: '2GiB' } }],
  secure: 'Secure Execution',
  build: buildS390x,
});

function buildS390x(options: PlatformOptions): Platform {
  const { machine, guest, kernel, rng } = options;
  checkMachine(machine);
  const guestMemory = createGuestMemory({ regions: [{ base: 0, size: machine.memory }] });
  const ultravisor = guest.secure ? new Ultravisor(guestMemory) : undefined;
  const view =
    ultravisor === undefined ? undefined : new HypervisorView(guestMemory, ultravisor.ownership);
  const hypervisorMemory: GuestMemory = view ?? guestMemory;
  const half = Math.floor(machine.memory / 2 / MIB) * MIB;
  const pages = new GuestPages({
    pageSize: PAGE_SIZE,
    kernel: { base: KERNEL_BASE, size: Math.min(half, COHERENT_END) - KERNEL_BASE },
    user: { base: half, size: machine.memory - half },
    rng,
  });
  const swiotlb = ultravisor === undefined ? undefined : initBounce(options, pages, ultravisor);
  const dma =
    ultravisor === undefined
      ? directDma({
          guestMemory,
          pages,
          because: 'dma-direct: bus addresses are physical addresses',
        })
      : protectedDma(guestMemory, pages, ultravisor, swiotlb);
  // A page of the channel subsystem's pool. [linux v6.1 drivers/s390/cio/css.c cio_gp_dma_create]
  const area = pages.allocPages(CCW_AREA_SIZE);
  invariant(area !== undefined, 's390x: the guest has room for its channel programs');
  ultravisor?.setShared(area, PAGE_SIZE, true);
  const reach = new IommuReach(guestMemory, ultravisor?.ownership);
  return {
    guestMemory,
    hypervisorMemory,
    ...(ultravisor === undefined
      ? {}
      : { observer: new HypervisorView(guestMemory, ultravisor.ownership) }),
    systemMemory: createSystemMemorySpace(hypervisorMemory),
    connect: (core) => connectCcw(core, guestMemory, hypervisorMemory, area),
    pages,
    smpCacheBytes: SMP_CACHE_BYTES.s390x,
    dma,
    hook: guest.secure
      ? { answer: true, because: 'guest memory is protected', dma }
      : {
          answer: false,
          because: 'guest memory is not protected',
          dma: physicalDma(guestMemory, pages),
        },
    hasRestrictedMemoryAccess: hasRestrictedVirtioAccess(kernel, 's390x', guest.secure),
    ...(swiotlb === undefined ? {} : { bouncePool: { base: swiotlb.base, size: swiotlb.size } }),
    counters: () => ({
      hcalls: { ...ultravisor?.calls },
      tcesLive: 0,
      tcesPeak: 0,
      translations: 0,
      iommu: { maps: 0, unmaps: 0, commands: 0 },
      bytesBounced: swiotlb?.bytesBounced ?? 0,
      bytesShared: ultravisor?.ownership.sharedBytes ?? 0,
      ciphertextBytesRead: view?.ciphertextBytesRead ?? 0,
      privateBytesWriteRefused: view?.privateBytesWriteRefused ?? 0,
    }),
    reach: (space) => reach.measure(space),
  };
}

function connectCcw(
  core: VirtioDeviceCore,
  guestMemory: GuestMemory,
  hypervisorMemory: GuestMemory,
  area: number,
): VirtioTransport {
  const device = createVirtioCcw({ device: core, memory: hypervisorMemory });
  const interrupts = connectCcwInterrupts(device);
  const made = createCcwTransport(device, { memory: guestMemory, area, interrupts });
  invariant(made.ok, 's390x: a modelled subchannel has a virtio device');
  return made.transport;
}

/** The ultravisor, for the two calls with which a protected guest shares a page. */
class Ultravisor {
  readonly ownership: PageOwnership = new PageOwnership({ pageSize: PAGE_SIZE });
  /** By name. [linux v6.1 arch/s390/include/asm/uv.h] */
  readonly calls: Record<string, number> = {};
  readonly memory: GuestMemory;

  constructor(memory: GuestMemory) {
    this.memory = memory;
  }

  /**
   * One call a page. [linux v6.1 arch/s390/mm/init.c set_memory_decrypted, set_memory_encrypted]
   *
   * Deviates: the contents stay; the callers clear what they share.
   */
  setShared(gpa: number, length: number, isShared: boolean): void {
    invariant(this.memory.isBacked(gpa, length), 'Ultravisor: a guest shares its own pages');
    const count = Math.ceil(length / PAGE_SIZE);
    const name = isShared ? 'UVC_CMD_SET_SHARED_ACCESS' : 'UVC_CMD_REMOVE_SHARED_ACCESS';
    this.calls[name] = (this.calls[name] ?? 0) + count;
    if (isShared) this.ownership.share(gpa, length);
    else this.ownership.unshare(gpa, length);
  }
}

/**
 * The pool, shared at boot. Nobody has one who is not protected, whatever the command line says: so
 * Linux 6.12 in the recording linux6.12-s390x-ccw-swiotlb.
 * [linux v6.1 arch/s390/mm/init.c pv_init], from 5.3 on by date (64e1f0c531d1)
 */
function initBounce(
  { guest, kernel, machine, tracer }: PlatformOptions,
  pages: GuestPages,
  ultravisor: Ultravisor,
): Swiotlb | undefined {
  const { swiotlb: asked } = parseKernelCommandLine(guest.cmdline);
  if (asked.noforce || !kernel.swiotlb.isForcedForSecure) return undefined;
  const { bytes, areas } = swiotlbPool(asked, kernel.swiotlb.hasAreas ? machine.cpus : 1);
  const base = pages.allocPages(bytes, PAGE_SIZE);
  if (base === undefined) {
    throw new ModelError(
      'E_MACHINE',
      `expected a bounce pool that fits the lower half of memory below 2 GiB, found ${bytes} bytes`,
      { details: { path: 'guest.cmdline' } },
    );
  }
  ultravisor.setShared(base, bytes, true);
  return new Swiotlb({
    memory: ultravisor.memory,
    base,
    size: bytes,
    pageSize: PAGE_SIZE,
    cpus: areas,
    search: kernel.swiotlb.search,
    onFull: (message) => {
      if (tracer.on) tracer.event('guest', 'guest_warn', { message });
    },
  });
}

/** Buffers bounce, coherent memory is shared page by page. */
function protectedDma(
  memory: GuestMemory,
  pages: GuestPages,
  ultravisor: Ultravisor,
  swiotlb: Swiotlb | undefined,
): DeviceDma {
  const ops = createDirectDmaOps({
    memory,
    pages,
    ranges: memory.regions.map(({ base, size }) => ({
      cpuStart: base,
      dmaStart: BigInt(base),
      size,
    })),
    ...(swiotlb === undefined ? {} : { forceBounce: swiotlb }),
    // [linux v6.1 arch/s390/mm/init.c force_dma_unencrypted]
    setShared: (gpa, length, isShared) => ultravisor.setShared(gpa, length, isShared),
    cpu: () => 0,
  });
  const steps: DecisionStep[] = [
    {
      what: 'pv_init: do all buffers bounce?',
      fact:
        swiotlb === undefined
          ? 'no: the kernel does not, or swiotlb=noforce'
          : `yes: a protected guest; ${swiotlb.size / PAGE_SIZE} pages shared, one ultravisor call each`,
      source: '[linux v6.1 arch/s390/mm/init.c pv_init]',
    },
  ];
  return {
    ops,
    isBounced: swiotlb !== undefined,
    hasBusOffset: false,
    because:
      swiotlb === undefined
        ? 'dma-direct: physical addresses, of private memory'
        : 'dma-direct: bounce buffers, at their physical addresses (a protected guest)',
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
      `expected a multiple of 1 MiB from 256 MiB to 1 TiB, found ${memory} bytes`,
    );
  }
  if (machine.maxMemory !== undefined) {
    fail('machine.maxMemory', 'hotplug is modelled for pseries only');
  }
  if (machine.dmaRanges !== undefined) {
    fail('machine.dmaRanges', 'channel devices find memory where it is: leave this out');
  }
  checkIommu(machine.iommu, 's390x', ['none']);
}
