import type { GuestMemory } from '@pinhole/memory';
import { BOUNCED, type VirtqueueElement } from '@pinhole/virtio';

/**
 * The bytes of an element as one run of readable and one of writable bytes, wherever its segments
 * lie: "the device MUST NOT make assumptions about the particular arrangement of descriptors".
 * What went to the bounce buffer reads as zeros, and writes to it are lost.
 * [VIRTIO v1.2 §2.6.4.1 "Device Requirements: Message Framing"] [qemu v7.2 util/iov.c]
 */
export class ElementBytes {
  readonly #memory: GuestMemory;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  /**
   * Copies the readable bytes from `offset` on into `into`; how many there were.
   * [qemu v7.2 util/iov.c iov_to_buf_full]
   */
  readOut(element: VirtqueueElement, offset: number, into: Uint8Array): number {
    let skip = offset;
    let done = 0;
    for (let i = 0; i < element.outNum && done < into.length; i += 1) {
      const length = element.length[i] as number;
      if (skip >= length) {
        skip -= length;
        continue;
      }
      const bytes = Math.min(length - skip, into.length - done);
      const gpa = element.gpa[i] as number;
      const part = into.subarray(done, done + bytes);
      if (gpa === BOUNCED) part.fill(0);
      else this.#memory.read(gpa + skip, part);
      skip = 0;
      done += bytes;
    }
    return done;
  }

  /**
   * Copies `from` to the writable bytes from `offset` on; how many had room.
   * [qemu v7.2 util/iov.c iov_from_buf_full]
   */
  writeIn(element: VirtqueueElement, offset: number, from: Uint8Array): number {
    let skip = offset;
    let done = 0;
    const end = element.outNum + element.inNum;
    for (let i = element.outNum; i < end && done < from.length; i += 1) {
      const length = element.length[i] as number;
      if (skip >= length) {
        skip -= length;
        continue;
      }
      const bytes = Math.min(length - skip, from.length - done);
      const gpa = element.gpa[i] as number;
      if (gpa !== BOUNCED) this.#memory.write(gpa + skip, from.subarray(done, done + bytes));
      skip = 0;
      done += bytes;
    }
    return done;
  }
}
