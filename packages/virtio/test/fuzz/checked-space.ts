import { type DmaAccess, type DmaSpace, DmaStatus, type Translation } from '@pinhole/memory';
import { BOUNCED, type DmaMapper } from '../../src/index.js';
import { type CheckedMemory, CLEAR, type Permissions, WRITE } from './checked-memory.js';
import { check, Finding } from './finding.js';
import { HOLE, HOLE_END, MEMORY_SIZE, WINDOW_SIZE } from './program.js';

const TWO_32 = 0x1_0000_0000;
const PAGES = WINDOW_SIZE >> 12;

/** What every page is mapped to at first: itself, but buffers the other way round by pairs. */
const FIRST_ENTRIES: Int32Array = Int32Array.from({ length: PAGES }, (_, page) => {
  const isBuffer = page >= 0x28 && page < 0x60;
  const isMapped = page < MEMORY_SIZE >> 12;
  return isMapped ? ((isBuffer ? page ^ 1 : page) << 2) | 3 : 0;
});

/** A part of a queue, in bus addresses. */
export interface Area {
  start: number;
  end: number;
  access: number;
}

/** How the driver's side of a bus behaves at once: the state of the IOMMU. */
export class Iommu {
  readonly entries: Int32Array = FIRST_ENTRIES.slice();
  isIdentity = true;
  /** Another number after each change. */
  generation = 1;
  /** Translations since it was set to 0. */
  work = 0;
  readonly #memory: CheckedMemory;

  constructor(memory: CheckedMemory) {
    this.#memory = memory;
  }

  reset(): void {
    this.generation += 1;
    this.entries.set(FIRST_ENTRIES);
  }

  /** Entries are a page of memory, shifted by 2, and permissions. */
  set(page: number, entry: number): void {
    this.generation += 1;
    this.entries[page % PAGES] = entry;
  }

  translate(hi: number, lo: number, length: number, access: number, out: Translation): DmaStatus {
    this.work += 1;
    this.#memory.tick();
    if (this.isIdentity) {
      if (hi >= 0x20_0000) return DmaStatus.NOTHING_THERE;
      const gpa = hi * TWO_32 + lo;
      const end = gpa < HOLE ? HOLE : gpa < HOLE_END ? 0 : MEMORY_SIZE;
      if (gpa >= end) return DmaStatus.NOTHING_THERE;
      out.gpa = gpa;
      out.length = Math.min(length, end - gpa);
      return DmaStatus.OK;
    }
    if (hi !== 0 || lo >= WINDOW_SIZE) return DmaStatus.NOTHING_THERE;
    const entry = this.entries[lo >>> 12] ?? 0;
    if ((entry & access) === 0) return DmaStatus.NO_PERMISSION;
    const gpa = ((entry >> 2) << 12) + (lo & 4095);
    if (!this.#memory.isBacked(gpa, 1)) return DmaStatus.NOT_MEMORY;
    out.gpa = gpa;
    out.length = Math.min(length, 4096 - (lo & 4095));
    return DmaStatus.OK;
  }

  covers(hi: number, lo: number, length: number): boolean {
    if (this.isIdentity) {
      return hi < 0x20_0000 && this.#memory.isBacked(hi * TWO_32 + lo, length);
    }
    return hi === 0 && lo + length <= WINDOW_SIZE;
  }

  /** Where an access of the harness goes; -1 if not all of it is in one page that may be read so. */
  locate(address: number, length: number, access: number): number {
    if (this.isIdentity) return this.#memory.isBacked(address, length) ? address : -1;
    if (address >= WINDOW_SIZE || (address & 4095) + length > 4096) return -1;
    const entry = this.entries[address >>> 12] ?? 0;
    const gpa = ((entry >> 2) << 12) + (address & 4095);
    return (entry & access) !== 0 && this.#memory.isBacked(gpa, length) ? gpa : -1;
  }
}

const GRANTS = 16;
/** Accesses that follow one translation. */
const MOST_AFTER_ONE_LOOK = 4;

/**
 * The device's view of the rings and tables. What it may do with memory is what it was told here
 * since the last step of the program began, and, without an IOMMU, what is a ring.
 */
export class RingSpace implements DmaSpace, Permissions {
  readonly name = 'rings';
  /** Of the queue as it was configured. */
  readonly areas: readonly [Area, Area, Area] = [
    { start: 0, end: 0, access: 0 },
    { start: 0, end: 0, access: 0 },
    { start: 0, end: 0, access: 0 },
  ];
  /** The mapper uses this space as well: then requests may be for anything. */
  isShared = false;
  isDisturbed = false;
  /** Translations may be remembered, for as long as none changes. */
  hasGeneration = false;
  /** Whether the ring describes a table of which this is a part, and which. */
  findTable: (at: number, length: number, out: { start: number; end: number }) => boolean = () =>
    false;
  readonly #iommu: Iommu;
  // Translations, and tables that were opened: start, end, access.
  readonly #grants = new Float64Array(3 * GRANTS);
  #nextGrant = 0;
  // By access and page of memory: the generation in which it was granted.
  readonly #granted = [0, 1, 2].map(() => new Uint32Array(MEMORY_SIZE >> 12));
  // The last window that was opened, and the last table that the ring describes.
  #openedStart = 0;
  #openedEnd = 0;
  readonly #table = { start: 0, end: 0 };
  #mayStray = false;
  #grace = 0;
  #graceGeneration = 0;

