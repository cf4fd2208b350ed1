import { type Ioba, invariant, type Liobn } from '@pinhole/base';
import type { AllocatorProfile } from './kernel-profiles/types.js';
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
  /**
   * Bus addresses that are never handed out, besides address 0: a window over all of the bus
   * leaves out the bridge's 32-bit MMIO. `end` is exclusive.
   * [linux v6.1 arch/powerpc/kernel/iommu.c iommu_table_reserve_pages]
   */
  readonly reserved?: { readonly start: Ioba; readonly end: Ioba };
  /** The kernel's numbers; default: those of all kernels so far. */
  readonly allocator?: Omit<AllocatorProfile, 'source'>;
}

const DEFAULT_ALLOCATOR: Omit<AllocatorProfile, 'source'> = {
  nrPools: IOMMU_NR_POOLS,
  largeAlloc: IOMMU_LARGE_ALLOC,
  blockSize: IOMMU_BLOCK_SIZE,
  poolsFrom: IOMMU_POOLS_FROM,
};

/** What {@link IommuTable.alloc} can be told besides size and alignment. */
export interface IommuAllocOptions {
  /** Where the previous piece of a scatter list ended: the search begins there if it can. */
  readonly handle?: number;
  /** The device's mask: no address above it. Default: any. */
  readonly mask?: bigint;
}

/**
 * No allocation crosses a multiple of this on the bus: the segment boundary of a device that never
 * set one. [linux v6.1 include/linux/dma-mapping.h dma_get_seg_boundary]
 */
const SEG_BOUNDARY = 2 ** 32;

/**
 * The guest's book-keeping of one DMA window: which entries are in use.
 * [linux v6.1 arch/powerpc/kernel/iommu.c iommu_init_table, iommu_range_alloc, __iommu_free]
 */
export class IommuTable {
  readonly liobn: Liobn;
  readonly busOffset: Ioba;
  readonly size: number;
  readonly pageShift: number;
  readonly allocator: Omit<AllocatorProfile, 'source'>;
  readonly #map: Uint32Array;
  readonly #pools: Pool[];
  readonly #largePool: Pool;
  readonly #boundary: number;
  readonly #boundaryOffset: number;
  #inUse = 0;

