/**
 * x86-64: the rows of DOMAIN's platform table, what a request costs on each, by the kernel's own rules
 * (so many maps a request), and what a device cannot reach.
 */
import { createRng, NO_TRACE, type TraceEvent, Tracer } from '@pinhole/base';
import { findKernelProfile, type KernelProfile } from '@pinhole/guest';
import { DmaAccess, DmaStatus } from '@pinhole/memory';
import { describe, expect, test } from 'vitest';
import type { Platform } from '../../src/architecture.js';
import { x8664 } from '../../src/architectures/x86-64.js';
import { createSeededDisk } from '../../src/disk.js';
import { MachineError } from '../../src/errors.js';
import type { RunReport } from '../../src/report.js';
import { runScenario } from '../../src/run.js';
import { parseScenario } from '../../src/scenario.js';
import { run } from './runs.js';

const KIB = 1024;
const MIB = 2 ** 20;
const GIB = 2 ** 30;

type Keys = Readonly<Record<string, unknown>>;

/** `count` reads of a page: one data element each. */
const pageReads = (count: number): object[] => [
  { read: { offset: 0, length: count * 4 * KIB, block: 4 * KIB } },
];

function x86(
  flag: boolean,
  options: { machine?: Keys; guest?: Keys; device?: Keys; workload?: readonly object[] } = {},
): RunReport {
  const { machine = {}, guest = {}, device = {}, workload } = options;
  return run({
    machine: { arch: 'x86-64', memory: '1GiB', ...machine },
    guest,
    device: { iommuPlatform: flag, ...device },
    ...(workload === undefined ? {} : { workload }),
  });
}

function build(machine: Keys, guest: Keys = {}): Platform {
  const text = JSON.stringify({
    machine: { arch: 'x86-64', ...machine },
    guest,
    devices: [{ type: 'virtio-blk' }],
    workload: pageReads(1),
  });
  const scenario = parseScenario(text);
  return x8664.build({
    machine: scenario.machine,
    guest: scenario.guest,
    kernel: findKernelProfile(scenario.guest.kernel) as KernelProfile,
    rng: createRng(1),
    tracer: NO_TRACE,
  });
}

describe('without an IOMMU', () => {
  test.each([
    [false, 'none (physical)'],
    [true, 'dma-direct'],
  ])('flag %s: physical addresses', (flag, dmaOps) => {
    const report = x86(flag);
    expect(report.verdict.outcome).toBe('works');
    expect(report.decision.dmaOps).toBe(dmaOps);
    expect(report.counters.workload).toMatchObject({
      hcalls: {},
      translations: 0,
      iommu: { maps: 0, unmaps: 0, commands: 0 },
      bytesBounced: 0,
    });
    expect(report.reach).toEqual({ addressable: GIB, plaintext: GIB });
  });

  test.each([
    // [qemu v7.2 hw/i386/pc_q35.c pc_q35_init]
    ['2815MiB', [[0, 2815 * MIB]]],
    [
      '2816MiB',
      [
        [0, 2 * GIB],
        [4 * GIB, 768 * MIB],
      ],
    ],
    [
      '6GiB',
      [
        [0, 2 * GIB],
        [4 * GIB, 4 * GIB],
      ],
    ],
  ])('%s of memory lie as QEMU lays them out', (memory, regions) => {
    const { guestMemory } = build({ memory });
    expect(guestMemory.regions.map(({ base, size }) => [base, size])).toEqual(regions);
  });

  test('user pages above 4 GiB reach a device that has the flag, and one that has not', () => {
    const { pages } = build({ memory: '4GiB' });
    expect(pages.allocUser(4096)?.[0]?.gpa).toBeGreaterThanOrEqual(4 * GIB);
    for (const flag of [false, true]) {
      expect(x86(flag, { machine: { memory: '4GiB' } }).verdict.outcome).toBe('works');
    }
  });

  test("pages are 4 KiB, whatever a kernel's are on powerpc", () => {
    for (const kernel of ['linux-4.18', 'linux-6.1']) {
      expect(build({}, { kernel }).pages.pageSize).toBe(4096);
    }
  });
});

