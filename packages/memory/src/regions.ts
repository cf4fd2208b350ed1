import type { Gpa } from '@pinhole/base';
import type { GuestMemory } from './types.js';

/** How many bytes of memory there are from `gpa` to the next hole; 0 where there is none. */
export function bytesToHole(memory: Pick<GuestMemory, 'regions'>, gpa: Gpa): number {
  let end = gpa;
  // Regions ascend; neighbours form one run.
  for (const { base, size } of memory.regions) {
    if (end >= base && end < base + size) end = base + size;
  }
  return end - gpa;
}
