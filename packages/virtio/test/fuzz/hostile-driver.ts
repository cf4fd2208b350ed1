import type { QueueSetup } from '../../src/transport/transport.js';
import { type CheckedMemory, READ, WRITE } from './checked-memory.js';
import type { Iommu, RingSpace } from './checked-space.js';
import { DeviceOp } from './device-op.js';
import { putDescriptor } from './device-rings.js';
import type { Verdict } from './naive-chain.js';
import { addressOf, BUFFERS, lengthOf, MEMORY_SIZE, TABLES } from './program.js';

const NEXT = 1;
const WRITABLE = 2;
const INDIRECT = 4;
const AVAIL = 0x80;
const USED = 0x8000;
const VALID_LENGTHS = [16, 4096, 1, 512, 8192, 48, 4095, 9000];
const TABLE_BYTES = 0x400;

/** A driver that writes good chains, and anything else, anywhere in memory. */
export class HostileDriver {
  /** Of the chain that comes next, in a split ring. */
  head = 0;
  readonly #memory: CheckedMemory;
  readonly #iommu: Iommu;
  readonly #rings: RingSpace;
  #isPacked = false;
  #hasEventIdx = false;
  #size = 1;
  #areAddressesZero = { desc: false, avail: false, used: false };
  #isNear = true;
  #isApart = true;
  // Where the driver goes on.
  #nextDesc = 0;
  #availIdx = 0;
  #wrap = 1;
  readonly #address = { hi: 0, lo: 0 };
  #tablesBefore: { readonly start: number; readonly end: number }[] = [];
  #strike: Uint8Array = new Uint8Array(8);

  constructor(memory: CheckedMemory, iommu: Iommu, rings: RingSpace) {
    this.#memory = memory;
    this.#iommu = iommu;
    this.#rings = rings;
    rings.findTable = (at, length, out) => this.#findTable(at, length, out);
  }

  /** Whether the device can return buffers. */
  get hasUsed(): boolean {
    return this.#isPacked || !this.#areAddressesZero.used;
  }

  /** Where `avail_event` of a split ring lies; -1 if nowhere. */
  availEventGpa(size: number): number {
    return this.#iommu.locate(this.#used + 4 + 8 * size, 2, WRITE);
  }

