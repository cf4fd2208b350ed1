import { type Gpa, hex, joinU64 } from '@pinhole/base';
import { MemoryError } from './errors.js';
import type { GuestMemory, MemoryRegion, MemoryWindow } from './types.js';

/** Memory is backed in pieces of this size, when first written. */
const CHUNK_SHIFT = 16;
const CHUNK = 1 << CHUNK_SHIFT;
const CHUNK_MASK = CHUNK - 1;
const PAGE = 4096;
/** So many bytes are copied one by one. */
const FEW = 32;
/** Pieces are held in blocks of this many, so that a 64 TiB guest has a short index. */
const BLOCK = 4096;

const IS_LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

interface Chunk {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Not there on a big-endian host. */
  readonly words: Uint32Array | undefined;
  /** Its pages, each made when it is first read whole: what is read most. */
  readonly pages: (Uint8Array | undefined)[];
}

/** What an untouched piece reads as. Never written. */
const ZERO: Chunk = newChunk();

/** Options of {@link createGuestMemory}. */
export interface GuestMemoryOptions {
  /** Where memory is. Any order; they must be disjoint, non-empty and end below 2^53. */
  readonly regions: readonly MemoryRegion[];
}

/**
 * Makes zeroed guest memory that costs host memory only where it is written (64 KiB at a time).
 * @throws MemoryError `E_MEMORY_LAYOUT` for regions that overlap, are empty or too high.
 */
export function createGuestMemory(options: GuestMemoryOptions): SparseMemory {
  return new SparseMemory(options);
}

/** Guest memory in this process; see {@link createGuestMemory}. */
export class SparseMemory implements GuestMemory {
  readonly regions: readonly MemoryRegion[];
  readonly #firstFrom: number;
  readonly #firstTo: number;
  readonly #blocks = new Map<number, (Chunk | undefined)[]>();
  #chunksHeld = 0;
  // The last piece used: consecutive accesses mostly hit the same one. What of it is memory is
  // [from, to): an access inside needs no other check.
  #last: Chunk = ZERO;
  #start = -1;
  #from = 0;
  #to = 0;

  constructor(options: GuestMemoryOptions) {
    const regions = options.regions.map(({ base, size }) => ({ base, size }));
    regions.sort((a, b) => a.base - b.base);
    let end = 0;
    for (const { base, size } of regions) {
      const ok = Number.isSafeInteger(base) && Number.isSafeInteger(base + size);
      if (!ok || base < 0 || size <= 0 || base < end) {
        throw new MemoryError(
          'E_MEMORY_LAYOUT',
          `expected disjoint, non-empty regions below 2^53, found one at ${hex(base)} of ${size} bytes after ${hex(end)}`,
          { details: { base, size } },
        );
      }
      end = base + size;
    }
    this.regions = regions;
    this.#firstFrom = regions[0]?.base ?? 0;
    this.#firstTo = this.#firstFrom + (regions[0]?.size ?? 0);
  }

  /** Host memory in use for the contents, in bytes. */
  get bytesHeld(): number {
    return this.#chunksHeld * CHUNK;
  }

