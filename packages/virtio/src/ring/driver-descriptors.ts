import type { Gpa, HiLo } from '@pinhole/base';
import type { GuestMemory } from '@pinhole/memory';
import { VIRTQ_DESC_SIZE } from '../params.js';

const WORDS = 4;

/**
 * The driver's own record of its descriptors, beside what it writes for the device: to unmap, it
 * reads this and never the ring. [linux v6.1 drivers/virtio/virtio_ring.c vring_desc_extra]
 */
export class DriverDescriptors {
  /** Bus address, length and flags of each ring descriptor in use. */
  readonly hi: Uint32Array;
  readonly lo: Uint32Array;
  readonly len: Uint32Array;
  readonly flags: Uint16Array;
  /** The descriptor after this one: in its chain, or on the free list. */
  readonly next: Uint16Array;
  readonly #memory: GuestMemory;
  readonly #ring: Gpa;
  // By head: ring descriptors of the buffer (0: not in flight), entries of its table, its table.
  readonly #chain: Uint16Array;
  readonly #entries: Uint32Array;
  readonly #table: Float64Array;
  // What the tables hold, four words an entry: hi, lo, length, flags. Grown when needed, then kept.
  readonly #words: Uint32Array[] = [];

  constructor(memory: GuestMemory, ring: Gpa, size: number) {
    this.#memory = memory;
    this.#ring = ring;
    this.hi = new Uint32Array(size);
    this.lo = new Uint32Array(size);
    this.len = new Uint32Array(size);
    this.flags = new Uint16Array(size);
    this.next = Uint16Array.from({ length: size }, (_, i) => (i === size - 1 ? 0 : i + 1));
    this.#chain = new Uint16Array(size);
    this.#entries = new Uint32Array(size);
    this.#table = new Float64Array(size);
    for (let i = 0; i < size; i += 1) this.#words.push(new Uint32Array(0));
  }

  /** Whether a buffer that starts at this descriptor is with the device. */
  isHead(index: number): boolean {
    return this.#chain[index]! > 0;
  }

  /** Ring descriptors of the buffer. */
  chainLength(head: number): number {
    return this.#chain[head]!;
  }

  /** Entries of the buffer's indirect table; 0: it has none. */
  tableEntries(head: number): number {
    return this.#entries[head]!;
  }

  tableGpa(head: number): Gpa {
    return this.#table[head]!;
  }

  tableWords(head: number): Uint32Array {
    return this.#words[head]!;
  }

  /** The buffer goes to the device. */
  begin(head: number, chainLength: number, tableEntries: number): void {
    this.#chain[head] = chainLength;
    this.#entries[head] = tableEntries;
  }

  /** The buffer is back. */
  end(head: number): void {
    this.#chain[head] = 0;
  }

  /** Makes room to remember a table of `entries`. */
  beginTable(head: number, table: Gpa, entries: number): void {
    this.#table[head] = table;
    const have = this.#words[head]!.length;
    if (have < WORDS * entries) {
      this.#words[head] = new Uint32Array(Math.max(WORDS * entries, 2 * have));
    }
  }

  /** Writes a descriptor of the ring, and notes it. */
  writeRing(index: number, address: HiLo, length: number, flags: number): void {
    this.hi[index] = address.hi;
    this.lo[index] = address.lo;
    this.len[index] = length;
    this.flags[index] = flags;
    const at = this.#ring + VIRTQ_DESC_SIZE * index;
    this.#write(at, address, length, flags, this.next[index]!);
  }

  /** Writes a descriptor of the table of `head`, and notes it. */
  writeTable(head: number, n: number, address: HiLo, length: number, flags: number): void {
    const words = this.#words[head]!;
    words[WORDS * n] = address.hi;
    words[WORDS * n + 1] = address.lo;
    words[WORDS * n + 2] = length;
    words[WORDS * n + 3] = flags;
    this.#write(this.#table[head]! + VIRTQ_DESC_SIZE * n, address, length, flags, n + 1);
  }

  #write(at: Gpa, address: HiLo, length: number, flags: number, next: number): void {
    this.#memory.writeU32Le(at, address.lo);
    this.#memory.writeU32Le(at + 4, address.hi);
    this.#memory.writeU32Le(at + 8, length);
    this.#memory.writeU32Le(at + 12, ((next << 16) | flags) >>> 0);
  }
}
