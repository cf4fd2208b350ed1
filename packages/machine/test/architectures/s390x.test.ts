/** IBM Z: the rows of the platform table for s390 and s390 PV, and what sharing costs. */
import { describe, expect, test } from 'vitest';
import { MachineError } from '../../src/errors.js';
import type { RunReport } from '../../src/report.js';
import { run } from './runs.js';

const s390x = (
  flag: boolean,
  guest: Readonly<Record<string, unknown>> = {},
  more: { machine?: object; device?: object } = {},
): RunReport =>
  run({
    machine: { arch: 's390x', memory: '1GiB', ...more.machine },
    guest,
    device: { iommuPlatform: flag, ...more.device },
  });

describe('an ordinary guest', () => {
  test.each([
    [false, 'none (physical)', 'iommu_platform=off: system memory, past any IOMMU'],
    [true, 'dma-direct', 'iommu_platform=on, but the transport has no space'],
  ])('flag %s: physical addresses, in system memory', (flag, dmaOps, device) => {
    const report = s390x(flag);
    expect(report.verdict.outcome).toBe('works');
    expect(report.decision).toMatchObject({ dmaOps, device });
    expect(report.counters.setup.hcalls).toEqual({});
    expect(report.reach).toEqual({ addressable: 2 ** 30, plaintext: 2 ** 30 });
  });

  test('swiotlb=force does nothing: only a protected guest has a pool', () => {
    const report = s390x(true, { cmdline: 'swiotlb=force' });
    expect(report.counters.workload.bytesBounced).toBe(0);
    expect(report.decision.dmaOps).toBe('dma-direct');
  });

  test('what channel I/O cannot do is not negotiated', () => {
    const names = s390x(true).negotiated?.names ?? [];
    expect(names).toContain('VIRTIO_F_ACCESS_PLATFORM');
    expect(names).not.toContain('VIRTIO_F_RING_RESET');
  });

  test('several queues, packed rings', () => {
    const device = { packed: true, queues: 4 };
    expect(s390x(true, {}, { device }).verdict.outcome).toBe('works');
  });
});

describe('a protected guest', () => {
  const secure = { secure: true };

  test('without the flag the probe is refused, in the words of the kernel', () => {
    const report = s390x(false, secure);
    expect(report.refusal).toBe('device must provide VIRTIO_F_ACCESS_PLATFORM');
    expect(report.verdict.outcome).toBe('refused');
  });

  test('from 5.10 on: before, the device gets addresses of private pages', () => {
    expect(s390x(false, { ...secure, kernel: 'linux-5.10' }).verdict.outcome).toBe('refused');
    const report = s390x(false, { ...secure, kernel: 'linux-5.4' });
    expect(report.verdict.outcome).toBe('fails');
    expect(report.counters.ciphertextBytesRead).toBeGreaterThan(0);
    expect(report.data.privateBytesExposed).toBe(0);
  });

  test('with it buffers bounce; each page that is shared is one ultravisor call', () => {
    const report = s390x(true, secure);
    expect(report.verdict.outcome).toBe('works');
    expect(report.decision.dmaOps).toBe('dma-direct + swiotlb');
    // The pool of 64 MiB, the page of channel programs, and a ring of 256: 4096 bytes of descriptors,
    // 518 of the driver's area, and on the next page boundary 2054 of the device's.
    const pages = (64 * 2 ** 20) / 4096 + 1 + 3;
    expect(report.counters.setup.hcalls).toEqual({ UVC_CMD_SET_SHARED_ACCESS: pages });
    expect(report.counters.bytesShared).toBe(pages * 4096);
    expect(report.counters.workload.hcalls).toEqual({});
    expect(report.reach).toEqual({ addressable: 2 ** 30, plaintext: pages * 4096 });
    expect(report.data.privateBytesExposed).toBe(0);
    // A write is copied once, a read twice.
    expect(report.counters.workload.bytesBounced).toBeGreaterThan((256 + 2 * 512) * 1024);
  });

  test('swiotlb=noforce takes the pool away: addresses of private pages', () => {
    const report = s390x(true, { ...secure, cmdline: 'swiotlb=noforce' });
    expect(report.decision.because).toMatch(/physical addresses, of private memory/);
    expect(['fails', 'wrong-data']).toContain(report.verdict.outcome);
    expect(report.data.privateBytesExposed).toBe(0);
  });

  test('a pool that does not fit is no machine', () => {
    expect(() => s390x(true, { ...secure, cmdline: 'swiotlb=1048576' })).toThrow(MachineError);
    expect(() => s390x(true, { ...secure, cmdline: 'swiotlb=1048576' })).toThrow(/^guest\.cmdline/);
  });
});

test.each([
  ['machine.iommu', { iommu: 'intel-iommu' }],
  ['machine.memory', { memory: '1000000000' }],
  ['machine.maxMemory', { maxMemory: '2GiB' }],
  ['machine.dmaRanges', { dmaRanges: [] }],
])('%s says where', (path, machine) => {
  const attempt = (): unknown => s390x(true, {}, { machine });
  expect(attempt).toThrow(MachineError);
  expect(attempt).toThrow(new RegExp(`^${path.replace('.', '\\.')}: `));
});
