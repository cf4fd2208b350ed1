import type { TraceValue } from '@pinhole/base';
import { latin1 } from './bytes.js';
import { eventCatalogue } from './events.js';
import { NameTable } from './name-table.js';
import type { ProblemLog } from './reader.js';
import { ArgScanner, type ScanPlan } from './scan.js';
import type { EventSource, EventSpec } from './types.js';

const SPACE = 0x20;
const COLON = 0x3a;
const MAX_NAME_SHOWN = 80;

/** An event's row and its arguments, as read from a line. */
export interface ParsedEvent {
  readonly spec: EventSpec;
  readonly args: Record<string, TraceValue>;
}

/** What differs between the sources. */
export interface EventLineOptions {
  readonly source: EventSource;
  /** Decides what is an event that we do not know, and what is no event. */
  readonly looksLikeName: (bytes: Uint8Array, start: number, end: number) => boolean;
  /** Events to read; default: all. */
  readonly only?: readonly string[] | undefined;
}

/** Reads `name arguments` (QEMU) or `name: arguments` (Linux), or reports why it cannot. */
export class EventLineParser {
  readonly #names: NameTable;
  readonly #scanner = new ArgScanner();
  readonly #problems: ProblemLog;
  readonly #hasColon: boolean;
  readonly #looksLikeName: EventLineOptions['looksLikeName'];
  readonly #only: ReadonlySet<string> | undefined;

  constructor({ source, looksLikeName, only }: EventLineOptions, problems: ProblemLog) {
    this.#only = only === undefined ? undefined : new Set(only);
    this.#names = new NameTable(eventCatalogue.filter((event) => event.source === source));
    this.#problems = problems;
    this.#hasColon = source === 'linux';
    this.#looksLikeName = looksLikeName;
  }

  /**
   * The event at `nameAt` in the line from `start` to `end`; `undefined` when it was a problem. Names
   * shorter than `padding` may have spaces after their separator to make up for it.
   */
  parse(
    bytes: Uint8Array,
    start: number,
    nameAt: number,
    end: number,
    line: number,
    padding = 0,
  ): ParsedEvent | undefined {
    const problems = this.#problems;
    const plan = this.#names.find(bytes, nameAt, end);
    const nameEnd = this.#names.at;
    const argsAt = this.#skipSeparator(bytes, nameEnd, end);
    if (plan === undefined) {
      const isName = nameEnd === end ? !this.#hasColon : argsAt > nameEnd;
      if (isName && this.#looksLikeName(bytes, nameAt, nameEnd)) {
        const event = latin1(bytes, nameAt, Math.min(nameEnd, nameAt + MAX_NAME_SHOWN));
        problems.add('unknown-event', bytes, start, end, line, { event });
      } else {
        problems.unexpected(bytes, start, end, line, nameAt, 'the name of an event');
      }
      return undefined;
    }
    const { spec } = plan;
    if (this.#only?.has(spec.name) === false) return undefined;
    if (argsAt === nameEnd) {
      const separator = this.#hasColon ? '": "' : 'a space';
      problems.unexpected(bytes, start, end, line, nameEnd, separator, spec.name);
      return undefined;
    }
    const scanner = this.#scanner;
    scanner.bytes = bytes;
    scanner.end = end;
    const firstAt = skipSpaces(bytes, argsAt, Math.min(end, argsAt + padding - (nameEnd - nameAt)));
    scanner.at = firstAt;
    const args = scanner.scan(plan) ?? this.#scanVariants(plan, firstAt);
    if (args === undefined) {
      problems.unexpected(bytes, start, end, line, scanner.at, scanner.expected, spec.name);
      return undefined;
    }
    return { spec, args };
  }

  /** Tries the event's other forms. When none fits, the one that got furthest says what is wrong. */
  #scanVariants(plan: ScanPlan, argsAt: number): Record<string, TraceValue> | undefined {
    const scanner = this.#scanner;
    let { at, expected } = scanner;
    for (const variant of plan.variants) {
      scanner.at = argsAt;
      const args = scanner.scan(variant);
      if (args !== undefined) return args;
      if (scanner.at > at) ({ at, expected } = scanner);
    }
    scanner.at = at;
    scanner.expected = expected;
    return undefined;
  }

  /** The position after the separator, or `at` when it is not there. */
  #skipSeparator(bytes: Uint8Array, at: number, end: number): number {
    let next = at;
    if (this.#hasColon) {
      if (next >= end || bytes[next] !== COLON) return at;
      next += 1;
    }
    return next < end && bytes[next] === SPACE ? next + 1 : at;
  }
}

/** The position after a run of spaces. */
export function skipSpaces(bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  while (at < end && bytes[at] === SPACE) at += 1;
  return at;
}

/** The position after a run of decimal digits. */
export function skipDigits(bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  while (at < end && (bytes[at]! - 0x30) >>> 0 <= 9) at += 1;
  return at;
}
