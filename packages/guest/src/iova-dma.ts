import { type Gpa, type HiLo, hiOf, loOf, NO_TRACE, type Tracer } from '@pinhole/base';
import { DmaDirection, type DmaOps, type GuestMemory, IOMMU_PAGE_SIZE } from '@pinhole/memory';
import { dmaBitMask } from './dma-dispatch.js';
import type { GuestPages } from './guest-pages.js';
import type { IommuDriver } from './iommu-driver.js';
import { IovaDomain, type IovaDomainOptions } from './iova-domain.js';
import { IOVA_FQ_SIZE, IOVA_SINGLE_FQ_SIZE, IovaFlushQueue } from './iova-flush-queue.js';
import { IovaRcache } from './iova-rcache.js';

/** Options of {@link IovaDma}. */
export interface IovaDmaOptions {
  readonly driver: IommuDriver;
  readonly memory: GuestMemory;
  readonly pages: GuestPages;
  /** What a PCI device is never given. */
  readonly reserved?: IovaDomainOptions['reserved'];
  /** The last bus address that the IOMMU translates. */
  readonly apertureEnd: bigint;
  /**
   * Where the device's interrupts go, if the IOMMU translates them as it does buffers: the page is mapped
   * before any other, and stays. [linux v6.1 drivers/iommu/dma-iommu.c iommu_dma_get_msi_page]
   */
  readonly doorbell?: Gpa;
  /** The device's DMA mask. Default: 64 bits. */
  readonly mask?: bigint;
  /** Unmapped ranges wait for one invalidation of everything. */
  readonly isDeferred: boolean;
  /**
   * After the first address below 4 GiB that could not be had, nobody tries any more.
   * [linux v6.12 drivers/iommu/dma-iommu.c iommu_dma_alloc_iova]
   */
  readonly isSacOnce?: boolean;
  readonly print?: (message: string) => void;
  readonly tracer?: Tracer;
}

/**
 * Linux's generic DMA API over an IOMMU ("iommu-dma"): bus addresses below 4 GiB as long as there are
 * any, one range for each mapping. Not the one of powerpc, which is `createIommuDmaOps`.
 * [linux v6.1 drivers/iommu/dma-iommu.c __iommu_dma_map, __iommu_dma_unmap, iommu_dma_alloc_iova]
 *
 * Deviates: coherent memory is one piece of physical memory, where Linux takes single pages; the
 * timer of deferred invalidation is the caller's: {@link IovaDma.flush}.
 */
export class IovaDma implements DmaOps {
  readonly name = 'iommu-dma';
  readonly maxMappingSize: number = Number.POSITIVE_INFINITY;
  readonly #options: IovaDmaOptions;
  readonly #iovas: IovaRcache;
  readonly #queue: IovaFlushQueue | undefined;
  readonly #limitPfn: number;
  readonly #tracer: Tracer;
  #triesSac: boolean;

  constructor(options: IovaDmaOptions) {
    this.#options = options;
    const { driver, apertureEnd, reserved = [], mask = dmaBitMask(64) } = options;
    this.#tracer = options.tracer ?? NO_TRACE;
    this.#iovas = new IovaRcache(new IovaDomain({ reserved }));
    this.#queue = options.isDeferred
      ? new IovaFlushQueue({
          flushIotlb: () => driver.flushIotlbAll(),
          free: (pfn, count) => this.#iovas.free(pfn, count),
          entries: driver.hasShadowOnFlush ? IOVA_SINGLE_FQ_SIZE : IOVA_FQ_SIZE,
        })
      : undefined;
    const limit = mask < apertureEnd ? mask : apertureEnd;
    this.#limitPfn = Number(limit / BigInt(IOMMU_PAGE_SIZE));
    this.#triesSac = limit > dmaBitMask(32);
    if (options.doorbell !== undefined) this.#mapDoorbell(options.doorbell);
  }

  /** Ranges that are unmapped, and wait for their invalidation. */
  get deferred(): number {
    return this.#queue?.size ?? 0;
  }

  /** The timer of deferred invalidation fires. [linux v6.1 drivers/iommu/dma-iommu.c fq_flush_timeout] */
  flush(): void {
    this.#queue?.flush();
  }

