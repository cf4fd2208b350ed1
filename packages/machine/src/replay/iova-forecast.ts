/** Which IOVA the kernel gives to each mapping: its allocator, its caches, its flush queue. */
import { hex } from '@pinhole/base';
import { IovaDomain, IovaRcache } from '@pinhole/guest';
import type { Disagreement } from './address-model.js';
import { DMA_MAPPING_ERROR, type GuestOperation } from './guest-operations.js';
import type { Inference } from './inference.js';

const PAGE = 4096n;
/** Below 4 GiB as long as there is room. [linux v6.12 drivers/iommu/dma-iommu.c iommu_dma_alloc_iova] */
const LAST_PFN = 2 ** 20 - 1;
/** Interrupts of x86, which are no memory. [linux v6.12 drivers/iommu/intel/iommu.c intel_iommu_get_resv_regions] */
const INTERRUPTS = { lo: 0xf_ee00, hi: 0xf_eeff };

/** Options of {@link IovaForecast}. */
export interface IovaForecastOptions {
  readonly isX86: boolean;
  /** What is unmapped is free at once: nothing waits for a flush. */
  readonly isStrict: boolean;
}
/** Unmapped ranges that wait for a flush that the addresses show; more than any queue has. */
const MAX_WAITING = 4096;
/** Pages of one mapping at most: 1 GiB. */
const MAX_PAGES = 2 ** 18;

/** A range of pages. */
interface Pages {
  readonly pfn: number;
  readonly count: number;
}

/** As the run's machine and kernel have it. */
export function forecastOptionsOf({
  platform: { machine },
  isStrict,
}: Pick<Inference, 'platform' | 'isStrict'>): IovaForecastOptions {
  return { isX86: machine === 'x86-64' || machine === 'unknown', isStrict };
}

/**
 * Predicts IOVAs below 4 GiB. When the kernel's flush queue gave its ranges back, a timer decided,
 * and no trace of the guest says: the first address that is one of a waiting range tells, since
 * ranges come back in order and the last one back is given first.
 */
export class IovaForecast {
  /** Flushes that the addresses show. */
  flushes = 0;
  /** Ranges that waited at most. */
  peakWaiting = 0;
  readonly #domain: IovaDomain;
  readonly #iovas: IovaRcache;
  readonly #isStrict: boolean;
  readonly #waiting: Pages[] = [];
  /** Of those waiting, how many may have come back with the last flush. */
  #doubtful = 0;

  constructor({ isX86, isStrict }: IovaForecastOptions) {
    this.#domain = new IovaDomain({ reserved: isX86 ? [INTERRUPTS] : [] });
    this.#iovas = new IovaRcache(this.#domain);
    this.#isStrict = isStrict;
  }

  /** A mapping or an allocation. */
  begin({ dmaAddr, size }: Pick<GuestOperation, 'dmaAddr' | 'size'>): Disagreement | undefined {
    const { pfn, count } = pagesOf(dmaAddr, size);
    if (count > MAX_PAGES || count < 1) return undefined;
    if (dmaAddr !== DMA_MAPPING_ERROR && !this.#isStrict) this.#release(pfn, count);
    const given = this.#iovas.alloc(count, LAST_PFN, false);
    if (given === pfn) return undefined;
    const model = given === 0 ? 'no room' : hex(BigInt(given) * PAGE + (dmaAddr % PAGE));
    return { what: 'address', recorded: hex(dmaAddr), model };
  }

  /** Whether a mapping has the address that is given next; if not, nothing is. */
  isGiven({ dmaAddr, size }: Pick<GuestOperation, 'dmaAddr' | 'size'>): boolean {
    const { pfn, count } = pagesOf(dmaAddr, size);
    if (count > MAX_PAGES || count < 1) return false;
    if (!this.#isStrict) this.#release(pfn, count);
    const ranges = this.#domain.size;
    const given = this.#iovas.alloc(count, LAST_PFN, false);
    if (given === pfn) return true;
    // Back to where it came from: the allocator, or its caches.
    if (given !== 0 && this.#domain.size > ranges) this.#domain.free(given);
    else if (given !== 0) this.#iovas.free(given, count);
    return false;
  }

  /** An unmapping or a freeing. */
  end({ dmaAddr, size }: Pick<GuestOperation, 'dmaAddr' | 'size'>): undefined {
    const pages = pagesOf(dmaAddr, size);
    if (pages.count > MAX_PAGES || pages.count < 1) return;
    if (this.#isStrict) {
      this.#iovas.free(pages.pfn, pages.count);
      return;
    }
    this.#waiting.push(pages);
    this.peakWaiting = Math.max(this.peakWaiting, this.#waiting.length);
    if (this.#waiting.length > MAX_WAITING) this.#free(MAX_WAITING / 2);
  }

  // What is given again has come back, and all that waited in front of it.
  #release(pfn: number, count: number): void {
    const last = this.#waiting.findLastIndex(
      (range) => range.pfn < pfn + count && pfn < range.pfn + range.count,
    );
    if (last < 0) return;
    if (last >= this.#doubtful) this.flushes += 1;
    const order = orderOf((this.#waiting[last] as Pages).count);
    this.#free(last + 1);
    const next = this.#waiting.findIndex((range) => orderOf(range.count) === order);
    this.#doubtful = next < 0 ? this.#waiting.length : next;
  }

  #free(count: number): void {
    for (const { pfn, count: pages } of this.#waiting.splice(0, count))
      this.#iovas.free(pfn, pages);
    this.#doubtful = Math.max(0, this.#doubtful - count);
  }
}

function pagesOf(address: bigint, size: number): Pages {
  const pages = (address % PAGE) + BigInt(size) + PAGE - 1n;
  return { pfn: Number(address / PAGE), count: Number(pages / PAGE) };
}

function orderOf(count: number): number {
  return Math.ceil(Math.log2(count));
}
