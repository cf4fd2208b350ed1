/** Saved state: what was saved comes back, and nothing that is damaged gets in. */
import { createGuestMemory, DmaAccess, DmaStatus } from '@pinhole/memory';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  LIMITED_ADDRESS_WINDOW,
  type SavedTable,
  SpaprIommu,
  SpaprPhb,
  SpaprVioDevice,
  TceError,
  TceTable,
} from '../src/index.js';
import { loadTable, saveTable } from '../src/saved-state.js';

const MIB = 2 ** 20;
const WINDOW_2 = 2n ** 59n;
const memory = createGuestMemory({ regions: [{ base: 0, size: 512 * MIB }] });

function build(): SpaprIommu {
  return new SpaprIommu({
    phbs: [
      new SpaprPhb({ memory, dmaWindowSize: 64 * 4096 }),
      new SpaprPhb({ memory, index: 1, limitedAddressMode: true }),
    ],
    vio: [
      new SpaprVioDevice({ reg: 0x2000, memory }),
      new SpaprVioDevice({ reg: 0x7100_0000, memory, windowSize: 0 }),
    ],
  });
}

/** An IOMMU in which everything is something other than at the start. */
function used(): SpaprIommu {
  const iommu = build();
  const [first, limited] = iommu.phbs as [SpaprPhb, SpaprPhb];
  first.tables[0]?.fill(3, 4, 0x5003n);
  first.tables[0]?.put(63, 2n ** 64n - 1n);
  first.tables[1]?.enable({ pageShift: 24, busOffset: WINDOW_2, nbTable: 16 });
  for (let i = 0; i < 16; i += 1) first.tables[1]?.put(i, (BigInt(i) << 24n) | 3n);
  limited.tables[0]?.disable();
  limited.isLimited = true;
  const [, second] = limited.tables as [TceTable, TceTable];
  second.enable({ pageShift: 16, busOffset: LIMITED_ADDRESS_WINDOW, nbTable: 100 });
  second.isDefaultWindow = true;
  iommu.vio[0]?.table?.put(0xffff, 0x1234_5001n);
  iommu.vio[0]?.setBypass(true);
  return iommu;
}

const json = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