  map(gpa: Gpa, length: number, direction: DmaDirection, out: HiLo): boolean {
    const { driver } = this.#options;
    const offset = gpa % IOMMU_PAGE_SIZE;
    const count = Math.ceil((offset + length) / IOMMU_PAGE_SIZE);
    const pfn = this.#alloc(count);
    if (pfn === 0) return false;
    if (!driver.map(pfn, gpa - offset, count, permOf(direction))) {
      // It was never mapped, so nobody keeps a translation. [linux v6.1 iommu_dma_free_iova, no gather]
      this.#iovas.free(pfn, count);
      return false;
    }
    if (this.#tracer.on) {
      this.#tracer.event('guest', 'map', { ...rangeOf(pfn, count), paddr: BigInt(gpa - offset) });
    }
    const address = pfn * IOMMU_PAGE_SIZE + offset;
    out.hi = hiOf(address);
    out.lo = loOf(address);
    return true;
  }

  unmap(hi: number, lo: number, length: number, _direction: DmaDirection): void {
    const count = Math.ceil(((lo % IOMMU_PAGE_SIZE) + length) / IOMMU_PAGE_SIZE);
    this.#unmap(hi * 2 ** 20 + (lo >>> 12), count);
  }

  allocCoherent(length: number, out: HiLo): Gpa | undefined {
    const { pages, memory } = this.#options;
    const bytes = this.#wholePages(length);
    const gpa = pages.allocPages(bytes);
    if (gpa === undefined) return undefined;
    memory.fill(gpa, bytes, 0);
    if (this.map(gpa, bytes, DmaDirection.BIDIRECTIONAL, out)) return gpa;
    pages.freePages(gpa, bytes);
    return undefined;
  }

  freeCoherent(gpa: Gpa, hi: number, lo: number, length: number): void {
    const bytes = this.#wholePages(length);
    this.#unmap(hi * 2 ** 20 + (lo >>> 12), bytes / IOMMU_PAGE_SIZE);
    this.#options.pages.freePages(gpa, bytes);
  }

  #mapDoorbell(gpa: Gpa): void {
    const out: HiLo = { hi: 0, lo: 0 };
    this.map(gpa - (gpa % IOMMU_PAGE_SIZE), IOMMU_PAGE_SIZE, DmaDirection.FROM_DEVICE, out);
  }

  #unmap(pfn: number, count: number): void {
    this.#options.driver.unmap(pfn, count);
    if (this.#tracer.on) {
      const range = rangeOf(pfn, count);
      this.#tracer.event('guest', 'unmap', { ...range, unmapped_size: range.size });
    }
    if (this.#queue !== undefined) {
      this.#queue.queue(pfn, count);
      return;
    }
    this.#options.driver.iotlbSync(pfn, count);
    this.#iovas.free(pfn, count);
  }

  // A PCI device gets a "single address cycle" address if it can.
  #alloc(count: number): number {
    if (this.#triesSac) {
      const pfn = this.#iovas.alloc(count, 2 ** 20 - 1, false);
      if (pfn !== 0) return pfn;
      if (this.#options.isSacOnce === true) {
        this.#triesSac = false;
        const bits = (this.#limitPfn + 1).toString(2).length - 1 + Math.log2(IOMMU_PAGE_SIZE);
        this.#options.print?.(`Using ${bits}-bit DMA addresses`);
      }
    }
    return this.#iovas.alloc(count, this.#limitPfn, true);
  }

  #wholePages(length: number): number {
    const { pageSize } = this.#options.pages;
    return Math.ceil(length / pageSize) * pageSize;
  }
}

// As the kernel's events name a range. [linux v6.12 include/trace/events/iommu.h]
function rangeOf(pfn: number, count: number): { iova: bigint; end: bigint; size: number } {
  const size = count * IOMMU_PAGE_SIZE;
  const start = pfn * IOMMU_PAGE_SIZE;
  return { iova: BigInt(start), end: BigInt(start + size), size };
}

// [linux v6.1 drivers/iommu/dma-iommu.c dma_info_to_prot]
function permOf(direction: DmaDirection): number {
  if (direction === DmaDirection.TO_DEVICE) return 1;
  return direction === DmaDirection.FROM_DEVICE ? 2 : 3;
}
