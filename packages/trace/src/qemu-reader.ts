import type { TraceEvent } from '@pinhole/base';
import { latin1 } from './bytes.js';
import { eventCatalogue } from './events.js';
import { LineSplitter } from './lines.js';
import { NameTable } from './name-table.js';
import { type LogReader, ProblemLog, type ReaderOptions, type ReadProblem } from './reader.js';
import { ArgScanner } from './scan.js';

const SPACE = 0x20;
const ZERO = 0x30;
const UNDERSCORE = 0x5f;

/**
 * Reads a log of QEMU's "log" trace backend: `event arguments` a line, with or without the
 * `thread@seconds.microseconds:` before it. [qemu v7.2 scripts/tracetool/backend/log.py generate_h]
 *
 * An event's `t` is its line number: the order is exact, the host's time means nothing.
 */
export function createQemuLogReader(options: ReaderOptions): LogReader {
  const names = new NameTable(eventCatalogue.filter((event) => event.source === 'qemu'));
  const scanner = new ArgScanner();
  const problems = new ProblemLog(options);
  let events = 0;

  function line(bytes: Uint8Array, start: number, end: number, number: number): void {
    if (start === end) return;
    const nameAt = skipTimestamp(bytes, start, end);
    const plan = names.find(bytes, nameAt, end);
    const nameEnd = names.at;
    if (plan === undefined) {
      if (looksLikeEvent(bytes, nameAt, nameEnd, end)) {
        const event = latin1(bytes, nameAt, Math.min(nameEnd, nameAt + 80));
        problems.add('unknown-event', bytes, start, end, number, { event });
      } else {
        problems.unexpected(bytes, start, end, number, nameAt, 'the name of an event');
      }
      return;
    }
    const { spec } = plan;
    if (nameEnd === end || bytes[nameEnd] !== SPACE) {
      problems.unexpected(bytes, start, end, number, nameEnd, 'a space', spec.name);
      return;
    }
    scanner.bytes = bytes;
    scanner.at = nameEnd + 1;
    scanner.end = end;
    const args = scanner.scan(plan);
    if (args === undefined) {
      problems.unexpected(bytes, start, end, number, scanner.at, scanner.expected, spec.name);
      return;
    }
    events += 1;
    options.onEvent({ t: number, actor: spec.actor, name: spec.name, args }, number);
  }

  const splitter = new LineSplitter({ line, ...problems.handlers() }, options.maxLineBytes);
  return {
    push: (chunk) => splitter.push(chunk),
    end() {
      splitter.end();
      return { lines: splitter.lines, events, problems: { ...problems.counts } };
    },
  };
}

/** Reads a whole log that is already in memory. For large ones use `createQemuLogReader`. */
export function readQemuLog(text: string): { events: TraceEvent[]; problems: ReadProblem[] } {
  const events: TraceEvent[] = [];
  const problems: ReadProblem[] = [];
  const reader = createQemuLogReader({
    onEvent: (event) => events.push(event),
    onProblem: (problem) => problems.push(problem),
  });
  // A character beyond ASCII becomes one byte beyond ASCII, which no event has.
  reader.push(Uint8Array.from(text, (char) => Math.min(char.charCodeAt(0), 0xff)));
  reader.end();
  return { events, problems };
}

/** The position after `123@1700000000.123456:`, or `start` when the line has no such thing. */
function skipTimestamp(bytes: Uint8Array, start: number, end: number): number {
  const at = skipDigits(bytes, start, end);
  if (at === start || bytes[at] !== 0x40 /* @ */) return start;
  const dot = skipDigits(bytes, at + 1, end);
  if (dot === at + 1 || bytes[dot] !== 0x2e /* . */) return start;
  const colon = skipDigits(bytes, dot + 1, end);
  const complete = colon === dot + 7 && colon < end && bytes[colon] === 0x3a; /* : */
  return complete ? colon + 1 : start;
}

function skipDigits(bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  while (at < end && (bytes[at]! - ZERO) >>> 0 <= 9) at += 1;
  return at;
}

/** Whether the text is the name of some event of QEMU's: words joined by underscores. */
function looksLikeEvent(bytes: Uint8Array, start: number, nameEnd: number, end: number): boolean {
  if (nameEnd !== end && bytes[nameEnd] !== SPACE) return false;
  if (nameEnd === start || bytes[start]! < 0x61) return false;
  return bytes.subarray(start, nameEnd).includes(UNDERSCORE);
}
