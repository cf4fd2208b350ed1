import { distanceU64, type Gpa, type HiLo, hi32, joinU64, lo32 } from '@pinhole/base';
import { type DmaAccess, type DmaSpace, DmaStatus, type Translation } from './dma.js';
import { bytesToHole } from './regions.js';
import type { GuestMemory } from './types.js';

/** A stretch of memory and where a bus shows it. [linux v6.1 include/linux/dma-direct.h bus_dma_region] */
export interface DmaRange {
  readonly cpuStart: Gpa;
  readonly dmaStart: bigint;
  /** Bytes. */
  readonly size: number;
}

/**
 * The space of devices on a bus that has no IOMMU but shows memory elsewhere: a bridge with
 * `dma-ranges`. [Devicetree Specification v0.4 §2.3.9 "dma-ranges"]
 */
export function createRangesSpace(memory: GuestMemory, ranges: readonly DmaRange[]): DmaSpace {
  return new RangesSpace(memory, ranges);
}

class RangesSpace implements DmaSpace {
  readonly name = 'bus with dma-ranges';
  readonly isIdentity = false;
  readonly #memory: GuestMemory;
  readonly #ranges: readonly { cpuStart: Gpa; size: number; start: HiLo }[];

  constructor(memory: GuestMemory, ranges: readonly DmaRange[]) {
    this.#memory = memory;
    this.#ranges = ranges.map(({ cpuStart, dmaStart, size }) => {
      return { cpuStart, size, start: { hi: hi32(dmaStart), lo: lo32(dmaStart) } };
    });
  }

  translate(
    hi: number,
    lo: number,
    length: number,
    _access: DmaAccess,
    out: Translation,
  ): DmaStatus {
    for (const { cpuStart, size, start } of this.#ranges) {
      const offset = distanceU64(start, hi, lo);
      if (offset < 0 || offset >= size) continue;
      const gpa = cpuStart + offset;
      const inMemory = bytesToHole(this.#memory, gpa);
      if (inMemory === 0) return DmaStatus.NOT_MEMORY;
      out.gpa = gpa;
      out.length = Math.min(length, size - offset, inMemory);
      return DmaStatus.OK;
    }
    return DmaStatus.NOTHING_THERE;
  }

  covers(hi: number, lo: number, length: number): boolean {
    // A ring is one piece of memory; one that spans two ranges does not occur.
    const address = joinU64(hi, lo);
    return this.#ranges.some(({ size, start }) => {
      const first = joinU64(start.hi, start.lo);
      return address >= first && address + BigInt(length) <= first + BigInt(size);
    });
  }
}
