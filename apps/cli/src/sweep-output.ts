/** Rows of a sweep as a table, NDJSON, CSV or Parquet. */
import {
  OUTCOMES,
  SWEEP_COLUMNS,
  type SweepAxis,
  type SweepHeader,
  type SweepRow,
  type SweepValue,
  sweepChecksum,
  sweepColumns,
  sweepHeaderLine,
  sweepRowLine,
} from '@pinhole/machine';
import { throughputRange, timeText } from './costs.js';
import { type Mark, OUTCOME_MARKS } from './report/marks.js';
import { markText } from './terminal-style.js';
import { drawTable } from './terminal-table.js';
import { plain, wrap } from './terminal-text.js';

export type SweepFormat = 'table' | 'ndjson' | 'csv' | 'parquet';

/** The rows, in a format; no line of the table is wider than `width`. */
export async function formatSweep(
  format: SweepFormat,
  header: SweepHeader,
  rows: readonly SweepRow[],
  width: number,
): Promise<string | Uint8Array> {
  if (format === 'ndjson') {
    const sweep = sweepChecksum(header);
    return sweepHeaderLine(header) + rows.map((row) => sweepRowLine(row, sweep)).join('');
  }
  if (format === 'csv') return csv(header.axes, rows);
  if (format === 'parquet') return parquet(header.axes, rows);
  return table(header.axes, rows, width);
}

function csv(axes: readonly SweepAxis[], rows: readonly SweepRow[]): string {
  const columns = sweepColumns(axes);
  const lines = [columns, ...rows.map((row) => columns.map((name) => row[name] ?? null))];
  return lines.map((cells) => `${cells.map(csvCell).join(',')}\r\n`).join('');
}

