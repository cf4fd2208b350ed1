/** Where what went wrong was first seen: addresses that follow from the machine, not from the run. */
import { describe, expect, test } from 'vitest';
import { GivenMemory } from '../src/given-memory.js';
import { parseScenario, type RunReport, runScenario } from '../src/index.js';

const DEVICE = (flag: boolean): string => `devices: [{ type: virtio-blk, iommuPlatform: ${flag} }]
workload:
  - { read: { offset: 0, length: 16KiB, block: 4KiB } }
  - { write: { offset: 1MiB, length: 64KiB, block: 64KiB } }`;

const run = (machine: string, guest: string, flag: boolean): RunReport =>
  runScenario(parseScenario(`machine: ${machine}\nguest: ${guest}\n${DEVICE(flag)}`));

const DDW = '{ arch: pseries, memory: 2GiB, maxMemory: 4GiB }';

describe('a run', () => {
  test('that is healthy has nothing to show', () => {
    const { evidence } = run(DDW, '{ kernel: linux-6.12 }', true);
    const none = { count: 0, first: [] };
    expect(evidence).toEqual({
      firstStray: null,
      misread: null,
      privatePagesTouched: none,
      privatePagesExposed: none,
      entriesLeft: 0,
      entriesDeferred: 0,
    });
  });

  test('with an offset: the bus address is taken as it is, which is the offset away', () => {
    const machine = `{ arch: arm64, memory: 3GiB, dmaRanges: [
      { cpu: 0x40000000, bus: 0x40000000, size: 1GiB },
      { cpu: 0xc0000000, bus: 0x80000000, size: 1GiB } ] }`;
    const { misread, firstStray } = run(machine, '{ policy: rfc-2018 }', false).evidence;
    expect(misread).toMatchObject({ guest: 'bus', device: 'physical', landed: misread?.address });
    const { address = '0', meant } = misread ?? {};
    expect(BigInt(meant ?? 0) - BigInt(address)).toBe(0x4000_0000n);
    expect(BigInt(address) >= 0x8000_0000n && BigInt(address) < 0xc000_0000n).toBe(true);
    expect(firstStray).toMatchObject({ gpa: address });
  });

  test('behind a second window: the address is 2^59 above the memory, where nothing is', () => {
    const { misread, firstStray } = run(DDW, '{ kernel: always-flag }', false).evidence;
    expect(misread).toMatchObject({ guest: 'bus', device: 'physical', landed: null });
    expect(BigInt(misread?.address ?? 0) - BigInt(misread?.meant ?? 0)).toBe(2n ** 59n);
    expect(firstStray).toBeNull();
  });

  test('of a secure guest: the ring’s page is private, and touched; nothing is exposed', () => {
    const { evidence, counters } = run(DDW, '{ kernel: linux-6.12, secure: true }', false);
    expect(evidence.privatePagesTouched.count).toBe(1);
    expect(BigInt(evidence.privatePagesTouched.first[0] ?? 1) % 4096n).toBe(0n);
    expect(evidence.privatePagesExposed.count).toBe(0);
    expect(counters.ciphertextBytesRead).toBeGreaterThan(0);
    // The device was given that page: the guest sent it there.
    expect(evidence.firstStray).toBeNull();
    expect(evidence.misread).toBeNull();
  });

  test('that bounces touches no private page', () => {
    for (const flag of [false, true]) {
      const { evidence } = run(DDW, '{ kernel: rfc-2018, secure: true }', flag);
      expect(evidence.privatePagesTouched.count).toBe(0);
      expect(evidence.misread).toBeNull();
    }
  });

  test('that never unmaps leaves every entry that it wrote', () => {
    const lost = '{ arch: pseries, memory: 2GiB }';
    const leak = run(lost, '{ kernel: linux-7.2 }', true);
    expect(leak.evidence.entriesLeft).toBe(leak.counters.workload.tcesWritten);
    expect(leak.evidence.entriesLeft).toBeGreaterThan(0);
    const healthy = run(lost, '{ kernel: linux-6.12 }', true);
    expect(healthy.evidence.entriesLeft).toBe(0);
    // Half of what is written takes something away.
    expect(healthy.counters.workload.tcesWritten).toBe(2 * leak.evidence.entriesLeft);
  });
});

describe('what a device still reaches when all is unmapped', () => {
  const stale = (iommu: string, kernel: string, cmdline: string): number =>
    run(
      `{ arch: x86-64, memory: 2GiB, iommu: ${iommu} }`,
      `{ kernel: ${kernel}, cmdline: "${cmdline}" }`,
      true,
    ).evidence.entriesDeferred;

  test('with deferred invalidation every page that it used; strictly none', () => {
    // Four reads: header, data, status, indirect table. A write: 16 pages of data.
    const pages = 4 * 4 + 3 + 16;
    expect(stale('intel-iommu', 'linux-6.12', '')).toBe(pages);
    expect(stale('intel-iommu', 'linux-6.12', 'iommu.strict=1')).toBe(0);
    expect(stale('virtio-iommu', 'linux-6.1', '')).toBe(0);
    // Its unmaps wait for the next request alone: those of the write.
    expect(stale('virtio-iommu', 'linux-6.12', '')).toBe(3 + 16);
  });
});

describe('what a device was given', () => {
  test('pages count once for each mapping, and the pool always', () => {
    const given = new GivenMemory({ base: 0x10_0000, size: 0x1000 });
    given.give(0x2ff0, 0x20);
    given.give(0x3000, 0x10);
    given.take(0x3000, 0x10);
    expect([0x1fff, 0x2000, 0x3fff, 0x4000].map((gpa) => given.has(gpa))).toEqual([
      false,
      true,
      true,
      false,
    ]);
    expect(given.has(0x10_0fff) && !given.has(0x10_1000)).toBe(true);
    given.take(0x2ff0, 0x20);
    expect(given.has(0x3000)).toBe(false);
  });

  test('a stray access is counted by its bytes, and the first one named', () => {
    const given = new GivenMemory();
    given.give(0x2000, 0x1000);
    expect(given.access(0x2000, 0x1000, true)).toBeUndefined();
    expect(given.access(0x1ff8, 0x1010, false)).toBe(0x1ff8);
    expect(given.access(0x9000, 4, true)).toBe(0x9000);
    expect(given.strayBytesRead).toBe(16);
    expect(given.strayBytesWritten).toBe(4);
    expect(given.firstStray).toEqual({ gpa: 0x1ff8, length: 8, isWrite: false });
  });

  test('an address is misread when it leads elsewhere, while it is handed out', () => {
    const given = new GivenMemory();
    given.hand(0x8000n, 0x100, 0x2000);
    given.landed(0x8100n, undefined, false);
    given.landed(0x8010n, 0x2010, false);
    expect(given.misread).toBeUndefined();
    expect(given.withdraw(0x8000n)).toBe(0x2000);
    given.landed(0x8000n, 0x5000, false);
    expect(given.misread).toBeUndefined();
    given.hand(0x8000n, 0x100, 0x2000);
    given.landed(0x8008n, 0x5008, true);
    given.landed(0x8009n, undefined, true);
    expect(given.misread).toEqual({
      address: 0x8008n,
      meant: 0x2008,
      landed: 0x5008,
      isWrite: true,
    });
  });
});
