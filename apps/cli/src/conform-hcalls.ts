import { setImmediate } from 'node:timers/promises';
import {
  ACCIDENTS,
  type CampaignResult,
  type CoverageRow,
  type Finding,
  HcallCampaign,
  LiveSide,
  startShape,
} from '@pinhole/live';
import { EXIT, InputError, interrupt } from './exit.js';
import { Progress, showsColor, terminalWidth } from './terminal.js';
import { type Colors, colorsIf } from './terminal-style.js';
import { drawTable } from './terminal-table.js';

/** Options of `pinhole conform hcalls`. */
export interface ConformHcallsOptions {
  readonly count: number;
  readonly seed: number;
  readonly qemu: string;
  readonly include: readonly string[];
  readonly format: 'table' | 'json';
}

/** Below this there is no table. */
const NARROW = 60;

/** How long QEMU may take for anything; the longest batch takes a second. */
const WAIT_MS = 5000;

/** How many operations of a sequence that was not shrunk are shown. */
const SHOWN = 20;

/** How often Ctrl-C is looked for, in milliseconds. */
const LOOK_MS = 50;

/** `pinhole conform hcalls`: the model against a live QEMU. */
export async function conformHcalls(options: ConformHcallsOptions): Promise<void> {
  const { count, seed, qemu, include } = options;
  checkAccidents(include);
  let version = '';
  const campaign = new HcallCampaign({
    seed,
    count,
    include,
    now: () => performance.now(),
    startReference: (shape) => {
      const live = startShape(shape, { qemu, timeoutMs: WAIT_MS });
      if (live === undefined) return undefined;
      version = live.version;
      return new LiveSide(live);
    },
  });
  const progress = new Progress();
  const start = performance.now();
  let looked = start;
  let failure: unknown;
  try {
    // Leaving the loop closes QEMU.
    for (const _ of campaign.run()) {
      const now = performance.now();
      if (now - looked < LOOK_MS) continue;
      looked = now;
      const { hcalls, findings } = campaign.result;
      progress.show(`${hcalls} of ${count} hypercalls compared, ${findings.length} findings`);
      await setImmediate();
      if (interrupt.isRequested) break;
    }
  } catch (error) {
    // What was found before QEMU could no longer be started is not lost.
    if (campaign.result.hcalls === 0) throw error;
    failure = error;
  }
  progress.clear();
  const report = { qemu, version, options, seconds: (performance.now() - start) / 1000 };
  const { result } = campaign;
  process.stdout.write(
    options.format === 'json' ? toJson(result, report) : toText(result, report, showsColor()),
  );
  if (interrupt.isRequested) {
    process.stderr.write(`pinhole: interrupted after ${result.hcalls} of ${count} hypercalls\n`);
  }
  if (result.findings.length > 0) process.exitCode = EXIT.FAILED;
  if (failure !== undefined) throw failure;
}

interface Report {
  readonly qemu: string;
  readonly version: string;
  readonly options: ConformHcallsOptions;
  readonly seconds: number;
}

function leftOut({ options }: Report): string[] {
  return ACCIDENTS.map(({ name }) => name).filter((name) => !options.include.includes(name));
}

function toJson(result: CampaignResult, report: Report): string {
  const { qemu, version, options, seconds } = report;
  const json = {
    schemaVersion: 1,
    qemu: { path: qemu, version },
    seed: result.seed,
    count: options.count,
    hcalls: result.hcalls,
    seconds: Number(seconds.toFixed(3)),
    episodes: result.episodes,
    machines: result.shapes,
    leftOut: leftOut(report),
    coverage: result.coverage.map(({ call, ret, model, reference }) => ({
      call,
      ret,
      model,
      qemu: reference,
    })),
    findings: result.findings.map(({ reference, shape, ...finding }) => ({
      ...finding,
      machine: shape,
      qemu: reference,
    })),
  };
  return `${JSON.stringify(json, null, 2)}\n`;
}

function toText(result: CampaignResult, report: Report, color: boolean): string {
  const colors = colorsIf(color);
  const { version, options, seconds } = report;
  const rate = Math.round(result.hcalls / seconds);
  const missing = leftOut(report);
  const lines = [
    `QEMU ${version} (${options.qemu}), seed ${result.seed}`,
    ...result.shapes.map((shape) => `  ${shape}`),
    '',
    ...(result.coverage.length > 0 ? [...coverageLines(result, colors), ''] : []),
    ...result.findings.flatMap((finding) => [...describe(finding, colors), '']),
    `${result.hcalls} hypercalls compared in ${seconds.toFixed(1)} s (${rate} a second),`,
    `${result.episodes} machines from the start.`,
    ...(missing.length > 0 ? [`Left out by name: ${missing.join(', ')}.`] : []),
    ...(result.hcalls < options.count && result.findings.length > 0
      ? [`Ended before ${options.count} hypercalls: what was found is to be looked at first.`]
      : []),
    conclusion(result, colors),
  ];
  return `${lines.join('\n')}\n`;
}

// How often each return code came, on both sides.
function coverageLines({ coverage }: CampaignResult, colors: Colors): string[] {
  const shown = (row: CoverageRow): string =>
    row.model === row.reference ? String(row.reference) : colors.red(String(row.reference));
  if (terminalWidth() < NARROW) {
    return coverage.map((row) => `${row.call} ${row.ret}: ${row.model}, QEMU ${shown(row)}`);
  }
  const rows = coverage.map((row) => [row.call, row.ret, row.model, shown(row)]);
  return drawTable(
    [
      { head: 'call' },
      { head: 'returns', isNumber: true },
      { head: 'model', isNumber: true },
      { head: 'QEMU', isNumber: true },
    ],
    rows,
  );
}

function describe(finding: Finding, colors: Colors): string[] {
  const { kind, sequence, length, shape, episode, seed } = finding;
  const titles: Record<Finding['kind'], string> = {
    divergence: 'The answers differ',
    exit: 'QEMU died',
    hang: 'QEMU did not answer',
    'guest-reset': 'QEMU reset the machine',
  };
  return [
    colors.red(`${titles[kind]} (${shape}; seed ${seed}, machine ${episode})`),
    finding.isReproducible
      ? `  of ${length} operations the shortest sequence that shows it has ${sequence.length}:`
      : `  ${length} operations, not shrunk: interrupted, or on a new machine they do not show it again; the last:`,
    ...sequence
      .slice(finding.isReproducible ? 0 : -SHOWN)
      .map((op, i) => `  ${String(i + 1).padStart(3)}. ${op}`),
    `  model: ${finding.model}`,
    ...finding.reference.split('\n').map((line, i) => `  ${i === 0 ? 'QEMU: ' : '      '} ${line}`),
  ];
}

function conclusion({ findings, hcalls }: CampaignResult, colors: Colors): string {
  const deaths = findings.filter(({ kind }) => kind !== 'divergence').length;
  if (findings.length > deaths) return colors.red('The model and this QEMU do not agree.');
  if (hcalls === 0) return 'Nothing was compared.';
  if (deaths > 0) {
    return colors.red(
      `The model and this QEMU agree, but for ${deaths} that QEMU did not survive.`,
    );
  }
  return colors.green('The model and this QEMU agree on every one.');
}

function checkAccidents(include: readonly string[]): void {
  const names = ACCIDENTS.map(({ name }) => name);
  const unknown = include.find((name) => !names.includes(name));
  if (unknown === undefined) return;
  throw new InputError(
    `--include: "${unknown}" is no accident. Allowed choices are ${names.join(', ')}.`,
  );
}
