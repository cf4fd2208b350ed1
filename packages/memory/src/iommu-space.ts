import { type Gpa, invariant, joinU64 } from '@pinhole/base';
import { type DmaAccess, type DmaSpace, DmaStatus, type Translation } from './dma.js';
import { forEachAlignedBlock, type IommuEvent, type IommuNotifier } from './iommu-events.js';
import { bytesToHole } from './regions.js';
import type { GuestMemory } from './types.js';

/** Bytes of an IOMMU page. */
export const IOMMU_PAGE_SIZE = 4096;

/** Pages that one space maps at most: 4 GiB in flight. */
const MAX_PAGES: number = 2 ** 20;

/** Options of {@link IommuSpace}. */
export interface IommuSpaceOptions {
  /** For people: `intel-iommu`. */
  readonly name: string;
  /** What devices see behind it. */
  readonly memory: GuestMemory;
  /** Bits of a bus address that it translates; an access beyond fails. At most 52. */
  readonly addressBits: number;
  /** Entries of its cache of translations. Default: none, and each change holds at once. */
  readonly iotlbSize?: number;
  /** Bus addresses where a write is an interrupt (x86: 0xfee00000, 1 MiB). */
  readonly interrupts?: { readonly base: number; readonly size: number };
  /** Pages mapped at once, at most. Default: 2^20. */
  readonly maxPages?: number;
  /**
   * What notifiers hear when everything is invalidated. `all`, the default: one range that is all of the
   * bus. `known`: of pages that were mapped when everything was invalidated before, and are no more; of
   * what came and went in between, nothing.
   * [qemu v7.2 hw/i386/intel_iommu.c vtd_sync_shadow_page_table, vtd_page_walk_one]
   */
  readonly invalidateAllTells?: 'all' | 'known';
  /** Sees what it does: for a trace. Every translation is then asked for. */
  readonly observer?: IommuObserver;
}

/** Who follows an {@link IommuSpace}. */
export interface IommuObserver {
  /** A device access; `gpa` is undefined where it was denied. */
  translated(iova: bigint, gpa: Gpa | undefined, access: DmaAccess): void;
  /** Pages [pfn, pfn + count) of the IOTLB; without `pfn`: all of it. */
  invalidated(pfn?: number, count?: number): void;
}

/**
 * What devices see behind an emulated IOMMU, at the level of maps, unmaps, invalidations and
 * translations, in pages of 4 KiB. An access that is not mapped, or not with this permission, fails:
 * the device gets nothing, and nothing stops it from trying again.
 *
 * Where there is an IOTLB, an unmapped page stays reachable until it is invalidated, if its
 * translation was used before: what deferred invalidation gives away. When the cache is full it is
 * emptied, as QEMU's are.
 * [qemu v7.2 hw/i386/intel_iommu.c vtd_do_iommu_translate, vtd_update_iotlb; hw/arm/smmu-common.c
 * smmu_iotlb_insert; hw/virtio/virtio-iommu.c virtio_iommu_translate]
 *
 * Deviates: no page tables in guest memory, no page above 4 KiB, no fault records.
 */
export class IommuSpace implements DmaSpace {
  readonly name: string;
  readonly isIdentity = false;
  /** Translations that devices asked for, and how many of them the IOTLB answered. */
  translations = 0;
  iotlbHits = 0;
  /** The most pages that were ever mapped at once. */
  peakPages = 0;
  /** Another number whenever what devices reach has changed. */
  changes = 0;
  readonly #memory: GuestMemory;
  readonly #pages = new Map<number, number>();
  readonly #iotlb = new Map<number, number>();
  readonly #iotlbSize: number;
  readonly #endHi: number;
  readonly #endLo: number;
  readonly #interrupts: { readonly base: number; readonly size: number };
  readonly #maxPages: number;
  readonly #tellsKnown: boolean;
  /** The mappings that notifiers are told of when they end: QEMU's `iova_tree`. */
  #known: ReadonlyMap<number, number> = new Map();
  readonly #observer: IommuObserver | undefined;
  #generation = 0;
  /** Where the last access went that was not denied. */
  #gpa: Gpa = 0;
  #notifiers: readonly IommuNotifier[] = [];

