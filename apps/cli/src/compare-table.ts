import type { RunReport } from '@pinhole/machine';
import Table from 'cli-table3';
import pc from 'picocolors';
import { type Column, compareColumns } from './compare-columns.js';
import {
  type ComparedPath,
  costText,
  dataText,
  negotiatedText,
  setupText,
  summarize,
  workloadText,
} from './compare-path.js';
import { plain, wrap } from './compare-text.js';

/** How the table is printed. */
export interface CompareTableOptions {
  /** Columns of the output; no line is longer. */
  readonly width: number;
  readonly color: boolean;
  readonly imageName: string;
}

/** Below this there is no table; each path has its figures in lines. */
const NARROW = 72;

type Colors = ReturnType<typeof pc.createColors>;

/** The comparison for a terminal: figures, then a few lines about each path. */
export function renderCompareTable(
  paths: readonly ComparedPath[],
  options: CompareTableOptions,
): string {
  const colors = pc.createColors(options.color);
  const width = Math.max(options.width, 40);
  const intro =
    `${workloadText(paths, plain(options.imageName))} ` +
    'Hypercalls and translations are counted per request.';
  const all = compareColumns(paths);
  const columns = paths.length === 0 || width < NARROW ? [] : fitting(paths, all, width);
  const left = all.filter((column) => !columns.includes(column));
  const lines = [
    ...wrap(intro, width),
    '',
    ...(columns.length > 0 ? [...drawTable(paths, columns, colors), ''] : []),
    ...paths.flatMap((path) => story(path, left, width, colors)),
    ...summarize(paths).flatMap((sentence) => wrap(sentence, width, '  ')),
  ];
  return `${lines.join('\n')}\n`;
}

// The columns that there is room for, the highest rank first.
function fitting(paths: readonly ComparedPath[], all: readonly Column[], width: number): Column[] {
  const uncolored = pc.createColors(false);
  const ranks = [...new Set(all.map(({ rank }) => rank))].sort((a, b) => b - a);
  let columns: Column[] = [];
  for (const next of ranks) {
    const more = all.filter((column) => columns.includes(column) || column.rank === next);
    const lines = drawTable(paths, more, uncolored);
    if (lines.every((line) => line.length <= width)) columns = more;
  }
  return columns;
}

function drawTable(
  paths: readonly ComparedPath[],
  columns: readonly Column[],
  colors: Colors,
): string[] {
  const table = new Table({
    head: ['#', ...columns.map(({ head }) => head)],
    colAligns: ['right', ...columns.map(({ isNumber }) => (isNumber ? 'right' : 'left'))],
    style: { head: [], border: [], compact: true },
  });
  for (const path of paths) {
    const cells = columns.map(({ cell, isVerdict }) => {
      const text = cell(path).split('\n').map(plain).join('\n');
      return isVerdict === true ? paint(path.report, text, colors) : text;
    });
    table.push([String(path.number), ...cells]);
  }
  return table.toString().split('\n');
}

// What the figures mean, and the figures that found no room in the table.
function story(
  path: ComparedPath,
  left: readonly Column[],
  width: number,
  colors: Colors,
): string[] {
  const { number, report } = path;
  const { decision, verdict } = report;
  const figures = left.flatMap(({ label, cell }) =>
    label === undefined ? [] : [[label, cell(path)]],
  );
  const setup = setupText(report);
  const costs = costText(path);
  const rows: [key: string, text: string][] = [
    ['virtio', negotiatedText(report)],
    ['ops', `${decision.dmaOps}: ${decision.because}`],
    ['device', decision.device],
    ['data', dataText(report)],
    ...(setup === '' ? [] : [['set-up', setup] as [string, string]]),
    ...(costs === '' ? [] : [['time', costs] as [string, string]]),
    ...(width < NARROW || figures.length === 0
      ? []
      : [['figures', figures.map((figure) => figure.join(' ')).join(', ')] as [string, string]]),
    ...report.warnings.map((text): [string, string] => ['warning', text]),
    ...report.deviceErrors.map((text): [string, string] => ['error', text]),
    ['verdict', verdict.text],
  ];
  const body = rows.flatMap(([key, text]) => {
    const lines = wrap(plain(text), width, ' '.repeat(12), `   ${key.padEnd(8)} `);
    const isJudged = key === 'verdict' || key === 'warning' || key === 'error';
    return isJudged ? lines.map((line) => paint(report, line, colors)) : lines;
  });
  const title = wrap(`${plain(report.title)}: ${verdict.outcome}`, width, '   ', `${number}  `);
  return [
    ...title.map((line) => colors.bold(paint(report, line, colors))),
    ...body,
    ...(width < NARROW ? stack(figures, width) : []),
    '',
  ];
}

// Figures below each other, right-aligned.
function stack(figures: readonly string[][], width: number): string[] {
  const labelWidth = Math.max(0, ...figures.map(([label = '']) => label.length));
  const valueWidth = Math.max(0, ...figures.map(([, value = '']) => value.length));
  return figures.flatMap(([label = '', value = '']) => {
    const line = `   ${label.padEnd(labelWidth)}  ${value.padStart(valueWidth)}`;
    return line.length <= width ? [line] : wrap(`${label} ${value}`, width, '     ', '   ');
  });
}

function paint({ verdict }: RunReport, text: string, colors: Colors): string {
  if (verdict.outcome === 'works') return colors.green(text);
  return verdict.outcome === 'works-slow' ? colors.yellow(text) : colors.red(text);
}
