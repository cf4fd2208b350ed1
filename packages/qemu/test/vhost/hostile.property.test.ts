/** A guest that writes anything into its rings and maps what it likes: vhost waits or serves, and ends. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createBench, DATA, HEADER, MOVED, PAGE, RING, STATUS } from './bench.js';

const PLACES = [RING, RING + PAGE, RING + 2 * PAGE, HEADER, STATUS, DATA, DATA + PAGE];

const step = fc.oneof(
  fc.record({ what: fc.constant('map' as const), at: fc.nat(6), to: fc.nat(300), perm: fc.nat(3) }),
  fc.record({ what: fc.constant('unmap' as const), at: fc.nat(6) }),
  fc.record({ what: fc.constant('kick' as const) }),
  fc.record({ what: fc.constant('request' as const), at: fc.nat(6), length: fc.nat(3 * PAGE) }),
  fc.record({ what: fc.constant('status' as const), value: fc.constantFrom(0xf, 0xb) }),
  // Mostly what a descriptor or an index could be.
  fc.record({
    what: fc.constant('scribble' as const),
    at: fc.nat(2),
    offset: fc.nat(64),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 48 }),
  }),
);

test('nothing but completions, errors and waits, whatever the guest does', () => {
  let served = 0;
  let stalls = 0;
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 40 }),
      fc.integer({ min: 1, max: 6 }),
      (steps, limit) => {
        const bench = createBench({ maxIotlbEntries: limit });
        bench.mapPages(DATA, 2);
        for (const one of steps) {
          const place = 'at' in one ? (PLACES[one.at] as number) : 0;
          if (one.what === 'map') bench.iommu.map(place, one.to * PAGE, one.perm);
          else if (one.what === 'unmap') bench.iommu.unmap(place);
          else if (one.what === 'kick') bench.kick();
          else if (one.what === 'status') bench.blk.core.setStatus(one.value);
          else if (one.what === 'request') bench.submit([bench.readChain(place, one.length)]);
          else {
            bench.memory.write(place - MOVED + one.offset, one.bytes);
          }
        }
        const { counters } = bench.blk.vhost ?? {};
        expect(bench.blk.vhost?.backend?.iotlb.size).toBeLessThanOrEqual(limit);
        expect(counters?.entriesPeak).toBeLessThanOrEqual(limit);
        // A stall ends the work on its queue, but each of a ring's requests can find no place to be returned
        // to. One kick a step at most, and one at the start.
        expect(counters?.stalls).toBeLessThanOrEqual((steps.length + 1) * (256 + 1));
        served += bench.blk.completed.reduce((sum, count) => sum + count, 0);
        stalls += counters?.stalls ?? 0;
      },
    ),
    { numRuns: 400 },
  );
  // It was about something.
  expect(served).toBeGreaterThan(20);
  expect(stalls).toBeGreaterThan(20);
});
