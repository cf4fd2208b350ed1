/** What explain says of a scenario of any architecture, or of a command line, is what `pinhole run` counts. */
import { describe, expect, test } from 'vitest';
import { createSeededDisk } from '../../src/disk.js';
import {
  architectures,
  type CostRow,
  explain,
  parseScenario,
  type RunReport,
  runScenario,
  type Scenario,
} from '../../src/index.js';

const disk = createSeededDisk(1, 2 ** 21);

/** The path of a run, from its counts alone. */
function pathOfRun({ negotiated, verdict, counters, decision, machine }: RunReport): string {
  if (negotiated === null) return 'refused';
  if (verdict.outcome === 'fails') return 'unreachable';
  if (counters.hcallsPerRequestTotal > 0) return 'default-window';
  if (machine.arch === 'pseries' && decision.because.includes('second window:')) {
    return counters.workload.bytesBounced > 0 ? 'second-window-bounced' : 'second-window';
  }
  if (counters.workload.bytesBounced > 0) return 'bounced';
  if (counters.workload.iommu.maps > 0) return machine.arch === 'xen' ? 'grants' : 'viommu';
  if (decision.dmaOps.includes('physical')) return 'physical';
  return machine.arch === 'arm64' && decision.because.includes('dma-ranges')
    ? 'bus-offset'
    : 'no-iommu';
}

const cases = architectures.flatMap(({ id, variants, secure }) =>
  variants.flatMap((variant) =>
    (secure === undefined ? [false] : [false, true]).flatMap((isSecure) =>
      [false, true].map((flag) => ({ arch: id, variant, isSecure, flag })),
    ),
  ),
);

/** Reads that a run is made of, as explain makes them: a first one, and one of each size. */
const BLOCKS = [4096, 4096, 65536, 2 ** 20];

const readsOf = (blocks: readonly number[]) =>
  blocks.map((block, at) => ({ read: { offset: at * 4096, length: block, block } }));

/** What `pinhole run` counts for a scenario whose workload is these reads, in all. */
function counted(scenario: Scenario, blocks: readonly number[]): Omit<CostRow, 'size'> {
  const { data, counters } = runScenario({ ...scenario, workload: readsOf(blocks) }, { disk });
  const { workload } = counters;
  return {
    requests: data.requests,
    segments: counters.dataSegments,
    hcalls: Object.values(workload.hcalls).reduce((sum, count) => sum + count, 0),
    iommu: workload.iommu,
    translations: workload.translations,
    bytesCopied: workload.bytesBounced,
  };
}

/** What the last of these reads adds. */
function addedByLast(scenario: Scenario, blocks: readonly number[]): CostRow {
  const after = counted(scenario, blocks);
  const before = counted(scenario, blocks.slice(0, -1));
  const { iommu } = after;
  return {
    size: blocks.at(-1) ?? 0,
    requests: after.requests - before.requests,
    segments: after.segments - before.segments,
    hcalls: after.hcalls - before.hcalls,
    iommu: {
      maps: iommu.maps - before.iommu.maps,
      unmaps: iommu.unmaps - before.iommu.unmaps,
      commands: iommu.commands - before.iommu.commands,
    },
    translations: after.translations - before.translations,
    bytesCopied: after.bytesCopied - before.bytesCopied,
  };
}

/** Explain's rows against runs, and its reach against the most at any kick of them. */
function expectCounts(explained: ReturnType<typeof explain>, scenario: Scenario): void {
  const answer = explained.devices[0]?.answers[0];
  const report = runScenario({ ...scenario, workload: readsOf(BLOCKS) }, { disk });
  expect(answer?.path.id).toBe(pathOfRun(report));
  if (report.verdict.outcome !== 'works' && report.verdict.outcome !== 'works-slow') {
    expect(answer?.cost).toBeNull();
    return;
  }
  const expected = [2, 3, 4].map((count) => addedByLast(scenario, BLOCKS.slice(0, count)));
  const [first] = expected;
  const isDeferred = first !== undefined && first.iommu.unmaps > 0 && first.iommu.commands === 0;
  const many = isDeferred && report.machine.arch !== 'xen' ? manyReads(scenario, first) : undefined;
  const share = many === undefined ? 0 : many.iommu.commands / many.iommu.unmaps;
  expect(answer?.cost?.rows).toEqual(
    expected.map((row) => ({
      ...row,
      iommu: { ...row.iommu, commands: row.iommu.commands + row.iommu.unmaps * share },
    })),
  );
  const { addressable, plaintext } = report.reach;
  const bytes = report.machine.secure ? plaintext : addressable;
  expect(answer?.reach.bytes).toBe(Math.max(bytes, many?.reach ?? 0));
}

