/** Scenarios with vhost: what a run says, and what goes wrong. */
import { type TraceEvent, Tracer } from '@pinhole/base';
import { createPhysicalDmaOps } from '@pinhole/guest';
import { describe, expect, test } from 'vitest';
import {
  type Architecture,
  architectures,
  parseScenario,
  type RunReport,
  runScenario,
} from '../../src/index.js';

const READS = '{ read: { offset: 0, length: 1MiB, block: 64KiB } }';

function run(
  set: readonly string[] = [],
  options: Parameters<typeof runScenario>[1] = {},
  workload = READS,
): RunReport {
  const text = `machine: { arch: pseries, memory: 2GiB, ddw: false }
guest: { kernel: linux-6.1 }
devices: [{ type: virtio-blk, iommuPlatform: true, vhost: on }]
workload: [${workload}]
`;
  return runScenario(parseScenario(text, { set }), options);
}

describe('what the backend is given, and why', () => {
  test('an IOMMU and the flag: an IOTLB', () => {
    const { decision, counters } = run();
    expect(decision.device).toBe(
      'vhost, iommu_platform=on: bus addresses of PCI host bridge 0, through an IOTLB of 2048 entries',
    );
    expect(counters.vhost).toMatchObject({ missesPerRequest: 19, invalidatesPerRequest: 19 });
  });

  test('no flag: system memory', () => {
    const { decision, counters, verdict } = run(['devices[0].iommuPlatform=false']);
    expect(decision.device).toContain('iommu_platform=off');
    expect(counters.vhost).toMatchObject({ misses: 0, updates: 0, invalidates: 0 });
    expect(verdict.outcome).toBe('works');
  });

  test('a bus without an IOMMU: the flag is hidden from the backend, nothing is asked', () => {
    const { decision, counters, verdict, negotiated } = run([
      'machine={arch: arm64, memory: 2GiB}',
    ]);
    expect(decision.device).toContain('ACCESS_PLATFORM is hidden from the backend');
    expect(negotiated?.names).toContain('VIRTIO_F_ACCESS_PLATFORM');
    expect(counters.vhost).toMatchObject({ misses: 0, updates: 0, invalidates: 0 });
    expect(verdict.outcome).toBe('works');
  });

  // QEMU asks whether the bus is another address space than system memory, not whether it has an IOMMU.
  test('a bus that shows memory elsewhere: an IOTLB of 4 KiB pages that never change', () => {
    const ranges = '[{cpu: 0x40000000, bus: 0x80000000, size: 2GiB}]';
    const { decision, verdict, counters } = run([
      `machine={arch: arm64, memory: 2GiB, dmaRanges: ${ranges}}`,
    ]);
    expect(decision.device).toContain('bus addresses of bus with dma-ranges');
    expect(verdict.outcome).toBe('works');
    expect(counters).toMatchObject({ strayBytesRead: 0, strayBytesWritten: 0 });
    expect(counters.vhost?.invalidates).toBe(0);
    expect(Object.keys(counters.vhost?.granules ?? {})).toEqual(['4096']);
  });

  test('without the flag such a bus is passed over', () => {
    const ranges = '[{cpu: 0x40000000, bus: 0x80000000, size: 2GiB}]';
    const { verdict, counters } = run([
      `machine={arch: arm64, memory: 2GiB, dmaRanges: ${ranges}}`,
      'devices[0].iommuPlatform=false',
    ]);
    expect(verdict.outcome).toBe('works');
    expect(counters.vhost).toMatchObject({ misses: 0, updates: 0 });
  });

  test('the data plane is QEMU’s: no such counters', () => {
    expect(run(['devices[0].vhost=off']).counters.vhost).toBeNull();
  });
});

test('packed rings, no indirect descriptors, no event index: correct, and as many misses as pages', () => {
  const cases = [
    ['devices[0].packed=true'],
    ['devices[0].indirect=false'],
    ['devices[0].eventIdx=false'],
    ['devices[0].packed=true', 'devices[0].indirect=false'],
  ];
  for (const set of cases) {
    const { verdict, counters } = run(set);
    const isIndirect = !set.includes('devices[0].indirect=false');
    expect(verdict.outcome).toBe('works-slow');
    expect(counters.vhost?.invalidatesPerRequest).toBe(isIndirect ? 19 : 18);
    expect(counters.vhost?.missesPerRequest).toBe(isIndirect ? 19 : 18);
  }
});

// [qemu commit 3e090e3489db, 8.0: "send UNMAP notifications for domain or global inv desc"]
describe('behind VT-d, whose unmaps Linux defers', () => {
  const VTD = (qemu: string, cmdline = ''): string[] => [
    `machine={arch: x86-64, memory: 2GiB, iommu: intel-iommu, qemu: "${qemu}"}`,
    `guest.cmdline=${JSON.stringify(cmdline)}`,
  ];
  const MANY = '{ read: { offset: 0, length: 1MiB, block: 4KiB } }';

  test('QEMU 7.2 does not tell vhost: addresses that come again lead to old memory', () => {
    const { verdict, counters } = run(VTD('7.2'), {}, MANY);
    expect(verdict.outcome).toBe('fails');
    expect(counters.vhost?.invalidates).toBe(0);
    expect(counters.strayBytesWritten).toBeGreaterThan(0);
    // As long as they do not, each request asks for its own.
    const few = run(VTD('7.2'), {}, '{ read: { offset: 0, length: 64KiB, block: 4KiB } }');
    expect(few.verdict).toMatchObject({ outcome: 'works-slow' });
    expect(few.verdict.text).toContain('4 IOTLB misses and 0 invalidations a request');
  });

  test.each([
    ['10.0', ''],
    ['7.2', 'iommu.strict=1'],
    ['7.2', 'intel_iommu=strict'],
  ])('a later QEMU does, and each of them where nothing is deferred: %s %s', (qemu, cmdline) => {
    const { verdict, counters } = run(VTD(qemu, cmdline), {}, MANY);
    expect(verdict.outcome).toBe('works-slow');
    expect(counters.vhost?.invalidates).toBeGreaterThan(0);
    expect(counters).toMatchObject({ strayBytesRead: 0, strayBytesWritten: 0 });
  });
});

