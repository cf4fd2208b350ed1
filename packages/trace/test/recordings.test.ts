// Every recorded run: the readers find what was counted independently, and what they read prints
// back byte for byte.
import { recordings } from '@pinhole/recordings';
import { describe, expect, test } from 'vitest';
import type { LogReader, ReaderOptions, ReadProblem, ReadSummary } from '../src/index.js';
import {
  createFtraceReader,
  createQemuLogReader,
  createQemuTextWriter,
  formatEvent,
} from '../src/index.js';
import { recordedBytes } from './support/recorded.js';

interface Outcome {
  /** How often each event occurs, known to the catalogue or not. */
  counts: Record<string, number>;
  problems: ReadProblem[];
  summary: ReadSummary;
  /** The first lines that do not print back. */
  differences: { line: number; read: string; printed: string }[];
}

/** Reads, and prints each event again; `expected` is the text that line must have. */
function readAndPrint(
  bytes: Uint8Array,
  createReader: (options: ReaderOptions) => LogReader,
  expected: (line: string) => string,
): Outcome {
  const lines = Buffer.from(bytes).toString('latin1').split('\n');
  const counts: Record<string, number> = {};
  const problems: ReadProblem[] = [];
  const differences: Outcome['differences'] = [];
  const reader = createReader({
    onEvent(event, line) {
      counts[event.name] = (counts[event.name] ?? 0) + 1;
      const read = expected(lines[line - 1] as string);
      const printed = formatEvent(event);
      if (printed !== read && differences.length < 5) differences.push({ line, read, printed });
    },
    onProblem(problem) {
      if (problem.kind !== 'unknown-event') problems.push(problem);
      else counts[problem.event as string] = (counts[problem.event as string] ?? 0) + 1;
    },
  });
  // Chunks that end in the middle of lines.
  for (let at = 0; at < bytes.length; at += 5000) reader.push(bytes.subarray(at, at + 5000));
  return { counts, problems, summary: reader.end(), differences };
}

describe.each(recordings.map((recording) => [recording.name, recording] as const))(
  '%s',
  (_, { files, meta }) => {
    test('the log of QEMU reads completely and prints back', () => {
      const outcome = readAndPrint(
        recordedBytes(files.qemuTrace),
        createQemuLogReader,
        (line) => line,
      );
      expect(outcome.problems).toEqual([]);
      expect(outcome.counts).toEqual(meta.qemuEvents);
      expect(outcome.differences).toEqual([]);
      expect(outcome.summary.events).toBe(sum(meta.qemuEvents));
      expect(outcome.summary.lines).toBe(sum(meta.qemuEvents));
    });

    test('the trace of the guest reads completely and prints back', () => {
      // The console that it came through made the line ends CRLF.
      const outcome = readAndPrint(recordedBytes(files.guestTrace), createFtraceReader, (line) =>
        line.replace(/^.{16}-\d+ +\[\d+\] \S+ +[\d.]+: (\w+):(.*)\r$/, '$1$2'),
      );
      expect(outcome.problems).toEqual([]);
      expect(outcome.counts).toEqual(meta.guestEvents);
      expect(outcome.differences).toEqual([]);
    });
  },
);

test('the text writer writes a whole log as it was', () => {
  const { files } = recordings.find(({ name }) => name === 'linux6.12-pinhole-rng')!;
  const log = recordedBytes(files.qemuTrace);
  let text = '';
  const writer = createQemuTextWriter((piece) => {
    text += piece;
  });
  const reader = createQemuLogReader({ onEvent: (event) => writer.emit(event) });
  reader.push(log);
  reader.end();
  writer.close();
  expect(Buffer.from(text).equals(log)).toBe(true);
});

function sum(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((total, n) => total + n, 0);
}
