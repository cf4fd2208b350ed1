import type { TraceEvent } from '@pinhole/base';
import { asciiBytes, latin1 } from './bytes.js';
import { skipSpaces } from './event-line.js';
import { createLogReader } from './log-reader.js';
import { type LogReader, type ReaderOptions, type ReadProblem, readAll } from './reader.js';
import { LINUX_LINES, TaskHead } from './task-head.js';

const LETTER_C = 0x43;
const LETTER_SMALL_C = 0x63;
const OPEN = 0x5b;
/** Shorter names are padded to this. [trace-cmd v3.4 tracecmd/trace-read.c print_event_name] */
const NAME_WIDTH = 20;
/** What trace-cmd calls a line that was written to trace_marker. */
const PRINT = asciiBytes('print: ');
const MARKER = asciiBytes('tracing_mark_write: ');

/**
 * Reads what `trace-cmd report` prints: `task-pid [cpu] flags seconds.microseconds: event: ...`,
 * with or without flags, with the nanoseconds of `-t`, or in the latency format of `-l`.
 * [trace-cmd v3.4 tracecmd/trace-read.c trace_show_data]
 *
 * Events are as those of `createFtraceReader`; a line written to trace_marker, which trace-cmd calls
 * `print`, is `tracing_mark_write` here too. Where nanoseconds are printed, `t` has a fraction.
 */
export function createTraceCmdReader(options: ReaderOptions): LogReader {
  return createLogReader(options, LINUX_LINES, (parser, problems) => {
    const head = new TaskHead({ isTraceCmd: true });
    return (bytes, start, end, line) => {
      const first = bytes[start];
      if (first === LETTER_C || first === LETTER_SMALL_C || first === OPEN) {
        const text = latin1(bytes, start, Math.min(end, start + 120));
        if (LOST.test(text)) {
          problems.add('lost', bytes, start, end, line);
          return undefined;
        }
        if (NOTE.test(text)) return undefined;
      }
      if (!head.read(bytes, start, end)) {
        problems.unexpected(bytes, start, end, line, head.at, head.expected);
        return undefined;
      }
      const nameAt = skipSpaces(bytes, head.at, end);
      const markerAt = findMarker(bytes, nameAt, end);
      const parsed =
        markerAt < 0
          ? parser.parse(bytes, start, nameAt, end, line, NAME_WIDTH)
          : parser.parse(bytes, start, markerAt, end, line);
      return parsed && head.toEvent(parsed);
    };
  });
}

/** Reads a whole report that is already in memory. For large ones use `createTraceCmdReader`. */
export function readTraceCmd(text: string): { events: TraceEvent[]; problems: ReadProblem[] } {
  return readAll(createTraceCmdReader, text);
}

/** Events that did not fit a buffer, from trace-cmd or from the kernel. */
const LOST = /^(?:CPU:\d+ )?\[(?:LOST (?:\d+ )?EVENTS|(?:\d+ )?EVENTS (?:DROPPED|LOST))\]/i;
/** The other lines that are no events. [trace-cmd v3.4 lib/trace-cmd/trace-input.c] */
const NOTE = /^(?:cpus=\d+|CPU \d+ is empty|CPU:\d+ \[SUBBUFFER START\].*)$/;

/** The position of `tracing_mark_write: ` in `print:   tracing_mark_write: text`, or -1. */
function findMarker(bytes: Uint8Array, start: number, end: number): number {
  if (!startsWith(bytes, start, end, PRINT)) return -1;
  const at = skipSpaces(bytes, start + PRINT.length, end);
  return startsWith(bytes, at, end, MARKER) ? at : -1;
}

function startsWith(bytes: Uint8Array, start: number, end: number, text: Uint8Array): boolean {
  if (start + text.length > end) return false;
  for (let i = 0; i < text.length; i += 1) if (bytes[start + i] !== text[i]) return false;
  return true;
}
