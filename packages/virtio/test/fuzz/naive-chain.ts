import type { CheckedMemory } from './checked-memory.js';
import { READ, WRITE } from './checked-memory.js';
import type { Iommu } from './checked-space.js';
import { WINDOW_SIZE } from './program.js';

const NEXT = 1;
const WRITABLE = 2;
const INDIRECT = 4;
/** The most pieces of a chain in a queue of so many entries. */
export function mostSegments(size: number): number {
  return Math.max(size, 1024);
}

const TWO_32 = 0x1_0000_0000;

/**
 * - `good`: the pieces are those of the chain.
 * - `bad`: the device must refuse the chain.
 * - `unknown`: some of it is not mapped, where the device reads what nobody wrote.
 */
export type Verdict = 'good' | 'bad' | 'unknown';

/** A chain read anew, without a thought of speed: what the device must make of it. */
export class NaiveChain {
  verdict: Verdict = 'unknown';
  /** Buffer ID of a packed chain. */
  id = 0;
  /** Ring descriptors. */
  ndescs = 1;
  outNum = 0;
  inNum = 0;
  /** Where the pieces are. */
  readonly gpa: Float64Array = new Float64Array(32_768);
  readonly length: Float64Array = new Float64Array(32_768);
  /** Descriptors read, and the most translations of buffers that take. */
  visited = 0;
  pages = 0;
  /** Where the device itself writes two bytes before it reads the chain; -1 for nowhere. */
  written = -1;
  readonly #memory: CheckedMemory;
  readonly #iommu: Iommu;
  // Of the descriptor just read.
  #address = 0;
  #length = 0;
  #flags = 0;
  #next = 0;
  #most = 0;

  constructor(memory: CheckedMemory, iommu: Iommu) {
    this.#memory = memory;
    this.#iommu = iommu;
  }

  /** The chain at `at` of a ring of `size` at the bus address `desc`. */
  decode(isPacked: boolean, desc: number, size: number, at: number): Verdict {
    this.outNum = 0;
    this.inNum = 0;
    this.visited = 0;
    this.pages = 0;
    this.ndescs = 1;
    this.#most = mostSegments(size);
    this.verdict = isPacked ? this.#packed(desc, size, at) : this.#split(desc, size, at);
    return this.verdict;
  }

  #split(desc: number, size: number, head: number): Verdict {
    if (!this.#read(desc + 16 * head, false)) return 'unknown';
    let from = desc;
    let limit = size;
    if ((this.#flags & INDIRECT) !== 0) {
      const verdict = this.#checkTable();
      if (verdict !== 'good') return verdict;
      from = this.#address;
      limit = this.#length / 16;
      if (!this.#read(from, false)) return 'unknown';
    }
    for (let seen = 1; ; seen += 1) {
      if (seen > limit || !this.#append()) return 'bad';
      if ((this.#flags & NEXT) === 0) return 'good';
      if (this.#next >= limit) return 'bad';
      if (!this.#read(from + 16 * this.#next, false)) return 'unknown';
    }
  }

  #packed(desc: number, size: number, at: number): Verdict {
    if (!this.#read(desc + 16 * at, true)) return 'unknown';
    this.id = this.#next;
    if ((this.#flags & INDIRECT) !== 0) {
      const verdict = this.#checkTable();
      if (verdict !== 'good') return verdict;
      const from = this.#address;
      const entries = this.#length / 16;
      for (let i = 0; i < entries; i += 1) {
        if (!this.#read(from + 16 * i, true)) return 'unknown';
        if (!this.#append()) return 'bad';
      }
      return 'good';
    }
    for (let seen = 1; ; seen += 1) {
      if (seen > size || !this.#append()) return 'bad';
      if ((this.#flags & NEXT) === 0) {
        this.id = this.#next;
        this.ndescs = seen;
        return 'good';
      }
      if (!this.#read(desc + 16 * ((at + seen) % size), true)) return 'unknown';
    }
  }

  // The descriptor just read says where a table is.
  #checkTable(): Verdict {
    if (this.#length === 0 || this.#length % 16 !== 0) return 'bad';
    const end = this.#address + this.#length;
    const isCovered = this.#iommu.isIdentity
      ? this.#memory.isBacked(this.#address, this.#length)
      : end <= WINDOW_SIZE;
    return isCovered ? 'good' : 'unknown';
  }

  // Reads a descriptor; false if the device would not get all of it, or not as it is now.
  #read(address: number, isPacked: boolean): boolean {
    const gpa = this.#iommu.locate(address, 16, READ);
    if (gpa < 0 || (this.written > gpa - 2 && this.written < gpa + 16)) return false;
    const memory = this.#memory;
    this.visited += 1;
    const first = memory.get32(gpa);
    const second = memory.get32(gpa + 4);
    this.#address = memory.isBig ? first * TWO_32 + second : second * TWO_32 + first;
    this.#length = memory.get32(gpa + 8);
    this.#flags = memory.get16(gpa + (isPacked ? 14 : 12));
    this.#next = memory.get16(gpa + (isPacked ? 12 : 14));
    return true;
  }

  // Adds the pieces of the descriptor just read; false if it cannot be a part of a chain.
  #append(): boolean {
    const isIn = (this.#flags & WRITABLE) !== 0;
    if ((!isIn && this.inNum > 0) || this.#length === 0) return false;
    // Beyond what numbers hold there is nothing.
    if (this.#address >= Number.MAX_SAFE_INTEGER) return false;
    let address = this.#address;
    const end = address + this.#length;
    let isNew = true;
    while (address < end) {
      const isIdentity = this.#iommu.isIdentity;
      const length = isIdentity ? this.#length : Math.min(end - address, 4096 - (address % 4096));
      const gpa = this.#iommu.locate(address, length, isIn ? WRITE : READ);
      if (gpa < 0) return false;
      const last = this.outNum + this.inNum - 1;
      this.pages += 1;
      if (!isNew && gpa === this.gpa[last]! + this.length[last]!) {
        this.length[last]! += length;
      } else {
        if (last + 1 === this.#most) return false;
        this.gpa[last + 1] = gpa;
        this.length[last + 1] = length;
        if (isIn) this.inNum += 1;
        else this.outNum += 1;
      }
      isNew = false;
      address += length;
    }
    return true;
  }
}
