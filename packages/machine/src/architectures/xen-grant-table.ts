import {
  DmaAccess,
  type DmaSpace,
  DmaStatus,
  type GuestMemory,
  type Translation,
} from '@pinhole/memory';

/** Bytes of a page of Xen, whatever the guest's are. */
export const XEN_PAGE_SIZE = 4096;
/** Bit 63 of a bus address says that it is a grant. [linux v6.1 drivers/xen/grant-dma-ops.c XEN_GRANT_DMA_ADDR_OFF] */
export const XEN_GRANT_DMA_ADDR_OFF_HI = 0x8000_0000;
/** Kept for the toolstack. [linux v6.1 include/xen/interface/grant_table.h GNTTAB_NR_RESERVED_ENTRIES] */
export const GNTTAB_NR_RESERVED_ENTRIES = 8;

/** What an entry allows the backend. [linux v6.1 include/xen/interface/grant_table.h GTF_readonly] */
interface GrantEntry {
  readonly gfn: number;
  readonly isReadOnly: boolean;
  /** The backend has the page mapped: GTF_reading or GTF_writing is set. */
  isMapped: boolean;
}

/** Options of {@link GrantTable}. */
export interface GrantTableOptions {
  readonly memory: GuestMemory;
  /** Entries. */
  readonly size: number;
  /** The backend keeps what it once mapped, where others map for an access only. */
  readonly backendHolds: boolean;
}

/**
 * The guest's grant table, and what a backend makes of a bus address by it: a page of the guest, for
 * as long as it is granted, and nothing else. [linux v6.1 drivers/xen/grant-table.c]
 */
export class GrantTable implements DmaSpace {
  readonly name = 'grants of Xen';
  readonly isIdentity = false;
  readonly size: number;
  /** Since the start: entries that were made valid and invalid; pages that the backend asked for. */
  granted = 0;
  ended = 0;
  translations = 0;
  /** The most entries that were valid at once. */
  peak = 0;
  readonly #entries = new Map<number, GrantEntry>();
  readonly #memory: GuestMemory;
  readonly #backendHolds: boolean;

  constructor({ memory, size, backendHolds }: GrantTableOptions) {
    this.#memory = memory;
    this.size = size;
    this.#backendHolds = backendHolds;
  }

  /** Entries that are valid now. */
  get live(): number {
    return this.#entries.size;
  }

  /** [linux v6.1 drivers/xen/grant-table.c gnttab_grant_foreign_access_ref] */
  grant(ref: number, gfn: number, isReadOnly: boolean): void {
    this.#entries.set(ref, { gfn, isReadOnly, isMapped: false });
    this.granted += 1;
    this.peak = Math.max(this.peak, this.#entries.size);
  }

  /**
   * Ends a grant; false while the backend has the page mapped: it stays granted then.
   * [linux v6.1 drivers/xen/grant-table.c gnttab_end_foreign_access_ref]
   */
  end(ref: number): boolean {
    if (this.#entries.get(ref)?.isMapped === true) return false;
    if (this.#entries.delete(ref)) this.ended += 1;
    return true;
  }

  translate(
    hi: number,
    lo: number,
    length: number,
    access: DmaAccess,
    out: Translation,
  ): DmaStatus {
    if (!this.covers(hi, lo, 1)) return DmaStatus.NOTHING_THERE;
    this.translations += 1;
    const entry = this.#entries.get(refOf(hi, lo));
    if (entry === undefined || (entry.isReadOnly && (access & DmaAccess.WRITE) !== 0)) {
      return DmaStatus.NO_PERMISSION;
    }
    const offset = lo % XEN_PAGE_SIZE;
    const gpa = entry.gfn * XEN_PAGE_SIZE + offset;
    out.length = Math.min(length, XEN_PAGE_SIZE - offset);
    if (!this.#memory.isBacked(gpa, out.length)) return DmaStatus.NOT_MEMORY;
    out.gpa = gpa;
    entry.isMapped = this.#backendHolds;
    return DmaStatus.OK;
  }

  covers(hi: number, lo: number, length: number): boolean {
    if (hi < XEN_GRANT_DMA_ADDR_OFF_HI) return false;
    const end = refOf(hi, lo) * XEN_PAGE_SIZE + (lo % XEN_PAGE_SIZE) + length;
    return end <= this.size * XEN_PAGE_SIZE;
  }

  /** Pages that are granted now, each once. */
  reachablePages(): number {
    return new Set([...this.#entries.values()].map(({ gfn }) => gfn)).size;
  }
}

/** [linux v6.1 drivers/xen/grant-dma-ops.c dma_to_grant] */
export function refOf(hi: number, lo: number): number {
  return (hi & 0x7fff_ffff) * 2 ** 20 + (lo >>> 12);
}
