/** What explain takes from a scenario. That its answers are those of runs: slow/explain-counts.test.ts. */
import { expect, test } from 'vitest';
import { type ExplainError, explain, parseScenario, type Scenario } from '../src/index.js';

const READ = { read: { offset: 0, length: '4KiB', block: '4KiB' } };

const scenarioOf = (
  machine: object,
  guest: object = {},
  device: { readonly iommuPlatform?: boolean; readonly vhost?: string } = {},
): Scenario =>
  parseScenario(
    JSON.stringify({
      machine,
      guest,
      devices: [{ type: 'virtio-blk', ...device }],
      workload: [READ],
    }),
  );

test('the kernel that is explained is the one in the heading', () => {
  const scenario = scenarioOf({ arch: 'pseries' }, { kernel: 'linux-6.12' });
  const { kernels, facts, devices } = explain({ scenario, kernels: ['linux-6.1', 'linux-7.2'] });
  expect(kernels).toEqual(['linux-6.1', 'linux-7.2']);
  expect(devices[0]?.answers.map(({ kernel }) => kernel)).toEqual(kernels);
  expect(facts.filter(({ what }) => what === 'kernel')).toEqual([
    {
      what: 'kernel',
      value: 'linux-6.1 and linux-7.2',
      from: '--kernel; the scenario has linux-6.12',
    },
  ]);
  // Two ways to name it that do not agree are an error, not a heading that is wrong.
  const problem = (): ExplainError => {
    try {
      explain({
        qemu: 'qemu-system-x86_64 -device virtio-net-pci',
        set: ['guest.kernel=linux-6.1'],
      });
    } catch (error) {
      return error as ExplainError;
    }
    throw new Error('explained');
  };
  expect(problem()).toMatchObject({ code: 'E_KERNEL' });
  expect(problem().message).toContain('expected the kernel as --kernel linux-6.1');
});

test('all that a scenario says is run: policy, vhost, settings', () => {
  const pathOf = (scenario: Scenario, kernels: string[] = []): string | undefined =>
    explain({ scenario, kernels }).devices[0]?.answers[0]?.path.id;
  const machine = { arch: 'pseries', maxMemory: '4GiB' };
  const hook = scenarioOf(machine, { secure: true, policy: 'rfc-2018' });
  expect(pathOf(scenarioOf(machine, { secure: true }))).toBe('unreachable');
  expect(pathOf(hook)).not.toBe('unreachable');
  // Another kernel brings its own rule, unless the scenario has chosen one.
  expect(pathOf(scenarioOf({ arch: 'pseries' }, {}), ['always-flag'])).toBe('mismatched');
  const xen = { arch: 'xen', settings: { grants: true } };
  expect(pathOf(scenarioOf(xen, {}, { iommuPlatform: true }))).toBe('grants');
  const vhost = scenarioOf(
    { arch: 'x86-64', iommu: 'intel-iommu' },
    {},
    { iommuPlatform: true, vhost: 'on' },
  );
  const notes = explain({ scenario: vhost }).devices[0]?.answers[0]?.cost?.notes.join('\n');
  expect(notes).toMatch(/vhost: \d+(\.\d+)? IOTLB misses/);
});
