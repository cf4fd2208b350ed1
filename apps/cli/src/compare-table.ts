import { stripVTControlCharacters } from 'node:util';
import { formatSize } from '@pinhole/base';
import type { RunReport } from '@pinhole/machine';
import Table from 'cli-table3';
import pc from 'picocolors';
import {
  type ComparedPath,
  dataText,
  decimals,
  HCALL_KINDS,
  negotiatedText,
  perRequest,
  summarize,
} from './compare-path.js';

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
interface Column {
  readonly head: string;
  /** Lower ones are left out first when there is no room. */
  readonly rank: number;
  readonly isNumber: boolean;
  readonly cell: (report: RunReport) => string;
}

const COLUMNS: readonly Column[] = [
  { head: 'negotiated', rank: 1, isNumber: false, cell: negotiatedText },
  { head: 'DMA ops', rank: 6, isNumber: false, cell: ({ decision }) => decision.dmaOps },
  { head: 'data', rank: 9, isNumber: false, cell: dataText },
  ...HCALL_KINDS.map((kind) => ({
    head: kind.replace('_INDIRECT', '\nINDIRECT'),
    rank: 2,
    isNumber: true,
    cell: (report: RunReport) => perRequest(report, kind),
  })),
  {
    head: 'hypercalls\nper request',
    rank: 9,
    isNumber: true,
    cell: ({ counters }) => decimals(counters.hcallsPerRequestTotal),
  },
  {
    head: 'TCEs\nlive/peak',
    rank: 4,
    isNumber: true,
    cell: ({ counters }) => `${counters.tcesLive}/${counters.tcesPeak}`,
  },
  {
    head: 'translations\nper request',
    rank: 5,
    isNumber: true,
    cell: ({ counters }) => decimals(counters.translationsPerRequest),
  },
  {
    head: 'bounced',
    rank: 3,
    isNumber: true,
    cell: ({ counters }) => formatSize(counters.workload.bytesBounced),
  },
  {
    head: 'device\nreaches',
    rank: 9,
    isNumber: true,
    cell: ({ reach }) => formatSize(reach.addressable),
  },
  {
    head: 'of it\nin clear',
    rank: 7,
    isNumber: true,
    cell: ({ reach }) => formatSize(reach.plaintext),
  },
];

/** The comparison for a terminal: figures, then a line or two about each path. */
export function renderCompareTable(
  paths: readonly ComparedPath[],
  options: CompareTableOptions,
): string {
  const colors = pc.createColors(options.color);
  const width = Math.max(options.width, 40);
  const requests = paths[0]?.report.data.requests ?? 0;
  const lines = [
    ...wrap(`The same ${requests} requests over each path, on ${options.imageName}.`, width, ''),
    '',
    ...(width >= NARROW ? figures(paths, width, colors) : []),
    ...paths.flatMap((path) => story(path, width, colors)),
    ...wrap(summarize(paths), width, ''),
  ];
  return `${lines.join('\n')}\n`;
}

function figures(paths: readonly ComparedPath[], width: number, colors: Colors): string[] {
  let columns = COLUMNS;
  for (;;) {
    const lines = drawTable(paths, columns, colors);
    const widest = Math.max(...lines.map((line) => stripVTControlCharacters(line).length));
    if (widest <= width) return [...lines, ''];
    const lowest = Math.min(...columns.map(({ rank }) => rank));
    columns = columns.filter(({ rank }) => rank > lowest);
  }
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
  for (const { number, report } of paths) {
    const cells = columns.map((column) => {
      const text = column.cell(report);
      return column.head === 'data' ? paint(report, text, colors) : text;
    });
    table.push([String(number), ...cells]);
  }
  return table.toString().split('\n');
}

// What the figures mean, and in a narrow terminal the figures as well.
function story({ number, report }: ComparedPath, width: number, colors: Colors): string[] {
  const { decision, verdict, counters } = report;
  const setup = Object.entries(counters.setup.hcalls).map(([name, count]) => `${count} ${name}`);
  const rows: [string, string][] = [
    ['ops', `${decision.dmaOps}: ${decision.because}`],
    ['device', decision.device],
    ...(setup.length > 0 ? [['set-up', setup.join(', ')] as [string, string]] : []),
    ...(width < NARROW ? narrowRows(report) : []),
    ...report.warnings.map((text): [string, string] => ['warning', text]),
    ...report.deviceErrors.map((text): [string, string] => ['error', text]),
    ['verdict', verdict.text],
  ];
  const title = wrap(`${number}  ${report.title}`, width, '   ').map((line) => colors.bold(line));
  const body = rows.flatMap(([key, text]) =>
    wrap(`   ${key.padEnd(8)} ${text}`, width, ' '.repeat(12)).map((line) =>
      key === 'verdict' || key === 'warning' || key === 'error'
        ? paint(report, line, colors)
        : line,
    ),
  );
  return [...title, ...body, ''];
}

function narrowRows(report: RunReport): [string, string][] {
  return COLUMNS.filter(({ head }) => head !== 'DMA ops').map(({ head, cell }) => [
    `${head.replace('\n', ' ')}:`,
    cell(report),
  ]);
}

function paint({ verdict }: RunReport, text: string, colors: Colors): string {
  if (verdict.outcome === 'works') return colors.green(text);
  return verdict.outcome === 'works-slow' ? colors.yellow(text) : colors.red(text);
}

// Breaks at spaces; a word longer than the line is cut.
function wrap(text: string, width: number, indent: string): string[] {
  const lines: string[] = [];
  let line = '';
  const lead = /^ */.exec(text)?.[0] ?? '';
  for (const word of text.trimStart().split(' ')) {
    const prefix = lines.length === 0 && line === '' ? lead : line === '' ? indent : `${line} `;
    if (prefix.length + word.length <= width) {
      line = prefix + word;
      continue;
    }
    if (line !== '') lines.push(line);
    let rest = indent + word;
    for (; rest.length > width; rest = indent + rest.slice(width)) lines.push(rest.slice(0, width));
    line = rest;
  }
  return [...lines, line];
}
