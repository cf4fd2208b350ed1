/** The store of a table's entries against a map: scattered, dense, uniform, and from one to another. */
import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { hi32, joinU64, lo32 } from '@pinhole/base';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { TceTable } from '../../src/index.js';
import { TceStore } from '../../src/tce-store.js';

/** Entries that share one array once there are more than 64 of them. */
const PIECE = 4096;
const LARGEST = 2 ** 32 - 1;

const value = fc.oneof(
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  fc.constantFrom(0n, 0n, 1n, 2n, 3n, 4n, 2n ** 32n, 2n ** 64n - 1n),
);
/** A piece and a place in it; the last piece of each table is not whole. */
const place = fc.record({
  piece: fc.constantFrom(0, 1, 2, 3, -1, -2, -3),
  at: fc.oneof(fc.nat({ max: PIECE - 1 }), fc.constantFrom(0, 1, 63, 64, PIECE - 2, PIECE - 1)),
});
const act = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('set' as const), place, value }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('scatter' as const),
      place,
      value,
      count: fc.constantFrom(2, 31, 32, 33, 63, 64, 65, 66),
      stride: fc.constantFrom(1, 2, 37, 61),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('fill' as const),
      place,
      value,
      count: fc.oneof(
        fc.nat({ max: 70 }),
        fc.constantFrom(PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE - 1),
      ),
      isAligned: fc.boolean(),
    }),
  },
);

function check(store: TceStore, model: ReadonlyMap<number, bigint>): void {
  const out = { hi: 1, lo: 1 };
  const get = (index: number) => {
    store.get(index, out);
    return joinU64(out.hi, out.lo);
  };
  for (const [index, entry] of model) {
    if (get(index) !== entry) expect(get(index), `entry ${index}`).toBe(entry);
    for (const next of [index - 1, index + 1]) {
      if (next < 0 || next >= LARGEST || model.has(next)) continue;
      if (get(next) !== 0n) expect(get(next), `entry ${next}, next to ${index}`).toBe(0n);
    }
  }
  const there = [...model].filter(([, entry]) => entry !== 0n).sort(([a], [b]) => a - b);
  expect(store.live).toBe(there.filter(([, entry]) => (entry & 3n) !== 0n).length);
  const visited: [number, bigint][] = [];
  store.forEach((index, hi, lo) => {
    visited.push([index, joinU64(hi, lo)]);
  });
  expect(visited.length).toBe(there.length);
  const wrong = visited.findIndex(
    ([index, entry], i) => index !== there[i]?.[0] || entry !== there[i]?.[1],
  );
  if (wrong >= 0) expect(visited[wrong]).toEqual(there[wrong]);

  // From somewhere on, and only so many; then piece by piece.
  for (const from of [there[Math.floor(there.length / 2)]?.[0] ?? 0, PIECE - 1, 2 * PIECE]) {
    const some: number[] = [];
    const take = (index: number): boolean => some.push(index) < 5;
    store.forEach(take, from);
    const after = there.filter(([index]) => index >= from).map(([index]) => index);
    expect(some).toEqual(after.slice(0, 5));
    const runs: number[] = [];
    store.forEachRun((index, length) => {
      for (let i = 0; i < length; i += 1) runs.push(index + i);
    }, from);
    expect(runs.length === after.length && runs.every((index, i) => index === after[i])).toBe(true);
  }
}

test('any writes leave what a map would hold, and are visited in ascending order', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        { weight: 4, arbitrary: fc.constantFrom(1, PIECE - 1, 5 * PIECE + 7, 7 * PIECE) },
        { weight: 1, arbitrary: fc.constant(LARGEST) },
      ),
      fc.array(act, { maxLength: 20 }),
      (size, acts) => {
        const store = new TceStore(size);
        const model = new Map<number, bigint>();
        const pieces = Math.ceil(size / PIECE);
        const set = (index: number, entry: bigint) => {
          store.set(index, hi32(entry), lo32(entry));
          model.set(index, entry);
        };
        for (const a of acts) {
          const number = (a.place.piece + pieces) % pieces;
          const piece = Math.max(0, number) * PIECE;
          const index = Math.min(size - 1, piece + a.place.at);
          if (a.kind === 'set') set(index, a.value);
          else if (a.kind === 'scatter') {
            for (let i = 0; i < a.count; i += 1) {
              const at = piece + ((a.place.at + i * a.stride) % PIECE);
              if (at < size) set(at, BigInt.asUintN(64, a.value + BigInt(i) * 0x1000n));
            }
          } else {
            const first = a.isAligned ? piece : index;
            const count = Math.min(a.count, size - first);
            store.fill(first, count, hi32(a.value), lo32(a.value));
            for (let i = first; i < first + count; i += 1) model.set(i, a.value);
          }
        }
        check(store, model);
      },
    ),
    { numRuns: 50 },
  );
}, 60_000);

