/** Figures over something that varies: lines, steps or areas, with bands where they are ranges. */
import { type Html, html } from './html.js';
import { type Scale, scaleOf, short } from './scale.js';
import {
  type Chart,
  type ChartFrame,
  chart,
  colorOf,
  emptyChart,
  legend,
  px,
  textWidth,
  WIDTH,
} from './svg.js';

export interface Point {
  readonly x: number;
  /** `null`: not known; the line has a gap. */
  readonly y: number | null;
  /** What `y` may be at least and at most. */
  readonly low?: number;
  readonly high?: number;
}

interface Axis {
  /** What it measures, and its unit. */
  readonly label: string;
  /** Powers of ten are equally far apart. */
  readonly isLog?: boolean;
  readonly format?: (value: number) => string;
}

export interface Series {
  readonly label: string;
  /** By rising `x`. */
  readonly points: readonly Point[];
}

/** `line` joins points; `steps` holds each until the next; `area` fills what is below steps. */
type LineShape = 'line' | 'steps' | 'area';

export interface LineChartOptions extends ChartFrame {
  readonly x: Axis;
  readonly y: Axis;
  readonly series: readonly Series[];
  /** Default: `line`. */
  readonly shape?: LineShape;
}

/** Beyond so many points of a line they are not marked. */
const MAX_MARKS = 60;
/** Up to so many places along the axis, each is a tick. */
const MAX_PLACES = 12;
const HEIGHT = 240;
const DASHES = ['none', '7 3', '2 3', '10 3 2 3', '4 4', '14 4'];

/** A line for each series. Points that are not finite are gaps. */
export function lineChart(options: LineChartOptions): Chart {
  const { series, x, y, shape = 'line' } = options;
  const points = series.flatMap((one) => one.points.filter(isKnown));
  if (points.length === 0) return emptyChart(options);
  const head = legend(
    series.map(({ label }) => label),
    12,
    shape === 'area' ? undefined : swatch,
  );
  const top = head.height + 24;
  const bottom = top + HEIGHT;
  const right = WIDTH - 40;
  const values = points.flatMap(({ y: value, low = value, high = value }) => [value, low, high]);
  const up = scaleOf({ values, from: bottom, to: top, ticks: 5, isLog: y.isLog === true });
  const yFormat = y.format ?? short;
  const left = 16 + Math.max(...up.ticks.map((tick) => textWidth(yFormat(tick))));
  const places = points.map(({ x: place }) => place);
  const along = scaleOf({
    values: places,
    from: left,
    to: right,
    ticks: 6,
    isLog: x.isLog === true,
    isTight: true,
  });
  const xFormat = x.format ?? short;
  const rows = up.ticks.map(
    (tick) =>
      html`<line class="grid" x1="${left}" y1="${px(up.at(tick))}" x2="${right}" y2="${px(up.at(tick))}"/><text class="tick" x="${left - 8}" y="${px(up.at(tick) + 4)}" text-anchor="end">${yFormat(tick)}</text>`,
  );
  const columns = spaced(ticksOf(places, along), along.at, xFormat).map(
    (tick) =>
      html`<line class="axis" x1="${px(along.at(tick))}" y1="${bottom}" x2="${px(along.at(tick))}" y2="${bottom + 4}"/><text class="tick" x="${px(along.at(tick))}" y="${bottom + 18}" text-anchor="middle">${xFormat(tick)}</text>`,
  );
  const drawing = { x: along.at, y: up.at, bottom, shape };
  return chart(
    options,
    { description: describe(series, x.label, y.label, yFormat), height: bottom + 44 },
    html`${head.body}<text class="label" x="12" y="${head.height + 8}">${y.label}</text>${rows}
${series.map(({ points: all }, part) => html`${seriesHtml(all, part, drawing)}\n`)}<line class="axis" x1="${left}" y1="${bottom}" x2="${right}" y2="${bottom}"/>${columns}
<text class="label" x="${(left + right) / 2}" y="${bottom + 38}" text-anchor="middle">${x.label}</text>`,
  );
}

interface Drawing {
  readonly x: (value: number) => number;
  readonly y: (value: number) => number;
  readonly bottom: number;
  readonly shape: LineShape;
}

type KnownPoint = Point & { readonly y: number };