describe('what is saved', () => {
  test('is plain JSON: each window, and its entries as runs of equal steps', () => {
    const saved = used().save();
    expect(json(saved)).toEqual(saved);
    expect(saved.phbs[0]).toEqual({
      buid: '0x800000020000000',
      isLimited: false,
      tables: [
        {
          liobn: 0x8000_0000,
          pageShift: 12,
          busOffset: '0x0',
          nbTable: 64,
          isDefaultWindow: true,
          entries: [
            [3, 4, '0x5003', '0x0'],
            [63, 1, '0xffffffffffffffff', '0x0'],
          ],
        },
        {
          liobn: 0x8000_0001,
          pageShift: 24,
          busOffset: '0x800000000000000',
          nbTable: 16,
          isDefaultWindow: false,
          entries: [[0, 16, '0x3', '0x1000000']],
        },
      ],
    });
    expect(saved.vio.map(({ reg, bypass }) => [reg, bypass])).toEqual([
      [0x2000, true],
      [0x7100_0000, false],
    ]);
    expect(saved.vio[1]?.table).toBeNull();
  });

  test('comes back, whatever the IOMMU held before', () => {
    for (const before of [build(), used()]) {
      before.phbs[0]?.tables[0]?.put(9, 0x9003n);
      before.vio[0]?.table?.put(9, 0x9003n);
      before.restore(json(used().save()));
      expect(before.save()).toEqual(used().save());
    }
    const back = used();
    back.restore(json(build().save()));
    expect(back.save()).toEqual(build().save());
  });

  test('translates as before', () => {
    const iommu = build();
    iommu.restore(json(used().save()));
    const out = { gpa: 0, length: 0 };
    const [phb] = iommu.phbs;
    expect(phb?.translate(0x0800_0000, 0x0312_3456, 16, DmaAccess.READ, out)).toBe(DmaStatus.OK);
    expect(out.gpa).toBe(0x0312_3456);
    const [device] = iommu.vio;
    expect([device?.isBypassed, device?.isIdentity]).toEqual([true, true]);
  });

  test('any entries come back, side by side or alone', () => {
    const entry = fc.oneof(
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      fc.constantFrom(0n, 3n, 2n ** 32n - 1n, 2n ** 64n - 1n),
    );
    const run = fc.record({
      index: fc.oneof(fc.nat({ max: 300 }), fc.nat({ max: 20_000 })),
      count: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.constantFrom(4096, 9000)),
      entry,
      step: fc.oneof(fc.constant(0n), fc.constantFrom(1n, 0x1000n, 2n ** 64n - 0x1000n), entry),
    });
    fc.assert(
      fc.property(fc.array(run, { maxLength: 12 }), (runs) => {
        const table = new TceTable(1);
        table.enable({ pageShift: 12, busOffset: 0n, nbTable: 30_000 });
        const model = new Map<number, bigint>();
        for (const { index, count, entry, step } of runs) {
          for (let i = 0; i < count; i += 1) {
            const value = BigInt.asUintN(64, entry + BigInt(i) * step);
            table.put(index + i, value);
            model.set(index + i, value);
          }
        }
        const saved = json(saveTable(table)) as SavedTable;
        const copy = new TceTable(1);
        loadTable(copy, saved);
        expect(saveTable(copy)).toEqual(saved);
        expect([copy.live, copy.nbTable]).toEqual([table.live, 30_000]);
        for (const [index, value] of model) {
          if (copy.get(index) !== value) expect(copy.get(index), `entry ${index}`).toBe(value);
        }
        // By hand: each run says its entries, the rest is zero.
        const listed = saved.entries.reduce((sum, [, count]) => sum + count, 0);
        expect(listed).toBe([...model.values()].filter((value) => value !== 0n).length);
      }),
      { numRuns: 60 },
    );
  });
});

describe('notifiers', () => {
  const listen = (table: TceTable | undefined) => {
    const heard: bigint[] = [];
    table?.addNotifier({ notify: ({ iova }) => heard.push(iova) });
    return heard;
  };

  test('hear nothing of a restore, and stay where the window stays', () => {
    const iommu = used();
    const heard = listen(iommu.phbs[0]?.tables[0]);
    iommu.restore(json(used().save()));
    expect(heard).toEqual([]);
    iommu.phbs[0]?.tables[0]?.put(1, 3n);
    expect(heard).toEqual([0x1000n]);
  });

  test('go with a window that another takes the place of', () => {
    const iommu = used();
    const heard = listen(iommu.phbs[0]?.tables[1]);
    iommu.restore(json(build().save()));
    iommu.phbs[0]?.tables[1]?.enable({ pageShift: 24, busOffset: WINDOW_2, nbTable: 16 });
    iommu.phbs[0]?.tables[1]?.put(0, 3n);
    expect(heard).toEqual([]);
  });
});

/** One change of a saved state: where, and to what. `undefined` takes it out. */
type Damage = readonly [path: string, value: unknown];

function damaged([path, value]: Damage): unknown {
  const saved = json(used().save());
  const keys = path.split(/[.[\]]+/).filter((key) => key !== '');
  const last = keys.pop() ?? '';
  let parent = saved as Record<string, unknown>;
  for (const key of keys) parent = parent[key] as Record<string, unknown>;
  if (value === undefined) delete parent[last];
  else parent[last] = value;
  return saved;
}

/** The error of a restore, after it was made sure that nothing changed. */
function refusal(saved: unknown): TceError {
  const iommu = used();
  const before = iommu.save();
  let error: unknown;
  try {
    iommu.restore(saved);
  } catch (caught) {
    error = caught;
  }
  expect(error).toBeInstanceOf(TceError);
  expect(iommu.save()).toEqual(before);
  return error as TceError;
}

