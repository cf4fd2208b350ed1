import { hex, ModelError } from '@pinhole/base';
import { HCALL_NAMES, RTAS_TOKENS, type SpaprMachine } from '@pinhole/hcall';
import { createGuestMemory } from '@pinhole/memory';
import { z } from 'zod';
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

/** What `HcallSession` answers: JSON. */
export type HcallAnswer =
  | { readonly ret: number; readonly out: readonly string[] }
  | { readonly rets: readonly (number | null)[] }
  | { readonly hex: string }
  | { readonly saved: unknown }
  | Record<string, never>
  | { readonly error: { readonly line: number; readonly code: string; readonly message: string } };

const OPCODES = new Map([...HCALL_NAMES].map(([opcode, name]) => [name, opcode]));

const integer = (max: bigint, what: string) =>
  z
    .union([z.number(), z.string()], { error: `expected ${what}` })
    .transform((value, context): bigint => {
      const isNumber = typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
      const isText = typeof value === 'string' && /^(0x[0-9a-f]{1,16}|\d{1,20})$/i.test(value);
      const number = isNumber || isText ? BigInt(value) : -1n;
      if (number >= 0n && number <= max) return number;
      context.addIssue({ code: 'custom', message: `expected ${what}` });
      return z.NEVER;
    });
const u64 = integer(2n ** 64n - 1n, 'a 64-bit value: "0x..." or a whole number');
const u32 = integer(2n ** 32n - 1n, 'a 32-bit value: a whole number or "0x..."').transform(Number);
const gpa = integer(
  2n ** 53n - 1n,
  'an address in guest memory: "0x..." or a whole number',
).transform(Number);
const named = <T>(names: ReadonlyMap<string, number>, number: z.ZodType<T>, what: string) =>
  z.union([z.enum([...names.keys()]).transform((name) => names.get(name) as number), number], {
    error: `expected ${what} or its number`,
  });

const REQUESTS = {
  op: z.strictObject({
    op: named(OPCODES, u64, `one of ${[...OPCODES.keys()].join(', ')}`),
    args: z.array(u64).max(MAX_ARGS).default([]),
  }),
  rtas: z.strictObject({
    rtas: named(
      new Map(Object.entries(RTAS_TOKENS)),
      u32,
      `one of ${Object.keys(RTAS_TOKENS).join(', ')}`,
    ),
    args: z.array(u32).max(MAX_CELLS).default([]),
    nret: z.number().int().min(0).max(MAX_CELLS),
  }),
  write: z.strictObject({
    write: z.strictObject({
      gpa,
      hex: z.string().regex(/^([0-9a-f]{2})*$/i, 'expected pairs of hexadecimal digits'),
    }),
  }),
  read: z.strictObject({
    read: z.strictObject({ gpa, length: z.number().int().min(0).max(MAX_READ) }),
  }),
  reset: z.strictObject({ reset: z.literal(true) }),
  save: z.strictObject({ save: z.literal(true) }),
  restore: z.strictObject({ restore: z.looseObject({}) }),
};

/**
 * The model as an oracle for other programs: a line of JSON in, a line of JSON out. Whatever a line
 * has, it is answered, and never throws.
 */
export class HcallSession {
  readonly machine: SpaprMachine;
  #line = 0;

  /** @throws ModelError when there can be no such machine. */
  constructor(machine: MachineConfig) {
    const { arch, memory } = machine;
    if (arch !== 'pseries') {
      throw new MachineError('E_MACHINE', [
        { path: 'machine.arch', message: `expected pseries, which has hypercalls, found ${arch}` },
      ]);
    }
    if (memory < 4096 || memory % 4096 !== 0) {
      throw new MachineError('E_MACHINE', [
        { path: 'machine.memory', message: `expected a multiple of 4 KiB, found ${memory} bytes` },
      ]);
    }
    const regions = [{ base: 0, size: memory }];
    this.machine = createSpaprMachine(machine, { memory: createGuestMemory({ regions }) });
  }

