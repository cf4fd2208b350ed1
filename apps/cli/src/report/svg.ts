/** What charts share: frame, axes, names for screen readers; and charts as files of their own. */
import { Html, html } from './html.js';
import { scrollable } from './parts.js';
import type { Scale } from './scale.js';
import { CHART_STYLE } from './style.js';
import { CHART_COLORS, DARK, LIGHT, resolved } from './tokens.js';

/** A chart: for a page by `figure`, for a file by `svgFile`. */
export interface Chart {
  readonly title: string;
  /** One `svg` element. */
  readonly svg: Html;
}

/** What every chart is asked for. */
export interface ChartFrame {
  /** Unique in the page. */
  readonly id: string;
  /** What the chart shows. */
  readonly title: string;
}

/** Width of all charts, in pixels. */
export const WIDTH = 760;

/** A chart within a page: it scrolls where it is too wide. */
export function figure({ title, svg }: Chart, caption?: string): Html {
  return html`<figure>${caption === undefined ? undefined : html`<figcaption>${caption}</figcaption>`}
${scrollable(title, svg)}</figure>
`;
}

/** A chart as a file: title within, light or dark as its reader is, nothing loaded. */
export function svgFile({ title, svg }: Chart): string {
  const [, width = '', height = ''] = /width="(\d+)" height="(\d+)"/.exec(svg.markup) ?? [];
  const top = 34;
  const tall = Number(height) + top;
  const dark = resolved(CHART_STYLE, DARK);
  // What knows no media queries shows the light one.
  const style = `${resolved(CHART_STYLE, LIGHT)}@media (prefers-color-scheme: dark) {${dark}}\n`;
  return html`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${tall}" width="${width}" height="${tall}">
<style>${new Html(style)}</style>
<rect class="ground" width="${width}" height="${tall}"/>
<text class="heading" x="12" y="22">${title}</text>
<g transform="translate(0 ${top})">
${svg}
</g>
</svg>
`.markup;
}

/** What a chart's element says of it. */
interface ChartElement {
  /** What a reader would see, in words. */
  readonly description: string;
  readonly height: number;
  readonly width?: number;
  /** For rules of a page's own. */
  readonly className?: string;
}

/** The `svg` element around what a chart draws. */
export function chart({ id, title }: ChartFrame, element: ChartElement, body: Html): Chart {
  const { description, height, width = WIDTH, className } = element;
  const classes = className === undefined ? undefined : html` class="${className}"`;
  const svg = html`<svg role="img"${classes} viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" aria-labelledby="${id}-title ${id}-desc">
<title id="${id}-title">${title}</title>
<desc id="${id}-desc">${description}</desc>
${body}
</svg>`;
  return { title, svg };
}

/** A chart that says that there is nothing to show. */
export function emptyChart(frame: ChartFrame): Chart {
  const description = 'No data to show.';
  const body = html`<text class="label" x="12" y="28">${description}</text>`;
  return chart(frame, { description, height: 48 }, body);
}

/** Draws what a part looks like, 20 by 12 pixels. */
type Swatch = (part: number, x: number, y: number) => Html;

const square: Swatch = (part, x, y) =>
  html`<rect class="bar ${colorOf(part)}" x="${x + 4}" y="${y}" width="12" height="12"/>`;

/** Lines across a chart at an axis' ticks, and what these are, below. */
export function tickLines(
  { at, ticks }: Scale,
  [top, bottom]: readonly [top: number, bottom: number],
  format: (value: number) => string,
): Html[] {
  return ticks.map((tick) => {
    const x = px(at(tick));
    return html`<line class="grid" x1="${x}" y1="${top - 4}" x2="${x}" y2="${bottom}"/><text class="tick" x="${x}" y="${bottom + 16}" text-anchor="middle">${format(tick)}</text>`;
  });
}

/** Names of the parts, above a chart, and the height that they take; none for a single part. */
export function legend(
  labels: readonly string[],
  left: number,
  swatch: Swatch = square,
): { readonly body: Html; readonly height: number } {
  if (labels.length < 2) return { body: html``, height: 8 };
  let [x, y] = [left, 4];
  const entries = labels.map((label, part) => {
    const text = clipped(label, 40);
    const width = 48 + textWidth(text);
    if (x > left && x + width > WIDTH) [x, y] = [left, y + 20];
    const entry = html`${swatch(part, x, y)}<text x="${x + 26}" y="${y + 11}">${text}</text>`;
    x += width;
    return entry;
  });
  return { body: html`${entries}\n`, height: y + 26 };
}

/** The class that colours a part. */
export function colorOf(part: number): string {
  return `k${part % CHART_COLORS}`;
}

/** Coordinates as charts write them. */
export function px(value: number): number {
  return Number(value.toFixed(1));
}

/** About the width of a text of 13 pixels. */
export function textWidth(text: string): number {
  return Math.ceil(text.length * 7.2);
}

/** A text of at most so many characters. */
export function clipped(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}
