/** Files of sweeps: what is written is read, shards make the whole, and damage has a place. */
import { crc32 as zlibCrc32 } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  checkSameSweep,
  countPoints,
  defaultCostPreset,
  estimateCosts,
  failedRow,
  MachineError,
  mergeSweeps,
  parseScenario,
  parseSweepAxis,
  planSweep,
  readSweepFile,
  runScenario,
  type Shard,
  type SweepAxis,
  type SweepHeader,
  type SweepRow,
  sweepChecksum,
  sweepColumns,
  sweepHeaderLine,
  sweepRow,
  sweepRowLine,
} from '../../src/index.js';
import { crc32 } from '../../src/sweep/crc32.js';

const AXES: readonly SweepAxis[] = [
  parseSweepAxis('machine.memory=2GiB..16GiB'),
  parseSweepAxis('devices[0].iommuPlatform=true,false'),
];

const header = (axes: readonly SweepAxis[], shard: Shard | null = null): SweepHeader => ({
  schemaVersion: 1,
  pinhole: '0.1.0',
  title: 'a sweep',
  scenario: 'sha256:00',
  costs: { preset: 'power9-kvm', digest: 'sha256:11' },
  axes,
  points: countPoints(axes),
  shard,
});

const whole = (axes: readonly SweepAxis[], shard: Shard | null = null): string =>
  sweepHeaderLine(header(axes, shard)) +
  planSweep(axes, shard ?? undefined)
    .map((point) => lineOf(axes, failedRow(axes, point, `no machine ${point.index}`)))
    .join('');

const lineOf = (axes: readonly SweepAxis[], row: SweepRow): string =>
  sweepRowLine(row, sweepChecksum(header(axes)));

const named = (text: string, name = 'a.ndjson') => ({ name, ...readSweepFile(text, name) });

function problemsOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (error instanceof MachineError && error.code === 'E_SWEEP') return error.message;
    throw error;
  }
  return 'fine';
}

test('a row has the columns of its sweep, and is read as it was written', () => {
  const report = runScenario(
    parseScenario(`machine: { arch: pseries, memory: 2GiB, ddw: false }
devices: [{ type: virtio-blk, iommuPlatform: true }]
workload: [{ read: { offset: 0, length: 8KiB, block: 4KiB } }]`),
  );
  const preset = defaultCostPreset('pseries');
  const costs = preset && estimateCosts(report, preset);
  const [point] = planSweep(AXES);
  const row = point && sweepRow(AXES, point, report, costs);
  expect(Object.keys(row ?? {})).toEqual(sweepColumns(AXES));
  expect(row).toMatchObject({
    point: 0,
    'machine.memory': '2GiB',
    'devices[0].iommuPlatform': 'true',
    outcome: 'works-slow',
    requests: 2,
    hcallsPerRequest: 8,
    tcesPerRequest: 8,
    kicksPerRequest: 1,
    nsMid: costs?.perRequest.mid,
    throughputHigh: costs?.throughput.high,
    error: null,
  });
  const text = sweepHeaderLine(header(AXES)) + lineOf(AXES, row ?? {});
  expect(readSweepFile(text, 'x').rows.get(0)?.row).toEqual(row);
});

const axesArb = fc
  .array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 3 })
  .map((sizes) => sizes.map((size, at) => parseSweepAxis(`axis${at}=1..${size}`)));

test('shards, in any order, merge to the bytes of the whole', () => {
  fc.assert(
    fc.property(
      axesArb,
      fc.integer({ min: 1, max: 9 }),
      fc.infiniteStream(fc.nat()),
      (axes, of, order) => {
        const shards = Array.from({ length: of }, (_, i) =>
          named(whole(axes, of === 1 ? null : { index: i + 1, of }), `${i}`),
        );
        shards.sort(() => ((order.next().value ?? 0) % 2 === 0 ? 1 : -1));
        expect(mergeSweeps(shards).text).toBe(whole(axes));
      },
    ),
  );
});

