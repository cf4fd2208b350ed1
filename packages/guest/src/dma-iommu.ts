import { addU64, distanceU64, type Gpa, type HiLo, hi32, invariant, lo32 } from '@pinhole/base';
import { DmaDirection, type DmaOps, type GuestMemory } from '@pinhole/memory';
import type { GuestPages } from './guest-pages.js';
import type { IommuTable } from './iommu-table.js';
import type { TceCalls } from './tce-calls.js';

/** Options of {@link createIommuDmaOps}. */
export interface IommuDmaOptions {
  readonly table: IommuTable;
  readonly tceCalls: TceCalls;
  readonly memory: GuestMemory;
  readonly pages: GuestPages;
  /** The CPU that maps; chooses the pool. */
  readonly cpu: () => number;
  /** Told of a map that found no room. [linux v6.1 arch/powerpc/kernel/iommu.c iommu_map_page] */
  readonly onMapFailed?: (npages: number) => void;
}

/**
 * DMA through a TCE window: every map and unmap is a hypercall.
 * [linux v6.1 arch/powerpc/kernel/iommu.c iommu_map_page, iommu_unmap_page, iommu_alloc_coherent]
 */
export function createIommuDmaOps(options: IommuDmaOptions): DmaOps {
  return new IommuDmaOps(options);
}

class IommuDmaOps implements DmaOps {
  readonly name = 'dma-iommu';
  readonly maxMappingSize = Number.POSITIVE_INFINITY;
  readonly #options: IommuDmaOptions;
  readonly #tcePageSize: number;
  readonly #windowStart: HiLo;

  constructor(options: IommuDmaOptions) {
    const { busOffset } = options.table;
    this.#windowStart = { hi: hi32(busOffset), lo: lo32(busOffset) };
    this.#options = options;
    this.#tcePageSize = 2 ** options.table.pageShift;
  }

  map(gpa: Gpa, length: number, direction: DmaDirection, out: HiLo): boolean {
    const { table, pages } = this.#options;
    const { npages, alignOrder } = iommuMapping(gpa, length, pages.pageSize, table.pageShift);
    return this.#allocAndBuild(gpa, npages, alignOrder, direction, out);
  }

  unmap(hi: number, lo: number, length: number, _direction: DmaDirection): void {
    this.#release(hi, lo, iommuPagesTouched(lo, length, this.#options.table.pageShift));
  }

  allocCoherent(length: number, out: HiLo): Gpa | undefined {
    const { pages, memory } = this.#options;
    const bytes = Math.ceil(length / pages.pageSize) * pages.pageSize;
    const gpa = pages.allocPages(bytes);
    if (gpa === undefined) return undefined;
    memory.fill(gpa, bytes, 0);
    const { npages, alignOrder } = iommuCoherent(
      length,
      pages.pageSize,
      this.#options.table.pageShift,
    );
    if (this.#allocAndBuild(gpa, npages, alignOrder, DmaDirection.BIDIRECTIONAL, out)) {
      return gpa;
    }
    pages.freePages(gpa, bytes);
    return undefined;
  }

  freeCoherent(gpa: Gpa, hi: number, lo: number, length: number): void {
    const { pages } = this.#options;
    const bytes = Math.ceil(length / pages.pageSize) * pages.pageSize;
    this.#release(hi, lo, bytes / this.#tcePageSize);
    pages.freePages(gpa, bytes);
  }

  #allocAndBuild(
    gpa: Gpa,
    npages: number,
    alignOrder: number,
    direction: DmaDirection,
    out: HiLo,
  ): boolean {
    const { table, tceCalls } = this.#options;
    const entry = table.alloc(npages, alignOrder, this.#options.cpu());
    if (entry < 0) {
      this.#options.onMapFailed?.(npages);
      return false;
    }
    if (!tceCalls.build(table, entry, npages, gpa, direction)) {
      table.free(entry, npages);
      return false;
    }
    const offset = entry * this.#tcePageSize + (gpa % this.#tcePageSize);
    addU64(this.#windowStart, offset, out);
    return true;
  }

  #release(hi: number, lo: number, npages: number): void {
    const { table, tceCalls } = this.#options;
    const offset = distanceU64(this.#windowStart, hi, lo);
    invariant(offset >= 0, 'IommuDmaOps: a mapping lies in its window');
    const entry = Math.floor(offset / this.#tcePageSize);
    // The entries first, then the book-keeping: a page must not be reused while it is mapped.
    tceCalls.free(table, entry, npages);
    table.free(entry, npages);
  }
}

/** What a mapping asks of the allocator. */
export interface IommuMapping {
  /** Entries. */
  readonly npages: number;
  /** log2 of their alignment, in entries. */
  readonly alignOrder: number;
}

/** Entries of 2^`pageShift` bytes that `length` bytes at `address` touch. */
export function iommuPagesTouched(address: number, length: number, pageShift: number): number {
  const size = 2 ** pageShift;
  return Math.ceil(((address % size) + length) / size);
}

/**
 * What a buffer needs: whole guest pages are aligned to guest pages on the bus too.
 * [linux v6.1 arch/powerpc/kernel/iommu.c iommu_map_page]
 */
export function iommuMapping(
  gpa: number,
  length: number,
  guestPageSize: number,
  pageShift: number,
): IommuMapping {
  const isPageAligned = length >= guestPageSize && gpa % guestPageSize === 0;
  return {
    npages: iommuPagesTouched(gpa, length, pageShift),
    alignOrder: isPageAligned ? Math.max(0, Math.log2(guestPageSize) - pageShift) : 0,
  };
}

/**
 * What coherent memory needs: whole guest pages, aligned to their number rounded up to a power of
 * two. [linux v6.1 arch/powerpc/kernel/iommu.c iommu_alloc_coherent]
 */
export function iommuCoherent(
  length: number,
  guestPageSize: number,
  pageShift: number,
): IommuMapping {
  const pages = Math.max(1, Math.ceil(length / guestPageSize));
  const npages = Math.ceil((pages * guestPageSize) / 2 ** pageShift);
  const order = Math.ceil(Math.log2(pages)) + Math.log2(guestPageSize) - pageShift;
  return { npages, alignOrder: Math.max(0, order) };
}
