/** Secure guests on pseries (PEF): what the ultravisor is asked, what the hypervisor sees. */
import { describe, expect, test } from 'vitest';
import type { RunReport } from '../../src/report.js';
import { run } from './runs.js';

const POOL = 64 * 2 ** 20;

const pef = (
  flag: boolean,
  machine: Readonly<Record<string, unknown>> = {},
  guest: Readonly<Record<string, unknown>> = {},
): RunReport =>
  run({
    machine: { arch: 'pseries', memory: '1GiB', maxMemory: '2GiB', ...machine },
    guest: { secure: true, ...guest },
    device: { iommuPlatform: flag },
  });

describe('with the flag and a second window', () => {
  const report = pef(true);

  test('buffers bounce through the pool, at its place in the window', () => {
    expect(report.verdict.outcome).toBe('works');
    expect(report.decision.dmaOps).toBe('dma-direct + swiotlb');
    expect(report.decision.because).toMatch(/second window: bounce buffers/);
    expect(report.counters.workload.hcalls).toEqual({});
  });

  test('ultracalls by name: the pool, a buffer for RTAS, the ring; each shares a run of pages', () => {
    const { hcalls } = report.counters.setup;
    expect(hcalls.UV_SHARE_PAGE).toBe(3);
    expect(hcalls.UV_UNSHARE_PAGE).toBe(undefined);
    // Split ring of 256 in 4 KiB pages: 2 of them; a page for RTAS.
    expect(report.counters.bytesShared).toBe(POOL + 4096 + 2 * 4096);
  });

  test('a TCE a call: a secure guest has no H_PUT_TCE_INDIRECT', () => {
    const { hcalls } = report.counters.setup;
    // 1 GiB in pages of 16 MiB.
    expect(hcalls.H_PUT_TCE).toBe(64);
    expect(hcalls.H_PUT_TCE_INDIRECT).toBe(undefined);
  });

  test('the window reaches all of memory, and in clear what is shared', () => {
    expect(report.reach).toEqual({
      addressable: 2 ** 30,
      plaintext: report.counters.bytesShared,
    });
    expect(report.counters.ciphertextBytesRead).toBe(0);
    expect(report.data.privateBytesExposed).toBe(0);
  });
});

test('with the flag, without a second window: TCEs of private pages, which read as ciphertext', () => {
  const report = pef(true, { ddw: false });
  expect(report.decision.dmaOps).toBe('dma-iommu');
  expect(report.verdict.outcome).toBe('fails');
  expect(report.counters.ciphertextBytesRead).toBeGreaterThan(0);
  expect(report.data.privateBytesExposed).toBe(0);
});

test('without the flag powerpc refuses nothing: physical addresses of private pages', () => {
  for (const kernel of ['linux-5.10', 'linux-6.1', 'linux-6.12', 'linux-7.2']) {
    const report = pef(false, {}, { kernel });
    expect([report.refusal, report.decision.dmaOps]).toEqual([null, 'none (physical)']);
    expect(report.verdict.outcome).toBe('fails');
    expect(report.data.privateBytesExposed).toBe(0);
  }
});

test('the 2018 hook makes such a device work: bounce buffers at physical addresses', () => {
  const report = pef(false, {}, { policy: 'rfc-2018' });
  expect(report.verdict.outcome).toBe('works');
  expect(report.decision.because).toMatch(/the platform asks \(a secure guest\)/);
  expect(report.counters.workload.bytesBounced).toBeGreaterThan(0);
  expect(report.data.privateBytesExposed).toBe(0);
});

test('an ordinary guest makes no ultracall', () => {
  const { setup } = pef(true, {}, { secure: false }).counters;
  expect(Object.keys(setup.hcalls).filter((name) => name.startsWith('UV_'))).toEqual([]);
});
