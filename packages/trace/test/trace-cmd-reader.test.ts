import { readFileSync } from 'node:fs';
import type { TraceEvent } from '@pinhole/base';
import { recordings } from '@pinhole/recordings';
import { describe, expect, test } from 'vitest';
import { readFtrace, readTraceCmd } from '../src/index.js';
import { recordedBytes } from './support/recorded.js';
import { toTraceCmd } from './support/trace-cmd.js';

const ENTRY = 'hcall_entry:          opcode=32';
const ARGS = { opcode: 32, cpu: 1, pid: 135, task: 'insmod', context: 'hardirq' };

describe('heads', () => {
  test.each([
    ['flags', '          insmod-135   [001] d.h1.     4.124845: ', 4_124_845, {}],
    ['no flags', '          insmod-135   [001]     4.124845: ', 4_124_845, { context: 'task' }],
    ['nanoseconds', '  insmod-135   [001] d.h1.     4.124845250: ', 4_124_845.25, {}],
    ['the first second', '  insmod-135   [001] d.h1.       124845: ', 124_845, {}],
    ['latency format', '  insmod-135     1d.h1.     4.124845: ', 4_124_845, {}],
    [
      'latency format, many CPUs',
      '  insmod-135   127d.s1.     4.124845: ',
      4_124_845,
      { cpu: 127, context: 'softirq' },
    ],
    [
      'latency format, a colon in the name',
      'kworker/1: x-10      1d..1.     4.124845: ',
      4_124_845,
      { task: 'kworker/1: x', pid: 10, context: 'task' },
    ],
  ])('%s', (_, head, t, args) => {
    const { events, problems } = readTraceCmd(`${head}${ENTRY}\n`);
    expect(problems).toEqual([]);
    expect(events).toEqual([
      { t, actor: 'guest', name: 'hcall_entry', args: { ...ARGS, ...args } },
    ]);
  });
});

test('a line written to trace_marker', () => {
  const { events } = readTraceCmd(
    '  init-1     [000] .....     2.784519: print:                tracing_mark_write:   two spaces\n',
  );
  expect(events[0]).toMatchObject({
    name: 'tracing_mark_write',
    args: { message: '  two spaces' },
  });
});

test('headers and notes are no problem', () => {
  const notes = 'CPU 1 is empty\ncpus=2\nCPU:0 [SUBBUFFER START]\n';
  expect(readTraceCmd(notes)).toEqual({ events: [], problems: [] });
});

test('an array, as libtraceevent prints it', () => {
  const { events } = readTraceCmd(
    '  a-1 [000] .....     1.000000: dma_unmap_sg:         0000:00:01.0 dir=NONE phys_addrs=4096 8192 attrs=\n',
  );
  expect(events[0]?.args).toMatchObject({ phys_addrs: '4096 8192' });
});

describe('what trace-cmd 3.1.6 printed', () => {
  const read = (name: string) =>
    readTraceCmd(readFileSync(new URL(`vectors/${name}.txt`, import.meta.url), 'latin1'));
  const plain = read('trace-cmd-report');
  const latency = read('trace-cmd-report-l');
  const exact = read('trace-cmd-report-t');

  test('each form reads completely and has the same events', () => {
    expect([plain.problems, latency.problems, exact.problems]).toEqual([[], [], []]);
    expect(plain.events).toHaveLength(40);
    expect(exact.events.map((event) => ({ ...event, t: Math.round(event.t) }))).toEqual(
      plain.events,
    );
    // Only `-l` has the flags, and it cuts names to eight characters.
    const bare = ({ args, ...event }: TraceEvent) => ({
      ...event,
      args: { ...args, context: 'task', task: `${args.task}`.slice(0, 8) },
    });
    expect(latency.events.map(bare)).toEqual(plain.events.map(bare));
    const contexts = latency.events.map(({ args }) => args.context);
    expect(new Set(contexts)).toEqual(new Set(['task', 'hardirq']));
  });
});

describe('problems', () => {
  const HEAD = '  a-1     [000] .....     1.000000: ';
  test.each([
    ['CPU:0 [12 EVENTS DROPPED]', 'lost', undefined],
    ['CPU:0 [EVENTS DROPPED]', 'lost', undefined],
    ['CPU:0 [LOST 12 EVENTS]', 'lost', undefined],
    ['[12 events lost]', 'lost', undefined],
    [`${HEAD}sched_switch:         a:1 [120] R ==> b:2 [120]`, 'unknown-event', undefined],
    [`${HEAD}print:                start_it: x`, 'unknown-event', undefined],
    [`${HEAD}hcall_entry:          [FAILED TO PARSE] opcode=32`, 'malformed', 'opcode='],
    [`${HEAD}hcall_entry:           opcode=32`, 'malformed', 'opcode='],
    ['  a-1     [000] .....     1.00: x: y', 'malformed', 'a time as seconds.microseconds'],
    ['  a-1     [000] .....  20000000: x: y', 'malformed', 'a time as seconds.microseconds'],
    ['  a-1     0d.?1. 1.000000: hcall_entry: opcode=1', 'malformed', 'a task and a CPU'],
    ['cpus=x', 'malformed', 'a task and a CPU'],
    ['trace-cmd: No such file or directory', 'malformed', 'a task and a CPU'],
  ])('%j is %s', (line, kind, expected) => {
    const { events, problems } = readTraceCmd(`${line}\n`);
    expect(events).toEqual([]);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatchObject({ line: 1, kind });
    if (expected !== undefined) expect(problems[0]?.expected).toContain(expected);
  });
});

test.each(['linux6.12-pinhole-smp2', 'linux7.2-ddw', 'linux6.12-x86-intel-iommu'])(
  '%s in the words of trace-cmd has the same events',
  (name) => {
    const { files } = recordings.find((recording) => recording.name === name)!;
    const text = Buffer.from(recordedBytes(files.guestTrace)).toString('latin1');
    const { events } = readFtrace(text);
    for (const style of ['normal', 'latency'] as const) {
      const read = readTraceCmd(toTraceCmd(text, style));
      expect(read.problems).toEqual([]);
      expect(read.events).toEqual(
        style === 'normal'
          ? events
          : events.map((event) => ({
              ...event,
              args: { ...event.args, task: `${event.args.task}`.slice(0, 8) },
            })),
      );
    }
  },
);
