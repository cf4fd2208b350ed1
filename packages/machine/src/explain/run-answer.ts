/** The answer for one machine: the model is run, and run again with each change that could help. */
import { formatSize, ModelError } from '@pinhole/base';
import { defaultCostPreset, findCostPreset } from '../costs/presets.js';
import type { Cost, ExplanationStep, Fix, PathId, Reach } from './explanation.js';
import { fixesOf } from './fixes.js';
import { guestSteps, pathOf } from './guest-adapter.js';
import type { ModelRun, ModelRunner } from './model-run.js';
import { type ModelQuestion, scenarioNotes, toScenario, whyNoScenario } from './to-scenario.js';

/** What a run says. */
export interface RunAnswer {
  readonly path: PathId;
  readonly steps: readonly ExplanationStep[];
  readonly cost: Cost | null;
  readonly reach: Reach;
  readonly fixes: readonly Fix[];
  readonly run: ModelRun | undefined;
}

/** Runs the model. A machine that it cannot build is an answer, too. */
export function answerByRun(runner: ModelRunner, question: ModelQuestion): RunAnswer {
  const missing = whyNoScenario(question);
  if (missing !== undefined) return unknown(missing);
  let run: ModelRun;
  try {
    run = runner.run(question);
  } catch (error) {
    if (!isOfMachine(error, question)) throw error;
    return unknown(error.message);
  }
  const path = pathOf(run);
  return {
    path,
    steps: guestSteps(run),
    cost: costOf(runner, run, question),
    reach: reachOf(run, path, question),
    fixes: fixesOf(runner, question, run),
    run,
  };
}

function unknown(why: string): RunAnswer {
  return {
    path: 'unknown',
    steps: [
      {
        side: 'guest',
        text: `the model cannot build this machine: ${why}`,
        fact: 'the machine described',
        source: '',
      },
    ],
    cost: null,
    reach: { bytes: null, text: 'not known' },
    fixes: [],
    run: undefined,
  };
}

// A machine that cannot be is an answer; a mistake in `--set` is one of the caller's.
function isOfMachine(error: unknown, question: ModelQuestion): error is ModelError {
  if (!(error instanceof ModelError) || error.code === 'E_KERNEL') return false;
  if (error.code !== 'E_SCENARIO' || question.set.length === 0) return true;
  try {
    toScenario({ ...question, set: [] });
    return false;
  } catch {
    return true;
  }
}

function costOf(runner: ModelRunner, run: ModelRun, question: ModelQuestion): Cost | null {
  if (run.rows.length === 0) return null;
  const { device, machine } = question;
  const { arch, tceHandler } = run.scenario.machine;
  const notes = scenarioNotes(question);
  if (device.kind !== 'disk') {
    notes.push(
      `counted with a virtio-blk device in place of the ${device.kind} device: the price per map and unmap is the same, how many there are is not`,
    );
  }
  if (machine.cpus > 1 || (device.queues ?? 1) > 1) {
    notes.push('counted on one CPU with one queue');
  }
  if (run.rows.some(({ hcalls, iommu }) => hcalls + iommu.maps > 0)) {
    notes.push(
      'how many segments a read has depends on how its buffer lies in memory: up to one for each page, and maps and translations with them',
    );
  }
  notes.push(...deferralNotes(run), ...vhostNotes(run, question));
  const isTcg = machine.accel === 'tcg' && (arch !== 'pseries' || tceHandler === 'qemu');
  const { times, note } = timesOf(runner, run, isTcg);
  return { rows: run.rows, times, notes: note === undefined ? notes : [...notes, note] };
}

/** Times on the constants of the machine, or why there are none; and whose constants they are. */
function timesOf(
  runner: ModelRunner,
  run: ModelRun,
  isTcg: boolean,
): { times: Cost['times']; note?: string } {
  const { arch } = run.scenario.machine;
  const preset =
    arch === 'pseries' && isTcg ? findCostPreset('power9-tcg') : defaultCostPreset(arch);
  if (preset === undefined) return { times: null, note: `no constants are known for ${arch}` };
  try {
    const times = { preset: preset.id, rows: runner.times(run, preset) };
    if (!isTcg || preset.id.endsWith('-tcg')) return { times };
    const note = `the times are those of ${preset.title}; this machine is emulated (TCG) and slower`;
    return { times, note };
  } catch (error) {
    if (!(error instanceof ModelError) || error.code !== 'E_COSTS') throw error;
    return { times: null, note: error.message };
  }
}

function deferralNotes({ deferral }: ModelRun): string[] {
  if (deferral === undefined) return [];
  const { unmaps, commands } = deferral.report.counters.workload.iommu;
  return [
    `invalidation is deferred: in ${deferral.reads} reads of 4 KiB, ${commands} of them served ${unmaps} unmaps (a timer sends one after 10 ms as well); until then the device still reaches what was unmapped`,
  ];
}

function vhostNotes({ report, scenario }: ModelRun, { device }: ModelQuestion): string[] {
  const { vhost } = report.counters;
  if (vhost !== null) {
    const perRequest = (value: number): string => String(Math.round(value * 100) / 100);
    return [
      `vhost: ${perRequest(vhost.missesPerRequest)} IOTLB misses and ${perRequest(vhost.invalidatesPerRequest)} invalidations a request, over all of this run`,
    ];
  }
  const isCounted = device.worker === 'qemu' || !scenario.devices[0]?.iommuPlatform;
  return isCounted
    ? []
    : ['translations are counted as QEMU would make them; vhost keeps them in its IOTLB'];
}

function reachOf({ report, deferral }: ModelRun, path: PathId, question: ModelQuestion): Reach {
  if (path === 'refused') return { bytes: 0, text: 'nothing: there is no driver' };
  const { addressable, plaintext } = mostReach(report.reach, deferral?.report.reach);
  const memory = formatSize(report.machine.memory);
  if (report.machine.secure) {
    return {
      bytes: plaintext,
      text: `${formatSize(plaintext)} in clear (what is shared), of ${formatSize(addressable)} that it can address`,
    };
  }
  if (path.startsWith('default-window') || path === 'viommu' || path === 'grants') {
    const stale =
      deferral === undefined ? '' : ', with what was unmapped and waits for its invalidation';
    return {
      bytes: addressable,
      text: `what is mapped at the time: at most ${formatSize(addressable)} of ${memory} in this run${stale}`,
    };
  }
  if (addressable !== report.machine.memory) {
    return { bytes: addressable, text: `${formatSize(addressable)} of ${memory}` };
  }
  // The model's machine may have other memory than this one.
  const all = question.set.length === 0 ? question.machine.memory : report.machine.memory;
  return { bytes: all, text: `all ${formatSize(all)}` };
}

function mostReach(one: ModelRun['report']['reach'], other = one): ModelRun['report']['reach'] {
  return {
    addressable: Math.max(one.addressable, other.addressable),
    plaintext: Math.max(one.plaintext, other.plaintext),
  };
}
