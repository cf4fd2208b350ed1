/** What an IOMMU of the generic kind did over a run: translations, invalidations, buffers. */
import type { TraceEvent } from '@pinhole/base';
import { DMA_MAPPING_ERROR, type GuestOperation } from './guest-operations.js';
import { Occupancy } from './window-profile.js';

/** What happened within so many lines of QEMU's log. */
export interface IommuSlice {
  /** Accesses whose translation was cached, and those that had it read from the tables. */
  hits: number;
  walks: number;
  /** Of cached translations: by page, domain, or all of them. */
  invalidations: number;
}

const MAX_SLICES = 256;

/**
 * A virtio-iommu of QEMU caches nothing: it looks each access up, and an UNMAP takes effect at once.
 * [qemu v7.2 hw/i386/intel_iommu.c vtd_do_iommu_translate, vtd_process_iotlb_desc]
 * [qemu v7.2 hw/arm/smmu-common.c smmu_iotlb_lookup] [qemu v7.2 hw/virtio/virtio-iommu.c virtio_iommu_translate]
 */
const KINDS: ReadonlyMap<string, keyof IommuSlice> = new Map([
  ['vtd_iotlb_page_hit', 'hits'],
  ['vtd_iotlb_page_update', 'walks'],
  ['vtd_inv_desc_iotlb_global', 'invalidations'],
  ['vtd_inv_desc_iotlb_domain', 'invalidations'],
  ['vtd_inv_desc_iotlb_pages', 'invalidations'],
  ['smmu_iotlb_lookup_hit', 'hits'],
  ['smmu_iotlb_lookup_miss', 'walks'],
  ['smmu_iotlb_inv_all', 'invalidations'],
  ['smmu_iotlb_inv_asid', 'invalidations'],
  ['smmuv3_s1_range_inval', 'invalidations'],
  ['virtio_iommu_translate', 'walks'],
  ['virtio_iommu_unmap', 'invalidations'],
]);
/** Those that are for everything that was unmapped before. */
const OF_ALL = /_(global|domain|all|asid)$/;

/** Follows a run without TCE windows. Memory: a bounded number of slices and points. */
export class IommuProfile {
  readonly total: Readonly<IommuSlice>;
  /** By `step` lines of QEMU's log. */
  readonly slices: IommuSlice[] = [];
  step = 1;
  /** Buffers that drivers hold mapped; `given`: unmapped, and no invalidation since. */
  readonly buffers: Occupancy = new Occupancy();
  /** Whether each invalidation was of all that was unmapped before it. */
  isLazy = false;
  /** Buffers mapped at most. */
  peak = 0;
  /** Unmapped ones that one invalidation made unreachable, at most. */
  mostDeferred = 0;
  readonly #total: IommuSlice = { hits: 0, walks: 0, invalidations: 0 };
  #mapped = 0;
  #deferred = 0;

  constructor() {
    this.total = this.#total;
  }

  /** An event of QEMU's log; those that are of no translation are passed over. */
  qemuEvent({ name }: TraceEvent, line: number): void {
    const kind = KINDS.get(name);
    if (kind === undefined) return;
    this.#total[kind] += 1;
    this.#sliceOf(line)[kind] += 1;
    if (kind !== 'invalidations') return;
    const isOfAll = OF_ALL.test(name);
    this.isLazy = isOfAll && (this.isLazy || this.#total.invalidations === 1);
    // What is invalidated page by page is not told apart from what was unmapped next.
    this.#deferred = 0;
    this.#note(line);
  }

  /** What the guest did, after `line` of QEMU's log. Coherent memory is left out. */
  operation({ kind, dmaAddr }: GuestOperation, line: number): void {
    if (kind === 'map' && dmaAddr !== DMA_MAPPING_ERROR) this.#mapped += 1;
    else if (kind === 'unmap') {
      // The trace may begin after the mapping.
      this.#mapped = Math.max(0, this.#mapped - 1);
      this.#deferred += 1;
    } else return;
    this.#note(line);
  }

  /** The log has so many lines. */
  end(lines: number): void {
    this.buffers.until(lines);
    this.#sliceOf(lines);
  }

  #note(line: number): void {
    this.peak = Math.max(this.peak, this.#mapped);
    this.mostDeferred = Math.max(this.mostDeferred, this.#deferred);
    this.buffers.note(line, this.#mapped, this.#deferred);
  }

  #sliceOf(line: number): IommuSlice {
    while (line >= this.step * MAX_SLICES) this.#halve();
    const at = Math.floor(line / this.step);
    while (this.slices.length <= at) this.slices.push({ hits: 0, walks: 0, invalidations: 0 });
    return this.slices[at] as IommuSlice;
  }

  #halve(): void {
    for (let at = 0; at < this.slices.length; at += 2) {
      const [one, two] = [this.slices[at] as IommuSlice, this.slices[at + 1]];
      if (two !== undefined) {
        one.hits += two.hits;
        one.walks += two.walks;
        one.invalidations += two.invalidations;
      }
      this.slices[at / 2] = one;
    }
    this.slices.length = Math.ceil(this.slices.length / 2);
    this.step *= 2;
  }
}
