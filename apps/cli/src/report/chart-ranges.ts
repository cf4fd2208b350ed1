/** Figures that are known as ranges, such as costs, side by side in groups. */
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

/** From the least to the most that it may be. */
interface Range {
  readonly low: number;
  readonly mid: number;
  readonly high: number;
}

interface RangeGroup {
  readonly label: string;
  /** One for each part; `null`: not known. */
  readonly values: readonly (Range | null)[];
}

export interface RangeChartOptions extends ChartFrame {
  /** What the axis measures, and its unit. */
  readonly axis: string;
  /** What the groups hold; a single one is named by the axis. */
  readonly parts: readonly string[];
  readonly groups: readonly RangeGroup[];
  /** On an axis of powers of ten there are dots: the length of a bar would say nothing. */
  readonly isLog?: boolean;
  /** Of the figures, and of the axis. */
  readonly format?: (value: number) => string;
}

const ROW = 24;
const GAP = 10;

/** A bar or dot for the middle of each range, a whisker from its low to its high end. */
export function rangeChart(options: RangeChartOptions): Chart {
  const { groups, parts, axis, isLog = false, format = short } = options;
  const known = groups.flatMap(({ values }) => values.filter(isKnown));
  if (known.length === 0) return emptyChart(options);
  const labels = groups.map(({ label }) => clipped(label, 30));
  const left = 16 + Math.max(50, ...labels.map(textWidth));
  const texts = known.map((range) => rangeText(range, format));
  const right = WIDTH - 20 - Math.max(...texts.map(textWidth));
  const head = legend(parts, left);
  const top = head.height;
  const heights = groups.map(({ values }) => Math.max(1, values.length) * ROW + GAP);
  const bottom = top + heights.reduce((sum, height) => sum + height, 0);
  const values = known.flatMap(({ low, mid, high }) => [low, mid, high]);
  const scale = scaleOf({ values, from: left, to: right, ticks: 6, isLog });
  const { at } = scale;
  const grid = tickLines(scale, [top, bottom], format);
  let y = top;
  const drawn = groups.map(({ values: ranges }, at_) => {
    const start = y;
    y += heights[at_] ?? 0;
    return html`<text x="${left - 8}" y="${start + (y - start - GAP) / 2 + 2}" text-anchor="end">${labels[at_]}</text>${ranges.map((range, part) => rangeHtml(range, part, start + part * ROW, { at, left, isLog, format }))}\n`;
  });
  const said = groups.map(
    ({ label, values: ranges }) =>
      `${label}: ${ranges.map((range, part) => `${parts[part] ?? ''} ${isKnown(range) ? rangeText(range, format) : 'not known'}`.trim()).join(', ')}`,
  );
  return chart(
    options,
    { description: `Ranges, ${axis}. ${said.join('; ')}.`, height: bottom + 44 },
    html`${head.body}${grid}
${drawn}<line class="axis" x1="${left}" y1="${top - 4}" x2="${left}" y2="${bottom}"/>
<text class="label" x="${(left + right) / 2}" y="${bottom + 36}" text-anchor="middle">${axis}${isLog ? ' (each step is a power of ten)' : ''}</text>`,
  );
}

interface Drawing {
  readonly at: (value: number) => number;
  readonly left: number;
  readonly isLog: boolean;
  readonly format: (value: number) => string;
}

function rangeHtml(range: Range | null, part: number, y: number, drawing: Drawing): Html {
  const { at, left, isLog, format } = drawing;
  if (!isKnown(range)) {
    return html`<text class="tick" x="${left + 6}" y="${y + 14}">not known</text>`;
  }
  const [low, mid, high] = [at(range.low), at(range.mid), at(range.high)].map(px);
  const color = colorOf(part);
  const shape = isLog
    ? html`<circle class="${color}" cx="${mid}" cy="${y + 9}" r="5"/>`
    : html`<rect class="bar ${color}" x="${left}" y="${y}" width="${px((mid ?? 0) - left)}" height="18"/>`;
  const whisker =
    low === high
      ? undefined
      : html`<path class="whisker" d="M${low} ${y + 5}v8M${low} ${y + 9}H${high}M${high} ${y + 5}v8"/>`;
  return html`${shape}${whisker}<text x="${(high ?? 0) + (isLog ? 12 : 8)}" y="${y + 14}">${rangeText(range, format)}</text>`;
}

function isKnown(range: Range | null): range is Range {
  return range !== null && [range.low, range.mid, range.high].every(Number.isFinite);
}

function rangeText({ low, mid, high }: Range, format: (value: number) => string): string {
  return low === high ? format(mid) : `${format(mid)} (${format(low)} to ${format(high)})`;
}
