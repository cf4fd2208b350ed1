/** A table against a map of entries and plain 64-bit arithmetic, through its whole life. */
import { hi32, lo32 } from '@pinhole/base';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type TceEvent, TceTable } from '../src/index.js';

/** What a window is, in the plainest form. */
interface Model {
  shift: bigint;
  offset: bigint;
  size: number;
  entries: Map<number, bigint>;
}
const CLOSED: Omit<Model, 'entries'> = { shift: 0n, offset: 0n, size: 0 };
const ALL_ONES = 2n ** 64n - 1n;

const shifts = fc.constantFrom(12, 16, 21, 24, 34);
const LAST_PAGES = 2n ** 64n - 0x2000n;
const offsets = fc.constantFrom(0n, 0x1000_0000n, 0xffff_f000n, 2n ** 59n, LAST_PAGES);
// Borders of chunks of 4096 entries, a lone entry, and a size that no power of two divides.
const sizes = fc.constantFrom(1, 4095, 4096, 4097, 8192, 12_345);
const tce = fc.oneof(
  fc.bigInt({ min: 0n, max: ALL_ONES }),
  fc.constantFrom(0n, 1n, 2n, 3n, 0xffcn, ALL_ONES, ALL_ONES - 3n),
);
const position = fc.oneof(
  fc.double({ min: 0, max: 1, noNaN: true }),
  fc.constantFrom(0, 0.3318, 0.3319, 0.6636, 1),
);
const act = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('put' as const), position, tce }) },
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant('fill' as const), position, share: position, tce }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('clear' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('disable' as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('enable' as const),
      shift: shifts,
      offset: offsets,
      size: sizes,
    }),
  },
);

const liveIn = (model: Model) => [...model.entries.values()].filter((entry) => entry & 3n).length;

/** What a device finds at an address relative to the window. */
function translate(model: Model, relative: bigint): { address: bigint; perm: number } {
  const index = relative >> model.shift;
  if (index >= BigInt(model.size)) return { address: 0n, perm: 0 };
  const entry = model.entries.get(Number(index)) ?? 0n;
  const mask = (1n << model.shift) - 1n;
  return { address: (entry & ~mask) | (relative & mask), perm: Number(entry & 3n) };
}

/** Addresses around each border of the window, and far from it. */
function probes(model: Model): bigint[] {
  const end = BigInt(model.size) << model.shift;
  const chunk = 4096n << model.shift;
  const touched = [...model.entries.keys()].slice(-3).map((index) => BigInt(index) << model.shift);
  return [0n, chunk, end, 2n ** 32n, 2n ** 53n, 2n ** 63n, ...touched].flatMap((at) =>
    [-1n, 0n, 1n, 0xabcn].map((delta) => BigInt.asUintN(64, at + delta)),
  );
}

test('put, fill, clear, disable and enable in any order leave what a map would hold', () => {
  fc.assert(
    fc.property(shifts, offsets, sizes, fc.array(act, { maxLength: 16 }), (s, o, n, acts) => {
      const table = new TceTable(0x8000_0000);
      const model: Model = { shift: BigInt(s), offset: o, size: n, entries: new Map() };
      expect(table.enable({ pageShift: s, busOffset: o, nbTable: n })).toBe(true);
      let peak = 0;
      for (const a of acts) {
        if (a.kind === 'enable') {
          const isClosed = model.size === 0;
          const options = { pageShift: a.shift, busOffset: a.offset, nbTable: a.size };
          expect(table.enable(options)).toBe(isClosed);
          if (isClosed) {
            Object.assign(model, { shift: BigInt(a.shift), offset: a.offset, size: a.size });
          }
        } else if (a.kind === 'disable' || a.kind === 'clear') {
          table[a.kind]();
          model.entries.clear();
          if (a.kind === 'disable') Object.assign(model, CLOSED);
        } else if (model.size > 0) {
          const first = Math.min(model.size - 1, Math.floor(a.position * model.size));
          const count = a.kind === 'put' ? 1 : Math.round(a.share * (model.size - first));
          if (a.kind === 'put') table.put(first, a.tce);
          else table.fill(first, count, a.tce);
          for (let i = first; i < first + count; i += 1) model.entries.set(i, a.tce);
        }
        peak = Math.max(peak, liveIn(model));
        expect([table.live, table.peakLive]).toEqual([liveIn(model), peak]);
      }

      expect(table).toMatchObject({
        nbTable: model.size,
        pageShift: Number(model.shift),
        busOffset: model.offset,
        isEnabled: model.size > 0,
      });
      const live: [number, bigint][] = [];
      table.forEachLive((index, entry) => live.push([index, entry]));
      const expected = [...model.entries].filter(([, entry]) => entry & 3n);
      expect(live).toEqual(expected.sort(([a], [b]) => a - b));
      for (const [index, entry] of [...model.entries].slice(0, 200)) {
        if (table.get(index) !== entry) expect(table.get(index), `entry ${index}`).toBe(entry);
      }

      const found = { hi: 0, lo: 0, perm: 0 };
      const relative = { hi: 0, lo: 0 };
      for (const at of probes(model)) {
        const { address, perm } = translate(model, at);
        table.lookup(hi32(at), lo32(at), found);
        expect(found, `lookup ${at}`).toEqual({ hi: hi32(address), lo: lo32(address), perm });

        const bus = BigInt.asUintN(64, model.offset + at);
        const end = model.offset + (BigInt(model.size) << model.shift);
        const isInside = bus >= model.offset && bus < end;
        expect(table.reaches(hi32(bus), lo32(bus), relative), `reaches ${bus}`).toBe(isInside);
        // Nothing is on the bus beyond 2^64, but the hypercalls count on from 0.
        const index = at >> model.shift < BigInt(model.size) ? Number(at >> model.shift) : -1;
        expect(table.indexOf(bus), `index of ${bus}`).toBe(index);
        if (isInside) {
          const distance = bus - model.offset;
          expect(relative).toEqual({ hi: hi32(distance), lo: lo32(distance) });
        }
      }
    }),
    { numRuns: 150 },
  );
});

