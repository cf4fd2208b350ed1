/** Explains how the virtio devices of a machine reach memory. */
import { KERNEL_PROFILES, kernelProfileForRelease } from '@pinhole/guest';
import type { ConsoleFact } from '@pinhole/trace';
import type { Scenario } from '../scenario-config.js';
import { DeviceExplainer } from './answer.js';
import { type ConsoleReport, describeConsole } from './console-report.js';
import { compareWithConsole, contradictionsOf } from './contradictions.js';
import { describeDeviceTree } from './device-tree.js';
import { differencesOf } from './differences.js';
import { ExplainError } from './errors.js';
import type { DeviceExplanation, Explanation, Finding } from './explanation.js';
import type { DeviceFacts, Fact, MachineFacts, NotUnderstood } from './facts.js';
import { parseQemuCommand } from './qemu-command.js';
import { describeQemuDevices } from './qemu-devices.js';
import { describeQemuMachine } from './qemu-machine.js';
import { describeScenario } from './scenario-facts.js';

/** The kernel that is looked at when nothing says which it is. */
const DEFAULT_KERNEL = 'linux-6.12';

/** How many words that were not understood are listed. */
const MAX_NOT_UNDERSTOOD = 50;

/** What there is to explain from: one of these at least. */
export interface ExplainInput {
  /** A QEMU command line as a shell would take it. */
  readonly qemu?: string;
  /** A flattened device tree. */
  readonly dtb?: Uint8Array;
  /** What a guest's console says; see `readConsole` of `@pinhole/trace`. */
  readonly console?: readonly ConsoleFact[];
  readonly scenario?: Scenario;
  /** Kernels to answer for, by their profile's id. Default: the console's, or linux-6.12. */
  readonly kernels?: readonly string[];
  /** `path=value` pairs that replace keys of the scenario that is run. */
  readonly set?: readonly string[];
}

/** What one input says. */
interface Described {
  readonly from: string;
  readonly machine: MachineFacts;
  readonly devices: readonly DeviceFacts[];
  readonly notUnderstood: readonly NotUnderstood[];
  readonly notes: readonly string[];
  readonly findings: readonly Finding[];
}

/**
 * Explains a machine from what there is: a QEMU command line, a device tree, a console log, a
 * scenario. The most complete input describes the machine; the others are held against it.
 * @throws ExplainError for an input that is none, or a kernel that is none; MachineError for `set` that is none
 */
export function explain(input: ExplainInput): Explanation {
  const console = input.console === undefined ? undefined : describeConsole(input.console);
  const described = describeAll(input, console);
  const [first] = described;
  if (first === undefined) {
    throw new ExplainError(
      'E_NOTHING_GIVEN',
      'expected something to explain: a QEMU command line, a device tree, a console log or a scenario; found none',
    );
  }
  const kernels = kernelsOf(input, console);
  const explainer = new DeviceExplainer(first.machine, kernels, input.set ?? []);
  const devices = first.devices.map((device) => explainer.explain(device));
  const compared =
    console === undefined
      ? { devices, contradictions: [] }
      : compareWithConsole(devices, console, kernels);
  return {
    schemaVersion: 1,
    platform: first.machine.platform,
    kernels,
    facts: factsOf(described, input, console),
    devices: compared.devices,
    findings: described.flatMap(({ findings }) => findings),
    contradictions: [...contradictionsOf(described), ...compared.contradictions],
    differences: differencesOf(compared.devices, kernels),
    notUnderstood: described
      .flatMap(({ notUnderstood }) => notUnderstood)
      .slice(0, MAX_NOT_UNDERSTOOD),
    notes: notesOf(described, compared.devices),
  };
}

// In the order of how much each says about the machine.
function describeAll(input: ExplainInput, console: ConsoleReport | undefined): Described[] {
  const described: Described[] = [];
  if (input.qemu !== undefined) described.push(fromQemu(input.qemu));
  if (input.scenario !== undefined) {
    described.push({ from: 'scenario', ...describeScenario(input.scenario) });
  }
  if (input.dtb !== undefined) {
    described.push({ from: 'device tree', ...describeDeviceTree(input.dtb) });
  }
  if (console !== undefined) described.push({ from: 'console', ...console });
  return described;
}

function fromQemu(text: string): Described {
  const command = parseQemuCommand(text);
  const { machine, notUnderstood } = describeQemuMachine(command);
  const found = describeQemuDevices(command, machine);
  const notes = [...command.notes];
  if (found.devices.length === 0) {
    notes.push('the command line has no virtio device: there is nothing to explain');
  }
  return {
    from: 'command line',
    machine,
    devices: found.devices,
    notUnderstood: [...command.notUnderstood, ...notUnderstood, ...found.notUnderstood],
    notes,
    findings: [],
  };
}

function kernelsOf(input: ExplainInput, console: ConsoleReport | undefined): string[] {
  const given = [...new Set(input.kernels ?? [])];
  for (const kernel of given) {
    if (KERNEL_PROFILES.some(({ id }) => id === kernel)) continue;
    throw new ExplainError(
      'E_KERNEL',
      `--kernel: expected one of ${KERNEL_PROFILES.map(({ id }) => id).join(', ')}, found "${kernel}"`,
    );
  }
  if (given.length > 0) return given;
  const seen =
    console?.release === undefined ? undefined : kernelProfileForRelease(console.release)?.id;
  return [seen ?? input.scenario?.guest.kernel ?? DEFAULT_KERNEL];
}

function factsOf(
  described: readonly Described[],
  input: ExplainInput,
  console: ConsoleReport | undefined,
): Fact[] {
  const facts = described.flatMap(({ from, machine }) =>
    from === 'scenario' ? machine.facts.map((fact) => askedFor(fact, input)) : machine.facts,
  );
  if ((input.kernels ?? []).length === 0 && console?.release === undefined && !input.scenario) {
    facts.push({ what: 'kernel', value: DEFAULT_KERNEL, from: 'assumed; --kernel says another' });
  }
  const [first] = described;
  if (first?.machine.platform === 'pseries' && first.machine.qemu === undefined) {
    facts.push({
      what: 'QEMU',
      value: '7.2',
      from: 'assumed; --set machine.qemu=10.0 says another',
    });
  }
  return facts;
}

// What is explained is the kernel asked for, not the one that the scenario has.
function askedFor(fact: Fact, { kernels = [] }: ExplainInput): Fact {
  if (fact.what !== 'kernel' || kernels.length === 0) return fact;
  const value = [...new Set(kernels)].join(' and ');
  const from = value === fact.value ? fact.from : `--kernel; the scenario has ${fact.value}`;
  return { ...fact, value, from };
}

function notesOf(described: readonly Described[], devices: readonly DeviceExplanation[]): string[] {
  const notes = described.flatMap((part) => part.notes);
  const total = described.reduce((sum, { notUnderstood }) => sum + notUnderstood.length, 0);
  if (total > MAX_NOT_UNDERSTOOD) {
    notes.push(`${total - MAX_NOT_UNDERSTOOD} more words that were not understood are not listed`);
  }
  const [first] = described;
  if (first?.machine.platform === 'xen' && first.machine.grants === undefined) {
    notes.push(
      "whether grants are the bus addresses of a guest of Xen is not known from this input: its kernel's CONFIG_XEN_VIRTIO_FORCE_GRANT and its device tree say so, and in which domain the backend is; both answers are given",
    );
  }
  const isCounted = devices.some(({ answers }) => answers.some(({ cost }) => cost !== null));
  if (isCounted) notes.push('costs are counts of a run of the model, not times');
  return [...new Set(notes)];
}
