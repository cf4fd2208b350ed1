import { type TraceEvent, Tracer } from '@pinhole/base';
import { createGuestMemory, DmaAccess, DmaStatus } from '@pinhole/memory';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  SpaprIommu,
  SpaprPhb,
  SpaprVioDevice,
  TceError,
  type TceEvent,
  TceTable,
} from '../src/index.js';

const GIB = 2 ** 30;
const WINDOW_2 = 0x0800_0000_0000_0000n;
const memory = createGuestMemory({ regions: [{ base: 0, size: GIB }] });

describe('TceTable', () => {
  test('agrees with a map of entries, over any window', () => {
    const tce = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
    const act = fc.record({
      fill: fc.boolean(),
      index: fc.nat({ max: 9999 }),
      count: fc.nat({ max: 9999 }),
      tce: fc.oneof(tce, fc.constant(0n)),
    });
    const shift = fc.constantFrom(12, 16, 21, 24, 34);
    fc.assert(
      fc.property(shift, fc.array(act, { maxLength: 30 }), (pageShift, acts) => {
        const table = new TceTable(1);
        const model = new Map<number, bigint>();
        table.enable({ pageShift, busOffset: WINDOW_2, nbTable: 10_000 });
        for (const { fill, index, count, tce } of acts) {
          const length = fill ? Math.min(count, 10_000 - index) : 1;
          if (fill) table.fill(index, length, tce);
          else table.put(index, tce);
          for (let i = index; i < index + length; i += 1) model.set(i, tce);
        }
        const live = [...model.values()].filter((entry) => (entry & 3n) !== 0n).length;
        expect(table.live).toBe(live);
        expect(table.peakLive).toBeGreaterThanOrEqual(live);
        let visited = 0;
        table.forEachLive((index, entry) => {
          visited += 1;
          expect(entry).toBe(model.get(index));
        });
        expect(visited).toBe(live);
        const out = { hi: 0, lo: 0, perm: 0 };
        for (const index of [...model.keys()].slice(0, 50)) {
          const entry = model.get(index) ?? 0n;
          expect(table.get(index)).toBe(entry);
          const offset = 0x0123n;
          const relative = (BigInt(index) << BigInt(pageShift)) + offset;
          table.lookup(Number(relative >> 32n), Number(relative & 0xffff_ffffn), out);
          const pageMask = (1n << BigInt(pageShift)) - 1n;
          expect(BigInt(out.hi) * 2n ** 32n + BigInt(out.lo)).toBe((entry & ~pageMask) + offset);
          expect(out.perm).toBe(Number(entry & 3n));
        }
      }),
      { numRuns: 60 },
    );
  });

  test('2^31 entries of one value cost little', () => {
    const table = new TceTable(1);
    table.enable({ pageShift: 12, busOffset: 0n, nbTable: 2 ** 31 });
    table.fill(1, 2 ** 31 - 1, 0x5003n);
    expect(table.live).toBe(2 ** 31 - 1);
    expect([table.get(0), table.get(1), table.get(2 ** 31 - 1)]).toEqual([0n, 0x5003n, 0x5003n]);
    // One of them changes: the others stay.
    table.put(1_000_000, 0n);
    expect([table.get(999_999), table.get(1_000_000)]).toEqual([0x5003n, 0n]);
    table.fill(0, 2 ** 31, 0n);
    expect(table.live).toBe(0);
  });

  test('beyond the last entry there is no permission', () => {
    const table = new TceTable(1);
    table.enable({ pageShift: 12, busOffset: 0n, nbTable: 2 });
    table.fill(0, 2, 3n);
    const out = { hi: 1, lo: 1, perm: 3 };
    table.lookup(0, 0x2000, out);
    expect(out).toEqual({ hi: 0, lo: 0, perm: 0 });
    table.lookup(0xffff_ffff, 0xffff_f000, out);
    expect(out.perm).toBe(0);
  });

  test('the index of a bus address: below the window it wraps, and fails', () => {
    const table = new TceTable(1);
    expect(table.indexOf(0n)).toBe(-1);
    table.enable({ pageShift: 12, busOffset: 0x1000n, nbTable: 2 });
    expect(
      [0xfffn, 0x1000n, 0x2fffn, 0x3000n, 2n ** 64n - 1n].map((a) => table.indexOf(a)),
    ).toEqual([-1, 0, 1, -1, -1]);
  });

  test('is not enabled twice; disabling forgets all but the default-window flag', () => {
    const table = new TceTable(1);
    expect(table.enable({ pageShift: 12, busOffset: 0n, nbTable: 4 })).toBe(true);
    expect(table.enable({ pageShift: 16, busOffset: 0n, nbTable: 8 })).toBe(false);
    table.isDefaultWindow = true;
    table.put(0, 3n);
    table.disable();
    expect(table).toMatchObject({ nbTable: 0, pageShift: 0, live: 0, isDefaultWindow: true });
  });

  test('one notification an entry, relative to the window, MAP or UNMAP by the permission', () => {
    const table = new TceTable(7);
    table.enable({ pageShift: 16, busOffset: WINDOW_2, nbTable: 10_000 });
    const events: TceEvent[] = [];
    table.addNotifier({ notify: (event) => events.push(event) });
    table.put(2, 0x1_2345_6001n);
    table.fill(0, 3, 0n);
    expect(events).toEqual([
      {
        liobn: 7,
        type: 'MAP',
        iova: 0x2_0000n,
        translatedAddr: 0x1_2345_0000n,
        addrMask: 0xffffn,
        perm: 1,
      },
      ...[0n, 0x1_0000n, 0x2_0000n].map((iova) => ({
        liobn: 7,
        type: 'UNMAP',
        iova,
        translatedAddr: 0n,
        addrMask: 0xffffn,
        perm: 0,
      })),
    ]);
    events.length = 0;
    table.fill(0, 10_000, 3n);
    expect(events).toHaveLength(10_000);
  });
});

