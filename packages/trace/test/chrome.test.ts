import type { TraceEvent } from '@pinhole/base';
import { recordings } from '@pinhole/recordings';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createChromeWriter, createQemuLogReader, type FlowPoint } from '../src/index.js';
import { recordedBytes } from './support/recorded.js';

interface Row {
  ph: string;
  pid: number;
  tid: number;
  ts: number;
  name: string;
  s?: string;
  cat?: string;
  id?: number;
  bp?: string;
  args?: Record<string, unknown>;
}

function write(events: Iterable<TraceEvent>): Row[] {
  return writeLinked(Array.from(events, (item) => [item, []] as const));
}

function writeLinked(
  events: Iterable<readonly [event: TraceEvent, flows: readonly FlowPoint[]]>,
): Row[] {
  let text = '';
  const writer = createChromeWriter((piece) => {
    text += piece;
  });
  for (const [event, flows] of events) writer.emit(event, flows);
  writer.close();
  writer.close();
  return JSON.parse(text).traceEvents as Row[];
}

/** What a viewer needs: named tracks, nested spans, time that runs forward, flows within spans. */
function check(rows: readonly Row[]): void {
  const tracks = new Map<number, { open: string[]; ts: number }>();
  const flows = new Set<number>();
  for (const row of rows) {
    expect(row.pid).toBe(1);
    if (row.ph === 'M') {
      if (row.name === 'thread_name') {
        expect(tracks.has(row.tid)).toBe(false);
        tracks.set(row.tid, { open: [], ts: 0 });
      }
      continue;
    }
    const track = tracks.get(row.tid);
    if (track === undefined) throw new Error(`track ${row.tid} has no name`);
    expect(row.ts).toBeGreaterThanOrEqual(track.ts);
    track.ts = row.ts;
    if (row.ph === 'B') track.open.push(row.name);
    else if (row.ph === 'E') expect(track.open.pop()).toBe(row.name);
    else if (row.cat === undefined) expect([row.ph, row.s]).toEqual(['i', 't']);
    else {
      expect([row.cat, row.name]).toEqual(['flow', 'flow']);
      expect(track.open).not.toEqual([]);
      expect(flows.has(row.id!)).toBe(row.ph !== 's');
      expect(row.bp).toBe(row.ph === 'f' ? 'e' : undefined);
      if (row.ph === 's') flows.add(row.id!);
      else if (row.ph === 'f') flows.delete(row.id!);
      else expect(row.ph).toBe('t');
    }
  }
  for (const { open } of tracks.values()) expect(open).toEqual([]);
}

const event = (
  t: number,
  actor: string,
  name: string,
  phase?: 'begin' | 'end',
  args: TraceEvent['args'] = {},
): TraceEvent => (phase === undefined ? { t, actor, name, args } : { t, actor, name, phase, args });

test('no events at all', () => {
  expect(write([])).toEqual([]);
});

test('tracks, spans and points', () => {
  const rows = write([
    event(1, 'guest', 'blk_request', 'begin', { sector: 8n }),
    event(2, 'hypervisor', 'hcall', 'begin', { name: 'H_PUT_TCE' }),
    event(3, 'hypervisor', 'spapr_iommu_pci_put', undefined, { ret: -4n }),
    event(4, 'hypervisor', 'hcall', 'end', { ret: 0 }),
    event(5, 'guest', 'blk_request', 'end'),
  ]);
  check(rows);
  expect(rows.filter(({ ph }) => ph !== 'M')).toEqual([
    { ph: 'B', pid: 1, tid: 1, ts: 1, name: 'blk_request', args: { sector: '0x8' } },
    { ph: 'B', pid: 1, tid: 2, ts: 2, name: 'hcall', args: { name: 'H_PUT_TCE' } },
    { ph: 'i', pid: 1, tid: 2, ts: 3, name: 'spapr_iommu_pci_put', s: 't', args: { ret: '-4' } },
    { ph: 'E', pid: 1, tid: 2, ts: 4, name: 'hcall', args: { ret: 0 } },
    { ph: 'E', pid: 1, tid: 1, ts: 5, name: 'blk_request', args: {} },
  ]);
  const names = rows.filter(({ name }) => name === 'thread_name').map(({ args }) => args?.name);
  expect(names).toEqual(['guest', 'hypervisor']);
});

