import type { GuestMemory, MemoryRegion, MemoryWindow } from '@pinhole/memory';
import { Finding } from './finding.js';
import { HOLE, HOLE_END, MEMORY_SIZE } from './program.js';

export const READ = 1;
export const WRITE = 2;
/** Filling with zeroes, as a driver does with a ring that starts anew. */
export const CLEAR = 4;

/** Who may do what where, in guest memory. */
export interface Permissions {
  /** Whether all of [gpa, gpa + length) may be read or written now. */
  allows(gpa: number, length: number, access: number): boolean;
}

/**
 * Guest memory in which every access of the code under test is checked and counted. The harness's own
 * accesses go by `raw`, after `touch`.
 */
export class CheckedMemory implements GuestMemory {
  readonly regions: readonly MemoryRegion[] = [
    { base: 0, size: HOLE },
    { base: HOLE_END, size: MEMORY_SIZE - HOLE_END },
  ];
  readonly raw: DataView;
  readonly bytes: Uint8Array;
  /** Accesses since it was set to 0. */
  work = 0;
  /** Whether rings are shown as one piece. */
  hasWindows = false;
  /** And as words: slowly, for they are checked as well. */
  hasWords = false;
  /** Fields are big-endian. */
  isBig = false;
  permissions: Permissions = { allows: () => false };
  /** Counts down with each access and translation; at 0 the other side does something. */
  countdown = 0;
  onCountdown: () => void = () => {};
  readonly #view: CheckedView;
  readonly #words: Uint32Array;
  readonly #isDirty = new Uint8Array(MEMORY_SIZE >> 12);
  readonly #dirty: number[] = [];

  constructor() {
    this.bytes = new Uint8Array(MEMORY_SIZE);
    this.raw = new DataView(this.bytes.buffer);
    this.#view = new CheckedView(this);
    this.#words = checkedWords(this);
  }

  /** All zeroes again. */
  reset(): void {
    this.countdown = 0;
    for (const page of this.#dirty) {
      this.bytes.fill(0, page << 12, (page + 1) << 12);
      this.#isDirty[page] = 0;
    }
    this.#dirty.length = 0;
  }