test('a second window: the first uses are no cost per request', () => {
  const { verdict, counters } = run(['machine.ddw=true', 'machine.maxMemory=4GiB']);
  expect(verdict.outcome).toBe('works');
  expect(counters.vhost).toMatchObject({ invalidates: 0, evictions: 0 });
  expect(counters.workload.hcalls).toEqual({});
});

describe('TCEs in KVM', () => {
  const KVM = 'machine.tceHandler=kvm';
  const NO_VFIO = 'machine.kvmTceVfio=false';

  test('vhost hears of nothing where the table stays in the kernel', () => {
    expect(run([KVM]).counters.vhost?.invalidates).toBe(0);
  });

  test('without KVM_CAP_SPAPR_TCE_VFIO QEMU keeps the table, and all is as without KVM', () => {
    const [kvm, qemu] = [run([KVM, NO_VFIO]), run([])];
    expect(kvm.counters).toEqual(qemu.counters);
    expect(kvm.verdict).toEqual(qemu.verdict);
  });

  // 63 mappings of 64 KiB fit into the large pool of 16 MiB, and then addresses come again.
  const SMALL = 'machine.dmaWindowSize=16MiB';
  const MORE = '{ read: { offset: 0, length: 8MiB, block: 64KiB } }';

  test('an address that comes again leads to the memory of before: reads are wrong, and all succeed', () => {
    const { verdict, data, evidence, counters } = run([KVM, SMALL], {}, MORE);
    expect(verdict.outcome).toBe('wrong-data');
    expect(data).toMatchObject({ requests: 128, completed: 128 });
    expect(data.bytesReadWrong).toBeGreaterThan(0);
    expect(counters.strayBytesWritten).toBeGreaterThan(0);
    expect(evidence.misread?.meant).not.toBe(evidence.misread?.landed);
  });

  test.each([
    ['QEMU has them', []],
    ['the host has no KVM_CAP_SPAPR_TCE_VFIO', [KVM, NO_VFIO]],
    ['vhost is off', [KVM, 'devices[0].vhost=off']],
  ])('the same window, but %s: correct', (_what, set) => {
    expect(run([SMALL, ...set], {}, MORE).data.bytesReadWrong).toBe(0);
  });

  test('behind a second window nothing is unmapped, and nothing can go stale', () => {
    const { verdict } = run([KVM, SMALL, 'machine.ddw=true', 'machine.maxMemory=4GiB'], {}, MORE);
    expect(verdict.outcome).toBe('works');
  });
});

describe('a guest whose addresses nobody maps', () => {
  // As if its DMA API gave physical addresses, whatever the bus wants.
  const pseries = architectures.find(({ id }) => id === 'pseries') as Architecture;
  const careless: Architecture = {
    ...pseries,
    build: (options) => {
      const platform = pseries.build(options);
      const { guestMemory: memory, pages } = platform;
      const ops = createPhysicalDmaOps({ memory, pages });
      return { ...platform, dma: { ...platform.dma, ops } };
    },
  };

  test('the queue waits for ever; the run ends and says so', () => {
    const { verdict, data, counters, deviceErrors } = run([], { architectures: [careless] });
    expect(verdict.outcome).toBe('fails');
    expect(verdict.text).toMatch(
      /^I\/O hangs: vhost: no translation to read at bus address 0x[0-9a-f]+: the queue waits for ever; read of 65536 bytes at 0: no answer from the device/,
    );
    expect(data).toMatchObject({ requests: 1, hung: 1, completed: 0 });
    expect(deviceErrors).toEqual([]);
    expect(counters.vhost?.stalls).toBeGreaterThan(0);
  });

  test('QEMU’s own data plane does not wait: it finds an empty ring', () => {
    const set = ['devices[0].vhost=off'];
    const { verdict, counters } = run(set, { architectures: [careless] });
    expect(verdict.text).toMatch(/^I\/O hangs: read/);
    expect(counters.vhost).toBeNull();
  });
});

test('a trace shows misses, updates, invalidations and stalls', () => {
  const events: TraceEvent[] = [];
  const tracer = new Tracer({ emit: (event) => events.push(event) });
  const { counters } = run([], { tracer });
  const count = (name: string) => events.filter((event) => event.name === name).length;
  const { misses = 0, updates = 0, invalidates = 0 } = counters.vhost ?? {};
  // Two steps each, the used ring's push as well.
  expect(count('vhost_iotlb_miss')).toBe(2 * (misses + 1));
  expect(count('vhost_iotlb_update')).toBe(updates);
  expect(count('vhost_iotlb_invalidate')).toBe(invalidates);
});
