/** The four TCE hypercalls as QEMU's user-space handlers do them. [qemu v7.2 hw/ppc/spapr_iommu.c] */
import { hi32, isSafeHi, joinNumber, lo32, type Tracer } from '@pinhole/base';
import type { GuestMemory } from '@pinhole/memory';
import { isPciLiobn, type SpaprIommu, type TceTable } from '@pinhole/tce';
import { H_PARAMETER, H_SUCCESS, TCE_LIST_ALIGN, TCE_LIST_MAX } from './params.js';
import type { HcallResult } from './types.js';

/** What the handlers work on. */
export interface TceHcallContext {
  readonly iommu: SpaprIommu;
  /** Guest memory as the hypervisor sees it. */
  readonly memory: GuestMemory;
  readonly tracer: Tracer;
}

const NOTHING: readonly bigint[] = [];
const SUCCESS: HcallResult = { ret: H_SUCCESS, out: NOTHING };
const PARAMETER: HcallResult = { ret: H_PARAMETER, out: NOTHING };

/** H_PUT_TCE(liobn, ioba, tce): installs one entry. [qemu v7.2 hw/ppc/spapr_iommu.c h_put_tce] */
export function hPutTce(context: TceHcallContext, args: readonly bigint[]): HcallResult {
  const [liobn, rawIoba, tce] = [arg(args, 0), arg(args, 1), arg(args, 2)];
  const table = context.iommu.findTable(liobn);
  let ioba = rawIoba;
  let result = PARAMETER;
  if (table !== undefined) {
    ioba = pageAligned(table, rawIoba);
    const index = table.indexOf(ioba);
    if (index >= 0) {
      table.put(index, tce);
      result = SUCCESS;
    }
  }
  if (context.tracer.on) {
    const event = isPci(liobn) ? 'spapr_iommu_pci_put' : 'spapr_iommu_put';
    context.tracer.event('hypervisor', event, { liobn, ioba, tce, ret: BigInt(result.ret) });
  }
  return result;
}

/** H_GET_TCE(liobn, ioba): r4 = the entry. [qemu v7.2 hw/ppc/spapr_iommu.c h_get_tce] */
export function hGetTce(context: TceHcallContext, args: readonly bigint[]): HcallResult {
  const [liobn, rawIoba] = [arg(args, 0), arg(args, 1)];
  const table = context.iommu.findTable(liobn);
  let ioba = rawIoba;
  let tce = 0n;
  let result = PARAMETER;
  if (table !== undefined) {
    ioba = pageAligned(table, rawIoba);
    const index = table.indexOf(ioba);
    if (index >= 0) {
      tce = table.get(index);
      result = { ret: H_SUCCESS, out: [tce] };
    }
  }
  if (context.tracer.on) {
    const event = isPci(liobn) ? 'spapr_iommu_pci_get' : 'spapr_iommu_get';
    context.tracer.event('hypervisor', event, { liobn, ioba, ret: BigInt(result.ret), tce });
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
  const [liobn, ioba, list, npages] = [arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)];
  const table = context.iommu.findTable(liobn);
  if (table === undefined) return PARAMETER;
  if (npages > BigInt(TCE_LIST_MAX) || list % BigInt(TCE_LIST_ALIGN) !== 0n) return PARAMETER;

  const count = Number(npages);
  let at = pageAligned(table, ioba);
  let tce = 0n;
  let result = PARAMETER;
  let i = 0;
  for (; i < count; i += 1) {
    tce = readListEntry(context.memory, list + BigInt(i * 8));
    const index = table.indexOf(at);
    if (index < 0) {
      result = PARAMETER;
      break;
    }
    table.put(index, tce);
    result = SUCCESS;
    at = BigInt.asUintN(64, at + (1n << BigInt(table.pageShift)));
  }
  if (context.tracer.on) {
    const event = isPci(liobn) ? 'spapr_iommu_pci_indirect' : 'spapr_iommu_indirect';
    context.tracer.event('hypervisor', event, {
      liobn,
      ioba,
      tcelist: list,
      iobaN: BigInt(Math.max(i - 1, 0)),
      tceN: tce,
      ret: BigInt(result.ret),
    });
  }
  return result;
}

/**
 * H_STUFF_TCE(liobn, ioba, tce, npages): the same entry npages times. The only limit is the size
 * of the window. Stops at its end; entries before it stay. npages 0: H_PARAMETER.
 * [qemu v7.2 hw/ppc/spapr_iommu.c h_stuff_tce]
 */
export function hStuffTce(context: TceHcallContext, args: readonly bigint[]): HcallResult {
  const [liobn, rawIoba, tce, npages] = [arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3)];
  const table = context.iommu.findTable(liobn);
  if (table === undefined) return PARAMETER;
  if (npages > BigInt(table.nbTable)) return PARAMETER;

  const start = pageAligned(table, rawIoba);
  const index = table.indexOf(start);
  const count = Number(npages);
  const stored = index < 0 ? 0 : Math.min(count, table.nbTable - index);
  if (stored > 0) table.fill(index, stored, tce);
  const result = stored === count && count > 0 ? SUCCESS : PARAMETER;
  if (context.tracer.on) {
    const event = isPci(liobn) ? 'spapr_iommu_pci_stuff' : 'spapr_iommu_stuff';
    // QEMU prints the address at which its loop stopped, not the one that it was given.
    const stopped = BigInt.asUintN(64, start + (BigInt(stored) << BigInt(table.pageShift)));
    context.tracer.event('hypervisor', event, {
      liobn,
      ioba: stopped,
      tcevalue: tce,
      npages,
      ret: BigInt(result.ret),
    });
  }
  return result;
}

function arg(args: readonly bigint[], index: number): bigint {
  return BigInt.asUintN(64, args[index] ?? 0n);
}

function isPci(liobn: bigint): boolean {
  return isPciLiobn(lo32(liobn));
}

function pageAligned(table: TceTable, ioba: bigint): bigint {
  return (ioba >> BigInt(table.pageShift)) << BigInt(table.pageShift);
}

// A list outside memory reads as zeros: QEMU does not look at the result of the load.
function readListEntry(memory: GuestMemory, address: bigint): bigint {
  const hi = hi32(address);
  if (!isSafeHi(hi)) return 0n;
  const gpa = joinNumber(hi, lo32(address));
  return memory.isBacked(gpa, 8) ? memory.readU64Be(gpa) : 0n;
}
