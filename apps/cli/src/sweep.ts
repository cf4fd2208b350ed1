import { createHash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import {
  COST_PRESETS,
  type CostPreset,
  countPoints,
  defaultCostPreset,
  estimateCosts,
  failedRow,
  MachineError,
  parseShard,
  parseSweepAxis,
  planSweep,
  runScenario,
  type SweepAxis,
  type SweepHeader,
  type SweepPoint,
  type SweepRow,
  sweepRow,
} from '@pinhole/machine';
import { commandLine } from './command-line.js';
import { type CostsOptions, loadCosts } from './costs.js';
import { EXIT, InputError, interrupt } from './exit.js';
import { checkWritable, writeWhole } from './files.js';
import { svgFile } from './report/svg.js';
import { type LoadedScenario, loadScenario } from './scenarios.js';
import { checkMetric, sweepChart } from './sweep-chart.js';
import { Disks } from './sweep-disks.js';
import { renderSweepHtml } from './sweep-html.js';
import { formatSweep } from './sweep-output.js';
import { type SweepTarget, SweepWriter } from './sweep-writer.js';
import { Progress, terminalWidth } from './terminal.js';
import { VERSION } from './version.js';

/** Options of `pinhole sweep`. */
export interface SweepOptions extends CostsOptions, SweepTarget {
  readonly image?: string;
  readonly chart?: string;
  readonly html?: string;
  readonly metric?: string;
  readonly shard?: string;
  readonly seed?: number;
  readonly set: readonly string[];
}

/** `pinhole sweep SCENARIO`: a run for each combination of values. */
export async function sweep(name: string, options: SweepOptions): Promise<void> {
  checkOutputs(options);
  checkMetric(options.metric);
  const shard = options.shard === undefined ? undefined : parseShard(options.shard);
  const { axes, fixed } = readSettings(options);
  countPoints(axes);
  const points = planSweep(axes, shard);
  const progress = new Progress();
  const load = (point: SweepPoint): LoadedScenario => loadScenario(name, [...fixed, ...point.set]);
  // All of them first: a mistake shows before anything was run.
  const scenarios = points.map((point) => {
    progress.show(`reading point ${point.index}`);
    return load(point);
  });
  const [first] = planSweep(axes);
  const base = load(first as SweepPoint);
  const disks = new Disks(options.image);
  try {
    const header: SweepHeader = {
      schemaVersion: 1,
      pinhole: VERSION,
      title: base.scenario.title,
      scenario: digest({ ...base.scenario, disk: disks.digest(base) }),
      costs: describeCosts(options, base.scenario.machine.arch),
      axes,
      points: countPoints(axes),
      shard: shard ?? null,
    };
    const writer = new SweepWriter(header, options);
    const rows: SweepRow[] = [];
    for (const [at, point] of points.entries()) {
      const known = writer.known(point.index);
      // Lets Ctrl-C in between two points.
      if (known === undefined) await setImmediate();
      if (interrupt.isRequested) break;
      progress.show(`point ${at + 1} of ${points.length}: ${point.set.join(' ')}`);
      const row = known ?? runPoint(axes, point, scenarios[at] as LoadedScenario, disks, options);
      rows.push(row);
      if (known === undefined) writer.add(row);
    }
    progress.clear();
    await finish(header, rows, points.length, writer, options);
  } finally {
    disks.close();
  }
}

function checkOutputs({ output, chart, html, format }: SweepOptions): void {
  for (const path of [output, chart, html]) if (path !== undefined) checkWritable(path);
  if (format === 'parquet' && output === undefined) {
    throw new InputError('--format parquet: expected --output FILE, found none');
  }
}

// A setting of one value is the same for all points.
function readSettings({ set, seed }: SweepOptions): { axes: SweepAxis[]; fixed: string[] } {
  const axes: SweepAxis[] = [];
  const fixed: string[] = [];
  for (const setting of set) {
    const axis = parseSweepAxis(setting);
    if (axis.values.length > 1) axes.push(axis);
    else fixed.push(`${axis.path}=${axis.values[0]}`);
  }
  if (seed !== undefined) fixed.push(`seed=${seed}`);
  return { axes, fixed };
}

function runPoint(
  axes: readonly SweepAxis[],
  point: SweepPoint,
  loaded: LoadedScenario,
  disks: Disks,
  options: SweepOptions,
): SweepRow {
  try {
    const { scenario } = loaded;
    const report = runScenario(scenario, { disk: disks.open(loaded) });
    const { arch } = scenario.machine;
    const preset = loadCosts(options, arch) ?? defaultCostPreset(arch);
    return costedRow(axes, point, report, preset);
  } catch (error) {
    if (!(error instanceof MachineError)) throw error;
    return failedRow(axes, point, error.message);
  }
}

// Counts stand, whether there is a constant for each of them or not.
function costedRow(
  axes: readonly SweepAxis[],
  point: SweepPoint,
  report: Parameters<typeof estimateCosts>[0],
  preset: CostPreset | undefined,
): SweepRow {
  try {
    const costs = preset === undefined ? undefined : estimateCosts(report, preset);
    return sweepRow(axes, point, report, costs);
  } catch (error) {
    if (!(error instanceof MachineError) || error.code !== 'E_COSTS') throw error;
    return { ...sweepRow(axes, point, report, undefined), error: error.message };
  }
}

function describeCosts(options: SweepOptions, arch: string): SweepHeader['costs'] {
  const preset = loadCosts(options, arch);
  if (preset === undefined) return { preset: 'default', digest: digest(COST_PRESETS) };
  return { preset: preset.id, digest: digest(preset.constants) };
}

async function finish(
  header: SweepHeader,
  rows: readonly SweepRow[],
  wanted: number,
  writer: SweepWriter,
  options: SweepOptions,
): Promise<void> {
  const { output, chart, html, format, metric } = options;
  writer.close();
  if (format !== 'ndjson') {
    const text = await formatSweep(format, header, rows, terminalWidth());
    if (output === undefined) process.stdout.write(text);
    else writeWhole(output, text);
  }
  if (output !== undefined) process.stderr.write(`wrote ${output}\n`);
  if (chart !== undefined) {
    writeWhole(chart, svgFile(sweepChart(header, rows, metric)));
    process.stderr.write(`wrote ${chart}\n`);
  }
  if (html !== undefined) {
    writeWhole(html, renderSweepHtml(header, rows, { command: commandLine() }));
    process.stderr.write(`wrote ${html}\n`);
  }
  if (rows.length < wanted) {
    const go = format === 'ndjson' && output !== undefined ? '; the same command goes on' : '';
    process.stderr.write(`pinhole: interrupted after ${rows.length} of ${wanted} points${go}\n`);
  }
  const failed = rows.filter(({ error }) => error !== null);
  if (failed.length === 0) return;
  process.stderr.write(
    `pinhole: ${failed.length} of ${rows.length} points have an error; point ${failed[0]?.point}: ${failed[0]?.error}\n`,
  );
  process.exitCode = EXIT.FAILED;
}

function digest(value: unknown): string {
  const text = JSON.stringify(value, (_key, item: unknown) =>
    typeof item === 'bigint' ? `0x${item.toString(16)}` : item,
  );
  return `sha256:${createHash('sha256').update(text).digest('hex')}`;
}
