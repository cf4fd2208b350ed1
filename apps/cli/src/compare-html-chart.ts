import { escapeHtml } from './compare-html-text.js';
import { type ComparedPath, decimals, shortName } from './compare-path.js';

/** One part of each bar. */
interface Series {
  readonly label: string;
  readonly value: (path: ComparedPath) => number;
}

/** What a chart shows. */
export interface ChartOptions {
  /** Unique in the page. */
  readonly id: string;
  readonly title: string;
  /** What the horizontal axis counts. */
  readonly axis: string;
  readonly series: readonly Series[];
}

const COLORS = 5;
const LEFT = 150;
const ROW = 28;
const ROOM = 520;
const WIDTH = 760;

/** Horizontal stacked bars as inline SVG, one for each path; the sums stand beside them. */
export function chart(paths: readonly ComparedPath[], options: ChartOptions): string {
  const { id, title, axis, series } = options;
  const totals = paths.map((path) => series.reduce((sum, { value }) => sum + value(path), 0));
  const step = tickStep(Math.max(0, ...totals));
  const ticks = Math.max(1, Math.ceil(Math.max(0, ...totals) / step));
  const scale = ROOM / (ticks * step);
  const top = series.length < 2 ? 8 : 34;
  const bottom = top + paths.length * ROW;
  const height = bottom + 44;
  const described = paths.map((path, row) => `${path.number}: ${decimals(totals[row] ?? 0)}`);
  return `<div class="scroll" role="region" aria-label="${escapeHtml(title)}" tabindex="0">
<svg role="img" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" aria-labelledby="${id}-title ${id}-desc">
<title id="${id}-title">${escapeHtml(title)}</title>
<desc id="${id}-desc">${escapeHtml(`Bars by path, ${axis}: ${described.join(', ')}. The table has every figure.`)}</desc>
${legend(series)}
${grid(ticks, step, scale, { top, bottom })}
${paths.map((path, row) => bar(path, series, scale, top + row * ROW)).join('\n')}
<line class="axis" x1="${LEFT}" y1="${top - 4}" x2="${LEFT}" y2="${bottom}"/>
<text class="label" x="${LEFT - 8}" y="${bottom + 36}" text-anchor="end">path</text>
<text class="label" x="${LEFT + ROOM / 2}" y="${bottom + 36}" text-anchor="middle">${escapeHtml(axis)}</text>
</svg></div>`;
}

function bar(path: ComparedPath, series: readonly Series[], scale: number, y: number): string {
  let x = LEFT;
  let total = 0;
  const parts = series.map(({ label, value }, i) => {
    const amount = value(path);
    const width = amount * scale;
    const rect = `<rect class="k${i % COLORS}" x="${x.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="18"><title>${escapeHtml(`${label}: ${decimals(amount)}`)}</title></rect>`;
    x += width;
    total += amount;
    return amount > 0 ? rect : '';
  });
  const name = `${path.number} ${shortName(path)}`;
  return (
    `<text x="${LEFT - 8}" y="${y + 14}" text-anchor="end">${escapeHtml(clipped(name))}</text>` +
    `${parts.join('')}<text x="${(x + 6).toFixed(1)}" y="${y + 14}">${decimals(total)}</text>`
  );
}

// One series needs none: the axis names it.
function legend(series: readonly Series[]): string {
  if (series.length < 2) return '';
  let x = LEFT;
  return series
    .map(({ label }, i) => {
      const entry =
        `<rect class="k${i % COLORS}" x="${x}" y="4" width="12" height="12"/>` +
        `<text x="${x + 18}" y="15">${escapeHtml(label)}</text>`;
      x += 44 + label.length * 8;
      return entry;
    })
    .join('');
}

function grid(
  ticks: number,
  step: number,
  scale: number,
  { top, bottom }: { readonly top: number; readonly bottom: number },
): string {
  return Array.from({ length: ticks + 1 }, (_, i) => {
    const x = (LEFT + i * step * scale).toFixed(1);
    return (
      `<line x1="${x}" y1="${top - 4}" x2="${x}" y2="${bottom}"/>` +
      `<text class="tick" x="${x}" y="${bottom + 16}" text-anchor="middle">${Number((i * step).toPrecision(6))}</text>`
    );
  }).join('');
}

// The smallest of 1, 2, 5 times a power of ten that needs at most six steps.
function tickStep(most: number): number {
  if (most <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(most / 6));
  return ([1, 2, 5, 10].find((factor) => factor * power * 6 >= most) ?? 10) * power;
}

function clipped(name: string): string {
  return name.length <= 20 ? name : `${name.slice(0, 19)}…`;
}
