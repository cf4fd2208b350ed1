import { hex, ModelError } from '@pinhole/base';
import { HCALL_NAMES, RTAS_TOKENS, type SpaprMachine } from '@pinhole/hcall';
import { createGuestMemory } from '@pinhole/memory';
import { MachineError } from './errors.js';
import type { MachineConfig } from './scenario-schema.js';
import { createSpaprMachine } from './spapr-config.js';

/** A line has at most this many characters. */
export const MAX_HCALL_LINE: number = 2 ** 24;
/** The most that one read gives, in bytes. */
const MAX_READ = 2 ** 20;
/** Arguments of a hypercall: r4 to r12. */
const MAX_ARGS = 9;
/** Cells of an RTAS call. */
const MAX_CELLS = 64;
/** Opcodes are counted; with more different ones than this, counting starts again. */
const MAX_COUNTED = 65_536;
const U32 = 2n ** 32n - 1n;
const U53 = 2n ** 53n - 1n;
const U64 = 2n ** 64n - 1n;

/** What `HcallSession` answers: JSON. */
export type HcallAnswer =
  | { readonly ret: number; readonly out: readonly string[] }
  | { readonly rets: readonly (number | null)[] }
  | { readonly hex: string }
  | { readonly saved: unknown }
  | Record<string, never>
  | { readonly error: { readonly line: number; readonly code: string; readonly message: string } };

type Json = Readonly<Record<string, unknown>>;

const OPCODES = new Map([...HCALL_NAMES].map(([opcode, name]) => [name, opcode]));
const TOKENS = new Map<string, number>(Object.entries(RTAS_TOKENS));
/** Each kind of request: the key that says so, and the others it may have. */
const REQUESTS: Readonly<Record<string, readonly string[]>> = {
  op: ['args'],
  rtas: ['args', 'nret'],
  write: [],
  read: [],
  reset: [],
  save: [],
  restore: [],
};
const KINDS = Object.keys(REQUESTS);
/** JSON's numbers are exact below 2^53 only. */
const GRAMMAR = 'a safe whole number, or text, "0x..." or decimal';
/** Bytes that are turned into text at once. */
const HEX_PIECE = 4096;
const HEX_DIGITS = Array.from('0123456789abcdef', (digit) => digit.charCodeAt(0));

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
    // Who calls every number there is would fill the memory with their counts.
    if (hypercalls.counts.size >= MAX_COUNTED) hypercalls.counts.clear();
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

function expected(path: string, what: string, found: unknown): ModelError<'E_REQUEST'> {
  const where = path === '' ? '' : `${path}: `;
  return new ModelError('E_REQUEST', `${where}expected ${what}, found ${shown(found)}`);
}

// Never looks deeper than one level: a value may be nested deeper than the stack is.
function shown(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (typeof value === 'string') return excerpt(value);
  if (Array.isArray(value)) return `a list of ${value.length}`;
  return typeof value === 'object' && value !== null ? 'an object' : String(value);
}

function excerpt(text: string): string {
  return text.length > 40 ? `${JSON.stringify(text.slice(0, 37))}...` : JSON.stringify(text);
}

function readKind(value: unknown): { readonly kind: string; readonly request: Json } {
  const oneOf = `an object with exactly one of the keys ${KINDS.join(', ')}`;
  if (!isObject(value)) throw expected('', oneOf, value);
  const found = KINDS.filter((kind) => Object.hasOwn(value, kind));
  const [kind] = found;
  if (kind === undefined || found.length > 1) {
    const keys = Object.keys(value).slice(0, 8).map(excerpt).join(', ');
    const what = keys === '' ? 'no key' : `the keys ${keys}`;
    throw new ModelError('E_REQUEST', `expected ${oneOf}, found ${what}`);
  }
  return { kind, request: fields(value, '', [kind, ...(REQUESTS[kind] as readonly string[])]) };
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

// An object, once it is known to have no keys but `keys`.
function fields(value: unknown, path: string, keys: readonly string[]): Json {
  if (!isObject(value)) throw expected(path, `an object with ${keys.join(' and ')}`, value);
  for (const key in value) {
    if (!keys.includes(key)) throw expected(path, `no key but ${keys.join(', ')}`, key);
  }
  return value;
}

function readList(value: unknown, max: number): readonly unknown[] {
  if (value === undefined) return [];
  if (Array.isArray(value) && value.length <= max) return value;
  throw expected('args', `a list of at most ${max}`, value);
}

function toInteger(value: unknown, max: bigint): bigint | undefined {
  const isNumber = typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
  // No text of a number that fits is longer; a long one would take long to read.
  const isText =
    typeof value === 'string' && value.length <= 20 && /^(0x[0-9a-f]{1,16}|\d+)$/i.test(value);
  if (!isNumber && !isText) return undefined;
  const number = BigInt(value as number | string);
  return number <= max ? number : undefined;
}

function readInteger(value: unknown, path: string, max: bigint, what: string): bigint {
  const number = toInteger(value, max);
  if (number === undefined) throw expected(path, what, value);
  return number;
}

function readCount(value: unknown, path: string, max: number): number {
  return Number(readInteger(value, path, BigInt(max), `a whole number from 0 to ${max}`));
}

function readGpa(value: unknown, path: string): number {
  return Number(readInteger(value, path, U53, `an address below 2^53: ${GRAMMAR}`));
}

function readNamed(
  value: unknown,
  path: string,
  names: ReadonlyMap<string, number>,
  max: bigint,
): number | bigint {
  const number = typeof value === 'string' ? names.get(value) : undefined;
  if (number !== undefined) return number;
  const bits = max === U64 ? 64 : 32;
  return readInteger(
    value,
    path,
    max,
    `one of ${[...names.keys()].join(', ')}, or a number of ${bits} bits`,
  );
}

function bytesOf(value: unknown, path: string): Uint8Array {
  // A pattern that repeats a group would overflow the stack on megabytes.
  if (typeof value !== 'string' || value.length % 2 !== 0 || !/^[0-9a-f]*$/i.test(value)) {
    throw expected(path, 'pairs of hexadecimal digits', value);
  }
  const bytes = new Uint8Array(value.length / 2);
  for (let i = 0; i < bytes.length; i += 1) {
    bytes[i] = digitAt(value, i * 2) * 16 + digitAt(value, i * 2 + 1);
  }
  return bytes;
}

// Of what is known to be one. The low four bits of 'A' and 'a' are 1.
function digitAt(text: string, index: number): number {
  const code = text.charCodeAt(index);
  return code < 0x40 ? code & 0xf : (code & 0xf) + 9;
}

// A string for each byte would take twenty times as long.
function toHex(bytes: Uint8Array): string {
  let text = '';
  for (let start = 0; start < bytes.length; start += HEX_PIECE) {
    const piece = bytes.subarray(start, start + HEX_PIECE);
    const codes: number[] = new Array(piece.length * 2);
    for (let i = 0; i < piece.length; i += 1) {
      const byte = piece[i] as number;
      codes[i * 2] = HEX_DIGITS[byte >> 4] as number;
      codes[i * 2 + 1] = HEX_DIGITS[byte & 0xf] as number;
    }
    text += String.fromCharCode(...codes);
  }
  return text;
}

function describeSyntaxError(error: unknown, text: string): string {
  const message = error instanceof Error ? error.message : '';
  if (/end of JSON input|Unterminated/.test(message))
    return `${excerpt(text)}, which ends too early`;
  const position = /position (\d+)/.exec(message)?.[1];
  if (position === undefined) return excerpt(text);
  return `${excerpt(text.slice(Number(position)))} at column ${Number(position) + 1}`;
}
