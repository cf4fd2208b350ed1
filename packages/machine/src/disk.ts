import { createRng } from '@pinhole/base';
import type { BlockBackend } from '@pinhole/qemu';

/** A disk that is only read. Offsets and lengths in bytes, inside it. */
export interface DiskSource {
  readonly size: number;
  read(offset: number, into: Uint8Array): void;
}

/** Size of the disk that a scenario without an image gets. */
export const DEFAULT_DISK_SIZE: number = 16 * 2 ** 20;

const BLOCK = 65536;

/** A disk whose every byte the seed determines. */
export function createSeededDisk(seed: number, size: number = DEFAULT_DISK_SIZE): DiskSource {
  const bytes = new Uint8Array(size);
  fillSeeded(bytes, seed);
  return {
    size,
    read: (offset, into) => into.set(bytes.subarray(offset, offset + into.length)),
  };
}

/** Fills `bytes` with what the seed determines. */
export function fillSeeded(bytes: Uint8Array, seed: number): void {
  const rng = createRng(seed);
  const words = new Uint32Array(Math.ceil(bytes.length / 4));
  const view = new DataView(words.buffer);
  for (let i = 0; i < words.length; i += 1) view.setUint32(i * 4, rng.nextU32(), true);
  bytes.set(new Uint8Array(words.buffer, 0, bytes.length));
}

/**
 * A writable copy of a disk: what is written is kept in memory, 64 KiB at a time; the source is
 * only read.
 */
export class CopyOnWriteDisk implements BlockBackend {
  readonly size: number;
  readonly #source: DiskSource;
  readonly #written = new Map<number, Uint8Array>();

  constructor(source: DiskSource) {
    this.size = source.size;
    this.#source = source;
  }

  read(offset: number, into: Uint8Array): void {
    this.#visit(offset, into.length, (block, at, done, length) => {
      const own = this.#written.get(block);
      const part = into.subarray(done, done + length);
      if (own === undefined) this.#source.read(block * BLOCK + at, part);
      else part.set(own.subarray(at, at + length));
    });
  }

  write(offset: number, from: Uint8Array): void {
    this.#visit(offset, from.length, (block, at, done, length) => {
      this.#own(block).set(from.subarray(done, done + length), at);
    });
  }

  flush(): void {
    // Nothing is stored anywhere else.
  }

  /** How many bytes differ from `other`, a copy of the same source. */
  bytesDifferent(other: CopyOnWriteDisk): number {
    let different = 0;
    // What neither wrote is the source in both.
    for (const block of new Set([...this.#written.keys(), ...other.#written.keys()])) {
      const length = Math.min(BLOCK, this.size - block * BLOCK);
      const mine = new Uint8Array(length);
      const theirs = new Uint8Array(length);
      this.read(block * BLOCK, mine);
      other.read(block * BLOCK, theirs);
      different += countDifferent(mine, theirs);
    }
    return different;
  }

  #own(block: number): Uint8Array {
    let own = this.#written.get(block);
    if (own === undefined) {
      own = new Uint8Array(Math.min(BLOCK, this.size - block * BLOCK));
      this.#source.read(block * BLOCK, own);
      this.#written.set(block, own);
    }
    return own;
  }

  #visit(
    offset: number,
    length: number,
    visit: (block: number, at: number, done: number, length: number) => void,
  ): void {
    for (let done = 0; done < length; ) {
      const at = (offset + done) % BLOCK;
      const part = Math.min(BLOCK - at, length - done);
      visit(Math.floor((offset + done) / BLOCK), at, done, part);
      done += part;
    }
  }
}

/** How many bytes of two equally long arrays differ. */
export function countDifferent(a: Uint8Array, b: Uint8Array): number {
  const equal = equalWords(a, b) * 4;
  let different = 0;
  for (let i = equal; i < a.length; i += 1) if (a[i] !== b[i]) different += 1;
  return different;
}

// How many words at the start are the same: most arrays are equal, or all of them differs.
function equalWords(a: Uint8Array, b: Uint8Array): number {
  if (a.byteOffset % 4 !== 0 || b.byteOffset % 4 !== 0) return 0;
  const length = Math.floor(a.length / 4);
  const left = new Uint32Array(a.buffer, a.byteOffset, length);
  const right = new Uint32Array(b.buffer, b.byteOffset, length);
  let words = 0;
  while (words < length && left[words] === right[words]) words += 1;
  return words;
}
