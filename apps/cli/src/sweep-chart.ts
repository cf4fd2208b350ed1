/** One chart of a sweep: a line for each combination of the other axes, or bars. */
import { formatSize } from '@pinhole/base';
import {
  isSize,
  SWEEP_COLUMNS,
  type SweepAxis,
  type SweepHeader,
  type SweepRow,
  type SweepValue,
  sweepNumber,
} from '@pinhole/machine';
import { timeText } from './costs.js';
import { InputError } from './exit.js';
import { barChart } from './report/chart-bars.js';
import { lineChart, type Point, type Series } from './report/chart-lines.js';
import { short } from './report/scale.js';
import type { Chart } from './report/svg.js';

/** What a chart shows. */
interface Metric {
  readonly column: string;
  readonly label: string;
  readonly low?: string;
  readonly high?: string;
  readonly format: (value: number) => string;
}

/** Beyond so much from the least to the greatest, an axis is logarithmic. */
const LOG_SPAN = 20;

/** The columns that a chart can show. */
export function chartMetrics(): string[] {
  return SWEEP_COLUMNS.flatMap(({ name, type }) => (type === 'number' ? [name] : []));
}

/** @throws InputError when the column is none that a chart can show. */
export function checkMetric(name: string | undefined): void {
  if (name === undefined || chartMetrics().includes(name)) return;
  throw new InputError(`--metric: expected one of ${chartMetrics().join(', ')}; found "${name}"`);
}

/** Default metric: the time of a request where there is one, else hypercalls. */
export function sweepChart(header: SweepHeader, rows: readonly SweepRow[], metric?: string): Chart {
  const hasTimes = rows.some(({ nsMid }) => typeof nsMid === 'number');
  const shown = describeMetric(metric ?? (hasTimes ? 'nsMid' : 'hcallsPerRequest'));
  const { axes } = header;
  const along = axes.find(
    ({ values }) => values.length > 1 && values.every((value) => sweepNumber(value) !== undefined),
  );
  const varied = (along === undefined ? axes : [along]).map(({ path }) => path).join(', ');
  const frame = { id: `chart-${shown.column}`, title: `${upperFirst(shown.label)} by ${varied}` };
  if (along === undefined) {
    return barChart({
      ...frame,
      axis: shown.label,
      parts: [shown.label],
      rows: rows.map((row) => ({
        label: axes.map(({ path }) => `${keyOf(path)} ${row[path]}`).join(', '),
        values: [numberOr0(row[shown.column])],
      })),
      format: shown.format,
      axisFormat: shown.format,
    });
  }
  const series = seriesOf(axes, along, rows, shown);
  const values = series.flatMap(({ points }) =>
    points.flatMap(({ y, low, high }) => [y, low, high].filter((one) => typeof one === 'number')),
  );
  const places = along.values.map((value) => sweepNumber(value) as number);
  const isSizes = along.values.some(isSize);
  return lineChart({
    ...frame,
    x: {
      label: along.path,
      isLog: spansMuch(places) || (isSizes && places.length > 2),
      format: isSizes ? formatSize : short,
    },
    y: { label: shown.label, isLog: spansMuch(values), format: shown.format },
    series,
  });
}

function describeMetric(column: string): Metric {
  const what = SWEEP_COLUMNS.find(({ name }) => name === column)?.what ?? column;
  if (column === 'nsMid') {
    const label = 'time of a request (estimate)';
    return { column, label, low: 'nsLow', high: 'nsHigh', format: timeText };
  }
  if (column === 'throughputMid') {
    const label = 'throughput (estimate), bypass = 1';
    return { column, label, low: 'throughputLow', high: 'throughputHigh', format: short };
  }
  if (column.startsWith('ns'))
    return { column, label: what.replace(/, ns$/, ''), format: timeText };
  if (/bytes/i.test(column)) return { column, label: what, format: formatSize };
  return { column, label: what, format: short };
}

function seriesOf(
  axes: readonly SweepAxis[],
  along: SweepAxis,
  rows: readonly SweepRow[],
  { column, low, high }: Metric,
): Series[] {
  const others = axes.filter((axis) => axis !== along);
  const byLabel = new Map<string, Point[]>();
  for (const row of rows) {
    const label = others.map(({ path }) => `${keyOf(path)} ${row[path]}`).join(', ') || along.path;
    const points = byLabel.get(label) ?? [];
    byLabel.set(label, points);
    const y = row[column];
    const [least, most] = [row[low ?? ''], row[high ?? '']];
    points.push({
      x: sweepNumber(String(row[along.path])) ?? Number.NaN,
      y: typeof y === 'number' ? y : null,
      ...(typeof least === 'number' ? { low: least } : {}),
      ...(typeof most === 'number' ? { high: most } : {}),
    });
  }
  return [...byLabel].map(([label, points]) => ({
    label,
    points: points.sort((a, b) => a.x - b.x),
  }));
}

// `devices[0].iommuPlatform` is `iommuPlatform`.
function keyOf(path: string): string {
  return path.split('.').at(-1) ?? path;
}

function upperFirst(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

function spansMuch(values: readonly number[]): boolean {
  const known = values.filter(Number.isFinite);
  const [least, most] = [Math.min(...known), Math.max(...known)];
  return known.length > 0 && least > 0 && most / least > LOG_SPAN;
}

function numberOr0(value: SweepValue | undefined): number {
  return typeof value === 'number' ? value : 0;
}
