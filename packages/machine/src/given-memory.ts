import type { Gpa, HiLo } from '@pinhole/base';
import { ByteMemory, type DmaDirection, type DmaOps, type GuestMemory } from '@pinhole/memory';

const PAGE = 4096;

/**
 * Keeps which pages the guest gave to the device, and counts what the device touches beyond them.
 * Pages, because no IOMMU knows anything smaller.
 */
export class GivenMemory {
  /** Bytes that the device read or wrote outside of every page that it was given. */
  strayBytesRead = 0;
  strayBytesWritten = 0;
  /** The first stray access. */
  firstStray: { readonly gpa: Gpa; readonly length: number; readonly isWrite: boolean } | undefined;
  readonly #pages = new Map<number, number>();
  readonly #pool: { readonly base: number; readonly size: number } | undefined;

  /** @param pool - shared bounce buffers, which always belong to the device. */
  constructor(pool?: { readonly base: number; readonly size: number }) {
    this.#pool = pool;
  }

  give(gpa: Gpa, length: number): void {
    this.#change(gpa, length, 1);
  }

  take(gpa: Gpa, length: number): void {
    this.#change(gpa, length, -1);
  }

  /** Notes an access of the device. */
  access(gpa: Gpa, length: number, isWrite: boolean): void {
    for (let done = 0; done < length; ) {
      const at = gpa + done;
      const part = Math.min(PAGE - (at % PAGE), length - done);
      const inPool =
        this.#pool !== undefined && at >= this.#pool.base && at < this.#pool.base + this.#pool.size;
      if (!inPool && !this.#pages.has(Math.floor(at / PAGE))) {
        this.firstStray ??= { gpa: at, length: part, isWrite };
        if (isWrite) this.strayBytesWritten += part;
        else this.strayBytesRead += part;
      }
      done += part;
    }
  }

  #change(gpa: Gpa, length: number, delta: number): void {
    const last = Math.floor((gpa + length - 1) / PAGE);
    for (let page = Math.floor(gpa / PAGE); page <= last; page += 1) {
      const count = (this.#pages.get(page) ?? 0) + delta;
      if (count > 0) this.#pages.set(page, count);
      else this.#pages.delete(page);
    }
  }
}

/** The same DMA ops, noting what they give to the device. Bounced buffers stay the guest's. */
export function watchDmaOps(ops: DmaOps, given: GivenMemory, isBounced: boolean): DmaOps {
  const inFlight = new Map<string, Gpa>();
  const keyOf = (hi: number, lo: number): string => `${hi}:${lo}`;
  return {
    name: ops.name,
    maxMappingSize: ops.maxMappingSize,
    map(gpa: Gpa, length: number, direction: DmaDirection, out: HiLo): boolean {
      if (!ops.map(gpa, length, direction, out)) return false;
      if (!isBounced) {
        given.give(gpa, length);
        inFlight.set(keyOf(out.hi, out.lo), gpa);
      }
      return true;
    },
    unmap(hi, lo, length, direction) {
      const gpa = inFlight.get(keyOf(hi, lo));
      if (gpa !== undefined) given.take(gpa, length);
      inFlight.delete(keyOf(hi, lo));
      ops.unmap(hi, lo, length, direction);
    },
    allocCoherent(length, out) {
      const gpa = ops.allocCoherent(length, out);
      if (gpa !== undefined) given.give(gpa, length);
      return gpa;
    },
    freeCoherent(gpa, hi, lo, length) {
      given.take(gpa, length);
      ops.freeCoherent(gpa, hi, lo, length);
    },
  };
}

/** Memory as the device uses it, each access noted. */
export class WatchedMemory extends ByteMemory {
  readonly regions: GuestMemory['regions'];
  readonly #memory: GuestMemory;
  readonly #given: GivenMemory;

  constructor(memory: GuestMemory, given: GivenMemory) {
    super();
    this.regions = memory.regions;
    this.#memory = memory;
    this.#given = given;
  }

  override isBacked(gpa: Gpa, length: number): boolean {
    return this.#memory.isBacked(gpa, length);
  }

  override read(gpa: Gpa, into: Uint8Array): void {
    this.#given.access(gpa, into.length, false);
    this.#memory.read(gpa, into);
  }

  override write(gpa: Gpa, from: Uint8Array): void {
    this.#given.access(gpa, from.length, true);
    this.#memory.write(gpa, from);
  }
}
