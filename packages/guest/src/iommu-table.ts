import { type Ioba, invariant, type Liobn } from '@pinhole/base';
import { IOMMU_BLOCK_SIZE, IOMMU_LARGE_ALLOC, IOMMU_NR_POOLS, IOMMU_POOLS_FROM } from './params.js';

interface Pool {
  readonly start: number;
  /** One past the last entry, which is never handed out. */
  readonly end: number;
  /** Where the next search begins. */
  hint: number;
}

/** Options of {@link IommuTable}. */
export interface IommuTableOptions {
  readonly liobn: Liobn;
  /** Where the window starts on the bus. */
  readonly busOffset: Ioba;
  /** Number of entries. */
  readonly size: number;
  readonly pageShift: number;
}

/**
 * The guest's book-keeping of one DMA window: which entries are in use.
 * [linux v6.1 arch/powerpc/kernel/iommu.c iommu_init_table, iommu_range_alloc, __iommu_free]
 */
export class IommuTable {
  readonly liobn: Liobn;
  readonly busOffset: Ioba;
  readonly size: number;
  readonly pageShift: number;
  readonly #map: Uint32Array;
  readonly #pools: Pool[];
  readonly #largePool: Pool;
  #inUse = 0;

  constructor(options: IommuTableOptions) {
    invariant(options.size > 0 && options.size <= 2 ** 31, 'IommuTable: 1 to 2^31 entries');
    this.liobn = options.liobn;
    this.busOffset = options.busOffset;
    this.size = options.size;
    this.pageShift = options.pageShift;
    this.#map = new Uint32Array(Math.ceil(options.size / 32));
    const bytes = options.size * 2 ** options.pageShift;
    const nrPools = bytes >= IOMMU_POOLS_FROM ? IOMMU_NR_POOLS : 1;
    const poolSize = Math.floor(Math.floor((options.size * 3) / 4) / nrPools);
    this.#pools = Array.from({ length: nrPools }, (_, i) => {
      const start = poolSize * i;
      return { start, end: start + poolSize, hint: start };
    });
    const largeStart = poolSize * nrPools;
    this.#largePool = { start: largeStart, end: options.size, hint: largeStart };
    // Bus address 0 is never handed out: drivers take it for "no address".
    if (options.busOffset === 0n) this.#map[0] = 1;
  }

  /** Entries in use, without the reserved ones. */
  get inUse(): number {
    return this.#inUse;
  }

  /**
   * Finds and takes `npages` consecutive entries.
   * @param alignOrder - log2 of the alignment in entries.
   * @param cpu - which of the small pools comes first.
   * @returns the first entry relative to the window's start, or -1: no room.
   */
  alloc(npages: number, alignOrder: number, cpu: number): number {
    const isLarge = npages > IOMMU_LARGE_ALLOC;
    const nrPools = this.#pools.length;
    let poolNr = hashCpu(cpu) & (nrPools - 1);
    let pool = isLarge ? this.#largePool : (this.#pools[poolNr] as Pool);
    // Pass 0: from the hint. 1: the same pool from its start. Then the small pools, one by one,
    // beginning with the next; then the large pool.
    for (let pass = 0; ; pass += 1) {
      const start = pool.hint >= pool.end ? pool.start : pool.hint;
      const found = this.#findArea(start, pool.end - 1, npages, alignOrder);
      if (found >= 0) {
        this.#mark(found, npages, true);
        const end = found + npages;
        pool.hint = isLarge ? end : Math.ceil(end / IOMMU_BLOCK_SIZE) * IOMMU_BLOCK_SIZE;
        this.#inUse += npages;
        return found;
      }
      if (pass > 0 && pass <= nrPools) {
        poolNr = (poolNr + 1) & (nrPools - 1);
        pool = this.#pools[poolNr] as Pool;
      } else if (pass === nrPools + 1) {
        pool = this.#largePool;
      } else if (pass > nrPools + 1) {
        return -1;
      }
      pool.hint = pool.start;
    }
  }

  /** Gives entries back. The hints stay where they are. */
  free(entry: number, npages: number): void {
    this.#mark(entry, npages, false);
    this.#inUse -= npages;
  }

  /** The first aligned run of `count` free entries that ends at or before `limit`, or -1. */
  #findArea(start: number, limit: number, count: number, alignOrder: number): number {
    const align = 2 ** alignOrder;
    let at = start;
    for (;;) {
      at = this.#nextFree(at, limit);
      at = Math.ceil(at / align) * align;
      const end = at + count;
      if (end > limit) return -1;
      const used = this.#nextUsed(at, end);
      if (used < 0) return at;
      at = used + 1;
    }
  }

  #nextFree(start: number, limit: number): number {
    let at = start;
    while (at < limit) {
      const free = ~(this.#map[at >>> 5] as number) >>> (at & 31);
      if (free !== 0) return at + (31 - Math.clz32(free & -free));
      at = (at | 31) + 1;
    }
    return limit;
  }

  #nextUsed(start: number, end: number): number {
    let at = start;
    while (at < end) {
      const used = (this.#map[at >>> 5] as number) >>> (at & 31);
      if (used !== 0) {
        const found = at + (31 - Math.clz32(used & -used));
        return found < end ? found : -1;
      }
      at = (at | 31) + 1;
    }
    return -1;
  }

  #mark(entry: number, count: number, isUsed: boolean): void {
    for (let i = entry; i < entry + count; i += 1) {
      const bit = 1 << (i & 31);
      const word = this.#map[i >>> 5] as number;
      invariant(((word & bit) !== 0) !== isUsed, 'IommuTable: an entry is taken or freed once');
      this.#map[i >>> 5] = isUsed ? word | bit : word & ~bit;
    }
  }
}

/** [linux v6.1 include/linux/hash.h hash_32] with 2 bits, as iommu_pool_hash is filled. */
function hashCpu(cpu: number): number {
  return Math.imul(cpu, 0x61c8_8647) >>> 30;
}
