import { setImmediate } from 'node:timers/promises';
import {
  createModelVirtioSide,
  describeFault,
  PACKED_ERROR,
  shapeName,
  startVirtioMachine,
  VIRTIO_SHAPES,
  VirtioCampaign,
  type VirtioCampaignResult,
  type VirtioFinding,
  type VirtioShape,
} from '@pinhole/live';
import { EXIT, InputError, interrupt } from './exit.js';
import { Progress, showsColor, terminalWidth } from './terminal.js';
import { type Colors, colorsIf } from './terminal-style.js';
import { drawTable } from './terminal-table.js';

/** Options of `pinhole conform virtio`. */
export interface ConformVirtioOptions {
  readonly count: number;
  readonly seed: number;
  readonly qemu: string;
  /** Parts of the names of devices; none: all. */
  readonly device: readonly string[];
  readonly include: readonly string[];
  readonly format: 'table' | 'json';
}

/** Below this there is no table. */
const NARROW = 70;
/** How long QEMU may take for anything. */
const WAIT_MS = 10_000;
/** How often Ctrl-C is looked for, in milliseconds. */
const LOOK_MS = 50;

interface Report {
  readonly version: string;
  readonly options: ConformVirtioOptions;
  readonly seconds: number;
}

/** `pinhole conform virtio`: the model's devices against those of a live QEMU. */
export async function conformVirtio(options: ConformVirtioOptions): Promise<void> {
  const { count, seed, qemu, include } = options;
  const shapes = chooseShapes(options.device);
  const unknown = include.find((name) => name !== PACKED_ERROR.name);
  if (unknown !== undefined) {
    const message = `--include: "${unknown}" is no accident. Allowed choice is ${PACKED_ERROR.name}.`;
    throw new InputError(message);
  }
  const reference = startVirtioMachine(shapes, { qemu, timeoutMs: WAIT_MS });
  const start = performance.now();
  const model = createModelVirtioSide(shapes);
  const campaign = new VirtioCampaign({ seed, count, shapes, model, reference, include });
  const progress = new Progress();
  let failure: unknown;
  try {
    let looked = start;
    for (const _ of campaign.run()) {
      const now = performance.now();
      if (now - looked < LOOK_MS) continue;
      looked = now;
      const { requests, faults, findings } = campaign.result;
      progress.show(
        `${faults.length} faults, ${requests} of ${count} requests compared, ${findings.length} findings`,
      );
      await setImmediate();
      if (interrupt.isRequested) break;
    }
  } catch (error) {
    // What was compared before QEMU died is not lost.
    if (campaign.result.requests === 0) throw error;
    failure = error;
  } finally {
    reference.close();
    progress.clear();
  }
  const { result } = campaign;
  const report = {
    version: reference.version,
    options,
    seconds: (performance.now() - start) / 1000,
  };
  process.stdout.write(
    options.format === 'json' ? toJson(result, report) : toText(result, report, showsColor()),
  );
  if (interrupt.isRequested) {
    process.stderr.write(`pinhole: interrupted after ${result.requests} of ${count} requests\n`);
  }
  if (result.findings.length > 0) process.exitCode = EXIT.FAILED;
  if (failure !== undefined) throw failure;
}

function chooseShapes(parts: readonly string[]): VirtioShape[] {
  const shapes = VIRTIO_SHAPES.filter((shape) => {
    return parts.length === 0 || parts.some((part) => shapeName(shape).includes(part));
  });
  if (shapes.length > 0) return shapes;
  const names = VIRTIO_SHAPES.map(shapeName).join(', ');
  throw new InputError(
    `--device: no device is named like "${parts.join('", "')}". There are ${names}.`,
  );
}

function leftOut({ options }: Report): string[] {
  return [PACKED_ERROR.name].filter((name) => !options.include.includes(name));
}

