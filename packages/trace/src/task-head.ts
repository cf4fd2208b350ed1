/** What stands before an event of Linux: the task, the CPU, the flags and the time. */

import type { TraceEvent } from '@pinhole/base';
import { isControl, utf8 } from './bytes.js';
import { type EventLineOptions, type ParsedEvent, skipDigits, skipSpaces } from './event-line.js';

const SPACE = 0x20;
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

/** The events of Linux have names of any form. */
export const LINUX_LINES: EventLineOptions = {
  source: 'linux',
  looksLikeName: (_, start, end) => end > start,
};

/** Reads what comes before the event. After a failure `at` and `expected` say where and why. */
export class TaskHead {
  /** Where the event's name starts. */
  at = 0;
  expected = '';
  #bytes: Uint8Array = new Uint8Array(0);
  #t = 0;
  #cpu = 0;
  #pid = 0;
  #taskStart = 0;
  #taskEnd = 0;
  #context: TraceContext = 'task';
  readonly #isTraceCmd: boolean;

  /** trace-cmd has nanoseconds, whole microseconds, and its latency format besides. */
  constructor({ isTraceCmd }: { isTraceCmd: boolean }) {
    this.#isTraceCmd = isTraceCmd;
  }

  read(bytes: Uint8Array, start: number, end: number): boolean {
    this.#bytes = bytes;
    this.#context = 'task';
    if (this.#readNormal(bytes, start, end)) return true;
    const { at, expected } = this;
    return (this.#isTraceCmd && this.#readLatency(bytes, start, end)) || this.#fail(at, expected);
  }

  /** The event after this head. */
  toEvent({ spec, args }: ParsedEvent): TraceEvent {
    args.cpu = this.#cpu;
    args.pid = this.#pid;
    args.task = utf8(this.#bytes, this.#taskStart, this.#taskEnd);
    args.context = this.#context;
    return { t: this.#t, actor: spec.actor, name: spec.name, args };
  }

  #readNormal(bytes: Uint8Array, start: number, end: number): boolean {
    const open = this.#findCpu(bytes, start, end);
    if (open < 0) return this.#fail(start, 'a task and a CPU such as [000]');
    if (!this.#readTask(bytes, start, open)) return this.#fail(start, 'a task such as init-1');
    // `findCpu` left `at` behind the CPU.
    const at = skipSpaces(bytes, this.at, end);
    if (this.#readTime(bytes, at, end)) return true;
    // The column before the time has the flags; it can be switched off.
    let flagsEnd = at;
    while (flagsEnd < end && bytes[flagsEnd] !== SPACE) flagsEnd += 1;
    const timeAt = skipSpaces(bytes, flagsEnd, end);
    if (!this.#readTime(bytes, timeAt, end)) {
      return this.#fail(timeAt, 'a time as seconds.microseconds, a colon and a space');
    }
    return this.#readFlags(bytes, at, flagsEnd) || this.#fail(at, 'flags such as d.h1.');
  }

  /**
   * `task-pid cpu` and the flags at once, `insmod-135     0d.h1. 4.124845: `.
   * [trace-cmd v3.4 tracecmd/trace-read.c trace_show_data]
   */
  #readLatency(bytes: Uint8Array, start: number, end: number): boolean {
    for (let colon = start; colon < end; colon += 1) {
      if (bytes[colon] !== COLON) continue;
      let timeAt = colon;
      while (timeAt > start && isTimeByte(bytes[timeAt - 1]!)) timeAt -= 1;
      // A task's name may have a colon too.
      if (timeAt === colon || !this.#readTime(bytes, timeAt, end)) continue;
      if (this.#readBeforeTime(bytes, start, timeAt)) return true;
    }
    return false;
  }

  #readBeforeTime(bytes: Uint8Array, start: number, timeAt: number): boolean {
    const flagsEnd = beforeSpaces(bytes, start, timeAt);
    let cpuAt = flagsEnd;
    while (cpuAt > start && bytes[cpuAt - 1] !== SPACE) cpuAt -= 1;
    const flagsAt = skipDigits(bytes, cpuAt, flagsEnd);
    if (flagsAt === cpuAt || flagsAt - cpuAt > 5) return false;
    this.#cpu = decimal(bytes, cpuAt, flagsAt);
    return this.#readFlags(bytes, flagsAt, flagsEnd) && this.#readTask(bytes, start, cpuAt);
  }

  #readFlags(bytes: Uint8Array, start: number, end: number): boolean {
    const context = end - start > 2 ? CONTEXTS.get(bytes[start + 2]!) : undefined;
    if (context === undefined) return false;
    this.#context = context;
    return true;
  }

  /** The position of `[`, with `cpu` read and `at` behind the `]`; a task's name may have brackets. */
  #findCpu(bytes: Uint8Array, start: number, end: number): number {
    for (let at = start; at < end; at += 1) {
      if (bytes[at] !== OPEN) continue;
      const stop = skipDigits(bytes, at + 1, end);
      if (stop - at < 4 || stop - at > 6 || stop === end || bytes[stop] !== CLOSE) continue;
      this.#cpu = decimal(bytes, at + 1, stop);
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
    this.#pid = decimal(bytes, digits, end);
    this.#taskStart = skipSpaces(bytes, start, digits - 1);
    this.#taskEnd = digits - 1;
    if (this.#taskEnd - this.#taskStart >= TASK_COMM_LEN) return false;
    for (let at = this.#taskStart; at < this.#taskEnd; at += 1) {
      if (isControl(bytes[at]!)) return false;
    }
    return true;
  }

  #readTime(bytes: Uint8Array, at: number, end: number): boolean {
    const dot = skipDigits(bytes, at, end);
    if (dot === at || dot - at > 9 || dot === end) return false;
    const colon = bytes[dot] === DOT ? skipDigits(bytes, dot + 1, end) : dot;
    if (colon + 1 >= end || bytes[colon] !== COLON || bytes[colon + 1] !== SPACE) return false;
    if (!this.#setTime(bytes, at, dot, colon)) return false;
    this.at = colon + 2;
    return true;
  }

  /**
   * trace-cmd prints nanoseconds when asked to, and the first second as whole microseconds.
   * [libtraceevent src/event-parse.c print_event_time]
   */
  #setTime(bytes: Uint8Array, start: number, dot: number, end: number): boolean {
    const whole = decimal(bytes, start, dot);
    const digits = end - dot - 1;
    if (digits === 6) this.#t = whole * US_PER_SECOND + decimal(bytes, dot + 1, end);
    else if (!this.#isTraceCmd) return false;
    else if (digits === 9) this.#t = whole * US_PER_SECOND + decimal(bytes, dot + 1, end) / 1000;
    else if (digits < 0 && whole <= US_PER_SECOND) this.#t = whole;
    else return false;
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

function isTimeByte(byte: number): boolean {
  return byte === DOT || (byte - 0x30) >>> 0 <= 9;
}

function decimal(bytes: Uint8Array, start: number, end: number): number {
  let value = 0;
  for (let at = start; at < end; at += 1) value = value * 10 + (bytes[at]! - 0x30);
  return value;
}
