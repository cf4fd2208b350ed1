import { DmaAccess, type DmaSpace, DmaStatus, type Translation } from '@pinhole/memory';

const TWO_32 = 0x1_0000_0000;

/** Stands in a segment's `gpa` for "not guest memory: the mapper's bounce buffer". */
export const BOUNCED = -1;

/**
 * How a device gets at the bytes of a buffer. The seam at which a machine monitor's habits (such as
 * QEMU's bounce buffer) differ. [qemu v7.2 softmmu/physmem.c address_space_map]
 */
export interface DmaMapper {
  /**
   * `map` is not called for what is memory, in one piece and without an IOMMU: it would say what is
   * known. `unmap` hears of it all the same.
   */
  readonly takesMemoryAsIs?: boolean;
  /**
   * Maps `length` bytes at the bus address `hi`:`lo`, or fewer: puts what is contiguous into `out`
   * (`gpa` may be `BOUNCED`) and is called again for the rest. False: nothing can be mapped.
   */
  map(hi: number, lo: number, length: number, isDeviceWritable: boolean, out: Translation): boolean;
  /**
   * Ends a mapping; of a device-writable one, the first `accessLength` bytes were written. Absent
   * when there is nothing to do.
   */
  unmap?(gpa: number, length: number, isDeviceWritable: boolean, accessLength: number): void;
}

/** Maps through a device's space, page run by page run; what is no memory cannot be mapped. */
export function createSpaceMapper(space: DmaSpace): DmaMapper {
  return new SpaceMapper(space);
}

class SpaceMapper implements DmaMapper {
  readonly takesMemoryAsIs = true;
  readonly #space: DmaSpace;

  constructor(space: DmaSpace) {
    this.#space = space;
  }

  /**
   * Translates, then extends the piece for as long as the next one follows it in memory. The piece
   * that does not is translated again by the next call: each break costs one more translation.
   * [qemu v7.2 softmmu/physmem.c flatview_extend_translation]
   */
  map(
    hi: number,
    lo: number,
    length: number,
    isDeviceWritable: boolean,
    out: Translation,
  ): boolean {
    const access = isDeviceWritable ? DmaAccess.WRITE : DmaAccess.READ;
    if (this.#space.translate(hi, lo, length, access, out) !== DmaStatus.OK) return false;
    if (out.length === length) return true;
    const gpa = out.gpa;
    let done = out.length;
    while (done < length) {
      const at = lo + done;
      const carry = at >= TWO_32;
      const status = this.#space.translate(
        carry ? (hi + 1) >>> 0 : hi,
        carry ? at - TWO_32 : at,
        length - done,
        access,
        out,
      );
      if (status !== DmaStatus.OK || out.gpa !== gpa + done) break;
      done += out.length;
    }
    out.gpa = gpa;
    out.length = done;
    return true;
  }
}