  constructor(options: IommuTableOptions) {
    invariant(options.size > 0 && options.size <= 2 ** 31, 'IommuTable: 1 to 2^31 entries');
    this.liobn = options.liobn;
    this.busOffset = options.busOffset;
    this.size = options.size;
    this.pageShift = options.pageShift;
    this.#map = new Uint32Array(Math.ceil(options.size / 32));
    const bytes = options.size * 2 ** options.pageShift;
    const { allocator = DEFAULT_ALLOCATOR } = options;
    this.allocator = allocator;
    const nrPools = bytes >= allocator.poolsFrom ? allocator.nrPools : 1;
    const poolSize = Math.floor(Math.floor((options.size * 3) / 4) / nrPools);
    this.#pools = Array.from({ length: nrPools }, (_, i) => {
      const start = poolSize * i;
      return { start, end: start + poolSize, hint: start };
    });
    const largeStart = poolSize * nrPools;
    this.#largePool = { start: largeStart, end: options.size, hint: largeStart };
    this.#boundary = Math.max(1, SEG_BOUNDARY / 2 ** options.pageShift);
    const offset = options.busOffset >> BigInt(options.pageShift);
    this.#boundaryOffset = Number(offset % BigInt(this.#boundary));
    // Bus address 0 is never handed out: drivers take it for "no address".
    if (options.busOffset === 0n) this.#map[0] = 1;
    if (options.reserved !== undefined) this.#reserve(options.reserved);
  }

  /** A table that goes on from the same state, apart from this one. */
  clone(): IommuTable {
    const copy = new IommuTable(this);
    copy.#map.set(this.#map);
    copy.#inUse = this.#inUse;
    copy.hints = this.hints;
    return copy;
  }

  /** Entries in use, without the reserved ones. */
  get inUse(): number {
    return this.#inUse;
  }

  /** The small pools, then the large one: `[start, end)` in entries, and where each searches next. */
  get pools(): readonly { readonly start: number; readonly end: number; readonly hint: number }[] {
    return [...this.#pools, this.#largePool];
  }

  /** Where each pool's next search begins, in the order of `pools`. */
  get hints(): number[] {
    const hints: number[] = [];
    for (const { hint } of this.#pools) hints.push(hint);
    hints.push(this.#largePool.hint);
    return hints;
  }

  set hints(hints: readonly number[]) {
    for (const [i, pool] of this.#pools.entries()) pool.hint = hints[i] ?? pool.start;
    this.#largePool.hint = hints[this.#pools.length] ?? this.#largePool.start;
  }

  /**
   * Finds and takes `npages` consecutive entries.
   * @param alignOrder - log2 of the alignment in entries.
   * @param cpu - which of the small pools comes first.
   * @returns the first entry relative to the window's start, or -1: no room.
   */
  alloc(npages: number, alignOrder: number, cpu: number, options: IommuAllocOptions = {}): number {
    if (npages < 1) return -1;
    const isLarge = npages > this.allocator.largeAlloc;
    const nrPools = this.#pools.length;
    const { handle, mask } = options;
    let poolNr = hashCpu(cpu) & (nrPools - 1);
    let pool = isLarge ? this.#largePool : (this.#pools[poolNr] as Pool);
    // Pass 0: from the hint. 1: the same pool from its start. Then the small pools, one by one,
    // beginning with the next; then the large pool.
    for (let pass = 0; ; pass += 1) {
      const isFromHandle =
        pass === 0 && handle !== undefined && handle >= pool.start && handle < pool.end;
      let start = isFromHandle ? handle : pool.hint;
      if (start >= pool.end) start = pool.start;
      let limit = pool.end;
      const reach = mask === undefined ? this.size : this.#entriesBelow(mask);
      if (limit > reach) {
        // Too high for the device: what it can reach begins in the first pool.
        limit = reach;
        if (start >= limit || pass > 0) {
          pool = this.#pools[0] as Pool;
          start = pool.start;
        }
      }
      const found = this.#findArea(start, limit - 1, npages, alignOrder);
      if (found >= 0) {
        this.#mark(found, npages, true);
        const end = found + npages;
        pool.hint = isLarge ? end : roundUp(end, this.allocator.blockSize);
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

  /** Whether all of these entries exist and are free. */
  isFree(entry: number, npages: number): boolean {
    return this.#exist(entry, npages) && this.#nextUsed(entry, entry + npages) < 0;
  }

  /** Whether all of these entries exist and are in use (or reserved). */
  isTaken(entry: number, npages: number): boolean {
    return this.#exist(entry, npages) && this.#nextFree(entry, entry + npages) >= entry + npages;
  }

  /** Takes entries that are free, and leaves the hints alone: the opposite of `free`. */
  take(entry: number, npages: number): void {
    this.#mark(entry, npages, true);
    this.#inUse += npages;
  }

  /**
   * Takes entries that somebody else saw the kernel take, and moves the hint of their pool as that
   * allocation did. They must be free.
   */
  observe(entry: number, npages: number): void {
    this.take(entry, npages);
    const pool = this.#pools.find(({ end }) => entry < end) ?? this.#largePool;
    const end = entry + npages;
    const isLarge = npages > this.allocator.largeAlloc;
    pool.hint = isLarge ? end : roundUp(end, this.allocator.blockSize);
  }

  #exist(entry: number, npages: number): boolean {
    return npages >= 1 && entry >= 0 && entry + npages <= this.size;
  }

  #entriesBelow(mask: bigint): number {
    const reach =
      (mask >> BigInt(this.pageShift)) - (this.busOffset >> BigInt(this.pageShift)) + 1n;
    return reach < 0n ? 0 : reach > BigInt(this.size) ? this.size : Number(reach);
  }

  #reserve({ start, end }: { start: Ioba; end: Ioba }): void {
    const shift = BigInt(this.pageShift);
    const first = this.busOffset >> shift;
    const clamp = (entry: bigint): number =>
      entry < 0n ? 0 : entry > BigInt(this.size) ? this.size : Number(entry);
    const from = clamp((start >> shift) - first);
    const to = clamp(((end + (1n << shift) - 1n) >> shift) - first);
    for (let i = from; i < to; i += 1)
      this.#map[i >>> 5] = (this.#map[i >>> 5] as number) | (1 << (i & 31));
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
      if (used >= 0) {
        at = used + 1;
        continue;
      }
      // [linux v6.1 lib/iommu-helper.c iommu_is_span_boundary]
      const inBoundary = (this.#boundaryOffset + at) % this.#boundary;
      if (inBoundary + count <= this.#boundary) return at;
      at += this.#boundary - inBoundary;
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

function roundUp(entry: number, blockSize: number): number {
  return Math.ceil(entry / blockSize) * blockSize;
}

/** [linux v6.1 include/linux/hash.h hash_32] with 2 bits, as iommu_pool_hash is filled. */
function hashCpu(cpu: number): number {
  return Math.imul(cpu, 0x61c8_8647) >>> 30;
}
