/** Charts: where things are drawn, against the figures that they stand for. */
import { describe, expect, test } from 'vitest';
import { barChart } from '../../src/report/chart-bars.js';
import { lineChart } from '../../src/report/chart-lines.js';
import { rangeChart } from '../../src/report/chart-ranges.js';
import { scaleOf } from '../../src/report/scale.js';
import { type Chart, figure, svgFile, WIDTH } from '../../src/report/svg.js';
import { HOSTILE } from '../compare-samples.js';
import { faults, references } from '../html-faults.js';

const frame = { id: 'c', title: 'Title' };

const attribute = (element: string, name: string): number =>
  Number(new RegExp(` ${name}="([^"]*)"`).exec(element)?.[1]);

const all = ({ svg }: Chart, pattern: RegExp): string[] => svg.markup.match(pattern) ?? [];

// Places of an axis: where each tick is, and what it says.
const ticks = (chart: Chart, anchor: string): { at: number; text: string }[] =>
  all(chart, /<text class="tick"[^>]*>[^<]*</g)
    .filter((text) => text.includes(`text-anchor="${anchor}"`))
    .map((text) => ({
      at: attribute(text, anchor === 'middle' ? 'x' : 'y'),
      text: />([^<]*)</.exec(text)?.[1] ?? '',
    }));

describe('bars', () => {
  const chart = barChart({
    ...frame,
    axis: 'things',
    parts: ['a', 'b'],
    rows: [
      { label: 'one', values: [10, 30] },
      { label: 'two', values: [0, 20] },
      { label: 'none', values: [0, 0] },
    ],
  });
  const bars = all(chart, /<rect class="bar k\d" [^>]*height="18">/g).map((bar) => ({
    part: Number(/k(\d)/.exec(bar)?.[1]),
    x: attribute(bar, 'x'),
    width: attribute(bar, 'width'),
  }));

  test('are as long as their figures, each where the one before ends', () => {
    expect(bars.map(({ part }) => part)).toEqual([0, 1, 1]);
    const unit = (bars[0]?.width ?? 0) / 10;
    expect(bars[1]?.width).toBeCloseTo(30 * unit, 0);
    expect(bars[2]?.width).toBeCloseTo(20 * unit, 0);
    expect(bars[1]?.x).toBeCloseTo((bars[0]?.x ?? 0) + (bars[0]?.width ?? 0), 0);
    expect(bars[2]?.x).toBe(bars[0]?.x);
  });

  test('end at the ticks of their sums', () => {
    const forty = ticks(chart, 'middle').find(({ text }) => text === '40');
    expect((bars[1]?.x ?? 0) + (bars[1]?.width ?? 0)).toBeCloseTo(forty?.at ?? 0, 0);
  });

  test('have their sums beside them, and said', () => {
    expect(chart.svg.markup).toMatch(/<desc[^>]*>Bars, things: one: 40, two: 20, none: 0\.</);
  });

  test('of figures that are none count as 0', () => {
    const { svg } = barChart({
      ...frame,
      axis: 'x',
      parts: ['a'],
      rows: [{ label: 'r', values: [Number.NaN, -1, Number.POSITIVE_INFINITY] }],
    });
    expect(svg.markup).not.toMatch(/NaN|Infinity|-\d/);
  });
});

describe('ranges', () => {
  const ranges = (isLog: boolean): Chart =>
    rangeChart({
      ...frame,
      axis: 'µs',
      parts: ['a', 'b'],
      isLog,
      groups: [
        { label: 'one', values: [{ low: 10, mid: 20, high: 40 }, null] },
        {
          label: 'two',
          values: [
            { low: 0, mid: 0, high: 0 },
            { low: 100, mid: 100, high: 100 },
          ],
        },
      ],
    });
  const whisker = (chart: Chart): { low: number; high: number } => {
    const [, low = '', high = ''] =
      /class="whisker" d="M([\d.]+) [^"]*H([\d.]+)/.exec(chart.svg.markup) ?? [];
    return { low: Number(low), high: Number(high) };
  };
  const at = (chart: Chart, text: string): number =>
    ticks(chart, 'middle').find((tick) => tick.text === text)?.at ?? Number.NaN;

  test('bars go to the middle, whiskers from low to high', () => {
    const chart = ranges(false);
    const [first = '', , second = ''] = all(chart, /<rect class="bar k\d" [^>]*height="18"\/>/g);
    const start = attribute(first, 'x');
    const unit = attribute(second, 'width') / 100;
    expect(attribute(first, 'width')).toBeCloseTo(20 * unit, 0);
    const { low, high } = whisker(chart);
    expect(low - start).toBeCloseTo(10 * unit, 0);
    expect(high - start).toBeCloseTo(40 * unit, 0);
    expect(all(chart, /class="whisker"/g)).toHaveLength(1);
  });

  test('on an axis of powers of ten twice as much is always as far', () => {
    const chart = ranges(true);
    const dots = all(chart, /<circle [^>]*>/g).map((dot) => attribute(dot, 'cx'));
    const { low, high } = whisker(chart);
    expect((dots[0] ?? 0) - low).toBeCloseTo(high - (dots[0] ?? 0), 0);
    expect(low).toBeCloseTo(at(chart, '10'), 0);
    expect(dots[2]).toBeCloseTo(at(chart, '100'), 0);
    // 0 has no place on it.
    expect(dots[1]).toBe(Math.min(...ticks(chart, 'middle').map((tick) => tick.at)));
    expect(all(chart, /<rect class="bar k\d" [^>]*height="18"/g)).toEqual([]);
  });

  test('what is not known is said', () => {
    expect(ranges(false).svg.markup).toContain('>not known</text>');
    expect(ranges(false).svg.markup).toContain('one: a 20 (10 to 40), b not known;');
  });
});

