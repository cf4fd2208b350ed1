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

/** The ultravisor's side of `sc 2`. */
export interface Ultracalls {
  call(opcode: number, args: readonly bigint[]): HcallResult;
}
