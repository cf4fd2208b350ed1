import { describe, expect, test } from 'vitest';
import {
  COST_NAMES,
  COST_PRESETS,
  type CostConstant,
  type CostName,
  type CostPreset,
  defaultCostPreset,
  estimateCosts,
  parseScenario,
  type RunReport,
  runScenario,
} from '../../src/index.js';

/** Reads of 4 KiB through the default window: 8 hypercalls each, one kick, one interrupt. */
function run(...set: readonly string[]): RunReport {
  return runScenario(
    parseScenario(
      `machine: { arch: pseries, memory: 2GiB, ddw: false }
devices: [{ type: virtio-blk, iommuPlatform: true }]
workload: [{ read: { offset: 0, length: 64KiB, block: 4KiB } }]`,
      { set },
    ),
  );
}

function preset(
  constants: Partial<Record<CostName, readonly [number, number, number]>>,
): CostPreset {
  const given = Object.entries(constants).map(
    ([name, [low, mid, high]]): [string, CostConstant] => [
      name,
      {
        low,
        mid,
        high,
        unit: name === 'transfer' || name === 'bounce' ? 'bytes/s' : 'ns',
        status: name === 'request' ? 'assumed' : 'measured',
        source: 'test',
      },
    ],
  );
  return { id: 'test', title: 'test', architectures: [], constants: Object.fromEntries(given) };
}

const CHEAP = {
  request: [10_000, 20_000, 40_000],
  transfer: [1e9, 2e9, 4e9],
  kick: [1_000, 2_000, 3_000],
  interrupt: [500, 1_000, 1_500],
  hcallInQemu: [1_000, 3_000, 9_000],
  tceInQemu: [10, 20, 40],
  translation: [100, 200, 300],
} as const;

describe('by hand', () => {
  // Without indirect tables: header, data, status: 3 maps, 3 unmaps, one TCE each.
  const report = run('devices[0].indirect=false');

  test('the counts are those of one request', () => {
    const { workload } = report.counters;
    expect(report.data.requests).toBe(16);
    expect(workload).toMatchObject({ kicks: 16, interrupts: 16, tcesWritten: 96 });
    expect(workload.hcalls).toEqual({ H_PUT_TCE: 48, H_STUFF_TCE: 48 });
  });

  test('a time is counts times constants', () => {
    const estimate = estimateCosts(report, preset(CHEAP));
    const translations = report.counters.translationsPerRequest;
    const part = (name: CostName) => estimate?.parts.find((each) => each.name === name);
    expect(part('request')?.ns).toEqual({ low: 10_000, mid: 20_000, high: 40_000 });
    // 4096 B at 4, 2 and 1 GB/s.
    expect(part('transfer')?.ns).toEqual({ low: 1_024, mid: 2_048, high: 4_096 });
    expect(part('hcallInQemu')).toMatchObject({
      count: 6,
      ns: { low: 6_000, mid: 18_000, high: 54_000 },
      status: 'measured',
      role: 'path',
    });
    expect(part('tceInQemu')?.ns).toEqual({ low: 60, mid: 120, high: 240 });
    const base = { low: 12_524, mid: 25_048, high: 48_596 };
    const path = {
      low: 6_060 + 100 * translations,
      mid: 18_120 + 200 * translations,
      high: 54_240 + 300 * translations,
    };
    expect(estimate?.bypass).toEqual(base);
    expect(estimate?.perRequest.mid).toBeCloseTo(base.mid + path.mid, 6);
    expect(estimate?.throughput.low).toBeCloseTo(base.low / (base.low + path.high), 12);
    expect(estimate?.throughput.mid).toBeCloseTo(base.mid / (base.mid + path.mid), 12);
    expect(estimate?.throughput.high).toBeCloseTo(base.high / (base.high + path.low), 12);
    expect(estimate?.dominates).toBe('request');
    expect(estimate?.assumedShare).toBeCloseTo(20_000 / (base.mid + path.mid), 12);
    expect(estimate?.parts.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1, 12);
  });

  test('a count that the machine has no constant for is an error that names it', () => {
    const { hcallInQemu: _, ...without } = CHEAP;
    expect(() => estimateCosts(report, preset(without))).toThrow(
      'constants.hcallInQemu: expected a constant for hypercalls that QEMU answers (6 a request), found none in test',
    );
  });
});

test('the bypass costs its base, and is as fast as itself', () => {
  const estimate = estimateCosts(run('devices[0].iommuPlatform=false'), preset(CHEAP));
  expect(estimate?.throughput).toEqual({ low: 1, mid: 1, high: 1 });
  expect(estimate?.perRequest).toEqual(estimate?.bypass);
});

test('hypercalls and TCEs are priced by who answers them', () => {
  const report = run('machine.tceHandler=kvm');
  const { parts } = estimateCosts(report, defaultCostPreset('pseries') as CostPreset) ?? {};
  const names = parts?.map(({ name }) => name);
  expect(names).toContain('hcallInKvm');
  expect(names).toContain('tceInKvm');
  expect(names).not.toContain('hcallInQemu');
});

test('a run that served nothing, or not everything, has no time of a request', () => {
  const lost = run('guest.secure=true', 'devices[0].iommuPlatform=false');
  expect(lost.data.completed).toBeLessThan(Math.max(1, lost.data.requests));
  expect(estimateCosts(lost, preset(CHEAP))).toBeUndefined();
});

describe('presets', () => {
  test.each(COST_PRESETS.map((each) => [each.id, each] as const))('%s is sound', (_id, each) => {
    expect(each.architectures.length).toBeGreaterThan(0);
    for (const [name, { low, mid, high, source }] of Object.entries(each.constants)) {
      expect(COST_NAMES).toContain(name);
      expect(low).toBeGreaterThanOrEqual(0);
      expect(low).toBeLessThanOrEqual(mid);
      expect(mid).toBeLessThanOrEqual(high);
      expect(source.length).toBeGreaterThan(5);
      expect(source).not.toContain('MEM');
    }
  });

  test('each has the constants that any run needs', () => {
    for (const { constants } of COST_PRESETS) {
      for (const name of ['request', 'transfer', 'kick', 'interrupt'] as const) {
        expect(constants[name]).toBeDefined();
      }
    }
  });

  test('an architecture that no figures were found for has none', () => {
    expect(defaultCostPreset('s390x')).toBeUndefined();
    expect(defaultCostPreset('pseries')?.id).toBe('power9-kvm');
  });
});

test('what vhost asks for is an IOTLB miss, not a translation as well', () => {
  const report = run(
    'devices[0].vhost=on',
    'guest.kernel=linux-6.1',
    'workload=[{read: {offset: 0, length: 512KiB, block: 64KiB}}]',
  );
  const counts = Object.fromEntries(
    estimateCosts(report, defaultCostPreset('pseries') as CostPreset)?.parts.map(
      ({ name, count }) => [name, count],
    ) ?? [],
  );
  // Header, 16 pages, status, indirect table: each TCE is missed and invalidated.
  expect(counts).toMatchObject({ iotlbMiss: 19, iotlbInvalidation: 19, hcallInQemu: 8 });
  expect(counts).not.toHaveProperty('translation');
});