describe('lines', () => {
  const points = [1, 2, 4, 8].map((x) => ({ x, y: x * 10, low: x * 5, high: x * 20 }));
  const line = (options: Partial<Parameters<typeof lineChart>[0]> = {}): Chart =>
    lineChart({
      ...frame,
      x: { label: 'along' },
      y: { label: 'up' },
      series: [{ label: 's', points }],
      ...options,
    });
  const marks = (chart: Chart): number[][] =>
    all(chart, /<circle [^>]*>/g).map((dot) => [attribute(dot, 'cx'), attribute(dot, 'cy')]);

  test('points are where the axes say', () => {
    const chart = line();
    const across = new Map(ticks(chart, 'middle').map(({ at, text }) => [text, at]));
    const [bottom = 0, top = 0] = ['0', '150'].map(
      (text) => ticks(chart, 'end').find((tick) => tick.text === text)?.at ?? Number.NaN,
    );
    for (const [index, [cx, cy]] of marks(chart).entries()) {
      const { x, y } = points[index] ?? { x: 0, y: 0 };
      expect(cx).toBeCloseTo(across.get(String(x)) ?? Number.NaN, 0);
      expect(bottom - 4 - (cy ?? 0)).toBeCloseTo((y / 150) * (bottom - top), 0);
    }
  });

  test('powers are equally far apart on an axis of powers', () => {
    const [a = 0, b = 0, c = 0, d = 0] = marks(
      line({ x: { label: 'along', isLog: true }, y: { label: 'up', isLog: true } }),
    ).map(([cx]) => cx ?? 0);
    expect(b - a).toBeCloseTo(c - b, 0);
    expect(d - c).toBeCloseTo(c - b, 0);
  });

  test('a single place is on the axis, too', () => {
    const chart = line({ series: [{ label: 's', points: [{ x: 7, y: 3 }] }] });
    expect(marks(chart)[0]?.[0]).toBe(ticks(chart, 'middle')[0]?.at);
    expect(chart.svg.markup).not.toMatch(/NaN|Infinity/);
  });

  test('the band goes along the high ends and back along the low ones', () => {
    const band = /class="band k0" d="M([^"]*)Z"/.exec(line().svg.markup)?.[1] ?? '';
    const corners = band.split('L').map((corner) => corner.split(' ').map(Number));
    expect(corners).toHaveLength(8);
    for (let at = 0; at < 4; at += 1) {
      expect(corners[at]?.[0]).toBe(corners[7 - at]?.[0]);
      expect(corners[at]?.[1]).toBeLessThan(corners[7 - at]?.[1] ?? 0);
    }
  });

  test('what is not known is a gap', () => {
    const gap = points.map((point, at) => (at === 1 ? { x: point.x, y: null } : point));
    const chart = line({ series: [{ label: 's', points: gap }] });
    expect(all(chart, /<path class="trace k0"/g)).toHaveLength(2);
    expect(marks(chart)).toHaveLength(3);
  });

  test('steps hold until the next point, areas are closed', () => {
    expect(line({ shape: 'steps' }).svg.markup).toMatch(
      /class="trace k0"[^>]* d="M[\d. ]+(H[\d.]+V[\d.]+){3}"/,
    );
    expect(line({ shape: 'area' }).svg.markup).toMatch(
      /class="area k0" d="M[\d. ]+(H[\d.]+V[\d.]+)+V[\d.]+Z"/,
    );
  });

  test('ticks do not run into one another', () => {
    const many = Array.from({ length: 12 }, (_, at) => ({ x: 2 ** at, y: 1 }));
    const places = ticks(line({ series: [{ label: 's', points: many }] }), 'middle');
    for (const [index, { at, text }] of places.slice(1).entries()) {
      const before = places[index];
      expect(at - (before?.at ?? 0)).toBeGreaterThan(
        3.5 * (text.length + (before?.text.length ?? 0)),
      );
    }
    expect(places.length).toBeGreaterThan(2);
  });
});