  isBacked(gpa: Gpa, length: number): boolean {
    // Most guests have one region; the general case walks them.
    if (gpa >= this.#firstFrom && length >= 0 && gpa + length <= this.#firstTo) return true;
    if (!(gpa >= 0) || !(length >= 0)) return false;
    // Adjacent regions form one run.
    let at = gpa;
    const end = gpa + length;
    for (const { base, size } of this.regions) {
      if (at < base) return false;
      if (at < base + size) {
        if (end <= base + size) return true;
        at = base + size;
      }
    }
    return false;
  }

  /** In one piece is what does not cross a multiple of 64 KiB. */
  window(gpa: Gpa, length: number, out: MemoryWindow): boolean {
    const offset = gpa & CHUNK_MASK;
    if (length <= 0 || offset + length > CHUNK || !this.isBacked(gpa, length)) return false;
    const chunk = this.#peek(gpa);
    // Where the piece is partly in one region, partly in the next, `#to` is the end of the first.
    if (chunk === ZERO || gpa + length > this.#to) return false;
    out.view = chunk.view;
    out.offset = offset;
    out.from = this.#from;
    out.to = this.#to;
    out.words = chunk.words;
    return true;
  }

  read(gpa: Gpa, into: Uint8Array): void {
    if (gpa >= this.#from && gpa + into.length <= this.#to) {
      readPiece(this.#last, gpa - this.#start, into);
      return;
    }
    this.#check(gpa, into.length);
    const offset = gpa & CHUNK_MASK;
    if (offset + into.length <= CHUNK) readPiece(this.#peek(gpa), offset, into);
    else this.#readPieces(gpa, into);
  }

  write(gpa: Gpa, from: Uint8Array): void {
    if (gpa >= this.#from && gpa + from.length <= this.#to) {
      this.#last.bytes.set(from, gpa - this.#start);
      return;
    }
    this.#check(gpa, from.length);
    const offset = gpa & CHUNK_MASK;
    if (from.length === 0) return;
    if (offset + from.length <= CHUNK) this.#touch(gpa).bytes.set(from, offset);
    else this.#writePieces(gpa, from);
  }

  fill(gpa: Gpa, length: number, value: number): void {
    this.#check(gpa, length);
    for (let done = 0; done < length; ) {
      const offset = (gpa + done) & CHUNK_MASK;
      const part = Math.min(CHUNK - offset, length - done);
      // Zeroes need no backing.
      if (value !== 0 || this.#peek(gpa + done) !== ZERO) {
        this.#touch(gpa + done).bytes.fill(value, offset, offset + part);
      }
      done += part;
    }
  }

  readU8(gpa: Gpa): number {
    this.#check(gpa, 1);
    return this.#peek(gpa).bytes[gpa & CHUNK_MASK] as number;
  }

  readU16Le(gpa: Gpa): number {
    return this.#readU16(gpa, true);
  }

  readU16Be(gpa: Gpa): number {
    return this.#readU16(gpa, false);
  }

  readU32Le(gpa: Gpa): number {
    return this.#readU32(gpa, true);
  }

  readU32Be(gpa: Gpa): number {
    return this.#readU32(gpa, false);
  }

  readU64Le(gpa: Gpa): bigint {
    this.#check(gpa, 8);
    return joinU64(this.#readU32(gpa + 4, true), this.#readU32(gpa, true));
  }

  readU64Be(gpa: Gpa): bigint {
    this.#check(gpa, 8);
    return joinU64(this.#readU32(gpa, false), this.#readU32(gpa + 4, false));
  }

  writeU8(gpa: Gpa, value: number): void {
    this.#check(gpa, 1);
    this.#touch(gpa).bytes[gpa & CHUNK_MASK] = value;
  }

  writeU16Le(gpa: Gpa, value: number): void {
    this.#writeU16(gpa, value, true);
  }

  writeU16Be(gpa: Gpa, value: number): void {
    this.#writeU16(gpa, value, false);
  }

  writeU32Le(gpa: Gpa, value: number): void {
    this.#writeU32(gpa, value, true);
  }

  writeU32Be(gpa: Gpa, value: number): void {
    this.#writeU32(gpa, value, false);
  }

  writeU64Le(gpa: Gpa, value: bigint): void {
    this.#writeU64(gpa, value, true);
  }

  writeU64Be(gpa: Gpa, value: bigint): void {
    this.#writeU64(gpa, value, false);
  }

  #readPieces(gpa: Gpa, into: Uint8Array): void {
    for (let done = 0; done < into.length; ) {
      const offset = (gpa + done) & CHUNK_MASK;
      const length = Math.min(CHUNK - offset, into.length - done);
      readPiece(this.#peek(gpa + done), offset, into.subarray(done, done + length));
      done += length;
    }
  }

  #writePieces(gpa: Gpa, from: Uint8Array): void {
    for (let done = 0; done < from.length; ) {
      const offset = (gpa + done) & CHUNK_MASK;
      const length = Math.min(CHUNK - offset, from.length - done);
      this.#touch(gpa + done).bytes.set(from.subarray(done, done + length), offset);
      done += length;
    }
  }

  #readU16(gpa: Gpa, little: boolean): number {
    if (gpa >= this.#from && gpa + 2 <= this.#to) {
      return this.#last.view.getUint16(gpa - this.#start, little);
    }
    this.#check(gpa, 2);
    const offset = gpa & CHUNK_MASK;
    if (offset <= CHUNK - 2) return this.#peek(gpa).view.getUint16(offset, little);
    return this.#readSplit(gpa, 2).getUint16(0, little);
  }

  #readU32(gpa: Gpa, little: boolean): number {
    if (gpa >= this.#from && gpa + 4 <= this.#to) {
      return this.#last.view.getUint32(gpa - this.#start, little);
    }
    this.#check(gpa, 4);
    const offset = gpa & CHUNK_MASK;
    if (offset <= CHUNK - 4) return this.#peek(gpa).view.getUint32(offset, little);
    return this.#readSplit(gpa, 4).getUint32(0, little);
  }

  #writeU16(gpa: Gpa, value: number, little: boolean): void {
    if (gpa >= this.#from && gpa + 2 <= this.#to) {
      this.#last.view.setUint16(gpa - this.#start, value, little);
      return;
    }
    this.#check(gpa, 2);
    const offset = gpa & CHUNK_MASK;
    if (offset <= CHUNK - 2) this.#touch(gpa).view.setUint16(offset, value, little);
    else this.#writeSplit(gpa, 2, (view) => view.setUint16(0, value, little));
  }

  #writeU32(gpa: Gpa, value: number, little: boolean): void {
    if (gpa >= this.#from && gpa + 4 <= this.#to) {
      this.#last.view.setUint32(gpa - this.#start, value, little);
      return;
    }
    this.#check(gpa, 4);
    const offset = gpa & CHUNK_MASK;
    if (offset <= CHUNK - 4) this.#touch(gpa).view.setUint32(offset, value, little);
    else this.#writeSplit(gpa, 4, (view) => view.setUint32(0, value, little));
  }

  #writeU64(gpa: Gpa, value: bigint, little: boolean): void {
    this.#check(gpa, 8);
    const offset = gpa & CHUNK_MASK;
    if (offset <= CHUNK - 8) this.#touch(gpa).view.setBigUint64(offset, value, little);
    else this.#writeSplit(gpa, 8, (view) => view.setBigUint64(0, value, little));
  }