describe('behind an IOMMU', () => {
  const intel = { iommu: 'intel-iommu' };
  const virtio = { iommu: 'virtio-iommu' };
  const strict = { cmdline: 'iommu.strict=1' };

  test.each([
    // A request of n data elements is n + 3 maps and as many unmaps: header, status, indirect table.
    ['intel-iommu, strictly: an invalidation an unmap', intel, strict, 4, 4],
    ['4.18 to 5.10 do not hear of it', intel, { ...strict, kernel: 'linux-5.10' }, 4, 0],
    [
      'but of their own word',
      intel,
      { cmdline: 'intel_iommu=on,strict', kernel: 'linux-5.10' },
      4,
      4,
    ],
    ['intel-iommu as it comes: none, until 255 unmaps wait', intel, {}, 4, 0],
    ['virtio-iommu: a request a map and one an unmap', virtio, { kernel: 'linux-6.1' }, 4, 8],
    ['virtio-iommu, deferred by 6.12: the same requests, fewer kicks', virtio, {}, 4, 8],
  ])('%s', (_what, machine, guest, maps, commands) => {
    const report = x86(true, { machine, guest, workload: pageReads(16) });
    expect(report.data.requests).toBe(16);
    expect(report.counters.workload.iommu).toEqual({
      maps: 16 * maps,
      unmaps: 16 * maps,
      commands: 16 * commands,
    });
    expect(report.verdict.outcome).toBe(commands === 0 ? 'works' : 'works-slow');
    expect(report.decision.dmaOps).toBe('iommu-dma');
  });

  test.each([
    ['without indirect tables: n + 2', { indirect: false }, 3],
    ['a packed ring: n + 3 as well', { packed: true }, 4],
  ])('%s', (_what, device, maps) => {
    const report = x86(true, { machine: intel, guest: strict, device, workload: pageReads(8) });
    const count = 8 * maps;
    expect(report.counters.workload.iommu).toEqual({ maps: count, unmaps: count, commands: count });
  });

  test('deferred: the 256th unmap finds the queue full, and so does every 255th after', () => {
    const unmaps = (requests: number): RunReport =>
      x86(true, { machine: intel, workload: pageReads(requests) });
    // 63 requests are 252 unmaps, 64 are 256; 127 are 508, 128 are 512.
    expect([63, 64, 127, 128].map((n) => unmaps(n).counters.workload.iommu.commands)).toEqual([
      0, 1, 1, 2,
    ]);
  });

  test('deferred, with vhost: it is told when the timer fires, by a QEMU that tells', () => {
    const told = (qemu: string, guest: Keys): unknown => {
      const report = x86(true, {
        machine: { ...intel, qemu },
        guest,
        device: { vhost: 'on' },
        workload: pageReads(8),
      });
      return [report.counters.vhost?.invalidates, report.counters.workload.iommu.commands];
    };
    // One invalidation of all the bus, after the workload; or one for each of 8 * 4 unmaps. QEMU 7.2
    // tells of nothing that was not mapped when all was invalidated before.
    expect(told('10.0', {})).toEqual([1, 0]);
    expect(told('7.2', {})).toEqual([0, 0]);
    for (const qemu of ['7.2', '10.0']) expect(told(qemu, strict)).toEqual([32, 32]);
  });

  test('large requests: a map for each element that the device finds in the ring', () => {
    const elements: number[] = [];
    const tracer = new Tracer({
      emit: ({ name, args }: TraceEvent) => {
        if (name === 'virtqueue_pop') elements.push(Number(args.in_num) + Number(args.out_num));
      },
    });
    const scenario = {
      machine: { arch: 'x86-64', ...intel },
      guest: strict,
      devices: [{ type: 'virtio-blk', iommuPlatform: true }],
      workload: [{ read: { offset: 0, length: MIB, block: 256 * KIB } }],
    };
    const disk = createSeededDisk(1, MIB);
    const report = runScenario(parseScenario(JSON.stringify(scenario)), { disk, tracer });
    // The indirect table comes on top.
    const maps = elements.reduce((sum, count) => sum + count + 1, 0);
    expect(elements.length).toBe(report.data.requests);
    expect(report.counters.workload.iommu).toEqual({ maps, unmaps: maps, commands: maps });
  });

  test('a trace has every map, unmap, translation and invalidation, as Linux and QEMU name them', () => {
    const events: TraceEvent[] = [];
    const tracer = new Tracer({ emit: (event) => events.push(event) });
    const scenario = {
      machine: { arch: 'x86-64', ...intel },
      guest: strict,
      devices: [{ type: 'virtio-blk', iommuPlatform: true }],
      workload: pageReads(4),
    };
    const disk = createSeededDisk(1, MIB);
    const { counters } = runScenario(parseScenario(JSON.stringify(scenario)), { disk, tracer });
    const { setup, workload } = counters;
    const named = (name: string): TraceEvent[] => events.filter((event) => event.name === name);
    expect(named('map')).toHaveLength(setup.iommu.maps + workload.iommu.maps);
    expect(named('unmap')).toHaveLength(workload.iommu.unmaps);
    expect(named('vtd_inv_desc_iotlb_pages')).toHaveLength(workload.iommu.commands);
    expect(named('vtd_dmar_translate')).toHaveLength(setup.translations + workload.translations);
    expect(named('vtd_dmar_fault')).toEqual([]);
    const [ring] = named('map');
    expect(ring?.args).toMatchObject({ iova: 0xffff_e000n, end: 0x1_0000_0000n, size: 8192 });
    // Each translation is that of a map that holds.
    const held = new Map<bigint, bigint>();
    for (const { name, args } of events) {
      const iova = args.iova as bigint;
      const pages = Number(args.size ?? 0) / 4096;
      for (let i = 0n; i < pages; i += 1n) {
        if (name === 'map') held.set(iova + i * 4096n, (args.paddr as bigint) + i * 4096n);
        if (name === 'unmap') held.delete(iova + i * 4096n);
      }
      if (name === 'vtd_dmar_translate') expect(held.get(iova)).toBe(args.gpa);
    }
  });

  test('the device reaches what is in flight, and what waits for its invalidation', () => {
    const reached = (guest: Keys): number => x86(true, { machine: intel, guest }).reach.addressable;
    // A request of 64 KiB touches 16 to 17 pages of data, three more, and the ring.
    expect(reached(strict)).toBeLessThan(64 * 4 * KIB);
    expect(reached({})).toBeGreaterThan(2 * reached(strict));
    expect(x86(true, { machine: intel }).counters.strayBytesRead).toBe(0);
  });

  test('without the flag nothing goes through it', () => {
    for (const machine of [intel, virtio]) {
      const report = x86(false, { machine });
      expect(report.verdict.outcome).toBe('works');
      expect(report.counters.workload.iommu.maps).toBe(0);
      expect(report.counters.setup.iommu.maps).toBe(0);
      expect(report.reach.addressable).toBe(GIB);
    }
  });

  test.each([
    ['iommu=pt', 'intel-iommu passes the device through'],
    ['intel_iommu=off', 'intel-iommu is switched off'],
  ])('%s: physical addresses', (cmdline, because) => {
    const report = x86(true, { machine: intel, guest: { cmdline } });
    expect(report.verdict.outcome).toBe('works');
    expect(report.decision.because).toContain(because);
    expect(report.reach.addressable).toBe(GIB);
  });

  test('a kernel without its driver: virtio-iommu lets devices bypass it', () => {
    const report = x86(true, { machine: virtio, guest: { kernel: 'linux-5.10' } });
    expect(report.verdict.outcome).toBe('works');
    expect(report.decision.because).toContain('no driver for virtio-iommu');
  });

  test.each([
    ['upstream', 'works'],
    ['rfc-2018', 'works'],
    ['rfc-2018-direct-ops', 'works'],
    ['always-flag', 'fails'],
  ])('policy %s, and a host that did not set the flag: %s', (policy, outcome) => {
    const report = x86(false, { machine: intel, guest: { kernel: 'linux-4.18', policy } });
    expect(report.verdict.outcome).toBe(outcome);
    // The guest sends bus addresses to a device that takes them for physical ones.
    const isMisread = outcome === 'fails';
    expect(report.warnings.some((text) => text.includes('takes them for physical'))).toBe(
      isMisread,
    );
    expect(report.data.hung > 0).toBe(isMisread);
    expect(report.decision.dmaOps).toBe(isMisread ? 'iommu-dma' : 'none (physical)');
  });

  test('all of memory, asked for as a bus address, gives the device nothing', () => {
    for (const iommu of ['intel-iommu', 'virtio-iommu']) {
      const { busSpace, guestMemory } = build({ memory: '4GiB', iommu });
      const out = { gpa: 0, length: 0 };
      for (const { base, size } of guestMemory.regions) {
        for (let gpa = base; gpa < base + size; gpa += 16 * MIB) {
          const status = busSpace?.translate(
            Math.floor(gpa / 2 ** 32),
            gpa % 2 ** 32,
            8,
            DmaAccess.READ,
            out,
          );
          expect(status).toBe(DmaStatus.NO_PERMISSION);
        }
      }
      expect(busSpace?.translate(0, 0xfee0_0000, 4, DmaAccess.WRITE, out)).toBe(
        DmaStatus.INTERRUPT,
      );
    }
  });

  test('bus addresses keep out of what the host bridge has for its devices', () => {
    const { dma } = build({ memory: '4GiB', ...intel });
    const out = { hi: 0, lo: 0 };
    const seen: number[] = [];
    for (let i = 0; i < 80; i += 1) {
      expect(dma.ops.map(MIB, 64 * KIB * 17, 0, out)).toBe(true);
      seen.push(out.hi * 2 ** 32 + out.lo);
    }
    const taken = (from: number, to: number): boolean =>
      seen.some((at) => at < to && at + 64 * KIB * 17 > from);
    expect(Math.max(...seen)).toBeLessThan(2 ** 32);
    expect(taken(0xfee0_0000, 0xfef0_0000)).toBe(false);
    expect(taken(0xc000_0000, 0xfec0_0000)).toBe(false);
    // 2 GiB to the configuration space: devices; the configuration space itself is no window.
    expect(taken(0x8000_0000, 0xb000_0000)).toBe(false);
    expect(taken(0xb000_0000, 0xc000_0000)).toBe(true);
  });
});

