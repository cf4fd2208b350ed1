import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { LogReader, ReaderOptions } from '../../src/index.js';
import {
  createFtraceReader,
  createQemuLogReader,
  createTraceCmdReader,
  formatEvent,
  readFtrace,
  readQemuLog,
} from '../../src/index.js';
import { arbitraryEvent, LINUX_EVENTS, QEMU_EVENTS } from '../support/arbitrary.js';

test('whatever QEMU can print reads back as it was', () => {
  fc.assert(
    fc.property(arbitraryEvent(QEMU_EVENTS), (event) => {
      expect(readQemuLog(`${formatEvent(event)}\n`)).toEqual({ events: [event], problems: [] });
    }),
    { numRuns: 700 },
  );
});

test('whatever Linux can print reads back as it was', () => {
  fc.assert(
    fc.property(arbitraryEvent(LINUX_EVENTS), (event) => {
      const body = formatEvent(event).replace(' ', ': ');
      const { events, problems } = readFtrace(`  init-1 [002] d..1. 0.000001: ${body}\n`);
      expect(problems).toEqual([]);
      const head = { cpu: 2, pid: 1, task: 'init', context: 'task' };
      expect(events).toEqual([{ ...event, args: { ...event.args, ...head } }]);
    }),
    { numRuns: 700 },
  );
});

test('a changed byte never hides: what is still accepted prints back as it was read', () => {
  const changed = fc
    .tuple(arbitraryEvent(QEMU_EVENTS), fc.nat(), fc.integer({ min: 0x20, max: 0x7e }))
    .map(([event, at, byte]) => {
      const line = formatEvent(event);
      const index = at % line.length;
      return line.slice(0, index) + String.fromCharCode(byte) + line.slice(index + 1);
    });
  fc.assert(
    fc.property(changed, (line) => {
      const { events, problems } = readQemuLog(`${line}\n`);
      expect(events.length + problems.length).toBe(1);
      for (const event of events) expect(formatEvent(event)).toBe(line);
    }),
    { numRuns: 700 },
  );
});

describe.each([
  ['QEMU', createQemuLogReader],
  ['ftrace', createFtraceReader],
  ['trace-cmd', createTraceCmdReader],
] as const)('the reader of %s', (_, createReader) => {
  test('gives the same for any chunks', () => {
    const line = fc.oneof(
      arbitraryEvent(QEMU_EVENTS).map(formatEvent),
      arbitraryEvent(LINUX_EVENTS).map(
        (event) => `  x-1 [000] ..... 1.000000: ${formatEvent(event).replace(' ', ': ')}`,
      ),
      fc.string({ unit: 'binary', maxLength: 300 }),
    );
    const text = fc
      .tuple(fc.array(line, { maxLength: 12 }), fc.constantFrom('\n', '\r\n'), fc.boolean())
      .map(([lines, end, isComplete]) => lines.join(end) + (isComplete ? end : ''));
    fc.assert(
      fc.property(text, fc.array(fc.nat(400), { maxLength: 40 }), (log, sizes) => {
        const bytes = new TextEncoder().encode(log);
        expect(readChunks(createReader, bytes, sizes)).toEqual(readChunks(createReader, bytes, []));
      }),
      { numRuns: 500 },
    );
  });
});

/** All that a reader says when it gets chunks of these sizes, the rest at once. */
function readChunks(
  createReader: (options: ReaderOptions) => LogReader,
  bytes: Uint8Array,
  sizes: readonly number[],
): unknown[] {
  const said: unknown[] = [];
  const reader = createReader({
    onEvent: (event, line) => said.push([line, event]),
    onProblem: (problem) => said.push(problem),
    maxLineBytes: 200,
  });
  let at = 0;
  for (const size of sizes) {
    // A copy: the reader must not hold on to a chunk that its owner uses again.
    const chunk = bytes.slice(at, at + size);
    reader.push(chunk);
    chunk.fill(0x21);
    at += size;
  }
  reader.push(bytes.slice(at));
  said.push(reader.end());
  return said;
}
