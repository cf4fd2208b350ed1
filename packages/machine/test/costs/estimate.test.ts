import { describe, expect, test } from 'vitest';
import {
  architectures,
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

describe('what is paid once', () => {
  /** By vhost, so many reads of 64 KiB, each into a buffer of its own; a second window of 64 KiB pages. */
  const reads = (count: number): RunReport =>
    run(
      'machine.ddw=true',
      'machine.pageSizes=0x11000',
      'machine.maxMemory=4GiB',
      'guest.kernel=linux-6.1',
      'devices[0].vhost=on',
      `workload=[{read: {offset: 0, length: ${count * 65_536}, block: 64KiB}}]`,
    );
  const presetOf = (): CostPreset => defaultCostPreset('pseries') as CostPreset;
  const count = (parts: readonly { name: CostName; count: number }[] = [], wanted: CostName) =>
    parts.find(({ name }) => name === wanted)?.count ?? 0;

  test('first uses of pages that stay mapped are: a request costs the same in a longer run', () => {
    const [short, long] = [reads(20), reads(80)];
    expect(long.counters.vhost?.misses).toBeGreaterThan(4 * 10);
    for (const report of [short, long]) {
      const estimate = estimateCosts(report, presetOf());
      expect(estimate?.throughput).toEqual({ low: 1, mid: 1, high: 1 });
      expect(estimate?.perRequest).toEqual(estimate?.bypass);
      expect(count(estimate?.setup.parts, 'iotlbMiss')).toBe(report.counters.vhost?.misses);
    }
  });

  test('misses of what each request maps anew are not', () => {
    const report = run('devices[0].vhost=on', 'guest.kernel=linux-6.1');
    const estimate = estimateCosts(report, presetOf());
    const { misses = 0, missesPerRequest = 0 } = report.counters.vhost ?? {};
    expect(count(estimate?.parts, 'iotlbMiss')).toBe(missesPerRequest);
    expect(count(estimate?.setup.parts, 'iotlbMiss')).toBe(misses - 16 * missesPerRequest);
  });

  test('hypercalls and TCEs until the driver was up are', () => {
    const report = run();
    const { setup } = estimateCosts(report, preset(CHEAP)) ?? {};
    const { hcalls } = report.counters.setup;
    // The window of 1 GiB is cleared, 512 entries at a time; then the ring is mapped.
    expect(hcalls.H_STUFF_TCE).toBe(512);
    const { H_STUFF_TCE, ...others } = hcalls;
    const made = 512 + Object.values(others).reduce((sum, each) => sum + each, 0);
    expect(count(setup?.parts, 'hcallInQemu')).toBe(made);
    const tces = count(setup?.parts, 'tceInQemu');
    expect(tces).toBe(report.counters.setup.tcesWritten);
    expect(tces).toBeGreaterThan(2 ** 30 / 4096);
    expect(tces).toBeLessThan(2 ** 30 / 4096 + 100);
    const ns = setup?.parts.reduce((sum, part) => sum + part.ns.mid, 0);
    expect(setup?.ns.mid).toBeCloseTo(ns ?? Number.NaN, 3);
    expect(setup?.parts.every(({ role }) => role === 'path')).toBe(true);
  });

  test('calls that share memory have a price of their own', () => {
    const scenario = `machine: { arch: arm64, memory: 2GiB }
guest: { secure: true }
devices: [{ type: virtio-blk, iommuPlatform: true }]
workload: [{ read: { offset: 0, length: 4KiB, block: 4KiB } }]`;
    const report = runScenario(parseScenario(scenario));
    const estimate = estimateCosts(report, defaultCostPreset('arm64') as CostPreset);
    // The bounce pool of 64 MiB, page by page.
    expect(count(estimate?.setup.parts, 'sharePage')).toBe(2 ** 26 / 4096);
    expect(count(estimate?.parts, 'sharePage')).toBe(0);
    const without = preset({ ...CHEAP, bounce: [1e9, 2e9, 4e9] });
    expect(() => estimateCosts(report, without)).toThrow(
      'constants.sharePage: expected a constant for calls by which a protected guest shares memory (16384 at set-up), found none in test',
    );
  });

  test('KVM answers no RTAS', () => {
    const report = run('machine.tceHandler=kvm', 'machine.ddw=true', 'machine.maxMemory=4GiB');
    const { setup } = estimateCosts(report, presetOf()) ?? {};
    expect(report.counters.setup.hcalls.KVMPPC_H_RTAS).toBeGreaterThan(0);
    expect(count(setup?.parts, 'hcallInQemu')).toBe(report.counters.setup.hcalls.KVMPPC_H_RTAS);
    expect(count(setup?.parts, 'hcallInKvm')).toBeGreaterThan(512);
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

  test('every architecture has one by default', () => {
    const ids = architectures.map(({ id }) => defaultCostPreset(id)?.id);
    expect(ids).toEqual(['power9-kvm', 'x86-kvm', 'arm64-kvm', 's390x-kvm', 'xen']);
    expect(defaultCostPreset('riscv64')).toBeUndefined();
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