// RFC 4180.
function csvCell(value: SweepValue): string {
  if (value === null) return '';
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// A heavy module, for this format alone.
async function parquet(axes: readonly SweepAxis[], rows: readonly SweepRow[]): Promise<Uint8Array> {
  const { parquetWriteBuffer } = await import('hyparquet-writer');
  const numbers = new Set(
    SWEEP_COLUMNS.flatMap(({ name, type }) => (type === 'number' ? [name] : [])),
  );
  const columnData = sweepColumns(axes).map((name) => ({
    name,
    type:
      name === 'point'
        ? ('INT32' as const)
        : numbers.has(name)
          ? ('DOUBLE' as const)
          : ('STRING' as const),
    nullable: name !== 'point',
    data: rows.map((row) => row[name] ?? null),
  }));
  return new Uint8Array(parquetWriteBuffer({ columnData }));
}

/** A column of the table of a sweep. */
export interface SweepTableColumn {
  readonly head: string;
  /** The lowest leave the table first. */
  readonly rank: number;
  readonly isNumber?: boolean;
  readonly cell: (row: SweepRow) => string;
}

/** The columns that say something about these rows. */
export function sweepTableColumns(
  axes: readonly SweepAxis[],
  rows: readonly SweepRow[],
): SweepTableColumn[] {
  const all: SweepTableColumn[] = [
    ...axes.map(({ path }) => ({
      head: path,
      rank: 9,
      cell: (row: SweepRow) => String(row[path]),
    })),
    { head: 'outcome', rank: 9, cell: outcomeText },
    { head: 'hcalls', rank: 7, isNumber: true, cell: (row) => count(row.hcallsPerRequest) },
    { head: 'TCEs', rank: 4, isNumber: true, cell: (row) => count(row.tcesPerRequest) },
    {
      head: 'translations',
      rank: 3,
      isNumber: true,
      cell: (row) => count(row.translationsPerRequest),
    },
    {
      head: 'bounced, B',
      rank: 4,
      isNumber: true,
      cell: (row) => count(row.bytesBouncedPerRequest),
    },
    {
      head: 'IOTLB misses',
      rank: 4,
      isNumber: true,
      cell: (row) => count(row.iotlbMissesPerRequest),
    },
    { head: 'time', rank: 8, cell: (row) => (isNumber(row.nsMid) ? timeText(row.nsMid) : '') },
    { head: 'throughput', rank: 8, cell: throughputCell },
    { head: 'assumed', rank: 6, cell: (row) => share(row.assumedShare) },
    { head: 'dominated by', rank: 5, cell: (row) => String(row.dominates ?? '') },
  ];
  // A column of zeros only says that nothing was counted.
  return all.filter(
    ({ rank, cell }) => rank >= 8 || rows.some((row) => !['', '0'].includes(cell(row))),
  );
}

/** Errors of more points are only counted. */
const MAX_ERRORS = 10;

/** What the figures are. */
export const SWEEP_NOTE =
  'Counts are exact, and a request; times are estimates (docs/COSTS.md); throughput: bypass = 1.';

function table(axes: readonly SweepAxis[], rows: readonly SweepRow[], width: number): string {
  const filled = sweepTableColumns(axes, rows);
  const failed = rows.filter(({ error }) => error !== null);
  const more = failed.length - MAX_ERRORS;
  const lines = [
    ...(fitting(filled, rows, width) ?? stacked(filled, rows, width)),
    ...failed
      .slice(0, MAX_ERRORS)
      .flatMap(({ point, error }) => wrap(plain(`point ${point}: ${error}`), width, '  ')),
    ...(more > 0 ? [`and ${more} more points with an error`] : []),
    ...wrap(SWEEP_NOTE, width),
  ];
  return `${lines.join('\n')}\n`;
}

// The columns that there is room for; undefined where not even the most important ones fit.
function fitting(
  columns: readonly SweepTableColumn[],
  rows: readonly SweepRow[],
  width: number,
): string[] | undefined {
  const ranks = [...new Set(columns.map(({ rank }) => rank))].sort((a, b) => a - b);
  for (const least of ranks) {
    const shown = columns.filter(({ rank }) => rank >= least);
    for (const isBroken of [false, true]) {
      const lines = draw(shown, rows, isBroken);
      if (lines.every((line) => line.length <= width)) return lines;
    }
  }
  return undefined;
}

// A point below the other, each with a line for each of its figures.
function stacked(
  columns: readonly SweepTableColumn[],
  rows: readonly SweepRow[],
  width: number,
): string[] {
  return rows.flatMap((row) => [
    `point ${row.point}`,
    ...columns
      .filter(({ cell }) => cell(row) !== '')
      .flatMap(({ head, cell }) =>
        wrap(`${plain(head)}: ${plain(cell(row))}`, width, '    ', '  '),
      ),
  ]);
}

// A head that is a path may be broken at its dots.
function draw(
  columns: readonly SweepTableColumn[],
  rows: readonly SweepRow[],
  isBroken: boolean,
): string[] {
  return drawTable(
    columns.map((column) => {
      const head = plain(column.head);
      return { ...column, head: isBroken ? head.replaceAll('.', '.\n') : head };
    }),
    rows.map((row) => columns.map(({ cell }) => plain(cell(row)))),
  );
}

/** How a point is judged; nothing where it could not be run. */
export function sweepMark({ outcome }: SweepRow): Mark | undefined {
  const known = OUTCOMES.find((one) => one === outcome);
  return known === undefined ? undefined : OUTCOME_MARKS[known];
}

function outcomeText(row: SweepRow): string {
  const mark = sweepMark(row);
  return mark === undefined ? 'no run' : markText(mark);
}

const isNumber = (value: SweepValue | undefined): value is number => typeof value === 'number';

function count(value: SweepValue | undefined): string {
  return isNumber(value) ? String(Math.round(value * 100) / 100) : '';
}

function share(value: SweepValue | undefined): string {
  return isNumber(value) ? `${Math.round(value * 100)} %` : '';
}

function throughputCell({
  throughputLow: low,
  throughputMid: mid,
  throughputHigh: high,
}: SweepRow): string {
  if (!isNumber(low) || !isNumber(mid) || !isNumber(high)) return '';
  return throughputRange({ low, mid, high });
}
