import type { Gpa } from '@pinhole/base';
import { outOfRange } from './sparse-memory.js';
import type { GuestMemory, MemoryRegion } from './types.js';

/** A fill is written in pieces of this many bytes. */
const FILL_PIECE = 65_536;

/**
 * The accessors of `GuestMemory` over nothing but bulk `read` and `write`: for views and for
 * memory that lives elsewhere. Slower than `SparseMemory`'s own.
 */
export abstract class ByteMemory implements GuestMemory {
  abstract readonly regions: readonly MemoryRegion[];
  readonly #bytes = new Uint8Array(8);
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #one = this.#bytes.subarray(0, 1);
  readonly #two = this.#bytes.subarray(0, 2);
  readonly #four = this.#bytes.subarray(0, 4);

  abstract isBacked(gpa: Gpa, length: number): boolean;
  abstract read(gpa: Gpa, into: Uint8Array): void;
  abstract write(gpa: Gpa, from: Uint8Array): void;

  fill(gpa: Gpa, length: number, value: number): void {
    if (length <= 0) return;
    if (!this.isBacked(gpa, length)) throw outOfRange(gpa, length);
    const piece = new Uint8Array(Math.min(length, FILL_PIECE)).fill(value);
    for (let done = 0; done < length; done += piece.length) {
      this.write(gpa + done, piece.subarray(0, Math.min(piece.length, length - done)));
    }
  }

  readU8(gpa: Gpa): number {
    this.read(gpa, this.#one);
    return this.#view.getUint8(0);
  }

  readU16Le(gpa: Gpa): number {
    this.read(gpa, this.#two);
    return this.#view.getUint16(0, true);
  }

  readU16Be(gpa: Gpa): number {
    this.read(gpa, this.#two);
    return this.#view.getUint16(0, false);
  }

  readU32Le(gpa: Gpa): number {
    this.read(gpa, this.#four);
    return this.#view.getUint32(0, true);
  }

  readU32Be(gpa: Gpa): number {
    this.read(gpa, this.#four);
    return this.#view.getUint32(0, false);
  }

  readU64Le(gpa: Gpa): bigint {
    this.read(gpa, this.#bytes);
    return this.#view.getBigUint64(0, true);
  }

  readU64Be(gpa: Gpa): bigint {
    this.read(gpa, this.#bytes);
    return this.#view.getBigUint64(0, false);
  }

  writeU8(gpa: Gpa, value: number): void {
    this.#view.setUint8(0, value);
    this.write(gpa, this.#one);
  }

  writeU16Le(gpa: Gpa, value: number): void {
    this.#view.setUint16(0, value, true);
    this.write(gpa, this.#two);
  }

  writeU16Be(gpa: Gpa, value: number): void {
    this.#view.setUint16(0, value, false);
    this.write(gpa, this.#two);
  }

  writeU32Le(gpa: Gpa, value: number): void {
    this.#view.setUint32(0, value, true);
    this.write(gpa, this.#four);
  }

  writeU32Be(gpa: Gpa, value: number): void {
    this.#view.setUint32(0, value, false);
    this.write(gpa, this.#four);
  }

  writeU64Le(gpa: Gpa, value: bigint): void {
    this.#view.setBigUint64(0, value, true);
    this.write(gpa, this.#bytes);
  }

  writeU64Be(gpa: Gpa, value: bigint): void {
    this.#view.setBigUint64(0, value, false);
    this.write(gpa, this.#bytes);
  }
}
