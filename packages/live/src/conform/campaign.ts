import { createRng, type Rng } from '@pinhole/base';
import type { SpaprMachine } from '@pinhole/hcall';
import { LiveError } from '../errors.js';
import { Coverage, type CoverageRow } from './coverage.js';
import { OpGenerator } from './generator.js';
import { formatOp, type Op, opToJson } from './ops.js';
import { type Difference, type Progress, runOps } from './run.js';
import { MEMORY_SIZE, modelOf, SHAPES, type Shape } from './shapes.js';
import { shrink } from './shrink.js';
import { ModelSide, type Side } from './sides.js';

/** Operations between two restarts of the machine. */
const EPISODE = 20_000;
/** Operations between two looks into the tables. */
const CHECKPOINT = 5_000;
/** Operations that are made up at once. */
const PIECE = 1_000;
/** How many findings are shrunk; a campaign ends with the next one. */
const MAX_FINDINGS = 5;
/** Sequences that shrinking may try, and for how long. */
const SHRINK_TRIES = 600;
const SHRINK_MS = 60_000;
/** Of these many episodes the first is on an old machine. */
const OLD_EVERY = 8;

/** What a campaign found. */
export interface Finding {
  /** `divergence`: the answers differ. Otherwise the reference died or did not answer. */
  readonly kind: 'divergence' | 'exit' | 'hang' | 'guest-reset';
  readonly shape: string;
  readonly seed: number;
  readonly episode: number;
  /** Operations from the restart of the machine up to what shows it; then the shortest found. */
  readonly length: number;
  readonly sequence: readonly string[];
  /** The same for programs: lines of `pinhole hcall`. */
  readonly ops: readonly Record<string, unknown>[];
  /** What the model answers at the end of the sequence. */
  readonly model: string;
  /** What the reference answers, or how it died. */
  readonly reference: string;
}

/** How a campaign stands. */
export interface CampaignResult {
  readonly seed: number;
  /** Hypercalls that both sides have answered and that were compared, those of RTAS among them. */
  readonly hcalls: number;
  readonly episodes: number;
  readonly restarts: number;
  readonly coverage: readonly CoverageRow[];
  readonly findings: readonly Finding[];
}

/** Options of {@link HcallCampaign}. */
export interface CampaignOptions {
  readonly seed: number;
  /** How many hypercalls. */
  readonly count: number;
  /** Names of accidents that are provoked after all. */
  readonly include?: readonly string[];
  /**
   * Starts the reference for a machine: a real QEMU, usually.
   * @returns `undefined` when there is no such machine: it is left out.
   */
  readonly startReference: (shape: Shape) => Side | undefined;
  /** The model's side; for tests of the campaign. Default: the model. */
  readonly createModel?: (machine: SpaprMachine) => ModelSide;
  /** Milliseconds, of any origin: bounds the time that shrinking takes. */
  readonly now: () => number;
  /** Looked at between batches: whether to end with what there is. */
  readonly isOver?: () => boolean;
}

/**
 * Random hypercalls on the model and on a reference side by side, determined by the seed. Does an
 * episode at each `step`: a machine as at the start, `EPISODE` operations, looks into the tables.
 */
export class HcallCampaign {
  readonly #options: CampaignOptions;
  readonly #coverage = new Coverage();
  readonly #findings: Finding[] = [];
  readonly #seeds: Rng;
  readonly #unavailable = new Set<Shape>();
  #hcalls = 0;
  #episodes = 0;
  #restarts = 0;
  #running: { shape: Shape; model: ModelSide; reference: Side } | undefined;
  #isEnded = false;

  constructor(options: CampaignOptions) {
    this.#options = options;
    this.#seeds = createRng(options.seed);
  }

  /** Whether there is nothing more to do. */
  get isDone(): boolean {
    return (
      this.#isEnded || this.#hcalls >= this.#options.count || this.#options.isOver?.() === true
    );
  }

  get result(): CampaignResult {
    return {
      seed: this.#options.seed,
      hcalls: this.#hcalls,
      episodes: this.#episodes,
      restarts: this.#restarts,
      coverage: this.#coverage.rows(),
      findings: this.#findings,
    };
  }

