import { MachineError } from '../errors.js';
import type { SweepAxis } from './values.js';

/** One machine of a sweep. */
export interface SweepPoint {
  /** From 0, in the order of the whole sweep: the last axis changes fastest. */
  readonly index: number;
  /** One value of each axis, in their order. */
  readonly values: readonly string[];
  /** The same as `path=value`. */
  readonly set: readonly string[];
}

/** A part of a sweep: points `index - 1`, `index - 1 + of`, ... */
export interface Shard {
  /** From 1. */
  readonly index: number;
  readonly of: number;
}

/** A sweep has at most this many points. */
export const MAX_POINTS = 10_000;

/** And at most this many shards. */
export const MAX_SHARDS = 99_999;

/** How many points the axes have together. @throws MachineError `E_SWEEP` when too many, or none. */
export function countPoints(axes: readonly SweepAxis[]): number {
  if (axes.length === 0) {
    throw problem('expected a --set with several values, such as machine.memory=2GiB..64GiB');
  }
  const paths = new Set<string>();
  for (const { path } of axes) {
    if (paths.has(path)) throw problem(`expected each path once, found ${path} twice`);
    paths.add(path);
  }
  const count = axes.reduce((product, { values }) => product * values.length, 1);
  if (count > MAX_POINTS) {
    const sizes = axes.map(({ values }) => values.length).join(' x ');
    throw problem(`expected at most ${MAX_POINTS} points, found ${sizes} = ${count}`);
  }
  return count;
}

/** The points, or those of one shard. @throws MachineError `E_SWEEP` as {@link countPoints} */
export function planSweep(axes: readonly SweepAxis[], shard?: Shard): SweepPoint[] {
  const count = countPoints(axes);
  const { index: first = 1, of = 1 } = shard ?? {};
  const points: SweepPoint[] = [];
  for (let index = first - 1; index < count; index += of) points.push(pointAt(axes, index));
  return points;
}

/** The point at an index below {@link countPoints}. */
export function pointAt(axes: readonly SweepAxis[], index: number): SweepPoint {
  let rest = index;
  const values = [...axes].reverse().map(({ values: all }) => {
    const value = all[rest % all.length] as string;
    rest = Math.floor(rest / all.length);
    return value;
  });
  values.reverse();
  return { index, values, set: axes.map(({ path }, at) => `${path}=${values[at]}`) };
}

/** Reads `2/5`. @throws MachineError `E_SWEEP` */
export function parseShard(text: string): Shard {
  const match = /^(\d{1,5})\/(\d{1,5})$/.exec(text);
  const [index, of] = [Number(match?.[1]), Number(match?.[2])];
  if (match !== null && index >= 1 && index <= of) return { index, of };
  throw new MachineError('E_SWEEP', [
    { path: '--shard', message: `expected i/n with i from 1 to n, such as 2/5, found "${text}"` },
  ]);
}

function problem(message: string): MachineError {
  return new MachineError('E_SWEEP', [{ path: '--set', message }]);
}