describe('what is damaged', () => {
  const TABLE = 'phbs[0].tables[0]';
  const VIO = 'vio[0].table';
  const RUN = `${TABLE}.entries[0]`;
  const cases: readonly Damage[] = [
    ['phbs', undefined],
    ['phbs', 7],
    ['phbs', {}],
    ['vio', undefined],
    ['vio', 'none'],
    ['phbs[0]', null],
    ['phbs[1]', []],
    ['phbs[0].buid', undefined],
    ['phbs[0].buid', 0],
    ['phbs[0].buid', '0x800000020000001'],
    ['phbs[0].buid', '0x'],
    ['phbs[0].buid', '800000020000000'],
    ['phbs[0].buid', '0x10000000000000000'],
    ['phbs[0].isLimited', 0],
    // A bridge that does not have this mode.
    ['phbs[0].isLimited', true],
    ['phbs[0].tables', null],
    ['phbs[0].tables[1]', 'closed'],
    ['vio[0]', 1],
    ['vio[0].reg', 0x2001],
    ['vio[0].reg', -1],
    ['vio[0].reg', 2 ** 32],
    ['vio[0].bypass', 'yes'],
    ['vio[0].table', null],
    ['vio[1].table', { ...build().save().phbs[0]?.tables[0], liobn: 0x7100_0000 }],
    [`${TABLE}.liobn`, 0x8000_0002],
    [`${TABLE}.liobn`, undefined],
    [`${TABLE}.pageShift`, 11],
    [`${TABLE}.pageShift`, 64],
    [`${TABLE}.pageShift`, 12.5],
    // No page size of the machine.
    [`${TABLE}.pageShift`, 13],
    [`${TABLE}.busOffset`, 4096],
    [`${TABLE}.busOffset`, '0x1000'],
    [`${TABLE}.busOffset`, '-0x1'],
    // Where a window of a bridge in the limited-address mode starts.
    [`${TABLE}.busOffset`, '0x100000000'],
    [`${TABLE}.nbTable`, -1],
    [`${TABLE}.nbTable`, 2 ** 32],
    [`${TABLE}.nbTable`, 1.5],
    [`${TABLE}.nbTable`, '64'],
    [`${TABLE}.isDefaultWindow`, null],
    [`${TABLE}.entries`, { length: 1 }],
    [RUN, null],
    [`${RUN}[0]`, -1],
    [`${RUN}[0]`, 64],
    [`${RUN}[0]`, 0.5],
    [`${RUN}[0]`, '3'],
    [`${RUN}[1]`, 0],
    [`${RUN}[1]`, 62],
    [`${RUN}[1]`, 2 ** 53],
    [`${RUN}[2]`, 0x5003],
    [`${RUN}[2]`, '0x1ffffffffffffffff'],
    [`${RUN}[2]`, '0xg'],
    [`${RUN}[3]`, null],
    [`${RUN}[3]`, '1'],
    // The second run begins inside of the first.
    [`${TABLE}.entries[1][0]`, 6],
    // A closed window has no pages, no place and no entries.
    ['phbs[1].tables[0].pageShift', 12],
    ['phbs[1].tables[0].busOffset', '0x1000'],
    ['phbs[1].tables[0].entries[0]', [0, 1, '0x3', '0x0']],
    [`${VIO}.liobn`, 0x2001],
    [`${VIO}.busOffset`, '0x1000'],
    [`${VIO}.pageShift`, 16],
    [`${VIO}.entries[0][0]`, 0x1_0000],
  ];

  test.each(cases)('%s = %j', (path, value) => {
    const { code, details, message } = refusal(damaged([path, value]));
    expect(code).toBe('E_SAVED_STATE');
    const at = (details as { path: string }).path;
    // The place itself, or the first thing in it that is missing.
    expect(at.startsWith(path)).toBe(true);
    expect(message).toMatch(/^saved state: \S.*: expected .*, found /);
    expect(message).toContain(at);
  });

  test.each([
    ['nothing', undefined],
    ['null', null],
    ['a list', []],
    ['a string', '{}'],
    ['a number', 5],
  ])('%s instead of a state', (_what, value) => {
    expect(refusal(value)).toMatchObject({ code: 'E_SAVED_STATE', details: { path: 'iommu' } });
  });

  test.each([
    ['a bridge too few', 'phbs'],
    ['a device too few', 'vio'],
    ['a window too few', 'phbs[0].tables'],
  ])('%s', (_what, path) => {
    const saved = used().save();
    const fewer = path.split('.').length === 2 ? saved.phbs[0]?.tables : saved[path as 'phbs'];
    const error = refusal(damaged([path, fewer?.slice(1)]));
    expect(error).toMatchObject({ code: 'E_SAVED_STATE', details: { path: `${path}.length` } });
  });

  test('anything in place of anything: restored or refused, never half, never another error', () => {
    const places = (value: unknown, path = ''): string[] => [
      ...(path === '' ? [] : [path]),
      ...(typeof value === 'object' && value !== null
        ? Object.entries(value).flatMap(([key, child]) =>
            places(child, path === '' ? key : `${path}.${key}`),
          )
        : []),
    ];
    const all = places(json(used().save()));
    let refused = 0;
    fc.assert(
      fc.property(fc.constantFrom(...all), fc.jsonValue({ maxDepth: 2 }), (path, value) => {
        const saved = damaged([path, value]);
        const iommu = used();
        const before = iommu.save();
        try {
          iommu.restore(saved);
        } catch (error) {
          refused += 1;
          expect(error).toMatchObject({ code: 'E_SAVED_STATE' });
          expect(iommu.save()).toEqual(before);
          return;
        }
        // What was taken is what is there now.
        const back = build();
        back.restore(json(iommu.save()));
        expect(back.save()).toEqual(iommu.save());
      }),
      { numRuns: 400 },
    );
    expect(refused).toBeGreaterThan(200);
  });
});

