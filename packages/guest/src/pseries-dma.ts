import { type Gpa, hex, type Ioba, invariant, NO_TRACE, type Tracer } from '@pinhole/base';
import {
  type Hypercalls,
  U_SUCCESS,
  type Ultracalls,
  UV_SHARE_PAGE,
  UV_UNSHARE_PAGE,
} from '@pinhole/hcall';
import type { DmaOps, GuestMemory, MemoryRegion } from '@pinhole/memory';
import { type DdwDevice, DynamicDmaWindows } from './ddw.js';
import type { DecisionStep } from './decision-step.js';
import { createDirectDmaOps } from './dma-direct.js';
import { DmaDispatch, dmaBitMask } from './dma-dispatch.js';
import { createDispatchedDmaOps } from './dma-dispatched.js';
import { createIommuDmaOps } from './dma-iommu.js';
import type { GuestPages } from './guest-pages.js';
import { IommuTable } from './iommu-table.js';
import { type KernelCommandLine, parseKernelCommandLine } from './kernel-command-line.js';
import type { KernelProfile } from './kernel-profiles/types.js';
import type { PhbDescription } from './phb-description.js';
import { Rtas } from './rtas.js';
import { Swiotlb, swiotlbPool } from './swiotlb.js';
import { TceCalls } from './tce-calls.js';

const TCE_PAGE_SHIFT = 12;
const DEFAULT_SLOT = '0000:00:00.0';

/** Options of {@link PseriesDma}. */
export interface PseriesDmaOptions {
  readonly kernel: KernelProfile;
  readonly memory: GuestMemory;
  readonly pages: GuestPages;
  readonly hypercalls: Hypercalls;
  readonly phb: PhbDescription;
  /** `hcall-multi-tce` is in `ibm,hypertas-functions`. */
  readonly hasMultiTce: boolean;
  /** The guest runs in secure memory: pages are private unless shared through these. */
  readonly ultracalls?: Ultracalls;
  readonly cpus: number;
  /** PCI functions that are there at boot. Default: one, 0000:00:00.0. */
  readonly slots?: readonly string[];
  /** What of the kernel's command line concerns DMA. Default: nothing. */
  readonly commandLine?: KernelCommandLine;
  readonly tracer?: Tracer;
}

/** What the DMA API is for one device. */
export interface DeviceDma {
  readonly ops: DmaOps;
  /** Buffers are copied: the device gets the bounce pool, never the buffer. */
  readonly isBounced: boolean;
  /** Bus addresses differ from physical ones. */
  readonly hasBusOffset: boolean;
  /** One line. */
  readonly because: string;
  /** How it came to that. */
  readonly steps: readonly DecisionStep[];
  /** The device's state, where the generic DMA code asks it. */
  readonly dispatch?: DmaDispatch;
}

/** What a driver asks for; see {@link PseriesDma.probe}. */
export interface ProbeRequest {
  /** `dma_set_mask`. Default: 64 bits. */
  readonly streamingMask?: bigint;
  /** `dma_set_coherent_mask`. Default: 64 bits; `undefined`: the driver does not set it. */
  readonly coherentMask?: bigint | undefined;
  /** Default: 0000:00:00.0. */
  readonly slot?: string;
  /** As the kernel's log names it. Default: virtio-pci. */
  readonly driver?: string;
}

/**
 * The masks of virtio's two PCI transports. [linux v6.1 drivers/virtio/virtio_pci_modern_dev.c
 * vp_modern_probe, virtio_pci_legacy_dev.c vp_legacy_probe]
 */
export const VIRTIO_PCI_MASKS: Readonly<
  Record<'modern' | 'legacy', { readonly streamingMask: bigint; readonly coherentMask: bigint }>
> = {
  modern: { streamingMask: dmaBitMask(64), coherentMask: dmaBitMask(64) },
  legacy: { streamingMask: dmaBitMask(64), coherentMask: dmaBitMask(44) },
};

/**
 * DMA of a pseries guest: one host bridge's tables and windows, and what a device below it gets.
 * [linux v6.1 arch/powerpc/platforms/pseries/iommu.c, arch/powerpc/kernel/dma-iommu.c]
 */
export class PseriesDma {
  /** The bounce pool of a secure guest. */
  readonly swiotlb: Swiotlb | undefined;
  /** Lines of the kernel's log about DMA, without time stamps. */
  readonly log: string[] = [];
  readonly #options: PseriesDmaOptions;
  readonly #commandLine: KernelCommandLine;
  readonly #tracer: Tracer;
  readonly #tceCalls: TceCalls;
  readonly #table: IommuTable;
  readonly #ddw: DynamicDmaWindows;
  readonly #devices = new Map<string, Device>();