/** Numbers that look random, the same in each run. [xorshift32: Marsaglia, J. Stat. Softw. 8(14)] */
function* numbers(seed: number): Generator<number, never> {
  for (let x = seed; ; ) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    yield x >>> 0;
  }
}

test('100,000 entries all over the largest table: none is lost', () => {
  const store = new TceStore(LARGEST);
  const model = new Map<number, bigint>();
  const random = numbers(1);
  for (let i = 0; i < 100_000; i += 1) {
    const index = random.next().value % LARGEST;
    const entry = joinU64(random.next().value, random.next().value);
    store.set(index, hi32(entry), lo32(entry));
    model.set(index, entry);
  }
  check(store, model);
});

test('pieces that become arrays while others stay scattered leave nothing behind', () => {
  const store = new TceStore(2 ** 30);
  const model = new Map<number, bigint>();
  const set = (index: number, entry: bigint) => {
    store.set(index, hi32(entry), lo32(entry));
    model.set(index, entry);
  };
  const random = numbers(7);
  for (let round = 0; round < 100; round += 1) {
    for (let i = 0; i < 100; i += 1) set(round * PIECE + (random.next().value % PIECE), 3n);
    for (let i = 0; i < 60; i += 1) set(2 ** 29 + round * PIECE + i * 61, BigInt(i));
    if (round % 3 === 0) {
      store.fill(round * PIECE, PIECE, 0, 0);
      for (let i = 0; i < PIECE; i += 1) model.delete(round * PIECE + i);
    }
  }
  check(store, model);
});

test('the highest index is an entry as any other', () => {
  const store = new TceStore(LARGEST);
  const out = { hi: 0, lo: 0 };
  store.get(LARGEST - 1, out);
  expect(out).toEqual({ hi: 0, lo: 0 });
  store.set(LARGEST - 1, 5, 7);
  store.set(LARGEST - 2, 1, 4);
  store.get(LARGEST - 1, out);
  expect(out).toEqual({ hi: 5, lo: 7 });
  expect(store.live).toBe(1);
});

describe('memory', () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  // Buffers of arrays are given back a little after the collection.
  const settle = async (): Promise<number> => {
    for (let i = 0; i < 5; i += 1) {
      collect();
      await setImmediate();
    }
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  /** Bytes that `act` keeps: what it returns is still held when they are counted. */
  const bytesKept = async (act: () => TceTable): Promise<number> => {
    const before = await settle();
    const table = act();
    const after = await settle();
    expect(table.peakLive).toBe(1_000_000);
    return after - before;
  };
  const open = (nbTable: number) => {
    const table = new TceTable(1);
    table.enable({ pageShift: 12, busOffset: 0n, nbTable });
    return table;
  };

  test('a million entries scattered over 2^30 take less than 200 MB', async () => {
    const used = await bytesKept(() => {
      const table = open(2 ** 30);
      for (let i = 0; i < 1_000_000; i += 1) {
        table.storeHalves(Math.imul(i, 0x9e37_79b1) >>> 2, i, 3);
      }
      expect(table.live).toBe(1_000_000);
      return table;
    });
    expect(used).toBeLessThan(200 * 2 ** 20);
  });

  test('a million entries side by side take some 8 bytes each', async () => {
    const used = await bytesKept(() => {
      const table = open(2 ** 20);
      for (let i = 0; i < 1_000_000; i += 1) table.storeHalves(i, i, 3);
      return table;
    });
    expect(used).toBeLessThan(12 * 2 ** 20);
  });

  test('a closed window keeps none of it', async () => {
    const used = await bytesKept(() => {
      const table = open(2 ** 30);
      for (let i = 0; i < 1_000_000; i += 1) table.storeHalves(i * 1000, i, 3);
      table.disable();
      return table;
    });
    expect(used).toBeLessThan(8 * 2 ** 20);
  });
});

test('live and peakLive: what grants a permission now, and the most that ever did', () => {
  const table = new TceTable(1);
  table.enable({ pageShift: 12, busOffset: 0n, nbTable: 2 ** 30 });
  for (let i = 0; i < 70; i += 1) table.put(i * 50, 0x5003n);
  table.put(2 ** 29, 1n);
  table.put(2 ** 29 + 1, 4n);
  expect([table.live, table.peakLive]).toEqual([71, 71]);
  table.fill(0, 3 * PIECE, 2n);
  expect([table.live, table.peakLive]).toEqual([3 * PIECE + 1, 3 * PIECE + 1]);
  table.fill(10, 2 * PIECE, 0n);
  expect([table.live, table.peakLive]).toEqual([PIECE + 1, 3 * PIECE + 1]);
  table.clear();
  table.disable();
  expect([table.live, table.peakLive]).toEqual([0, 3 * PIECE + 1]);
});
