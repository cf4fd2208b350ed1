/** The second, permanently mapped window. [linux v6.1 arch/powerpc/platforms/pseries/iommu.c enable_ddw] */
import { hex, type Ioba } from '@pinhole/base';
import { RTAS_DDW_PAGE_SIZES } from '@pinhole/hcall';
import { DmaDirection, type MemoryRegion } from '@pinhole/memory';
import type { KernelProfile } from './kernel-profiles/index.js';
import type { Rtas } from './rtas.js';
import type { TceCalls } from './tce-calls.js';

/** What a guest reads in the device tree about one PCI host bridge's DMA. */
export interface PhbDescription {
  readonly buid: bigint;
  /** `ibm,dma-window`. */
  readonly dmaWindow: { readonly liobn: number; readonly busOffset: Ioba; readonly size: number };
  /** `ibm,ddw-applicable`: tokens of query, create, remove. Absent without dynamic windows. */
  readonly ddwApplicable?: readonly [number, number, number];
  /** `ibm,ddw-extensions`, without its leading count: reset token, then 1 if queries have 6 outputs. */
  readonly ddwExtensions?: readonly number[];
  /** The highest address that memory can have, from `ibm,lrdr-capacity`; 0 when it says so. */
  readonly lrdrMaxAddress: number;
}

/** How it ended. */
export interface DdwResult {
  /** All of memory is mapped at `dmaOffset`: no mapping is needed per buffer. */
  readonly isDirect: boolean;
  readonly dmaOffset: Ioba;
  /** What happened, a line a step, the kernel's messages among them. */
  readonly steps: readonly string[];
}

/** Options of {@link DynamicDmaWindows}. */
export interface DynamicDmaWindowsOptions {
  readonly phb: PhbDescription;
  readonly kernel: KernelProfile;
  readonly rtas: Rtas;
  readonly tceCalls: TceCalls;
  /** System RAM. */
  readonly memory: readonly MemoryRegion[];
}

/**
 * One host bridge's dynamic windows, as the guest keeps them. The first device to ask for 64-bit
 * DMA creates the window; later ones find it, or find the bridge on the list of failures.
 *
 * Deviates: removing the default window to make room, windows smaller than memory (dynamic mode)
 * and persistent memory are not modelled; QEMU's answers never lead there.
 */
export class DynamicDmaWindows {
  readonly #options: DynamicDmaWindowsOptions;
  #existing: { dmaOffset: Ioba; isDirect: boolean } | undefined;
  #hasFailed = false;

  constructor(options: DynamicDmaWindowsOptions) {
    this.#options = options;
  }

