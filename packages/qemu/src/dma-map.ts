import { type Gpa, type HiLo, addU64 } from '@pinhole/base';
import { DmaAccess, type DmaSpace, DmaStatus, type GuestMemory, type Translation } from '@pinhole/memory';

/** Size of a target page: the most that the bounce buffer takes. [qemu v7.2 softmmu/physmem.c address_space_map] */
const TARGET_PAGE_SIZE = 4096;

/** A mapped piece of a buffer: guest memory, or QEMU's bounce buffer when `gpa` is negative. */
export interface MappedPiece {
  /** Where in guest memory, or -1: the bounce buffer, whose writes go nowhere. */
  readonly gpa: Gpa;
  readonly length: number;
}

/** QEMU's one bounce buffer for memory that is none: the whole process shares it. */
export interface GlobalBounce {
  isInUse: boolean;
}

/**
 * Maps guest buffers for a device as QEMU does. What is not memory goes to the single bounce
 * buffer, at most a page at a time: a read finds zeros there, a write is dropped, and a second
 * use while the first is under way fails.
 * [qemu v7.2 softmmu/physmem.c address_space_map, flatview_extend_translation]
 */
export class DmaMapper {
  /** Bytes that went to the bounce buffer: silently wrong. */
  bytesLost = 0;
  readonly #space: DmaSpace;
  readonly #bounce: GlobalBounce;
  readonly #out: Translation = { gpa: 0, length: 0 };
  readonly #at: HiLo = { hi: 0, lo: 0 };

  constructor(options: { space: DmaSpace; memory: GuestMemory; bounce: GlobalBounce }) {
    this.#space = options.space;
    this.#bounce = options.bounce;
  }

  /**
   * Maps from `hi`:`lo` as much of `length` bytes as is contiguous in memory.
   * @returns undefined when nothing can be mapped ("bogus descriptor or out of resources").
   */
  map(hi: number, lo: number, length: number, isWrite: boolean): MappedPiece | undefined {
    const access = isWrite ? DmaAccess.WRITE : DmaAccess.READ;
    const out = this.#out;
    if (this.#space.translate(hi, lo, length, access, out) !== DmaStatus.OK) {
      if (this.#bounce.isInUse) return undefined;
      this.#bounce.isInUse = true;
      // Up to the end of the IOMMU page, and no more than a target page.
      const mapped = Math.min(length, TARGET_PAGE_SIZE - (lo % TARGET_PAGE_SIZE));
      this.bytesLost += mapped;
      return { gpa: -1, length: mapped };
    }
    const { gpa } = out;
    let done = out.length;
    while (done < length) {
      // The next piece must continue right behind this one; if not, its translation was in vain
      // and is done again when that piece is mapped.
      addU64(this.#start(hi, lo), done, this.#at);
      const status = this.#space.translate(this.#at.hi, this.#at.lo, length - done, access, out);
      if (status !== DmaStatus.OK || out.gpa !== gpa + done) break;
      done += out.length;
    }
    return { gpa, length: done };
  }

  /** Ends a mapping. */
  unmap(piece: MappedPiece): void {
    if (piece.gpa < 0) this.#bounce.isInUse = false;
  }

  readonly #base: HiLo = { hi: 0, lo: 0 };
  #start(hi: number, lo: number): HiLo {
    this.#base.hi = hi;
    this.#base.lo = lo;
    return this.#base;
  }
}