  /** Boots: shares the bounce pool if secure, then clears the default window. */
  constructor(options: PseriesDmaOptions) {
    this.#options = options;
    this.#commandLine = options.commandLine ?? parseKernelCommandLine('');
    this.#tracer = options.tracer ?? NO_TRACE;
    const { memory, pages, hypercalls, phb, ultracalls, kernel } = options;
    const isSecure = ultracalls !== undefined;
    const isMultiTce = options.hasMultiTce && this.#commandLine.multitce;
    if (options.hasMultiTce && !isMultiTce) this.log.push('Disabling MULTITCE firmware feature');
    const { force, noforce } = this.#commandLine.swiotlb;
    const isForced = force || (isSecure && kernel.swiotlb.isForcedForSecure);
    // Without need there is no pool; noforce takes it away even from who needs it.
    this.swiotlb = isForced && !noforce ? this.#initSwiotlb() : undefined;
    const listPage = this.#kernelPages(4096);
    const rtasBuffer = this.#kernelPages(pages.pageSize);
    // Deviates: the real ultravisor copies RTAS arguments for the guest; here the buffer is shared.
    if (isSecure) this.#setShared(rtasBuffer, pages.pageSize, true);
    this.#tceCalls = new TceCalls({
      hypercalls,
      memory,
      listPage,
      // A secure guest does not show its list page. [linux v6.1 arch/powerpc/platforms/pseries/firmware.c]
      usePutIndirect: isMultiTce && !(isSecure && kernel.tce.secure === 'no-put-indirect'),
      useStuff: isMultiTce,
      tracer: this.#tracer,
    });
    this.#table = new IommuTable({
      liobn: phb.dmaWindow.liobn,
      busOffset: phb.dmaWindow.busOffset,
      size: phb.dmaWindow.size / 2 ** TCE_PAGE_SHIFT,
      pageShift: TCE_PAGE_SHIFT,
      allocator: kernel.allocator,
    });
    if (!this.#commandLine.iommuOff) {
      // [linux v6.1 arch/powerpc/kernel/iommu.c iommu_table_clear]
      this.#tceCalls.free(this.#table, 0, this.#table.size);
      const merging = this.#commandLine.novmerge ? 'disabled' : 'enabled';
      this.log.push(`IOMMU table initialized, virtual merging ${merging}`);
    }
    this.#ddw = new DynamicDmaWindows({
      phb,
      kernel,
      rtas: new Rtas({ hypercalls, memory, buffer: rtasBuffer }),
      tceCalls: this.#tceCalls,
      memory: memory.regions,
      defaultTable: this.#table,
    });
    for (const slot of options.slots ?? [DEFAULT_SLOT]) this.#setUpDevice(slot);
  }

  // [linux v6.12 arch/powerpc/platforms/pseries/iommu.c pci_dma_dev_setup_pSeriesLP]
  #setUpDevice(slot: string): void {
    const print = this.#printer('pci', slot);
    const hasOps = this.#hasOps();
    const device = new Device(this.#options, slot, this.#table, hasOps);
    if (this.#commandLine.iommuOff) {
      this.#devices.set(slot, device);
      return;
    }
    if (this.#devices.size === 0) this.#ddw.queryAtBoot({ configAddr: configAddr(slot), print });
    this.#devices.set(slot, device);
    print('Adding to iommu group 0');
  }

  #hasOps(): boolean {
    const { ultracalls, kernel } = this.#options;
    const isTaken = ultracalls !== undefined && kernel.tce.secure === 'no-pci-dma-ops';
    return !this.#commandLine.iommuOff && !isTaken;
  }

  /**
   * What a device gets that asks for these masks. Without any it asks as virtio's modern transport
   * does: 64 bits, twice; the last answer holds.
   * [linux v6.1 kernel/dma/mapping.c dma_set_mask, dma_set_coherent_mask]
   */
  probe(request: ProbeRequest = {}): DeviceDma {
    const slot = request.slot ?? DEFAULT_SLOT;
    if (!this.#devices.has(slot)) this.#setUpDevice(slot);
    const device = this.#devices.get(slot) as Device;
    const print = this.#printer(request.driver ?? 'virtio-pci', slot);
    const streaming = request.streamingMask ?? dmaBitMask(64);
    const coherent = 'coherentMask' in request ? request.coherentMask : dmaBitMask(64);
    const steps = this.#initialSteps(device);
    const { dispatch } = device;
    if (this.#setMask(device, print, streaming, 'streaming', steps)) {
      dispatch.streamingMask = streaming;
    }
    if (coherent !== undefined && this.#setMask(device, print, coherent, 'coherent', steps)) {
      dispatch.coherentMask = coherent;
    }
    return this.#describe(device, print, steps);
  }

  #initialSteps(device: Device): DecisionStep[] {
    const { kernel, ultracalls } = this.#options;
    const what = 'iommu_init_early_pSeries: the DMA operations of PCI devices';
    if (!device.dispatch.hasOps) {
      const why = this.#commandLine.iommuOff ? 'iommu=off' : 'the guest is secure';
      return [{ what, fact: `none: ${why}`, source: kernel.tce.source }];
    }
    const steps = [{ what, fact: 'dma_iommu_ops', source: kernel.ddw.source }];
    if (ultracalls !== undefined) {
      steps.push({
        what: 'svm_swiotlb_init: does a secure guest bounce?',
        fact: this.#describePool(),
        source: kernel.swiotlb.source,
      });
    }
    return steps;
  }

  #describePool(): string {
    if (this.swiotlb !== undefined) return 'yes, always';
    const isTaken = this.#commandLine.swiotlb.noforce;
    return isTaken ? 'no: swiotlb=noforce' : 'no: this kernel does not know of it';
  }

  // [linux v6.1 arch/powerpc/kernel/dma-iommu.c dma_iommu_dma_supported]
  #setMask(
    device: Device,
    print: (message: string) => void,
    mask: bigint,
    which: 'streaming' | 'coherent',
    steps: DecisionStep[],
  ): boolean {
    const { kernel } = this.#options;
    const { dispatch } = device;
    const step = (what: string, fact: string): void => {
      steps.push({ what: `${which} mask: ${what}`, fact, source: kernel.dispatch.source });
    };
    if (!dispatch.hasOps) return true;
    // Before 5.1 the coherent mask chose nothing. [linux v4.18 arch/powerpc/kernel/dma.c]
    const isAsked = kernel.dispatch.bypass !== 'set-ops' || which === 'streaming';
    if (isAsked && this.#asksForWindow(mask, step)) {
      const result = this.#ddw.enable(device.forDdw(print), mask);
      steps.push(...result.steps.map((each) => ({ ...each, what: `${which} mask: ${each.what}` })));
      if (result.isDirect) {
        dispatch.dmaOpsBypass = kernel.dispatch.bypassWithLimit || dispatch.busDmaLimit === 0n;
        const limit = dispatch.busDmaLimit.toString(16);
        if (kernel.dispatch.bypassWithLimit || !dispatch.dmaOpsBypass) {
          print(`iommu: 64-bit OK but direct DMA is limited by ${limit}`);
        }
        if (kernel.dispatch.bypass === 'set-ops') {
          print(`Using 64-bit direct DMA at offset ${dispatch.dmaOffset.toString(16)}`);
        }
        step('dma_iommu_dma_supported', `dma_ops_bypass = ${dispatch.dmaOpsBypass}`);
        return true;
      }
    }
    if (!isAsked) return true;
    const { table } = device;
    if (table === undefined) {
      const text = `0x${mask.toString(16).padStart(8, '0')}`;
      print(`Warning: IOMMU dma not supported: mask ${text}, table unavailable`);
      step('dma_iommu_dma_supported', 'not supported: the device has no table');
      return false;
    }
    if (table.busOffset > mask) {
      print('Warning: IOMMU offset too big for device mask');
      const [at, start] = [mask, table.busOffset].map((v) => v.toString(16).padStart(8, '0'));
      print(`mask: 0x${at}, table offset: 0x${start}`);
      step('dma_iommu_dma_supported', 'not supported: the window starts above the mask');
      return false;
    }
    dispatch.dmaOpsBypass = false;
    step('dma_iommu_dma_supported', 'dma_ops_bypass = false: buffers are mapped one by one');
    return true;
  }

  // [linux v6.1 arch/powerpc/platforms/pseries/iommu.c iommu_bypass_supported_pSeriesLP]
  #asksForWindow(mask: bigint, step: (what: string, fact: string) => void): boolean {
    if (this.#commandLine.disableDdw) {
      step('iommu_bypass_supported', 'not there: disable_ddw on the command line');
      return false;
    }
    const isExact = this.#options.kernel.ddw.masks === 'exactly-64-bit';
    const asks = isExact ? mask === dmaBitMask(64) : mask > dmaBitMask(32);
    const rule = isExact ? 'exactly 64 bits ask for a second window' : 'more than 32 bits do';
    step(
      'iommu_bypass_supported_pSeriesLP',
      `${asks ? 'yes' : 'no'}: 0x${mask.toString(16)}; ${rule}`,
    );
    return asks;
  }

  #describe(device: Device, print: (message: string) => void, steps: DecisionStep[]): DeviceDma {
    const { dispatch, table } = device;
    const { kernel, memory } = this.#options;
    const endOfMemory = endOf(memory.regions);
    const direct = this.#directOps(dispatch.dmaOffset, dispatch, print);
    const isDirect = dispatch.mapsDirect(endOfMemory);
    const ops = createDispatchedDmaOps({
      dispatch,
      direct,
      endOfMemory,
      ...(table === undefined || !dispatch.hasOps ? {} : { ops: this.#iommuOps(table, print) }),
    });
    steps.push({
      what: 'dma_map_page_attrs: which way do maps go?',
      fact: `${isDirect ? 'direct' : 'through the window'}: dma_ops_bypass ${dispatch.dmaOpsBypass}, bus_dma_limit 0x${dispatch.busDmaLimit.toString(16)}, dma_offset ${hex(dispatch.dmaOffset)}`,
      source: kernel.dispatch.source,
    });
    if (dispatch.leaksMappings) {
      steps.push({
        what: 'arch_dma_unmap_page_direct: and unmaps?',
        fact: `direct: each handle is at or above dma_offset ${hex(dispatch.dmaOffset)}, so no entry is ever cleared`,
        source: '[linux v6.12 arch/powerpc/kernel/dma-iommu.c arch_dma_unmap_page_direct]',
      });
    }
    return {
      ops,
      isBounced: isDirect && this.swiotlb !== undefined,
      hasBusOffset: isDirect ? dispatch.dmaOffset !== 0n : true,
      because: this.#because(device, isDirect, steps),
      steps,
      dispatch,
    };
  }

  #because({ dispatch, table }: Device, isDirect: boolean, steps: readonly DecisionStep[]): string {
    if (isDirect) {
      const bounce = this.swiotlb === undefined ? '' : 'bounce buffers, ';
      const offset = hex(dispatch.dmaOffset);
      return dispatch.dmaOffset === 0n
        ? `${bounce}physical addresses, which no window maps`
        : `second window: ${bounce}physical address + ${offset}, mapped once`;
    }
    const failure = steps.findIndex(({ what }) => what.includes('failed_ddw_pdn_list'));
    const decided = steps[failure < 0 ? -1 : failure - 1];
    const refusal = steps.find(
      ({ fact }) => fact.startsWith('not there') || fact.startsWith('no:'),
    );
    const step = decided ?? refusal;
    const why = step === undefined ? 'no second window' : `${step.what}: ${step.fact}`;
    const name = table === this.#table ? 'default window' : 'second window';
    const leak = dispatch.leaksMappings ? '; nothing is ever unmapped' : '';
    return `${name}: a hypercall per map and unmap (${why.replace(/^\w+ mask: /, '')})${leak}`;
  }

  #directOps(
    dmaOffset: Ioba,
    dispatch: DmaDispatch,
    print: (message: string) => void = () => {},
  ): DmaOps {
    const { memory, pages } = this.#options;
    const { swiotlb } = this;
    return createDirectDmaOps({
      memory,
      pages,
      ranges: [{ cpuStart: 0, dmaStart: dmaOffset, size: endOf(memory.regions) }],
      limits: dispatch,
      onOverflow: (message) => this.#warn(print, message),
      cpu: () => 0,
      ...(swiotlb === undefined
        ? {}
        : {
            forceBounce: swiotlb,
            setShared: (gpa, length, isShared) => this.#setShared(gpa, length, isShared),
          }),
    });
  }

  #iommuOps(table: IommuTable, print: (message: string) => void): DmaOps {
    return createIommuDmaOps({
      table,
      tceCalls: this.#tceCalls,
      memory: this.#options.memory,
      pages: this.#options.pages,
      cpu: () => 0,
      onMapFailed: (npages) => {
        this.#warn(print, `iommu_alloc failed, liobn ${hex(table.liobn)} npages ${npages}`);
      },
    });
  }

  /** The DMA API without a window: only physical addresses, bounced if secure. */
  physicalOps(): DeviceDma {
    const dispatch = this.#options.kernel.dispatch;
    const endOfMemory = endOf(this.#options.memory.regions);
    const device = new DmaDispatch({ rule: dispatch, endOfMemory, hasOps: false });
    device.streamingMask = device.coherentMask = dmaBitMask(64);
    return {
      ops: this.#directOps(0n, device),
      isBounced: this.swiotlb !== undefined,
      hasBusOffset: false,
      because: 'virtio-direct: bounce buffers, physical addresses',
      steps: [],
    };
  }

  // [linux v6.1 arch/powerpc/platforms/pseries/svm.c svm_swiotlb_init]
  #initSwiotlb(): Swiotlb {
    const { memory, pages, cpus, kernel } = this.#options;
    const { bytes, areas } = swiotlbPool(
      this.#commandLine.swiotlb,
      kernel.swiotlb.hasAreas ? cpus : 1,
    );
    const base = pages.allocPages(bytes, Math.max(65536, pages.pageSize));
    invariant(base !== undefined, 'PseriesDma: the guest has room for its bounce pool');
    this.#setShared(base, bytes, true);
    return new Swiotlb({
      memory,
      base,
      size: bytes,
      pageSize: pages.pageSize,
      cpus: areas,
      search: kernel.swiotlb.search,
      onFull: (message) => this.#warn(this.#printer('virtio-pci', DEFAULT_SLOT), message),
    });
  }

  #warn(print: (message: string) => void, message: string): void {
    print(message);
    if (this.#tracer.on) this.#tracer.event('guest', 'guest_warn', { message });
  }

  #printer(driver: string, slot: string): (message: string) => void {
    return (message) => {
      // Rate-limited messages are kept as often as they come, up to a bound.
      if (this.log.length < 10_000) this.log.push(`${driver} ${slot}: ${message}`);
    };
  }

  #setShared(gpa: Gpa, length: number, isShared: boolean): void {
    const { pages, ultracalls } = this.#options;
    if (ultracalls === undefined) return;
    const { pageSize } = pages;
    const args = [BigInt(gpa / pageSize), BigInt(Math.ceil(length / pageSize))];
    const opcode = isShared ? UV_SHARE_PAGE : UV_UNSHARE_PAGE;
    const ret = ultracalls.call(opcode, args).ret;
    invariant(ret === U_SUCCESS, 'PseriesDma: the ultravisor shares the guest its own pages');
  }

  #kernelPages(length: number): Gpa {
    const gpa = this.#options.pages.allocPages(length);
    invariant(gpa !== undefined, 'PseriesDma: the guest has room for its kernel');
    return gpa;
  }
}