describe('swiotlb=force', () => {
  test.each([
    // Into the pool: header 16, data, status 1, table of 3 descriptors; out of it: data and status.
    ['a read', pageReads(8), 8 * (16 + 2 * 4096 + 2 * 1 + 48)],
    [
      'a write',
      [{ write: { offset: 0, length: 32 * KIB, block: 4 * KIB } }],
      8 * (16 + 4096 + 2 * 1 + 48),
    ],
  ])('%s is copied as often as the kernel does it', (_what, workload, bytes) => {
    const report = x86(true, { guest: { cmdline: 'swiotlb=force' }, workload });
    expect(report.verdict.outcome).toBe('works');
    expect(report.counters.workload.bytesBounced).toBe(bytes);
    expect(report.decision.dmaOps).toBe('dma-direct + swiotlb');
  });

  test('past the DMA API nothing bounces', () => {
    const report = x86(false, { guest: { cmdline: 'swiotlb=force' } });
    expect(report.counters.workload.bytesBounced).toBe(0);
  });

  test.each([
    ['swiotlb=force', '2GiB', 64],
    ['swiotlb=force', '16GiB', 64],
    ['swiotlb=65536,force', '2GiB', 128],
    // Too large for low memory: halved until it fits.
    ['swiotlb=1048576,force', '1GiB', 512],
    ['swiotlb=force swiotlb=noforce', '2GiB', undefined],
    ['', '16GiB', undefined],
  ])('"%s", %s: a pool of %s MiB below 4 GiB', (cmdline, memory, mib) => {
    const pool = build({ memory }, { cmdline }).bouncePool;
    expect(pool?.size).toBe(mib === undefined ? undefined : mib * MIB);
    if (pool !== undefined) expect(pool.base + pool.size).toBeLessThanOrEqual(2 * GIB);
  });

  test.each([
    // 1 MiB of slots has no room for 1 MiB of data and a header; the block layer would try for ever.
    [512, 'fails'],
    [1024, 'works'],
  ])('%i slots: a read of 1 MiB, in elements of 256 KiB at most, %s', (slots, outcome) => {
    const report = x86(true, {
      guest: { cmdline: `swiotlb=${slots},force` },
      workload: [{ read: { offset: 0, length: MIB, block: MIB } }],
    });
    expect(report.verdict.outcome).toBe(outcome);
    expect(report.data.hung).toBe(outcome === 'fails' ? 1 : 0);
    expect(report.data.bytesReadWrong > 0).toBe(outcome === 'fails');
    expect(report.counters.bytesLost + report.counters.strayBytesRead).toBe(0);
  });
});

