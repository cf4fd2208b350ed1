/** The answer for a pseries machine: the model is run, and run again with each change that could help. */
import { formatSize, ModelError } from '@pinhole/base';
import { findCostPreset } from '../costs/presets.js';
import type { Cost, ExplanationStep, Fix, PathId, Reach } from './explanation.js';
import { PATHS } from './explanation.js';
import type { DeviceFacts } from './facts.js';
import { guestSteps, pathOf } from './guest-adapter.js';
import {
  hasParameter,
  type ModelQuestion,
  type ModelRun,
  type ModelRunner,
  timesOf,
  toScenario,
} from './model-run.js';

/** What a run says. */
export interface PseriesAnswer {
  readonly path: PathId;
  readonly steps: readonly ExplanationStep[];
  readonly cost: Cost | null;
  readonly reach: Reach;
  readonly fixes: readonly Fix[];
  readonly run: ModelRun | undefined;
}

/** Runs the model. A machine that it cannot build is an answer, too. */
export function answerPseries(runner: ModelRunner, question: ModelQuestion): PseriesAnswer {
  let run: ModelRun;
  try {
    run = runner.run(question);
  } catch (error) {
    if (!isOfMachine(error, question)) throw error;
    return {
      path: 'unknown',
      steps: [
        {
          side: 'guest',
          text: `the model cannot build this machine: ${error.message}`,
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
  const path = pathOf(run);
  return {
    path,
    steps: guestSteps(run),
    cost: costOf(run, question),
    reach: reachOf(run, path),
    fixes: fixesOf(runner, question, path),
    run,
  };
}

// A machine that cannot be is an answer; a mistake in `--set` is one of the caller's.
function isOfMachine(error: unknown, question: ModelQuestion): error is ModelError {
  if (!(error instanceof ModelError)) return false;
  if (error.code !== 'E_SCENARIO' || question.set.length === 0) return true;
  try {
    toScenario({ ...question, set: [] });
    return false;
  } catch {
    return true;
  }
}

function costOf(run: ModelRun, { device, machine }: ModelQuestion): Cost | null {
  if (run.rows.length === 0) return null;
  const notes: string[] = [];
  if (device.kind !== 'disk') {
    notes.push(
      `counted with a virtio-blk device in place of the ${device.kind} device: the price per map and unmap is the same, how many there are is not`,
    );
  }
  if (machine.cpus > 1 || (device.queues ?? 1) > 1) {
    notes.push('counted on one CPU with one queue');
  }
  if (device.worker !== 'qemu') {
    notes.push('translations are counted as QEMU would make them; vhost keeps them in its IOTLB');
  }
  const isTcg = machine.accel === 'tcg' && run.scenario.machine.tceHandler === 'qemu';
  const preset = findCostPreset(isTcg ? 'power9-tcg' : 'power9-kvm');
  const times = { preset: preset.id, rows: timesOf(run, preset) };
  return { origin: 'model', rows: run.rows, times, notes };
}

function reachOf({ report }: ModelRun, path: PathId): Reach {
  const { addressable, plaintext } = report.reach;
  const memory = formatSize(report.machine.memory);
  if (path === 'refused') return { bytes: 0, text: 'nothing: there is no driver' };
  if (report.machine.secure) {
    return {
      bytes: plaintext,
      text: `${formatSize(plaintext)} in clear (what is shared), of ${formatSize(addressable)} that it can address`,
    };
  }
  if (path.startsWith('default-window')) {
    return {
      bytes: addressable,
      text: `what is mapped at the time: at most ${formatSize(addressable)} of ${memory} in this run`,
    };
  }
  const isAll = addressable === report.machine.memory;
  return {
    bytes: addressable,
    text: isAll ? `all ${memory}` : `${formatSize(addressable)} of ${memory}`,
  };
}

/** A change to the machine, and how to write it. */
interface Change {
  readonly change: string;
  readonly apply: (question: ModelQuestion) => ModelQuestion;
}

// What is tried: first each change alone, then two together.
function fixesOf(runner: ModelRunner, question: ModelQuestion, path: PathId): Fix[] {
  const isSecure = question.machine.confidential !== undefined;
  const isHelpless = path === 'unreachable' && !question.iommuPlatform;
  if (isHelpless) {
    return tried(runner, question, [flagOn], ['second-window-bounced', 'second-window']);
  }
  if (!path.startsWith('default-window') && path !== 'unreachable') return [];
  const good: PathId[] = ['second-window', 'second-window-bounced'];
  const changes = changesFor(question);
  const singles = tried(runner, question, changes, good);
  const pairs = changes.flatMap((one, i) => changes.slice(i + 1).map((two) => both(one, two)));
  const found = singles.length > 0 ? singles : tried(runner, question, pairs, good);
  const others = tried(
    runner,
    question,
    [noDdw],
    path === 'default-window-leak' ? ['default-window'] : [],
  );
  const past = isSecure ? [] : tried(runner, question, [flagOff], ['physical']);
  return [...found, ...others, ...past];
}

function tried(
  runner: ModelRunner,
  question: ModelQuestion,
  changes: readonly Change[],
  good: readonly PathId[],
): Fix[] {
  return changes.flatMap(({ change, apply }) => {
    try {
      const run = runner.run(apply(question));
      const path = pathOf(run);
      if (!good.includes(path)) return [];
      const hcalls = run.rows[0]?.hcalls ?? 0;
      return [
        {
          change,
          effect: `${PATHS[path]}; ${hcalls} hypercalls for a read of 4 KiB`,
          isVerified: true,
        },
      ];
    } catch (error) {
      if (error instanceof ModelError) return [];
      throw error;
    }
  });
}

function changesFor(question: ModelQuestion): Change[] {
  const { machine, device, qemu } = question;
  const bridge = machine.bridges.find(({ index }) => index === device.bridge);
  const changes: Change[] = [];
  if (machine.maxMemory === undefined || machine.maxMemory === machine.memory) {
    const maxMemory = machine.memory * 2;
    changes.push({
      change: `-m ${qemuSize(machine.memory)},slots=2,maxmem=${qemuSize(maxMemory)}`,
      apply: (old) => ({ ...old, machine: { ...old.machine, maxMemory } }),
    });
  }
  if (bridge?.ddw === false) {
    changes.push({
      change: 'leave out spapr-pci-host-bridge.ddw=off',
      apply: (old) => withBridge(old, device, { ddw: true }),
    });
  }
  if (/^pseries-2\.[1-6]$/.test(machine.machineType)) {
    changes.push({
      change: '-M pseries-2.7 or later (older ones have no second window)',
      apply: (old) => ({ ...old, machine: { ...old.machine, machineType: 'pseries-2.7' } }),
    });
  }
  if (hasParameter(machine, 'disable_ddw')) {
    changes.push({
      change: 'leave out disable_ddw on the kernel command line',
      apply: (old) => ({
        ...old,
        machine: {
          ...old.machine,
          kernelParameters: old.machine.kernelParameters.replace(/\bdisable_ddw\b/, ''),
        },
      }),
    });
  }
  if (qemu === '7.2') {
    changes.push({ change: 'a newer QEMU (10.0)', apply: (old) => ({ ...old, qemu: '10.0' }) });
  }
  return changes;
}

/** Without a try for a second window there is no failure that leaves half of it behind. */
const noDdw: Change = {
  change: 'disable_ddw on the kernel command line',
  apply: (question) => ({
    ...question,
    machine: {
      ...question.machine,
      kernelParameters: `${question.machine.kernelParameters} disable_ddw`.trim(),
    },
  }),
};

const flagOff: Change = {
  change: 'iommu_platform=off',
  apply: (question) => ({ ...question, iommuPlatform: false }),
};

const flagOn: Change = {
  change: 'disable-legacy=on,iommu_platform=on',
  apply: (question) => ({ ...question, iommuPlatform: true }),
};

function both(one: Change, two: Change): Change {
  return {
    change: `${one.change}, and ${two.change}`,
    apply: (question) => two.apply(one.apply(question)),
  };
}

function withBridge(
  question: ModelQuestion,
  device: DeviceFacts,
  change: { readonly ddw: boolean },
): ModelQuestion {
  const bridges = question.machine.bridges.map((bridge) =>
    bridge.index === device.bridge ? { ...bridge, ...change } : bridge,
  );
  return { ...question, machine: { ...question.machine, bridges } };
}

/** As `-m` takes it. */
function qemuSize(bytes: number): string {
  const isGib = bytes % 2 ** 30 === 0;
  return isGib ? `${bytes / 2 ** 30}G` : `${bytes / 2 ** 20}M`;
}
