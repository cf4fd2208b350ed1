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
/** Words of a scattered entry: its index, upper half, lower half. */
const SLOT = 3;

interface Chunk {
  /** Two words an entry: upper half, lower half. */
  readonly words: Uint32Array;
  /** How many entries grant any permission. */
  live: number;
  /** One uniform chunk can stand in many places until one of them is written. */
  isShared: boolean;
}

/** The entries of a piece that has few: ascending by index. */
interface Scattered {
  slots: Uint32Array;
  count: number;
}

/**
 * The entries of one table, 64 bits each, all zero at first. Costs memory where entries were
 * written: 8 bytes an entry in pieces that are in use, some 12 for one that lies alone and what a
 * piece of those costs. (QEMU allocates the whole table, and the kernel hands it out page by page.)
 */
export class TceStore {
  /** How many entries grant a permission now. */
  live = 0;
  readonly #chunks: (Chunk | undefined)[];
  // Pieces that have no array.
  readonly #scattered: (Scattered | undefined)[];

  /** @param size - number of entries, from 1 to 2^32 - 1. */
  constructor(size: number) {
    const count = Math.ceil(size / CHUNK);
    this.#chunks = new Array<Chunk | undefined>(count).fill(undefined);
    this.#scattered = new Array<Scattered | undefined>(count).fill(undefined);
  }

  /** Fills in the halves of the entry at `index`, which the caller has checked. */
  get(index: number, out: HiLo): void {
    const number = index >>> CHUNK_SHIFT;
    const chunk = this.#chunks[number];
    if (chunk !== undefined) {
      const at = (index & (CHUNK - 1)) * 2;
      out.hi = chunk.words[at] as number;
      out.lo = chunk.words[at + 1] as number;
      return;
    }
    out.hi = 0;
    out.lo = 0;
    const piece = this.#scattered[number];
    if (piece === undefined) return;
    const slot = find(piece, index);
    if (piece.slots[slot] !== index || slot >= piece.count * SLOT) return;
    out.hi = piece.slots[slot + 1] as number;
    out.lo = piece.slots[slot + 2] as number;
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
    const delta = isLive(lo) - isLive(chunk.words[at + 1] as number);
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
      const isEmpty = this.#chunks[number] === undefined && this.#scattered[number] === undefined;
      if (isZero && isEmpty) {
        // Zero already.
      } else if (stop - at === CHUNK) {
        uniform ??= uniformChunk(hi, lo);
        this.live += uniform.live - this.#liveIn(number);
        this.#chunks[number] = uniform;
        this.#scattered[number] = undefined;
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
    for (let number = from >>> CHUNK_SHIFT; number < this.#chunks.length; number += 1) {
      const start = number * CHUNK;
      const first = Math.max(from, start);
      const chunk = this.#chunks[number];
      const piece = this.#scattered[number];
      if (chunk !== undefined) {
        const length = chunk.isShared ? start + CHUNK - first : 1;
        for (let index = first; index < start + CHUNK; index += length) {
          const at = (index - start) * 2;
          const hi = chunk.words[at] as number;
          const lo = chunk.words[at + 1] as number;
          if ((hi !== 0 || lo !== 0) && visit(index, length, hi, lo) === false) return;
        }
      } else if (piece !== undefined) {
        for (let slot = find(piece, first); slot < piece.count * SLOT; slot += SLOT) {
          const hi = piece.slots[slot + 1] as number;
          const lo = piece.slots[slot + 2] as number;
          const isZero = hi === 0 && lo === 0;
          if (!isZero && visit(piece.slots[slot] as number, 1, hi, lo) === false) return;
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
    let piece = this.#scattered[number];
    const slot = piece === undefined ? 0 : find(piece, index);
    const isThere = piece !== undefined && slot < piece.count * SLOT && piece.slots[slot] === index;
    if (!isThere) {
      if (hi === 0 && lo === 0) return true;
      if (piece?.count === SCATTERED_MAX) return false;
      piece ??= { slots: new Uint32Array(SLOT), count: 0 };
      this.#scattered[number] = piece;
      insert(piece, slot, index);
    }
    const { slots } = piece as Scattered;
    this.live += isLive(lo) - isLive(slots[slot + 2] as number);
    slots[slot + 1] = hi;
    slots[slot + 2] = lo;
    return true;
  }

  // Makes a piece an array.
  #gather(number: number): Chunk {
    const chunk: Chunk = {
      words: new Uint32Array(CHUNK_WORDS),
      live: this.#liveIn(number),
      isShared: false,
    };
    const { slots, count } = this.#scattered[number] as Scattered;
    for (let slot = 0; slot < count * SLOT; slot += SLOT) {
      const at = ((slots[slot] as number) & (CHUNK - 1)) * 2;
      chunk.words[at] = slots[slot + 1] as number;
      chunk.words[at + 1] = slots[slot + 2] as number;
    }
    this.#scattered[number] = undefined;
    this.#chunks[number] = chunk;
    return chunk;
  }

  #liveIn(number: number): number {
    const chunk = this.#chunks[number];
    if (chunk !== undefined) return chunk.live;
    const { slots, count } = this.#scattered[number] ?? { slots: [], count: 0 };
    let live = 0;
    for (let slot = 0; slot < count * SLOT; slot += SLOT) live += isLive(slots[slot + 2] as number);
    return live;
  }
}

function isLive(lo: number): 0 | 1 {
  return (lo & PERM) === 0 ? 0 : 1;
}

// The slot of an index, or of the first one above it; behind the last where there is none.
function find({ slots, count }: Scattered, index: number): number {
  let [low, high] = [0, count];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((slots[middle * SLOT] as number) < index) low = middle + 1;
    else high = middle;
  }
  return low * SLOT;
}

// Makes room at a slot for an index; its entry is zero.
function insert(piece: Scattered, slot: number, index: number): void {
  const end = piece.count * SLOT;
  if (end === piece.slots.length) {
    const larger = new Uint32Array(Math.min(SCATTERED_MAX * SLOT, end * 2));
    larger.set(piece.slots);
    piece.slots = larger;
  }
  piece.slots.copyWithin(slot + SLOT, slot, end);
  piece.slots.fill(0, slot, slot + SLOT);
  piece.slots[slot] = index;
  piece.count += 1;
}

function uniformChunk(hi: number, lo: number): Chunk {
  const words = new Uint32Array(CHUNK_WORDS);
  for (let i = 0; i < CHUNK_WORDS; i += 2) {
    words[i] = hi;
    words[i + 1] = lo;
  }
  return { words, live: isLive(lo) * CHUNK, isShared: true };
}