function toJson(result: VirtioCampaignResult, report: Report): string {
  const { version, options, seconds } = report;
  const json = {
    schemaVersion: 1,
    qemu: { path: options.qemu, version },
    seed: result.seed,
    count: options.count,
    requests: result.requests,
    bytes: result.bytes,
    seconds: Number(seconds.toFixed(3)),
    devices: result.devices,
    leftOut: leftOut(report),
    faults: result.faults.map(({ device, row, model, reference, isEqual }) => ({
      device,
      notMapped: row.what,
      model: describeFault(model),
      qemu: describeFault(reference),
      isEqual,
    })),
    coverage: result.coverage,
    findings: result.findings.map(({ reference, ...finding }) => ({ ...finding, qemu: reference })),
  };
  return `${JSON.stringify(json, null, 2)}\n`;
}

function toText(result: VirtioCampaignResult, report: Report, color: boolean): string {
  const colors = colorsIf(color);
  const { version, options, seconds } = report;
  const missing = leftOut(report);
  const lines = [
    `QEMU ${version} (${options.qemu}), seed ${result.seed}, ${result.devices.length} devices`,
    '',
    ...faultLines(result, colors),
    ...coverageLines(result),
    '',
    ...result.findings.flatMap((finding) => [...describe(finding, colors), '']),
    `${result.requests} requests and ${result.faults.length} faults compared in ${seconds.toFixed(1)} s:`,
    `${result.bytes} bytes that devices could write, used lengths, status, features,`,
    'configuration, device status, and the disks at the end.',
    ...(missing.length > 0 ? [`Left out by name: ${missing.join(', ')}.`] : []),
    conclusion(result, colors),
  ];
  return `${lines.join('\n')}\n`;
}

/** The rows, once: on all rings they are the same, or there is a finding. */
function faultLines({ faults }: VirtioCampaignResult, colors: Colors): string[] {
  if (faults.length === 0) return [];
  const rows = new Map<string, { model: string; count: number; different: number }>();
  for (const { row, model, isEqual } of faults) {
    const known = rows.get(row.what) ?? { model: describeFault(model), count: 0, different: 0 };
    known.count += 1;
    if (!isEqual) known.different += 1;
    rows.set(row.what, known);
  }
  const shown = [...rows].map(([what, { model, count, different }]) => {
    const agree =
      different === 0 ? `${count} of ${count}` : colors.red(`${count - different} of ${count}`);
    return [what, model, agree] as const;
  });
  const title = 'A read of 4 KiB through the pinhole; what is not mapped, what the device does:';
  if (terminalWidth() < 2 * NARROW) {
    return [title, ...shown.map(([what, does, agree]) => `${what}: ${does} (${agree})`), ''];
  }
  return [title, ...tableOf(['not mapped', 'the device', 'rings that agree'], shown), ''];
}

function coverageLines({ coverage }: VirtioCampaignResult): string[] {
  if (coverage.length === 0) return [];
  const rows = coverage.map(
    ({ request, outcome, count }) => [request, outcome, String(count)] as const,
  );
  if (terminalWidth() < NARROW) return rows.map(([a, b, n]) => `${a}: ${b}: ${n}`);
  return tableOf(['request', 'how it ended, on both', 'how often'], rows);
}

function tableOf(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  return drawTable(
    head.map((text, at) => ({ head: text, isNumber: at === head.length - 1 })),
    rows,
  );
}

function describe(finding: VirtioFinding, colors: Colors): string[] {
  const { device, seed, request, what, requests, model, reference } = finding;
  return [
    colors.red(`They differ in the ${what} (${device}, seed ${seed}, request ${request}):`),
    ...requests.map((line) => `  ${line}`),
    `  model: ${model}`,
    `  QEMU:  ${reference}`,
  ];
}

function conclusion({ findings, requests, faults }: VirtioCampaignResult, colors: Colors): string {
  if (findings.length > 0) return colors.red('The model and this QEMU do not agree.');
  if (requests + faults.length === 0) return 'Nothing was compared.';
  return colors.green('The model and this QEMU agree on every one.');
}
