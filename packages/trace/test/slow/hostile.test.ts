// What no QEMU and no kernel writes: nothing throws, memory is bounded, and what was readable
// before the damage is read.
import { createRng } from '@pinhole/base';
import { recordings } from '@pinhole/recordings';
import { describe, expect, test } from 'vitest';
import type { LogReader, ReaderOptions, ReadProblem } from '../../src/index.js';
import { createFtraceReader, createQemuLogReader, createTraceCmdReader } from '../../src/index.js';
import { recordedBytes } from '../support/recorded.js';
import { toTraceCmd } from '../support/trace-cmd.js';

const { files } = recordings.find(({ name }) => name === 'linux6.12-pinhole-net')!;

const ftrace = Buffer.from(recordedBytes(files.guestTrace)).toString('latin1');
const traceCmd = new TextEncoder().encode(toTraceCmd(ftrace, 'normal').replace(/^.*\n.*\n/, ''));

interface Reading {
  events: string[];
  problems: ReadProblem[];
  lines: number;
}

function read(
  createReader: (options: ReaderOptions) => LogReader,
  chunks: Iterable<Uint8Array>,
): Reading {
  const events: string[] = [];
  const problems: ReadProblem[] = [];
  const reader = createReader({
    onEvent: (event) => events.push(event.name),
    onProblem: (problem) => problems.push(problem),
  });
  for (const chunk of chunks) reader.push(chunk);
  return { events, problems, lines: reader.end().lines };
}

describe.each([
  ['QEMU', createQemuLogReader, recordedBytes(files.qemuTrace)],
  ['ftrace', createFtraceReader, recordedBytes(files.guestTrace)],
  ['trace-cmd', createTraceCmdReader, traceCmd],
] as const)('the reader of %s', (_, createReader, recorded) => {
  const sample = linesOf(recorded, 40);

  test('survives random bytes', () => {
    const rng = createRng(1);
    for (let round = 0; round < 300; round += 1) {
      const bytes = Uint8Array.from({ length: rng.below(2000) }, () => rng.below(256));
      const { problems } = read(createReader, [bytes]);
      for (const { text } of problems) {
        expect(text).toMatch(/^[\x20-\x7e]*$/);
        expect(text.length).toBeLessThan(700);
      }
    }
  });

  test('survives damaged lines and accounts for each', () => {
    const rng = createRng(2);
    for (let round = 0; round < 3000; round += 1) {
      const bytes = sample.slice();
      const damages = 1 + rng.below(8);
      for (let i = 0; i < damages; i += 1) bytes[rng.below(bytes.length)] = rng.below(256);
      const { events, problems, lines } = read(createReader, [bytes]);
      expect(events.length + problems.length).toBeLessThanOrEqual(lines);
    }
  });

  test('cut at any byte: the events before the cut are intact', () => {
    const whole = read(createReader, [sample]);
    for (let size = 0; size <= sample.length; size += 1) {
      const { events, problems } = read(createReader, [sample.subarray(0, size)]);
      expect(events).toEqual(whole.events.slice(0, events.length));
      const isClean = size === 0 || sample[size - 1] === 0x0a;
      expect(problems.at(-1)?.kind === 'cut').toBe(!isClean);
    }
    expect(whole.events.length).toBeGreaterThan(20);
  });

  test.each([1 << 20, 64])('a line of 1 MiB, in chunks of %d bytes', (size) => {
    const long = new Uint8Array(1 << 20).fill(0x61);
    const chunks: Uint8Array[] = [sample];
    for (let at = 0; at < long.length; at += size) chunks.push(long.subarray(at, at + size));
    chunks.push(Uint8Array.of(0x0a), sample);
    const { events, problems } = read(createReader, chunks);
    const alone = read(createReader, [sample]);
    expect(events).toEqual([...alone.events, ...alone.events]);
    const tooLong = problems.filter(({ kind }) => kind === 'too-long');
    expect(tooLong).toHaveLength(1);
    expect(tooLong[0]?.text).toMatch(/^a{100,200}\.\.\.$/);
  });

  test('a gibibyte without a newline takes no memory', () => {
    const chunk = new Uint8Array(1 << 20).fill(0x62);
    const reader = createReader({ onEvent() {} });
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 1024; i += 1) reader.push(chunk);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 << 20);
    expect(reader.end().problems.cut).toBe(1);
  });

  test('NUL bytes between the lines, as a crashed host leaves them', () => {
    const { events, problems } = read(createReader, [sample, new Uint8Array(4096), sample]);
    const alone = read(createReader, [sample]);
    // The zeros and the first line after them are one line.
    const damaged = problems.filter(({ kind }) => kind === 'binary');
    expect(damaged).toHaveLength(1);
    expect(events.length).toBeGreaterThanOrEqual(2 * alone.events.length - 1);
  });
});

/** The first lines that are not comments. */
function linesOf(bytes: Uint8Array, count: number): Uint8Array {
  let start = 0;
  while (bytes[start] === 0x23) start = bytes.indexOf(0x0a, start) + 1;
  let end = start;
  for (let i = 0; i < count; i += 1) end = bytes.indexOf(0x0a, end) + 1;
  return bytes.slice(start, end);
}
