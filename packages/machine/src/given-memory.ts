import { type Gpa, type HiLo, joinU64 } from '@pinhole/base';
import {
  ByteMemory,
  DmaAccess,
  type DmaDirection,
  type DmaOps,
  type DmaSpace,
  DmaStatus,
  type GuestMemory,
  type Translation,
} from '@pinhole/memory';

const PAGE = 4096;

/** An address that the guest gave for one place in memory, and the device took for another. */
export interface Misread {
  /** As the guest gave it. */
  readonly address: bigint;
  /** The place that the guest meant; undefined: its bounce buffer. */
  readonly meant: Gpa | undefined;
  /** Where the device came out; undefined: nowhere. */
  readonly landed: Gpa | undefined;
  readonly isWrite: boolean;
}

interface Handed {
  readonly address: bigint;
  readonly length: number;
  readonly gpa: Gpa | undefined;
}

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
  /** The first address that the two sides understood differently. */
  misread: Misread | undefined;
  readonly #pages = new Map<number, number>();
  readonly #handed = new Map<bigint, Handed>();
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

  /** Notes that the guest told the device an address; `gpa` undefined: of a bounce buffer. */
  hand(address: bigint, length: number, gpa: Gpa | undefined): void {
    this.#handed.set(address, { address, length, gpa });
  }

  /** Notes that the guest is done with it, and says of which memory it was. */
  withdraw(address: bigint): Gpa | undefined {
    const gpa = this.#handed.get(address)?.gpa;
    this.#handed.delete(address);
    return gpa;
  }

  /** Notes where an address took the device that is not what it was given, or nowhere. */
  landed(address: bigint, gpa: Gpa | undefined, isWrite: boolean): void {
    if (this.misread !== undefined) return;
    for (const handed of this.#handed.values()) {
      if (address < handed.address || address >= handed.address + BigInt(handed.length)) continue;
      const meant =
        handed.gpa === undefined ? undefined : handed.gpa + Number(address - handed.address);
      if (gpa === undefined || gpa !== meant) {
        this.misread = { address, meant, landed: gpa, isWrite };
      }
      return;
    }
  }

  /** Whether the device was given the page of this byte. */
  has(gpa: Gpa): boolean {
    const pool = this.#pool;
    return (
      (pool !== undefined && gpa >= pool.base && gpa < pool.base + pool.size) ||
      this.#pages.has(Math.floor(gpa / PAGE))
    );
  }

  /** Notes an access of the device, and says where it first was stray, if it was. */
  access(gpa: Gpa, length: number, isWrite: boolean): Gpa | undefined {
    let stray: Gpa | undefined;
    for (let done = 0; done < length; ) {
      const at = gpa + done;
      const part = Math.min(PAGE - (at % PAGE), length - done);
      if (!this.has(at)) {
        stray ??= at;
        this.firstStray ??= { gpa: at, length: part, isWrite };
        if (isWrite) this.strayBytesWritten += part;
        else this.strayBytesRead += part;
      }
      done += part;
    }
    return stray;
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
  return {
    name: ops.name,
    maxMappingSize: ops.maxMappingSize,
    map(gpa: Gpa, length: number, direction: DmaDirection, out: HiLo): boolean {
      if (!ops.map(gpa, length, direction, out)) return false;
      given.hand(joinU64(out.hi, out.lo), length, isBounced ? undefined : gpa);
      if (!isBounced) given.give(gpa, length);
      return true;
    },
    unmap(hi, lo, length, direction) {
      const gpa = given.withdraw(joinU64(hi, lo));
      if (gpa !== undefined) given.take(gpa, length);
      ops.unmap(hi, lo, length, direction);
    },
    allocCoherent(length, out) {
      const gpa = ops.allocCoherent(length, out);
      if (gpa !== undefined) {
        given.give(gpa, length);
        given.hand(joinU64(out.hi, out.lo), length, gpa);
      }
      return gpa;
    },
    freeCoherent(gpa, hi, lo, length) {
      given.withdraw(joinU64(hi, lo));
      given.take(gpa, length);
      ops.freeCoherent(gpa, hi, lo, length);
    },
  };
}

/** A space as the device uses it: what it translates to nothing, or to what it was not given, is noted. */
export function watchSpace(space: DmaSpace, given: GivenMemory): DmaSpace {
  return {
    name: space.name,
    isIdentity: space.isIdentity,
    translate(hi: number, lo: number, length: number, access: DmaAccess, out: Translation) {
      const status = space.translate(hi, lo, length, access, out);
      const gpa = status === DmaStatus.OK ? out.gpa : undefined;
      if (gpa === undefined || !given.has(gpa)) {
        given.landed(joinU64(hi, lo), gpa, access === DmaAccess.WRITE);
      }
      return status;
    },
    covers: (hi, lo, length) => space.covers(hi, lo, length),
    get generation() {
      return space.generation;
    },
    countRemembered: () => space.countRemembered?.(),
  };
}

/** Memory as the device uses it, each access noted. */
export class WatchedMemory extends ByteMemory {
  readonly regions: GuestMemory['regions'];
  readonly #memory: GuestMemory;
  readonly #given: GivenMemory;
  readonly #isIdentity: boolean;

  /** @param isIdentity - the device takes addresses for guest-physical ones, and looks nothing up. */
  constructor(memory: GuestMemory, given: GivenMemory, isIdentity: boolean) {
    super();
    this.regions = memory.regions;
    this.#memory = memory;
    this.#given = given;
    this.#isIdentity = isIdentity;
  }

  override isBacked(gpa: Gpa, length: number): boolean {
    return this.#memory.isBacked(gpa, length);
  }

  override read(gpa: Gpa, into: Uint8Array): void {
    this.#note(gpa, into.length, false);
    this.#memory.read(gpa, into);
  }

  override write(gpa: Gpa, from: Uint8Array): void {
    this.#note(gpa, from.length, true);
    this.#memory.write(gpa, from);
  }

  #note(gpa: Gpa, length: number, isWrite: boolean): void {
    const stray = this.#given.access(gpa, length, isWrite);
    if (this.#isIdentity && stray !== undefined) {
      this.#given.landed(BigInt(stray), stray, isWrite);
    }
  }
}
