/** The second, permanently mapped window. [linux v6.1 arch/powerpc/platforms/pseries/iommu.c enable_ddw] */
import { hex, type Ioba } from '@pinhole/base';
import { RTAS_DDW_PAGE_SIZES } from '@pinhole/hcall';
import type { MemoryRegion } from '@pinhole/memory';
import type { DecisionStep } from './decision-step.js';
import { type DmaDispatch, dmaBitMask } from './dma-dispatch.js';
import { IommuTable } from './iommu-table.js';
import type { KernelProfile } from './kernel-profiles/types.js';
import { MAX_PHYSMEM_BITS_4K, MAX_PHYSMEM_BITS_64K, MIN_DDW_VPMEM_DMA_WINDOW } from './params.js';
import type { PhbDescription } from './phb-description.js';
import type { Rtas } from './rtas.js';
import type { TceCalls } from './tce-calls.js';
import { clearTceRange, setTceRange } from './tce-range.js';

/** How one call ended. */
export interface DdwResult {
  /** What the kernel's function answered: all of memory can be reached without mappings. */
  readonly isDirect: boolean;
  readonly steps: readonly DecisionStep[];
}

/** The device that asks. */
export interface DdwDevice {
  /** Its state: the offset, the limit. */
  readonly dispatch: DmaDispatch;
  /** Bus number and devfn as RTAS takes them: (bus << 16) | (devfn << 8). */
  readonly configAddr: number;
  /** Its table for what does not go direct (`get_iommu_table_base`). */
  table: IommuTable | undefined;
  /** Prints a line of the kernel's log about it. */
  readonly print: (message: string) => void;
}

/** Options of {@link DynamicDmaWindows}. */
export interface DynamicDmaWindowsOptions {
  readonly phb: PhbDescription;
  readonly kernel: KernelProfile;
  readonly rtas: Pick<Rtas, 'call'>;
  readonly tceCalls: TceCalls;
  /** System RAM. */
  readonly memory: readonly MemoryRegion[];
  /** The table over the default window. */
  readonly defaultTable: IommuTable;
}

interface DdwQuery {
  readonly windowsAvailable: number;
  /** In entries. */
  readonly largestBlock: bigint;
  readonly pageSizes: number;
}

interface ExistingWindow {
  readonly busOffset: Ioba;
  readonly windowShift: number;
  readonly isDirect: boolean;
}

/** What a window is to be. */
interface WindowPlan {
  readonly pageShift: number;
  readonly windowShift: number;
  readonly isDirect: boolean;
  /** Entries are allocated in it, from this offset on. */
  readonly dynamicOffset: bigint | undefined;
}

/**
 * One host bridge's dynamic windows, as the guest keeps them. The first device to ask creates the
 * window; later ones find it, or find the bridge on the list of failures.
 *
 * Deviates: the kernel clears the default window before it removes it, but reads its property in the
 * form of another one; that clears nothing and is left out.
 */
export class DynamicDmaWindows {
  readonly #options: DynamicDmaWindowsOptions;
  readonly #source: string;
  #existing: ExistingWindow | undefined;
  #hasFailed = false;
  #isDefaultRemoved = false;

  constructor(options: DynamicDmaWindowsOptions) {
    this.#options = options;
    this.#source = options.kernel.ddw.source;
  }

  /** The default window was removed to make room. */
  get isDefaultRemoved(): boolean {
    return this.#isDefaultRemoved;
  }

  /** log2 of what memory can become. [ddw_memory_hotplug_max] */
  get maxRamShift(): number {
    const { kernel, memory, phb } = this.#options;
    const ends = memory.map(({ base, size }) => base + size);
    const isLrdrOnly = kernel.ddw.maxMemoryFrom === 'lrdr-only';
    return orderBase2(isLrdrOnly ? phb.lrdrMaxAddress : Math.max(phb.lrdrMaxAddress, ...ends));
  }

