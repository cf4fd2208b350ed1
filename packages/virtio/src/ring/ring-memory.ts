import type { Gpa, HiLo } from '@pinhole/base';
import type { GuestMemory, MemoryWindow } from '@pinhole/memory';

const NO_VIEW = new DataView(new ArrayBuffer(0));

/** A part of a ring, as the driver reaches it. */
export class RingMemory {
  readonly gpa: Gpa;
  readonly #memory: GuestMemory;
  readonly #isLittle: boolean;
  readonly #length: number;
  // Where all of it lies in one piece: the quick way, once something is there.
  #view: DataView | undefined;
  #base = 0;
  #words: Uint32Array | undefined;
  readonly #window: MemoryWindow = { view: NO_VIEW, offset: 0, from: 0, to: 0 };

  constructor(memory: GuestMemory, gpa: Gpa, length: number, isBigEndian = false) {
    this.gpa = gpa;
    this.#memory = memory;
    this.#isLittle = !isBigEndian;
    this.#length = length;
    this.#look();
  }

  readU16(offset: number): number {
    if (this.#view !== undefined) return this.#view.getUint16(this.#base + offset, this.#isLittle);
    const at = this.gpa + offset;
    return this.#isLittle ? this.#memory.readU16Le(at) : this.#memory.readU16Be(at);
  }

  writeU16(offset: number, value: number): void {
    if (this.#view !== undefined) {
      this.#view.setUint16(this.#base + offset, value, this.#isLittle);
      return;
    }
    const at = this.gpa + offset;
    if (this.#isLittle) this.#memory.writeU16Le(at, value);
    else this.#memory.writeU16Be(at, value);
    this.#look();
  }

  readU32(offset: number): number {
    if (this.#view !== undefined) return this.#view.getUint32(this.#base + offset, this.#isLittle);
    const at = this.gpa + offset;
    return this.#isLittle ? this.#memory.readU32Le(at) : this.#memory.readU32Be(at);
  }

  writeU32(offset: number, value: number): void {
    if (this.#view !== undefined) {
      this.#view.setUint32(this.#base + offset, value, this.#isLittle);
      return;
    }
    const at = this.gpa + offset;
    if (this.#isLittle) this.#memory.writeU32Le(at, value);
    else this.#memory.writeU32Be(at, value);
    this.#look();
  }

  /** A descriptor: address, length, and the two 16-bit fields at its end. */
  writeDescriptor(
    offset: number,
    address: HiLo,
    length: number,
    first: number,
    second: number,
  ): void {
    const words = this.#words;
    if (words !== undefined) {
      const at = (this.#base + offset) >>> 2;
      words[at] = address.lo;
      words[at + 1] = address.hi;
      words[at + 2] = length;
      words[at + 3] = first | (second << 16);
      return;
    }
    this.writeBuffer(offset, address, length);
    this.writeU16(offset + 12, first);
    this.writeU16(offset + 14, second);
  }

  /** A 64-bit address and a 32-bit length: what every descriptor begins with. */
  writeBuffer(offset: number, address: HiLo, length: number): void {
    this.writeU32(offset, this.#isLittle ? address.lo : address.hi);
    this.writeU32(offset + 4, this.#isLittle ? address.hi : address.lo);
    this.writeU32(offset + 8, length);
  }

  /** All zeroes. */
  clear(length: number): void {
    this.#memory.fill(this.gpa, length, 0);
  }

  #look(): void {
    const window = this.#window;
    if (this.#memory.window?.(this.gpa, this.#length, window) !== true) return;
    this.#view = window.view;
    this.#base = window.offset;
    this.#words = this.#isLittle && window.offset % 4 === 0 ? window.words : undefined;
  }
}
