import { INTERESTING, MAX_STEPS, STEP, type Weights } from './program.js';
import type { Random } from './random.js';

const MOST_BYTES = STEP * (MAX_STEPS + 1);

/** Makes programs from programs, step by step and field by field. */
export class Mutator {
  readonly #random: Random;
  readonly #operations: readonly number[];
  // The program in the making.
  readonly #bytes = new Uint8Array(MOST_BYTES + STEP);
  #length = 0;

  constructor(random: Random, weights: Weights) {
    this.#random = random;
    this.#operations = weights.flatMap(([operation, weight]) =>
      new Array<number>(weight).fill(operation),
    );
  }

  /** A program like `parent`; parts may come from `other`. Good until the next call. */
  mutate(parent: Uint8Array, other: Uint8Array): Uint8Array {
    const random = this.#random;
    this.#length = Math.min(parent.length, MOST_BYTES);
    this.#bytes.set(parent.subarray(0, this.#length));
    let times = 1 + random.below(4);
    if (random.below(8) === 0) times += random.below(12);
    for (; times > 0; times -= 1) this.#change(other);
    return this.#bytes.subarray(0, this.#length);
  }

  #change(other: Uint8Array): void {
    const random = this.#random;
    switch (random.below(16)) {
      case 0:
        this.#bytes[random.below(STEP)] = this.#value();
        break;
      case 1:
        this.#bytes[random.below(4)]! ^= 1 << random.below(8);
        break;
      case 2:
      case 3:
      case 4:
        this.#insert(this.#place(true), 1);
        break;
      case 5:
        this.#remove(this.#place(false), 1);
        break;
      case 6:
        this.#remove(this.#place(false), 1 + random.below(6));
        break;
      case 7:
        this.#repeat(1 + random.below(4));
        break;
      case 8:
        this.#splice(other);
        break;
      case 9:
        this.#tail(other);
        break;
      case 10:
        this.#swap();
        break;
      case 11:
        this.#bytes[this.#field()]! += random.below(2) === 0 ? 1 : 255;
        break;
      case 12:
        this.#bytes[this.#field()]! ^= 1 << random.below(8);
        break;
      default:
        this.#bytes[this.#field()] = this.#value();
    }
  }

  get #steps(): number {
    return Math.floor(this.#length / STEP) - 1;
  }

  #value(): number {
    const random = this.#random;
    if (random.below(4) === 0) return random.below(256);
    return INTERESTING[random.below(INTERESTING.length)]!;
  }

  // Where a step begins; with `isGap` also the end.
  #place(isGap: boolean): number {
    const steps = this.#steps + (isGap ? 1 : 0);
    return STEP * (1 + this.#random.below(Math.max(steps, 1)));
  }

  #field(): number {
    return this.#place(false) + 1 + this.#random.below(STEP - 1);
  }

  // Makes room for steps; the first of them is a new one.
  #insert(at: number, count: number): void {
    const added = Math.min(STEP * count, MOST_BYTES - this.#length);
    if (added <= 0) return;
    const bytes = this.#bytes;
    bytes.copyWithin(at + added, at, this.#length);
    this.#length += added;
    bytes[at] = this.#operations[this.#random.below(this.#operations.length)]!;
    for (let i = 1; i < STEP; i += 1) {
      bytes[at + i] = this.#random.below(3) === 0 ? 0 : this.#value();
    }
  }

  #remove(at: number, count: number): void {
    const removed = Math.min(STEP * count, this.#length - at);
    if (removed <= 0 || this.#steps <= 1) return;
    this.#bytes.copyWithin(at, at + removed, this.#length);
    this.#length -= removed;
  }

  // A few steps once more, right after themselves or elsewhere.
  #repeat(count: number): void {
    const from = this.#place(false);
    const length = Math.min(STEP * count, this.#length - from, MOST_BYTES - this.#length);
    if (length <= 0) return;
    const copy = this.#bytes.slice(from, from + length);
    this.#put(this.#random.below(2) === 0 ? from + length : this.#place(true), copy);
  }

  #splice(other: Uint8Array): void {
    const steps = Math.floor(other.length / STEP) - 1;
    if (steps < 1) return;
    const from = STEP * (1 + this.#random.below(steps));
    const length = STEP * (1 + this.#random.below(8));
    this.#put(this.#place(true), other.subarray(from, from + length));
  }

  // The end of another program.
  #tail(other: Uint8Array): void {
    const steps = Math.floor(other.length / STEP) - 1;
    if (steps < 1) return;
    const from = STEP * (1 + this.#random.below(steps));
    this.#length = this.#place(true);
    this.#put(this.#length, other.subarray(from));
  }

  #put(at: number, part: Uint8Array): void {
    const room = MOST_BYTES - this.#length;
    const length = Math.min(part.length - (part.length % STEP), room - (room % STEP));
    if (length <= 0) return;
    this.#bytes.copyWithin(at + length, at, this.#length);
    this.#bytes.set(part.subarray(0, length), at);
    this.#length += length;
  }

  #swap(): void {
    const one = this.#place(false);
    const two = this.#place(false);
    const copy = this.#bytes.slice(one, one + STEP);
    this.#bytes.copyWithin(one, two, two + STEP);
    this.#bytes.set(copy, two);
  }
}