  /** The query that newer kernels make of each bridge at boot. [spapr_tce_init_table_group] */
  queryAtBoot(device: Pick<DdwDevice, 'configAddr' | 'print'>): void {
    const { ddwApplicable } = this.#options.phb;
    if (!this.#options.kernel.ddw.queriesAtBoot || ddwApplicable === undefined) return;
    if (this.#query(device, ddwApplicable[0]) === undefined) {
      device.print('spapr_tce_init_table_group: query_ddw failed');
    }
  }

  /** Called for each setting of a device's DMA mask that may ask for a window. */
  enable(device: DdwDevice, mask: bigint): DdwResult {
    const call = new EnableDdw(device, mask, this.#source);
    const len = this.#enable(call);
    this.#setLimit(call, len);
    if (this.#options.kernel.ddw.hasLimitedAddressMode) {
      const flags = [call.isLimitedRequired, call.isLimited, call.isDirect].map(Number);
      device.print(
        `lsa_required: ${flags[0]}, lsa_enabled: ${flags[1]}, direct mapping: ${flags[2]}`,
      );
    }
    return { isDirect: call.isDirect, steps: call.steps };
  }

  // Returns log2 of the window, as far as it got.
  #enable(call: EnableDdw): number {
    const { phb, kernel } = this.#options;
    const { dispatch } = call.device;
    if (this.#existing !== undefined) {
      const { busOffset, windowShift, isDirect } = this.#existing;
      dispatch.dmaOffset = busOffset;
      const isStored = kernel.ddw.existingIsDirectBy === 'stored';
      call.isDirect = isStored ? isDirect : windowShift >= this.maxRamShift;
      call.step(
        'find_existing_ddw: has this bridge a window already?',
        `yes, at ${hex(busOffset)}, 2^${windowShift} bytes; ${
          isStored ? 'kept as' : `2^${this.maxRamShift} for all memory: taken as`
        } ${call.isDirect ? 'direct' : 'not direct'}`,
      );
      return windowShift;
    }
    if (this.#hasFailed) {
      call.step('failed_ddw_pdn_list: was this bridge tried before?', 'yes, and it failed');
      return 0;
    }
    const applicable = phb.ddwApplicable;
    if (applicable === undefined) {
      return this.#fail(call, 'ibm,ddw-applicable', 'not in the device tree: no dynamic windows');
    }
    let query = this.#query(call.device, applicable[0]);
    if (query === undefined) return this.#fail(call, 'query_ddw', 'RTAS answers with an error');
    call.step('query_ddw', describeQuery(query));
    if (!this.#limitAddresses(call)) return 0;
    if (query.windowsAvailable === 0) {
      query = this.#removeDefault(call, applicable);
      if (query === undefined) return 0;
    }
    const plan = this.#plan(call, query);
    return plan === undefined ? 0 : this.#create(call, applicable, plan);
  }

  // Masks between 33 and 63 bits need windows at lower addresses. [limited_dma_window]
  #limitAddresses(call: EnableDdw): boolean {
    const { phb, kernel } = this.#options;
    if (!kernel.ddw.hasLimitedAddressMode || call.mask === dmaBitMask(64)) return true;
    call.isLimitedRequired = true;
    const what = 'limited_dma_window: the mask has fewer than 64 bits';
    const extensions = phb.ddwExtensions;
    if (extensions === undefined || extensions.length < 3 || extensions[2] === 0) {
      // -EINVAL: no such property; -EOVERFLOW: too short; -EPROTO: there, and off.
      if (extensions !== undefined) {
        const error = extensions.length < 3 ? -75 : -71;
        call.device.print(`Limited Address Space for DDW not Supported, err: ${error}`);
      }
      this.#fail(call, what, 'ibm,ddw-extensions does not offer limited-address mode');
      return false;
    }
    const token = extensions[0] ?? 0;
    const address = this.#address(call.device);
    const [status = 0] = this.#options.rtas.call(token, [...address, 1], 1);
    if (status !== 0) {
      call.device.print(
        `ibm,reset-pe-dma-windows(${token.toString(16)}) for Limited Addr Support: ${cells(address)} returned ${status} `,
      );
      this.#fail(call, what, `the bridge refuses limited-address mode: ${status}`);
      return false;
    }
    call.isLimited = true;
    call.step(what, 'the bridge is in limited-address mode');
    return true;
  }

  #removeDefault(
    call: EnableDdw,
    applicable: readonly [number, number, number],
  ): DdwQuery | undefined {
    const { phb, kernel, rtas, defaultTable } = this.#options;
    const what = 'enable_ddw: no window is left; can the default window make room?';
    const fail = (fact: string): undefined => {
      this.#fail(call, what, fact);
    };
    if (!kernel.ddw.removesDefaultWindow) return fail('this kernel does not try');
    if (defaultTable.inUse > 0) {
      call.device.print("current IOMMU table in use, can't be replaced.");
      return fail(`${defaultTable.inUse} of its entries are in use`);
    }
    if (this.#isDefaultRemoved) return fail('there is none');
    if (phb.ddwExtensions === undefined) return fail('no call could bring it back');
    rtas.call(applicable[2], [phb.dmaWindow.liobn], 1);
    this.#isDefaultRemoved = true;
    call.removedDefault = true;
    const query = this.#query(call.device, applicable[0]);
    if (query === undefined || query.windowsAvailable === 0) return fail('even so there is none');
    call.step(what, 'the default window is removed');
    return query;
  }

  #plan(call: EnableDdw, query: DdwQuery): WindowPlan | undefined {
    const { kernel, phb } = this.#options;
    const pageShift = largestPageShift(query.pageSizes, kernel.ddw.pageShifts);
    if (pageShift === undefined) {
      this.#fail(call, 'iommu_get_page_shift', `no usable size in ${hex(query.pageSizes)}`);
      return undefined;
    }
    call.step('iommu_get_page_shift: the largest page on offer', `2^${pageShift} bytes`);
    const { maxRamShift } = this;
    const blockShift = orderBase2Big(query.largestBlock << BigInt(pageShift));
    const isMaskCapped = kernel.ddw.hasLimitedAddressMode;
    const offered = isMaskCapped ? Math.min(blockShift, bitLength(call.mask)) : blockShift;
    const hasPmem = kernel.ddw.knowsPersistentMemory && phb.hasPersistentMemory === true;
    const physBits = kernel.pageSize === 65536 ? MAX_PHYSMEM_BITS_64K : MAX_PHYSMEM_BITS_4K;
    let windowShift = maxRamShift;
    if (hasPmem) {
      if (offered >= physBits) windowShift = physBits;
      else call.device.print('Skipping ibm,pmemory');
    }
    call.step(
      'ddw_memory_hotplug_max: how large memory can become',
      `2^${maxRamShift} bytes, from ${
        kernel.ddw.maxMemoryFrom === 'lrdr-only'
          ? `ibm,lrdr-capacity alone (${hex(phb.lrdrMaxAddress)})`
          : 'memory and ibm,lrdr-capacity'
      }`,
    );
    const what = 'enable_ddw: does the largest block hold all memory?';
    const doesFit = isMaskCapped
      ? offered >= windowShift
      : query.largestBlock >= 2n ** BigInt(Math.max(0, windowShift - pageShift));
    if (!doesFit) {
      if (!kernel.ddw.hasDynamicWindows) {
        this.#fail(call, what, `no: 2^${offered} bytes of 2^${windowShift}`);
        return undefined;
      }
      call.step(what, `no: 2^${offered} bytes of 2^${windowShift}; entries will be allocated`);
      return { pageShift, windowShift: offered, isDirect: false, dynamicOffset: 0n };
    }
    call.isDirect =
      !call.removedDefault || windowShift === physBits || (!hasPmem && windowShift === maxRamShift);
    let dynamicOffset = call.isDirect ? undefined : 0n;
    if (call.removedDefault && hasPmem && !call.isDirect && kernel.ddw.hasHybridWindows) {
      // One window for both: memory mapped for good, persistent memory behind it as needed.
      if (2n ** BigInt(offered) >= MIN_DDW_VPMEM_DMA_WINDOW + 2n ** BigInt(maxRamShift)) {
        call.isDirect = true;
        dynamicOffset = 2n ** BigInt(maxRamShift);
      }
      windowShift = offered;
    }
    call.step(what, `yes: 2^${offered} bytes for 2^${windowShift}`);
    return { pageShift, windowShift, isDirect: call.isDirect, dynamicOffset };
  }

