/** What the guest's kernel does: the DMA operations of a device on that bus. */
import type { GuestPages } from '@pinhole/guest';
import type { DmaOps, GuestMemory } from '@pinhole/memory';
import { type Banks, toBus } from './banked-bus.js';

export function createBankedDmaOps(memory: GuestMemory, pages: GuestPages, banks: Banks): DmaOps {
  return {
    name: 'dma-banked',
    maxMappingSize: banks.size,
    map(gpa, length, _direction, out) {
      // Two banks that are neighbours in memory are none on the bus: DMA_MAPPING_ERROR.
      if ((gpa % banks.size) + length > banks.size) return false;
      toBus(banks, gpa, out);
      return true;
    },
    unmap() {
      // Memory is always on the bus.
    },
    allocCoherent(length, out) {
      const gpa = pages.allocPages(length);
      if (gpa === undefined) return undefined;
      memory.fill(gpa, length, 0);
      toBus(banks, gpa, out);
      return gpa;
    },
    freeCoherent: (gpa, _hi, _lo, length) => pages.freePages(gpa, length),
  };
}