function isKnown(point: Point): point is KnownPoint {
  const { x, y, low = 0, high = 0 } = point;
  return y !== null && [x, y, low, high].every(Number.isFinite);
}

function seriesHtml(points: readonly Point[], part: number, drawing: Drawing): Html {
  const color = colorOf(part);
  const runs = unbroken(points);
  if (drawing.shape === 'area') {
    return html`${runs.map((run) => html`<path class="area ${color}" d="${areaPath(run, drawing)}"/>`)}`;
  }
  const dash = DASHES[part % DASHES.length] ?? 'none';
  return html`${runs.map((run) => html`${band(run, color, drawing)}<path class="trace ${color}" stroke-dasharray="${dash}" d="${linePath(run, drawing)}"/>`)}${points.length > MAX_MARKS ? undefined : runs.flat().map((point) => mark(point, color, drawing))}`;
}

// Points between two gaps.
function unbroken(points: readonly Point[]): KnownPoint[][] {
  const runs: KnownPoint[][] = [];
  let isOpen = false;
  for (const point of points) {
    if (!isKnown(point)) isOpen = false;
    else {
      if (!isOpen) runs.push([]);
      runs.at(-1)?.push(point);
      isOpen = true;
    }
  }
  return runs;
}

function linePath(run: readonly KnownPoint[], { x, y, shape }: Drawing): string {
  const join = (point: KnownPoint): string =>
    shape === 'steps'
      ? `H${px(x(point.x))}V${px(y(point.y))}`
      : `L${place(point.x, point.y, x, y)}`;
  return run
    .map((point, at) => (at === 0 ? `M${place(point.x, point.y, x, y)}` : join(point)))
    .join('');
}

function areaPath(run: readonly KnownPoint[], { x, y, bottom }: Drawing): string {
  const rest = run.map((point) => `H${px(x(point.x))}V${px(y(point.y))}`).join('');
  return `M${px(x(run[0]?.x ?? 0))} ${bottom}${rest}V${bottom}Z`;
}

function band(run: readonly KnownPoint[], color: string, { x, y }: Drawing): Html | undefined {
  if (!run.some(({ low, high }) => low !== high)) return undefined;
  const above = run.map((point) => place(point.x, point.high ?? point.y, x, y));
  const below = run.map((point) => place(point.x, point.low ?? point.y, x, y)).reverse();
  return html`<path class="band ${color}" d="M${[...above, ...below].join('L')}Z"/>`;
}

function mark({ x: along, y: up }: KnownPoint, color: string, { x, y }: Drawing): Html {
  return html`<circle class="${color}" cx="${px(x(along))}" cy="${px(y(up))}" r="3.5"/>`;
}

function place(along: number, up: number, x: Drawing['x'], y: Drawing['y']): string {
  return `${px(x(along))} ${px(y(up))}`;
}

function swatch(part: number, x: number, y: number): Html {
  return html`<path class="trace ${colorOf(part)}" stroke-dasharray="${DASHES[part % DASHES.length] ?? 'none'}" d="M${x} ${y + 6}h20"/>`;
}

// Where figures are at a few places only, these.
function ticksOf(places: readonly number[], { ticks }: Scale): readonly number[] {
  const all = [...new Set(places)].sort((a, b) => a - b);
  return all.length <= MAX_PLACES || ticks.length < 2 ? all : ticks;
}

// Without those whose texts would touch the one before.
function spaced(
  ticks: readonly number[],
  at: (value: number) => number,
  format: (value: number) => string,
): number[] {
  let end = -Infinity;
  return ticks.filter((tick) => {
    const half = textWidth(format(tick)) / 2;
    if (at(tick) - half < end + 6) return false;
    end = at(tick) + half;
    return true;
  });
}

function describe(
  series: readonly Series[],
  xLabel: string,
  yLabel: string,
  format: (value: number) => string,
): string {
  const said = series.map(({ label, points }) => {
    const known = points.filter(isKnown);
    const [first, last] = [known[0], known.at(-1)];
    if (first === undefined || last === undefined) return `${label}: not known`;
    const most = known.reduce((highest, { y }) => Math.max(highest, y), -Infinity);
    return `${label}: ${format(first.y)} at the start, ${format(most)} at most, ${format(last.y)} at the end`;
  });
  return `${yLabel} over ${xLabel}. ${said.join('; ')}.`;
}