  #create(
    call: EnableDdw,
    applicable: readonly [number, number, number],
    plan: WindowPlan,
  ): number {
    const { rtas, memory, tceCalls, phb } = this.#options;
    const { device } = call;
    const { pageShift, windowShift } = plan;
    const token = applicable[1];
    const args = [...this.#address(device), pageShift, windowShift];
    const [status = 0, liobn = 0, hi = 0, lo = 0] = this.#callWhileBusy(token, args, 4);
    const message =
      `ibm,create-pe-dma-window(${token.toString(16)}) ${cells(args)} returned ${status} ` +
      `(liobn = 0x${liobn.toString(16)} starting addr = ${hi.toString(16)} ${lo.toString(16)})`;
    device.print(message);
    const asked = `2^${windowShift} bytes in pages of 2^${pageShift}`;
    if (status !== 0) {
      this.#fail(call, `create_ddw: ${asked}`, `RTAS answers ${status}: ${message}`);
      return windowShift;
    }
    const busOffset = (BigInt(hi) << 32n) | BigInt(lo);
    const window = { liobn, busOffset, pageShift };
    call.step(`create_ddw: ${asked}`, `LIOBN ${hex(liobn)} at ${hex(busOffset)}`);
    if (plan.isDirect && !memory.every((region) => setTceRange(tceCalls, window, region))) {
      device.print(`failed to map DMA window for ${phb.path ?? 'the bridge'}: -4`);
      clearTceRange(tceCalls, window, { base: 0, size: 2 ** windowShift });
      rtas.call(applicable[2], [liobn], 1);
      this.#fail(call, 'tce_setrange_multi_pSeriesLP: map all memory', 'a hypercall failed');
      return windowShift;
    }
    if (plan.isDirect) {
      call.step(
        'tce_setrange_multi_pSeriesLP: map all memory',
        `1:1, once and for all, in ${2 ** pageShift / 2 ** 20} MiB pages`,
      );
    }
    if (call.removedDefault) device.table = undefined;
    if (plan.dynamicOffset !== undefined) this.#openTable(call, window, plan, plan.dynamicOffset);
    if (call.removedDefault) {
      device.print(`Removed default DMA window for ${phb.path ?? 'the bridge'}`);
    }
    device.dispatch.dmaOffset = busOffset;
    this.#existing = { busOffset, windowShift, isDirect: plan.isDirect };
    return windowShift;
  }

  // [iommu_table_setparms_common, iommu_init_table]
  #openTable(
    call: EnableDdw,
    window: { liobn: number; busOffset: Ioba; pageShift: number },
    plan: WindowPlan,
    dynamicOffset: bigint,
  ): void {
    const { phb, tceCalls } = this.#options;
    const { liobn, pageShift } = window;
    const busOffset = window.busOffset + dynamicOffset;
    const size = Number((2n ** BigInt(plan.windowShift) - dynamicOffset) >> BigInt(pageShift));
    const table = new IommuTable({
      liobn,
      busOffset,
      size,
      pageShift,
      allocator: this.#options.kernel.allocator,
      ...(phb.mmio32 === undefined ? {} : { reserved: phb.mmio32 }),
    });
    tceCalls.free(table, 0, size);
    call.device.table = table;
    call.step(
      'iommu_init_table: allocate in the new window',
      `${size} entries at ${hex(busOffset)}`,
    );
  }

  #query(device: Pick<DdwDevice, 'configAddr' | 'print'>, token: number): DdwQuery | undefined {
    const { phb, rtas, kernel } = this.#options;
    const nret = kernel.ddw.hasSixOutputs && phb.ddwExtensions?.[1] === 1 ? 6 : 5;
    const address = this.#address(device);
    const rets = rtas.call(token, address, nret) as [number, ...number[]];
    const cell = (index: number): number => rets[index] ?? 0;
    const query: DdwQuery =
      nret === 6
        ? {
            windowsAvailable: cell(1),
            largestBlock: (BigInt(cell(2)) << 32n) | BigInt(cell(3)),
            pageSizes: cell(4),
          }
        : { windowsAvailable: cell(1), largestBlock: BigInt(cell(2)), pageSizes: cell(3) };
    device.print(
      `ibm,query-pe-dma-windows(${token.toString(16)}) ${cells(address)} returned ${rets[0]}` +
        (kernel.ddw.printsQuery ? `, ${describeQuery(query)}` : ''),
    );
    return rets[0] === 0 ? query : undefined;
  }

  // RTAS says -2, or 9900 to 9905, while it works. [linux v6.1 arch/powerpc/kernel/rtas.c rtas_busy_delay]
  #callWhileBusy(token: number, args: readonly number[], nret: number): number[] {
    for (let tries = 0; ; tries += 1) {
      const rets = this.#options.rtas.call(token, args, nret);
      const status = rets[0] ?? 0;
      const isBusy = status === -2 || (status >= 9900 && status <= 9905);
      if (!isBusy || tries >= 1000) return rets;
    }
  }

  #fail(call: EnableDdw, what: string, fact: string): 0 {
    const { phb, rtas, kernel } = this.#options;
    call.step(what, fact);
    if (call.removedDefault || call.isLimited) {
      const token = phb.ddwExtensions?.[0];
      if (token !== undefined) {
        const address = this.#address(call.device);
        const [status = 0] = rtas.call(token, address, 1);
        if (status !== 0) {
          call.device.print(
            `ibm,reset-pe-dma-windows(${token.toString(16)}) ${cells(address)} returned ${status} `,
          );
        }
        call.step('reset_dma_window: bring the default window back', `RTAS answers ${status}`);
        this.#isDefaultRemoved = false;
      }
    }
    this.#hasFailed = true;
    call.step('failed_ddw_pdn_list', 'the bridge is not asked again');
    if (!kernel.ddw.answersDirectAfterFailure) call.isDirect = false;
    else if (call.isDirect) {
      call.step(
        'enable_ddw: the answer',
        'direct nevertheless: the flag was set before the failure',
      );
    }
    return 0;
  }

  #setLimit(call: EnableDdw, len: number): void {
    const { kernel, phb } = this.#options;
    const { dispatch } = call.device;
    if (!call.isDirect || kernel.dispatch.busDmaLimit === 'never') return;
    const hasPmem = kernel.ddw.knowsPersistentMemory && phb.hasPersistentMemory === true;
    const physBits = kernel.pageSize === 65536 ? MAX_PHYSMEM_BITS_64K : MAX_PHYSMEM_BITS_4K;
    const isPmemLimited = kernel.ddw.hasHybridWindows ? len !== physBits : len === this.maxRamShift;
    const isAlways = kernel.dispatch.busDmaLimit === 'whenever-direct';
    if (!isAlways && !(hasPmem && isPmemLimited)) return;
    dispatch.busDmaLimit = dispatch.dmaOffset + 2n ** BigInt(this.maxRamShift);
    call.step(
      'enable_ddw: bus_dma_limit = dma_offset + 2^max_ram_len',
      `${hex(dispatch.dmaOffset)} + 2^${this.maxRamShift} = 0x${dispatch.busDmaLimit.toString(16)}`,
    );
  }

  #address({ configAddr }: { readonly configAddr: number }): number[] {
    const { buid } = this.#options.phb;
    return [configAddr, Number(buid >> 32n), Number(buid & 0xffff_ffffn)];
  }
}

