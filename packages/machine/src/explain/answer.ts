/** Answers for one device. */
import { risksOf } from './advice.js';
import type { Answer, DeviceExplanation, Fix } from './explanation.js';
import { PATHS } from './explanation.js';
import type { DeviceFacts, MachineFacts } from './facts.js';
import type { ModelRunner } from './model-run.js';
import { applyRule } from './platform-rules.js';
import { answerPseries } from './pseries-answer.js';
import { qemuSteps } from './qemu-steps.js';

/** What all answers have in common. */
export interface AnswerContext {
  readonly machine: MachineFacts;
  readonly kernels: readonly string[];
  readonly set: readonly string[];
  readonly runner: ModelRunner;
}

/** One answer for each kernel, and for each value of the flag where nothing says which it is. */
export function explainDevice(context: AnswerContext, device: DeviceFacts): DeviceExplanation {
  const isOpen = device.iommuPlatform === undefined;
  const flags =
    device.iommuPlatform !== undefined
      ? [device.iommuPlatform]
      : device.mode === 'transitional'
        ? [false]
        : [false, true];
  return {
    name: device.name,
    driver: device.driver,
    kind: device.kind,
    transport: device.transport,
    place: device.place,
    answers: flags.flatMap((flag) =>
      context.kernels.map((kernel) => ({
        ...answer(context, device, kernel, flag),
        assuming: isOpen && flags.length > 1 ? `iommu_platform=${flag ? 'on' : 'off'}` : null,
      })),
    ),
  };
}

function answer(
  context: AnswerContext,
  device: DeviceFacts,
  kernel: string,
  flag: boolean,
): Omit<Answer, 'assuming'> {
  const { machine } = context;
  const ofQemu = qemuSteps(machine, device, flag);
  if (machine.refusals.length > 0 || device.refusal !== undefined) {
    return {
      kernel,
      path: path('qemu-refuses'),
      steps: ofQemu,
      cost: null,
      reach: { bytes: 0, text: 'nothing: there is no machine' },
      risks: [],
      fixes: refusalFixes(context, device, kernel),
    };
  }
  if (machine.platform !== 'pseries') {
    const rule = applyRule({ machine, device, flag, kernel });
    return {
      kernel,
      path: path(rule.path),
      steps: [...ofQemu, ...rule.steps],
      cost: rule.cost,
      reach: rule.reach,
      risks: risksOf({ machine, device, flag, path: rule.path }),
      fixes: ruleFixes(rule.path),
    };
  }
  const result = answerPseries(context.runner, questionOf(context, device, kernel, flag));
  return {
    kernel,
    path: path(result.path),
    steps: [...ofQemu, ...result.steps],
    cost: result.cost,
    reach: result.reach,
    risks: risksOf({ machine, device, flag, path: result.path, run: result.run }),
    fixes: result.fixes,
  };
}

function questionOf(
  { machine, set }: AnswerContext,
  device: DeviceFacts,
  kernel: string,
  iommuPlatform: boolean,
): Parameters<ModelRunner['run']>[0] {
  return { machine, device, kernel, iommuPlatform, qemu: machine.qemu ?? '7.2', set };
}

function path(id: keyof typeof PATHS): Answer['path'] {
  return { id, name: PATHS[id] };
}

function ruleFixes(id: keyof typeof PATHS): Fix[] {
  if (id !== 'refused' && id !== 'unreachable') return [];
  return [
    {
      change: 'disable-legacy=on,iommu_platform=on for each virtio device',
      effect: `the driver finds bit 33 and uses ${PATHS.bounced}`,
      isVerified: false,
    },
  ];
}

// A refusal for want of a modern device has one way out that keeps the flag, and one that does not.
function refusalFixes(context: AnswerContext, device: DeviceFacts, kernel: string): Fix[] {
  if (context.machine.refusals.length > 0) return [];
  if (device.refusal?.message.startsWith('VIRTIO_F_IOMMU_PLATFORM') !== true) return [];
  const { refusal: _refused, ...rest } = device;
  const modern: DeviceFacts = { ...rest, mode: 'modern', modeBecause: 'disable-legacy=on' };
  const isOldType = /^(pseries|pc-i440fx|pc-q35)-2\.[0-6]$/.test(context.machine.machineType);
  const { path: then } = answer(context, modern, kernel, true);
  const isVerified = context.machine.platform === 'pseries';
  return [
    {
      change: `disable-legacy=on${isOldType ? ',disable-modern=off' : ''}`,
      effect: `QEMU starts; ${then.name}`,
      isVerified,
    },
    ...(context.machine.platform === 'x86' || context.machine.platform === 'arm64'
      ? [
          {
            change: 'bus=ID of a pcie-root-port (disable-legacy is on there by itself)',
            effect: `QEMU starts; ${then.name}`,
            isVerified: false,
          },
        ]
      : []),
    {
      change: 'iommu_platform=off',
      effect: `QEMU starts; ${PATHS.physical}`,
      isVerified: false,
    },
  ];
}