describe('SpaprPhb', () => {
  const out = { gpa: 0, length: 0 };
  const translate = (phb: SpaprPhb, hi: number, lo: number, access: DmaAccess) =>
    phb.translate(hi, lo, 0x1_0000, access, out);

  test('starts with a default window of 1 GiB at 0, with 4 KiB pages', () => {
    const phb = new SpaprPhb({ memory });
    expect(phb.tables[0]).toMatchObject({
      liobn: 0x8000_0000,
      nbTable: 0x4_0000,
      pageShift: 12,
      busOffset: 0n,
    });
    expect(phb.activeWindows).toBe(1);
    expect(phb.freeLiobn).toBe(0x8000_0001);
    expect(new SpaprPhb({ memory, index: 2 }).tables[0]?.liobn).toBe(0x8000_0200);
  });

  test('gives what an entry permits, and no more', () => {
    const phb = new SpaprPhb({ memory });
    phb.tables[0]?.put(1, 0x5001n);
    phb.tables[0]?.put(2, 0x6002n);
    phb.tables[0]?.put(3, 0x7003n);
    phb.tables[0]?.put(4, BigInt(GIB) | 3n);
    phb.tables[0]?.put(5, (2n ** 63n) | 3n);
    const { READ, WRITE } = DmaAccess;
    const { OK, NO_PERMISSION, NOT_MEMORY, NOTHING_THERE } = DmaStatus;
    expect([READ, WRITE].map((a) => translate(phb, 0, 0x1000, a))).toEqual([OK, NO_PERMISSION]);
    expect([READ, WRITE].map((a) => translate(phb, 0, 0x2000, a))).toEqual([NO_PERMISSION, OK]);
    expect([READ, WRITE].map((a) => translate(phb, 0, 0x3000, a))).toEqual([OK, OK]);
    expect(translate(phb, 0, 0, READ)).toBe(NO_PERMISSION);
    expect(translate(phb, 0, 0x4000, READ)).toBe(NOT_MEMORY);
    expect(translate(phb, 0, 0x5000, READ)).toBe(NOT_MEMORY);
    // Between the windows, and where the second one would be.
    expect(translate(phb, 0, GIB, READ)).toBe(NOTHING_THERE);
    expect(translate(phb, 0x0800_0000, 0, READ)).toBe(NOTHING_THERE);
  });

  test('a translation ends with its page', () => {
    const phb = new SpaprPhb({ memory });
    phb.tables[0]?.put(1, 0x5003n);
    expect(translate(phb, 0, 0x1ff0, DmaAccess.READ)).toBe(DmaStatus.OK);
    expect(out).toEqual({ gpa: 0x5ff0, length: 0x10 });
  });

  test('a second window is reached at 2^59, and each translation is counted', () => {
    const phb = new SpaprPhb({ memory });
    phb.tables[1]?.enable({ pageShift: 24, busOffset: WINDOW_2, nbTable: 64 });
    phb.tables[1]?.put(3, 0x0300_0003n);
    expect(translate(phb, 0x0800_0000, 0x0312_3456, DmaAccess.WRITE)).toBe(DmaStatus.OK);
    expect(out).toEqual({ gpa: 0x0312_3456, length: 0x1_0000 });
    expect(phb.translations).toBe(1);
    expect(phb.covers(0x0800_0000, 0x3fff_f000, 0x1000)).toBe(true);
    expect(phb.covers(0x0800_0000, 0x3fff_f000, 0x1001)).toBe(false);
    const seen: bigint[] = [];
    phb.forEachReachable((gpa) => seen.push(gpa));
    expect(seen).toEqual([0x0300_0000n]);
  });

  test('logs each translation as QEMU does', () => {
    const events: TraceEvent[] = [];
    const phb = new SpaprPhb({
      memory,
      tracer: new Tracer({ emit: (event) => events.push(event) }),
    });
    phb.tables[0]?.put(0x10, 0x739_6001n);
    translate(phb, 0, 0x1_00f8, DmaAccess.READ);
    expect(events.at(-1)).toMatchObject({
      name: 'spapr_iommu_xlate',
      args: { liobn: 0x8000_0000n, ioba: 0x1_00f8n, tce: 0x739_6000n, perm: 1, pgsize: 0xfff },
    });
  });

  test.each([
    [{ dmaWindowSize: 0 }],
    [{ dmaWindowSize: 1000 }],
    [{ dmaWindowSize: 2 ** 44 }],
    [{ dmaWindowAddress: WINDOW_2 }],
    [{ ddw: false, dmaWindowAddress: 2n ** 64n - 4096n }],
  ])('refuses a window that cannot be: %o', (options) => {
    expect(() => new SpaprPhb({ memory, ...options })).toThrow(TceError);
  });
});

test('SpaprIommu finds tables by 32-bit LIOBNs and bridges by BUID', () => {
  const phbs = [new SpaprPhb({ memory }), new SpaprPhb({ memory, index: 1 })];
  const iommu = new SpaprIommu({ phbs, vio: [new SpaprVioDevice({ reg: 0x7100_0000, memory })] });
  expect(iommu.findTable(0x8000_0101n)).toBe(phbs[1]?.tables[1]);
  expect(iommu.findTable(0x7100_0000n)?.liobn).toBe(0x7100_0000);
  expect(iommu.findTable(0x1_8000_0000n)).toBeUndefined();
  expect(iommu.findPhb(0x0800_0000_2000_0001n)).toBe(phbs[1]);
  expect(iommu.phbOf(phbs[1]?.tables[0] as TceTable)).toBe(phbs[1]);
  expect(() => iommu.addVio(new SpaprVioDevice({ reg: 0x8000_0000, memory }))).toThrow(
    /E_DUPLICATE|one table per LIOBN/,
  );
});
