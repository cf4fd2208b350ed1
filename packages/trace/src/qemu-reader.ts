import type { TraceEvent } from '@pinhole/base';
import { skipDigits } from './event-line.js';
import { createLogReader } from './log-reader.js';
import { type LogReader, type ReaderOptions, type ReadProblem, readAll } from './reader.js';

const LETTER_A = 0x61;
const UNDERSCORE = 0x5f;

/**
 * Reads a log of QEMU's "log" trace backend: `event arguments` a line, with or without the
 * `thread@seconds.microseconds:` before it. [qemu v7.2 scripts/tracetool/backend/log.py generate_h]
 *
 * An event's `t` is its line number: the order is exact, the host's time means nothing. What is
 * accepted prints back byte for byte.
 */
export function createQemuLogReader(options: ReaderOptions): LogReader {
  return createLogReader(options, { source: 'qemu', looksLikeName }, (parser) => {
    return (bytes, start, end, line) => {
      const nameAt = skipTimestamp(bytes, start, end);
      const parsed = parser.parse(bytes, start, nameAt, end, line);
      if (parsed === undefined) return undefined;
      const { spec, args } = parsed;
      return { t: line, actor: spec.actor, name: spec.name, args };
    };
  });
}

/** Reads a whole log that is already in memory. For large ones use `createQemuLogReader`. */
export function readQemuLog(text: string): { events: TraceEvent[]; problems: ReadProblem[] } {
  return readAll(createQemuLogReader, text);
}

/** The position after `123@1700000000.123456:`, or `start` when the line has no such thing. */
function skipTimestamp(bytes: Uint8Array, start: number, end: number): number {
  const at = skipDigits(bytes, start, end);
  if (at === start || at === end || bytes[at] !== 0x40 /* @ */) return start;
  const dot = skipDigits(bytes, at + 1, end);
  if (dot === at + 1 || dot === end || bytes[dot] !== 0x2e /* . */) return start;
  const colon = skipDigits(bytes, dot + 1, end);
  const isComplete = colon === dot + 7 && colon < end && bytes[colon] === 0x3a; /* : */
  return isComplete ? colon + 1 : start;
}

/** QEMU's events are words joined by underscores; anything else in a log is somebody's message. */
function looksLikeName(bytes: Uint8Array, start: number, end: number): boolean {
  return (
    end > start && bytes[start]! >= LETTER_A && bytes.subarray(start, end).includes(UNDERSCORE)
  );
}
