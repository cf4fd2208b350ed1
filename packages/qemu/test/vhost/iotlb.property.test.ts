/** The IOTLB against a list that is searched from end to end. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { VhostIotlb } from '../../src/vhost/vhost-iotlb.js';

interface Range {
  readonly start: bigint;
  readonly last: bigint;
  readonly gpa: number;
  readonly perm: number;
}

/** What iotlb.c says, without its tree: a list, the oldest first. */
class ListOfRanges {
  readonly limit: number;
  list: Range[] = [];
  evictions = 0;

  constructor(limit: number) {
    this.limit = limit;
  }

  add(range: Range): void {
    if (range.last < range.start) return;
    if (this.limit > 0 && this.list.length === this.limit) {
      this.list = this.list.slice(1);
      this.evictions += 1;
    }
    this.list = [...this.list, range];
  }

  delete(start: bigint, last: bigint): void {
    this.list = this.list.filter((range) => range.last < start || range.start > last);
  }

  find(address: bigint): Range | undefined {
    let best: Range | undefined;
    for (const range of this.list) {
      const isHit = range.start <= address && address <= range.last;
      if (isHit && (best === undefined || range.start < best.start)) best = range;
    }
    return best;
  }
}

const END = 2n ** 64n - 1n;
// Few places, so that ranges overlap, touch and repeat; some at the very end.
const place = fc.oneof(fc.bigInt({ min: 0n, max: 40n }), fc.bigInt({ min: END - 20n, max: END }));
const step = fc.oneof(
  { weight: 5, arbitrary: fc.tuple(fc.constant('add' as const), place, place) },
  { weight: 2, arbitrary: fc.tuple(fc.constant('delete' as const), place, place) },
  { weight: 1, arbitrary: fc.tuple(fc.constant('clear' as const), place, place) },
);

test('any adds, deletes and look-ups are those of a list', () => {
  const limits = fc.constantFrom(0, 1, 2, 5, 16);
  fc.assert(
    fc.property(
      limits,
      fc.array(step, { maxLength: 60 }),
      fc.array(place),
      (limit, steps, asked) => {
        const iotlb = new VhostIotlb(limit);
        const list = new ListOfRanges(limit);
        let peak = 0;
        for (const [i, [what, start, last]] of steps.entries()) {
          if (what === 'add') {
            const range = { start, last, gpa: i * 4096, perm: i % 4 };
            iotlb.add(start, last, range.gpa, range.perm);
            const half = 2n ** 63n;
            // All 64 bits are two ranges.
            if (start > 0n || last < END) list.add(range);
            else {
              list.add({ ...range, last: half - 1n });
              list.add({ ...range, start: half, gpa: range.gpa + Number(half) });
            }
          } else if (what === 'delete') {
            iotlb.delete(start, last);
            list.delete(start, last);
          } else {
            iotlb.clear();
            list.delete(0n, END);
          }
          peak = Math.max(peak, list.list.length);
          for (const address of [...asked, start, last]) {
            const expected = list.find(address);
            if (expected === undefined) expect(iotlb.find(address)).toBeUndefined();
            else expect(iotlb.find(address)).toMatchObject(expected);
          }
          expect(iotlb.size).toBe(list.list.length);
        }
        const byPlace = list.list
          .map((range, age) => ({ range, age }))
          .sort((a, b) =>
            a.range.start < b.range.start ? -1 : a.range.start > b.range.start ? 1 : a.age - b.age,
          )
          .map(({ range }) => range);
        expect(iotlb.entries()).toEqual(byPlace);
        expect(iotlb.evictions).toBe(list.evictions);
        expect(iotlb.peak).toBe(peak);
      },
    ),
    { numRuns: 500 },
  );
});
