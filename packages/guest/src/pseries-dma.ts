import { type Gpa, hex, type Ioba, invariant, NO_TRACE, type Tracer } from '@pinhole/base';
import {
  type Hypercalls,
  U_SUCCESS,
  type Ultracalls,
  UV_SHARE_PAGE,
  UV_UNSHARE_PAGE,
} from '@pinhole/hcall';
import type { DmaOps, GuestMemory, MemoryRegion } from '@pinhole/memory';
import { type DdwResult, DynamicDmaWindows, type PhbDescription } from './ddw.js';
import { createDirectDmaOps } from './dma-direct.js';
import { createIommuDmaOps } from './dma-iommu.js';
import type { GuestPages } from './guest-pages.js';
import { IommuTable } from './iommu-table.js';
import type { KernelProfile } from './kernel-profiles/index.js';
import { IO_TLB_DEFAULT_SIZE } from './params.js';
import { Rtas } from './rtas.js';
import { Swiotlb } from './swiotlb.js';
import { TceCalls } from './tce-calls.js';

const TCE_PAGE_SHIFT = 12;

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
  /** How it came to that, a line a step. */
  readonly steps: readonly string[];
}

/**
 * DMA of a pseries guest: one host bridge's tables and windows, and what a device below it gets.
 * [linux v6.1 arch/powerpc/platforms/pseries/iommu.c, arch/powerpc/kernel/dma-iommu.c]
 */
export class PseriesDma {
  /** The bounce pool of a secure guest. */
  readonly swiotlb: Swiotlb | undefined;
  readonly #options: PseriesDmaOptions;
  readonly #tracer: Tracer;
  readonly #tceCalls: TceCalls;
  readonly #table: IommuTable;
  readonly #ddw: DynamicDmaWindows;

