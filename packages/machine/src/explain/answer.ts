/** Answers for one device. */
import { risksOf } from './advice.js';
import type { Answer, DeviceExplanation, Fix } from './explanation.js';
import { PATHS } from './explanation.js';
import type { DeviceFacts, MachineFacts } from './facts.js';
import { ModelRunner } from './model-run.js';
import { qemuSteps } from './qemu-steps.js';
import { answerByRun } from './run-answer.js';
import type { ModelQuestion } from './to-scenario.js';

/** What no input says; `text` as in `Answer.assuming`. */
interface Assumption extends Pick<ModelQuestion, 'iommuPlatform' | 'grants'> {
  readonly text: string | null;
}

/** Answers for the devices of one machine. What two devices have in common is answered once. */
export class DeviceExplainer {
  readonly #machine: MachineFacts;
  readonly #kernels: readonly string[];
  readonly #set: readonly string[];
  readonly #runner = new ModelRunner();
  readonly #answers = new Map<string, Answer[]>();

  /** @param set - `path=value` pairs that replace keys of the scenario that is run. */
  constructor(machine: MachineFacts, kernels: readonly string[], set: readonly string[]) {
    this.#machine = machine;
    this.#kernels = kernels;
    this.#set = set;
  }

  /** One answer for each kernel, and for each value of what nothing says. */
  explain(device: DeviceFacts): DeviceExplanation {
    const { name, driver, kind, transport, place } = device;
    const key = JSON.stringify({ ...device, name: '', place: '' });
    const answers = this.#answers.get(key) ?? this.#answersFor(device);
    this.#answers.set(key, answers);
    return { name, driver, kind, transport, place, answers };
  }

  #answersFor(device: DeviceFacts): Answer[] {
    return assumptionsOf(this.#machine, device).flatMap((assumption) =>
      this.#kernels.map((kernel) => ({
        ...this.#answer(device, kernel, assumption),
        assuming: assumption.text,
      })),
    );
  }

  #answer(device: DeviceFacts, kernel: string, assumption: Assumption): Omit<Answer, 'assuming'> {
    const machine = this.#machine;
    const set = this.#set;
    const { iommuPlatform, grants } = assumption;
    if (machine.refusals.length > 0 || device.refusal !== undefined) {
      return {
        kernel,
        path: path('qemu-refuses'),
        steps: qemuSteps({ machine, device, flag: iommuPlatform, grants }),
        cost: null,
        reach: { bytes: 0, text: 'nothing: there is no machine' },
        risks: [],
        fixes: this.#refusalFixes(device, kernel, assumption),
      };
    }
    const qemu = machine.qemu ?? '7.2';
    const result = answerByRun(this.#runner, {
      machine,
      device,
      kernel,
      iommuPlatform,
      grants,
      qemu,
      set,
    });
    // `--set` may have changed it.
    const flag = result.run?.report.machine.flag ?? iommuPlatform;
    return {
      kernel,
      path: path(result.path),
      steps: [...qemuSteps({ machine, device, flag, grants }), ...result.steps],
      cost: result.cost,
      reach: result.reach,
      risks: risksOf({ machine, device, flag, path: result.path, run: result.run }),
      fixes: result.fixes,
    };
  }

  // A refusal for want of a modern device has one way out that keeps the flag, and one that does not.
  #refusalFixes(device: DeviceFacts, kernel: string, assumption: Assumption): Fix[] {
    const machine = this.#machine;
    if (machine.refusals.length > 0) return [];
    if (device.refusal?.message.startsWith('VIRTIO_F_IOMMU_PLATFORM') !== true) return [];
    const { refusal: _refused, ...rest } = device;
    const modern: DeviceFacts = { ...rest, mode: 'modern', modeBecause: 'disable-legacy=on' };
    const isOldType = /^(pseries|pc-i440fx|pc-q35)-2\.[0-6]$/.test(machine.machineType);
    const tried = (
      changed: DeviceFacts,
      iommuPlatform: boolean,
    ): Pick<Fix, 'effect' | 'isVerified'> => {
      const { path: then } = this.#answer(changed, kernel, { ...assumption, iommuPlatform });
      return { effect: `QEMU starts; ${then.name}`, isVerified: then.id !== 'unknown' };
    };
    const on = tried(modern, true);
    const hasPorts = machine.platform === 'x86' || machine.platform === 'arm64';
    return [
      { change: `disable-legacy=on${isOldType ? ',disable-modern=off' : ''}`, ...on },
      ...(hasPorts
        ? [{ change: 'bus=ID of a pcie-root-port (disable-legacy is on there by itself)', ...on }]
        : []),
      { change: 'iommu_platform=off', ...tried(rest, false) },
    ];
  }
}

function assumptionsOf(machine: MachineFacts, device: DeviceFacts): Assumption[] {
  const onOff = [false, true];
  const isTransitional = device.mode === 'transitional';
  const flags =
    device.iommuPlatform !== undefined ? [device.iommuPlatform] : isTransitional ? [false] : onOff;
  const grants =
    machine.grants !== undefined ? [machine.grants] : machine.platform === 'xen' ? onOff : [false];
  const named = (name: string, all: readonly boolean[], value: boolean): string[] =>
    all.length > 1 ? [`${name}=${value ? 'on' : 'off'}`] : [];
  return flags.flatMap((flag) =>
    grants.map((grant) => {
      const parts = [...named('iommu_platform', flags, flag), ...named('grants', grants, grant)];
      return { iommuPlatform: flag, grants: grant, text: parts.join(', ') || null };
    }),
  );
}

function path(id: keyof typeof PATHS): Answer['path'] {
  return { id, name: PATHS[id] };
}