  // A value that lies across two pieces: rare, so it may allocate.
  #readSplit(gpa: Gpa, length: number): DataView {
    const bytes = new Uint8Array(length);
    this.read(gpa, bytes);
    return new DataView(bytes.buffer);
  }

  #writeSplit(gpa: Gpa, length: number, set: (view: DataView) => void): void {
    const bytes = new Uint8Array(length);
    set(new DataView(bytes.buffer));
    this.write(gpa, bytes);
  }

  #check(gpa: Gpa, length: number): void {
    if (this.isBacked(gpa, length)) return;
    throw outOfRange(gpa, length);
  }

  // The piece to read at `gpa`; one that was never written is all zeros.
  #peek(gpa: Gpa): Chunk {
    if (gpa >= this.#from && gpa < this.#to) return this.#last;
    const number = Math.floor(gpa / CHUNK);
    const chunk = this.#blocks.get(Math.floor(number / BLOCK))?.[number % BLOCK];
    return chunk === undefined ? ZERO : this.#remember(gpa, chunk);
  }

  // The piece to write at `gpa`.
  #touch(gpa: Gpa): Chunk {
    if (gpa >= this.#from && gpa < this.#to) return this.#last;
    const number = Math.floor(gpa / CHUNK);
    const blockNumber = Math.floor(number / BLOCK);
    let block = this.#blocks.get(blockNumber);
    if (block === undefined) {
      block = [];
      this.#blocks.set(blockNumber, block);
    }
    let chunk = block[number % BLOCK];
    if (chunk === undefined) {
      chunk = newChunk();
      block[number % BLOCK] = chunk;
      this.#chunksHeld += 1;
    }
    return this.#remember(gpa, chunk);
  }

  #remember(gpa: Gpa, chunk: Chunk): Chunk {
    const start = gpa - (gpa & CHUNK_MASK);
    for (const { base, size } of this.regions) {
      if (gpa < base || gpa >= base + size) continue;
      this.#last = chunk;
      this.#start = start;
      this.#from = Math.max(start, base);
      this.#to = Math.min(start + CHUNK, base + size);
    }
    return chunk;
  }
}

function newChunk(): Chunk {
  const bytes = new Uint8Array(CHUNK);
  const pages = new Array<Uint8Array | undefined>(CHUNK / PAGE).fill(undefined);
  const words = IS_LITTLE_ENDIAN ? new Uint32Array(bytes.buffer) : undefined;
  return { bytes, view: new DataView(bytes.buffer), words, pages };
}

// Fills `into` from `offset` on. A subarray costs as much as copying a kilobyte: it is made once for
// a whole page, and not for a few bytes.
function readPiece(chunk: Chunk, offset: number, into: Uint8Array): void {
  const { length } = into;
  if (length === PAGE && (offset & (PAGE - 1)) === 0) {
    into.set(chunk.pages[offset / PAGE] ?? newPage(chunk, offset));
  } else if (length > FEW) {
    into.set(chunk.bytes.subarray(offset, offset + length));
  } else {
    const { bytes } = chunk;
    for (let i = 0; i < length; i += 1) into[i] = bytes[offset + i] as number;
  }
}

function newPage(chunk: Chunk, offset: number): Uint8Array {
  const page = chunk.bytes.subarray(offset, offset + PAGE);
  chunk.pages[offset / PAGE] = page;
  return page;
}

/** The error of an access that leaves memory. */
export function outOfRange(gpa: Gpa, length: number): MemoryError {
  return new MemoryError(
    'E_GPA_OUT_OF_RANGE',
    `expected ${length} bytes of guest memory at ${hex(gpa)}, found none there (a hole, or past the end)`,
    { details: { gpa, length } },
  );
}
