/** Horizontal bars, stacked of parts; the sums stand beside them. */
import { type Html, html } from './html.js';
import { scaleOf, short } from './scale.js';
import {
  type Chart,
  type ChartFrame,
  chart,
  clipped,
  colorOf,
  emptyChart,
  legend,
  px,
  textWidth,
  tickLines,
  WIDTH,
} from './svg.js';

interface BarRow {
  readonly label: string;
  /** One for each part; 0 or more. */
  readonly values: readonly number[];
}

export interface BarChartOptions extends ChartFrame {
  /** What the axis counts. */
  readonly axis: string;
  /** What the rows are. */
  readonly rowAxis?: string;
  /** Names of the parts; a single one is named by the axis. */
  readonly parts: readonly string[];
  readonly rows: readonly BarRow[];
  /** Of the figures. */
  readonly format?: (value: number) => string;
  /** Of the axis. */
  readonly axisFormat?: (value: number) => string;
}

const ROW = 28;

/** The bars. Figures that are not finite, or below 0, count as 0. */
export function barChart(options: BarChartOptions): Chart {
  const { rows, parts, axis, rowAxis = '', format = short, axisFormat = short } = options;
  if (rows.length === 0) return emptyChart(options);
  const sums = rows.map(({ values }) => values.reduce((sum, value) => sum + amount(value), 0));
  const labels = rows.map(({ label }) => clipped(label, 30));
  const left = 16 + Math.max(50, ...[rowAxis, ...labels].map(textWidth));
  const right = WIDTH - 20 - Math.max(...sums.map((sum) => textWidth(format(sum))));
  const head = legend(parts, left);
  const top = head.height;
  const bottom = top + rows.length * ROW;
  const scale = scaleOf({ values: sums, from: left, to: right, ticks: 6 });
  const { at } = scale;
  const grid = tickLines(scale, [top, bottom], axisFormat);
  const bars = rows.map(({ values }, row) => {
    const y = top + row * ROW;
    return html`<text x="${left - 8}" y="${y + 14}" text-anchor="end">${labels[row]}</text>${stack(values, parts, at, y, format)}<text x="${px(at(sums[row] ?? 0) + 6)}" y="${y + 14}">${format(sums[row] ?? 0)}</text>\n`;
  });
  const said = rows.map(({ label }, row) => `${label}: ${format(sums[row] ?? 0)}`).join(', ');
  return chart(
    options,
    { description: `Bars, ${axis}: ${said}.`, height: bottom + 44 },
    html`${head.body}${grid}
${bars}<line class="axis" x1="${left}" y1="${top - 4}" x2="${left}" y2="${bottom}"/>
<text class="label" x="${left - 8}" y="${bottom + 36}" text-anchor="end">${rowAxis}</text>
<text class="label" x="${(left + right) / 2}" y="${bottom + 36}" text-anchor="middle">${axis}</text>`,
  );
}

function stack(
  values: readonly number[],
  parts: readonly string[],
  at: (value: number) => number,
  y: number,
  format: (value: number) => string,
): Html[] {
  let sum = 0;
  return values.map((value, part) => {
    const [x, end] = [at(sum), at(sum + amount(value))];
    sum += amount(value);
    if (end === x) return html``;
    const name = `${parts[part] ?? ''}: ${format(amount(value))}`;
    return html`<rect class="bar ${colorOf(part)}" x="${px(x)}" y="${y}" width="${px(end - x)}" height="18"><title>${name}</title></rect>`;
  });
}

function amount(value: number): number {
  return Number.isFinite(value) && value > 0 ? value : 0;
}
