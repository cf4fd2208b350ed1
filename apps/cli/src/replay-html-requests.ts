import { barChart } from './report/chart-bars.js';
import type { Chart } from './report/svg.js';

const MAX_BARS = 24;

/** How many requests took how many hypercalls: a bar for each number, or for a range of them. */
export function requestHistogram(id: string, histogram: ReadonlyMap<number, number>): Chart {
  return barChart({
    id,
    title: 'Requests by the number of their hypercalls',
    axis: 'requests',
    rowAxis: 'hypercalls',
    parts: ['requests'],
    rows: rowsOf(histogram),
  });
}

// Numbers that no request has are left out.
function rowsOf(histogram: ReadonlyMap<number, number>): { label: string; values: number[] }[] {
  const numbers = [...histogram.keys()].sort((a, b) => a - b);
  const width = numbers.length <= MAX_BARS ? 1 : Math.ceil(((numbers.at(-1) ?? 0) + 1) / MAX_BARS);
  const bars = new Map<number, number>();
  for (const hypercalls of numbers) {
    const start = hypercalls - (hypercalls % width);
    bars.set(start, (bars.get(start) ?? 0) + (histogram.get(hypercalls) ?? 0));
  }
  return [...bars].map(([start, requests]) => ({
    label: width === 1 ? String(start) : `${start} to ${start + width - 1}`,
    values: [requests],
  }));
}
