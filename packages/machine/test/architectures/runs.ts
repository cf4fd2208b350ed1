/** Runs of one device on machines that tests describe by what is special about them. */
import { createSeededDisk } from '../../src/disk.js';
import type { RunReport } from '../../src/report.js';
import { runScenario } from '../../src/run.js';
import { parseScenario } from '../../src/scenario.js';

/** What a run differs in. */
export interface RunSetup {
  readonly machine: Readonly<Record<string, unknown>>;
  readonly guest?: Readonly<Record<string, unknown>>;
  readonly device?: Readonly<Record<string, unknown>>;
  readonly workload?: readonly object[];
}

const KIB = 1024;
const disk = createSeededDisk(1, 2 ** 20);
const WORKLOAD = [
  { write: { offset: 0, length: 256 * KIB, block: 64 * KIB } },
  { read: { offset: 0, length: 512 * KIB, block: 64 * KIB } },
];

export function run(setup: RunSetup): RunReport {
  const { machine, guest = {}, device = {}, workload = WORKLOAD } = setup;
  const scenario = { machine, guest, devices: [{ type: 'virtio-blk', ...device }], workload };
  return runScenario(parseScenario(JSON.stringify(scenario)), { disk });
}
