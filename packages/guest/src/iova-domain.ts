/**
 * The address space of a device behind an IOMMU: who has which bus pages. In page frames of the bus.
 * [linux v6.1 drivers/iommu/iova.c]
 */

/** A range that is taken; both ends belong to it. */
interface Iova {
  lo: number;
  hi: number;
  /** The neighbour below and the one above: Linux's tree, as far as it is walked. */
  prev: Iova | undefined;
  next: Iova | undefined;
}

/** Options of {@link IovaDomain}. */
export interface IovaDomainOptions {
  /** The first page that can be given: 1 at least, for 0 means none. Default: 1. */
  readonly startPfn?: number;
  /** Ranges that are never given, in page frames: the host bridge's own windows, interrupts. */
  readonly reserved?: readonly { readonly lo: number; readonly hi: number }[];
}

/** The page after the last one of 32 bits. */
const DMA_32BIT_PFN: number = 2 ** 20;

/**
 * Gives ranges top-down, aligned to their size rounded up to a power of two. It goes on below the
 * last range given, and begins anew at the top when nothing is left there.
 */
export class IovaDomain {
  readonly #start: number;
  /** Above all. */
  readonly #anchor: Iova = {
    lo: Number.POSITIVE_INFINITY,
    hi: Number.POSITIVE_INFINITY,
    prev: undefined,
    next: undefined,
  };
  readonly #byLo = new Map<number, Iova>();
  #cached: Iova = this.#anchor;
  #cached32: Iova = this.#anchor;
  /** So many pages were not to be had below 4 GiB, and nothing was freed there since. */
  #max32AllocSize = DMA_32BIT_PFN;

  constructor(options: IovaDomainOptions = {}) {
    this.#start = options.startPfn ?? 1;
    for (const { lo, hi } of options.reserved ?? []) this.#reserve(lo, hi);
  }

  /** Ranges that are taken or reserved. */
  get size(): number {
    return this.#byLo.size;
  }

  /**
   * Takes `count` pages below `limit` (the first page that is too high).
   * @returns the first of them; 0: no room.
   * [linux v6.1 drivers/iommu/iova.c __alloc_and_insert_iova_range]
   */
  alloc(count: number, limit: number): number {
    const is32 = limit <= DMA_32BIT_PFN;
    if (is32 && count >= this.#max32AllocSize) return 0;
    const align = 2 ** Math.ceil(Math.log2(count));
    const from = is32 ? this.#cached32 : this.#cached;
    const retryPfn = from.hi;
    const found =
      this.#search(from, count, align, limit, this.#start) ??
      (retryPfn < limit
        ? this.#search(this.#findLimit(limit), count, align, limit, retryPfn + 1)
        : undefined);
    if (found === undefined) {
      this.#max32AllocSize = count;
      return 0;
    }
    const iova = this.#insertBelow(found.above, found.lo, found.lo + count - 1);
    if (iova.hi < DMA_32BIT_PFN) this.#cached32 = iova;
    else this.#cached = iova;
    return iova.lo;
  }

  /** Gives back the range that starts at `lo`. [linux v6.1 drivers/iommu/iova.c remove_iova] */
  free(lo: number): void {
    const iova = this.#byLo.get(lo);
    if (iova === undefined) return;
    const above = iova.next as Iova;
    const is32 = iova.hi < DMA_32BIT_PFN;
    if (iova === this.#cached32 || (is32 && iova.lo >= this.#cached32.lo)) this.#cached32 = above;
    if (iova.lo < DMA_32BIT_PFN) this.#max32AllocSize = DMA_32BIT_PFN;
    if (iova.lo >= this.#cached.lo) this.#cached = above;
    above.prev = iova.prev;
    if (iova.prev !== undefined) iova.prev.next = above;
    this.#byLo.delete(lo);
  }

  // Down from `above`, to the first gap with room.
  #search(
    above: Iova,
    count: number,
    align: number,
    limit: number,
    low: number,
  ): { above: Iova; lo: number } | undefined {
    let high = limit;
    let at = above;
    for (;;) {
      high = Math.min(high, at.lo);
      const lo = Math.floor((high - count) / align) * align;
      if (high < count || lo < low) return undefined;
      if (at.prev === undefined || lo > at.prev.hi) return { above: at, lo };
      at = at.prev;
    }
  }

  // The lowest range that begins at the limit or above it. [linux v6.1 drivers/iommu/iova.c iova_find_limit]
  #findLimit(limit: number): Iova {
    let at = this.#anchor;
    while (at.prev !== undefined && at.prev.lo >= limit) at = at.prev;
    return at;
  }

  #insertBelow(above: Iova, lo: number, hi: number): Iova {
    const iova: Iova = { lo, hi, prev: above.prev, next: above };
    if (above.prev !== undefined) above.prev.next = iova;
    above.prev = iova;
    this.#byLo.set(lo, iova);
    return iova;
  }

  // Reserved ranges that overlap become one. [linux v6.1 drivers/iommu/iova.c reserve_iova]
  #reserve(lo: number, hi: number): void {
    let [first, last] = [lo, hi];
    let above = this.#anchor;
    while (above.prev !== undefined && above.prev.hi >= first) {
      const below = above.prev;
      if (below.lo > last) {
        above = below;
        continue;
      }
      first = Math.min(first, below.lo);
      last = Math.max(last, below.hi);
      this.free(below.lo);
    }
    this.#insertBelow(above, first, last);
  }
}
