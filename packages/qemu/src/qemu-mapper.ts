import type { DmaSpace, Translation } from '@pinhole/memory';
import { BOUNCED, createSpaceMapper, type DmaMapper } from '@pinhole/virtio';

/** Size of a target page: the most that the bounce buffer takes. [qemu v7.2 softmmu/physmem.c address_space_map] */
const TARGET_PAGE_SIZE = 4096;

/** QEMU's one bounce buffer for what is no memory: the whole process shares it. */
export interface GlobalBounce {
  isInUse: boolean;
}

/** How the buffers of a device are reached. */
export interface BufferMapper extends DmaMapper {
  /** Bytes of buffers that nothing stands behind: silently wrong. */
  readonly bytesLost: number;
}

/**
 * Maps guest buffers as QEMU does. What is no memory goes to the single bounce buffer, at most a
 * page at a time: a device-readable buffer reads as zeros there, a device-writable one is
 * dropped, and a second use while the first is under way fails.
 * [qemu v7.2 softmmu/physmem.c address_space_map]
 */
export class QemuMapper implements BufferMapper {
  readonly takesMemoryAsIs = true;
  /** Bytes of buffers that went to the bounce buffer: silently wrong. */
  bytesLost = 0;
  readonly #inner: DmaMapper;
  readonly #bounce: GlobalBounce;

  constructor(space: DmaSpace, bounce: GlobalBounce) {
    this.#inner = createSpaceMapper(space);
    this.#bounce = bounce;
  }

  map(
    hi: number,
    lo: number,
    length: number,
    isDeviceWritable: boolean,
    out: Translation,
  ): boolean {
    if (this.#inner.map(hi, lo, length, isDeviceWritable, out)) return true;
    if (this.#bounce.isInUse) return false;
    this.#bounce.isInUse = true;
    out.gpa = BOUNCED;
    out.length = Math.min(length, TARGET_PAGE_SIZE - (lo % TARGET_PAGE_SIZE));
    this.bytesLost += out.length;
    return true;
  }

  unmap(gpa: number): void {
    if (gpa === BOUNCED) this.#bounce.isInUse = false;
  }
}
