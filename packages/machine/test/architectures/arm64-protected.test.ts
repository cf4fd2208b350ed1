/** Protected guests on Arm (pKVM): the row of the platform table. */
import { describe, expect, test } from 'vitest';
import { MachineError } from '../../src/errors.js';
import type { RunReport } from '../../src/report.js';
import { run } from './runs.js';

const POOL = 64 * 2 ** 20;

const protectedArm = (flag: boolean, machine: Readonly<Record<string, unknown>> = {}): RunReport =>
  run({
    machine: { arch: 'arm64', memory: '1GiB', ...machine },
    guest: { secure: true },
    device: { iommuPlatform: flag },
  });

test('with the flag all that the device gets is in the restricted-dma-pool, rings as well', () => {
  const report = protectedArm(true);
  expect(report.verdict.outcome).toBe('works');
  expect(report.decision).toMatchObject({ dmaOps: 'dma-direct + swiotlb' });
  expect(report.decision.because).toMatch(/restricted-dma-pool/);
  // No page but the pool's was ever shared, one hypercall each.
  expect(report.counters.bytesShared).toBe(POOL);
  expect(report.counters.setup.hcalls).toEqual({
    ARM_SMCCC_VENDOR_HYP_KVM_MEM_SHARE_FUNC_ID: POOL / 4096,
  });
  expect(report.counters.workload.hcalls).toEqual({});
  expect(report.reach).toEqual({ addressable: 2 ** 30, plaintext: POOL });
  expect(report.counters.ciphertextBytesRead).toBe(0);
  expect(report.data.privateBytesExposed).toBe(0);
});

test('without it no kernel refuses: the device gets physical addresses of private memory', () => {
  const report = protectedArm(false);
  expect(report.refusal).toBe(null);
  expect(report.decision.dmaOps).toBe('none (physical)');
  expect(report.verdict.outcome).toBe('fails');
  expect(report.counters.ciphertextBytesRead).toBeGreaterThan(0);
  expect(report.data.privateBytesExposed).toBe(0);
});

test('a bus with an offset shows the pool where dma-ranges says', () => {
  const dmaRanges = [
    { cpu: '0x40000000', bus: '0x40000000', size: '512MiB' },
    { cpu: '0x60000000', bus: '0x0', size: '512MiB' },
  ];
  const report = protectedArm(true, { dmaRanges });
  expect(report.verdict.outcome).toBe('works');
  expect(report.reach.plaintext).toBe(POOL);
});

test('behind an IOMMU there is no pool: the device gets private pages, and sees nothing', () => {
  const report = protectedArm(true, { iommu: 'smmuv3' });
  expect(report.verdict.outcome).toBe('fails');
  expect(report.counters.bytesShared).toBe(0);
  expect(report.reach.plaintext).toBe(0);
  expect(report.data.privateBytesExposed).toBe(0);
});

describe('a pool that has no room is no machine', () => {
  test('the last range is too small', () => {
    const dmaRanges = [{ cpu: '0x40000000', bus: '0x40000000', size: '100MiB' }];
    expect(() => protectedArm(true, { dmaRanges })).toThrow(MachineError);
    expect(() => protectedArm(true, { dmaRanges })).toThrow(/^machine\.dmaRanges: .*pool/);
  });
});
