/**
 * Reads the arguments of an event from bytes by its template. Strict: what it accepts, the writer
 * prints back byte for byte, so a changed digit can never hide in a lenient reader.
 */

import { joinNumber, joinU64, type TraceValue } from '@pinhole/base';
import { asciiBytes, isControl, latin1, utf8 } from './bytes.js';
import { ARG_FORMATS, parseTemplate } from './template.js';
import type { ArgFormat, EventSpec } from './types.js';

/** A catalogue row made ready for scanning. */
export interface ScanPlan {
  readonly spec: EventSpec;
  readonly fields: readonly ScanField[];
  readonly tail: Uint8Array;
  /** For the other printed forms of the event. */
  readonly variants: readonly ScanPlan[];
}

interface ScanField {
  readonly before: Uint8Array;
  readonly name: string;
  readonly format: ArgFormat;
  /** Where a text field stops: the first byte of the next literal, or -1 for the end of the line. */
  readonly stop: number;
}

/** Prepares a row. */
export function planScan(spec: EventSpec): ScanPlan {
  const variants = spec.variants.map((template) => planForm(spec, template, []));
  return planForm(spec, spec.template, variants);
}

function planForm(spec: EventSpec, template: string, variants: readonly ScanPlan[]): ScanPlan {
  const { fields, tail } = parseTemplate(template);
  return {
    spec,
    variants,
    tail: asciiBytes(tail),
    fields: fields.map(({ before, arg }, index) => {
      const next = fields[index + 1]?.before ?? tail;
      return {
        before: asciiBytes(before),
        name: arg.name,
        format: arg.format,
        stop: next === '' ? -1 : next.charCodeAt(0),
      };
    }),
  };
}

const ZERO = 0x30;
const MINUS = 0x2d;
const LETTER_X = 0x78;
const SPACE = 0x20;
const COMMA = 0x2c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const NIL = asciiBytes('(nil)');
const MAX_U64 = 0xffff_ffff_ffff_ffffn;
const MAX_S64 = 0x7fff_ffff_ffff_ffffn;
const MAX_INTERNED = 4096;
/** Decimal digits that surely fit a double. */
const SAFE_DIGITS = 15;

/** The value of a lower-case hex digit; 255 for other bytes. */
const HEX = new Uint8Array(256).fill(255);
for (let i = 0; i < 16; i += 1) HEX[i.toString(16).charCodeAt(0)] = i;

/** Scans one line at a time. After a failure `at` and `expected` say where and why. */
export class ArgScanner {
  bytes: Uint8Array = new Uint8Array(0);
  at = 0;
  end = 0;
  expected = '';
  // What the last number was, as its halves or as a double.
  #hi = 0;
  #lo = 0;
  #number = 0;
  #interned = new Map<number, string>();