describe('what listeners hear', () => {
  test('every write in order, by fill as by put, and nothing of clear and disable', () => {
    fc.assert(
      fc.property(
        shifts,
        fc.array(fc.tuple(fc.nat({ max: 5000 }), fc.nat({ max: 40 }), tce)),
        (pageShift, fills) => {
          const table = new TceTable(9);
          table.enable({ pageShift, busOffset: 2n ** 59n, nbTable: 5041 });
          const heard: TceEvent[][] = [[], []];
          for (const events of heard) table.addNotifier({ notify: (event) => events.push(event) });
          for (const [index, count, entry] of fills) table.fill(index, count, entry);
          table.clear();
          table.disable();
          const mask = (1n << BigInt(pageShift)) - 1n;
          const expected = fills.flatMap(([index, count, entry]) =>
            Array.from({ length: count }, (_, i) => ({
              liobn: 9,
              type: entry & 3n ? 'MAP' : 'UNMAP',
              iova: BigInt(index + i) << BigInt(pageShift),
              translatedAddr: entry - (entry & mask),
              addrMask: mask,
              perm: Number(entry & 3n),
            })),
          );
          expect(heard).toEqual([expected, expected]);
        },
      ),
      { numRuns: 50 },
    );
  });

  test('a listener that looks finds the entry already written', () => {
    const table = new TceTable(1);
    table.enable({ pageShift: 12, busOffset: 0n, nbTable: 4 });
    const seen: bigint[] = [];
    table.addNotifier({ notify: ({ iova }) => seen.push(table.get(Number(iova >> 12n))) });
    table.put(1, 0x5003n);
    table.fill(2, 2, 0x6001n);
    expect(seen).toEqual([0x5003n, 0x6001n, 0x6001n]);
  });
});

test('a window of 2^31 equal entries takes memory for a few chunks, also once some differ', () => {
  const table = new TceTable(1);
  table.enable({ pageShift: 12, busOffset: 0n, nbTable: 2 ** 31 });
  const before = process.memoryUsage();
  table.fill(0, 2 ** 31, 0x5003n);
  table.put(2 ** 31 - 1, 0n);
  table.fill(4096, 4096, 0x6003n);
  const after = process.memoryUsage();
  const used = after.arrayBuffers + after.heapUsed - before.arrayBuffers - before.heapUsed;
  expect(used).toBeLessThan(64 * 2 ** 20);
  expect(table.live).toBe(2 ** 31 - 1);
  expect([4095, 4096, 8191, 8192].map((i) => table.get(i))).toEqual([
    0x5003n,
    0x6003n,
    0x6003n,
    0x5003n,
  ]);
});

test('a table of 2^32-1 entries is whole up to the last one', () => {
  const table = new TceTable(1);
  table.enable({ pageShift: 12, busOffset: 0n, nbTable: 2 ** 32 - 1 });
  table.put(2 ** 32 - 2, 0x7003n);
  const found = { hi: 0, lo: 0, perm: 0 };
  table.lookup(0xfff, 0xffff_e123, found);
  expect(found).toEqual({ hi: 0, lo: 0x7123, perm: 3 });
  table.lookup(0xfff, 0xffff_f000, found);
  expect(found.perm).toBe(0);
});

test.each([0, -1, 2 ** 32, Number.NaN])('%d entries are our bug, not a window', (nbTable) => {
  const table = new TceTable(1);
  expect(() => table.enable({ pageShift: 12, busOffset: 0n, nbTable })).toThrow(/bug in Pinhole/);
});

test.each([-1, 4, Number.NaN])(
  'entry %d of 4 does not exist: the caller has to look first',
  (i) => {
    const table = new TceTable(1);
    table.enable({ pageShift: 12, busOffset: 0n, nbTable: 4 });
    for (const act of [() => table.put(i, 3n), () => table.get(i), () => table.fill(i, 1, 3n)]) {
      expect(act).toThrow(/bug in Pinhole/);
    }
    expect(() => table.fill(3, 2, 3n)).toThrow(/bug in Pinhole/);
    expect(table.live).toBe(0);
  },
);