test('a file that was cut anywhere is the prefix that is whole, or no sweep', () => {
  const text = whole(AXES);
  const firstLine = text.indexOf('\n') + 1;
  fc.assert(
    fc.property(fc.nat({ max: text.length }), (length) => {
      const cut = text.slice(0, length);
      if (length < firstLine) {
        expect(problemsOf(() => readSweepFile(cut, 'f'))).toContain('f:1:1: ');
        return;
      }
      const { rows, wholeLength } = readSweepFile(cut, 'f');
      const kept = cut.slice(0, wholeLength);
      expect(text.startsWith(kept)).toBe(true);
      expect(rows.size).toBe(kept.split('\n').length - 2);
      // What is left to run makes it the whole file again.
      const rest = planSweep(AXES)
        .filter(({ index }) => !rows.has(index))
        .map((point) => lineOf(AXES, failedRow(AXES, point, `no machine ${point.index}`)));
      expect(kept + rest.join('')).toBe(text);
    }),
  );
});

test('any one character that is changed, added or left out is noticed, with its line', () => {
  const text = whole(AXES);
  fc.assert(
    fc.property(
      fc.nat({ max: text.length - 1 }),
      fc.string({ maxLength: 1, unit: 'binary' }),
      fc.boolean(),
      (at, letter, isAdded) => {
        const damaged = text.slice(0, at) + letter + text.slice(isAdded ? at : at + 1);
        const outcome = problemsOf(() => mergeSweeps([named(damaged, 'f')]));
        if (damaged === text) expect(outcome).toBe('fine');
        // Without the last line end, the last line is one that was cut short.
        else if (at === text.length - 1 && letter !== '\n') {
          expect(outcome).toContain(isAdded ? 'f:' : 'f: expected 8 points, found 7: point 7');
        } else {
          const line = text.slice(0, at).split('\n').length;
          // A line end too much or too few shows in one of the two lines.
          expect([`f:${line}:1`, `f:${line + 1}:1`]).toContain(outcome.match(/^f:\d+:1/)?.[0]);
        }
      },
    ),
    { numRuns: 200 },
  );
});

test('a figure that was edited, and a row of another sweep, are refused with what to do', () => {
  const lines = whole(AXES).split('\n');
  const read = (line: number, text: string): string =>
    problemsOf(() => readSweepFile(lines.with(line, text).join('\n'), 'f'));
  const edited = (lines[3] ?? '').replace('no machine 2', 'no machine 9');
  expect(read(3, edited)).toMatch(
    /^f:4:1: damaged or edited: expected a line with the crc32 [0-9a-f]{8}, found one with [0-9a-f]{8}: delete the line, and the sweep runs point 2 again$/,
  );
  const [point] = planSweep(AXES);
  const row = failedRow(AXES, point ?? { index: 0, values: [], set: [] }, 'no machine 0');
  const other = sweepRowLine(row, sweepChecksum({ ...header(AXES), scenario: 'sha256:ff' }));
  expect(JSON.parse(other)).toMatchObject(row);
  expect(read(1, other.trimEnd())).toContain('f:2:1: damaged or edited');
  expect(read(1, `${lines[1]}\r`)).toContain('f:2:1: expected a line that ends with its crc32');
  expect(read(0, (lines[0] ?? '').replace('a sweep', 'a swoop'))).toContain(
    'f:1:1: damaged or edited',
  );
  expect(read(1, JSON.stringify(row))).toContain(
    'f:2:1: expected a line that ends with its crc32, found another: delete the line',
  );
  // All shards of a sweep have one checksum to go on from.
  expect(sweepChecksum(header(AXES, { index: 2, of: 3 }))).toBe(sweepChecksum(header(AXES)));
});

test("a line's checksum is that of gzip and PNG, of the line without it", () => {
  expect(crc32('123456789')).toBe('cbf43926');
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.string(), (one, two) => {
      const known = zlibCrc32(two, zlibCrc32(one));
      expect(Number.parseInt(crc32(two, crc32(one)), 16)).toBe(known);
    }),
  );
  const head = header(AXES);
  const [first = '', second = ''] = whole(AXES).split('\n');
  const without = (line: string): string => line.replace(/,"crc32":"[0-9a-f]{8}"\}$/, '}');
  const said = (line: string): number => Number.parseInt(JSON.parse(line).crc32, 16);
  expect(said(first)).toBe(zlibCrc32(without(first)));
  expect(said(second)).toBe(zlibCrc32(JSON.stringify(head) + without(second)));
});