  /** Says before a write where it will be. */
  touch(gpa: number, length: number): void {
    const last = (gpa + length - 1) >> 12;
    for (let page = gpa >> 12; page <= last; page += 1) {
      if (this.#isDirty[page] !== 0) continue;
      this.#isDirty[page] = 1;
      this.#dirty.push(page);
    }
  }

  isBacked(gpa: number, length: number): boolean {
    return (
      gpa >= 0 &&
      length >= 0 &&
      (gpa < HOLE ? gpa + length <= HOLE : gpa >= HOLE_END && gpa + length <= MEMORY_SIZE)
    );
  }

  /** As `SparseMemory`: nothing beyond 64 KiB, nor where nobody wrote. */
  window(gpa: number, length: number, out: MemoryWindow): boolean {
    if (!this.hasWindows || length <= 0 || !this.isBacked(gpa, length)) return false;
    if ((gpa & 0xffff) + length > 0x1_0000 || this.#isDirty[gpa >> 12] === 0) return false;
    const from = gpa - (gpa & 0xffff);
    out.view = this.#view;
    out.offset = gpa;
    out.from = from;
    out.to = from + 0x1_0000;
    out.words = this.hasWords ? this.#words : undefined;
    return true;
  }

  tick(): void {
    if (this.countdown === 0) return;
    this.countdown -= 1;
    if (this.countdown === 0) this.onCountdown();
  }

  check(gpa: number, length: number, access: number): void {
    this.work += 1;
    const isMemory = this.isBacked(gpa, length);
    if (!isMemory || !this.permissions.allows(gpa, length, access)) {
      const verb = access === READ ? 'reads' : 'writes';
      const what = isMemory ? 'which is not its to touch' : 'which is no memory';
      throw new Finding(`${verb} ${length} bytes at 0x${gpa.toString(16)}, ${what}`);
    }
    if (access !== READ) this.touch(gpa, length);
    this.tick();
  }

  // The harness's own fields, in the byte order of the ring; nothing outside of memory.
  get16(gpa: number): number {
    return this.raw.getUint16(gpa, !this.isBig);
  }

  get32(gpa: number): number {
    return this.raw.getUint32(gpa, !this.isBig);
  }

  put16(gpa: number, value: number): void {
    if (!this.isBacked(gpa, 2)) return;
    this.touch(gpa, 2);
    this.raw.setUint16(gpa, value, !this.isBig);
  }

  put32(gpa: number, value: number): void {
    if (!this.isBacked(gpa, 4)) return;
    this.touch(gpa, 4);
    this.raw.setUint32(gpa, value, !this.isBig);
  }

  put64(gpa: number, hi: number, lo: number): void {
    this.put32(gpa, this.isBig ? hi : lo);
    this.put32(gpa + 4, this.isBig ? lo : hi);
  }

  read(gpa: number, into: Uint8Array): void {
    this.check(gpa, into.length, READ);
    into.set(this.bytes.subarray(gpa, gpa + into.length));
  }

  write(gpa: number, from: Uint8Array): void {
    this.check(gpa, from.length, WRITE);
    this.bytes.set(from, gpa);
  }

  fill(gpa: number, length: number, value: number): void {
    this.check(gpa, length, value === 0 ? CLEAR : WRITE);
    this.bytes.fill(value, gpa, gpa + length);
  }

  readU8(gpa: number): number {
    this.check(gpa, 1, READ);
    return this.raw.getUint8(gpa);
  }

  readU16Le(gpa: number): number {
    return this.#view.getUint16(gpa, true);
  }

  readU16Be(gpa: number): number {
    return this.#view.getUint16(gpa, false);
  }

  readU32Le(gpa: number): number {
    return this.#view.getUint32(gpa, true);
  }

  readU32Be(gpa: number): number {
    return this.#view.getUint32(gpa, false);
  }

  readU64Le(gpa: number): bigint {
    this.check(gpa, 8, READ);
    return this.raw.getBigUint64(gpa, true);
  }

  readU64Be(gpa: number): bigint {
    this.check(gpa, 8, READ);
    return this.raw.getBigUint64(gpa, false);
  }

  writeU8(gpa: number, value: number): void {
    this.check(gpa, 1, WRITE);
    this.raw.setUint8(gpa, value);
  }

  writeU16Le(gpa: number, value: number): void {
    this.#view.setUint16(gpa, value, true);
  }

  writeU16Be(gpa: number, value: number): void {
    this.#view.setUint16(gpa, value, false);
  }

  writeU32Le(gpa: number, value: number): void {
    this.#view.setUint32(gpa, value, true);
  }

  writeU32Be(gpa: number, value: number): void {
    this.#view.setUint32(gpa, value, false);
  }

  writeU64Le(gpa: number, value: bigint): void {
    this.check(gpa, 8, WRITE);
    this.raw.setBigUint64(gpa, value, true);
  }

  writeU64Be(gpa: number, value: bigint): void {
    this.check(gpa, 8, WRITE);
    this.raw.setBigUint64(gpa, value, false);
  }
}

function checkedWords(memory: CheckedMemory): Uint32Array {
  return new Proxy(new Uint32Array(memory.bytes.buffer), {
    get(words, key): unknown {
      const index = Number(key);
      if (!Number.isInteger(index)) return Reflect.get(words, key, words);
      memory.check(4 * index, 4, READ);
      return words[index];
    },
    set(words, key, value: number): boolean {
      const index = Number(key);
      if (!Number.isInteger(index)) return false;
      memory.check(4 * index, 4, WRITE);
      words[index] = value;
      return true;
    },
  });
}

const View = DataView as new (buffer: ArrayBufferLike) => DataView;

/** What `window` shows: all of memory, checked. */
class CheckedView extends View {
  readonly #memory: CheckedMemory;

  constructor(memory: CheckedMemory) {
    super(memory.bytes.buffer);
    this.#memory = memory;
  }

  override getUint8(at: number): number {
    this.#memory.check(at, 1, READ);
    return this.#memory.raw.getUint8(at);
  }

  override getUint16(at: number, isLittle?: boolean): number {
    this.#memory.check(at, 2, READ);
    return this.#memory.raw.getUint16(at, isLittle);
  }

  override getUint32(at: number, isLittle?: boolean): number {
    this.#memory.check(at, 4, READ);
    return this.#memory.raw.getUint32(at, isLittle);
  }

  override getInt32(at: number, isLittle?: boolean): number {
    this.#memory.check(at, 4, READ);
    return this.#memory.raw.getInt32(at, isLittle);
  }

  override setUint8(at: number, value: number): void {
    this.#memory.check(at, 1, WRITE);
    this.#memory.raw.setUint8(at, value);
  }

  override setUint16(at: number, value: number, isLittle?: boolean): void {
    this.#memory.check(at, 2, WRITE);
    this.#memory.raw.setUint16(at, value, isLittle);
  }

  override setUint32(at: number, value: number, isLittle?: boolean): void {
    this.#memory.check(at, 4, WRITE);
    this.#memory.raw.setUint32(at, value, isLittle);
  }

  override getBigUint64(at: number, isLittle?: boolean): bigint {
    this.#memory.check(at, 8, READ);
    return this.#memory.raw.getBigUint64(at, isLittle);
  }

  override setBigUint64(at: number, value: bigint, isLittle?: boolean): void {
    this.#memory.check(at, 8, WRITE);
    this.#memory.raw.setBigUint64(at, value, isLittle);
  }

  override setInt32(at: number, value: number, isLittle?: boolean): void {
    this.#memory.check(at, 4, WRITE);
    this.#memory.raw.setInt32(at, value, isLittle);
  }
}
