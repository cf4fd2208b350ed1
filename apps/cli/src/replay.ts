import { closeSync, createReadStream, readSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { parseSize } from '@pinhole/base';
import { HypervisorReplay, type HypervisorReplayResult } from '@pinhole/machine';
import { createQemuLogReader, type ReadProblem, type ReadSummary } from '@pinhole/trace';
import { EXIT, InputError, interrupt } from './exit.js';
import { openToRead } from './files.js';
import { Progress } from './terminal.js';

/** Options of `pinhole replay`. */
export interface ReplayOptions {
  readonly qemuTrace: string;
  readonly format: 'table' | 'json';
  readonly set: readonly string[];
}

/** How many problems of a log are shown; all are counted. */
const KEEP_PROBLEMS = 10;

/** `pinhole replay`: a QEMU log against the model. */
export async function replay(options: ReplayOptions): Promise<void> {
  const path = options.qemuTrace;
  const model = new HypervisorReplay(machineOf(options.set));
  const problems: ReadProblem[] = [];
  const reader = createQemuLogReader({
    onEvent: (event, line) => model.event(event, line),
    onProblem: (problem) => {
      if (problem.kind !== 'unknown-event' && problems.length < KEEP_PROBLEMS)
        problems.push(problem);
    },
  });
  const cutShort = await feed(path, (chunk) => reader.push(chunk));
  const summary = reader.end();
  const result = model.end();
  if (summary.events === 0 && !interrupt.isRequested) {
    throw new InputError(
      `${path}: expected a QEMU log with trace events (qemu-system-ppc64 -trace 'spapr_iommu_*' ...), found none in ${summary.lines} lines${cutShort === undefined ? '' : ` (${cutShort})`}`,
    );
  }
  const report = { path, summary, result, problems, cutShort };
  process.stdout.write(options.format === 'json' ? toJson(report) : toText(report));
  if (isClean(report)) return;
  process.exitCode = EXIT.FAILED;
}

interface ReplayReport {
  readonly path: string;
  readonly summary: ReadSummary;
  readonly result: HypervisorReplayResult;
  readonly problems: readonly ReadProblem[];
  /** Why the input ended early. */
  readonly cutShort: string | undefined;
}

// Streams a file, unpacking it if it is gzipped. Returns why it ended early, if it did.
async function feed(path: string, push: (chunk: Uint8Array) => void): Promise<string | undefined> {
  const fd = openToRead(path, 'a QEMU log, plain or gzipped');
  const magic = new Uint8Array(2);
  const isGzip = readSync(fd, magic, 0, 2, 0) === 2 && magic[0] === 0x1f && magic[1] === 0x8b;
  closeSync(fd);
  const progress = new Progress();
  let bytes = 0;
  const sink = async (source: AsyncIterable<Uint8Array>): Promise<void> => {
    for await (const chunk of source) {
      if (interrupt.isRequested) return;
      push(chunk);
      bytes += chunk.length;
      progress.show(`${(bytes / 2 ** 20).toFixed(0)} MiB read`);
    }
  };
  const file = createReadStream(path, { highWaterMark: 2 ** 18 });
  try {
    if (isGzip) await pipeline(file, createGunzip(), sink);
    else await pipeline(file, sink);
    return interrupt.isRequested ? 'interrupted' : undefined;
  } catch (error) {
    if (interrupt.isRequested) return 'interrupted';
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'Z_BUF_ERROR') return 'the gzip file is cut short';
    if (code?.startsWith('Z_') === true) return `the gzip file is damaged (${code})`;
    throw error;
  } finally {
    progress.clear();
  }
}

function isClean({ summary, result, cutShort }: ReplayReport): boolean {
  const { malformed, binary, cut } = summary.problems;
  const mismatches = result.hcallMismatches + result.translationMismatches + result.rtasMismatches;
  return (
    mismatches + malformed + binary + cut + summary.problems['too-long'] === 0 &&
    cutShort === undefined
  );
}

function toJson({ summary, result, problems, cutShort }: ReplayReport): string {
  const { mismatches, liobns, ...hypervisor } = result;
  const report = {
    schemaVersion: 1,
    inferred: { liobns },
    log: { ...summary, cutShort: cutShort ?? null, firstProblems: problems },
    hypervisor: { ...hypervisor, firstMismatches: mismatches },
    guest: null,
  };
  return `${JSON.stringify(report, null, 2)}\n`;
}

function toText(report: ReplayReport): string {
  const { path, summary, result, problems, cutShort } = report;
  const row = (what: string, count: number, wrong: number): string =>
    `  ${what.padEnd(17)} ${String(count).padStart(9)} checked ${String(wrong).padStart(9)} wrong`;
  const bad = Object.entries(summary.problems)
    .filter(([kind, count]) => count > 0 && kind !== 'unknown-event')
    .map(([kind, count]) => `${count} ${kind}`);
  const lines = [
    `${path}: ${summary.lines} lines, ${summary.events} events, ${summary.problems['unknown-event']} events of other kinds`,
    row('TCE hypercalls', result.hcalls, result.hcallMismatches),
    row('translations', result.translations, result.translationMismatches),
    row('RTAS window calls', result.rtasCalls, result.rtasMismatches),
    `  windows: ${result.liobns.join(', ') || 'none'}; ${result.newTables} tables came into being`,
    ...result.mismatches.map(
      ({ line, event, what, logged, model }) =>
        `  line ${line}: ${event}: ${what}: the log has ${logged}, the model ${model}`,
    ),
    ...(bad.length > 0 ? [`  lines that could not be read: ${bad.join(', ')}`] : []),
    ...problems.map(
      ({ line, kind, text, expected }) =>
        `  line ${line}: ${kind}${expected === undefined ? '' : `: expected ${expected}`}: ${text}`,
    ),
    ...(cutShort === undefined ? [] : [`  incomplete: ${cutShort}`]),
    conclusion(report),
  ];
  return `${lines.join('\n')}\n`;
}

function conclusion(report: ReplayReport): string {
  const { hcallMismatches, translationMismatches, rtasMismatches } = report.result;
  if (hcallMismatches + translationMismatches + rtasMismatches > 0) {
    return 'The model and this log do not agree.';
  }
  return isClean(report)
    ? 'The model agrees with every line.'
    : 'The model agrees with all that could be read.';
}

// What the log does not say about the machine.
function machineOf(set: readonly string[]): { dmaWindowSize?: number; pageSizes?: bigint } {
  const machine: { dmaWindowSize?: number; pageSizes?: bigint } = {};
  for (const setting of set) {
    const [path, value = ''] = setting.split(/=(.*)/s);
    if (path === 'machine.dmaWindowSize') machine.dmaWindowSize = parseSize(value);
    else if (path === 'machine.pageSizes' && /^(0x[0-9a-f]{1,16}|\d{1,16})$/i.test(value)) {
      machine.pageSizes = BigInt(value);
    } else {
      throw new InputError(
        `--set: expected machine.dmaWindowSize=SIZE or machine.pageSizes=0x..., found "${setting}"`,
      );
    }
  }
  return machine;
}
