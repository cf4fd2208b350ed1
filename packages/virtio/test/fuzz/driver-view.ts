import type { QueueSetup } from '../../src/transport/transport.js';
import type { CheckedDma } from './checked-dma.js';
import type { CheckedMemory } from './checked-memory.js';
import { check } from './finding.js';

const NEXT = 1;
const WRITABLE = 2;
const INDIRECT = 4;
const AVAIL = 0x80;
const USED = 0x8000;
const DISABLE = 1;
const DESC_EVENT = 2;

/** The ring of a driver as a hostile device sees it, and as a naive reader expects it. */
export class DriverView {
  readonly #isPacked: boolean;
  readonly #memory: CheckedMemory;
  readonly #dma: CheckedDma;
  #size = 1;
  #desc = 0;
  #avail = 0;
  #used = 0;
  // Where the driver adds, where it takes, and where the device returns.
  #availAt = 0;
  #availWrap = 1;
  #takenAt = 0;
  #takenWrap = 1;
  #usedAt = 0;
  #usedWrap = 1;

  constructor(isPacked: boolean, memory: CheckedMemory, dma: CheckedDma) {
    this.#isPacked = isPacked;
    this.#memory = memory;
    this.#dma = dma;
  }

  begin(size: number, setup: QueueSetup): void {
    this.#size = size;
    const [first, second, third] = this.#dma.parts.filter(({ isLive }) => isLive);
    check(first !== undefined, 'a queue has no memory');
    this.#desc = first.gpa;
    this.#avail = second?.gpa ?? first.gpa + Number(setup.avail - setup.desc);
    this.#used = third?.gpa ?? first.gpa + Number(setup.used - setup.desc);
    if (third === undefined) first.deviceStart = this.#used;
    else third.deviceStart = third.gpa;
    this.restart();
  }

  restart(): void {
    this.#availAt = 0;
    this.#availWrap = 1;
    this.#takenAt = 0;
    this.#takenWrap = 1;
    this.#usedAt = 0;
    this.#usedWrap = 1;
  }

