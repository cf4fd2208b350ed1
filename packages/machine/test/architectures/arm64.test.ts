/** arm64: the rows of DOMAIN's platform table for Arm, without an IOMMU, with dma-ranges, and behind one. */
import { createRng, NO_TRACE } from '@pinhole/base';
import { findKernelProfile, type KernelProfile } from '@pinhole/guest';
import { DmaAccess, DmaStatus } from '@pinhole/memory';
import { describe, expect, test } from 'vitest';
import type { Platform } from '../../src/architecture.js';
import { arm64 } from '../../src/architectures/arm64.js';
import type { RunReport } from '../../src/report.js';
import { parseScenario } from '../../src/scenario.js';
import { run } from './runs.js';

const KIB = 1024;
const MIB = 2 ** 20;
const GIB = 2 ** 30;

type Keys = Readonly<Record<string, unknown>>;

function arm(
  flag: boolean,
  options: { machine?: Keys; guest?: Keys; workload?: readonly object[] } = {},
): RunReport {
  const { machine = {}, guest = {}, workload } = options;
  return run({
    machine: { arch: 'arm64', memory: '1GiB', ...machine },
    guest,
    device: { iommuPlatform: flag },
    ...(workload === undefined ? {} : { workload }),
  });
}

function build(machine: Keys): Platform {
  const text = JSON.stringify({
    machine: { arch: 'arm64', ...machine },
    devices: [{ type: 'virtio-blk' }],
    workload: [{ read: { offset: 0, length: 4 * KIB, block: 4 * KIB } }],
  });
  const scenario = parseScenario(text);
  return arm64.build({
    machine: scenario.machine,
    guest: scenario.guest,
    kernel: findKernelProfile('linux-6.12') as KernelProfile,
    rng: createRng(1),
    tracer: NO_TRACE,
  });
}

const pageReads = [{ read: { offset: 0, length: 64 * KIB, block: 4 * KIB } }];

describe('behind an IOMMU', () => {
  test.each([
    // n + 3 maps a request, and a command for each page or aligned run of pages that is unmapped.
    ['SMMUv3: strict, as Arm kernels are built', 'smmuv3', {}, 64],
    ['SMMUv3, lazily: one flush for 255 unmaps', 'smmuv3', { cmdline: 'iommu.strict=0' }, 0],
    ['virtio-iommu: a request a map and one an unmap', 'virtio-iommu', {}, 128],
  ])('%s', (_what, iommu, guest, commands) => {
    const report = arm(true, { machine: { iommu }, guest, workload: pageReads });
    expect(report.verdict.outcome).toBe(commands === 0 ? 'works' : 'works-slow');
    expect(report.counters.workload.iommu).toEqual({ maps: 64, unmaps: 64, commands });
    expect(report.decision.dmaOps).toBe('iommu-dma');
    expect(report.data.bytesReadWrong + report.counters.strayBytesRead).toBe(0);
  });

  test('without the flag, physical addresses, and nothing goes through it', () => {
    const report = arm(false, { machine: { iommu: 'smmuv3' } });
    expect(report.verdict.outcome).toBe('works');
    expect(report.counters.workload.iommu.maps).toBe(0);
    expect(report.reach.addressable).toBe(GIB);
  });

  test('the DMA API always, for a device without the flag: it takes bus addresses for physical', () => {
    const report = arm(false, { machine: { iommu: 'smmuv3' }, guest: { kernel: 'always-flag' } });
    expect(report.verdict.outcome).toBe('fails');
    expect(report.warnings.join()).toContain('takes them for physical ones');
  });

  test('virtio-iommu has had a driver there since 5.3', () => {
    const decided = (kernel: string): string =>
      arm(true, { machine: { iommu: 'virtio-iommu' }, guest: { kernel } }).decision.because;
    expect(decided('linux-4.18')).toContain('no driver');
    expect(decided('linux-5.4')).toContain('a bus address of its own');
  });

  test('memory itself, asked for as a bus address, gives the device nothing', () => {
    const { busSpace } = build({ iommu: 'smmuv3' });
    const out = { gpa: 0, length: 0 };
    for (let gpa = GIB; gpa < 3 * GIB; gpa += 64 * MIB) {
      expect(busSpace?.translate(0, gpa, 8, DmaAccess.READ, out)).toBe(DmaStatus.NO_PERMISSION);
    }
  });
});

