import type { Gpa, HiLo } from '@pinhole/base';
import type { GuestMemory } from '@pinhole/memory';
import { VIRTQ_DESC_F_NEXT, VIRTQ_DESC_SIZE } from '../params.js';
import type { DriverQueueOptions } from './driver-types.js';

const WORDS = 4;
const NO_WORDS = new Uint32Array(0);

/**
 * The driver's own record of what it gave away, beside what it writes for the device: to unmap, it
 * reads this and never the ring. [linux v6.1 drivers/virtio/virtio_ring.c vring_desc_extra]
 */
export class DriverDescriptors {
  /** Bus address, length and flags of each descriptor in use. */
  readonly hi: Uint32Array;
  readonly lo: Uint32Array;
  readonly len: Uint32Array;
  readonly flags: Uint16Array;
  /** The descriptor after this one: in its chain, or on the free list. */
  readonly next: Uint16Array;
  readonly #memory: GuestMemory;
  readonly #isPacked: boolean;
  readonly #isBigEndian: boolean;
  // By head: descriptors of the buffer (0: not in flight), entries of its table, its table.
  readonly #chain: Uint16Array;
  readonly #entries: Uint32Array;
  readonly #table: Float64Array;
  // What the tables hold, four words an entry: hi, lo, length, flags. Grown when needed, then kept.
  readonly #words: Uint32Array[];

  constructor(options: DriverQueueOptions, size: number) {
    this.#memory = options.memory;
    this.#isPacked = options.isPacked === true;
    this.#isBigEndian = options.isBigEndian === true;
    this.hi = new Uint32Array(size);
    this.lo = new Uint32Array(size);
    this.len = new Uint32Array(size);
    this.flags = new Uint16Array(size);
    this.next = new Uint16Array(size);
    this.#chain = new Uint16Array(size);
    this.#entries = new Uint32Array(size);
    this.#table = new Float64Array(size);
    this.#words = new Array<Uint32Array>(size).fill(NO_WORDS);
    this.reset();
  }

  /** Nothing is in flight; all descriptors are free, in order. */
  reset(): void {
    const size = this.next.length;
    this.#chain.fill(0);
    for (let i = 0; i < size; i += 1) this.next[i] = i + 1 === size ? 0 : i + 1;
  }

  /** Whether a buffer that starts at this descriptor is with the device. */
  isHead(index: number): boolean {
    return this.#chain[index]! > 0;
  }

  /** Descriptors of the buffer. */
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

  /** Notes a descriptor of the ring. */
  note(index: number, address: HiLo, length: number, flags: number): void {
    this.hi[index] = address.hi;
    this.lo[index] = address.lo;
    this.len[index] = length;
    this.flags[index] = flags;
  }

  /** Makes room to remember a table of `entries`. */
  beginTable(head: number, table: Gpa, entries: number): void {
    this.#table[head] = table;
    const have = this.#words[head]!.length;
    if (have < WORDS * entries) {
      this.#words[head] = new Uint32Array(Math.max(WORDS * entries, 2 * have));
    }
  }

  /** Writes a descriptor of the table of `head`, and notes it. */
  writeTable(
    head: number,
    n: number,
    isLast: boolean,
    address: HiLo,
    length: number,
    flags: number,
  ): void {
    const words = this.#words[head]!;
    words[WORDS * n] = address.hi;
    words[WORDS * n + 1] = address.lo;
    words[WORDS * n + 2] = length;
    words[WORDS * n + 3] = flags;
    const at = this.#table[head]! + VIRTQ_DESC_SIZE * n;
    // Flags and next; in a packed table id, which means nothing, and flags.
    const more = isLast ? flags : flags | VIRTQ_DESC_F_NEXT;
    const first = this.#isPacked ? 0 : more;
    const second = this.#isPacked ? flags : n + 1;
    const memory = this.#memory;
    if (this.#isBigEndian) {
      memory.writeU32Be(at, address.hi);
      memory.writeU32Be(at + 4, address.lo);
      memory.writeU32Be(at + 8, length);
      memory.writeU32Be(at + 12, ((first << 16) | second) >>> 0);
    } else {
      memory.writeU32Le(at, address.lo);
      memory.writeU32Le(at + 4, address.hi);
      memory.writeU32Le(at + 8, length);
      memory.writeU32Le(at + 12, ((second << 16) | first) >>> 0);
    }
  }
}
