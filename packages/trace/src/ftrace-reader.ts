import type { TraceEvent } from '@pinhole/base';
import { latin1 } from './bytes.js';
import { createLogReader } from './log-reader.js';
import { type LogReader, type ReaderOptions, type ReadProblem, readAll } from './reader.js';
import { LINUX_LINES, TaskHead } from './task-head.js';

const HASH = 0x23;
const LETTER_C = 0x43;

/**
 * Reads the text of tracefs' `trace` file: `task-pid [cpu] flags seconds.microseconds: event: ...`.
 * [linux v6.12 kernel/trace/trace_output.c trace_print_context]
 *
 * An event's `t` is its time in microseconds. Its arguments have `cpu`, `pid`, `task` and `context`
 * (`task`, `softirq`, `hardirq` or `nmi`: what interrupted the task) besides its own. Comments are skipped, but for what they say about lost events.
 */
export function createFtraceReader(options: ReaderOptions): LogReader {
  return createLogReader(options, LINUX_LINES, (parser, problems) => {
    const head = new TaskHead({ isTraceCmd: false });
    return (bytes, start, end, line) => {
      if (bytes[start] === HASH || bytes[start] === LETTER_C) {
        const isLost = saysLost(latin1(bytes, start, Math.min(end, start + 120)));
        if (isLost) problems.add('lost', bytes, start, end, line);
        if (isLost || bytes[start] === HASH) return undefined;
      }
      if (!head.read(bytes, start, end)) {
        problems.unexpected(bytes, start, end, line, head.at, head.expected);
        return undefined;
      }
      const parsed = parser.parse(bytes, start, head.at, end, line);
      return parsed && head.toEvent(parsed);
    };
  });
}

/** Reads a whole trace that is already in memory. For large ones use `createFtraceReader`. */
export function readFtrace(text: string): { events: TraceEvent[]; problems: ReadProblem[] } {
  return readAll(createFtraceReader, text);
}

/**
 * Whether a line says that the kernel's buffer was too small: the header's count of entries kept is
 * below the count written, or a CPU's own note. [linux v6.12 kernel/trace/trace.c print_event_info]
 * [linux v6.12 kernel/trace/trace.c print_trace_line]
 */
function saysLost(text: string): boolean {
  const header = /^# entries-in-buffer\/entries-written: (\d+)\/(\d+)/.exec(text);
  if (header !== null) return BigInt(header[1] as string) < BigInt(header[2] as string);
  return /^CPU:\d+ \[LOST (\d+ )?EVENTS\]/.test(text);
}
