import type { TraceEvent } from '@pinhole/base';
import { isControl, latin1, utf8 } from './bytes.js';
import { EventLineParser, skipDigits } from './event-line.js';
import { LineSplitter } from './lines.js';
import {
  type LogReader,
  ProblemLog,
  type ReaderOptions,
  type ReadProblem,
  readAll,
} from './reader.js';

const SPACE = 0x20;
const HASH = 0x23;
const MINUS = 0x2d;
const DOT = 0x2e;
const COLON = 0x3a;
const OPEN = 0x5b;
const CLOSE = 0x5d;
const US_PER_SECOND = 1_000_000;
/** With the byte that ends it. [linux v6.12 include/linux/sched.h TASK_COMM_LEN] */
const TASK_COMM_LEN = 16;

type TraceContext = 'task' | 'softirq' | 'hardirq' | 'nmi';
/** The third flag. [linux v6.12 kernel/trace/trace_output.c trace_print_lat_fmt] */
const CONTEXTS: ReadonlyMap<number, TraceContext> = new Map([
  [DOT, 'task'],
  [0x73 /* s */, 'softirq'],
  [0x68 /* h */, 'hardirq'],
  // A hard interrupt that interrupted a soft one.
  [0x48 /* H */, 'hardirq'],
  [0x7a /* z */, 'nmi'],
  // The same within a hard interrupt.
  [0x5a /* Z */, 'nmi'],
]);

/**
 * Reads the text of tracefs' `trace` file: `task-pid [cpu] flags seconds.microseconds: event: ...`.
 * [linux v6.12 kernel/trace/trace_output.c trace_print_context]
 *
 * An event's `t` is its time in microseconds. Its arguments have `cpu`, `pid`, `task` and `context`
 * (`task`, `softirq`, `hardirq` or `nmi`: what interrupted the task) besides its own. Comments are skipped, but for what they say about lost events.
 */
export function createFtraceReader(options: ReaderOptions): LogReader {
  const problems = new ProblemLog(options);
  const parser = new EventLineParser('linux', problems, (_, start, end) => end > start);
  const head = new FtraceHead();
  let events = 0;

  function line(bytes: Uint8Array, start: number, end: number, number: number): void {
    if (start === end) return;
    if (bytes[start] === HASH || bytes[start] === 0x43 /* C */) {
      const isLost = saysLost(latin1(bytes, start, Math.min(end, start + 120)));
      if (isLost) problems.add('lost', bytes, start, end, number);
      if (isLost || bytes[start] === HASH) return;
    }
    if (!head.read(bytes, start, end)) {
      problems.unexpected(bytes, start, end, number, head.at, head.expected);
      return;
    }
    const { t, cpu, pid, taskStart, taskEnd } = head;
    const parsed = parser.parse(bytes, start, head.at, end, number);
    if (parsed === undefined) return;
    const { spec, args } = parsed;
    args.cpu = cpu;
    args.pid = pid;
    args.task = utf8(bytes, taskStart, taskEnd);
    args.context = head.context;
    events += 1;
    options.onEvent({ t, actor: spec.actor, name: spec.name, args }, number);
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

function skipSpaces(bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  while (at < end && bytes[at] === SPACE) at += 1;
  return at;
}

/** Reads what comes before the event. After a failure `at` and `expected` say where and why. */
class FtraceHead {
  t = 0;
  cpu = 0;
  pid = 0;
  taskStart = 0;
  taskEnd = 0;
  context: TraceContext = 'task';
  at = 0;
  expected = '';

  read(bytes: Uint8Array, start: number, end: number): boolean {
    const open = this.#findCpu(bytes, start, end);
    if (open < 0) return this.#fail(start, 'a task and a CPU such as [000]');
    if (!this.#readTask(bytes, start, open)) return this.#fail(start, 'a task such as init-1');
    const at = skipSpaces(bytes, this.at, end);
    this.context = 'task';
    if (this.#readTime(bytes, at, end)) return true;
    // The column before the time has the flags; it can be switched off.
    let flagsEnd = at;
    while (flagsEnd < end && bytes[flagsEnd] !== SPACE) flagsEnd += 1;
    const timeAt = skipSpaces(bytes, flagsEnd, end);
    if (this.#readTime(bytes, timeAt, end)) {
      const context = flagsEnd - at > 2 ? CONTEXTS.get(bytes[at + 2]!) : undefined;
      if (context === undefined) return this.#fail(at, 'flags such as d.h1.');
      this.context = context;
      return true;
    }
    return this.#fail(timeAt, 'a time as seconds.microseconds, a colon and a space');
  }

  /** The position of `[`, with `cpu` read and `at` behind the `]`; a task's name may have brackets. */
  #findCpu(bytes: Uint8Array, start: number, end: number): number {
    for (let at = start; at < end; at += 1) {
      if (bytes[at] !== OPEN) continue;
      const stop = skipDigits(bytes, at + 1, end);
      if (stop - at < 4 || stop - at > 6 || stop === end || bytes[stop] !== CLOSE) continue;
      this.cpu = decimal(bytes, at + 1, stop);
      this.at = stop + 1;
      return at;
    }
    return -1;
  }

  /** `task-pid`, or `task-pid (tgid)`, right before the CPU. */
  #readTask(bytes: Uint8Array, start: number, open: number): boolean {
    let end = beforeSpaces(bytes, start, open);
    if (end > start && bytes[end - 1] === 0x29 /* ) */) {
      while (end > start && bytes[end - 1] !== 0x28 /* ( */) end -= 1;
      end = beforeSpaces(bytes, start, end - 1);
    }
    let digits = end;
    while (digits > start && skipDigits(bytes, digits - 1, end) === end) digits -= 1;
    const size = end - digits;
    if (size < 1 || size > 10 || digits <= start || bytes[digits - 1] !== MINUS) return false;
    this.pid = decimal(bytes, digits, end);
    this.taskStart = skipSpaces(bytes, start, digits - 1);
    this.taskEnd = digits - 1;
    for (let at = this.taskStart; at < this.taskEnd; at += 1) {
      if (isControl(bytes[at]!)) return false;
    }
    return this.taskEnd - this.taskStart < TASK_COMM_LEN;
  }

  #readTime(bytes: Uint8Array, at: number, end: number): boolean {
    const dot = skipDigits(bytes, at, end);
    if (dot === at || dot - at > 9 || dot === end || bytes[dot] !== DOT) return false;
    const colon = skipDigits(bytes, dot + 1, end);
    if (colon !== dot + 7 || colon + 1 >= end) return false;
    if (bytes[colon] !== COLON || bytes[colon + 1] !== SPACE) return false;
    this.t = decimal(bytes, at, dot) * US_PER_SECOND + decimal(bytes, dot + 1, colon);
    this.at = colon + 2;
    return true;
  }

  #fail(at: number, expected: string): false {
    this.at = at;
    this.expected = expected;
    return false;
  }
}

function beforeSpaces(bytes: Uint8Array, start: number, end: number): number {
  let at = end;
  while (at > start && bytes[at - 1] === SPACE) at -= 1;
  return at;
}

function decimal(bytes: Uint8Array, start: number, end: number): number {
  let value = 0;
  for (let at = start; at < end; at += 1) value = value * 10 + (bytes[at]! - 0x30);
  return value;
}