describe('a guest with encrypted memory', () => {
  const secure = { secure: true };

  test.each([
    ['linux-6.1', 'refused'],
    ['linux-6.12', 'refused'],
    // x86 asks since 5.13; before, the device gets addresses of private pages.
    ['linux-5.10', 'fails'],
    ['linux-4.18', 'fails'],
  ])('without the flag, %s: %s', (kernel, outcome) => {
    const report = x86(false, { guest: { ...secure, kernel } });
    expect(report.verdict.outcome).toBe(outcome);
    expect(report.refusal).toBe(
      outcome === 'refused' ? 'device must provide VIRTIO_F_ACCESS_PLATFORM' : null,
    );
    expect(report.data.privateBytesExposed).toBe(0);
    if (outcome === 'fails') expect(report.counters.ciphertextBytesRead).toBeGreaterThan(0);
  });

  test('with it everything bounces, the ring is shared, and nothing private is seen', () => {
    const report = x86(true, { guest: secure, workload: pageReads(8) });
    expect(report.verdict.outcome).toBe('works');
    expect(report.counters.workload.bytesBounced).toBe(8 * (16 + 2 * 4096 + 2 + 48));
    expect(report.counters.ciphertextBytesRead + report.counters.privateBytesWriteRefused).toBe(0);
    expect(report.data.privateBytesExposed).toBe(0);
    // The pool, and a ring of 256: 6.7 KB, two pages.
    expect(report.counters.bytesShared).toBe(64 * MIB + 2 * 4096);
    expect(report.reach).toEqual({ addressable: GIB, plaintext: 64 * MIB + 2 * 4096 });
  });

  test('a ring that is given back is private again', () => {
    const { dma, counters } = build({}, secure);
    const out = { hi: 0, lo: 0 };
    const before = counters().bytesShared;
    const gpa = dma.ops.allocCoherent(6726, out);
    expect(counters().bytesShared - before).toBe(8192);
    dma.ops.freeCoherent(gpa ?? -1, out.hi, out.lo, 6726);
    expect(counters().bytesShared).toBe(before);
  });

  test.each([
    // 6 % of memory, from 64 MiB to 1 GiB, rounded up to a power of two of slots.
    ['linux-6.1', '1GiB', 64],
    ['linux-6.1', '2GiB', 128],
    ['linux-6.1', '4GiB', 256],
    ['linux-6.1', '32GiB', 1024],
    // Before 5.11 it is what everybody has.
    ['linux-5.10', '32GiB', 64],
  ])('%s, %s: a pool of %i MiB', (kernel, memory, mib) => {
    expect(build({ memory }, { ...secure, kernel }).bouncePool?.size).toBe(mib * MIB);
  });

  test('swiotlb=noforce takes the pool away: the device gets ciphertext', () => {
    const report = x86(true, { guest: { ...secure, cmdline: 'swiotlb=noforce' } });
    expect(report.verdict.outcome).toBe('fails');
    expect(report.counters.ciphertextBytesRead).toBeGreaterThan(0);
    expect(report.data.privateBytesExposed).toBe(0);
  });

  test('behind an IOMMU nothing bounces and nothing is shared: the device gets ciphertext', () => {
    const report = x86(true, { guest: secure, machine: { iommu: 'intel-iommu' } });
    expect(report.verdict.outcome).toBe('fails');
    expect(report.reach.plaintext).toBe(0);
  });

  test.each([
    ['rfc-2018', 'works'],
    ['rfc-2018-direct-ops', 'works'],
    ['always-flag', 'works'],
    ['upstream', 'fails'],
  ])('the 2018 policies without the flag: %s %s', (policy, outcome) => {
    const report = x86(false, { guest: { ...secure, kernel: 'linux-4.18', policy } });
    expect(report.verdict.outcome).toBe(outcome);
    // Slots of the pool are at their physical addresses: nobody misreads anybody.
    expect(report.warnings).toEqual([]);
    expect(report.counters.workload.bytesBounced > 0).toBe(outcome === 'works');
  });
});

