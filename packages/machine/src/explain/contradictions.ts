/** Inputs held against each other. */
import { formatSize } from '@pinhole/base';
import type { ConsoleReport } from './console-report.js';
import { type Contradiction, type DeviceExplanation, PATHS } from './explanation.js';
import type { DeviceFacts, MachineFacts } from './facts.js';

interface Input {
  readonly from: string;
  readonly machine: MachineFacts;
  readonly devices: readonly DeviceFacts[];
}

/** A console knows memory only about. */
const CLOSE = 512 * 2 ** 20;

/** What two inputs say differently. */
export function contradictionsOf(inputs: readonly Input[]): Contradiction[] {
  const [first, ...others] = inputs;
  if (first === undefined) return [];
  return others.flatMap((other) => {
    const found: Contradiction[] = [];
    const add = (what: string, one: string, two: string): void => {
      found.push({ what, one: `${first.from}: ${one}`, other: `${other.from}: ${two}` });
    };
    if (first.machine.platform !== other.machine.platform) {
      add('platform', first.machine.platform, other.machine.platform);
      return found;
    }
    if (Math.abs(first.machine.memory - other.machine.memory) > CLOSE) {
      const knows = other.machine.facts.some(({ what }) => what === 'memory');
      if (knows) add('memory', formatSize(first.machine.memory), formatSize(other.machine.memory));
    }
    if (first.devices.length > 0 && other.devices.length > first.devices.length) {
      add('virtio devices', `${first.devices.length}`, `${other.devices.length}`);
    }
    if (other.from === 'device tree') compareTree(first.machine, other.machine, add);
    return found;
  });
}

function compareTree(
  one: MachineFacts,
  tree: MachineFacts,
  add: (what: string, one: string, two: string) => void,
): void {
  const first = one.bridges[0];
  const second = tree.bridges[0];
  if (first?.ddw !== undefined && second?.ddw !== undefined && first.ddw !== second.ddw) {
    add(
      'second window',
      first.ddw ? 'ddw on' : 'ddw off',
      second.ddw ? 'applicable' : 'not applicable',
    );
  }
  const size = first?.dmaWindowSize;
  if (size !== undefined && second?.dmaWindowSize !== undefined && size !== second.dmaWindowSize) {
    add('default window', formatSize(size), formatSize(second.dmaWindowSize));
  }
}

/**
 * Adds what the console proves to each answer, and says where it proves something else. Where the
 * features of the log settle what was open, the other answer goes.
 */
export function compareWithConsole(
  devices: readonly DeviceExplanation[],
  console: ConsoleReport,
  kernels: readonly string[],
): { devices: DeviceExplanation[]; contradictions: Contradiction[] } {
  const contradictions: Contradiction[] = [];
  const compared = devices.map((device, at) => {
    const flag = console.flags[at];
    const settled =
      flag === undefined
        ? device.answers
        : device.answers
            .filter(({ assuming }) => assumedFlag(assuming) !== !flag)
            .map((answer) => ({ ...answer, assuming: withoutFlag(answer.assuming) }));
    const [answer] = settled;
    const { observed } = console;
    if (answer === undefined || observed === undefined || observed.path === 'unknown') {
      return { ...device, answers: settled };
    }
    const isOffHere = flag === false;
    const path = isOffHere ? 'physical' : observed.path;
    const agrees = path === answer.path.id;
    // With several kernels asked for, the log is of one of them at most.
    if (!agrees && kernels.length === 1) {
      contradictions.push({
        what: `path of ${device.name}`,
        one: `the inputs lead to: ${answer.path.name}`,
        other: `the console proves: ${PATHS[path]} (${observed.steps.at(-1)?.fact ?? 'its features string'})`,
      });
    }
    return {
      ...device,
      answers: settled.map((one) => ({ ...one, steps: [...one.steps, ...observed.steps] })),
    };
  });
  return { devices: compared, contradictions };
}

const ASSUMED_FLAG = /iommu_platform=(on|off)(, )?/;

function assumedFlag(assuming: string | null): boolean | undefined {
  const match = ASSUMED_FLAG.exec(assuming ?? '');
  return match === null ? undefined : match[1] === 'on';
}

// Any other assumption stays.
function withoutFlag(assuming: string | null): string | null {
  return assuming?.replace(ASSUMED_FLAG, '') || null;
}
