import type { HiLo } from '@pinhole/base';
import { TCE_READ, TCE_WRITE } from './params.js';

/** Where a piece of the table is in use densely, its entries lie in an array of this many. */
const CHUNK_SHIFT = 12;
const CHUNK = 1 << CHUNK_SHIFT;
/** A piece with more scattered entries than this becomes an array. */
const SCATTERED_MAX = 64;
/** Of the words of a piece, an entry's are at `(index * 2) % CHUNK_WORDS`. */
export const CHUNK_WORDS: number = CHUNK * 2;
const PERM = TCE_READ | TCE_WRITE;
/** Marks a free slot of the hash; no index is that high. */
const FREE = 0xffff_ffff;

interface Chunk {
  /** Two words an entry: upper half, lower half. */
  readonly words: Uint32Array;
  /** How many entries grant any permission. */
  live: number;
  /** One uniform chunk can stand in many places until one of them is written. */
  isShared: boolean;
}

/**
 * The entries of one table, 64 bits each, all zero at first. Costs memory where entries were
 * written: 8 bytes an entry in pieces that are in use, some 24 for one that lies alone. (QEMU
 * allocates the whole table, and the kernel hands it out page by page.)
 */
export class TceStore {
  /** How many entries grant a permission now. */
  live = 0;
  readonly #chunks: (Chunk | undefined)[];
  // Entries of pieces that have no array: a hash with linear probing, three words a slot: index,
  // upper half, lower half. Slots are never freed one by one, only all at once.
  #slots: Uint32Array = new Uint32Array(0);
  #slotMask = -1;
  #used = 0;
  // By piece: how many slots it has.
  readonly #scattered: Uint8Array;

  /** @param size - number of entries, from 1 to 2^32 - 1. */
  constructor(size: number) {
    const count = Math.ceil(size / CHUNK);
    this.#chunks = new Array<Chunk | undefined>(count).fill(undefined);
    this.#scattered = new Uint8Array(count);
  }

