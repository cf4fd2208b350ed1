import type { Op } from './ops.js';

/** Options of {@link shrink}. */
export interface ShrinkOptions {
  /** Whether it is the last operation that shows it. Otherwise any one can be. */
  readonly isLastNeeded: boolean;
  /** Whether a sequence still shows what the first one showed. */
  readonly fails: (ops: readonly Op[]) => boolean;
  /** How many sequences may be tried. */
  readonly maxTries: number;
  /** Looked at between tries: whether to stop with what there is. */
  readonly isOver: () => boolean;
}

/**
 * Makes a failing sequence small: leaves out what it can, halves first, then makes the values of
 * what remains simple. Yields between tries. [Zeller, Hildebrandt, Simplifying and Isolating
 * Failure-Inducing Input]
 */
export function* shrink(start: readonly Op[], options: ShrinkOptions): Generator<void, Op[]> {
  let ops = [...start];
  let tries = 0;
  function* works(candidate: readonly Op[]): Generator<void, boolean> {
    if (tries >= options.maxTries || options.isOver()) return false;
    tries += 1;
    yield;
    return options.fails(candidate);
  }
  if (!options.isLastNeeded) {
    // A sequence that fails fails with more behind it, too: the shortest is found by halving.
    let [from, to] = [1, ops.length];
    while (from < to) {
      const middle = Math.floor((from + to) / 2);
      if (yield* works(ops.slice(0, middle))) to = middle;
      else from = middle + 1;
    }
    ops = ops.slice(0, to);
  }
  for (const guess of guesses(ops)) {
    if (guess.length < ops.length && (yield* works(guess))) ops = guess;
  }
  // The last operation shows it; what is before it may be needless.
  for (
    let size = Math.ceil(ops.length / 2);
    size >= 1;
    size = size === 1 ? 0 : Math.ceil(size / 2)
  ) {
    for (let end = ops.length - 1; end > 0; ) {
      const from = Math.max(0, end - size);
      const without = [...ops.slice(0, from), ...ops.slice(end)];
      if (yield* works(without)) ops = without;
      end = from;
    }
  }
  for (let i = 0; i < ops.length; i += 1) {
    for (const simplify of waysToSimplify(ops[i] as Op)) {
      for (const simpler of simplify(ops[i] as Op)) {
        const candidate = ops.with(i, simpler);
        if (!(yield* works(candidate))) continue;
        ops = candidate;
        break;
      }
    }
  }
  return ops;
}

// What is often enough: the last operation alone; with the calls that open and close windows; with
// those for the same window, too.
function* guesses(ops: readonly Op[]): Generator<Op[]> {
  const last = ops.at(-1) as Op;
  const before = ops.slice(0, -1);
  const liobn = last.kind === 'hcall' ? last.args[0] : undefined;
  yield [last];
  yield [...before.filter(({ kind }) => kind === 'rtas' || kind === 'reset').slice(-50), last];
  yield [...before.filter(({ kind }) => kind === 'rtas' || kind === 'reset'), last];
  const isNear = (op: Op): boolean => op.kind !== 'hcall' || op.args[0] === liobn;
  yield [...before.slice(-1000).filter(isNear), last];
  yield [...before.filter(isNear), last];
}

type Simplify = (op: Op) => Op[];

// One thing of an operation each; of its simpler forms the simplest comes first.
function waysToSimplify(op: Op): Simplify[] {
  if (op.kind === 'hcall') return op.args.slice(1).map((_, i) => simplifyArgument(i + 1));
  if (op.kind === 'rtas') return op.args.length > 1 ? [withoutConfigAddress] : [];
  return op.kind === 'write' ? [shorten] : [];
}

const simplifyArgument =
  (index: number): Simplify =>
  (op) => {
    if (op.kind !== 'hcall') return [];
    const value = op.args[index] ?? 0n;
    return [0n, 1n, value & 0xfffn, value & ~0xfffn, value & 0xffff_ffffn]
      .filter((other) => other < value)
      .map((other) => ({ ...op, args: op.args.with(index, other) }));
  };

const withoutConfigAddress: Simplify = (op) =>
  op.kind === 'rtas' && op.args[0] !== 0 ? [{ ...op, args: op.args.with(0, 0) }] : [];

const shorten: Simplify = (op) =>
  op.kind === 'write'
    ? [8, 64, 512]
        .filter((length) => length < op.bytes.length)
        .map((length) => ({ ...op, bytes: op.bytes.slice(0, length) }))
    : [];