/** The variables of one call of `enable_ddw`. */
class EnableDdw {
  isDirect = false;
  isLimitedRequired = false;
  isLimited = false;
  removedDefault = false;
  readonly steps: DecisionStep[] = [];

  constructor(
    readonly device: DdwDevice,
    readonly mask: bigint,
    readonly source: string,
  ) {}

  step(what: string, fact: string): void {
    this.steps.push({ what, fact, source: this.source });
  }
}

/** [linux v6.1 arch/powerpc/platforms/pseries/iommu.c iommu_get_page_shift] */
function largestPageShift(pageSizes: number, known: readonly number[]): number | undefined {
  const offered = RTAS_DDW_PAGE_SIZES.filter(
    ({ bit, shift }) => (pageSizes & bit) !== 0 && known.includes(shift),
  );
  return offered.length === 0 ? undefined : Math.max(...offered.map(({ shift }) => shift));
}

function describeQuery({ largestBlock, pageSizes, windowsAvailable }: DdwQuery): string {
  return `lb=${largestBlock.toString(16)} ps=${pageSizes.toString(16)} wn=${windowsAvailable}`;
}

function cells(values: readonly number[]): string {
  return values.map((cell) => cell.toString(16)).join(' ');
}

/** [linux v6.1 include/linux/log2.h order_base_2]: 0 for 0 and 1. */
function orderBase2(value: number): number {
  return orderBase2Big(BigInt(value));
}

function orderBase2Big(value: bigint): number {
  return value <= 1n ? 0 : bitLength(value - 1n);
}

function bitLength(value: bigint): number {
  return value === 0n ? 0 : value.toString(2).length;
}
