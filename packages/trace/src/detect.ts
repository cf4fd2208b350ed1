import { isControl, latin1 } from './bytes.js';
import { readConsole } from './console-reader.js';
import { createFtraceReader } from './ftrace-reader.js';
import { createQemuLogReader } from './qemu-reader.js';
import type { LogReader, ReaderOptions, ReadSummary } from './reader.js';
import { createTraceCmdReader } from './trace-cmd-reader.js';

/** What a file looks like. Text that is nothing else may be a console: anything can stand on one. */
export type LogFormat = 'qemu-log' | 'ftrace' | 'trace-cmd' | 'console' | 'binary' | 'empty';

/** More than this is not needed. */
const MAX_BYTES = 65_536;
const NEWLINE = 0x0a;
/** What a text may have of control characters besides the usual ones. */
const MAX_NOISE = 0.05;
/** LF, CR, backspace, BEL and ESC: a console has them. */
const TEXT_CONTROLS: ReadonlySet<number> = new Set([0x0a, 0x0d, 0x08, 0x07, 0x1b]);

/**
 * Says what a file is, from its first bytes (some KiB are best), so that a mixed-up file can be told:
 * a guest's trace that was given as QEMU's log. Compressed files are `binary`.
 */
export function detectFormat(firstBytes: Uint8Array): LogFormat {
  const bytes = firstBytes.subarray(0, MAX_BYTES);
  if (bytes.every((byte) => byte <= 0x20 && (byte === 0x20 || byte >= 0x09))) return 'empty';
  if (isNoise(bytes)) return 'binary';
  const whole = wholeLines(bytes);
  const qemu = known(createQemuLogReader, whole);
  const ftrace = known(createFtraceReader, whole);
  const traceCmd = known(createTraceCmdReader, whole);
  const task = Math.max(ftrace.good, traceCmd.good);
  const text = latin1Text(whole);
  const fromConsole = consoleLines(text);
  const best = Math.max(task, qemu.good, fromConsole);
  if (best > 0) {
    if (task === best) return isTraceCmd(text, ftrace.good, traceCmd.good) ? 'trace-cmd' : 'ftrace';
    return qemu.good === best ? 'qemu-log' : 'console';
  }
  if (/^# tracer: /m.test(text)) return 'ftrace';
  if (/^cpus=\d+\r?$/m.test(text)) return 'trace-cmd';
  // A log that has nothing but events of other parts of QEMU.
  return qemu.unknown * 2 > qemu.lines ? 'qemu-log' : 'console';
}

function isNoise(bytes: Uint8Array): boolean {
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) return true; // gzip
  let noise = 0;
  for (const byte of bytes) if (isControl(byte) && !TEXT_CONTROLS.has(byte)) noise += 1;
  return noise > bytes.length * MAX_NOISE;
}

/** Without the line that the end cuts, unless there is no other. */
function wholeLines(bytes: Uint8Array): Uint8Array {
  const end = bytes.lastIndexOf(NEWLINE) + 1;
  if (end > 0) return bytes.subarray(0, end);
  const whole = new Uint8Array(bytes.length + 1).fill(NEWLINE);
  whole.set(bytes);
  return whole;
}

/** How many lines a reader knows. A task's head is proof enough; a word with an underscore is not. */
function known(
  createReader: (options: ReaderOptions) => LogReader,
  bytes: Uint8Array,
): { good: number; unknown: number; lines: number } {
  const reader = createReader({ onEvent() {} });
  reader.push(bytes);
  const { lines, events, problems }: ReadSummary = reader.end();
  const unknown = problems['unknown-event'];
  const isTask = createReader !== createQemuLogReader;
  return { good: events + (isTask ? unknown + problems.lost : 0), unknown, lines };
}

/** Lines with printk's time, or with a fact. */
function consoleLines(text: string): number {
  const times = text.match(/^(?:<\d{1,3}>)?\[ *\d{1,9}\.\d{6}\] /gm)?.length ?? 0;
  return Math.max(times, readConsole(text).length);
}

/** Both print a task's events alike, but trace-cmd pads their names and has other heads. */
function isTraceCmd(text: string, ftrace: number, traceCmd: number): boolean {
  if (traceCmd !== ftrace) return traceCmd > ftrace;
  if (/^# tracer: /m.test(text)) return false;
  return (
    /^(?:cpus=\d+|CPU \d+ is empty)\r?$/m.test(text) || /\d\.\d{6,9}: \w{1,19}: {2,}/.test(text)
  );
}

function latin1Text(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += 8192) {
    text += latin1(bytes, at, Math.min(bytes.length, at + 8192));
  }
  return text;
}
