/** Numbers of the hypervisor interface. */

/** Hypercall opcodes. [qemu v7.2 include/hw/ppc/spapr.h] */
export const H_GET_TCE = 0x1c;
/** Sets one entry. */
export const H_PUT_TCE = 0x20;
/** Sets many entries to one value. */
export const H_STUFF_TCE = 0x138;
/** Sets entries to the values of a list in memory. */
export const H_PUT_TCE_INDIRECT = 0x13c;
/** QEMU's private hypercall behind its RTAS. [qemu v7.2 include/hw/ppc/spapr.h KVMPPC_H_RTAS] */
export const KVMPPC_H_RTAS = 0xf000;

/** Names of the opcodes, for traces and reports. */
export const HCALL_NAMES: ReadonlyMap<number, string> = new Map([
  [H_GET_TCE, 'H_GET_TCE'],
  [H_PUT_TCE, 'H_PUT_TCE'],
  [H_STUFF_TCE, 'H_STUFF_TCE'],
  [H_PUT_TCE_INDIRECT, 'H_PUT_TCE_INDIRECT'],
  [KVMPPC_H_RTAS, 'KVMPPC_H_RTAS'],
]);

/** Hypercall return codes, signed. [qemu v7.2 include/hw/ppc/spapr.h] */
export const H_SUCCESS = 0;
/** There is no such hypercall. */
export const H_FUNCTION = -2;
/** An argument is wrong. */
export const H_PARAMETER = -4;
/** Nothing is left to do it with. */
export const H_NOT_ENOUGH_RESOURCES = -44;

/** The most entries that one H_PUT_TCE_INDIRECT takes: one 4 KiB page of them. */
export const TCE_LIST_MAX = 512;
/** The list must start on a page of this size, whatever the window's pages. */
export const TCE_LIST_ALIGN = 4096;

/** RTAS status codes, signed. [qemu v7.2 include/hw/ppc/spapr.h] */
export const RTAS_OUT_SUCCESS = 0;
/** It failed. */
export const RTAS_OUT_HW_ERROR = -1;
/** An argument is wrong. */
export const RTAS_OUT_PARAM_ERROR = -3;

/** RTAS calls for DMA windows and their tokens. [qemu v7.2 include/hw/ppc/spapr.h] */
export const RTAS_TOKENS = {
  'ibm,set-tce-bypass': 0x2010,
  'ibm,query-pe-dma-window': 0x2026,
  'ibm,create-pe-dma-window': 0x2027,
  'ibm,remove-pe-dma-window': 0x2028,
  'ibm,reset-pe-dma-window': 0x2029,
} as const;
/** The name of one of them. */
export type RtasCallName = keyof typeof RTAS_TOKENS;

/**
 * Page sizes as RTAS reports them: bit of the answer, page shift.
 * [qemu v7.2 hw/ppc/spapr_rtas_ddw.c spapr_page_mask_to_query_mask]
 */
export const RTAS_DDW_PAGE_SIZES: readonly { readonly bit: number; readonly shift: number }[] = [
  { bit: 0x001, shift: 12 },
  { bit: 0x002, shift: 16 },
  { bit: 0x004, shift: 24 },
  { bit: 0x008, shift: 25 },
  { bit: 0x010, shift: 26 },
  { bit: 0x020, shift: 27 },
  { bit: 0x040, shift: 28 },
  { bit: 0x080, shift: 34 },
  { bit: 0x100, shift: 21 },
];

/** Ultracall opcodes. [linux v6.1 arch/powerpc/include/asm/ultravisor-api.h] */
export const UV_SHARE_PAGE = 0xf130;
/** Pages become private again. */
export const UV_UNSHARE_PAGE = 0xf134;
/** All pages become private again. */
export const UV_UNSHARE_ALL_PAGES = 0xf140;

/** Names of the ultracalls that there are, for traces and reports. */
export const ULTRACALL_NAMES: ReadonlyMap<number, string> = new Map([
  [UV_SHARE_PAGE, 'UV_SHARE_PAGE'],
  [UV_UNSHARE_PAGE, 'UV_UNSHARE_PAGE'],
  [UV_UNSHARE_ALL_PAGES, 'UV_UNSHARE_ALL_PAGES'],
]);

/** Ultracall return codes; the numbers are the hypercalls'. [linux v6.1 arch/powerpc/include/asm/ultravisor-api.h] */
export const U_SUCCESS = 0;
/** There is no such ultracall. */
export const U_FUNCTION = -2;
/** An argument is wrong. */
export const U_PARAMETER = -4;
/** The second argument is wrong. */
export const U_P2 = -55;
