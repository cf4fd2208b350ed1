import type { HiLo } from '@pinhole/base';
import type { DmaDirection, DmaOps } from '@pinhole/memory';
import type { TableAllocator } from '../../src/index.js';
import { type CheckedMemory, CLEAR, type Permissions, READ } from './checked-memory.js';
import { check } from './finding.js';
import { MEMORY_SIZE } from './program.js';

const COHERENT = 0x10_0000;
const TABLES_START = 0x7_0000;
const MOST_MAPPINGS = 4096;

/** A coherent allocation; the device writes what is from `deviceStart` on. */
export interface Part {
  readonly gpa: number;
  readonly length: number;
  deviceStart: number;
  isLive: boolean;
}

/**
 * The mappings of a driver, every one at a bus address of its own: counted, and checked that each ends
 * once and as it began. And what the driver may touch: its parts of the rings, and its tables.
 */
export class CheckedDma implements DmaOps, TableAllocator, Permissions {
  readonly name = 'checked';
  readonly maxMappingSize: number = MEMORY_SIZE;
  readonly parts: Part[] = [];
  /** Upper half of bus addresses. */
  high = 0;
  /** How many more mappings and tables succeed. */
  mappingsLeft = 0;
  tablesLeft = 0;
  /** The largest coherent allocation. */
  largest = 0;
  /** Mappings and tables that failed. */
  failures = 0;
  liveMappings = 0;
  liveTables = 0;
  /** The next mapping's number: its bus address is that much of 64 KiB. */
  next = 0;
  readonly length: Uint32Array = new Uint32Array(MOST_MAPPINGS);
  readonly gpa: Uint32Array = new Uint32Array(MOST_MAPPINGS);
  /** 0: it ended. */
  readonly direction: Uint8Array = new Uint8Array(MOST_MAPPINGS);
  readonly #memory: CheckedMemory;
  readonly #tables: { gpa: number; length: number }[] = [];
  #nextPart = COHERENT;
  #nextTable = TABLES_START;

  constructor(memory: CheckedMemory) {
    this.#memory = memory;
  }

  reset(): void {
    this.parts.length = 0;
    this.mappingsLeft = MOST_MAPPINGS;
    this.tablesLeft = MOST_MAPPINGS;
    this.failures = 0;
    this.liveMappings = 0;
    this.liveTables = 0;
    this.next = 0;
    this.#tables.length = 0;
    this.#nextPart = COHERENT;
    this.#nextTable = TABLES_START;
  }

  /** Where mapping `number` is on the bus: the lower half. */
  lowOf(number: number): number {
    return (number * 0x1_0000 + (this.gpa[number]! & 0xfff)) >>> 0;
  }

  map(gpa: number, length: number, direction: DmaDirection, out: HiLo): boolean {
    if (this.mappingsLeft <= 0 || this.next === MOST_MAPPINGS) {
      this.failures += 1;
      return false;
    }
    this.mappingsLeft -= 1;
    const number = this.next;
    this.next += 1;
    this.gpa[number] = gpa;
    this.length[number] = length;
    this.direction[number] = direction;
    this.liveMappings += 1;
    out.hi = this.high;
    out.lo = this.lowOf(number);
    return true;
  }

  unmap(hi: number, lo: number, length: number, direction: DmaDirection): void {
    const number = lo >>> 16;
    check(
      hi === this.high && number < this.next && lo === this.lowOf(number),
      'a mapping ends that never was',
    );
    check(this.direction[number] !== 0, 'a mapping ends twice');
    const isSame = this.length[number] === length && this.direction[number] === direction;
    check(isSame, 'a mapping ends otherwise than it began');
    this.direction[number] = 0;
    this.liveMappings -= 1;
  }

  allocCoherent(length: number, out: HiLo): number | undefined {
    const gpa = this.#nextPart;
    if (length > this.largest || gpa + length > MEMORY_SIZE) return undefined;
    this.#nextPart = (gpa + length + 4095) & ~4095;
    this.parts.push({ gpa, length, deviceStart: gpa + length, isLive: true });
    out.hi = this.high;
    out.lo = (0x8000_0000 + gpa) >>> 0;
    return gpa;
  }

  freeCoherent(gpa: number, hi: number, lo: number, length: number): void {
    const part = this.parts.find((one) => one.gpa === gpa);
    const isRight = hi === this.high && lo === (0x8000_0000 + gpa) >>> 0;
    check(
      part?.isLive === true && part.length === length && isRight,
      'a ring is given back that was not there',
    );
    part.isLive = false;
  }

  allocate(length: number): number | undefined {
    if (this.tablesLeft <= 0) {
      this.failures += 1;
      return undefined;
    }
    this.tablesLeft -= 1;
    const gpa = this.#nextTable;
    this.#nextTable += (length + 63) & ~63;
    this.#tables.push({ gpa, length });
    this.liveTables += 1;
    return gpa;
  }

  free(gpa: number, length: number): void {
    const index = this.#tables.findIndex((table) => table.gpa === gpa && table.length === length);
    check(index >= 0, 'a table is given back that was not there');
    this.#tables.splice(index, 1);
    this.liveTables -= 1;
  }

  allows(gpa: number, length: number, access: number): boolean {
    for (const part of this.parts) {
      if (!part.isLive || gpa < part.gpa || gpa + length > part.gpa + part.length) continue;
      if (access === READ) return true;
      if (access === CLEAR) return gpa === part.gpa && length === part.length;
      return gpa + length <= part.deviceStart;
    }
    if (access === CLEAR) return false;
    return this.#tables.some(
      (table) => gpa >= table.gpa && gpa + length <= table.gpa + table.length,
    );
  }

  /** Anything, anywhere in the rings: a device can. */
  poke(offset: number, value: number): void {
    const first = this.parts[0];
    const last = this.parts.at(-1);
    if (first === undefined || last === undefined) return;
    const bytes = last.gpa + last.length - first.gpa;
    const at = first.gpa + (offset % bytes);
    this.#memory.put16(at & ~1, value);
  }
}
