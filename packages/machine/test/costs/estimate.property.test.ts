/** Properties of the estimate, over made-up counts and constants. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  COST_ITEMS,
  COST_NAMES,
  type CostConstant,
  type CostEstimate,
  type CostName,
  type CostPreset,
  estimateCosts,
  parseScenario,
  type RunReport,
  runScenario,
} from '../../src/index.js';

const real = runScenario(
  parseScenario(
    `machine: { arch: pseries, memory: 2GiB, ddw: false }
devices: [{ type: virtio-blk, iommuPlatform: true }]
workload: [{ read: { offset: 0, length: 4KiB, block: 4KiB } }]`,
  ),
);

interface Counts {
  readonly hcalls: number;
  readonly tcesWritten: number;
  readonly translations: number;
  readonly kicks: number;
  readonly interrupts: number;
  readonly commands: number;
  readonly maps: number;
  readonly bytesBounced: number;
  readonly bytesRead: number;
  readonly misses: number;
  readonly invalidates: number;
}

/** A report with these counts, of ten requests. */
function report(counts: Counts): RunReport {
  const { hcalls, tcesWritten, translations, kicks, interrupts, bytesBounced } = counts;
  const workload = {
    hcalls: { H_PUT_TCE: hcalls },
    translations,
    tcesWritten,
    kicks,
    interrupts,
    bytesBounced,
    iommu: { maps: counts.maps, unmaps: 0, commands: counts.commands },
  };
  const { misses, invalidates } = counts;
  // Of an IOTLB that is too small: every miss is paid for.
  const vhost = {
    misses,
    missesPerRequest: misses / 10,
    invalidates,
    invalidatesPerRequest: invalidates / 10,
    evictions: 1,
  };
  const isVhost = counts.misses + counts.invalidates > 0;
  const counters = {
    ...real.counters,
    workload,
    vhost: isVhost ? vhost : null,
  } as unknown as RunReport['counters'];
  const data = { ...real.data, requests: 10, completed: 10, bytesRead: counts.bytesRead };
  return { ...real, data, counters };
}

const count = fc.nat({ max: 1_000_000 });
const countsArb: fc.Arbitrary<Counts> = fc.record({
  hcalls: count,
  tcesWritten: count,
  translations: count,
  kicks: count,
  interrupts: count,
  commands: count,
  maps: count,
  bytesBounced: count,
  bytesRead: count,
  misses: count,
  invalidates: count,
});

const constantArb = (name: CostName): fc.Arbitrary<CostConstant> =>
  fc
    .tuple(
      fc.array(fc.integer({ min: 1, max: 1_000_000 }), { minLength: 3, maxLength: 3 }),
      fc.constantFrom('measured', 'cited', 'assumed'),
    )
    .map(([figures, status]) => {
      const [low = 1, mid = 1, high = 1] = [...figures].sort((a, b) => a - b);
      return { low, mid, high, unit: COST_ITEMS[name].unit, status, source: 'made up' } as const;
    });
const presetArb: fc.Arbitrary<CostPreset> = fc
  .record(Object.fromEntries(COST_NAMES.map((name) => [name, constantArb(name)])))
  .map((constants) => ({ id: 'x', title: 'x', architectures: [], constants }));

const estimate = (counts: Counts, preset: CostPreset): CostEstimate => {
  const result = estimateCosts(report(counts), preset);
  if (result === undefined) throw new Error('the run has requests');
  return result;
};

test('low <= mid <= high; shares add up; the throughput is from 0 to 1', () => {
  fc.assert(
    fc.property(countsArb, presetArb, (counts, preset) => {
      const { perRequest, bypass, throughput, parts, assumedShare } = estimate(counts, preset);
      for (const { low, mid, high } of [perRequest, bypass, throughput]) {
        expect(low).toBeLessThanOrEqual(mid);
        expect(mid).toBeLessThanOrEqual(high);
      }
      expect(throughput.low).toBeGreaterThan(0);
      expect(throughput.high).toBeLessThanOrEqual(1);
      expect(parts.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1, 9);
      expect(assumedShare).toBeGreaterThanOrEqual(0);
      expect(assumedShare).toBeLessThanOrEqual(1 + 1e-9);
    }),
  );
});

test('more of anything that the path adds is never cheaper, and never faster', () => {
  const added = [
    'hcalls',
    'tcesWritten',
    'commands',
    'maps',
    'bytesBounced',
    'misses',
    'invalidates',
  ] as const;
  fc.assert(
    fc.property(
      countsArb,
      presetArb,
      fc.constantFrom(...added),
      fc.integer({ min: 1, max: 1_000_000 }),
      (counts, preset, what, more) => {
        const one = estimate(counts, preset);
        const two = estimate({ ...counts, [what]: counts[what] + more }, preset);
        for (const end of ['low', 'mid', 'high'] as const) {
          expect(two.perRequest[end]).toBeGreaterThan(one.perRequest[end]);
          expect(two.throughput[end]).toBeLessThanOrEqual(one.throughput[end]);
          expect(two.bypass[end]).toBe(one.bypass[end]);
        }
      },
    ),
  );
});

test('whatever the constants are within their ranges, the throughput is within its own, and reaches its ends', () => {
  const end = fc.constantFrom('low' as const, 'high' as const);
  const picks = fc.record(Object.fromEntries(COST_NAMES.map((name) => [name, end])));
  const fixed = (preset: CostPreset, pick: (name: CostName) => 'low' | 'high'): CostPreset => ({
    ...preset,
    constants: Object.fromEntries(
      COST_NAMES.map((name) => {
        const constant = preset.constants[name] as CostConstant;
        const value = constant[pick(name)];
        return [name, { ...constant, low: value, mid: value, high: value }];
      }),
    ),
  });
  fc.assert(
    fc.property(countsArb, presetArb, picks, (counts, preset, chosen) => {
      const { throughput } = estimate(counts, preset);
      const at = (pick: (name: CostName) => 'low' | 'high'): number =>
        estimate(counts, fixed(preset, pick)).throughput.mid;
      const some = at((name) => chosen[name] as 'low' | 'high');
      expect(some).toBeGreaterThanOrEqual(throughput.low * (1 - 1e-9));
      expect(some).toBeLessThanOrEqual(throughput.high * (1 + 1e-9));
      // A rate costs most where it is low.
      const costly = (name: CostName, wanted: boolean): 'low' | 'high' =>
        (COST_ITEMS[name].unit === 'ns') === wanted ? 'high' : 'low';
      const worst = at((name) => costly(name, COST_ITEMS[name].role === 'path'));
      const best = at((name) => costly(name, COST_ITEMS[name].role === 'base'));
      expect(worst).toBeCloseTo(throughput.low, 9);
      expect(best).toBeCloseTo(throughput.high, 9);
    }),
  );
});