  constructor(iommu: Iommu) {
    this.#iommu = iommu;
  }

  get isIdentity(): boolean {
    return this.#iommu.isIdentity;
  }

  get generation(): number | undefined {
    return this.hasGeneration ? this.#iommu.generation : undefined;
  }

  countRemembered(): void {
    this.#iommu.work += 1;
  }

  beginStep(): void {
    this.#grants.fill(0);
    this.#nextGrant = 0;
    this.#openedEnd = 0;
    this.#table.end = 0;
    this.isDisturbed = false;
    this.#grace = 0;
    this.#mayStray = false;
  }

  /** The ring is about to change while the device reads it: what it opened may be a table of before. */
  disturb(): void {
    this.isDisturbed = true;
    this.#mayStray = true;
    this.#graceGeneration = this.#iommu.generation;
    this.#grace = MOST_AFTER_ONE_LOOK;
  }

  translate(
    hi: number,
    lo: number,
    length: number,
    access: DmaAccess,
    out: Translation,
  ): DmaStatus {
    if (!this.isShared) this.#checkRequest(hi * TWO_32 + lo, length, access);
    const status = this.#iommu.translate(hi, lo, length, access, out);
    if (status === DmaStatus.OK) this.#grant(out.gpa, out.gpa + out.length, access);
    if (status !== DmaStatus.OK || out.length < length) this.#mayStray = true;
    return status;
  }

  covers(hi: number, lo: number, length: number): boolean {
    const isCovered = this.#iommu.covers(hi, lo, length);
    const start = hi * TWO_32 + lo;
    // A probe of one byte says nothing about a table.
    if (length > 1) {
      this.#openedStart = start;
      this.#openedEnd = start + length;
    }
    return isCovered;
  }

