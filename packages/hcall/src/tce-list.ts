import { isSafeHi, joinNumber } from '@pinhole/base';
import type { GuestMemory } from '@pinhole/memory';
import { TCE_LIST_MAX } from './params.js';

/** The list of an H_PUT_TCE_INDIRECT: big-endian doublewords in guest memory. */
export interface TceList {
  /**
   * Reads `count` entries, at most 512. What is no memory reads as zeros: QEMU does not look at the
   * result of its loads. [qemu v7.2 hw/ppc/spapr_iommu.c h_put_tce_indirect]
   */
  read(hi: number, lo: number, count: number): void;
  /** Upper half of entry `index`. */
  hi(index: number): number;
  /** Lower half of entry `index`. */
  lo(index: number): number;
}

/** Makes one buffer to read lists into. */
export function createTceList(memory: GuestMemory): TceList {
  const bytes = new Uint8Array(TCE_LIST_MAX * 8);
  const view = new DataView(bytes.buffer);
  return {
    read(hi, lo, count) {
      const wanted = bytes.subarray(0, count * 8);
      const gpa = isSafeHi(hi) ? joinNumber(hi, lo) : -1;
      if (memory.isBacked(gpa, wanted.length)) {
        memory.read(gpa, wanted);
        return;
      }
      wanted.fill(0);
      for (let i = 0; i < count; i += 1) {
        const at = gpa + i * 8;
        if (gpa >= 0 && memory.isBacked(at, 8)) memory.read(at, bytes.subarray(i * 8, i * 8 + 8));
      }
    },
    hi: (index) => view.getUint32(index * 8),
    lo: (index) => view.getUint32(index * 8 + 4),
  };
}
