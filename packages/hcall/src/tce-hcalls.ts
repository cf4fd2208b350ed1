/** The four TCE hypercalls as QEMU's user-space handlers do them. [qemu v7.2 hw/ppc/spapr_iommu.c] */
import { hi32, joinU64, lo32, type Tracer } from '@pinhole/base';
import type { GuestMemory } from '@pinhole/memory';
import { isPciLiobn, type SpaprIommu, type TceTable } from '@pinhole/tce';
import { H_PARAMETER, H_SUCCESS, TCE_LIST_ALIGN, TCE_LIST_MAX } from './params.js';
import { createTceList, type TceList } from './tce-list.js';
import type { HcallResult } from './types.js';

/** What the handlers work on. */
export interface TceHcallContext {
  readonly iommu: SpaprIommu;
  /** Guest memory as the hypervisor sees it. */
  readonly memory: GuestMemory;
  readonly tracer: Tracer;
  /** See `SpaprHypercallsOptions`. */
  readonly kvmTceVfio: boolean;
  /** Where lists of TCEs are read to. */
  readonly list: TceList;
}

/** Makes what the handlers work on. */
export function createTceHcallContext(options: Omit<TceHcallContext, 'list'>): TceHcallContext {
  return { ...options, list: createTceList(options.memory) };
}

const NOTHING: readonly bigint[] = [];
export const SUCCESS: HcallResult = { ret: H_SUCCESS, out: NOTHING };
export const PARAMETER: HcallResult = { ret: H_PARAMETER, out: NOTHING };

/** H_PUT_TCE(liobn, ioba, tce): installs one entry. [qemu v7.2 hw/ppc/spapr_iommu.c h_put_tce] */
export function hPutTce(context: TceHcallContext, args: readonly bigint[]): HcallResult {
  const ioba = args[1] ?? 0n;
  const tce = args[2] ?? 0n;
  const table = findTable(context, args);
  let result = PARAMETER;
  if (table !== undefined) {
    const index = table.indexOfPage(hi32(ioba), lo32(ioba));
    if (index >= 0) {
      table.putHalves(index, hi32(tce), lo32(tce));
      result = SUCCESS;
    }
  }
  if (context.tracer.on) {
    const [liobn, name] = traced(args, 'put');
    context.tracer.event('hypervisor', name, {
      liobn,
      ioba: pageAligned(table, ioba),
      tce: u64(tce),
      ret: BigInt(result.ret),
    });
  }
  return result;
}

/** H_GET_TCE(liobn, ioba): r4 = the entry. [qemu v7.2 hw/ppc/spapr_iommu.c h_get_tce] */
export function hGetTce(context: TceHcallContext, args: readonly bigint[]): HcallResult {
  const ioba = args[1] ?? 0n;
  const table = findTable(context, args);
  let tce = 0n;
  let result = PARAMETER;
  if (table !== undefined) {
    const index = table.indexOfPage(hi32(ioba), lo32(ioba));
    if (index >= 0) {
      tce = table.get(index);
      result = { ret: H_SUCCESS, out: [tce] };
    }
  }
  if (context.tracer.on) {
    const [liobn, name] = traced(args, 'get');
    context.tracer.event('hypervisor', name, {
      liobn,
      ioba: pageAligned(table, ioba),
      ret: BigInt(result.ret),
      tce,
    });
  }
  return result;
}

/**
 * H_PUT_TCE_INDIRECT(liobn, ioba, list, npages): installs up to 512 entries from a list of
 * big-endian doublewords. Stops at the first entry outside the window; those before it stay.
 * With npages 0 nothing is done and the answer is H_PARAMETER.
 * [qemu v7.2 hw/ppc/spapr_iommu.c h_put_tce_indirect]
 */