// One invalidation serves 255 unmaps: enough reads to see one.
function manyReads(
  scenario: Scenario,
  { iommu }: CostRow,
): Pick<CostRow, 'iommu'> & { reach: number } {
  const length = Math.ceil(256 / iommu.unmaps) * 4096;
  const once = { read: { offset: 0, length: 4096, block: 4096 } };
  const workload = Array<typeof once>(length / 4096).fill(once);
  const { counters, reach } = runScenario({ ...scenario, workload }, { disk });
  expect(counters.workload.iommu.commands).toBe(1);
  return { iommu: counters.workload.iommu, reach: reach.addressable };
}

describe('of the scenarios of all architectures', () => {
  test.each(cases)(
    '$variant.id, secure $isSecure, flag $flag',
    ({ arch, variant, isSecure, flag }) => {
      const scenario = parseScenario(
        JSON.stringify({
          machine: { ...variant.machine, arch },
          guest: { ...variant.guest, ...(isSecure ? { secure: true } : {}) },
          devices: [{ type: 'virtio-blk', iommuPlatform: flag }],
          workload: [{ read: { offset: 0, length: '4KiB', block: '4KiB' } }],
        }),
      );
      expectCounts(explain({ scenario }), scenario);
    },
  );
});

const MODERN = 'virtio-blk-pci,drive=d0,disable-legacy=on,iommu_platform=on';

// The right column is the scenario that somebody would write for the machine on the left.
const LINES: readonly [line: string, scenario: string][] = [
  [
    `qemu-system-ppc64 -M pseries -accel kvm -m 2G -device ${MODERN}`,
    'machine: { arch: pseries, memory: 2GiB, tceHandler: kvm }',
  ],
  [`qemu-system-x86_64 -M q35 -m 4G -device ${MODERN}`, 'machine: { arch: x86-64, memory: 4GiB }'],
  [
    `qemu-system-x86_64 -M q35 -m 2G -append swiotlb=force -device ${MODERN}`,
    'machine: { arch: x86-64, memory: 2GiB }\nguest: { cmdline: swiotlb=force }',
  ],
  [
    `qemu-system-x86_64 -M q35 -m 2G -device intel-iommu -append 'intel_iommu=on iommu.strict=1' -device ${MODERN},packed=on`,
    "machine: { arch: x86-64, memory: 2GiB, iommu: intel-iommu }\nguest: { cmdline: 'iommu.strict=1' }",
  ],
  [
    `qemu-system-x86_64 -M q35 -m 2G -device virtio-iommu-pci -device ${MODERN},indirect_desc=off`,
    'machine: { arch: x86-64, memory: 2GiB, iommu: virtio-iommu }',
  ],
  [
    `qemu-system-x86_64 -M q35,confidential-guest-support=c -object tdx-guest,id=c -m 2G -device ${MODERN}`,
    'machine: { arch: x86-64, memory: 2GiB }\nguest: { secure: true }',
  ],
  [
    `qemu-system-aarch64 -nodefaults -M virt,iommu=smmuv3 -m 2G -device ${MODERN}`,
    'machine: { arch: arm64, memory: 2GiB, iommu: smmuv3 }',
  ],
  [
    'qemu-system-s390x -nodefaults -m 2G -M s390-ccw-virtio,confidential-guest-support=pv0 -object s390-pv-guest,id=pv0 -device virtio-blk-ccw,iommu_platform=on',
    'machine: { arch: s390x, memory: 2GiB }\nguest: { secure: true }',
  ],
  [
    `qemu-system-i386 -M xenpv -m 2G -device ${MODERN}`,
    'machine: { arch: xen, memory: 2GiB, settings: { grants: true } }',
  ],
  [
    `qemu-system-i386 -M xenfv -m 2G -device ${MODERN}`,
    'machine: { arch: xen, memory: 2GiB, settings: { grants: false } }',
  ],
];

test.each(LINES)('%s', (line, text) => {
  const ring = {
    packed: line.includes('packed=on'),
    indirect: !line.includes('indirect_desc=off'),
  };
  const device = { type: 'virtio-blk', iommuPlatform: true, ...ring };
  const scenario = parseScenario(
    `${text}\ndevices: [${JSON.stringify(device)}]\nworkload: [{ read: { offset: 0, length: 4KiB, block: 4KiB } }]`,
  );
  expectCounts(explain({ qemu: line }), scenario);
});