  /** The arguments between `at` and `end`, which they must fill; `undefined` when they do not. */
  scan(plan: ScanPlan): Record<string, TraceValue> | undefined {
    const args: Record<string, TraceValue> = {};
    const { fields, tail } = plan;
    for (let i = 0; i < fields.length; i += 1) {
      const field = fields[i]!;
      if (!this.#literal(field.before)) return undefined;
      const start = this.at;
      const value = this.#value(field);
      if (value === undefined) {
        this.at = start;
        this.expected = `${field.name} as ${ARG_FORMATS[field.format].expects}`;
        return undefined;
      }
      args[field.name] = value;
    }
    if (!this.#literal(tail)) return undefined;
    if (this.at === this.end) return args;
    this.expected = 'the end of the line';
    return undefined;
  }

  #literal(literal: Uint8Array): boolean {
    const { bytes, at } = this;
    for (let i = 0; i < literal.length; i += 1) {
      if (at + i >= this.end || bytes[at + i] !== literal[i]) {
        this.expected = `"${latin1(literal, 0, literal.length)}"`;
        return false;
      }
    }
    this.at = at + literal.length;
    return true;
  }

  #value(field: ScanField): TraceValue | undefined {
    switch (field.format) {
      case 'x64':
        return this.#prefix() && this.#hex(16) ? joinU64(this.#hi, this.#lo) : undefined;
      case 'h64':
        return this.#hex(16) ? joinU64(this.#hi, this.#lo) : undefined;
      case 'p64':
        return this.#padded() ? joinU64(this.#hi, this.#lo) : undefined;
      case 'x32':
        return this.#prefix() && this.#hex(8) ? this.#lo : undefined;
      case 'u64':
        return this.#u64();
      case 'd64':
        return this.#d64();
      case 'r64':
        return this.#r64();
      case 'u32':
        return this.#decimal(false) && this.#number <= 0xffff_ffff ? this.#number : undefined;
      case 'd32':
        return this.#decimal(true) && (this.#number | 0) === this.#number
          ? this.#number
          : undefined;
      case 'u53':
        return this.#decimal(false) ? this.#number : undefined;
      case 'd53':
        return this.#decimal(true) ? this.#number : undefined;
      case 'ptr':
        return this.#pointer();
      case 'str':
        return this.#text(field.stop);
      case 'arr':
        return this.#array();
    }
  }