  /** Fills in the halves of the entry at `index`, which the caller has checked. */
  get(index: number, out: HiLo): void {
    const chunk = this.#chunks[index >>> CHUNK_SHIFT];
    if (chunk !== undefined) {
      const at = (index & (CHUNK - 1)) * 2;
      out.hi = chunk.words[at] as number;
      out.lo = chunk.words[at + 1] as number;
      return;
    }
    const slot = this.#used === 0 ? -1 : this.#find(index);
    out.hi = slot < 0 ? 0 : (this.#slots[slot + 1] as number);
    out.lo = slot < 0 ? 0 : (this.#slots[slot + 2] as number);
  }

  /**
   * The words of the piece that has the entry, two an entry, or `undefined` where the piece has no
   * array; see `CHUNK_WORDS`. For reading, until something is stored.
   */
  wordsAt(index: number): Uint32Array | undefined {
    return this.#chunks[index >>> CHUNK_SHIFT]?.words;
  }

  /** Stores an entry. */
  set(index: number, hi: number, lo: number): void {
    const number = index >>> CHUNK_SHIFT;
    let chunk = this.#chunks[number];
    if (chunk === undefined) {
      if (this.#setScattered(number, index, hi, lo)) return;
      chunk = this.#gather(number);
    } else if (chunk.isShared) {
      chunk = { words: chunk.words.slice(), live: chunk.live, isShared: false };
      this.#chunks[number] = chunk;
    }
    const at = (index & (CHUNK - 1)) * 2;
    const delta =
      ((lo & PERM) === 0 ? 0 : 1) - (((chunk.words[at + 1] as number) & PERM) === 0 ? 0 : 1);
    chunk.words[at] = hi;
    chunk.words[at + 1] = lo;
    chunk.live += delta;
    this.live += delta;
  }

  /** Stores the same entry `count` times from `index` on, whole pieces at once. */
  fill(index: number, count: number, hi: number, lo: number): void {
    const end = index + count;
    const isZero = hi === 0 && lo === 0;
    let uniform: Chunk | undefined;
    for (let at = index; at < end; ) {
      const number = at >>> CHUNK_SHIFT;
      const stop = Math.min(end, (number + 1) * CHUNK);
      if (isZero && this.#chunks[number] === undefined && this.#scattered[number] === 0) {
        // Zero already.
      } else if (stop - at === CHUNK) {
        const before = this.#chunks[number];
        if (before === undefined && this.#scattered[number] !== 0) this.#gather(number);
        uniform ??= uniformChunk(hi, lo);
        this.live += uniform.live - (this.#chunks[number]?.live ?? 0);
        this.#chunks[number] = uniform;
      } else {
        for (let i = at; i < stop; i += 1) this.set(i, hi, lo);
      }
      at = stop;
    }
  }

  /**
   * Visits what is not zero, in ascending order from `from` on, until a visit says false. Equal
   * entries that stand for a whole piece are one visit, with their number.
   */
  forEachRun(
    visit: (index: number, length: number, hi: number, lo: number) => unknown,
    from = 0,
  ): void {
    let alone: number[] | undefined;
    let next = 0;
    for (let number = from >>> CHUNK_SHIFT; number < this.#chunks.length; number += 1) {
      const chunk = this.#chunks[number];
      const start = number * CHUNK;
      const first = Math.max(from, start);
      if (chunk !== undefined) {
        const length = chunk.isShared ? start + CHUNK - first : 1;
        for (let index = first; index < start + CHUNK; index += length) {
          const at = (index - start) * 2;
          const hi = chunk.words[at] as number;
          const lo = chunk.words[at + 1] as number;
          if ((hi !== 0 || lo !== 0) && visit(index, length, hi, lo) === false) return;
        }
      } else if (this.#scattered[number] !== 0) {
        alone ??= this.#sortedIndices();
        while (next < alone.length && (alone[next] as number) < first) next += 1;
        for (; next < alone.length && (alone[next] as number) < start + CHUNK; next += 1) {
          const index = alone[next] as number;
          const slot = this.#find(index);
          const hi = this.#slots[slot + 1] as number;
          const lo = this.#slots[slot + 2] as number;
          if ((hi !== 0 || lo !== 0) && visit(index, 1, hi, lo) === false) return;
        }
      }
    }
  }

  /** As `forEachRun`, entry for entry. */
  forEach(visit: (index: number, hi: number, lo: number) => unknown, from = 0): void {
    this.forEachRun((index, length, hi, lo) => {
      for (let i = 0; i < length; i += 1) if (visit(index + i, hi, lo) === false) return false;
      return true;
    }, from);
  }

  // False when the piece has too many scattered entries to take another.
  #setScattered(number: number, index: number, hi: number, lo: number): boolean {
    let slot = this.#used === 0 ? -1 : this.#find(index);
    if (slot < 0) {
      if (hi === 0 && lo === 0) return true;
      if (this.#scattered[number] === SCATTERED_MAX) return false;
      slot = this.#take(index);
      this.#scattered[number] = (this.#scattered[number] as number) + 1;
    }
    const wasLive = ((this.#slots[slot + 2] as number) & PERM) === 0 ? 0 : 1;
    this.#slots[slot + 1] = hi;
    this.#slots[slot + 2] = lo;
    this.live += ((lo & PERM) === 0 ? 0 : 1) - wasLive;
    return true;
  }

  // Makes a piece an array. Its slots stay behind, out of use: the array comes first.
  #gather(number: number): Chunk {
    const chunk: Chunk = { words: new Uint32Array(CHUNK * 2), live: 0, isShared: false };
    for (let i = 0; i < CHUNK && this.#used > 0; i += 1) {
      const slot = this.#find(number * CHUNK + i);
      if (slot < 0) continue;
      const lo = this.#slots[slot + 2] as number;
      chunk.words[i * 2] = this.#slots[slot + 1] as number;
      chunk.words[i * 2 + 1] = lo;
      if ((lo & PERM) !== 0) chunk.live += 1;
    }
    this.#chunks[number] = chunk;
    return chunk;
  }

  // The slot (its first word) of an index, or -1.
  #find(index: number): number {
    for (let at = hash(index); ; at += 1) {
      const slot = (at & this.#slotMask) * 3;
      const key = this.#slots[slot] as number;
      if (key === index) return slot;
      if (key === FREE) return -1;
    }
  }

  // A new slot for an index that has none; at most two thirds are ever taken.
  #take(index: number): number {
    if ((this.#used + 1) * 3 > (this.#slotMask + 1) * 2) this.#grow();
    this.#used += 1;
    for (let at = hash(index); ; at += 1) {
      const slot = (at & this.#slotMask) * 3;
      if (this.#slots[slot] !== FREE) continue;
      this.#slots[slot] = index;
      return slot;
    }
  }

  #grow(): void {
    const old = this.#slots;
    const count = Math.max(16, (this.#slotMask + 1) * 2);
    this.#slots = new Uint32Array(count * 3);
    this.#slotMask = count - 1;
    for (let slot = 0; slot < this.#slots.length; slot += 3) this.#slots[slot] = FREE;
    this.#used = 0;
    for (let from = 0; from < old.length; from += 3) {
      const index = old[from] as number;
      // What has become an array since is left out.
      if (index === FREE || this.#chunks[index >>> CHUNK_SHIFT] !== undefined) continue;
      const slot = this.#take(index);
      this.#slots[slot + 1] = old[from + 1] as number;
      this.#slots[slot + 2] = old[from + 2] as number;
    }
  }

  #sortedIndices(): number[] {
    const indices: number[] = [];
    for (let slot = 0; slot < this.#slots.length; slot += 3) {
      const index = this.#slots[slot] as number;
      if (index !== FREE && this.#chunks[index >>> CHUNK_SHIFT] === undefined) indices.push(index);
    }
    return indices.sort((a, b) => a - b);
  }
}

// Fibonacci hashing: neighbours end up apart. [Knuth, The Art of Computer Programming 3, §6.4]
function hash(index: number): number {
  const product = Math.imul(index, 0x9e37_79b1);
  return product ^ (product >>> 15);
}

function uniformChunk(hi: number, lo: number): Chunk {
  const words = new Uint32Array(CHUNK * 2);
  for (let i = 0; i < CHUNK * 2; i += 2) {
    words[i] = hi;
    words[i + 1] = lo;
  }
  return { words, live: (lo & PERM) === 0 ? 0 : CHUNK, isShared: true };
}