describe('input that does not nest', () => {
  test('close ends what is open', () => {
    const rows = write([event(1, 'a', 'x', 'begin'), event(2, 'a', 'y', 'begin')]);
    check(rows);
    expect(rows.filter(({ ph }) => ph === 'E').map(({ name }) => name)).toEqual(['y', 'x']);
  });

  test('an end closes what was opened after its begin', () => {
    const rows = write([
      event(1, 'a', 'x', 'begin'),
      event(2, 'a', 'y', 'begin'),
      event(3, 'a', 'x', 'end', { ret: 1 }),
      event(4, 'a', 'y', 'end'),
    ]);
    check(rows);
    expect(rows.filter(({ ph }) => ph === 'E').map(({ name, args }) => [name, args])).toEqual([
      ['y', undefined],
      ['x', { ret: 1 }],
    ]);
    expect(rows.at(-1)).toMatchObject({ ph: 'i', name: 'y' });
  });

  test('an event after close is an error', () => {
    const writer = createChromeWriter(() => {});
    writer.close();
    expect(() => writer.emit(event(0, 'a', 'x'))).toThrow(
      expect.objectContaining({ code: 'E_TRACE_CLOSED' }),
    );
  });

  test('any events whatever', () => {
    const any = fc
      .tuple(
        fc.integer({ min: 0, max: 20 }),
        fc.constantFrom('guest', 'device', 'a "quoted"\n actor'),
        fc.oneof(fc.constantFrom('x', 'y', 'z'), fc.string({ unit: 'binary', maxLength: 3 })),
        fc.constantFrom(undefined, 'begin' as const, 'begin' as const, 'end' as const),
        fc.dictionary(fc.string(), fc.oneof(fc.string(), fc.bigInt(), fc.boolean(), fc.integer())),
      )
      .map((parts) => event(...parts));
    fc.assert(fc.property(fc.array(any, { maxLength: 40 }), (events) => check(write(events))));
  });
});

describe('flows', () => {
  const kinds = (rows: readonly Row[]) =>
    rows
      .filter(({ ph }) => ph !== 'M')
      .map(({ ph, tid, id }) => (id === undefined ? `${ph}${tid}` : `${ph}${tid}#${id}`));

  test('from a map through a hypercall to an access', () => {
    const rows = writeLinked([
      [event(1, 'guest', 'dma_map_page'), [{ id: 7, phase: 'start' }]],
      [event(2, 'hypervisor', 'hcall', 'begin'), [{ id: 7, phase: 'step' }]],
      [event(3, 'hypervisor', 'hcall', 'end'), []],
      [event(4, 'device', 'backend_read'), [{ id: 7, phase: 'end' }]],
      [event(5, 'device', 'backend_read'), []],
    ]);
    check(rows);
    expect(kinds(rows)).toEqual(['B1', 's1#7', 'E1', 'B2', 't2#7', 'E2', 'B3', 'f3#7', 'E3', 'i3']);
    expect(rows.find(({ ph }) => ph === 'f')).toEqual({
      ph: 'f',
      pid: 1,
      tid: 3,
      ts: 4,
      name: 'flow',
      cat: 'flow',
      id: 7,
      bp: 'e',
    });
  });

  test('at the end of a span it binds to that span', () => {
    const rows = writeLinked([
      [event(1, 'a', 'x', 'begin'), []],
      [event(2, 'a', 'y', 'begin'), []],
      [event(3, 'a', 'x', 'end'), [{ id: 1, phase: 'start' }]],
    ]);
    check(rows);
    expect(kinds(rows)).toEqual(['B1', 'B1', 'E1', 's1#1', 'E1']);
  });

  test('a flow that has not started, one that starts twice, an id used again', () => {
    const rows = writeLinked([
      [
        event(1, 'a', 'x'),
        [
          { id: 1, phase: 'step' },
          { id: 1, phase: 'end' },
        ],
      ],
      [
        event(2, 'a', 'x'),
        [
          { id: 1, phase: 'start' },
          { id: 1, phase: 'start' },
        ],
      ],
      [
        event(3, 'a', 'x'),
        [
          { id: 1, phase: 'end' },
          { id: 1, phase: 'end' },
        ],
      ],
      [event(4, 'a', 'x'), [{ id: 1, phase: 'start' }]],
    ]);
    check(rows);
    expect(kinds(rows).filter((kind) => kind.includes('#'))).toEqual([
      's1#1',
      't1#1',
      'f1#1',
      's1#1',
    ]);
  });

  test('any events and flows whatever', () => {
    const item = fc.tuple(
      fc
        .tuple(
          fc.nat(20),
          fc.constantFrom('guest', 'device'),
          fc.constantFrom('x', 'y'),
          fc.constantFrom(undefined, 'begin' as const, 'end' as const),
        )
        .map(([t, actor, name, phase]) => event(t, actor, name, phase)),
      fc.array(fc.record({ id: fc.nat(3), phase: fc.constantFrom('start', 'step', 'end') }), {
        maxLength: 3,
      }),
    );
    fc.assert(fc.property(fc.array(item, { maxLength: 40 }), (items) => check(writeLinked(items))));
  });
});

test('a recorded run', () => {
  const { files, meta } = recordings.find(({ name }) => name === 'linux6.12-pinhole')!;
  const events: TraceEvent[] = [];
  const reader = createQemuLogReader({ onEvent: (item) => events.push(item) });
  reader.push(recordedBytes(files.qemuTrace));
  reader.end();
  const rows = write(events);
  check(rows);
  const points = rows.filter(({ ph }) => ph === 'i');
  expect(points).toHaveLength(Object.values(meta.qemuEvents).reduce((sum, n) => sum + n, 0));
});