  constructor(options: IommuSpaceOptions) {
    const { addressBits } = options;
    invariant(
      addressBits > 12 && addressBits <= 52,
      'IommuSpace: 13 to 52 bits of a bus address are translated',
    );
    this.name = options.name;
    this.#memory = options.memory;
    this.#iotlbSize = options.iotlbSize ?? 0;
    this.#endHi = addressBits >= 32 ? 2 ** (addressBits - 32) : 1;
    this.#endLo = addressBits >= 32 ? 2 ** 32 : 2 ** addressBits;
    this.#interrupts = options.interrupts ?? { base: 0, size: 0 };
    this.#maxPages = options.maxPages ?? MAX_PAGES;
    this.#tellsKnown = options.invalidateAllTells === 'known';
    this.#observer = options.observer;
  }

  /** Pages that are mapped. */
  get livePages(): number {
    return this.#pages.size;
  }

  /** Pages that are not mapped any more, and that devices still reach: the IOTLB has them. */
  get stalePages(): number {
    let stale = 0;
    for (const pfn of this.#iotlb.keys()) if (!this.#pages.has(pfn)) stale += 1;
    return stale;
  }

  get generation(): number | undefined {
    return this.#observer === undefined ? this.#generation : undefined;
  }

  countRemembered(): void {
    this.translations += 1;
    if (this.#iotlbSize > 0) this.iotlbHits += 1;
  }

  /**
   * Maps `count` pages from bus page `pfn` to memory from `gpa`.
   * @param perm - bits 0 (read) and 1 (write).
   * @returns false, and nothing is mapped: one of the pages is in use, does not exist on the bus, or
   * there are too many.
   */
  map(pfn: number, gpa: Gpa, count: number, perm: number): boolean {
    const pages = this.#pages;
    if (!this.#isOnBus(pfn, count) || pages.size + count > this.#maxPages) return false;
    for (let i = 0; i < count; i += 1) if (pages.has(pfn + i)) return false;
    const first = Math.floor(gpa / IOMMU_PAGE_SIZE);
    for (let i = 0; i < count; i += 1) pages.set(pfn + i, (first + i) * 4 + (perm & 3));
    this.peakPages = Math.max(this.peakPages, pages.size);
    this.changes += 1;
    this.#notify('MAP', pfn, count, first, perm);
    return true;
  }

  /**
   * Takes the mappings of `count` pages away. The IOTLB keeps what it has; without one this is an
   * invalidation, too.
   * @returns how many were mapped.
   */
  unmap(pfn: number, count: number): number {
    let unmapped = 0;
    for (let i = 0; i < count; i += 1) if (this.#pages.delete(pfn + i)) unmapped += 1;
    this.changes += 1;
    if (this.#iotlbSize === 0) {
      this.#generation += 1;
      this.#notify('UNMAP', pfn, count, 0, 0);
    }
    return unmapped;
  }

  /** The IOTLB forgets these pages. [qemu v7.2 hw/i386/intel_iommu.c vtd_iotlb_page_invalidate] */
  invalidate(pfn: number, count: number): void {
    if (count < this.#iotlb.size) {
      for (let i = 0; i < count; i += 1) this.#iotlb.delete(pfn + i);
    } else {
      for (const page of this.#iotlb.keys()) {
        if (page >= pfn && page < pfn + count) this.#iotlb.delete(page);
      }
    }
    this.#changed();
    this.#observer?.invalidated(pfn, count);
    this.#notify('UNMAP', pfn, count, 0, 0);
  }

  /**
   * The IOTLB forgets everything; notifiers hear of one range that is all of the bus, or as
   * `invalidateAllTells` says.
   * [qemu commit 3e090e3489db hw/i386/intel_iommu.c; qemu v7.2 hw/arm/smmu-common.c smmu_inv_notifiers_mr]
   */
  invalidateAll(): void {
    this.#iotlb.clear();
    this.#changed();
    this.#observer?.invalidated();
    if (this.#tellsKnown) {
      if (this.#notifiers.length > 0) this.#tellKnown();
      return;
    }
    const all = { type: 'UNMAP', iova: 0n, translatedAddr: 0n, addrMask: 2n ** 64n - 1n } as const;
    this.#tell({ ...all, perm: 0 });
  }

  /**
   * Adds one who hears of changes: of mappings when they are made, of unmappings when they hold.
   * @returns a function that takes it out again.
   */
  addNotifier(notifier: IommuNotifier): () => void {
    this.#notifiers = [notifier, ...this.#notifiers];
    return () => {
      this.#notifiers = this.#notifiers.filter((other) => other !== notifier);
    };
  }

  translate(
    hi: number,
    lo: number,
    length: number,
    access: DmaAccess,
    out: Translation,
  ): DmaStatus {
    const { base, size } = this.#interrupts;
    if (hi === 0 && lo >= base && lo < base + size) return DmaStatus.INTERRUPT;
    const status = this.#translate(hi, lo, length, access, out);
    const isDenied = status === DmaStatus.NO_PERMISSION;
    this.#observer?.translated(joinU64(hi, lo), isDenied ? undefined : this.#gpa, access);
    return status;
  }

  /** All of the bus belongs to the IOMMU, mapped or not. */
  covers(hi: number, lo: number, length: number): boolean {
    return hi + Math.floor((lo + length - 1) / 2 ** 32) < 2 ** 32;
  }

  /** Visits every page that a device can reach now, mapped or still in the IOTLB. */
  forEachReachable(visit: (gpa: Gpa, length: number) => void): void {
    const seen = new Set<number>();
    for (const entries of [this.#pages, this.#iotlb]) {
      for (const entry of entries.values()) {
        const page = Math.floor(entry / 4);
        if (!seen.has(page)) visit(page * IOMMU_PAGE_SIZE, IOMMU_PAGE_SIZE);
        seen.add(page);
      }
    }
  }

  #translate(
    hi: number,
    lo: number,
    length: number,
    access: DmaAccess,
    out: Translation,
  ): DmaStatus {
    if (hi >= this.#endHi || lo >= this.#endLo) return DmaStatus.NO_PERMISSION;
    this.translations += 1;
    const pfn = hi * 2 ** 20 + (lo >>> 12);
    const entry = this.#lookUp(pfn, access);
    if (entry === undefined || (entry & access) === 0) return DmaStatus.NO_PERMISSION;
    const offset = lo % IOMMU_PAGE_SIZE;
    const gpa = Math.floor(entry / 4) * IOMMU_PAGE_SIZE + offset;
    this.#gpa = gpa;
    const inPage = Math.min(length, IOMMU_PAGE_SIZE - offset);
    const inMemory = this.#memory.isBacked(gpa, inPage) ? inPage : bytesToHole(this.#memory, gpa);
    if (inMemory === 0) return DmaStatus.NOT_MEMORY;
    out.gpa = gpa;
    out.length = Math.min(inPage, inMemory);
    return DmaStatus.OK;
  }

  #lookUp(pfn: number, access: DmaAccess): number | undefined {
    const cached = this.#iotlb.get(pfn);
    if (cached !== undefined) {
      this.iotlbHits += 1;
      return cached;
    }
    const entry = this.#pages.get(pfn);
    // A walk that ends in a fault leaves nothing in the cache.
    if (entry === undefined || this.#iotlbSize === 0 || (entry & access) === 0) return entry;
    if (this.#iotlb.size >= this.#iotlbSize) {
      this.#iotlb.clear();
      this.#changed();
    }
    this.#iotlb.set(pfn, entry);
    return entry;
  }

  #changed(): void {
    this.#generation += 1;
    this.changes += 1;
  }

  #isOnBus(pfn: number, count: number): boolean {
    const pages = (this.#endHi - 1) * 2 ** 20 + this.#endLo / IOMMU_PAGE_SIZE;
    return pfn >= 0 && count > 0 && pfn + count <= pages;
  }

  #notify(
    type: IommuEvent['type'],
    pfn: number,
    count: number,
    gpaPage: number,
    perm: number,
  ): void {
    if (this.#notifiers.length === 0) return;
    forEachAlignedBlock(pfn, count, (at, block) => {
      this.#tell({
        type,
        iova: BigInt(at) * BigInt(IOMMU_PAGE_SIZE),
        translatedAddr: type === 'MAP' ? BigInt(gpaPage + at - pfn) * BigInt(IOMMU_PAGE_SIZE) : 0n,
        addrMask: BigInt(block * IOMMU_PAGE_SIZE) - 1n,
        perm,
      });
    });
  }

  #tellKnown(): void {
    const known = this.#known;
    this.#known = new Map(this.#pages);
    for (const [pfn, entry] of known) {
      if (this.#pages.get(pfn) !== entry) this.#notify('UNMAP', pfn, 1, 0, 0);
    }
  }

  #tell(event: IommuEvent): void {
    // Who is added or removed meanwhile does not change this round.
    for (const notifier of this.#notifiers) {
      if (notifier.types?.includes(event.type) !== false) notifier.notify(event);
    }
  }
}
