import {
  type CellResult,
  type MatrixFilter,
  matrixCells,
  runCell,
  scenarioTextOfCell,
} from '@pinhole/machine';
import { commandLine } from './command-line.js';
import { EXIT, InputError, interrupt } from './exit.js';
import { costSentence } from './matrix-costs.js';
import { cellJson, matrixJson, rerunCommand, traceCommand } from './matrix-json.js';
import { runCells } from './matrix-pool.js';
import { renderMatrixTable } from './matrix-table.js';
import { renderRun } from './run.js';
import { Progress, showsColor, terminalWidth } from './terminal.js';
import { wrap } from './terminal-text.js';
import { describeEvents, openTrace, type TraceOptions } from './trace-output.js';

/** Options of `pinhole matrix`. */
export interface MatrixOptions extends TraceOptions {
  readonly arch: readonly string[];
  readonly policy: readonly string[];
  readonly flag?: OnOff;
  readonly secure?: OnOff;
  readonly vhost?: OnOff;
  readonly ring: readonly string[];
  readonly cell?: string;
  readonly jobs: number;
  readonly format: 'table' | 'json' | 'html';
}

type OnOff = 'on' | 'off';

const FILTERS = ['arch', 'policy', 'flag', 'secure', 'vhost', 'ring'] as const;

/** `pinhole matrix`: every policy on every machine, or one cell of it. */
export async function matrix(options: MatrixOptions): Promise<void> {
  if (options.trace === 'help') {
    process.stdout.write(describeEvents());
  } else if (options.cell !== undefined) {
    if (options.format === 'html') throw new InputError('--format html is for more than one cell');
    const filter = FILTERS.find((name) => (options[name]?.length ?? 0) > 0);
    if (filter !== undefined) throw new InputError(`--cell is one cell: leave out --${filter}`);
    oneCell(options.cell, options);
  } else if (options.trace !== undefined) {
    throw new InputError('--trace is for one cell: give --cell, too');
  } else {
    await allCells(options);
  }
}

async function allCells(options: MatrixOptions): Promise<void> {
  const cells = matrixCells(filterOf(options));
  if (cells.length === 0) throw new InputError('no cell is all of what the options ask for');
  const done = new Map<string, CellResult>();
  const progress = new Progress();
  await runCells({
    ids: cells.map(({ id }) => id),
    jobs: options.jobs,
    onResult(result) {
      done.set(result.cell.id, result);
      progress.show(`${done.size} of ${cells.length} cells`);
    },
    isStopped: () => interrupt.isRequested,
  }).finally(() => progress.clear());
  const results = cells.flatMap(({ id }) => done.get(id) ?? []);
  await show(results, cells.length, options);
  if (interrupt.isRequested) {
    process.stderr.write(`pinhole: interrupted after ${results.length} of ${cells.length} cells\n`);
  }
}

async function show(
  results: readonly CellResult[],
  planned: number,
  { format }: MatrixOptions,
): Promise<void> {
  if (format === 'json') {
    process.stdout.write(`${JSON.stringify(matrixJson(results, planned), null, 2)}\n`);
  } else if (format === 'html') {
    const { renderMatrixHtml } = await import('./matrix-html.js');
    process.stdout.write(renderMatrixHtml(results, { planned, command: commandLine() }));
  } else {
    const table = { width: terminalWidth(), color: showsColor(), planned };
    process.stdout.write(renderMatrixTable(results, table));
  }
}

function filterOf(options: MatrixOptions): MatrixFilter {
  const { arch, policy, ring, flag, secure, vhost } = options;
  return {
    ...(arch.length === 0 ? {} : { platforms: arch }),
    ...(policy.length === 0 ? {} : { policies: policy }),
    ...(ring.length === 0 ? {} : { rings: ring }),
    ...(flag === undefined ? {} : { flag: flag === 'on' }),
    ...(secure === undefined ? {} : { secure: secure === 'on' }),
    ...(vhost === undefined ? {} : { vhost: vhost === 'on' }),
  };
}

function oneCell(id: string, options: MatrixOptions): void {
  const trace = openTrace(options);
  const { result, report } = runCell(id, { tracer: trace.tracer });
  trace.close();
  const scenario = scenarioTextOfCell(id);
  const isGood = result.outcome === 'works' || result.outcome === 'works-slow';
  process.exitCode = isGood ? EXIT.OK : EXIT.FAILED;
  if (options.format === 'json') {
    const document = { schemaVersion: 1, cell: cellJson(result), report: report ?? null, scenario };
    process.stdout.write(`${JSON.stringify(document, null, 2)}\n`);
    return;
  }
  const width = terminalWidth();
  const lines = [
    ...result.findings.flatMap(({ text }) => wrap(text, width, '  ')),
    ...wrap(costSentence(result.costs) ?? 'no estimate of what it costs', width, '  '),
    '',
    ...(report === undefined ? [] : [renderRun(report)]),
    `trace it: ${traceCommand(result.cell.id)}`,
    `as a scenario file: ${rerunCommand(result.cell.id)} --format json (its key "scenario")`,
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
}
