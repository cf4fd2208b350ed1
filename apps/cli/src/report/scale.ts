/** Axes: from figures to pixels, and where the ticks are. */

export interface ScaleOptions {
  /** The figures that have to fit; others than finite ones are left out. */
  readonly values: readonly number[];
  /** Pixels of the axis' two ends. */
  readonly from: number;
  readonly to: number;
  /** About how many ticks. */
  readonly ticks: number;
  /** Powers of ten are equally far apart. Figures of 0 and below lie at the start. */
  readonly isLog?: boolean;
  /** The axis goes from the least figure to the greatest, not from 0 to a tick. */
  readonly isTight?: boolean;
}

export interface Scale {
  readonly at: (value: number) => number;
  readonly ticks: readonly number[];
}

/** An axis for the figures; without any it goes from 0 to 1. */
export function scaleOf(options: ScaleOptions): Scale {
  const values = options.values.filter(Number.isFinite);
  return options.isLog === true ? logScale(values, options) : linearScale(values, options);
}

function linearScale(values: readonly number[], options: ScaleOptions): Scale {
  const { from, to, ticks: count, isTight } = options;
  const [least, most] = extremes(isTight ? values : [0, ...values]);
  const step = tickStep(most - least, count);
  // Steps are binary fractions: a whole number of them may come out a little beside it.
  const up = (value: number): number => Math.ceil(value / step - 1e-9);
  const down = (value: number): number => Math.floor(value / step + 1e-9);
  const [low, high] =
    isTight && most > least
      ? [least, most]
      : [down(least) * step, Math.max(up(most), down(least) + 1) * step];
  const at = (value: number): number => from + ((value - low) / (high - low)) * (to - from);
  const first = up(low);
  const ticks = Array.from({ length: down(high) - first + 1 }, (_, i) => exact((first + i) * step));
  return { at, ticks };
}

function logScale(values: readonly number[], options: ScaleOptions): Scale {
  const { from, to, ticks: count, isTight } = options;
  const [least, most] = extremes(values.filter((value) => value > 0).map(Math.log10));
  const [low, high] =
    isTight && most > least
      ? [least, most]
      : [Math.floor(least), Math.max(Math.floor(least) + 1, Math.ceil(most))];
  const at = (value: number): number => {
    const power = value > 0 ? Math.log10(value) : low;
    return from + ((Math.max(power, low) - low) / (high - low)) * (to - from);
  };
  const first = Math.ceil(low);
  const every = Math.max(1, Math.ceil((high - low) / count));
  const ticks = Array.from({ length: Math.floor((high - first) / every) + 1 }, (_, i) =>
    Number(`1e${first + i * every}`),
  );
  return { at, ticks };
}

function extremes(values: readonly number[]): [least: number, most: number] {
  if (values.length === 0) return [0, 0];
  return values.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [
    Infinity,
    -Infinity,
  ] as [number, number]);
}

// The smallest of 1, 2, 5 times a power of ten that needs at most so many steps.
function tickStep(range: number, steps: number): number {
  if (!(range > 0) || !Number.isFinite(range)) return 1;
  const power = 10 ** Math.floor(Math.log10(range / steps));
  return ([1, 2, 5, 10].find((factor) => factor * power * steps >= range) ?? 10) * power;
}

// Without the tail of binary fractions.
function exact(value: number): number {
  return Number(value.toPrecision(12));
}

/** A figure in a few digits: `1,234`, `12.3`, `0.0123`. */
export function short(value: number): string {
  if (Number.isInteger(value)) return value.toLocaleString('en');
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString('en');
  return String(Number(value.toPrecision(3)));
}