  /** Does the next episode. @throws LiveError when the reference cannot be started. */
  step(): void {
    const episode = this.#episodes;
    this.#episodes += 1;
    const rng = createRng(this.#seeds.nextU32() * 2 ** 20 + (episode % 2 ** 20));
    const sides = this.#restart(this.#shapeOf(episode));
    const generator = new OpGenerator(
      rng,
      sides.model.machine,
      MEMORY_SIZE,
      this.#options.include ?? [],
    );
    const history: Op[] = [];
    while (history.length < EPISODE && !this.isDone) {
      const piece = this.#makeUp(generator, history.length);
      const start = history.length;
      history.push(...piece);
      const progress: Progress = { done: 0, begun: 0 };
      const before = this.#hcalls;
      try {
        const difference = runOps(piece, sides.model, sides.reference, {
          progress,
          onAnswer: (op, model, reference) => {
            this.#hcalls += 1;
            this.#coverage.count(op, model, reference);
          },
        });
        if (difference === undefined) continue;
        const index = start + difference.index;
        this.#isEnded = true;
        this.#keep(this.#explain(history.slice(0, index + 1), difference));
      } catch (error) {
        const kind = deathOf(error);
        if (kind === undefined) throw error;
        // What this piece counted before is in the table already; the rest is lost.
        if (this.#hcalls === before) this.#hcalls += progress.done;
        this.#keep(this.#explain(history.slice(0, start + progress.begun), error as Error));
      }
      return;
    }
  }

  /** Ends the reference. */
  close(): void {
    this.#running?.reference.close();
    this.#running = undefined;
  }

  #makeUp(generator: OpGenerator, done: number): Op[] {
    if (done > 0 && done % CHECKPOINT < PIECE) {
      const looks = [...generator.checkpoint()];
      if (looks.length > 0) return [...looks, ...this.#more(generator)];
    }
    return this.#more(generator);
  }

  #more(generator: OpGenerator): Op[] {
    return Array.from({ length: PIECE }, () => generator.next());
  }

  #shapeOf(episode: number): Shape {
    const old = SHAPES.slice(1).filter((shape) => !this.#unavailable.has(shape));
    const isOld = episode % OLD_EVERY === OLD_EVERY - 1 && old.length > 0;
    const shape = isOld ? old[Math.floor(episode / OLD_EVERY) % old.length] : SHAPES[0];
    return shape as Shape;
  }

  // Both sides as at the start, started anew where there is none or another machine runs.
  #restart(shape: Shape): { shape: Shape; model: ModelSide; reference: Side } {
    if (this.#running?.shape === shape) {
      try {
        this.#running.reference.restart();
        this.#running.model.restart();
        return this.#running;
      } catch (error) {
        // It died when nobody looked.
        if (deathOf(error) === undefined) throw error;
      }
    }
    this.close();
    const reference = this.#options.startReference(shape);
    if (reference === undefined) {
      this.#unavailable.add(shape);
      return this.#restart(SHAPES[0] as Shape);
    }
    this.#restarts += 1;
    const machine = modelOf(shape);
    const model = this.#options.createModel?.(machine) ?? new ModelSide(machine);
    this.#running = { shape, model, reference };
    reference.restart();
    return this.#running;
  }

  #keep(finding: Finding): void {
    this.#findings.push(finding);
    if (this.#findings.length >= MAX_FINDINGS) this.#isEnded = true;
  }

  // Shrinks what ends a history, be it a difference or a death.
  #explain(history: readonly Op[], cause: Difference | Error): Finding {
    const { shape } = this.#running as { shape: Shape };
    const kind = cause instanceof Error ? (deathOf(cause) ?? 'exit') : 'divergence';
    let last = cause;
    const deadline = this.#options.now() + SHRINK_MS;
    const ops = shrink(history, {
      maxTries: SHRINK_TRIES,
      isOver: () => this.#options.now() > deadline || this.#options.isOver?.() === true,
      fails: (candidate) => {
        const outcome = this.#tryAlone(shape, candidate);
        const isSame =
          outcome instanceof Error
            ? deathOf(outcome) === kind
            : outcome?.index === candidate.length - 1 && kind === 'divergence';
        if (isSame && outcome !== undefined) last = outcome;
        return isSame;
      },
    });
    return {
      kind,
      shape: shape.name,
      seed: this.#options.seed,
      episode: this.#episodes - 1,
      length: history.length,
      sequence: ops.map(formatOp),
      ops: ops.map(opToJson),
      model: last instanceof Error ? this.#modelAnswer(shape, ops) : last.model,
      reference: last instanceof Error ? last.message : last.reference,
    };
  }

  #tryAlone(shape: Shape, ops: readonly Op[]): Difference | Error | undefined {
    const { model, reference } = this.#restart(shape);
    try {
      return runOps(ops, model, reference);
    } catch (error) {
      if (deathOf(error) === undefined) throw error;
      return error as Error;
    }
  }

  // What the model answers to the last call of a sequence that the reference did not survive.
  #modelAnswer(shape: Shape, ops: readonly Op[]): string {
    const machine = modelOf(shape);
    const model = this.#options.createModel?.(machine) ?? new ModelSide(machine);
    let answer = 'nothing: the last operation is no call';
    const index = ops.length - 1;
    runOps(ops, model, new Deaf(model), {
      onAnswer: (op, ret) => {
        if (op === ops[index]) answer = `${op.kind === 'rtas' ? 'status' : 'r3'} = ${ret}`;
      },
    });
    return answer;
  }
}

/** A reference that says what the model says. */
class Deaf implements Side {
  readonly memory: Side['memory'];
  readonly #model: Side;
  constructor(model: Side) {
    this.#model = model;
    this.memory = model.memory;
  }
  submit(): void {}
  collect(): ReturnType<Side['collect']> {
    return this.#model.collect();
  }
  restart(): void {}
  reset(): void {}
  close(): void {}
}

function deathOf(error: unknown): 'exit' | 'hang' | 'guest-reset' | undefined {
  if (!(error instanceof LiveError)) return undefined;
  if (error.code === 'E_QEMU_EXITED') return 'exit';
  if (error.code === 'E_QEMU_HANG') return 'hang';
  return error.code === 'E_GUEST_RESET' ? 'guest-reset' : undefined;
}