  /** Answers the next line. `undefined`: it is blank. */
  answer(text: string): HcallAnswer | undefined {
    this.#line += 1;
    if (text.trim() === '') return undefined;
    if (text.length > MAX_HCALL_LINE) return this.#tooLong();
    let request: unknown;
    try {
      request = JSON.parse(text);
    } catch (error) {
      return this.#refuse('E_JSON', `expected JSON, found ${describeSyntaxError(error, text)}`);
    }
    return this.#answerRequest(request);
  }

  /** Answers a line that was too long to be kept: it counts as one. */
  skip(): HcallAnswer {
    this.#line += 1;
    return this.#tooLong();
  }

  #answerRequest(request: unknown): HcallAnswer {
    const keys = Object.keys(REQUESTS) as (keyof typeof REQUESTS)[];
    const isObject = typeof request === 'object' && request !== null && !Array.isArray(request);
    const found = isObject ? keys.filter((key) => Object.hasOwn(request, key)) : [];
    const [key] = found;
    if (key === undefined || found.length > 1) {
      const has = isObject
        ? `the keys ${Object.keys(request).slice(0, 8).join(', ') || 'none'}`
        : 'none';
      return this.#refuse(
        'E_REQUEST',
        `expected an object with exactly one of the keys ${keys.join(', ')}, found ${has}`,
      );
    }
    const parsed = REQUESTS[key].safeParse(request);
    if (!parsed.success) {
      const issue = parsed.error.issues[0] as z.core.$ZodIssue;
      const path = issue.path.map(String).join('.') || key;
      return this.#refuse('E_REQUEST', `${path}: ${issue.message.replace(/^Invalid input: /, '')}`);
    }
    try {
      return this.#carryOut(parsed.data);
    } catch (error) {
      if (error instanceof ModelError) return this.#refuse(error.code, error.message);
      throw error;
    }
  }

  #carryOut(request: z.infer<(typeof REQUESTS)[keyof typeof REQUESTS]>): HcallAnswer {
    const { hypercalls, memory } = this.machine;
    if ('op' in request) {
      // What is no safe integer is no opcode, either.
      const { ret, out } = hypercalls.call(Number(request.op), request.args);
      return { ret, out: out.map(hex) };
    }
    if ('rtas' in request) {
      const written = hypercalls.rtas(request.rtas, request.args, request.nret);
      const length = Math.max(request.nret, written.length);
      const cell = (value: number, i: number): number => (i === 0 ? value | 0 : value >>> 0);
      return {
        rets: Array.from({ length }, (_, i) => {
          const value = written[i];
          return value === undefined ? null : cell(value, i);
        }),
      };
    }
    if ('write' in request) {
      const { gpa, hex: digits } = request.write;
      const bytes = new Uint8Array(digits.length / 2);
      for (let i = 0; i < bytes.length; i += 1) {
        bytes[i] = Number.parseInt(digits.slice(i * 2, i * 2 + 2), 16);
      }
      memory.write(gpa, bytes);
      return {};
    }
    if ('read' in request) {
      const bytes = new Uint8Array(request.read.length);
      memory.read(request.read.gpa, bytes);
      return { hex: Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('') };
    }
    if ('save' in request) return { saved: this.machine.save() };
    if ('restore' in request) this.machine.restore(request.restore);
    else this.machine.reset();
    return {};
  }

  #tooLong(): HcallAnswer {
    return this.#refuse('E_LINE_TOO_LONG', `expected at most ${MAX_HCALL_LINE} characters`);
  }

  #refuse(code: string, message: string): HcallAnswer {
    return { error: { line: this.#line, code, message } };
  }
}

function describeSyntaxError(error: unknown, text: string): string {
  const position = /position (\d+)/.exec(error instanceof Error ? error.message : '')?.[1];
  if (position === undefined) return text.length > 40 ? `${text.slice(0, 37)}...` : text;
  const at = Number(position);
  if (at >= text.length) return 'its end too early';
  return `${JSON.stringify(text.slice(at, at + 20))} at column ${at + 1}`;
}
