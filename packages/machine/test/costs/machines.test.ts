/** Every machine finds a constant for all that it counts in the default preset of its architecture. */
import { expect, test } from 'vitest';
import {
  architectures,
  type CostPreset,
  createSeededDisk,
  defaultCostPreset,
  estimateCosts,
  MachineError,
  parseScenario,
  runScenario,
} from '../../src/index.js';

const disk = createSeededDisk(1);

const cases = architectures.flatMap(({ id: arch, variants, secure }) =>
  variants.flatMap(({ id, machine, guest }) =>
    [false, ...(secure === undefined ? [] : [true])].flatMap((isSecure) =>
      (['off', 'on'] as const).map(
        (vhost) =>
          [
            `${id}${isSecure ? ', secure' : ''}, vhost ${vhost}`,
            {
              machine: { ...machine, arch },
              guest: { ...guest, ...(isSecure ? { secure: true } : {}) },
              devices: [{ type: 'virtio-blk', iommuPlatform: true, vhost }],
              workload: [{ read: { offset: 0, length: 16_384, block: 4096 } }],
            },
          ] as const,
      ),
    ),
  ),
);

test.each(cases)('%s', (_name, scenario) => {
  const preset = defaultCostPreset(scenario.machine.arch) as CostPreset;
  const run = () => {
    try {
      return runScenario(parseScenario(JSON.stringify(scenario)), { disk });
    } catch (error) {
      // Some machines cannot have vhost, or private memory.
      if (error instanceof MachineError && error.code === 'E_MACHINE') return undefined;
      throw error;
    }
  };
  const report = run();
  if (report === undefined) return;
  const costs = estimateCosts(report, preset);
  const isServed = report.data.requests > 0 && report.data.completed === report.data.requests;
  expect(costs === undefined).toBe(!isServed);
  if (costs !== undefined) expect(costs.throughput.high).toBeLessThanOrEqual(1);
});