  #prefix(): boolean {
    const { bytes, at } = this;
    if (at + 1 >= this.end || bytes[at] !== ZERO || bytes[at + 1] !== LETTER_X) return false;
    this.at = at + 2;
    return true;
  }

  /** As `%x` prints: no leading zeros. */
  #hex(maxDigits: number): boolean {
    const start = this.at;
    const digits = this.#hexDigits();
    if (digits === 0 || digits > maxDigits) return false;
    return digits === 1 || this.bytes[start] !== ZERO;
  }

  /** As `0x%016llx` prints. */
  #padded(): boolean {
    return this.#prefix() && this.#hexDigits() === 16;
  }

  /** Reads hex digits; returns how many. */
  #hexDigits(): number {
    const { bytes, end } = this;
    const start = this.at;
    let at = start;
    let hi = 0;
    let lo = 0;
    while (at < end) {
      const digit = HEX[bytes[at]!]!;
      if (digit > 15) break;
      hi = (hi << 4) | (lo >>> 28);
      lo = (lo << 4) | digit;
      at += 1;
    }
    this.#hi = hi >>> 0;
    this.#lo = lo >>> 0;
    this.at = at;
    return at - start;
  }

  /** The end of a run of decimal digits without leading zeros; -1 when there is none. */
  #digits(start: number): number {
    const { bytes, end } = this;
    let at = start;
    while (at < end && (bytes[at]! - ZERO) >>> 0 <= 9) at += 1;
    if (at === start || (at > start + 1 && bytes[start] === ZERO)) return -1;
    return at;
  }

  /** A decimal that is a safe integer. */
  #decimal(signed: boolean): boolean {
    const negative = signed && this.at < this.end && this.bytes[this.at] === MINUS;
    const start = negative ? this.at + 1 : this.at;
    const stop = this.#digits(start);
    if (stop < 0) return false;
    const value = this.#double(start, stop);
    if (value > Number.MAX_SAFE_INTEGER || (negative && value === 0)) return false;
    this.#number = negative ? -value : value;
    this.at = stop;
    return true;
  }

  #u64(): bigint | undefined {
    const start = this.at;
    const stop = this.#digits(start);
    if (stop < 0 || stop - start > 20) return undefined;
    this.at = stop;
    if (stop - start <= SAFE_DIGITS) return BigInt(this.#double(start, stop));
    const value = BigInt(latin1(this.bytes, start, stop));
    return value <= MAX_U64 ? value : undefined;
  }

  #d64(): bigint | undefined {
    const negative = this.at < this.end && this.bytes[this.at] === MINUS;
    if (negative) this.at += 1;
    const value = this.#u64();
    if (value === undefined) return undefined;
    if (negative) return value > 0n && value <= MAX_S64 + 1n ? -value : undefined;
    return value <= MAX_S64 ? value : undefined;
  }

  #r64(): bigint | undefined {
    const value = this.#u64();
    return value === undefined || value <= MAX_S64 ? value : BigInt.asIntN(64, value);
  }

  #double(start: number, stop: number): number {
    let value = 0;
    for (let i = start; i < stop; i += 1) value = value * 10 + (this.bytes[i]! - ZERO);
    return value;
  }

  /**
   * As glibc prints `%p`, or the name that the model prints there (`vd0q0`). A log has few distinct
   * pointers: each is one string.
   */
  #pointer(): string | undefined {
    const start = this.at;
    if (start < this.end && isLetter(this.bytes[start]!)) return this.#name();
    if (this.bytes[start] === NIL[0]) return this.#literal(NIL) ? '(nil)' : undefined;
    if (!this.#prefix() || !this.#hex(16)) return undefined;
    const key = joinNumber(this.#hi, this.#lo);
    const known = this.#interned.get(key);
    if (known !== undefined) return known;
    const text = latin1(this.bytes, start, this.at);
    if (Number.isSafeInteger(key)) {
      if (this.#interned.size >= MAX_INTERNED) this.#interned.clear();
      this.#interned.set(key, text);
    }
    return text;
  }

  #name(): string {
    const { bytes, end, at: start } = this;
    let at = start;
    while (at < end && (isLetter(bytes[at]!) || (bytes[at]! - ZERO) >>> 0 <= 9)) at += 1;
    this.at = at;
    return latin1(bytes, start, at);
  }

  /**
   * Numbers as the kernel prints an array, `{0x1,0x2}`, or as trace-cmd does, `1 2`.
   * [linux v6.12 kernel/trace/trace_output.c trace_print_array_seq]
   * [libtraceevent src/event-parse.c print_str_arg TEP_PRINT_INT_ARRAY]
   */
  #array(): string | undefined {
    const { bytes, end } = this;
    const start = this.at;
    const inBraces = start < end && bytes[start] === OPEN_BRACE;
    if (inBraces) this.at += 1;
    const first = this.at;
    for (;;) {
      const isNumber = inBraces ? this.#prefix() && this.#hex(16) : this.#u64Digits();
      // Nothing at all is an empty array; but after a separator comes a number.
      if (!isNumber && this.at > first) return undefined;
      if (!isNumber || !this.#hasMore(inBraces)) break;
      this.at += 1;
    }
    if (inBraces) {
      if (this.at >= end || bytes[this.at] !== CLOSE_BRACE) return undefined;
      this.at += 1;
    }
    return latin1(bytes, start, this.at);
  }

  /** Whether a separator follows. A space is one only before a digit: else the next text begins. */
  #hasMore(inBraces: boolean): boolean {
    const { bytes, at, end } = this;
    if (at + 1 >= end || bytes[at] !== (inBraces ? COMMA : SPACE)) return false;
    return inBraces || isDigit(bytes[at + 1]!);
  }

  #u64Digits(): boolean {
    const stop = this.#digits(this.at);
    if (stop < 0 || stop - this.at > 20) return false;
    this.at = stop;
    return true;
  }

  /** Up to the next literal. No control characters: those are damage, not text. */
  #text(stop: number): string | undefined {
    const { bytes, end } = this;
    const start = this.at;
    let at = start;
    while (at < end && bytes[at] !== stop) {
      if (isControl(bytes[at]!)) return undefined;
      at += 1;
    }
    this.at = at;
    return utf8(bytes, start, at);
  }
}

function isDigit(byte: number): boolean {
  return (byte - ZERO) >>> 0 <= 9;
}

function isLetter(byte: number): boolean {
  return byte >= 0x61 && byte <= 0x7a;
}
