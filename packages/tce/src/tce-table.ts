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
import { TCE_READ, TCE_WRITE } from './params.js';

/** Entries are held in pieces of this many. */
const CHUNK_SHIFT = 12;
const CHUNK = 1 << CHUNK_SHIFT;
const TWO_32 = 0x1_0000_0000;

interface Chunk {
  /** Two words an entry: upper half, lower half. */
  readonly words: Uint32Array;
  /** How many entries grant any permission. */
  live: number;
  /** One uniform chunk can stand in many places until one of them is written. */
  isShared: boolean;
}

/** A change of one entry, as IOMMU notifiers see it. [qemu v7.2 hw/ppc/spapr_iommu.c put_tce_emu] */
export interface TceEvent {
  readonly liobn: Liobn;
  /** MAP when the entry grants any permission, else UNMAP. */
  readonly type: 'MAP' | 'UNMAP';
  /** Page-aligned, relative to the start of the window. */
  readonly iova: bigint;
  /** The page's real address; meaningful for MAP. */
  readonly translatedAddr: bigint;
  /** Page size minus one. */
  readonly addrMask: bigint;
  /** Bits 0 (read) and 1 (write). */
  readonly perm: number;
}

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
  #chunks: (Chunk | undefined)[] = [];
  #live = 0;
  #peakLive = 0;
  #busHi = 0;
  #busLo = 0;
  // For page sizes below 4 GiB: pages in 2^32 bytes, and the bits of an offset in a page. Kept,
  // since a power is dearer than all the rest of a translation.
  #pagesPerHi = 0;
  #offsetMask = 0;
  readonly #listeners: ((event: TceEvent) => void)[] = [];

  constructor(liobn: Liobn) {
    this.liobn = liobn;
  }

  get isEnabled(): boolean {
    return this.nbTable !== 0;
  }

  /** How many entries grant a permission now. */
  get live(): number {
    return this.#live;
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
    this.pageShift = options.pageShift;
    this.busOffset = options.busOffset;
    this.#busHi = hi32(options.busOffset);
    this.#busLo = lo32(options.busOffset);
    this.nbTable = options.nbTable;
    this.pageSize = 2 ** options.pageShift;
    this.#pagesPerHi = options.pageShift < 32 ? 2 ** (32 - options.pageShift) : 0;
    this.#offsetMask = options.pageShift < 32 ? this.pageSize - 1 : 0xffff_ffff;
    return true;
  }

  /**
   * Closes the window and forgets its entries. The default-window flag stays.
   * [qemu v7.2 hw/ppc/spapr_iommu.c spapr_tce_table_disable]
   */
  disable(): void {
    this.clear();
    this.pageShift = 0;
    this.pageSize = 0;
    this.busOffset = 0n;
    this.nbTable = 0;
  }

  /** Zeroes every entry, without notifying. [qemu v7.2 hw/ppc/spapr_iommu.c spapr_tce_reset] */
  clear(): void {
    this.changes += 1;
    this.#chunks = [];
    this.#live = 0;
  }

  /** Calls `listener` for each entry that is written, in order, valid or not. */
  onChange(listener: (event: TceEvent) => void): void {
    this.#listeners.push(listener);
  }

  /** The entry that holds a bus address, or -1 when the window does not reach there. */
  indexOf(ioba: Ioba): number {
    const index = BigInt.asUintN(64, ioba - this.busOffset) >> BigInt(this.pageShift);
    return index < BigInt(this.nbTable) ? Number(index) : -1;
  }

  /**
   * Stores an entry as it is: its value is not checked, as in the real thing.
   * @param index - below `nbTable`; the caller has checked with `indexOf`.
   */
  put(index: number, tce: Tce): void {
    invariant(index >= 0 && index < this.nbTable, 'TceTable: index inside the table');
    this.changes += 1;
    const chunk = this.#writable(index >>> CHUNK_SHIFT);
    const at = (index & (CHUNK - 1)) * 2;
    const lo = lo32(tce);
    const wasLive = ((chunk.words[at + 1] as number) & 3) !== 0 ? 1 : 0;
    const delta = ((lo & 3) !== 0 ? 1 : 0) - wasLive;
    chunk.words[at] = hi32(tce);
    chunk.words[at + 1] = lo;
    chunk.live += delta;
    this.#addLive(delta);
    if (this.#listeners.length > 0) this.#notify(index, tce);
  }

  /** The raw 64-bit entry. */
  get(index: number): Tce {
    invariant(index >= 0 && index < this.nbTable, 'TceTable: index inside the table');
    const chunk = this.#chunks[index >>> CHUNK_SHIFT];
    if (chunk === undefined) return 0n;
    const at = (index & (CHUNK - 1)) * 2;
    return joinU64(chunk.words[at] as number, chunk.words[at + 1] as number);
  }

  /** Stores the same entry `count` times from `index` on; whole chunks at once when unobserved. */
  fill(index: number, count: number, tce: Tce): void {
    invariant(index >= 0 && index + count <= this.nbTable, 'TceTable: range inside the table');
    this.changes += 1;
    const end = index + count;
    let uniform: Chunk | undefined;
    for (let at = index; at < end; ) {
      const isWholeChunk = (at & (CHUNK - 1)) === 0 && at + CHUNK <= end;
      const number = at >>> CHUNK_SHIFT;
      if (tce === 0n && this.#chunks[number] === undefined && this.#listeners.length === 0) {
        at = Math.min(end, (number + 1) * CHUNK);
      } else if (isWholeChunk && this.#listeners.length === 0) {
        uniform ??= uniformChunk(tce);
        this.#addLive((uniform?.live ?? 0) - (this.#chunks[number]?.live ?? 0));
        this.#chunks[number] = uniform;
        at += CHUNK;
      } else {
        this.put(at, tce);
        at += 1;
      }
    }
  }

  /**
   * Looks up a bus address: fills `out` with the address that the device reaches and the
   * permission. Outside the table the permission is 0. Whether it suffices is the caller's check.
   * [qemu v7.2 hw/ppc/spapr_iommu.c spapr_tce_translate_iommu]
   * @param hi, lo - halves of the address relative to the start of the window.
   */
  lookup(hi: number, lo: number, out: TceLookup): void {
    const shift = this.pageShift;
    const index = shift < 32 ? hi * this.#pagesPerHi + (lo >>> shift) : hi >>> (shift - 32);
    this.translations += 1;
    if (index >= this.nbTable) {
      out.hi = 0;
      out.lo = 0;
      out.perm = 0;
      return;
    }
    const chunk = this.#chunks[index >>> CHUNK_SHIFT];
    const at = (index & (CHUNK - 1)) * 2;
    const tceHi = chunk === undefined ? 0 : (chunk.words[at] as number);
    const tceLo = chunk === undefined ? 0 : (chunk.words[at + 1] as number);
    out.perm = tceLo & (TCE_READ | TCE_WRITE);
    if (shift < 32) {
      const offsetMask = this.#offsetMask;
      out.hi = tceHi;
      out.lo = ((tceLo & ~offsetMask) | (lo & offsetMask)) >>> 0;
    } else {
      const offsetMask = 2 ** (shift - 32) - 1;
      out.hi = ((tceHi & ~offsetMask) | (hi & offsetMask)) >>> 0;
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
    const shift = this.pageShift;
    const index =
      shift < 32 ? out.hi * this.#pagesPerHi + (out.lo >>> shift) : out.hi >>> (shift - 32);
    return index < this.nbTable;
  }

  /** Visits every entry that grants a permission, in ascending order. */
  forEachLive(visit: (index: number, tce: Tce) => void): void {
    this.#chunks.forEach((chunk, number) => {
      if (chunk === undefined || chunk.live === 0) return;
      for (let i = 0; i < CHUNK; i += 1) {
        const lo = chunk.words[i * 2 + 1] as number;
        if ((lo & 3) !== 0) {
          visit(number * CHUNK + i, joinU64(chunk.words[i * 2] as number, lo));
        }
      }
    });
  }

  #addLive(delta: number): void {
    this.#live += delta;
    if (this.#live > this.#peakLive) this.#peakLive = this.#live;
  }

  #writable(number: number): Chunk {
    const chunk = this.#chunks[number];
    if (chunk !== undefined && !chunk.isShared) return chunk;
    const own: Chunk = {
      words: chunk === undefined ? new Uint32Array(CHUNK * 2) : chunk.words.slice(),
      live: chunk?.live ?? 0,
      isShared: false,
    };
    this.#chunks[number] = own;
    return own;
  }

  #notify(index: number, tce: Tce): void {
    const pageMask = (1n << BigInt(this.pageShift)) - 1n;
    const perm = Number(tce & 3n);
    const event: TceEvent = {
      liobn: this.liobn,
      type: perm === 0 ? 'UNMAP' : 'MAP',
      iova: BigInt(index) << BigInt(this.pageShift),
      translatedAddr: tce & ~pageMask,
      addrMask: pageMask,
      perm,
    };
    for (const listener of this.#listeners) listener(event);
  }
}

// A chunk of one value that stands wherever it is needed; all-zero needs none.
function uniformChunk(tce: Tce): Chunk | undefined {
  if (tce === 0n) return undefined;
  const words = new Uint32Array(CHUNK * 2);
  const hi = hi32(tce);
  const lo = lo32(tce);
  for (let i = 0; i < CHUNK * 2; i += 2) {
    words[i] = hi;
    words[i + 1] = lo;
  }
  return { words, live: (lo & 3) !== 0 ? CHUNK : 0, isShared: true };
}
