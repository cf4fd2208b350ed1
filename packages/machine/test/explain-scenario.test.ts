/** Rules and model are two: what explain says of a scenario of any architecture is what its run does. */
import { describe, expect, test } from 'vitest';
import { createSeededDisk } from '../src/disk.js';
import {
  architectures,
  type ExplainError,
  explain,
  parseScenario,
  type RunReport,
  runScenario,
} from '../src/index.js';

const disk = createSeededDisk(1, 2 ** 20);

/** The path of a run, from its counts alone. */
function pathOfRun({ negotiated, verdict, counters, decision, machine }: RunReport): string {
  if (negotiated === null) return 'refused';
  if (verdict.outcome === 'fails') return 'unreachable';
  if (counters.workload.bytesBounced > 0) return 'bounced';
  if (counters.workload.iommu.maps > 0) return 'viommu';
  if (decision.dmaOps.includes('physical')) return 'physical';
  return machine.arch === 'arm64' && decision.because.includes('dma-ranges')
    ? 'bus-offset'
    : 'no-iommu';
}

const cases = architectures
  .filter(({ id }) => ['x86-64', 'arm64', 's390x'].includes(id))
  .flatMap(({ id, variants, secure }) =>
    variants.flatMap((variant) => {
      // A secure guest behind an IOMMU is not what the rules are about.
      const hasIommu = variant.machine?.iommu !== undefined;
      const guests = secure === undefined || hasIommu ? [false] : [false, true];
      return guests.flatMap((isSecure) =>
        [false, true].map((flag) => ({ arch: id, variant, isSecure, flag })),
      );
    }),
  );

describe('of the platforms that are answered by rules', () => {
  test.each(cases)(
    '$variant.id, secure $isSecure, flag $flag',
    ({ arch, variant, isSecure, flag }) => {
      const scenario = parseScenario(
        JSON.stringify({
          machine: { ...variant.machine, arch },
          guest: { ...variant.guest, ...(isSecure ? { secure: true } : {}) },
          devices: [{ type: 'virtio-blk', iommuPlatform: flag }],
          workload: [{ read: { offset: 0, length: '64KiB', block: '4KiB' } }],
        }),
      );
      const { devices } = explain({ scenario });
      expect(devices[0]?.answers[0]?.path.id).toBe(pathOfRun(runScenario(scenario, { disk })));
    },
  );
});

test('an architecture without rules is named, with those that have some', () => {
  const scenario = parseScenario(
    JSON.stringify({
      machine: { arch: 'xen' },
      devices: [{ type: 'virtio-blk' }],
      workload: [{ read: { offset: 0, length: '4KiB', block: '4KiB' } }],
    }),
  );
  const problem = (): ExplainError => {
    try {
      explain({ scenario });
    } catch (error) {
      return error as ExplainError;
    }
    throw new Error('explained');
  };
  expect(problem()).toMatchObject({ code: 'E_PLATFORM' });
  expect(problem().message).toContain('(pseries, x86-64, arm64, s390x), found "xen"');
});
