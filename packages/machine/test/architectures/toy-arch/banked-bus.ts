/** What the hardware does: the bus numbers the banks of memory backwards. */
import { hiOf, isSafeHi, joinNumber, loOf } from '@pinhole/base';
import { type DmaSpace, DmaStatus, type GuestMemory } from '@pinhole/memory';

/** Memory in banks of one size. */
export interface Banks {
  readonly count: number;
  /** Bytes of each. */
  readonly size: number;
}

/** Where a byte of memory is on the bus, and the other way round. */
export function swapBank({ count, size }: Banks, address: number): number {
  const bank = Math.floor(address / size);
  return (count - 1 - bank) * size + (address % size);
}

/** A device's view of memory: what it finds at a bus address. */
export function createBankedSpace(memory: GuestMemory, banks: Banks): DmaSpace {
  const end = banks.count * banks.size;
  return {
    name: `bus of ${banks.count} banks`,
    isIdentity: false,
    translate(hi, lo, length, _access, out) {
      const address = joinNumber(hi, lo);
      if (!isSafeHi(hi) || address >= end) return DmaStatus.NOTHING_THERE;
      out.gpa = swapBank(banks, address);
      out.length = Math.min(length, banks.size - (address % banks.size));
      return memory.isBacked(out.gpa, out.length) ? DmaStatus.OK : DmaStatus.NOT_MEMORY;
    },
    covers: (hi, lo, length) => isSafeHi(hi) && joinNumber(hi, lo) + length <= end,
  };
}

/** The halves of the bus address of a byte of memory. */
export function toBus(banks: Banks, gpa: number, out: { hi: number; lo: number }): void {
  const address = swapBank(banks, gpa);
  out.hi = hiOf(address);
  out.lo = loOf(address);
}
