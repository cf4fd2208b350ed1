import { hex } from '@pinhole/base';
import { HCALL_NAMES, RTAS_TOKENS } from '@pinhole/hcall';

/** A hypercall, with whatever is in the registers. */
export interface HcallOp {
  readonly kind: 'hcall';
  /** r3. */
  readonly opcode: bigint;
  /** r4 and on, at most seven. */
  readonly args: readonly bigint[];
}

/** An RTAS call: cells in a buffer, and the hypercall that names it. */
export interface RtasOp {
  readonly kind: 'rtas';
  readonly token: number;
  /** The counts as the buffer says, whatever is in it. */
  readonly nargs: number;
  readonly nret: number;
  readonly args: readonly number[];
  /** Where the buffer lies; in a place of the campaign's own if not given. */
  readonly at?: bigint;
}

/** A list of TCEs, or anything else, put into guest memory. */
interface WriteOp {
  readonly kind: 'write';
  readonly gpa: number;
  readonly bytes: Uint8Array;
}

/** A look at guest memory. */
interface ReadOp {
  readonly kind: 'read';
  readonly gpa: number;
  readonly length: number;
}

/** A reset of the machine. */
interface ResetOp {
  readonly kind: 'reset';
}

/** One step of a sequence that is run on both sides. */
export type Op = HcallOp | RtasOp | WriteOp | ReadOp | ResetOp;

/** Guest memory of every machine in a campaign. */
export const MEMORY_SIZE = 0x1000_0000;
/** So much of its end is used by operations, and looked at. */
export const OBSERVED_TOP = 0x1_0000;
/** Where the buffers of RTAS calls are: a place for each call of a batch. */
export const RTAS_SLOTS = 0x120_0000;
/** Cells of a place for an RTAS buffer: header, arguments, answers. */
export const RTAS_SLOT_CELLS = 32;
/** What cells hold that nobody wrote. No answer of the calls that are tried has it. */
export const RTAS_UNTOUCHED = 0xa5a5_a5a5;

/** The buffer of an RTAS call, as it lies in memory. */
export function rtasBuffer(op: RtasOp): Uint8Array {
  const bytes = new Uint8Array(RTAS_SLOT_CELLS * 4);
  const view = new DataView(bytes.buffer);
  const cells = [op.token, op.nargs, op.nret, ...op.args];
  for (let i = 0; i < RTAS_SLOT_CELLS; i += 1) view.setUint32(i * 4, cells[i] ?? RTAS_UNTOUCHED);
  return bytes;
}

const RTAS_NAMES = new Map<number, string>(
  Object.entries(RTAS_TOKENS).map(([name, token]) => [token, name]),
);

/** The name of the call that an operation makes, for tables; a number where it has none. */
export function callName(op: HcallOp | RtasOp): string {
  if (op.kind === 'rtas') {
    if (op.at !== undefined) return 'RTAS, odd buffer (r3)';
    return RTAS_NAMES.get(op.token) ?? 'RTAS, unknown token';
  }
  return HCALL_NAMES.get(Number(op.opcode)) ?? 'unknown opcode';
}

/** One line for people. */
export function formatOp(op: Op): string {
  if (op.kind === 'hcall') {
    const name = HCALL_NAMES.get(Number(op.opcode)) ?? hex(op.opcode);
    return `${name}(${op.args.map(hex).join(', ')})`;
  }
  if (op.kind === 'rtas') {
    const name = RTAS_NAMES.get(op.token) ?? `RTAS token ${hex(op.token)}`;
    const where = op.at === undefined ? '' : ` in a buffer at ${hex(op.at)}`;
    const args = op.args.map((arg) => hex(arg)).join(', ');
    return `${name}(${args}), nargs ${op.nargs}, nret ${op.nret}${where}`;
  }
  if (op.kind === 'write')
    return `write ${op.bytes.length} bytes at ${hex(op.gpa)}: ${dump(op.bytes)}`;
  if (op.kind === 'read') return `read ${op.length} bytes at ${hex(op.gpa)}`;
  return 'system_reset';
}

/** Bytes in hexadecimal, cut after the first 32; zeros at the end are left out. */
export function dump(bytes: Uint8Array): string {
  let end = bytes.length;
  while (end > 8 && bytes[end - 1] === 0) end -= 1;
  const shown = bytes.subarray(0, Math.min(end, 32));
  return `${digitsOf(shown)}${shown.length < bytes.length ? '...' : ''}`;
}

/**
 * An operation as lines of `pinhole hcall`: 64-bit values are `0x...` strings. An RTAS call whose
 * buffer is odd is made through guest memory.
 */
export function opToRequests(op: Op): Record<string, unknown>[] {
  if (op.kind === 'hcall') return [{ op: hex(op.opcode), args: op.args.map(hex) }];
  if (op.kind === 'rtas') {
    const { token, args, nargs, nret, at } = op;
    if (at === undefined && nargs === args.length && nret <= RTAS_SLOT_CELLS) {
      return [{ rtas: RTAS_NAMES.get(token) ?? token, args: [...args], nret }];
    }
    const buffer = at ?? BigInt(RTAS_SLOTS);
    const gpa = Number(buffer & 0x0fff_ffff_ffff_ffffn);
    const call = { op: 'KVMPPC_H_RTAS', args: [hex(buffer)] };
    // As much of it as there is memory for, in whole cells.
    const room = Math.floor((MEMORY_SIZE - gpa) / 4) * 4;
    if (room <= 0) return [call];
    return [{ write: { gpa: hex(gpa), hex: digitsOf(rtasBuffer(op).slice(0, room)) } }, call];
  }
  if (op.kind === 'write') return [{ write: { gpa: hex(op.gpa), hex: digitsOf(op.bytes) } }];
  if (op.kind === 'read') return [{ read: { gpa: hex(op.gpa), length: op.length } }];
  // A campaign's reset zeroes the top of memory, which the real machine uses then.
  const gpa = hex(MEMORY_SIZE - OBSERVED_TOP);
  return [{ reset: true }, { write: { gpa, hex: '00'.repeat(OBSERVED_TOP) } }];
}

function digitsOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
