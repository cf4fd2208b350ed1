/** The RTAS calls for DMA windows. [qemu v7.2 hw/ppc/spapr_rtas_ddw.c, hw/ppc/spapr_vio.c] */
import { hex, type Tracer } from '@pinhole/base';
import { SPAPR_PCI_DMA_MAX_WINDOWS, type SpaprIommu, type SpaprPhb } from '@pinhole/tce';
import {
  RTAS_DDW_PAGE_SIZES,
  RTAS_OUT_HW_ERROR,
  RTAS_OUT_PARAM_ERROR,
  RTAS_OUT_SUCCESS,
} from './params.js';
import type { RtasReturns } from './types.js';

/** What a call works on. */
export interface RtasContext {
  readonly iommu: SpaprIommu;
  readonly tracer: Tracer;
}

/** One call: the counts as the guest gave them, arguments read when needed. */
export interface RtasArguments {
  readonly nargs: number;
  readonly nret: number;
  /** Argument cell `index`, an unsigned 32-bit value. */
  arg(index: number): number;
}

const PARAM_ERROR: RtasReturns = [RTAS_OUT_PARAM_ERROR];
const HW_ERROR: RtasReturns = [RTAS_OUT_HW_ERROR];

/** What QEMU tells in 5-output queries and prints in its trace: 2^31 entries. */
const MAX_WINDOW_TCES = 0x8000_0000;

/** query(config_addr, BUID hi, BUID lo): windows left, largest block, page sizes. */
export function rtasQueryPeDmaWindow(context: RtasContext, call: RtasArguments): RtasReturns {
  if (call.nargs !== 3 || (call.nret !== 5 && call.nret !== 6)) return PARAM_ERROR;
  const phb = findDdwPhb(context, call);
  if (phb === undefined) return PARAM_ERROR;
  const available = SPAPR_PCI_DMA_MAX_WINDOWS - phb.activeWindows;
  let pageMask = 0;
  for (const { bit, shift } of RTAS_DDW_PAGE_SIZES) {
    if ((phb.pageSizeMask >> BigInt(shift)) & 1n) pageMask |= bit;
  }
  if (context.tracer.on) {
    context.tracer.event('hypervisor', 'spapr_iommu_ddw_query', {
      buid: phb.buid,
      addr: call.arg(0),
      wa: available,
      win_size: BigInt(MAX_WINDOW_TCES),
      pgmask: pageMask,
    });
  }
  // The last cell is the migration mask: not supported.
  if (call.nret === 6) return [RTAS_OUT_SUCCESS, available, 0x20, 0, pageMask, 0];
  return [RTAS_OUT_SUCCESS, available, MAX_WINDOW_TCES, pageMask, 0];
}

/** create(config_addr, BUID hi, BUID lo, page shift, window shift): LIOBN and bus address. */
export function rtasCreatePeDmaWindow(context: RtasContext, call: RtasArguments): RtasReturns {
  if (call.nargs !== 5 || call.nret !== 4) return PARAM_ERROR;
  const phb = findDdwPhb(context, call);
  if (phb === undefined) return PARAM_ERROR;
  const pageShift = call.arg(3);
  const windowShift = call.arg(4);
  // A shift beyond 63 names no page size.
  if (pageShift > 63 || ((phb.pageSizeMask >> BigInt(pageShift)) & 1n) === 0n) return PARAM_ERROR;
  if (windowShift < pageShift) return PARAM_ERROR;
  const liobn = phb.freeLiobn;
  if (liobn === undefined) return HW_ERROR;
  const table = context.iommu.findTable(BigInt(liobn));
  // The number of entries is 32 bits wide in QEMU, a size 64; a window too large does not open here.
  const tableShift = windowShift - pageShift;
  if (table === undefined || tableShift > 31 || windowShift > 63) return HW_ERROR;
  const busOffset = phb.nextWindowAddress;
  table.enable({ pageShift, busOffset, nbTable: 2 ** tableShift });
  if (context.tracer.on) {
    context.tracer.event('hypervisor', 'spapr_iommu_new_table', {
      liobn: BigInt(liobn),
      table: hex(liobn),
      fd: -1,
    });
    context.tracer.event('hypervisor', 'spapr_iommu_ddw_create', {
      buid: phb.buid,
      addr: call.arg(0),
      pg_size: 1n << BigInt(pageShift),
      req_size: BigInt.asUintN(64, 1n << BigInt(windowShift)),
      start: busOffset,
      liobn,
    });
  }
  return [RTAS_OUT_SUCCESS, liobn, Number(busOffset >> 32n), Number(busOffset & 0xffff_ffffn)];
}

