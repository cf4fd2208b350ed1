import type { TraceEvent } from '@pinhole/base';
import { recordings } from '@pinhole/recordings';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createChromeWriter, createQemuLogReader } from '../src/index.js';
import { recordedBytes } from './support/recorded.js';

interface Row {
  ph: string;
  pid: number;
  tid: number;
  ts: number;
  name: string;
  s?: string;
  args?: Record<string, unknown>;
}

function write(events: Iterable<TraceEvent>): Row[] {
  let text = '';
  const writer = createChromeWriter((piece) => {
    text += piece;
  });
  for (const event of events) writer.emit(event);
  writer.close();
  writer.close();
  return JSON.parse(text).traceEvents as Row[];
}

/** What a viewer needs: named tracks, balanced and nested spans, time that runs forward. */
function check(rows: readonly Row[]): void {
  const tracks = new Map<number, { open: string[]; ts: number }>();
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
    else expect([row.ph, row.s]).toEqual(['i', 't']);
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