test('what is missing, double or of another sweep is said, by file', () => {
  const [one, two, three] = [1, 2, 3].map((index) => whole(AXES, { index, of: 3 }));
  const files = [named(one ?? '', 'one'), named(two ?? '', 'two')];
  expect(problemsOf(() => mergeSweeps(files))).toBe('expected all shards, found no 3/3');
  expect(problemsOf(() => mergeSweeps([...files, named(one ?? '', 'copy')]))).toBe(
    'copy: expected each shard once, found 1/3 as in one',
  );
  const short = (three ?? '').split('\n').slice(0, 2).join('\n');
  expect(problemsOf(() => mergeSweeps([...files, named(`${short}\n`, 'three')]))).toBe(
    'three: expected 2 points, found 1: point 5 is the first that is missing (run the sweep again to go on)',
  );
  const other = sweepHeaderLine({ ...header(AXES), pinhole: '0.2.0', costs: null });
  expect(problemsOf(() => mergeSweeps([...files, named(other, 'other')]))).toBe(
    'other: not of the sweep of one: pinhole: expected 0.1.0, found 0.2.0\n' +
      'other: not of the sweep of one: costs: expected power9-kvm sha256:11, found none',
  );
  expect(
    problemsOf(() => mergeSweeps([...files, named(whole(AXES, { index: 1, of: 2 }), 'half')])),
  ).toBe('half: expected a shard of 3, found one of 2');
  expect(problemsOf(() => mergeSweeps([]))).toBe('expected files, found none');
});

test('a row that does not belong is refused with its line', () => {
  const text = whole(AXES);
  const lines = text.split('\n');
  const changed = (line: number, change: (text: string) => string): string =>
    problemsOf(() =>
      readSweepFile(lines.map((each, at) => (at === line ? change(each) : each)).join('\n'), 'f'),
    );
  expect(changed(2, (line) => line.replace('2GiB', '3GiB'))).toBe(
    'f:3:1: expected machine.memory 2GiB at point 1, found 3GiB',
  );
  expect(changed(2, () => lines[1] ?? '')).toBe(
    'f:3:1: expected each point once, found point 0 again',
  );
  expect(changed(2, (line) => line.replace('"point":1', '"point":99'))).toContain(
    'f:3:1: expected a point from 0 to 7, found 99',
  );
  expect(changed(2, (line) => line.replace('outcome', 'outgo'))).toContain(
    'f:3:1: expected a row with',
  );
  expect(changed(2, () => 'what')).toBe('f:3:1: expected a line of JSON, found "what"');
  expect(changed(2, () => '[]')).toContain('f:3:1: expected a row');
  expect(changed(0, () => '{}')).toContain('f:1:1: expected the first line of a sweep');
  expect(changed(0, (line) => line.replace('"points":8', '"points":9'))).toBe(
    'f:1:1: expected points 8, found 9',
  );
  // So many that their names alone would fill memory.
  expect(
    changed(0, (line) => line.replace('"shard":null', '"shard":{"index":1,"of":4294967295}')),
  ).toContain('f:1:1: expected the first line of a sweep, {"sweep": {...}}, found another');
  const shard = whole(AXES, { index: 1, of: 2 }).split('\n');
  shard[1] = lines[2] ?? '';
  expect(problemsOf(() => readSweepFile(shard.join('\n'), 'f'))).toBe(
    'f:2:1: expected a point of shard 1/2, found point 1',
  );
});

test('a file of another sweep is told from one to go on with', () => {
  const expected = header(AXES, { index: 1, of: 2 });
  expect(problemsOf(() => checkSameSweep(expected, expected, 'f'))).toBe('fine');
  expect(problemsOf(() => checkSameSweep(expected, header(AXES), 'f'))).toBe(
    'f:1:1: a file of another sweep: shard: expected 1/2, found none',
  );
  const scenario = { ...expected, scenario: 'sha256:ff' };
  expect(problemsOf(() => checkSameSweep(expected, scenario, 'f'))).toContain(
    'a file of another sweep: scenario, settings, disk or seed: expected sha256:00, found sha256:ff',
  );
});
