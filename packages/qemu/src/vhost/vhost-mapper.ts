import { joinU64 } from '@pinhole/base';
import { DmaAccess, type DmaSpace, DmaStatus, type Translation } from '@pinhole/memory';
import type { BufferMapper } from '../qemu-mapper.js';
import { VhostStall } from './vhost-stall.js';

/**
 * Maps guest buffers as vhost does: each translation is a piece of its own, and there is no bounce
 * buffer. [linux v6.1.176 drivers/vhost/vhost.c translate_desc]
 */
export class VhostMapper implements BufferMapper {
  readonly takesMemoryAsIs = true;
  readonly bytesLost = 0;
  readonly #space: DmaSpace;

  constructor(space: DmaSpace) {
    this.#space = space;
  }

  /** @throws VhostStall when nothing is there. */
  map(
    hi: number,
    lo: number,
    length: number,
    isDeviceWritable: boolean,
    out: Translation,
  ): boolean {
    const access = isDeviceWritable ? DmaAccess.WRITE : DmaAccess.READ;
    if (this.#space.translate(hi, lo, length, access, out) === DmaStatus.OK) return true;
    throw new VhostStall(joinU64(hi, lo), access, 'no memory');
  }
}
