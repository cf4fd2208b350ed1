import type { TraceEvent } from '@pinhole/base';
import { skipQemuPrefix } from './line-prefix.js';
import { createLogReader } from './log-reader.js';
import { type LogReader, type ReaderOptions, type ReadProblem, readAll } from './reader.js';

const LETTER_A = 0x61;
const UNDERSCORE = 0x5f;

/**
 * Reads a log of QEMU's "log" trace backend: `event arguments` a line, on stderr, in the file of `-D`,
 * in libvirt's log of the machine, or from the journal; with or without the time of
 * `-msg timestamp=on` before it. [qemu v7.2 scripts/tracetool/backend/log.py generate_h]
 * [qemu v10.1 util/log.c qemu_log]
 *
 * An event's `t` is its line number: the order is exact, the host's time means nothing. What is
 * accepted prints back byte for byte, but for that prefix.
 */
export function createQemuLogReader(options: ReaderOptions): LogReader {
  return createLogReader(options, { source: 'qemu', looksLikeName }, (parser) => {
    return (bytes, start, end, line) => {
      const nameAt = skipQemuPrefix(bytes, start, end);
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

/** QEMU's events are words joined by underscores; anything else in a log is somebody's message. */
function looksLikeName(bytes: Uint8Array, start: number, end: number): boolean {
  return (
    end > start && bytes[start]! >= LETTER_A && bytes.subarray(start, end).includes(UNDERSCORE)
  );
}