test('the hook of an encrypted guest knows that a device without the flag is past the IOMMU', () => {
  const report = x86(false, {
    machine: { iommu: 'intel-iommu' },
    guest: { secure: true, kernel: 'rfc-2018' },
  });
  expect(report.verdict.outcome).toBe('works');
  expect(report.decision.dmaOps).toBe('dma-direct + swiotlb');
});

describe('machines that cannot exist', () => {
  test.each([
    [
      { iommu: 'smmuv3' },
      'machine.iommu: expected "none" or "intel-iommu" or "virtio-iommu": what a machine of x86-64 can have, found "smmuv3"',
    ],
    [{ memory: '100MiB' }, 'machine.memory: expected a multiple of 1 MiB from 256 MiB to 512 GiB'],
    [{ memory: '513GiB' }, 'machine.memory: expected a multiple of 1 MiB from 256 MiB to 512 GiB'],
    [{ maxMemory: '8GiB' }, 'machine.maxMemory: hotplug is modelled for pseries only'],
    [
      { dmaRanges: [{ cpu: 0, bus: 0, size: '1GiB' }] },
      'machine.dmaRanges: the host bridge of q35 shows memory where it is',
    ],
  ])('%o', (machine, message) => {
    expect(() => x86(true, { machine })).toThrowError(MachineError);
    expect(() => x86(true, { machine })).toThrowError(message);
  });

  test('a pseries machine has its own IOMMU', () => {
    const machine = { arch: 'pseries', iommu: 'intel-iommu' };
    expect(() => x86(true, { machine })).toThrowError(
      'machine.iommu: expected "none": what a machine of pseries can have, found "intel-iommu"',
    );
  });
});
