import { formatSize } from '@pinhole/base';
import {
  type CostEstimate,
  type DiskSource,
  estimateCosts,
  type RunReport,
  runScenario,
  type Scenario,
} from '@pinhole/machine';
import { type CostsOptions, costRows, loadCosts } from './costs.js';
import { EXIT } from './exit.js';
import { openImage } from './files.js';
import { OUTCOME_MARKS } from './report/marks.js';
import { loadScenario } from './scenarios.js';
import { terminalWidth } from './terminal.js';
import { markText } from './terminal-style.js';
import { plain, wrap } from './terminal-text.js';
import { describeEvents, openTrace, type TraceOptions } from './trace-output.js';

/** Options of `pinhole run`. */
export interface RunCommandOptions extends TraceOptions, CostsOptions {
  readonly image?: string;
  readonly format: 'table' | 'json';
  readonly seed?: number;
  readonly set: readonly string[];
}

/** `pinhole run SCENARIO`. */
export function run(name: string, options: RunCommandOptions): void {
  if (options.trace === 'help') {
    process.stdout.write(describeEvents());
    return;
  }
  const set = [...options.set, ...(options.seed === undefined ? [] : [`seed=${options.seed}`])];
  const { scenario, imagePath } = loadScenario(name, set);
  const preset = loadCosts(options, scenario.machine.arch);
  const path = options.image ?? imagePath;
  const image = path === undefined ? undefined : openImage(path);
  try {
    const report = runTraced(scenario, image?.disk, options);
    const costs = preset === undefined ? undefined : estimateCosts(report, preset);
    if (options.format === 'json') {
      const shown = preset === undefined ? report : { ...report, costs: costs ?? null };
      process.stdout.write(`${JSON.stringify(shown, null, 2)}\n`);
    } else {
      process.stdout.write(renderRun(report, preset === undefined ? undefined : (costs ?? null)));
    }
    process.exitCode = exitCodeOf(report, scenario);
  } finally {
    image?.close();
  }
}

// A scenario that cannot run leaves no trace behind.
function runTraced(
  scenario: Scenario,
  disk: DiskSource | undefined,
  options: TraceOptions,
): RunReport {
  const trace = openTrace(options);
  const report = runScenario(scenario, {
    ...(disk === undefined ? {} : { disk }),
    tracer: trace.tracer,
  });
  trace.close();
  return report;
}

function exitCodeOf(report: RunReport, scenario: Scenario): number {
  const { outcome } = report.verdict;
  if (scenario.expect !== undefined) {
    if (scenario.expect === outcome) return EXIT.OK;
    process.stderr.write(
      `pinhole: expected the outcome "${scenario.expect}", found "${outcome}"\n`,
    );
    return EXIT.FAILED;
  }
  return outcome === 'works' || outcome === 'works-slow' ? EXIT.OK : EXIT.FAILED;
}

/** A report for people; `costs` are `null` where they were asked for and there are none. */
export function renderRun(report: RunReport, costs?: CostEstimate | null): string {
  const { machine, data, counters, reach, decision, verdict } = report;
  const perRequest = Object.entries(counters.hcallsPerRequest)
    .map(([name, count]) => `${name} ${count.toFixed(2)}`)
    .join(', ');
  const setup = Object.entries(counters.setup.hcalls)
    .map(([name, count]) => `${name} ${count}`)
    .join(', ');
  const rows: [string, string][] = [
    [
      'machine',
      `${machine.arch}, ${formatSize(machine.memory)}, QEMU ${machine.qemu}, flag ${machine.flag ? 'on' : 'off'}`,
    ],
    ['guest', `${machine.kernel}, policy ${machine.policy}${machine.secure ? ', secure' : ''}`],
    [
      'negotiated',
      report.negotiated === null
        ? `nothing: ${report.refusal}`
        : `${report.negotiated.features} ${report.negotiated.names.join(' ')}`,
    ],
    ['device uses', decision.device],
    ['guest uses', `${decision.dmaOps}: ${decision.because}`],
    ...decision.steps.map((step): [string, string] => ['', step]),
    ...report.warnings.map((warning): [string, string] => ['warning', warning]),
    ...report.deviceErrors.map((error): [string, string] => ['device error', error]),
    [
      'requests',
      `${data.requests}: ${data.completed} completed, ${data.failed} failed, ${data.rejected} rejected, ${data.hung} hung`,
    ],
    [
      'data',
      `${formatSize(data.bytesRead)} read (${data.bytesReadWrong} bytes wrong), ${formatSize(data.bytesWritten)} written (${data.imageBytesWrong} bytes of the image wrong)`,
    ],
    ...lostRows(counters.bytesLost),
    [
      'hypercalls',
      `${counters.hcallsPerRequestTotal.toFixed(2)} a request${perRequest === '' ? '' : `: ${perRequest}`}`,
    ],
    ['at set-up', setup === '' ? 'none' : setup],
    ['TCEs', `${counters.tcesLive} live at the end, ${counters.tcesPeak} at most`],
    ['translations', `${counters.translationsPerRequest.toFixed(2)} a request`],
    ...vhostRows(counters.vhost),
    ['bounced', formatSize(counters.workload.bytesBounced)],
    [
      'device reach',
      `${formatSize(reach.addressable)}, ${formatSize(reach.plaintext)} of it in clear`,
    ],
    ...timeRows(costs),
    ['verdict', `${markText(OUTCOME_MARKS[verdict.outcome])}: ${verdict.text}`],
  ];
  const width = terminalWidth();
  const title = report.title === '' ? [] : [...wrap(plain(report.title), width), ''];
  const lines = rows.flatMap(([key, value]) => rowLines(key, plain(value), width));
  return `${[...title, ...lines].join('\n')}\n`;
}

// A line that fits is left as it is: its columns may be aligned.
function rowLines(key: string, value: string, width: number): string[] {
  const line = `${key.padEnd(13)} ${value}`.trimEnd();
  if (line.length <= width) return [line];
  return wrap(value, width, ' '.repeat(16), key.padEnd(14));
}

// A data plane of its own, and what its IOTLB had to ask for.
function vhostRows(vhost: RunReport['counters']['vhost']): [string, string][] {
  if (vhost === null) return [];
  const { misses, missesPerRequest, invalidatesPerRequest, updates, evictions, stalls } = vhost;
  if (updates + misses + stalls === 0) return [['vhost', 'no IOTLB']];
  const perRequest = `${missesPerRequest.toFixed(2)} misses and ${invalidatesPerRequest.toFixed(2)} invalidations a request`;
  const rest = `${updates} updates, ${evictions} evictions, ${stalls} stalls in all`;
  return [['vhost', `${perRequest}; ${rest}`]];
}

// A device reports success all the same. [qemu v7.2 softmmu/physmem.c address_space_map]
function lostRows(bytes: number): [string, string][] {
  if (bytes === 0) return [];
  return [['lost', `${formatSize(bytes)}: no memory there; QEMU's bounce page took the place`]];
}

function timeRows(costs: CostEstimate | null | undefined): [string, string][] {
  if (costs === undefined) return [];
  return costs === null ? [['time', 'none: not every request was served']] : costRows(costs);
}