/** A PCI function as the guest keeps it. */
class Device {
  readonly dispatch: DmaDispatch;
  readonly slot: string;
  table: IommuTable | undefined;

  constructor(options: PseriesDmaOptions, slot: string, table: IommuTable, hasOps: boolean) {
    const { kernel, memory, pages } = options;
    this.slot = slot;
    this.table = table;
    this.dispatch = new DmaDispatch({
      rule: kernel.dispatch,
      endOfMemory: endOf(memory.regions),
      pageSize: pages.pageSize,
      hasOps,
    });
  }

  forDdw(print: (message: string) => void): DdwDevice {
    const device = this;
    return {
      dispatch: this.dispatch,
      configAddr: configAddr(this.slot),
      print,
      get table() {
        return device.table;
      },
      set table(table: IommuTable | undefined) {
        device.table = table;
      },
    };
  }
}

/** `0000:01:02.3` as RTAS takes it. [linux v6.1 arch/powerpc/platforms/pseries/iommu.c query_ddw] */
function configAddr(slot: string): number {
  const match = /^[0-9a-f]{4}:([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$/.exec(slot);
  invariant(match !== null, 'PseriesDma: a slot such as 0000:00:01.0');
  const [bus = 0, device = 0, fn = 0] = match.slice(1).map((part) => Number.parseInt(part, 16));
  return bus * 2 ** 16 + ((device << 11) | (fn << 8));
}

function endOf(regions: readonly MemoryRegion[]): number {
  const last = regions.at(-1);
  return last === undefined ? 0 : last.base + last.size;
}
