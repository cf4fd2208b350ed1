/** Both halves of the IOTLB against a list of pages: any maps, unmaps, replacements and accesses. */
import { createGuestMemory, createSystemMemorySpace, DmaAccess } from '@pinhole/memory';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { VhostDevice } from '../../src/vhost/vhost-device.js';
import { VhostStall } from '../../src/vhost/vhost-stall.js';
import { PAGE, PageIommu } from './bench.js';

const PAGES = 12;
const USED_RING = 0;

/** What vhost remembers, as a list, and what the guest mapped. */
class ListOfPages {
  readonly limit: number;
  readonly table = new Map<number, { frame: number; perm: number }>();
  remembered: { page: number; frame: number }[] = [];
  counts = { misses: 0, updates: 0, invalidates: 0, evictions: 0 };

  constructor(limit: number) {
    this.limit = limit;
  }

  /** QEMU tells vhost, if there is something to tell. */
  tell(page: number, access: number): void {
    const mapped = this.table.get(page);
    if (mapped === undefined || (mapped.perm & access) === 0) return;
    this.counts.updates += 1;
    if (this.remembered.length === this.limit) {
      this.remembered.shift();
      this.counts.evictions += 1;
    }
    this.remembered.push({ page, frame: mapped.frame });
  }

  access(page: number, access: number): number | undefined {
    const known = (): number | undefined =>
      this.remembered.find((entry) => entry.page === page)?.frame;
    if (known() === undefined) {
      this.counts.misses += 1;
      this.tell(page, access);
    }
    return known();
  }

  unmap(page: number): void {
    this.table.delete(page);
    this.counts.invalidates += 1;
    this.remembered = this.remembered.filter((entry) => entry.page !== page);
  }
}

const page = fc.nat(PAGES - 1);
const step = fc.oneof(
  { weight: 3, arbitrary: fc.tuple(fc.constant('map' as const), page, fc.nat(63), fc.nat(3)) },
  { weight: 2, arbitrary: fc.tuple(fc.constant('unmap' as const), page, fc.nat(0), fc.nat(0)) },
  {
    weight: 6,
    arbitrary: fc.tuple(fc.constant('access' as const), page, fc.nat(PAGE - 1), fc.nat(1)),
  },
);

test('the same frames, the same misses, updates, invalidations and evictions', () => {
  const limits = fc.integer({ min: 1, max: PAGES + 1 });
  fc.assert(
    fc.property(limits, fc.array(step, { maxLength: 120 }), (limit, steps) => {
      const memory = createGuestMemory({ regions: [{ base: 0, size: 64 * PAGE }] });
      const iommu = new PageIommu();
      const list = new ListOfPages(limit);
      const queues = [{ size: 4, desc: 0n, avail: 0n, used: BigInt(USED_RING) }];
      const device = new VhostDevice({
        id: 'vd0',
        memory,
        systemMemory: createSystemMemorySpace(memory),
        iommuPlatform: true,
        iommu,
        maxIotlbEntries: limit,
        kick: () => {},
        queues: () => queues,
        features: () => 0n,
      });
      device.setStatus(0xf);
      list.tell(USED_RING, DmaAccess.WRITE);
      const out = { gpa: 0, length: 0 };
      for (const [what, at, value, extra] of steps) {
        if (what === 'map') {
          iommu.map(at * PAGE, value * PAGE, extra);
          list.table.set(at, { frame: value, perm: extra });
        } else if (what === 'unmap') {
          iommu.unmap(at * PAGE);
          list.unmap(at);
        } else {
          const access = extra === 0 ? DmaAccess.READ : DmaAccess.WRITE;
          const frame = list.access(at, access);
          let found: number | undefined;
          try {
            device.space.translate(0, at * PAGE + value, PAGE, access, out);
            found = out.gpa;
          } catch (error) {
            if (!(error instanceof VhostStall)) throw error;
          }
          expect(found).toBe(frame === undefined ? undefined : frame * PAGE + value);
          if (found !== undefined) expect(out.length).toBe(PAGE - value);
        }
        expect(device.counters).toMatchObject(list.counts);
      }
      device.setStatus(0);
      expect(iommu.listeners).toBe(0);
    }),
    { numRuns: 300 },
  );
});
