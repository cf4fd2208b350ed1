import { type Gpa, type HiLo, hiOf, loOf } from '@pinhole/base';
import type { DmaOps, GuestMemory } from '@pinhole/memory';
import type { GuestPages } from './guest-pages.js';

/**
 * What virtio does without the DMA API: the address on the wire is the physical address, whatever
 * the bus thinks. [linux v6.1 drivers/virtio/virtio_ring.c vring_map_one_sg, vring_alloc_queue]
 */
export function createPhysicalDmaOps(options: {
  readonly memory: GuestMemory;
  readonly pages: GuestPages;
}): DmaOps {
  const { memory, pages } = options;
  function physical(gpa: Gpa, out: HiLo): void {
    out.hi = hiOf(gpa);
    out.lo = loOf(gpa);
  }
  return {
    name: 'none (physical)',
    maxMappingSize: Number.POSITIVE_INFINITY,
    map(gpa, _length, _direction, out) {
      physical(gpa, out);
      return true;
    },
    unmap() {
      // Nothing was mapped.
    },
    allocCoherent(length, out) {
      const bytes = Math.ceil(length / pages.pageSize) * pages.pageSize;
      const gpa = pages.allocPages(bytes);
      if (gpa === undefined) return undefined;
      memory.fill(gpa, bytes, 0);
      physical(gpa, out);
      return gpa;
    },
    freeCoherent(gpa, _hi, _lo, length) {
      pages.freePages(gpa, length);
    },
  };
}
