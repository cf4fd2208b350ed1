import { hex, ModelError } from '@pinhole/base';
import type { SpaprMachine } from '@pinhole/hcall';
import { createGuestMemory } from '@pinhole/memory';
import { MachineError } from './errors.js';
import {
  bytesOf,
  excerpt,
  expected,
  fields,
  GRAMMAR,
  type Json,
  OPCODES,
  readCount,
  readGpa,
  readInteger,
  readKind,
  readList,
  readNamed,
  TOKENS,
  toHex,
  U32,
  U64,
} from './hcall-request.js';
import type { MachineConfig } from './scenario-config.js';
import { createSpaprMachine } from './spapr-config.js';

/** A line has at most this many characters. */
export const MAX_HCALL_LINE: number = 2 ** 24;
/** The most that one read gives, in bytes. */
const MAX_READ = 2 ** 20;
/** Arguments of a hypercall: r4 to r12. */
const MAX_ARGS = 9;
/** Cells of an RTAS call. */
const MAX_CELLS = 64;

/** What `HcallSession` answers: JSON. */
export type HcallAnswer =
  | { readonly ret: number; readonly out: readonly string[] }
  | { readonly rets: readonly (number | null)[] }
  | { readonly hex: string }
  | { readonly saved: unknown }
  | Record<string, never>
  | { readonly error: { readonly line: number; readonly code: string; readonly message: string } };

/**
 * The model as an oracle for other programs: a line of JSON in, a line of JSON out. Whatever a line
 * has, it is answered, and never throws.
 */
export class HcallSession {
  readonly machine: SpaprMachine;
  #line = 0;

  /** @throws ModelError when there can be no such machine. */
  constructor(machine: MachineConfig) {
    checkMachine(machine);
    const regions = [{ base: 0, size: machine.memory }];
    this.machine = createSpaprMachine(machine, { memory: createGuestMemory({ regions }) });
  }

  /** Answers the next line. `undefined`: it is blank. */
  answer(text: string): HcallAnswer | undefined {
    this.#line += 1;
    // Some editors begin a file with a byte-order mark.
    const line = this.#line === 1 && text.startsWith('\ufeff') ? text.slice(1) : text;
    if (line.length > MAX_HCALL_LINE) return this.#tooLong();
    if (/^[ \t\r\n]*$/.test(line)) return undefined;
    let request: unknown;
    try {
      request = JSON.parse(line);
    } catch (error) {
      return this.#refuse('E_JSON', `expected JSON, found ${describeSyntaxError(error, line)}`);
    }
    try {
      return this.#carryOut(request);
    } catch (error) {
      if (error instanceof ModelError) return this.#refuse(error.code, error.message);
      throw error;
    }
  }

  /** Answers a line that was too long to be kept: it counts as one. */
  skip(): HcallAnswer {
    this.#line += 1;
    return this.#tooLong();
  }

  #carryOut(value: unknown): HcallAnswer {
    const { kind, request } = readKind(value);
    switch (kind) {
      case 'op':
        return this.#hypercall(request);
      case 'rtas':
        return this.#rtas(request);
      case 'write': {
        const { gpa, hex: digits } = fields(request.write, 'write', ['gpa', 'hex']);
        this.machine.memory.write(readGpa(gpa, 'write.gpa'), bytesOf(digits, 'write.hex'));
        return {};
      }
      case 'read': {
        const { gpa, length } = fields(request.read, 'read', ['gpa', 'length']);
        const bytes = new Uint8Array(readCount(length, 'read.length', MAX_READ));
        this.machine.memory.read(readGpa(gpa, 'read.gpa'), bytes);
        return { hex: toHex(bytes) };
      }
      case 'restore':
        this.machine.restore(request.restore);
        return {};
      default: {
        if (request[kind] !== true) throw expected(kind, 'true', request[kind]);
        if (kind === 'save') return { saved: this.machine.save() };
        this.machine.reset();
        return {};
      }
    }
  }

  #hypercall({ op, args }: Json): HcallAnswer {
    // Above 2^53 it is rounded, but never down to a number that is an opcode.
    const opcode = Number(readNamed(op, 'op', OPCODES, U64));
    const registers = readList(args, MAX_ARGS).map((arg, i) =>
      readInteger(arg, `args[${i}]`, U64, `a 64-bit value: ${GRAMMAR}`),
    );
    const { hypercalls } = this.machine;
    const { ret, out } = hypercalls.call(opcode, registers);
    return { ret, out: out.map(hex) };
  }

  #rtas({ rtas, args, nret }: Json): HcallAnswer {
    const token = Number(readNamed(rtas, 'rtas', TOKENS, U32));
    const cells = readList(args, MAX_CELLS).map((arg, i) =>
      Number(readInteger(arg, `args[${i}]`, U32, `a 32-bit value: ${GRAMMAR}`)),
    );
    const count = readCount(nret, 'nret', MAX_CELLS);
    const written = this.machine.hypercalls.rtas(token, cells, count);
    // Some calls write more than they were asked for; what they wrote is told.
    const length = Math.max(count, written.length);
    return {
      rets: Array.from({ length }, (_, i) => {
        const cell = written[i];
        if (cell === undefined) return null;
        return i === 0 ? cell | 0 : cell >>> 0;
      }),
    };
  }

  #tooLong(): HcallAnswer {
    return this.#refuse('E_LINE_TOO_LONG', `expected at most ${MAX_HCALL_LINE} characters`);
  }

  #refuse(code: string, message: string): HcallAnswer {
    return { error: { line: this.#line, code, message } };
  }
}

function checkMachine({ arch, memory, maxMemory, dmaRanges }: MachineConfig): void {
  const refuse = (path: string, message: string): never => {
    throw new MachineError('E_MACHINE', [{ path, message }]);
  };
  if (arch !== 'pseries') {
    refuse('machine.arch', `expected pseries, which has hypercalls, found ${arch}`);
  }
  if (memory < 4096 || memory % 4096 !== 0) {
    refuse('machine.memory', `expected a multiple of 4 KiB, found ${memory} bytes`);
  }
  if (maxMemory !== undefined && maxMemory < memory) {
    refuse('machine.maxMemory', `expected at least the memory's ${memory}, found ${maxMemory}`);
  }
  if (dmaRanges !== undefined) {
    refuse(
      'machine.dmaRanges',
      'a pseries host bridge has windows, not dma-ranges: leave this out',
    );
  }
}

function describeSyntaxError(error: unknown, text: string): string {
  const message = error instanceof Error ? error.message : '';
  if (/end of JSON input|Unterminated/.test(message))
    return `${excerpt(text)}, which ends too early`;
  const position = /position (\d+)/.exec(message)?.[1];
  if (position === undefined) return excerpt(text);
  if (Number(position) >= text.length) return `${excerpt(text)}, which ends too early`;
  return `${excerpt(text.slice(Number(position)))} at column ${Number(position) + 1}`;
}
