/**
 * As much of a PowerPC assembler as the mailbox firmware needs: one function an instruction, named
 * by its mnemonic, operands in the order of assembly language.
 * [Power ISA v3.0B Book I and Book III, "Instruction Set"; forms as in §1.6 "Instruction Formats"]
 */

/** A general purpose register: 0 to 31. */
type Register = number;

/** One line of a program: an instruction word, a branch to a label, or a label. */
export type Line = number | Branch | { readonly label: string };

/** A branch whose displacement is known once all lines are placed. */
interface Branch {
  readonly target: string;
  readonly encode: (displacement: number) => number;
}

/** Primary opcode and the three fields that follow it: bits 0:5, 6:10, 11:15, and the low half. */
const word = (opcode: number, a: number, b: number, low: number): number =>
  ((opcode << 26) | (a << 21) | (b << 16) | (low & 0xffff)) >>> 0;

/** X-form with primary opcode 31: the extended opcode is in bits 21:30. */
const x = (a: number, b: number, c: number, extended: number): number =>
  word(31, a, b, (c << 11) | (extended << 1));

/** rt = (ra or, for r0, zero) + si, a signed 16-bit number. */
export const addi = (rt: Register, ra: Register, si: number): number => word(14, rt, ra, si);
/** rt = si, a signed 16-bit number. */
export const li = (rt: Register, si: number): number => addi(rt, 0, si);
/** ra = rs | rb. */
export const or = (ra: Register, rs: Register, rb: Register): number => x(rs, ra, rb, 444);
/** rt = the big-endian doubleword at ra + ds, ds a signed multiple of 4. */
export const ld = (rt: Register, ds: number, ra: Register): number => word(58, rt, ra, ds);
/** Stores rs as a big-endian doubleword at ra + ds, ds a signed multiple of 4. */
export const std = (rs: Register, ds: number, ra: Register): number => word(62, rs, ra, ds);
/** rt = the doubleword at ra + rb, bytes reversed: little-endian on a big-endian machine. */
export const ldbrx = (rt: Register, ra: Register, rb: Register): number => x(rt, ra, rb, 532);
/** Stores rs as a doubleword at ra + rb, bytes reversed. */
export const stdbrx = (rs: Register, ra: Register, rb: Register): number => x(rs, ra, rb, 660);
/** ra = rs << n: `rldicr ra, rs, n, 63 - n`, MD-form, whose 6-bit fields are split. */
export const sldi = (ra: Register, rs: Register, n: number): number => {
  const end = 63 - n;
  const me = ((end & 31) << 1) | (end >> 5);
  return word(30, rs, ra, ((n & 31) << 11) | (me << 5) | (1 << 2) | ((n >> 5) << 1));
};
/** Compares ra with si, both as signed doublewords, into condition register field 0. */
export const cmpdi = (ra: Register, si: number): number => word(11, 1, ra, si);
/** rt = the machine state register. */
export const mfmsr = (rt: Register): number => x(rt, 0, 0, 83);
/** The machine state register = rs, all 64 bits of it. */
export const mtmsrd = (rs: Register): number => x(rs, 0, 0, 178);
/** Orders all loads and stores before it, but for stores against later loads. */
export const lwsync = (): number => x(1, 0, 0, 598);
/** A hypercall: system call with LEV = 1. */
export const sc1 = (): number => word(17, 0, 0, (1 << 5) | 2);
/** Branches to the label. */
export const b = (target: string): Branch => ({
  target,
  encode: (displacement) => ((18 << 26) | (displacement & 0x3ff_fffc)) >>> 0,
});
/** Branches when the last comparison found its operands equal: BO = 12, CR0[EQ]. */
export const beq = (target: string): Branch => ({
  target,
  encode: (displacement) => word(16, 12, 2, displacement & 0xfffc),
});
/** Branches when the last comparison found its operands different: BO = 4, CR0[EQ]. */
export const bne = (target: string): Branch => ({
  target,
  encode: (displacement) => word(16, 4, 2, displacement & 0xfffc),
});

/** Places the lines one after the other, resolves the labels, and returns the instruction words. */
export function assemble(lines: readonly Line[]): number[] {
  const labels = new Map<string, number>();
  const code: (number | Branch)[] = [];
  for (const line of lines) {
    if (typeof line === 'object' && 'label' in line) labels.set(line.label, code.length);
    else code.push(line);
  }
  return code.map((line, at) => {
    if (typeof line === 'number') return line;
    const target = labels.get(line.target);
    if (target === undefined) throw new Error(`assemble: no label ${line.target}`);
    return line.encode((target - at) * 4);
  });
}