  /** Called for each setting of a device's DMA mask. */
  enable(): DdwResult {
    const steps: string[] = [];
    if (this.#existing !== undefined) {
      return { ...this.#existing, steps: ['the second window exists already'] };
    }
    if (this.#hasFailed) return failed(['this bridge is on the list of failed bridges']);
    const { phb } = this.#options;
    if (phb.ddwApplicable === undefined) {
      return this.#fail(['no ibm,ddw-applicable in the device tree']);
    }
    const query = this.#query(phb.ddwApplicable[0], steps);
    if (query === undefined) return this.#fail(steps);
    if (query.windowsAvailable === 0) {
      return this.#fail([...steps, 'no window left, and the default window is in use']);
    }
    const pageShift = largestPageShift(query.pageSizes);
    if (pageShift === undefined) return this.#fail([...steps, 'no usable page size']);
    const windowShift = this.#windowShift();
    if (query.largestBlock < 2n ** BigInt(Math.max(0, windowShift - pageShift))) {
      return this.#fail([...steps, 'the largest block is smaller than memory']);
    }
    return this.#create(phb.ddwApplicable[1], pageShift, windowShift, steps);
  }

  #query(token: number, steps: string[]): DdwQuery | undefined {
    const { phb, rtas } = this.#options;
    const nret = phb.ddwExtensions?.[1] === 1 ? 6 : 5;
    const rets = rtas.call(token, this.#address(), nret) as [number, ...number[]];
    const cell = (index: number): number => rets[index] ?? 0;
    const query: DdwQuery =
      nret === 6
        ? {
            windowsAvailable: cell(1),
            largestBlock: (BigInt(cell(2)) << 32n) | BigInt(cell(3)),
            pageSizes: cell(4),
          }
        : { windowsAvailable: cell(1), largestBlock: BigInt(cell(2)), pageSizes: cell(3) };
    steps.push(
      `ibm,query-pe-dma-windows(${token.toString(16)}) ${this.#addressText()} returned ${rets[0]}, ` +
        `lb=${query.largestBlock.toString(16)} ps=${query.pageSizes.toString(16)} wn=${query.windowsAvailable}`,
    );
    return rets[0] === 0 ? query : undefined;
  }

  #create(token: number, pageShift: number, windowShift: number, steps: string[]): DdwResult {
    const { rtas, memory, tceCalls } = this.#options;
    const args = [...this.#address(), pageShift, windowShift];
    const [status = 0, liobn = 0, hi = 0, lo = 0] = rtas.call(token, args, 4);
    steps.push(
      `ibm,create-pe-dma-window(${token.toString(16)}) ${this.#addressText()} ` +
        `${pageShift.toString(16)} ${windowShift.toString(16)} returned ${status} ` +
        `(liobn = ${hex(liobn)} starting addr = ${hi.toString(16)} ${lo.toString(16)})`,
    );
    if (status !== 0) return this.#fail(steps);
    const busOffset = (BigInt(hi) << 32n) | BigInt(lo);
    const pageSize = 2 ** pageShift;
    for (const { base, size } of memory) {
      const window = { liobn, busOffset, pageShift };
      // Whole pages only; memory is a multiple of them on this machine.
      const first = Math.floor(base / pageSize);
      const npages = Math.floor((base + size) / pageSize) - first;
      tceCalls.build(window, first, npages, first * pageSize, DmaDirection.BIDIRECTIONAL);
    }
    this.#existing = { dmaOffset: busOffset, isDirect: true };
    steps.push(`all memory mapped 1:1 at ${hex(busOffset)} with ${pageSize / 2 ** 20} MiB pages`);
    return { ...this.#existing, steps };
  }

  /** log2 of the window: all that memory can become. */
  #windowShift(): number {
    const { kernel, memory, phb } = this.#options;
    const ends = memory.map(({ base, size }) => base + size);
    const max =
      kernel.ddw.maxMemoryFrom === 'lrdr-only'
        ? phb.lrdrMaxAddress
        : Math.max(phb.lrdrMaxAddress, ...ends);
    return max <= 1 ? 0 : Math.ceil(Math.log2(max));
  }

  #fail(steps: readonly string[]): DdwResult {
    this.#hasFailed = true;
    return failed(steps);
  }

  #address(): number[] {
    const { buid } = this.#options.phb;
    return [0, Number(buid >> 32n), Number(buid & 0xffff_ffffn)];
  }

  #addressText(): string {
    return this.#address()
      .map((cell) => cell.toString(16))
      .join(' ');
  }
}

/** [linux v6.1 arch/powerpc/platforms/pseries/iommu.c iommu_get_page_shift] */
function largestPageShift(pageSizes: number): number | undefined {
  const offered = RTAS_DDW_PAGE_SIZES.filter(({ bit }) => (pageSizes & bit) !== 0);
  return offered.length === 0 ? undefined : Math.max(...offered.map(({ shift }) => shift));
}

interface DdwQuery {
  readonly windowsAvailable: number;
  /** In entries. */
  readonly largestBlock: bigint;
  readonly pageSizes: number;
}

function failed(steps: readonly string[]): DdwResult {
  return { isDirect: false, dmaOffset: 0n, steps };
}
