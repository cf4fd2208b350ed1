/** `pinhole replay --trace-file`: both files of a recording as one timeline. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findRecording, type RecordingName } from '@pinhole/recordings';
import { describe, expect, test } from 'vitest';
import { pinhole, scratchFolder } from '../pinhole.js';

interface Row {
  readonly ph: string;
  readonly tid: number;
  readonly ts: number;
  readonly name: string;
  readonly cat?: string;
  readonly id?: number;
  readonly args?: Readonly<Record<string, unknown>>;
}

const folder = scratchFolder();

function options(name: RecordingName): string[] {
  const { files } = findRecording(name);
  const [qemu, guest, console] = [files.qemuTrace, files.guestTrace, files.console].map((url) =>
    fileURLToPath(url),
  );
  return ['--qemu-trace', qemu ?? '', '--guest-trace', guest ?? '', '--console', console ?? ''];
}

function timeline(name: RecordingName): Row[] {
  const file = join(folder, `${name}.json`);
  const { stderr } = pinhole(['replay', ...options(name), '--trace-file', file]);
  expect(stderr).toBe('');
  return (JSON.parse(readFileSync(file, 'utf8')) as { traceEvents: Row[] }).traceEvents;
}

describe.each([
  ['linux6.12-pinhole-smp2', 'guest CPU 1'],
  ['linux6.12-ddw', 'guest'],
  ['linux7.2-ddw-lost', 'guest'],
] as const)('%s', (name, track) => {
  const rows = timeline(name);
  const { meta } = findRecording(name);
  const maps = (meta.guestEvents.dma_map_page ?? 0) + (meta.guestEvents.dma_map_phys ?? 0);

  test('spans are balanced and time does not run backwards on a track', () => {
    const open = new Map<number, string[]>();
    const time = new Map<number, number>();
    for (const { ph, tid, ts, name: what } of rows) {
      expect(ts).toBeGreaterThanOrEqual(time.get(tid) ?? 0);
      time.set(tid, ts);
      const names = open.get(tid) ?? [];
      open.set(tid, names);
      if (ph === 'B') names.push(what);
      if (ph === 'E') expect(names.pop()).toBe(what);
    }
    expect([...open.values()].flat()).toEqual([]);
  });

  test('there is a track for the guest, the hypervisor and the device', () => {
    const tracks = rows.filter(({ ph, name: what }) => ph === 'M' && what === 'thread_name');
    const names = tracks.map(({ args }) => args?.name);
    expect(names).toEqual(expect.arrayContaining([track, 'hypervisor', 'device']));
  });

  test('each mapping is a flow: from the map to its hypercall, its first access, its unmap', () => {
    const flows = new Map<number, Row[]>();
    for (const row of rows.filter(({ cat }) => cat === 'flow')) {
      flows.set(row.id as number, [...(flows.get(row.id as number) ?? []), row]);
    }
    expect(flows.size).toBe(maps);
    const hypervisor = rows.find(({ args }) => args?.name === 'hypervisor')?.tid;
    const device = rows.find(({ args }) => args?.name === 'device')?.tid;
    for (const points of flows.values()) {
      expect(points.map(({ ph }) => ph).join('')).toMatch(/^st+f$/);
      expect(points.every(({ ts }, i) => i === 0 || ts >= (points[i - 1] as Row).ts)).toBe(true);
      const calls = points.filter(({ tid }) => tid === hypervisor);
      expect(calls.length > 0).toBe(name !== 'linux6.12-ddw');
      expect(points.filter(({ tid }) => tid === device)).toHaveLength(1);
    }
  });
});

describe.each(['linux6.12-x86-intel-iommu', 'linux6.12-x86-virtio-iommu'] as const)(
  '%s',
  (name) => {
    const rows = timeline(name);
    const trackOf = (called: string): number | undefined =>
      rows.find(({ args }) => args?.name === called)?.tid;

    test('no span ends before it began, and time does not run backwards on a track', () => {
      const open = new Map<number, Row[]>();
      const time = new Map<number, number>();
      for (const row of rows) {
        expect(row.ts).toBeGreaterThanOrEqual(time.get(row.tid) ?? 0);
        time.set(row.tid, row.ts);
        if (row.ph === 'B') open.set(row.tid, [...(open.get(row.tid) ?? []), row]);
        if (row.ph === 'E')
          expect(row.ts).toBeGreaterThanOrEqual(open.get(row.tid)?.pop()?.ts ?? 0);
      }
    });

    test('each mapping is a flow from the map to the access through the IOMMU to the unmap', () => {
      const flows = new Map<number, Row[]>();
      for (const row of rows.filter(({ cat }) => cat === 'flow')) {
        flows.set(row.id as number, [...(flows.get(row.id as number) ?? []), row]);
      }
      const { guestEvents } = findRecording(name).meta;
      expect(flows.size).toBe((guestEvents.dma_map_page ?? 0) + (guestEvents.dma_map_phys ?? 0));
      const device = trackOf('device');
      for (const points of flows.values()) {
        expect(points.map(({ ph }) => ph).join('')).toBe('stf');
        expect(points.map(({ tid }) => tid === device)).toEqual([false, true, false]);
        expect(points.every(({ ts }, i) => i === 0 || ts >= (points[i - 1] as Row).ts)).toBe(true);
      }
    });

    test('what the guest tells its IOMMU has a track of its own', () => {
      const told = rows.filter(({ tid, ph }) => tid === trackOf('IOMMU') && ph !== 'M');
      const { qemuEvents } = findRecording(name).meta;
      const wanted = name.endsWith('intel-iommu') ? 'vtd_inv_desc' : 'virtio_iommu_unmap';
      expect(told.filter((row) => row.name === wanted)).toHaveLength(qemuEvents[wanted] ?? -1);
    });
  },
);

test('as JSON lines, each event with its mapping', () => {
  const file = join(folder, 'timeline.ndjson');
  const name = 'linux6.12-pinhole-rng';
  pinhole(['replay', ...options(name), '--trace-file', file, '--trace-format', 'ndjson']);
  const events = readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { name: string; args: Record<string, unknown> });
  const first = events.filter(({ args }) => args.mapping === 1).map((event) => event.name);
  expect(first).toEqual([
    'dma_map',
    expect.stringMatching(/^spapr_iommu_pci_(put|indirect)$/),
    'spapr_iommu_xlate',
    'dma_unmap',
    'spapr_iommu_pci_stuff',
  ]);
});

test('a format without a file goes to stderr; other formats are refused', () => {
  const { stderr, code } = pinhole([
    'replay',
    ...options('linux6.12-pinhole-rng'),
    '--trace-format',
    'chrome',
  ]);
  expect(code).toBe(0);
  expect(Array.isArray((JSON.parse(stderr) as { traceEvents: Row[] }).traceEvents)).toBe(true);
  const refused = pinhole(['replay', '--qemu-trace', 'x', '--trace-format', 'qemu']);
  expect(refused.code).toBe(2);
  expect(refused.stderr).toContain('chrome, ndjson');
});
