import { type Ioba, joinU64, type Liobn } from '@pinhole/base';
import { TceError } from './errors.js';
import { TCE_READ, TCE_WRITE } from './params.js';

/** A change of one entry, as IOMMU notifiers see it. [qemu v7.2 hw/ppc/spapr_iommu.c put_tce_emu] */
export interface TceEvent {
  readonly liobn: Liobn;
  /** MAP when the entry grants any permission, else UNMAP. */
  readonly type: 'MAP' | 'UNMAP';
  /** Page-aligned, relative to the start of the window. */
  readonly iova: Ioba;
  /** The page's real address; meaningful for MAP. */
  readonly translatedAddr: bigint;
  /** Page size minus one. */
  readonly addrMask: bigint;
  /** Bits 0 (read) and 1 (write). */
  readonly perm: number;
}

/**
 * Who wants to know of changed entries: vhost, VFIO. One event an entry, whatever call changed it,
 * even when the entry had that value before; none when a window is reset or closed.
 * [qemu v7.2 include/exec/memory.h IOMMUNotifier]
 */
export interface TceNotifier {
  /** Default: both. vhost asks for UNMAP alone, so it does not hear of an entry that is replaced. */
  readonly types?: readonly TceEvent['type'][];
  /** First and last byte of interest, relative to the window. Default: all of it. */
  readonly start?: Ioba;
  readonly end?: Ioba;
  /** Hears of one entry. It may read the table, but not open, close or restore the window. */
  notify(event: TceEvent): void;
}

/** What of a table an event needs. */
interface Source {
  readonly liobn: Liobn;
  readonly pageShift: number;
}

/** The event of entry `index`, whose value is `hi`:`lo`. */
export function tceEvent(table: Source, index: number, hi: number, lo: number): TceEvent {
  const shift = BigInt(table.pageShift);
  const addrMask = (1n << shift) - 1n;
  const perm = lo & (TCE_READ | TCE_WRITE);
  return {
    liobn: table.liobn,
    type: perm === 0 ? 'UNMAP' : 'MAP',
    iova: BigInt(index) << shift,
    translatedAddr: joinU64(hi, lo) & ~addrMask,
    addrMask,
    perm,
  };
}

/** The notifiers of one table, the newest first. [qemu v7.2 softmmu/memory.c] */
export class NotifierList {
  #list: readonly Required<TceNotifier>[] = [];

  get size(): number {
    return this.#list.length;
  }

  /**
   * Adds one in front.
   * @returns a function that takes it out again.
   * @throws TceError `E_NOTIFIER` for no types, a range that is none or cuts a page. (QEMU aborts on
   * the first two [qemu v7.2 softmmu/memory.c memory_region_register_iommu_notifier], and at the first
   * event that lies partly in the range. [qemu v7.2 softmmu/memory.c memory_region_notify_iommu_one])
   */
  add(notifier: TceNotifier, pageSize: number): () => void {
    const { start = 0n, end = 2n ** 64n - 1n, types = ['MAP', 'UNMAP'] } = notifier;
    const pages = BigInt(pageSize);
    if (start < 0n || end < start || start % pages !== 0n || (end + 1n) % pages !== 0n) {
      throw new TceError(
        'E_NOTIFIER',
        `expected a range of whole pages of ${pageSize} bytes in the window, found its first byte 0x${start.toString(16)}, its last 0x${end.toString(16)}`,
        { details: { start, end, pageSize } },
      );
    }
    if (types.length === 0) {
      throw new TceError('E_NOTIFIER', 'expected MAP, UNMAP or both to listen to, found neither');
    }
    const entry = { start, end, types, notify: (event: TceEvent) => notifier.notify(event) };
    this.#list = [entry, ...this.#list];
    return () => {
      this.#list = this.#list.filter((other) => other !== entry);
    };
  }

  clear(): void {
    this.#list = [];
  }

  /** Tells all whom it concerns. Who is added or removed meanwhile does not change this round. */
  notify(event: TceEvent): void {
    for (const { start, end, types, notify } of this.#list) {
      const isInRange = event.iova >= start && event.iova + event.addrMask <= end;
      if (isInRange && types.includes(event.type)) notify(event);
    }
  }
}