  /** Whether the ring says that a buffer came back. */
  hasUsed(): boolean {
    if (!this.#isPacked) return this.#memory.get16(this.#used + 2) !== this.#takenAt;
    const flags = this.#memory.get16(this.#desc + 16 * this.#takenAt + 14);
    const isUsed = (flags & USED) !== 0;
    return isUsed === (this.#takenWrap === 1) && isUsed === ((flags & AVAIL) !== 0);
  }

  /** What it says; `count` is how many buffers are back at most. */
  used(): { id: number; length: number; count: number } {
    const memory = this.#memory;
    if (!this.#isPacked) {
      const at = this.#used + 4 + 8 * (this.#takenAt % this.#size);
      const count = (memory.get16(this.#used + 2) - this.#takenAt) & 0xffff;
      return { id: memory.get32(at), length: memory.get32(at + 4), count };
    }
    const at = this.#desc + 16 * this.#takenAt;
    return { id: memory.get16(at + 12), length: memory.get32(at + 8), count: this.#size };
  }

  /** The driver took what came back. */
  advance(ndescs: number): void {
    if (!this.#isPacked) {
      this.#takenAt = (this.#takenAt + 1) & 0xffff;
      return;
    }
    this.#takenAt += ndescs;
    if (this.#takenAt < this.#size) return;
    this.#takenAt -= this.#size;
    this.#takenWrap ^= 1;
  }

  /** The device returns a buffer. */
  use(id: number, length: number, ndescs: number): void {
    const memory = this.#memory;
    if (!this.#isPacked) {
      const at = this.#used + 4 + 8 * (this.#usedAt % this.#size);
      memory.put32(at, id);
      memory.put32(at + 4, length);
      this.#usedAt = (this.#usedAt + 1) & 0xffff;
      memory.put16(this.#used + 2, this.#usedAt);
      return;
    }
    const at = this.#desc + 16 * this.#usedAt;
    memory.put32(at + 8, length);
    memory.put16(at + 12, id);
    memory.put16(at + 14, this.#usedWrap === 1 ? AVAIL | USED : 0);
    this.#usedAt += ndescs;
    if (this.#usedAt < this.#size) return;
    this.#usedAt %= this.#size;
    this.#usedWrap ^= 1;
  }

  /** The device's place in the used ring jumps; with `isShown` the driver sees it. */
  moveUsed(value: number, isShown: boolean): void {
    if (this.#isPacked) {
      this.#usedAt = value % this.#size;
      this.#usedWrap = value >> 15;
      return;
    }
    this.#usedAt = value < 0x100 ? (this.#usedAt + ((value << 24) >> 24)) & 0xffff : value;
    if (isShown) this.#memory.put16(this.#used + 2, this.#usedAt);
  }

  /** The device says when it wants kicks. */
  writeEvent(value: number, flags: number): void {
    if (this.#isPacked) {
      this.#memory.put16(this.#used, value);
      this.#memory.put16(this.#used + 2, flags & 7);
    } else if ((flags & 1) === 0) {
      this.#memory.put16(this.#used + 4 + 8 * this.#size, value);
    } else {
      this.#memory.put16(this.#used, value);
    }
  }

  /** Whether a kick is due for the `added` entries since the last look; undefined: not said here. */
  wantsKick(added: number, hasEventIdx: boolean): boolean | undefined {
    const memory = this.#memory;
    if (this.#isPacked) {
      const flags = memory.get16(this.#used + 2);
      if (flags !== DESC_EVENT) return flags !== DISABLE;
      const value = memory.get16(this.#used);
      const place = value & 0x7fff;
      if (place >= this.#size || added > this.#size) return undefined;
      // Places of two laps: was the one asked for passed?
      const laps = 2 * this.#size;
      const now = this.#availAt + (this.#availWrap === 1 ? this.#size : 0);
      const wanted = place + ((value & 0x8000) !== 0 ? this.#size : 0);
      return (now - wanted - 1 + 2 * laps) % laps < added;
    }
    if (!hasEventIdx) return (memory.get16(this.#used) & 1) === 0;
    const wanted = memory.get16(this.#used + 4 + 8 * this.#size);
    return ((this.#availAt - wanted - 1) & 0xffff) < added;
  }

  /**
   * A buffer was added, its mappings numbered from `first` on, that of its table last: checks that the
   * ring describes it, and returns its name.
   */
  checkAdded(first: number, outNum: number, inNum: number, hasTable: boolean): number {
    const total = outNum + inNum;
    const id = this.#isPacked
      ? this.#checkPacked(first, outNum, total, hasTable)
      : this.#takeHead();
    if (!this.#isPacked) this.#checkSplit(id, first, outNum, total, hasTable);
    return id;
  }

  #takeHead(): number {
    const head = this.#memory.get16(this.#avail + 4 + 2 * (this.#availAt % this.#size));
    this.#availAt = (this.#availAt + 1) & 0xffff;
    check(this.#memory.get16(this.#avail + 2) === this.#availAt, 'a buffer is not made available');
    check(head < this.#size, 'a buffer begins nowhere');
    return head;
  }

  #checkSplit(head: number, first: number, outNum: number, total: number, hasTable: boolean): void {
    let at = this.#desc + 16 * head;
    if (hasTable) {
      this.#checkDescriptor(at, first + total, INDIRECT);
      at = this.#dma.gpa[first + total]!;
    }
    for (let i = 0; i < total; i += 1) {
      const flags = (i < outNum ? 0 : WRITABLE) | (i + 1 < total ? NEXT : 0);
      this.#checkDescriptor(at, first + i, flags);
      const next = this.#memory.get16(at + 14);
      const base = hasTable ? this.#dma.gpa[first + total]! : this.#desc;
      check(i + 1 === total || next < (hasTable ? total : this.#size), 'a chain leads nowhere');
      at = base + 16 * next;
    }
  }

  #checkPacked(first: number, outNum: number, total: number, hasTable: boolean): number {
    const start = this.#desc + 16 * this.#availAt;
    const id = this.#memory.get16(start + 12);
    check(id < this.#size, 'a buffer has no name');
    if (hasTable) {
      this.#checkDescriptor(start, first + total, INDIRECT | this.#availBits());
      const table = this.#dma.gpa[first + total]!;
      for (let i = 0; i < total; i += 1) {
        this.#checkDescriptor(table + 16 * i, first + i, i < outNum ? 0 : WRITABLE);
      }
      this.#advanceAvail();
      return id;
    }
    for (let i = 0; i < total; i += 1) {
      const at = this.#desc + 16 * this.#availAt;
      const flags = (i < outNum ? 0 : WRITABLE) | (i + 1 < total ? NEXT : 0);
      this.#checkDescriptor(at, first + i, flags | this.#availBits());
      check(i + 1 < total || this.#memory.get16(at + 12) === id, 'a buffer has two names');
      this.#advanceAvail();
    }
    return id;
  }

  #availBits(): number {
    return this.#availWrap === 1 ? AVAIL : USED;
  }

  #advanceAvail(): void {
    this.#availAt += 1;
    if (this.#availAt < this.#size) return;
    this.#availAt = 0;
    this.#availWrap ^= 1;
  }

  #checkDescriptor(at: number, mapping: number, flags: number): void {
    const memory = this.#memory;
    const dma = this.#dma;
    const first = memory.get32(at);
    const second = memory.get32(at + 4);
    const hi = memory.isBig ? first : second;
    const lo = memory.isBig ? second : first;
    check(hi === dma.high && lo === dma.lowOf(mapping), 'a descriptor has another address');
    check(memory.get32(at + 8) === dma.length[mapping], 'a descriptor has another length');
    const actual = memory.get16(at + (this.#isPacked ? 14 : 12));
    check(actual === flags, `a descriptor has flags ${actual}, expected ${flags}`);
  }
}
