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
import { type Mark, OUTCOME_MARKS } from './report/marks.js';
import { type Colors, colorsIf, markText, paint } from './terminal-style.js';
import { drawTable } from './terminal-table.js';
import { plain, wrap } from './terminal-text.js';

/** How the table is printed. */
export interface CompareTableOptions {
  /** Columns of the output; no line is longer. */
  readonly width: number;
  readonly color: boolean;
  readonly imageName: string;
}

/** Below this there is no table; each path has its figures in lines. */
const NARROW = 72;

/** The comparison for a terminal: figures, then a few lines about each path. */
export function renderCompareTable(
  paths: readonly ComparedPath[],
  options: CompareTableOptions,
): string {
  const colors = colorsIf(options.color);
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
    ...(columns.length > 0 ? [...drawPaths(paths, columns, colors), ''] : []),
    ...paths.flatMap((path) => story(path, left, width, colors)),
    ...summarize(paths).flatMap((sentence) => wrap(sentence, width, '  ')),
  ];
  return `${lines.join('\n')}\n`;
}

// The columns that there is room for, the highest rank first.
function fitting(paths: readonly ComparedPath[], all: readonly Column[], width: number): Column[] {
  const uncolored = colorsIf(false);
  const ranks = [...new Set(all.map(({ rank }) => rank))].sort((a, b) => b - a);
  let columns: Column[] = [];
  for (const next of ranks) {
    const more = all.filter((column) => columns.includes(column) || column.rank === next);
    const lines = drawPaths(paths, more, uncolored);
    if (lines.every((line) => line.length <= width)) columns = more;
  }
  return columns;
}

function drawPaths(
  paths: readonly ComparedPath[],
  columns: readonly Column[],
  colors: Colors,
): string[] {
  const rows = paths.map((path) => [
    path.number,
    ...columns.map(({ cell, isVerdict }) => {
      const text = cell(path).split('\n').map(plain).join('\n');
      return isVerdict === true ? paint(markOf(path).tone, text, colors) : text;
    }),
  ]);
  return drawTable([{ head: '#', isNumber: true }, ...columns], rows);
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
  const mark = markOf(path);
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
    return isJudged ? lines.map((line) => paint(mark.tone, line, colors)) : lines;
  });
  const title = wrap(`${plain(report.title)}: ${markText(mark)}`, width, '   ', `${number}  `);
  return [
    ...title.map((line) => colors.bold(paint(mark.tone, line, colors))),
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

function markOf({ report }: ComparedPath): Mark {
  return OUTCOME_MARKS[report.verdict.outcome];
}
