import type { Occupancy } from '@pinhole/machine';
import { escapeHtml } from './compare-html-text.js';

const LEFT = 76;
const ROOM = 640;
const WIDTH = LEFT + ROOM + 24;
const MAX_BARS = 24;

interface Frame {
  /** Unique in the page. */
  readonly id: string;
  readonly title: string;
  /** What the chart shows, in words. */
  readonly description: string;
}

function svg({ id, title, description }: Frame, height: number, body: string): string {
  return `<div class="scroll" role="region" aria-label="${escapeHtml(title)}" tabindex="0">
<svg role="img" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" aria-labelledby="${id}-title ${id}-desc">
<title id="${id}-title">${escapeHtml(title)}</title>
<desc id="${id}-desc">${escapeHtml(description)}</desc>
${body}
</svg></div>`;
}

/** Entries in use over the lines of QEMU's log. */
export function occupancyChart(
  id: string,
  { live, given, step }: Occupancy,
  { lines, size, name }: { readonly lines: number; readonly size: number; readonly name: string },
): string {
  const most = Math.max(1, ...live);
  const tick = niceStep(most, 4);
  const ceiling = Math.ceil(most / tick) * tick;
  const [top, height] = [14, 170];
  const bottom = top + height;
  const across = Math.max(1, live.length);
  const x = (i: number): string => (LEFT + (i / across) * ROOM).toFixed(1);
  const y = (entries: number): string => (bottom - (entries / ceiling) * height).toFixed(1);
  const area = (points: readonly number[]): string => {
    const steps = points.map((entries, i) => `L${x(i)} ${y(entries)}H${x(i + 1)}`).join('');
    return `M${LEFT} ${bottom}${steps}V${bottom}Z`;
  };
  const gridLines = Array.from({ length: ceiling / tick + 1 }, (_, i) => {
    const at = y(i * tick);
    return `<line x1="${LEFT}" y1="${at}" x2="${LEFT + ROOM}" y2="${at}"/><text class="tick" x="${LEFT - 8}" y="${Number(at) + 4}" text-anchor="end">${(i * tick).toLocaleString('en')}</text>`;
  });
  const shown = across * step;
  const lineTick = niceStep(shown, 5);
  const lineTicks = Array.from({ length: Math.floor(shown / lineTick) + 1 }, (_, i) => {
    const at = (LEFT + ((i * lineTick) / shown) * ROOM).toFixed(1);
    return `<line class="axis" x1="${at}" y1="${bottom}" x2="${at}" y2="${bottom + 4}"/><text class="tick" x="${at}" y="${bottom + 18}" text-anchor="middle">${(i * lineTick).toLocaleString('en')}</text>`;
  });
  const hasGiven = given.some((entries) => entries > 0);
  const frame = {
    id,
    title: `${name}: entries in use over the lines of QEMU's log`,
    description: `At most ${most} of ${size} entries, ${live.at(-1) ?? 0} at the end${hasGiven ? `, of which the driver had given up ${given.at(-1) ?? 0}` : ''}, over ${lines} lines. Each point is the most within ${step} lines.`,
  };
  return svg(
    frame,
    bottom + 44,
    `${gridLines.join('')}
<path class="live" d="${area(live)}"/>${hasGiven ? `\n<path class="given" d="${area(given)}"/>` : ''}
<line class="axis" x1="${LEFT}" y1="${bottom}" x2="${LEFT + ROOM}" y2="${bottom}"/>${lineTicks.join('')}
<text class="label" x="${LEFT + ROOM / 2}" y="${bottom + 38}" text-anchor="middle">line of QEMU's log</text>`,
  );
}

/** How many requests took how many hypercalls: a bar for each number, or for a range of them. */
export function requestHistogram(id: string, histogram: ReadonlyMap<number, number>): string {
  const bars = barsOf(histogram);
  const count = bars.length;
  const highest = Math.max(1, ...bars.map(({ requests }) => requests));
  const row = 22;
  const top = 8;
  const bottom = top + count * row;
  const scale = (ROOM - 60) / highest;
  const body = bars.map(({ label, requests }, i) => {
    const y = top + i * row;
    const length = (requests * scale).toFixed(1);
    return `<text x="${LEFT - 8}" y="${y + 13}" text-anchor="end">${label}</text><rect class="k0" x="${LEFT}" y="${y}" width="${length}" height="16"/><text x="${(LEFT + Number(length) + 6).toFixed(1)}" y="${y + 13}">${requests.toLocaleString('en')}</text>`;
  });
  const frame = {
    id,
    title: 'Requests by the number of their hypercalls',
    description: bars.map(({ label, requests }) => `${label} hypercalls: ${requests}`).join('; '),
  };
  return svg(
    frame,
    bottom + 26,
    `${body.join('\n')}
<line class="axis" x1="${LEFT}" y1="${top - 4}" x2="${LEFT}" y2="${bottom}"/>
<text class="label" x="${LEFT - 8}" y="${bottom + 18}" text-anchor="end">hypercalls</text>
<text class="label" x="${LEFT}" y="${bottom + 18}">requests</text>`,
  );
}

// Numbers that no request has are left out.
function barsOf(histogram: ReadonlyMap<number, number>): { label: string; requests: number }[] {
  const numbers = [...histogram.keys()].sort((a, b) => a - b);
  const width = numbers.length <= MAX_BARS ? 1 : Math.ceil(((numbers.at(-1) ?? 0) + 1) / MAX_BARS);
  const bars = new Map<number, number>();
  for (const hypercalls of numbers) {
    const start = hypercalls - (hypercalls % width);
    bars.set(start, (bars.get(start) ?? 0) + (histogram.get(hypercalls) ?? 0));
  }
  return [...bars].map(([start, requests]) => ({
    label: width === 1 ? String(start) : `${start} to ${start + width - 1}`,
    requests,
  }));
}

// The smallest of 1, 2, 5 times a power of ten that needs at most so many steps; whole numbers.
function niceStep(most: number, steps: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, most / steps)));
  return ([1, 2, 5, 10].find((factor) => factor * power * steps >= most) ?? 10) * power;
}