describe('axes', () => {
  test.each([
    [[0], [0, 1]],
    [[], [0, 1]],
    [[7], [0, 2, 4, 6, 8]],
    [[0.003], [0, 0.0005, 0.001, 0.0015, 0.002, 0.0025, 0.003]],
    [[0.3], [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]],
    [[1e15], [0, 2e14, 4e14, 6e14, 8e14, 1e15]],
    [
      [-5, 5],
      [-6, -4, -2, 0, 2, 4, 6],
    ],
  ])('%j', (values, expected) => {
    expect(scaleOf({ values, from: 0, to: 100, ticks: 6 }).ticks).toEqual(expected);
  });

  test.each([
    [
      [0, 3, 2000],
      [1, 10, 100, 1000, 10_000],
    ],
    [[0], [1, 10]],
    [
      [1e-6, 1e6],
      [1e-6, 1e-3, 1, 1e3, 1e6],
    ],
  ])('of powers of ten: %j', (values, expected) => {
    expect(scaleOf({ values, from: 0, to: 100, ticks: 5, isLog: true }).ticks).toEqual(expected);
  });
});

const CHARTS: Readonly<Record<string, (text: string, count: number) => Chart>> = {
  bars: (text, count) =>
    barChart({
      ...frame,
      title: text,
      axis: text,
      rowAxis: text,
      parts: Array.from({ length: 8 }, () => text),
      rows: Array.from({ length: count }, () => ({ label: text, values: Array(8).fill(1) })),
      format: () => text.slice(0, 9),
    }),
  ranges: (text, count) =>
    rangeChart({
      ...frame,
      title: text,
      axis: text,
      parts: Array.from({ length: 8 }, () => text),
      groups: Array.from({ length: count }, () => ({
        label: text,
        values: Array(8).fill({ low: 1, mid: 2, high: 3 }),
      })),
    }),
  lines: (text, count) =>
    lineChart({
      ...frame,
      title: text,
      x: { label: text },
      y: { label: text },
      series: Array.from({ length: count * 8 }, () => ({ label: text, points: [{ x: 1, y: 1 }] })),
    }),
};

describe.each(Object.entries(CHARTS))('%s', (_, make) => {
  test('are named, described, and stay within their frame', () => {
    const chart = make('a name that is longer than there is room for it', 3);
    expect(chart.svg.markup).toContain('role="img"');
    expect(chart.svg.markup).toContain('aria-labelledby="c-title c-desc"');
    expect(chart.svg.markup).toMatch(/<desc id="c-desc">[^<]+</);
    const height = attribute(chart.svg.markup, 'height');
    for (const element of all(chart, /<(rect|text|circle|line) [^>]*>/g)) {
      for (const name of ['x', 'x1', 'x2', 'cx']) {
        if (!element.includes(` ${name}=`)) continue;
        expect(attribute(element, name)).toBeGreaterThanOrEqual(0);
        expect(attribute(element, name)).toBeLessThanOrEqual(WIDTH);
      }
      for (const name of ['y', 'y1', 'y2', 'cy']) {
        if (element.includes(` ${name}=`)) expect(attribute(element, name)).toBeLessThan(height);
      }
    }
  });

  test('escape what they show, in pages and in files', () => {
    const chart = make(HOSTILE, 2);
    expect(faults(figure(chart, HOSTILE).markup)).toEqual([]);
    const file = svgFile(chart).replace(' xmlns="http://www.w3.org/2000/svg"', '');
    expect(faults(file)).toEqual([]);
    expect(references(file)).toEqual([]);
    expect(file).not.toContain('\u001b');
  });

  test('without data say so', () => {
    const { svg } = make('x', 0);
    expect(svg.markup).toContain('>No data to show.</text>');
    expect(svg.markup).not.toMatch(/NaN|Infinity/);
  });

  test('as files have both themes, and no colour of the page', () => {
    const file = svgFile(make('x', 1));
    expect(file).toMatch(/^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg" viewBox="0 0 760 \d+"/);
    expect(file).toContain('@media (prefers-color-scheme: dark)');
    expect(file).not.toContain('var(');
  });
});