describe('what is made to cost much', () => {
  const withRuns = (nbTable: number, ...runs: unknown[]) => {
    const saved = json(used().save()) as { phbs: { tables: Record<string, unknown>[] }[] };
    const table = saved.phbs[0]?.tables[1] as Record<string, unknown>;
    Object.assign(table, { nbTable, entries: runs });
    return saved;
  };

  test('2^32 - 1 equal entries are restored, and saved again, at once', () => {
    const saved = withRuns(2 ** 32 - 1, [0, 2 ** 32 - 1, '0x5003', '0x0']);
    const iommu = build();
    iommu.restore(saved);
    expect(iommu.phbs[0]?.tables[1]?.live).toBe(2 ** 32 - 1);
    expect(iommu.save().phbs[0]).toEqual(saved.phbs[0]);
  });

  test('more entries by steps than a file may have are refused, before any is written', () => {
    const run = [0, 2 ** 25 + 1, '0x3', '0x1000'];
    expect(refusal(withRuns(2 ** 30, run))).toMatchObject({
      code: 'E_SAVED_STATE',
      details: { path: 'phbs[0].tables[1].entries[0]' },
    });
  });

  test('equal entries cost what their pieces of the table do', () => {
    const runs = Array.from({ length: 2 ** 14 }, (_, i) => [i * 4096, 4095, '0x1', '0x0']);
    expect(refusal(withRuns(2 ** 30, ...runs))).toMatchObject({
      code: 'E_SAVED_STATE',
      details: { path: 'phbs[0].tables[1].entries[8191]' },
    });
    const few = Array.from({ length: 2 ** 14 }, (_, i) => [i * 4096, 64, '0x1', '0x0']);
    const iommu = used();
    iommu.restore(withRuns(2 ** 30, ...few));
    expect(iommu.findTable(0x8000_0001n)?.live).toBe(2 ** 20);
  });

  test('that limit is one for all tables together', () => {
    const half = [0, 2 ** 24 + 1, '0x3', '0x1000'];
    const saved = withRuns(2 ** 30, half);
    Object.assign(saved.phbs[1]?.tables[1] ?? {}, { nbTable: 2 ** 30, entries: [half] });
    expect(refusal(saved)).toMatchObject({
      code: 'E_SAVED_STATE',
      details: { path: 'phbs[1].tables[1].entries[0]' },
    });
  });
});