  begin(setup: QueueSetup, isPacked: boolean, hasEventIdx: boolean): void {
    this.#isPacked = isPacked;
    this.#hasEventIdx = hasEventIdx;
    this.#size = setup.size;
    const { desc, avail, used } = setup;
    this.#areAddressesZero = { desc: desc === 0n, avail: avail === 0n, used: used === 0n };
    const areas = this.#rings.areas;
    this.#isNear = areas.every(({ start, end }) => start > 0 && end <= MEMORY_SIZE);
    this.#isApart = areas.every((one) =>
      areas.every((other) => one === other || one.end <= other.start || other.end <= one.start),
    );
    this.#nextDesc = 0;
    this.#availIdx = 0;
    this.#wrap = 1;
  }

  /** Goes on at this index, and with this wrap counter. */
  wind(index: number, wrap: number): void {
    this.#availIdx = index;
    this.#wrap = wrap;
    if (this.#isPacked) this.#nextDesc = index;
    else {
      this.#memory.put16(this.#avail + 2, index);
      this.#memory.put16(this.#used + 2, index);
    }
    // With a wrap counter of 0 an empty descriptor is not available, with 1 neither.
  }

  get #desc(): number {
    return this.#rings.areas[0].start;
  }

  get #avail(): number {
    return this.#rings.areas[1].start;
  }

  get #used(): number {
    return this.#rings.areas[2].start;
  }

  step(operation: number, input: Uint8Array, at: number): void {
    switch (operation) {
      case DeviceOp.OFFER:
        this.#offer(input, at);
        break;
      case DeviceOp.WRITE_DESC:
        this.#writeDesc(input, at);
        break;
      case DeviceOp.EXPOSE:
        this.#expose(input[at + 1]! | (input[at + 2]! << 8));
        break;
      case DeviceOp.SET_INDEX:
        this.#setIndex(input, at);
        break;
      case DeviceOp.POKE_AVAIL:
        this.#pokePart(this.#avail, this.#isPacked ? 4 : 4 + 2 * this.#size, input, at);
        break;
      case DeviceOp.POKE_USED:
        this.#pokePart(this.#used, this.#isPacked ? 4 : 4 + 8 * this.#size, input, at);
        break;
      case DeviceOp.POKE:
        this.#poke(input, at);
        break;
      case DeviceOp.MAP:
        this.#map(input, at);
        break;
      case DeviceOp.ARM:
        this.#memory.countdown = 1 + (input[at + 1]! & 63);
        this.#strike = input.subarray(at, at + 8);
        break;
      default:
    }
  }

  /** In the middle of what the device does: what was armed. */
  strike(): void {
    this.#noteTables();
    this.#rings.disturb();
    const strike = this.#strike;
    const kind = strike[2]! & 3;
    if (kind === 0) this.#map(strike, 1);
    else if (kind === 1) this.#poke(strike, 1);
    else if (kind === 2) this.#pokePart(this.#avail, 4 + 2 * this.#size, strike, 1);
    else this.#pokePart(this.#desc, 16 * this.#size, strike, 1);
  }

  /** Whether the next chain's head can be known, and is a descriptor. */
  nextHead(lastAvailIdx: number, size: number, _hasWindows: boolean): Verdict {
    const zero = this.#areAddressesZero;
    if (zero.desc || zero.avail || !this.#isNear) return 'unknown';
    if (this.#isPacked) return 'good';
    const gpa = this.#iommu.locate(this.#avail + 4 + 2 * (lastAvailIdx % size), 2, READ);
    if (gpa < 0) return 'unknown';
    this.head = this.#memory.get16(gpa);
    return this.head < size ? 'good' : 'bad';
  }

  /** Whether nothing waits for a device that is there; also true where that cannot be known. */
  isAvailEmpty(lastAvailIdx: number, wrap: number): boolean {
    if (!this.#isPacked) {
      const gpa = this.#iommu.locate(this.#avail + 2, 2, READ);
      return gpa < 0 || this.#memory.get16(gpa) === lastAvailIdx;
    }
    const gpa = this.#iommu.locate(this.#desc + 16 * lastAvailIdx + 14, 2, READ);
    if (gpa < 0) return true;
    const flags = this.#memory.get16(gpa);
    const isAvail = (flags & AVAIL) !== 0;
    return isAvail !== (wrap === 1) || isAvail === ((flags & USED) !== 0);
  }

  /** Whether the ring says that a buffer is used; also true where that cannot be known. */
  isUsed(index: number, wrap: number, size: number, head: number, written: number): boolean {
    if (!this.#isNear || !this.#isApart) return true;
    const memory = this.#memory;
    if (!this.#isPacked) {
      const gpa = this.#iommu.locate(this.#used + 4 + 8 * (index % size), 8, 2);
      const idx = this.#iommu.locate(this.#used + 2, 2, 2);
      if (gpa < 0 || idx < 0) return true;
      const isThere = memory.get32(gpa) === head && memory.get32(gpa + 4) === written;
      return isThere && memory.get16(idx) === ((index + 1) & 0xffff);
    }
    const gpa = this.#iommu.locate(this.#desc + 16 * index, 16, 2);
    if (gpa < 0) return true;
    const flags = memory.get16(gpa + 14);
    const isUsed = wrap === 1 ? AVAIL | USED : 0;
    return (
      memory.get16(gpa + 12) === head &&
      memory.get32(gpa + 8) === written &&
      (flags & (AVAIL | USED)) === isUsed
    );
  }

  // A part of a table that the ring describes, or described before it changed under the device.
  #findTable(at: number, length: number, out: { start: number; end: number }): boolean {
    for (let i = 0; i < this.#size; i += 1) {
      if (this.#readTable(i, out) && at >= out.start && at + length <= out.end) return true;
    }
    const before = this.#rings.isDisturbed ? this.#tablesBefore : [];
    for (const { start, end } of before) {
      if (at < start || at + length > end) continue;
      out.start = start;
      out.end = end;
      return true;
    }
    out.end = 0;
    return false;
  }

  // The table that a descriptor of the ring describes. Field by field: it may straddle two pages.
  #readTable(index: number, out: { start: number; end: number }): boolean {
    const memory = this.#memory;
    const descriptor = this.#desc + 16 * index;
    const flags = this.#iommu.locate(descriptor + (this.#isPacked ? 14 : 12), 2, READ);
    if (flags < 0 || (memory.get16(flags) & INDIRECT) === 0) return false;
    const address = this.#iommu.locate(descriptor, 8, READ);
    const bytes = this.#iommu.locate(descriptor + 8, 4, READ);
    if (address < 0 || bytes < 0) return false;
    const hi = memory.get32(memory.isBig ? address : address + 4);
    const lo = memory.get32(memory.isBig ? address + 4 : address);
    out.start = hi * 0x1_0000_0000 + lo;
    out.end = out.start + memory.get32(bytes);
    return true;
  }

  #noteTables(): void {
    this.#tablesBefore = [];
    for (let i = 0; i < this.#size; i += 1) {
      const table = { start: 0, end: 0 };
      if (this.#readTable(i, table)) this.#tablesBefore.push(table);
    }
  }

  // A good chain.
  #offer(input: Uint8Array, at: number): void {
    const shape = input[at + 1]!;
    const out = shape & 3;
    const inn = (shape >> 2) & 3 || (out === 0 ? 1 : 0);
    const isIndirect = (shape & 16) !== 0;
    const total = Math.min(out + inn, isIndirect ? 6 : this.#size);
    const table = TABLES + TABLE_BYTES * (input[at + 7]! & 15);
    const address = this.#address;
    for (let i = 0; i < total; i += 1) {
      const length = VALID_LENGTHS[(input[at + 2]! + 3 * i) & 7]!;
      addressOf(32 + ((input[at + 3]! + 3 * i) & 31), input[at + 5]! * (i & 1), [], address);
      const flags = (i < out ? 0 : WRITABLE) | (i + 1 < total ? NEXT : 0);
      if (!isIndirect) this.#putRing(i, address, length, flags, i + 1 === total);
      else if (this.#isPacked) {
        putDescriptor(this.#memory, table + 16 * i, address, length, 0, flags & WRITABLE);
      } else putDescriptor(this.#memory, table + 16 * i, address, length, flags, i + 1);
    }
    if (isIndirect) {
      address.hi = 0;
      address.lo = table;
      this.#putRing(0, address, 16 * total, INDIRECT, true);
    }
    const ndescs = isIndirect ? 1 : total;
    const head = this.#nextDesc;
    this.#advance(ndescs);
    if (!this.#isPacked && (input[at + 4]! & 1) === 0) this.#expose(head);
  }

  #putRing(
    i: number,
    address: { hi: number; lo: number },
    length: number,
    flags: number,
    isLast: boolean,
  ): void {
    const place = (this.#nextDesc + i) % this.#size;
    const at = this.#desc + 16 * place;
    if (!this.#isPacked) {
      const next = (place + 1) % this.#size;
      putDescriptor(this.#memory, at, address, length, flags, isLast ? 0 : next);
      return;
    }
    const wrap = this.#nextDesc + i >= this.#size ? this.#wrap ^ 1 : this.#wrap;
    const id = this.#nextDesc;
    putDescriptor(this.#memory, at, address, length, id, flags | (wrap === 1 ? AVAIL : USED));
  }

  #advance(ndescs: number): void {
    this.#nextDesc += ndescs;
    if (this.#nextDesc < this.#size) return;
    this.#nextDesc %= this.#size;
    this.#wrap ^= 1;
  }

  // Makes a head available, or the place of a packed ring where the driver is.
  #expose(head: number): void {
    if (this.#isPacked) {
      const at = this.#desc + 16 * this.#nextDesc + 14;
      if (!this.#memory.isBacked(at, 2)) return;
      const flags = this.#memory.get16(at) & ~(AVAIL | USED);
      this.#memory.put16(at, flags | (this.#wrap === 1 ? AVAIL : USED));
      this.#advance(1 + (head & 7));
      return;
    }
    this.#memory.put16(this.#avail + 4 + 2 * (this.#availIdx % this.#size), head);
    this.#availIdx = (this.#availIdx + 1) & 0xffff;
    this.#memory.put16(this.#avail + 2, this.#availIdx);
  }

  #writeDesc(input: Uint8Array, at: number): void {
    const index = input[at + 1]!;
    const isTable = (index & 0x80) !== 0;
    const table = TABLES + TABLE_BYTES * ((index >> 5) & 1);
    const starts = this.#rings.areas.map(({ start }) => start);
    addressOf(input[at + 5]!, input[at + 6]!, starts, this.#address);
    const length = lengthOf(input[at + 7]!);
    const next = input[at + 4] === 255 ? 0xffff : input[at + 4]!;
    let flags = input[at + 2]! | (input[at + 3]! << 8);
    if (this.#isPacked && (flags & 0x100) !== 0) {
      const isNow = (flags & 0x200) === 0 ? this.#wrap === 1 : this.#wrap === 0;
      flags = (flags & 0x7f) | (isNow ? AVAIL : USED);
    }
    const where = isTable ? table + 16 * (index & 31) : this.#desc + 16 * (index % this.#size);
    const [third, fourth] = this.#isPacked ? [next, flags] : [flags, next];
    putDescriptor(this.#memory, where, this.#address, length, third, fourth);
  }

  #setIndex(input: Uint8Array, at: number): void {
    const value = input[at + 1]! | (input[at + 2]! << 8);
    if (this.#isPacked) {
      this.#nextDesc = value % this.#size;
      this.#wrap = input[at + 3]! & 1;
      return;
    }
    const isStep = (input[at + 3]! & 1) === 0;
    this.#availIdx = isStep ? (this.#availIdx + ((value << 24) >> 24)) & 0xffff : value;
    this.#memory.put16(this.#avail + 2, this.#availIdx);
  }

  #pokePart(start: number, length: number, input: Uint8Array, at: number): void {
    const event = this.#hasEventIdx ? 2 : 0;
    const place = input[at + 1]!;
    // From the start, or from the end: where the event fields are.
    const offset = place < 192 ? (2 * place) % length : length + event - 2 * (256 - place);
    this.#memory.put16(start + Math.max(offset, 0), input[at + 2]! | (input[at + 3]! << 8));
  }

  #poke(input: Uint8Array, at: number): void {
    const starts = this.#rings.areas.map(({ start }) => start);
    addressOf(input[at + 1]!, input[at + 2]!, starts, this.#address);
    if (this.#address.hi !== 0) return;
    const value = input[at + 3]! | (input[at + 4]! << 8) | (input[at + 5]! << 16);
    this.#memory.put32(this.#address.lo, (value | ((input[at + 6] ?? 0) << 24)) >>> 0);
  }

  // Another entry in the IOMMU, or none: of a ring, a table, or a buffer.
  #map(input: Uint8Array, at: number): void {
    const which = input[at + 2]!;
    let page = input[at + 3]!;
    if (which < 64) page = Math.floor((this.#rings.areas[which % 3]?.start ?? 0) / 4096);
    else if (which < 128) page = (TABLES >> 12) + (page & 15);
    else if (which < 192) page = (BUFFERS >> 12) + (page & 63);
    const target = input[at + 4]!;
    const entry = target === 0 ? 0 : ((target === 1 ? page : target) << 2) | (input[at + 5]! & 3);
    if (page < 0x400) this.#iommu.set(page, entry);
  }
}
