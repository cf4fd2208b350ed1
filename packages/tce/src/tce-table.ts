import {
  type HiLo,
  hi32,
  type Ioba,
  invariant,
  joinU64,
  type Liobn,
  lo32,
  type Tce,
} from '@pinhole/base';
import type { DmaAccess, Translation } from '@pinhole/memory';
import { TceError } from './errors.js';
import { NotifierList, type TceNotifier, tceEvent } from './notifiers.js';
import { TCE_READ, TCE_WRITE } from './params.js';
import { CHUNK_WORDS, TceStore } from './tce-store.js';

const TWO_32 = 0x1_0000_0000;
const PERM = TCE_READ | TCE_WRITE;

/** What `TceTable.lookup` fills in. */
export interface TceLookup extends HiLo {
  /** Bits 0 (read) and 1 (write); 0 when the address is outside the table. */
  perm: number;
}

/**
 * One translation table of the pseries IOMMU: a window of the I/O bus, an entry a page.
 * [qemu v7.2 hw/ppc/spapr_iommu.c]
 *
 * A table exists for the life of the machine; a window is the time in which it is enabled. Memory
 * is spent only where entries were written.
 */
export class TceTable {
  readonly liobn: Liobn;
  /** log2 of the page size in bytes; 0 while disabled. */
  pageShift = 0;
  /** Bytes of a page; 0 while disabled. */
  pageSize = 0;
  /** Where the window starts on the bus; 0 while disabled. */
  busOffset: Ioba = 0n;
  /** Number of entries, 32 bits; 0 means disabled. */
  nbTable = 0;
  /** Set when this table becomes the default window; QEMU never clears it. */
  isDefaultWindow = false;
  /** How many translations devices asked for. A statistic of the run. */
  translations = 0;
  /** Rises with each change of the table: who remembers what it held can tell whether it still does. */
  changes = 0;
  /** Entries written, one at a time or in bulk, since the table was made. A statistic of the run. */
  entriesWritten = 0;
  #store: TceStore | undefined;
  #peakLive = 0;
  #busHi = 0;
  #busLo = 0;
  // For page sizes below 4 GiB: pages in 2^32 bytes, and the bits of an offset in a page. Kept,
  // since a power is dearer than all the rest of a translation.
  #pagesPerHi = 0;
  #offsetMask = 0;
  readonly #notifiers = new NotifierList();
  #openListeners: readonly (() => void)[] = [];
  readonly #entry: HiLo = { hi: 0, lo: 0 };

  constructor(liobn: Liobn) {
    this.liobn = liobn;
  }

  get isEnabled(): boolean {
    return this.nbTable !== 0;
  }

  /** Whether anybody listens: QEMU's `need_vfio`. [qemu v7.2 hw/ppc/spapr_iommu.c spapr_tce_notify_flag_changed] */
  get hasNotifiers(): boolean {
    return this.#notifiers.size > 0;
  }

  /** How many entries grant a permission now. */
  get live(): number {
    return this.#store?.live ?? 0;
  }

  /** The most that `live` ever was. */
  get peakLive(): number {
    return this.#peakLive;
  }

