import { isSafeHi, joinNumber, joinU64, type Tracer } from '@pinhole/base';
import {
  bytesToHole,
  type DmaAccess,
  DmaStatus,
  type GuestMemory,
  type Translation,
} from '@pinhole/memory';
import type { TceLookup, TceTable } from './tce-table.js';

/**
 * The second half of a translation: from the entry that a lookup found to memory.
 * [qemu v7.2 softmmu/physmem.c address_space_translate_iommu]
 */
export function entryToMemory(
  table: TceTable,
  found: TceLookup,
  memory: GuestMemory,
  length: number,
  access: DmaAccess,
  out: Translation,
): DmaStatus {
  // TCE bit 0 lets a device read, bit 1 write: the values of DmaAccess.
  if ((found.perm & access) === 0) return DmaStatus.NO_PERMISSION;
  if (!isSafeHi(found.hi)) return DmaStatus.NOT_MEMORY;
  const gpa = joinNumber(found.hi, found.lo);
  const { pageShift, pageSize } = table;
  // Up to 2^31 a mask will do; what lies beyond a page of that size and more is a division.
  const offset = pageShift < 32 ? found.lo & (pageSize - 1) : gpa % pageSize;
  const inPage = Math.min(length, pageSize - offset);
  if (memory.isBacked(gpa, inPage)) {
    out.gpa = gpa;
    out.length = inPage;
    return DmaStatus.OK;
  }
  // Memory can begin or end inside of a large page.
  const inMemory = bytesToHole(memory, gpa);
  if (inMemory === 0) return DmaStatus.NOT_MEMORY;
  out.gpa = gpa;
  out.length = inMemory;
  return DmaStatus.OK;
}

/** Reports what a lookup at the relative address `hi`:`lo` found, as QEMU does. */
export function traceTranslation(
  tracer: Tracer,
  table: TceTable,
  hi: number,
  lo: number,
  found: TceLookup,
): void {
  const pageMask = (1n << BigInt(table.pageShift)) - 1n;
  tracer.event('hypervisor', 'spapr_iommu_xlate', {
    liobn: BigInt(table.liobn),
    ioba: joinU64(hi, lo),
    tce: joinU64(found.hi, found.lo) & ~pageMask,
    perm: found.perm,
    pgsize: Number(pageMask & 0xffff_ffffn),
  });
}