describe('dma-ranges', () => {
  const split = (firstBus: string): Keys => ({
    memory: '2GiB',
    dmaRanges: [
      { cpu: '0x40000000', bus: firstBus, size: '1GiB' },
      { cpu: '0x80000000', bus: '0x0', size: '512MiB' },
      { cpu: '0xa0000000', bus: '0x100000000', size: '512MiB' },
    ],
  });

  test('several regions: each page is where its own says', () => {
    const { dma, busSpace, pages } = build(split('0x40000000'));
    const out = { hi: 0, lo: 0 };
    const found = { gpa: 0, length: 0 };
    for (const [gpa, bus] of [
      [0x4000_1000, 0x4000_1000],
      [0x8000_1000, 0x1000],
      [0xa000_1000, 0x1_0000_1000],
    ] as const) {
      expect(dma.ops.map(gpa, 4096, 0, out)).toBe(true);
      expect(out.hi * 2 ** 32 + out.lo).toBe(bus);
      expect(busSpace?.translate(out.hi, out.lo, 8, DmaAccess.WRITE, found)).toBe(DmaStatus.OK);
      expect(found.gpa).toBe(gpa);
    }
    // From one region into the next there is no bus address for both.
    expect(dma.ops.map(0x7fff_f000, 8192, 0, out)).toBe(false);
    expect(pages.pageSize).toBe(4096);
  });

  // QEMU takes a ring at 0 for none; no kernel has its own there, where its image is.
  // [qemu v7.2 hw/virtio/virtio.c virtio_queue_notify_vq: vq->vring.desc]
  test.each(['linux-4.18', 'linux-6.12'])('memory from bus address 0 on, %s', (kernel) => {
    const dmaRanges = [{ cpu: '0x40000000', bus: '0x0', size: '1GiB' }];
    const report = arm(true, { machine: { dmaRanges }, guest: { kernel } });
    expect(report.verdict.outcome).toBe('works');
  });

  test('with the flag the data is right, without it the device gets at other pages', () => {
    expect(arm(true, { machine: split('0x40000000') }).verdict.outcome).toBe('works');
    expect(arm(false, { machine: split('0x40000000') }).verdict.outcome).toBe('works');
    const hook = arm(false, { machine: split('0x40000000'), guest: { kernel: 'rfc-2018' } });
    expect(['wrong-data', 'fails']).toContain(hook.verdict.outcome);
    expect(hook.warnings.join()).toContain('promised physical addresses');
  });
});

test.each([
  [
    { iommu: 'intel-iommu' },
    'machine.iommu: expected "none" or "smmuv3" or "virtio-iommu": what a machine of arm64 can have, found "intel-iommu"',
  ],
  [
    { iommu: 'smmuv3', dmaRanges: [{ cpu: '0x40000000', bus: '0x0', size: '1GiB' }] },
    'machine.dmaRanges: behind an IOMMU the bus has no dma-ranges',
  ],
])('%o cannot exist', (machine, message) => {
  expect(() => arm(true, { machine })).toThrowError(message);
});

describe('swiotlb=force', () => {
  const force = (memory: string, kernel: string, cmdline = 'swiotlb=force'): RunReport =>
    arm(true, { machine: { memory }, guest: { kernel, cmdline } });

  test('every buffer bounces, rings do not; another way of finding memory does not care', () => {
    const report = force('2GiB', 'linux-6.12');
    expect(report.decision.dmaOps).toBe('dma-direct + swiotlb');
    expect(report.verdict.text).toBe('correct, every byte bounced; the device reaches 2 GiB');
    expect(report.counters.setup.hcalls).toEqual({});
    expect(arm(false, { guest: { cmdline: 'swiotlb=force' } }).counters.workload.bytesBounced).toBe(
      0,
    );
  });

  test.each([
    // The recording linux6.12-arm64-swiotlb: "adjusted to 2MB", mapped to the end of a range.
    ['2GiB', 'linux-6.12', 'swiotlb=force', 2],
    ['2GiB', 'linux-6.1', 'swiotlb=force', 64],
    // Memory ends at 5 GiB: ZONE_DMA does not hold all of it.
    ['4GiB', 'linux-6.12', 'swiotlb=force', 64],
    ['2GiB', 'linux-6.12', 'swiotlb=65536,force', 128],
    ['256MiB', 'linux-6.12', 'swiotlb=1048576,force', 128],
    ['2GiB', 'linux-6.12', 'swiotlb=force swiotlb=noforce', undefined],
    ['2GiB', 'linux-6.12', '', undefined],
    // Devices reach the first half of memory alone: ZONE_DMA ends there.
    ['2GiB', 'linux-6.12', 'swiotlb=force', 64, '1GiB'],
    ['2GiB', 'linux-6.12', 'swiotlb=force', 2, '2GiB'],
  ])('%s, %s, "%s": a pool of %s MiB', (memory, kernel, cmdline, mib, reached?: string) => {
    const dmaRanges = reached && [{ cpu: '0x40000000', bus: '0x40000000', size: reached }];
    const text = { machine: { arch: 'arm64', memory, dmaRanges }, guest: { kernel, cmdline } };
    const { machine, guest } = parseScenario(
      JSON.stringify({
        ...text,
        devices: [{ type: 'virtio-blk' }],
        workload: [{ read: { offset: 0, length: 512, block: 512 } }],
      }),
    );
    const { bouncePool } = arm64.build({
      machine,
      guest,
      kernel: findKernelProfile(kernel) as KernelProfile,
      rng: createRng(1),
      tracer: NO_TRACE,
    });
    expect(bouncePool?.size).toBe(mib === undefined ? undefined : mib * MIB);
  });
});