  allows(gpa: number, length: number, access: number): boolean {
    const wanted = access === CLEAR ? WRITE : access;
    if (this.#iommu.isIdentity && this.#isInArea(gpa, length, wanted)) return true;
    const grants = this.#grants;
    for (let i = 0; i < 3 * GRANTS; i += 3) {
      const isIn = gpa >= grants[i]! && gpa + length <= grants[i + 1]!;
      if (isIn && (grants[i + 2]! & wanted) !== 0) return true;
    }
    if (!this.hasGeneration || this.#iommu.isIdentity) return false;
    const granted = this.#granted[wanted]!;
    const { generation } = this.#iommu;
    const isSamePage = gpa >> 12 === (gpa + length - 1) >> 12;
    if (!isSamePage) return false;
    if (granted[gpa >> 12] === generation) return true;
    // A descriptor is looked up once and read in pieces.
    this.#grace -= 1;
    return this.#grace >= 0 && granted[gpa >> 12] === this.#graceGeneration;
  }

  #isInArea(at: number, length: number, access: number): boolean {
    for (const area of this.areas) {
      if (at >= area.start && at + length <= area.end && (area.access & access) !== 0) return true;
    }
    if (access === WRITE) return false;
    const table = this.#table;
    if (at >= table.start && at + length <= table.end) return true;
    if (this.findTable(at, length, table)) return true;
    return this.#mayStray && at >= this.#openedStart && at + length <= this.#openedEnd;
  }

  #checkRequest(address: number, length: number, access: number): void {
    // Beyond what numbers hold exactly there is nothing to be found.
    if (address > Number.MAX_SAFE_INTEGER || this.#isInArea(address, length, access)) return;
    // README S5: an access that failed goes on at its offset within the ring or table.
    if (this.#mayStray && address < 0x10_0000) return;
    if (this.#mayStray && address < this.#openedEnd - this.#openedStart) return;
    throw new Finding(
      `asks for ${length} bytes at bus address 0x${address.toString(16)}, which is no ring or table`,
    );
  }

  #grant(start: number, end: number, access: number): void {
    const at = this.#nextGrant;
    this.#grants[at] = start;
    this.#grants[at + 1] = end;
    this.#grants[at + 2] = access;
    if (this.hasGeneration) this.#granted[access]![start >> 12] = this.#iommu.generation;
    this.#nextGrant = at + 3 === 3 * GRANTS ? 0 : at + 3;
  }
}

/**
 * The device's way to buffers: remembers every mapping, and that it ends once. With a bounce buffer
 * as QEMU has it: one page, for what is no memory.
 */
export class CheckedMapper implements DmaMapper {
  hasBounce = false;
  /** Mappings that have not ended. */
  live = 0;
  readonly #space: DmaMapper;
  readonly #mappings = new Map<number, number>();
  #isBouncing = false;

  constructor(mapper: DmaMapper) {
    this.#space = mapper;
  }

  reset(): void {
    if (this.live > 0) this.#mappings.clear();
    this.live = 0;
    this.#isBouncing = false;
  }

  map(hi: number, lo: number, length: number, isWritable: boolean, out: Translation): boolean {
    if (!this.#space.map(hi, lo, length, isWritable, out)) {
      if (!this.hasBounce || this.#isBouncing) return false;
      this.#isBouncing = true;
      out.gpa = BOUNCED;
      out.length = Math.min(length, 4096);
    }
    const key = keyOf(out.gpa, out.length, isWritable);
    this.#mappings.set(key, (this.#mappings.get(key) ?? 0) + 1);
    this.live += 1;
    return true;
  }

  unmap(gpa: number, length: number, isWritable: boolean, accessed: number): void {
    const key = keyOf(gpa, length, isWritable);
    const count = this.#mappings.get(key) ?? 0;
    check(count > 0, 'a mapping ends that was not there');
    check(
      accessed >= 0 && accessed <= length,
      'more of a mapping was accessed than there is of it',
    );
    if (count === 1) this.#mappings.delete(key);
    else this.#mappings.set(key, count - 1);
    this.live -= 1;
    if (gpa === BOUNCED) this.#isBouncing = false;
  }
}

function keyOf(gpa: number, length: number, isWritable: boolean): number {
  return ((gpa + 1) * 0x40_0000 + length) * 2 + (isWritable ? 1 : 0);
}

/** The space below the mapper: what it translates may be written into elements. */
export class BufferSpace implements DmaSpace {
  readonly name = 'buffers';
  readonly #iommu: Iommu;

  constructor(iommu: Iommu) {
    this.#iommu = iommu;
  }

  get isIdentity(): boolean {
    return this.#iommu.isIdentity;
  }

  translate(
    hi: number,
    lo: number,
    length: number,
    access: DmaAccess,
    out: Translation,
  ): DmaStatus {
    return this.#iommu.translate(hi, lo, length, access, out);
  }

  covers(hi: number, lo: number, length: number): boolean {
    return this.#iommu.covers(hi, lo, length);
  }
}
