/** What a hypercall leaves in the registers. */
export interface HcallResult {
  /** r3, signed: `H_SUCCESS` or a negative code. */
  readonly ret: number;
  /** r4 onwards, where the call defines outputs. */
  readonly out: readonly bigint[];
}

/**
 * The hypervisor's side of `sc 1`: the model's here, a live machine's elsewhere.
 * Arguments are 64-bit registers, r4 onwards; missing ones read as 0.
 */
export interface Hypercalls {
  call(opcode: number, args: readonly bigint[]): HcallResult;
}

/** The cells that an RTAS call wrote, from rets[0] (status) on; the others keep what they held. */
export type RtasReturns = readonly number[];

/**
 * The firmware services of a pseries machine, without the argument buffer in guest memory: the
 * model's here, a live machine's elsewhere.
 */
export interface Rtas {
  /**
   * One call. Arguments and answers are unsigned 32-bit cells, but for the status `rets[0]`, which
   * is signed.
   * @param token - as the device tree's /rtas node names it; `RTAS_TOKENS` are QEMU's.
   * @param nret - how many cells the caller has room for, the status among them.
   */
  rtas(token: number, args: readonly number[], nret: number): RtasReturns;
}

/** The ultravisor's side of `sc 2`. */
export interface Ultracalls {
  call(opcode: number, args: readonly bigint[]): HcallResult;
}
