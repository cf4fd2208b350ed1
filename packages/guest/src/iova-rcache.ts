/** Free ranges that are kept for the next one of their size. [linux v6.1 drivers/iommu/iova.c] */
import type { IovaDomain } from './iova-domain.js';

/** Ranges of 2^0 to 2^5 pages are kept. [linux v6.1 drivers/iommu/iova.c IOVA_RANGE_CACHE_MAX_SIZE] */
const IOVA_RANGE_CACHE_MAX_SIZE = 6;
/** [linux v6.1 drivers/iommu/iova.c IOVA_MAG_SIZE] */
const IOVA_MAG_SIZE = 127;
/** [linux v6.1 drivers/iommu/iova.c MAX_GLOBAL_MAGS] */
const MAX_GLOBAL_MAGS = 32;

interface Rcache {
  loaded: number[];
  prev: number[];
  readonly depot: number[][];
}

/**
 * A domain with the caches of one CPU in front: the range that was freed last is given first.
 *
 * Deviates: a magazine of v5.10 holds 128; v6.12 keeps more full ones than 32 and gives them back after
 * a while [linux v6.12 drivers/iommu/iova.c iova_depot_work_func]; that takes hundreds or thousands of
 * free ranges of one size to notice.
 */
export class IovaRcache {
  readonly #domain: IovaDomain;
  readonly #caches: Rcache[] = Array.from({ length: IOVA_RANGE_CACHE_MAX_SIZE }, () => ({
    loaded: [],
    prev: [],
    depot: [],
  }));

  constructor(domain: IovaDomain) {
    this.#domain = domain;
  }

  /**
   * Takes `count` pages, none above `limitPfn`.
   * @param flush - when there is no room, give the caches back and look once more.
   * @returns the first; 0: no room. [linux v6.1 drivers/iommu/iova.c alloc_iova_fast]
   */
  alloc(count: number, limitPfn: number, flush: boolean): number {
    // What can be kept is rounded up, for the rounded size must fit when it is used again.
    const isKept = count < 2 ** (IOVA_RANGE_CACHE_MAX_SIZE - 1);
    const size = isKept ? 2 ** orderOf(count) : count;
    const cache = this.#caches[orderOf(size)];
    const kept = cache === undefined ? 0 : takeFrom(cache, limitPfn + 1 - size);
    if (kept !== 0) return kept;
    const fresh = this.#domain.alloc(size, limitPfn + 1);
    if (fresh !== 0 || !flush) return fresh;
    this.#flush();
    return this.#domain.alloc(size, limitPfn + 1);
  }

  /** [linux v6.1 drivers/iommu/iova.c free_iova_fast] */
  free(pfn: number, count: number): void {
    const cache = this.#caches[orderOf(count)];
    if (cache === undefined) {
      this.#domain.free(pfn);
      return;
    }
    if (cache.loaded.length === IOVA_MAG_SIZE) {
      if (cache.prev.length < IOVA_MAG_SIZE) {
        [cache.loaded, cache.prev] = [cache.prev, cache.loaded];
      } else {
        if (cache.depot.length < MAX_GLOBAL_MAGS) cache.depot.push(cache.loaded);
        else for (const lo of cache.loaded) this.#domain.free(lo);
        cache.loaded = [];
      }
    }
    cache.loaded.push(pfn);
  }

  // [linux v6.1 drivers/iommu/iova.c free_cpu_cached_iovas, free_global_cached_iovas]
  #flush(): void {
    for (const cache of this.#caches) {
      for (const magazine of [cache.loaded, cache.prev, ...cache.depot]) {
        for (const lo of magazine) this.#domain.free(lo);
        magazine.length = 0;
      }
      cache.depot.length = 0;
    }
  }
}

// [linux v6.1 drivers/iommu/iova.c __iova_rcache_get, iova_magazine_pop]
function takeFrom(cache: Rcache, limit: number): number {
  if (cache.loaded.length === 0) {
    if (cache.prev.length > 0) [cache.loaded, cache.prev] = [cache.prev, cache.loaded];
    else cache.loaded = cache.depot.pop() ?? cache.loaded;
  }
  const { loaded } = cache;
  for (let i = loaded.length - 1; i >= 0; i -= 1) {
    const pfn = loaded[i] as number;
    if (pfn > limit) continue;
    loaded[i] = loaded.at(-1) as number;
    loaded.pop();
    return pfn;
  }
  return 0;
}

/** log2, rounded up. [linux v6.1 include/linux/log2.h order_base_2] */
function orderOf(count: number): number {
  return Math.ceil(Math.log2(count));
}