export function hPutTceIndirect(context: TceHcallContext, args: readonly bigint[]): HcallResult {
  const [ioba, address, npages] = [args[1] ?? 0n, args[2] ?? 0n, args[3] ?? 0n];
  const table = findTable(context, args);
  if (table === undefined) return PARAMETER;
  if (u64(npages) > BigInt(TCE_LIST_MAX) || lo32(address) % TCE_LIST_ALIGN !== 0) return PARAMETER;

  const count = lo32(npages);
  const { list } = context;
  // The first entry outside is still read: QEMU's trace prints it.
  const { first, stored } = run(table, ioba, count);
  list.read(hi32(address), lo32(address), Math.min(count, stored + 1));
  for (let i = 0; i < stored; i += 1) table.putHalves(first + i, list.hi(i), list.lo(i));
  const result = stored === count && count > 0 ? SUCCESS : PARAMETER;
  if (context.tracer.on) {
    const [liobn, name] = traced(args, 'indirect');
    const last = Math.min(stored, count - 1);
    const tceN = count === 0 ? 0n : joinU64(list.hi(last), list.lo(last));
    // The index is that of the last good entry, the value that of the last one looked at.
    const iobaN = BigInt(Math.max(stored - 1, 0));
    const ret = BigInt(result.ret);
    const event = { liobn, ioba: u64(ioba), tcelist: u64(address), iobaN, tceN, ret };
    context.tracer.event('hypervisor', name, event);
  }
  return result;
}

/**
 * H_STUFF_TCE(liobn, ioba, tce, npages): the same entry npages times. The only limit is the size
 * of the window. Stops at its end; entries before it stay. npages 0: H_PARAMETER.
 * [qemu v7.2 hw/ppc/spapr_iommu.c h_stuff_tce]
 */
export function hStuffTce(context: TceHcallContext, args: readonly bigint[]): HcallResult {
  const [ioba, tce, npages] = [args[1] ?? 0n, args[2] ?? 0n, args[3] ?? 0n];
  const table = findTable(context, args);
  if (table === undefined) return PARAMETER;
  if (u64(npages) > BigInt(table.nbTable)) return PARAMETER;

  const count = lo32(npages);
  const { first, stored } = run(table, ioba, count);
  if (stored > 0) table.fill(first, stored, tce);
  const result = stored === count && count > 0 ? SUCCESS : PARAMETER;
  if (context.tracer.on) {
    const [liobn, name] = traced(args, 'stuff');
    // QEMU prints the address at which its loop stopped, not the one that it was given.
    const walked = BigInt(stored) << BigInt(table.pageShift);
    context.tracer.event('hypervisor', name, {
      liobn,
      ioba: u64(pageAligned(table, ioba) + walked),
      tcevalue: u64(tce),
      npages: u64(npages),
      ret: BigInt(result.ret),
    });
  }
  return result;
}

/** The table that the first argument names. */
export function findTable(context: TceHcallContext, args: readonly bigint[]): TceTable | undefined {
  const liobn = args[0] ?? 0n;
  return hi32(liobn) === 0 ? context.iommu.tableAt(lo32(liobn)) : undefined;
}

// Where entries for `count` pages from an address on begin, and how many of them lie in the table.
function run(table: TceTable, ioba: bigint, count: number): { first: number; stored: number } {
  const first = table.indexOfPage(hi32(ioba), lo32(ioba));
  return { first, stored: first < 0 ? 0 : Math.min(count, table.nbTable - first) };
}

function traced(args: readonly bigint[], call: string): [liobn: bigint, event: string] {
  const liobn = u64(args[0] ?? 0n);
  return [liobn, `spapr_iommu_${isPciLiobn(lo32(liobn)) ? 'pci_' : ''}${call}`];
}

function u64(value: bigint): bigint {
  return BigInt.asUintN(64, value);
}

function pageAligned(table: TceTable | undefined, ioba: bigint): bigint {
  const shift = BigInt(table?.pageShift ?? 0);
  return (u64(ioba) >> shift) << shift;
}