  /**
   * Opens the window. An enabled table stays as it is and the answer is false, as QEMU only warns.
   * [qemu v7.2 hw/ppc/spapr_iommu.c spapr_tce_table_enable]
   */
  enable(options: { pageShift: number; busOffset: Ioba; nbTable: number }): boolean {
    if (this.isEnabled) return false;
    invariant(
      options.nbTable > 0 && options.nbTable < TWO_32,
      `TceTable: 1 to 2^32-1 entries, found ${options.nbTable}`,
    );
    this.changes += 1;
    this.pageShift = options.pageShift;
    this.busOffset = options.busOffset;
    this.#busHi = hi32(options.busOffset);
    this.#busLo = lo32(options.busOffset);
    this.nbTable = options.nbTable;
    this.pageSize = 2 ** options.pageShift;
    this.#pagesPerHi = options.pageShift < 32 ? 2 ** (32 - options.pageShift) : 0;
    this.#offsetMask = options.pageShift < 32 ? this.pageSize - 1 : 0xffff_ffff;
    for (const listener of this.#openListeners) listener();
    return true;
  }

  /**
   * Closes the window and forgets its entries and its notifiers, without a word to those. The
   * default-window flag stays. [qemu v7.2 hw/ppc/spapr_iommu.c spapr_tce_table_disable]
   */
  disable(): void {
    this.clear();
    this.#notifiers.clear();
    this.pageShift = 0;
    this.pageSize = 0;
    this.busOffset = 0n;
    this.#busHi = 0;
    this.#busLo = 0;
    this.#pagesPerHi = 0;
    this.#offsetMask = 0;
    this.nbTable = 0;
  }

  /** Zeroes every entry, without notifying. [qemu v7.2 hw/ppc/spapr_iommu.c spapr_tce_reset] */
  clear(): void {
    this.changes += 1;
    this.#store = undefined;
  }

  /**
   * Has `listener` called now, if the window is open, and whenever it opens: who wants to hear of
   * each window's entries adds a notifier then. [qemu v7.2 include/exec/memory.h MemoryListener region_add]
   * @returns a function that takes it back.
   */
  onOpen(listener: () => void): () => void {
    const entry = (): void => listener();
    this.#openListeners = [...this.#openListeners, entry];
    if (this.isEnabled) entry();
    return () => {
      this.#openListeners = this.#openListeners.filter((other) => other !== entry);
    };
  }

  /**
   * Registers a notifier, which hears of each entry that is written until the window closes.
   * @returns a function that takes it back.
   * @throws TceError `E_NOTIFIER` when the window is closed, or the range is none or cuts a page.
   */
  addNotifier(notifier: TceNotifier): () => void {
    if (!this.isEnabled) {
      throw new TceError('E_NOTIFIER', 'expected an open window to listen to, found it closed');
    }
    return this.#notifiers.add(notifier, this.pageSize);
  }

  /**
   * Tells a notifier of every entry that grants a permission, in ascending order, as a MAP: how one
   * that comes late learns what is mapped. [qemu v7.2 hw/ppc/spapr_iommu.c spapr_tce_replay]
   */
  replay(notifier: TceNotifier): void {
    this.forEachEntry((index, hi, lo) => {
      if ((lo & PERM) !== 0) notifier.notify(tceEvent(this, index, hi, lo));
    });
  }

  /** The entry that holds a bus address, or -1 when the window does not reach there. */
  indexOf(ioba: Ioba): number {
    const borrow = lo32(ioba) < this.#busLo ? 1 : 0;
    return this.#indexAt(
      (hi32(ioba) - this.#busHi - borrow) >>> 0,
      (lo32(ioba) - this.#busLo) >>> 0,
    );
  }

  /**
   * As `indexOf`, but of the page that the address `hi`:`lo` lies in: hypercalls truncate to pages
   * first, which matters where the window does not start at a multiple of its page size.
   */
  indexOfPage(hi: number, lo: number): number {
    let pageHi = hi;
    let pageLo = 0;
    if (this.pageShift < 32) pageLo = (lo & ~this.#offsetMask) >>> 0;
    else pageHi -= hi % 2 ** (this.pageShift - 32);
    const borrow = pageLo < this.#busLo ? 1 : 0;
    return this.#indexAt((pageHi - this.#busHi - borrow) >>> 0, (pageLo - this.#busLo) >>> 0);
  }

  /**
   * Stores an entry as it is: its value is not checked, as in the real thing. Then notifies.
   * @param index - below `nbTable`; the caller has checked with `indexOf`.
   */
  put(index: number, tce: Tce): void {
    this.putHalves(index, hi32(tce), lo32(tce));
  }

  /** As `put`, from the halves of the entry. */
  putHalves(index: number, hi: number, lo: number): void {
    this.storeHalves(index, hi, lo);
    if (this.#notifiers.size > 0) this.#notifiers.notify(tceEvent(this, index, hi, lo));
  }

  /** As `putHalves`, but no notifier hears of it: KVM's handlers write past QEMU. */
  storeHalves(index: number, hi: number, lo: number): void {
    invariant(index >= 0 && index < this.nbTable, 'TceTable: index inside the table');
    this.changes += 1;
    this.entriesWritten += 1;
    const store = this.#writable();
    store.set(index, hi, lo);
    if (store.live > this.#peakLive) this.#peakLive = store.live;
  }

  /** The raw 64-bit entry. */
  get(index: number): Tce {
    invariant(index >= 0 && index < this.nbTable, 'TceTable: index inside the table');
    if (this.#store === undefined) return 0n;
    this.#store.get(index, this.#entry);
    return joinU64(this.#entry.hi, this.#entry.lo);
  }

  /**
   * Stores the same entry `count` times from `index` on; notifies of each, in ascending order.
   * Whole pieces of the table at once when there is nobody to tell.
   */
  fill(index: number, count: number, tce: Tce): void {
    const hi = hi32(tce);
    const lo = lo32(tce);
    if (this.#notifiers.size === 0) this.fillSilently(index, count, hi, lo);
    else for (let i = 0; i < count; i += 1) this.putHalves(index + i, hi, lo);
  }

  /** As `fill`, from the halves of the entry, but no notifier hears of it. */
  fillSilently(index: number, count: number, hi: number, lo: number): void {
    invariant(index >= 0 && index + count <= this.nbTable, 'TceTable: range inside the table');
    this.changes += 1;
    this.entriesWritten += count;
    if (this.#store === undefined && hi === 0 && lo === 0) return;
    const store = this.#writable();
    store.fill(index, count, hi, lo);
    if (store.live > this.#peakLive) this.#peakLive = store.live;
  }

  /**
   * The usual case of a translation by an open window, in one go and without a detour over objects: the window
   * reaches the bus address `hi`:`lo`, its pages are smaller than 4 GiB, entries around are in use,
   * the permission suffices, and what it leads to ends below `memoryEnd`, the end of a run of memory
   * that begins at 0. Fills `out`.
   * @returns 1 when it is so, 0 when the window does not reach there, -1 in any other case: `lookup`
   * tells which.
   */
  translateAtOnce(
    hi: number,
    lo: number,
    length: number,
    access: DmaAccess,
    memoryEnd: number,
    out: Translation,
  ): 1 | 0 | -1 {
    const relativeHi = hi - this.#busHi - (lo < this.#busLo ? 1 : 0);
    const relativeLo = (lo - this.#busLo) >>> 0;
    let index = relativeLo >>> this.pageShift;
    if (relativeHi !== 0) {
      if (relativeHi < 0) return 0;
      index += relativeHi * this.#pagesPerHi;
    }
    if (this.#pagesPerHi === 0) return -1;
    if (index >= this.nbTable) return 0;
    const words = this.#store?.wordsAt(index);
    if (words === undefined) return -1;
    const at = (index * 2) & (CHUNK_WORDS - 1);
    const tceLo = words[at + 1] as number;
    // TCE bit 0 lets a device read, bit 1 write: the values of DmaAccess.
    if ((tceLo & access) === 0) return -1;
    const offsetMask = this.#offsetMask;
    const offset = relativeLo & offsetMask;
    const gpa = (words[at] as number) * TWO_32 + (((tceLo & ~offsetMask) | offset) >>> 0);
    const room = this.pageSize - (offset >>> 0);
    const inPage = length < room ? length : room;
    if (gpa + inPage > memoryEnd) return -1;
    this.translations += 1;
    out.gpa = gpa;
    out.length = inPage;
    return 1;
  }

  /**
   * Looks up a bus address: fills `out` with the address that the device reaches and the
   * permission. Outside the table the permission is 0. Whether it suffices is the caller's check.
   * [qemu v7.2 hw/ppc/spapr_iommu.c spapr_tce_translate_iommu]
   * @param hi - with `lo`, halves of the address relative to the start of the window.
   */
  lookup(hi: number, lo: number, out: TceLookup): void {
    const index = this.#indexAt(hi, lo);
    this.translations += 1;
    if (index < 0) {
      out.hi = 0;
      out.lo = 0;
      out.perm = 0;
      return;
    }
    if (this.#store === undefined) {
      out.hi = 0;
      out.lo = 0;
    } else {
      this.#store.get(index, out);
    }
    out.perm = out.lo & PERM;
    if (this.pageShift < 32) {
      const offsetMask = this.#offsetMask;
      out.lo = ((out.lo & ~offsetMask) | (lo & offsetMask)) >>> 0;
    } else {
      const offsetMask = 2 ** (this.pageShift - 32) - 1;
      out.hi = ((out.hi & ~offsetMask) | (hi & offsetMask)) >>> 0;
      out.lo = lo;
    }
  }

  /** Whether the window reaches the bus address `hi`:`lo`; fills `out` with the relative address. */
  reaches(hi: number, lo: number, out: HiLo): boolean {
    if (this.nbTable === 0) return false;
    const borrow = lo < this.#busLo ? 1 : 0;
    out.lo = (lo - this.#busLo) >>> 0;
    out.hi = (hi - this.#busHi - borrow) >>> 0;
    if (hi < this.#busHi + borrow) return false;
    return this.#indexAt(out.hi, out.lo) >= 0;
  }

  /** Visits every entry that grants a permission, in ascending order. */
  forEachLive(visit: (index: number, tce: Tce) => void): void {
    this.forEachEntry((index, hi, lo) => {
      if ((lo & PERM) !== 0) visit(index, joinU64(hi, lo));
    });
  }

  /** Visits every entry that is not zero, in ascending order from `from` on, until a visit says false. */
  forEachEntry(visit: (index: number, hi: number, lo: number) => unknown, from = 0): void {
    this.#store?.forEach(visit, from);
  }

  /** As `forEachEntry`; entries that are equal and follow each other can be one visit. */
  forEachRun(
    visit: (index: number, length: number, hi: number, lo: number) => unknown,
    from = 0,
  ): void {
    this.#store?.forEachRun(visit, from);
  }

  // The entry for a relative address, or -1.
  #indexAt(hi: number, lo: number): number {
    const shift = this.pageShift;
    const index = shift < 32 ? hi * this.#pagesPerHi + (lo >>> shift) : hi >>> (shift - 32);
    return index < this.nbTable ? index : -1;
  }

  #writable(): TceStore {
    this.#store ??= new TceStore(this.nbTable);
    return this.#store;
  }
}
