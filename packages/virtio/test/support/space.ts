import { type HiLo, joinNumber } from '@pinhole/base';
import {
  DmaAccess,
  DmaDirection,
  type DmaOps,
  type DmaSpace,
  DmaStatus,
  type GuestMemory,
  type Translation,
} from '@pinhole/memory';

const PAGE = 4096;

/** One translation that the device asked for. */
export interface Translated {
  readonly address: number;
  readonly access: DmaAccess;
}

/** A small IOMMU of 4 KiB pages over one window from 0, which remembers what it was asked. */
export class TestIommu implements DmaSpace {
  readonly name = 'test IOMMU';
  readonly isIdentity = false;
  readonly log: Translated[] = [];
  onTranslate: ((address: number) => void) | undefined;
  readonly #memory: GuestMemory;
  readonly #windowSize: number;
  readonly #pages = new Map<number, { gpa: number; perm: number }>();

  constructor(memory: GuestMemory, windowSize: number = 2 ** 30) {
    this.#memory = memory;
    this.#windowSize = windowSize;
  }

  get mappedPages(): number {
    return this.#pages.size;
  }

  set(bus: number, gpa: number, perm: number): void {
    this.#pages.set(Math.floor(bus / PAGE), { gpa: gpa - (gpa % PAGE), perm });
  }

  clear(bus: number): void {
    this.#pages.delete(Math.floor(bus / PAGE));
  }

  translate(
    hi: number,
    lo: number,
    length: number,
    access: DmaAccess,
    out: Translation,
  ): DmaStatus {
    const address = joinNumber(hi, lo);
    if (address >= this.#windowSize) return DmaStatus.NOTHING_THERE;
    this.log.push({ address, access });
    this.onTranslate?.(address);
    const page = this.#pages.get(Math.floor(address / PAGE));
    if (page === undefined || (page.perm & access) === 0) return DmaStatus.NO_PERMISSION;
    if (!this.#memory.isBacked(page.gpa, 1)) return DmaStatus.NOT_MEMORY;
    out.gpa = page.gpa + (address % PAGE);
    out.length = Math.min(length, PAGE - (address % PAGE));
    return DmaStatus.OK;
  }

  covers(hi: number, lo: number, length: number): boolean {
    return joinNumber(hi, lo) + length <= this.#windowSize;
  }
}

/** Guest memory for rings and tables, from `at` upwards; what is freed is not used again. */
export class TestHeap {
  live = 0;
  #at: number;
  readonly #end: number;

  constructor(at: number, end: number = Number.MAX_SAFE_INTEGER) {
    this.#at = at;
    this.#end = end;
  }

  allocate(length: number, align = 64): number | undefined {
    const gpa = Math.ceil(this.#at / align) * align;
    if (gpa + length > this.#end) return undefined;
    this.#at = gpa + length;
    this.live += 1;
    return gpa;
  }

  free(_gpa: number, _length: number): void {
    this.live -= 1;
  }
}

/** Addresses as they are. */
export function physicalDma(heap: TestHeap): DmaOps {
  return {
    name: 'none (physical)',
    maxMappingSize: Number.MAX_SAFE_INTEGER,
    map(gpa, _length, _direction, out): boolean {
      out.hi = Math.floor(gpa / 2 ** 32);
      out.lo = gpa >>> 0;
      return true;
    },
    unmap(): void {},
    allocCoherent(length, out): number | undefined {
      const gpa = heap.allocate(length, PAGE);
      if (gpa === undefined) return undefined;
      out.hi = Math.floor(gpa / 2 ** 32);
      out.lo = gpa >>> 0;
      return gpa;
    },
    freeCoherent(gpa, _hi, _lo, length): void {
      heap.free(gpa, length);
    },
  };
}

/** Maps every buffer at a fresh bus page of a `TestIommu`, and counts. */
export class IommuDma implements DmaOps {
  readonly name = 'test';
  readonly maxMappingSize: number = Number.MAX_SAFE_INTEGER;
  /** `map BUS LENGTH DIRECTION` and `unmap ...`, in order. */
  readonly log: string[] = [];
  /** How many more mappings succeed. */
  budget: number = Number.POSITIVE_INFINITY;
  /** Mappings that were ended without being there. */
  badUnmaps = 0;
  readonly live: Map<number, string> = new Map();
  readonly #iommu: TestIommu;
  readonly #heap: TestHeap;
  #nextBus = PAGE;

  constructor(iommu: TestIommu, heap: TestHeap) {
    this.#iommu = iommu;
    this.#heap = heap;
  }

  map(gpa: number, length: number, direction: DmaDirection, out: HiLo): boolean {
    if (this.budget <= 0) return false;
    this.budget -= 1;
    const bus = this.#mapPages(gpa, length, direction);
    out.hi = 0;
    out.lo = bus;
    const what = `${bus.toString(16)} ${length} ${direction}`;
    this.live.set(bus, what);
    this.log.push(`map ${what}`);
    return true;
  }

  unmap(hi: number, lo: number, length: number, direction: DmaDirection): void {
    const bus = joinNumber(hi, lo);
    const what = `${bus.toString(16)} ${length} ${direction}`;
    if (this.live.get(bus) !== what) this.badUnmaps += 1;
    this.live.delete(bus);
    for (let at = bus - (bus % PAGE); at < bus + length; at += PAGE) this.#iommu.clear(at);
    this.log.push(`unmap ${what}`);
  }

  allocCoherent(length: number, out: HiLo): number | undefined {
    if (this.budget <= 0) return undefined;
    const gpa = this.#heap.allocate(length, PAGE);
    if (gpa === undefined) return undefined;
    out.hi = 0;
    out.lo = this.#mapPages(gpa, length, DmaDirection.BIDIRECTIONAL);
    return gpa;
  }

  freeCoherent(gpa: number, _hi: number, lo: number, length: number): void {
    for (let at = lo; at < lo + length; at += PAGE) this.#iommu.clear(at);
    this.#heap.free(gpa, length);
  }

  #mapPages(gpa: number, length: number, direction: DmaDirection): number {
    const start = gpa % PAGE;
    const pages = Math.ceil((start + length) / PAGE);
    const bus = this.#nextBus;
    this.#nextBus = (this.#nextBus + (pages + 1) * PAGE) % (2 ** 30 - 2 ** 24) || PAGE;
    const perm =
      direction === DmaDirection.TO_DEVICE ? DmaAccess.READ : DmaAccess.READ | DmaAccess.WRITE;
    for (let i = 0; i < pages; i += 1) {
      this.#iommu.set(bus + i * PAGE, gpa - start + i * PAGE, perm);
    }
    return bus + start;
  }
}
