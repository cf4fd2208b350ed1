// Reports to render: real runs of the nine paths, and made ones for what no path shows.
import { type RunReport, runScenario } from '@pinhole/machine';
import type { ComparedPath } from '../src/compare-path.js';
import { builtInScenarios, loadScenario } from '../src/scenarios.js';

/** The nine paths of the debate, run. */
export function realPaths(): ComparedPath[] {
  return builtInScenarios().map(({ id, number }) => ({
    number,
    id,
    report: runScenario(loadScenario(id, []).scenario),
  }));
}

/** A path whose driver gave up before any I/O. */
export function refusedPath({ number, id, report }: ComparedPath): ComparedPath {
  const refusal = 'the driver wants ACCESS_PLATFORM and the device does not offer it';
  const none: RunReport = {
    ...report,
    negotiated: null,
    refusal,
    data: {
      ...report.data,
      requests: 0,
      completed: 0,
      bytesRead: 0,
      bytesWritten: 0,
    },
    verdict: { outcome: 'refused', text: `no device: ${refusal}` },
  };
  return { number, id, report: none };
}

/** Text that would do harm where it is not escaped. */
export const HOSTILE = `<script>alert("1")</script>&'\u001b[31m<img src=x onerror=y>`;

/** A path with such text wherever a report has text. */
export function hostilePath({ number, report }: ComparedPath): ComparedPath {
  return {
    number,
    id: HOSTILE,
    report: {
      ...report,
      title: HOSTILE,
      negotiated: { features: HOSTILE, names: [HOSTILE] },
      machine: { ...report.machine, arch: HOSTILE, qemu: HOSTILE, kernel: HOSTILE },
      decision: { dmaOps: HOSTILE, because: HOSTILE, device: HOSTILE, steps: [HOSTILE] },
      warnings: [HOSTILE],
      deviceErrors: [HOSTILE],
      data: {
        ...report.data,
        firstFailure: HOSTILE,
        firstWrong: { offset: 0, expected: HOSTILE, found: HOSTILE },
      },
      counters: {
        ...report.counters,
        setup: { ...report.counters.setup, hcalls: { [HOSTILE]: 1 } },
        hcallsPerRequest: { [HOSTILE]: 1.5 },
        hcallsPerRequestTotal: 1.5,
      },
      verdict: { outcome: 'fails', text: HOSTILE },
    },
  };
}