/**
 * remove(liobn): closes a window. When the last one goes and it was not (ever) the default
 * window, the default window comes back.
 */
export function rtasRemovePeDmaWindow(context: RtasContext, call: RtasArguments): RtasReturns {
  if (call.nargs !== 1 || call.nret !== 1) return PARAM_ERROR;
  const liobn = call.arg(0);
  const table = context.iommu.findTable(BigInt(liobn));
  const phb = table === undefined ? undefined : context.iommu.phbOf(table);
  if (table === undefined || phb === undefined || !phb.hasDdw || !table.isEnabled) {
    return PARAM_ERROR;
  }
  const wasDefault = table.isDefaultWindow;
  table.disable();
  if (context.tracer.on) {
    context.tracer.event('hypervisor', 'spapr_iommu_ddw_remove', { liobn });
  }
  if (phb.activeWindows === 0 && !wasDefault) resetPhb(context, phb, 0);
  return [RTAS_OUT_SUCCESS];
}

/**
 * reset(config_addr, BUID hi, BUID lo): only the default window, empty. Where the bridge has the
 * limited-address mode, a fourth argument of 1 enters it, and without one it is left.
 * [linux v6.15 arch/powerpc/platforms/pseries/iommu.c limited_dma_window]
 */
export function rtasResetPeDmaWindow(context: RtasContext, call: RtasArguments): RtasReturns {
  if (call.nret !== 1 || (call.nargs !== 3 && call.nargs !== 4)) return PARAM_ERROR;
  const phb = findDdwPhb(context, call);
  if (phb === undefined) return PARAM_ERROR;
  if (call.nargs === 4 && !phb.hasLimitedAddressMode) return PARAM_ERROR;
  // UNVERIFIED: that 0 asks for the usual mode and anything else is refused.
  const mode = call.nargs === 4 ? call.arg(3) : 0;
  if (mode > 1) return PARAM_ERROR;
  resetPhb(context, phb, call.arg(0));
  phb.isLimited = mode === 1;
  return [RTAS_OUT_SUCCESS];
}

/**
 * set-tce-bypass(unit, enable) of a VIO device with a window. nret is not looked at.
 * [qemu v7.2 hw/ppc/spapr_vio.c rtas_set_tce_bypass]
 */
export function rtasSetTceBypass(context: RtasContext, call: RtasArguments): RtasReturns {
  if (call.nargs !== 2) return PARAM_ERROR;
  const device = context.iommu.findVio(call.arg(0));
  if (device?.table === undefined) return PARAM_ERROR;
  device.setBypass(call.arg(1) !== 0);
  return [RTAS_OUT_SUCCESS];
}

function findDdwPhb(context: RtasContext, call: RtasArguments): SpaprPhb | undefined {
  const phb = context.iommu.findPhb((BigInt(call.arg(1)) << 32n) | BigInt(call.arg(2)));
  return phb?.hasDdw === true ? phb : undefined;
}

function resetPhb(context: RtasContext, phb: SpaprPhb, configAddr: number): void {
  phb.reset();
  if (context.tracer.on) {
    context.tracer.event('hypervisor', 'spapr_iommu_ddw_reset', {
      buid: phb.buid,
      addr: configAddr,
    });
  }
}
