/** Kernel profiles, the command line, the policies: what a user names. */
import { describe, expect, test } from 'vitest';
import {
  findKernelProfile,
  findPolicy,
  hasRestrictedVirtioAccess,
  KERNEL_PROFILES,
  type KernelProfile,
  kernelProfileForRelease,
  parseKernelCommandLine,
  VIRTIO_DMA_POLICIES,
} from '../src/index.js';

describe('kernelProfileForRelease', () => {
  test.each([
    ['6.12.107+deb13-powerpc64le', 'linux-6.12'],
    ['6.12.5', 'linux-6.12.0'],
    ['6.12', 'linux-6.12.0'],
    ['6.1.0-50-powerpc64le', 'linux-6.1'],
    ['7.2.13+deb14-powerpc64le', 'linux-7.2'],
    ['Linux version 7.2.13+deb14', 'linux-7.2'],
    ['5.15.0', 'linux-6.1'],
    ['5.14.21', 'linux-5.10'],
    ['5.4.0-150-generic', 'linux-5.4'],
    ['4.19.0', 'linux-4.18'],
    ['6.18.2', 'linux-6.12'],
    ['11.0.1', 'linux-7.2'],
    ['4.4.0', undefined],
    ['not a release', undefined],
    ['', undefined],
  ])('%s is %s', (release, id) => {
    expect(kernelProfileForRelease(release)?.id).toBe(id);
  });
});

test('a kernel is complete: its policy exists, its sources are named, its page size is one it can have', () => {
  for (const kernel of KERNEL_PROFILES) {
    expect(findPolicy(kernel.vring.policy)?.id).toBe(kernel.vring.policy);
    expect(kernel.pageSizes).toContain(kernel.pageSize);
    expect(findKernelProfile(kernel.id)).toBe(kernel);
    for (const part of Object.values(kernel)) {
      if (typeof part === 'object' && 'source' in part) expect(part.source).not.toBe('');
    }
  }
  expect(new Set(KERNEL_PROFILES.map(({ id }) => id)).size).toBe(10);
});

test('powerpc never refuses a device without the flag; x86 and s390x do, from their releases on', () => {
  const ask = (id: string, platform: 'pseries' | 's390x' | 'x86-64', isProtected = true) =>
    hasRestrictedVirtioAccess(findKernelProfile(id) as KernelProfile, platform, isProtected);
  expect(KERNEL_PROFILES.some(({ id }) => ask(id, 'pseries'))).toBe(false);
  expect([ask('linux-5.4', 's390x'), ask('linux-5.10', 's390x')]).toEqual([false, true]);
  expect([ask('linux-5.10', 'x86-64'), ask('linux-6.1', 'x86-64')]).toEqual([false, true]);
  expect(ask('linux-6.1', 'x86-64', false)).toBe(false);
});

describe('parseKernelCommandLine', () => {
  test('knows what acts on DMA, and returns the rest', () => {
    const line =
      'console=hvc0 disable_ddw multitce=off iommu=novmerge swiotlb=4096,2,force "x=a b" -- disable';
    expect(parseKernelCommandLine(line)).toEqual({
      disableDdw: true,
      multitce: false,
      novmerge: true,
      iommuOff: false,
      swiotlb: { bytes: 4096 * 2048, areas: 2, force: true, noforce: false },
      unknown: ['console=hvc0', 'x=a b'],
    });
  });

  test('an empty line is the default: 64 MiB to bounce in, both multi-TCE calls, a second window', () => {
    expect(parseKernelCommandLine('')).toEqual({
      disableDdw: false,
      multitce: true,
      novmerge: false,
      iommuOff: false,
      swiotlb: { bytes: 64 * 2 ** 20, force: false, noforce: false },
      unknown: [],
    });
  });

  test.each([
    ['swiotlb=force', { bytes: 64 * 2 ** 20, force: true, noforce: false }],
    ['swiotlb=noforce', { bytes: 64 * 2 ** 20, force: false, noforce: true }],
    ['swiotlb=129', { bytes: 256 * 2048, force: false, noforce: false }],
    ['swiotlb=0x100,force', { bytes: 256 * 2048, force: true, noforce: false }],
    ['swiotlb=,3', { bytes: 64 * 2 ** 20, areas: 4, force: false, noforce: false }],
    ['swiotlb=256,forces', { bytes: 256 * 2048, force: false, noforce: false }],
  ])('%s', (line, swiotlb) => {
    expect(parseKernelCommandLine(line).swiotlb).toEqual(swiotlb);
  });

  test('the last word wins; words that look alike say nothing', () => {
    expect(parseKernelCommandLine('iommu=novmerge iommu=vmerge').novmerge).toBe(false);
    expect(parseKernelCommandLine('iommu=pt disable_ddws intel_iommu=off').unknown).toEqual([
      'iommu=pt',
      'disable_ddws',
      'intel_iommu=off',
    ]);
    expect(parseKernelCommandLine('iommu=off').iommuOff).toBe(true);
  });
});

describe('policies', () => {
  const table = (hook: boolean, offset: boolean) =>
    VIRTIO_DMA_POLICIES.map(({ id, vringUseDmaApi }) => {
      const asked = (hasAccessPlatform: boolean) =>
        vringUseDmaApi({
          hasAccessPlatform,
          archWantsDmaOps: { answer: hook, because: 'a test' },
          hasBusOffset: false,
          busHasOffset: offset,
        });
      const without = asked(false);
      return [id, asked(true).ops, without.ops, without.warning !== undefined];
    });

  test('an ordinary guest: who changes what virtio does without the flag', () => {
    expect(table(false, true)).toEqual([
      ['upstream', 'bus', 'physical', false],
      ['rfc-2018', 'bus', 'physical', false],
      ['rfc-2018-direct-ops', 'bus', 'physical', false],
      ['always-flag', 'bus', 'bus', true],
    ]);
  });

  test('a secure guest, whose platform asks for DMA ops', () => {
    expect(table(true, false)).toEqual([
      ['upstream', 'bus', 'physical', false],
      ['rfc-2018', 'bus', 'hook', false],
      ['rfc-2018-direct-ops', 'bus', 'hook', false],
      ['always-flag', 'bus', 'bus', false],
    ]);
  });
});
