import { Mutator } from './mutate.js';
import { STEP, type Weights } from './program.js';
import { Random } from './random.js';

/** What is fuzzed: runs a program, and throws what it finds. */
export interface FuzzTarget {
  /** What the last run took, in units of the target. */
  readonly cost: number;
  run(input: Uint8Array): void;
}

export interface FuzzerOptions {
  readonly target: FuzzTarget;
  /** What the target and the code under test count while they run: emptied before each run. */
  readonly hits: readonly Uint8Array[];
  readonly weights: Weights;
  readonly seed: number;
  /** Programs to begin with. */
  readonly corpus: readonly Uint8Array[];
}

/** A program that showed something, and what. */
export interface Found {
  readonly input: Uint8Array;
  readonly error: Error;
}

/** An input that reached something new. */
interface Entry {
  readonly input: Uint8Array;
  /** What was reached: indices into the hit counts, and how often, in classes. */
  readonly reached: readonly number[];
  readonly cost: number;
}

/** Programs that take more than this are seldom changed. */
const HIGH_COST = 600;

// How often something happens is told apart only roughly. [AFL, technical details, "Coverage measurements"]
const CLASSES: Uint8Array = Uint8Array.from({ length: 256 }, (_, count) => {
  if (count < 4) return count === 0 ? 0 : 1 << (count - 1);
  if (count < 8) return 8;
  if (count < 16) return 16;
  if (count < 32) return 32;
  return count < 128 ? 64 : 128;
});

/** Makes programs, runs them, and keeps those that reach something new. */
export class Fuzzer {
  executions = 0;
  readonly entries: Entry[] = [];
  readonly #target: FuzzTarget;
  readonly #hits: readonly Uint8Array[];
  readonly #words: readonly Uint32Array[];
  // By counter: the classes of counts that were seen.
  readonly #seen: readonly Uint8Array[];
  readonly #random: Random;
  readonly #mutator: Mutator;

  constructor(options: FuzzerOptions) {
    this.#target = options.target;
    this.#hits = options.hits;
    this.#words = options.hits.map((hits) => new Uint32Array(hits.buffer, 0, hits.length >> 2));
    this.#seen = options.hits.map((hits) => new Uint8Array(hits.length));
    this.#random = new Random(options.seed);
    this.#mutator = new Mutator(this.#random, options.weights);
    for (const input of options.corpus) this.entries.push({ input, reached: [], cost: 0 });
    if (options.corpus.length === 0) {
      this.entries.push({ input: new Uint8Array(2 * STEP), reached: [], cost: 0 });
    }
  }

  /** Pairs of a counter and a class of counts that were seen. */
  get coverage(): number {
    let pairs = 0;
    for (const seen of this.#seen) {
      for (const classes of seen) for (let left = classes; left > 0; left &= left - 1) pairs += 1;
    }
    return pairs;
  }

  /** Runs what the fuzzer began with. */
  replay(): Found | undefined {
    const inputs = this.entries.splice(0).map(({ input }) => input);
    for (const input of inputs) {
      const found = this.#run(input, true);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** Runs so many new programs, or fewer if one finds something. */
  fuzz(executions: number): Found | undefined {
    for (let n = 0; n < executions; n += 1) {
      const found = this.#run(this.#mutator.mutate(this.#choose(), this.#choose()), false);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** The fewest programs, more or less, that reach together all that was reached. */
  minimalCorpus(): Uint8Array[] {
    const reached = new Set<number>();
    const kept: Uint8Array[] = [];
    const entries = [...this.entries].sort((a, b) => a.input.length - b.input.length);
    // Short programs first, then what they left out.
    for (const entry of entries) {
      if (entry.reached.every((pair) => reached.has(pair))) continue;
      for (const pair of entry.reached) reached.add(pair);
      kept.push(entry.input);
    }
    return kept;
  }

  /** A shorter program, with more zeroes, that finds the same kind of thing. */
  minimise(found: Found): Found {
    let best = found;
    const attempt = (input: Uint8Array): boolean => {
      const result = this.#attempt(input);
      if (result === undefined || kindOf(result.error) !== kindOf(found.error)) return false;
      best = result;
      return true;
    };
    for (let isShorter = true; isShorter; ) {
      isShorter = false;
      for (let count = 8; count > 0; count >>= 1) {
        for (let at = STEP; at < best.input.length; ) {
          const { input } = best;
          const rest = input.subarray(Math.min(at + STEP * count, input.length));
          const shorter = new Uint8Array(at + rest.length);
          shorter.set(input.subarray(0, at));
          shorter.set(rest, at);
          if (attempt(shorter)) isShorter = true;
          else at += STEP;
        }
      }
    }
    for (let at = 0; at < best.input.length; at += 1) {
      if (best.input[at] === 0) continue;
      const simpler = best.input.slice();
      simpler[at] = 0;
      attempt(simpler);
    }
    return best;
  }

  #choose(): Uint8Array {
    const { entries } = this;
    const random = this.#random;
    // Half of the time one of the newest.
    const newest = Math.min(entries.length, 64);
    for (;;) {
      const isAny = random.below(2) === 0;
      const index = isAny
        ? random.below(entries.length)
        : entries.length - 1 - random.below(newest);
      const { input, cost } = entries[index]!;
      if (cost < HIGH_COST || random.below(128) === 0) return input;
    }
  }

  #attempt(input: Uint8Array): Found | undefined {
    try {
      this.#target.run(input);
      return undefined;
    } catch (error) {
      return { input: input.slice(), error: error as Error };
    }
  }

  #run(input: Uint8Array, isFirst: boolean): Found | undefined {
    for (const hits of this.#hits) hits.fill(0);
    this.executions += 1;
    const found = this.#attempt(input);
    if (found !== undefined) return found;
    if (this.#note() || isFirst) this.#keep(input.slice());
    return undefined;
  }

  // Whether something was reached that never was.
  #note(): boolean {
    let isNew = false;
    for (let map = 0; map < this.#hits.length; map += 1) {
      const hits = this.#hits[map]!;
      const words = this.#words[map]!;
      const seen = this.#seen[map]!;
      for (let word = 0; word < words.length; word += 1) {
        if (words[word] === 0) continue;
        for (let at = 4 * word; at < 4 * word + 4; at += 1) {
          const bit = CLASSES[hits[at]!]!;
          if ((seen[at]! | bit) === seen[at]) continue;
          seen[at]! |= bit;
          isNew = true;
        }
      }
    }
    return isNew;
  }

  #keep(input: Uint8Array): void {
    const reached: number[] = [];
    for (let map = 0; map < this.#hits.length; map += 1) {
      this.#hits[map]!.forEach((count, at) => {
        if (count > 0) reached.push((map << 24) | (at << 8) | CLASSES[count]!);
      });
    }
    this.entries.push({ input, reached, cost: this.#target.cost });
  }
}

/** What was found, without the numbers. */
export function kindOf(error: Error): string {
  return `${error.name}: ${error.message.replace(/0x[0-9a-f]+|\d+/g, 'N')}`;
}