  /** Boots: shares the bounce pool if secure, then clears the default window. */
  constructor(options: PseriesDmaOptions) {
    this.#options = options;
    this.#tracer = options.tracer ?? NO_TRACE;
    const { memory, pages, hypercalls, phb, ultracalls } = options;
    const isSecure = ultracalls !== undefined;
    this.swiotlb = isSecure ? this.#initSwiotlb() : undefined;
    const listPage = this.#kernelPages(4096);
    const rtasBuffer = this.#kernelPages(pages.pageSize);
    // Deviates: the real ultravisor copies RTAS arguments for the guest; here the buffer is shared.
    if (isSecure) this.#setShared(rtasBuffer, pages.pageSize, true);
    this.#tceCalls = new TceCalls({
      hypercalls,
      memory,
      listPage,
      // A secure guest does not show its list page. [linux v6.1 arch/powerpc/platforms/pseries/firmware.c]
      usePutIndirect: options.hasMultiTce && !isSecure,
      useStuff: options.hasMultiTce,
      tracer: this.#tracer,
    });
    this.#table = new IommuTable({
      liobn: phb.dmaWindow.liobn,
      busOffset: phb.dmaWindow.busOffset,
      size: phb.dmaWindow.size / 2 ** TCE_PAGE_SHIFT,
      pageShift: TCE_PAGE_SHIFT,
    });
    // [linux v6.1 arch/powerpc/kernel/iommu.c iommu_table_clear]
    this.#tceCalls.free(this.#table, 0, this.#table.size);
    this.#ddw = new DynamicDmaWindows({
      phb,
      kernel: options.kernel,
      rtas: new Rtas({ hypercalls, memory, buffer: rtasBuffer }),
      tceCalls: this.#tceCalls,
      memory: memory.regions,
    });
  }

  /**
   * What a device that asks for 64-bit DMA gets. The mask is set twice (streaming, then coherent)
   * and the second answer holds. [linux v6.1 arch/powerpc/kernel/dma-iommu.c dma_iommu_dma_supported]
   */
  probe(): DeviceDma {
    const first = this.#ddw.enable();
    const second = this.#ddw.enable();
    const steps = [
      ...first.steps.map((step) => `streaming mask: ${step}`),
      ...second.steps.map((step) => `coherent mask: ${step}`),
    ];
    return second.isDirect ? this.#direct(second, steps) : this.#throughWindow(first, steps);
  }

  #direct(result: DdwResult, steps: readonly string[]): DeviceDma {
    const bounce = this.swiotlb === undefined ? '' : 'bounce buffers, ';
    return {
      ops: this.#directOps(result.dmaOffset),
      isBounced: this.swiotlb !== undefined,
      hasBusOffset: result.dmaOffset !== 0n,
      because: `second window: ${bounce}physical address + ${hex(result.dmaOffset)}, mapped once`,
      steps,
    };
  }

  #directOps(dmaOffset: Ioba): DmaOps {
    const { memory, pages } = this.#options;
    const { swiotlb } = this;
    return createDirectDmaOps({
      memory,
      pages,
      ranges: [{ cpuStart: 0, dmaStart: dmaOffset, size: endOf(memory.regions) }],
      cpu: () => 0,
      ...(swiotlb === undefined
        ? {}
        : {
            forceBounce: swiotlb,
            setShared: (gpa, length, isShared) => this.#setShared(gpa, length, isShared),
          }),
    });
  }

  #throughWindow(first: DdwResult, steps: readonly string[]): DeviceDma {
    const ops = createIommuDmaOps({
      table: this.#table,
      tceCalls: this.#tceCalls,
      memory: this.#options.memory,
      pages: this.#options.pages,
      cpu: () => 0,
      onMapFailed: (npages) => {
        if (!this.#tracer.on) return;
        const message = `iommu_alloc failed, liobn ${hex(this.#table.liobn)} npages ${npages}`;
        this.#tracer.event('guest', 'guest_warn', { message });
      },
    });
    const why = first.steps.at(-1) ?? 'no second window';
    return {
      ops,
      isBounced: false,
      hasBusOffset: true,
      because: `default window: a hypercall per map and unmap (${why})`,
      steps,
    };
  }

  /** The DMA API without a window: only physical addresses, bounced if secure. */
  physicalOps(): DeviceDma {
    return {
      ops: this.#directOps(0n),
      isBounced: this.swiotlb !== undefined,
      hasBusOffset: false,
      because: 'virtio-direct: bounce buffers, physical addresses',
      steps: [],
    };
  }

  // [linux v6.1 arch/powerpc/platforms/pseries/svm.c svm_swiotlb_init]
  #initSwiotlb(): Swiotlb {
    const { memory, pages, cpus } = this.#options;
    const base = pages.allocPages(IO_TLB_DEFAULT_SIZE, Math.max(65536, pages.pageSize));
    invariant(base !== undefined, 'PseriesDma: the guest has room for its bounce pool');
    this.#setShared(base, IO_TLB_DEFAULT_SIZE, true);
    return new Swiotlb({
      memory,
      base,
      size: IO_TLB_DEFAULT_SIZE,
      pageSize: pages.pageSize,
      cpus,
      onFull: (message) => {
        if (this.#tracer.on) this.#tracer.event('guest', 'guest_warn', { message });
      },
    });
  }

  #setShared(gpa: Gpa, length: number, isShared: boolean): void {
    const { pageSize } = this.#options.pages;
    const args = [BigInt(gpa / pageSize), BigInt(Math.ceil(length / pageSize))];
    const opcode = isShared ? UV_SHARE_PAGE : UV_UNSHARE_PAGE;
    const ret = this.#options.ultracalls?.call(opcode, args).ret;
    invariant(ret === U_SUCCESS, 'PseriesDma: the ultravisor shares the guest its own pages');
  }

  #kernelPages(length: number): Gpa {
    const gpa = this.#options.pages.allocPages(length);
    invariant(gpa !== undefined, 'PseriesDma: the guest has room for its kernel');
    return gpa;
  }
}

function endOf(regions: readonly MemoryRegion[]): number {
  const last = regions.at(-1);
  return last === undefined ? 0 : last.base + last.size;
}
