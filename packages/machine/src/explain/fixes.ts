/** Changes that could help: each is tried by running the model with it. */
import { formatSize, ModelError } from '@pinhole/base';
import type { Fix, PathId } from './explanation.js';
import { PATHS } from './explanation.js';
import type { DeviceFacts } from './facts.js';
import { pathOf } from './guest-adapter.js';
import type { ModelRun, ModelRunner } from './model-run.js';
import { hasParameter, type ModelQuestion } from './to-scenario.js';

/** A change to the machine, and how to write it. */
interface Change {
  readonly change: string;
  readonly apply: (question: ModelQuestion) => ModelQuestion;
}

/** Paths on which I/O goes through. */
const WORKING: readonly PathId[] = [
  'second-window',
  'second-window-bounced',
  'bounced',
  'viommu',
  'grants',
  'no-iommu',
  'bus-offset',
];

/** The changes that led to a better path than that of `run`. */
export function fixesOf(runner: ModelRunner, question: ModelQuestion, run: ModelRun): Fix[] {
  const path = pathOf(run);
  const trial = new Trial(runner, question);
  if (path.startsWith('default-window')) return windowFixes(trial, question, path);
  if (path === 'refused' || path === 'unreachable') {
    if (!run.report.machine.flag) return trial.of([flagOn(question)], WORKING);
    return question.machine.platform === 'pseries' ? windowFixes(trial, question, path) : [];
  }
  if (path === 'viommu') return iommuFixes(trial, run);
  if (path !== 'bounced' || question.machine.confidential !== undefined) return [];
  return trial.of([without('swiotlb=force')], ['no-iommu', 'viommu', 'bus-offset']);
}

// First each change alone, then two together.
function windowFixes(trial: Trial, question: ModelQuestion, path: PathId): Fix[] {
  const good: PathId[] = ['second-window', 'second-window-bounced'];
  const changes = windowChanges(question);
  const singles = trial.of(changes, good);
  const pairs = changes.flatMap((one, i) => changes.slice(i + 1).map((two) => both(one, two)));
  return [
    ...(singles.length > 0 ? singles : trial.of(pairs, good)),
    ...(path === 'default-window-leak'
      ? trial.of([parameter('disable_ddw')], ['default-window'])
      : []),
    ...(question.machine.confidential === undefined ? trial.of([flagOff], ['physical']) : []),
  ];
}

// Only where each request pays for commands; what it costs in protection is in the effect.
function iommuFixes(trial: Trial, { rows }: ModelRun): Fix[] {
  const commands = rows[0]?.iommu.commands ?? 0;
  if (commands < 1) return [];
  const isFewer = (tried: ModelRun): boolean => (tried.rows[0]?.iommu.commands ?? 0) < commands / 2;
  return [
    ...trial.of([parameter('iommu.strict=0')], ['viommu'], isFewer),
    ...trial.of([parameter('iommu.passthrough=1')], ['no-iommu']),
    ...trial.of([flagOff], ['physical']),
  ];
}

class Trial {
  readonly #runner: ModelRunner;
  readonly #question: ModelQuestion;

  constructor(runner: ModelRunner, question: ModelQuestion) {
    this.#runner = runner;
    this.#question = question;
  }

  /** Those of the changes that lead to one of the paths. */
  of(
    changes: readonly Change[],
    good: readonly PathId[],
    isBetter: (run: ModelRun) => boolean = () => true,
  ): Fix[] {
    return changes.flatMap(({ change, apply }) => {
      try {
        const run = this.#runner.run(apply(this.#question));
        const path = pathOf(run);
        if (!good.includes(path) || !isBetter(run)) return [];
        return [{ change, effect: `${PATHS[path]}; ${priceOf(run)}`, isVerified: true }];
      } catch (error) {
        if (error instanceof ModelError) return [];
        throw error;
      }
    });
  }
}

// What a read of 4 KiB pays then, and what the device reaches.
function priceOf({ rows, report, secure }: ModelRun): string {
  const { hcalls = 0, bytesCopied = 0, iommu } = rows[0] ?? {};
  const read = 'for a read of 4 KiB';
  if (report.machine.arch === 'pseries') return `${hcalls} hypercalls ${read}`;
  if (bytesCopied > 0) return `${formatSize(bytesCopied)} copied ${read}`;
  const { maps = 0, commands = 0 } = iommu ?? {};
  const price = `${maps} maps and ${Math.round(commands * 1000) / 1000} IOMMU commands ${read}`;
  const { addressable } = report.reach;
  const isAll = addressable === report.machine.memory && secure === '';
  return isAll ? `${price}, and the device reaches all of memory` : price;
}

function windowChanges(question: ModelQuestion): Change[] {
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
  if (hasParameter(machine, 'disable_ddw')) changes.push(without('disable_ddw'));
  if (qemu === '7.2') {
    changes.push({ change: 'a newer QEMU (10.0)', apply: (old) => ({ ...old, qemu: '10.0' }) });
  }
  return changes;
}

function parameter(word: string): Change {
  return {
    change: `${word} on the kernel command line`,
    apply: (old) => withParameters(old, `${old.machine.kernelParameters} ${word}`.trim()),
  };
}

function without(word: string): Change {
  return {
    change: `leave out ${word} on the kernel command line`,
    apply: (old) => {
      const left = old.machine.kernelParameters.split(/\s+/).filter((one) => one !== word);
      return withParameters(old, left.join(' '));
    },
  };
}

function withParameters(question: ModelQuestion, kernelParameters: string): ModelQuestion {
  return { ...question, machine: { ...question.machine, kernelParameters } };
}

const flagOff: Change = {
  change: 'iommu_platform=off',
  apply: (question) => ({ ...question, iommuPlatform: false }),
};

function flagOn({ device }: ModelQuestion): Change {
  return {
    change: `${device.transport === 'pci' ? 'disable-legacy=on,' : ''}iommu_platform=on`,
    apply: (question) => ({ ...question, iommuPlatform: true }),
  };
}

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
  return bytes % 2 ** 30 === 0 ? `${bytes / 2 ** 30}G` : `${bytes / 2 ** 20}M`;
}
