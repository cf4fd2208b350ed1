import { createRng, invariant, type Rng } from '@pinhole/base';
import type { SpaprMachine } from '@pinhole/hcall';
import { Coverage, type CoverageRow } from './coverage.js';
import { deathOf, explain, type Finding } from './finding.js';
import { OpGenerator } from './generator.js';
import type { Op } from './ops.js';
import { type Progress, runOps } from './run.js';
import { modelOf, SHAPES, type Shape, settingsOf } from './shapes.js';
import { ModelSide, type Side } from './sides.js';

/** Operations between two restarts of the machine, which take a tenth of a second. */
const EPISODE = 200_000;
/** The same at the beginning, so that a short campaign sees every machine, too. */
const FIRST_EPISODES = 50_000;
/** The same on an old machine. */
const OLD_EPISODE = 30_000;
/** Of so many episodes, and then which ones are on old machines. */
const ROUND = 10;
const OLD_IN_ROUND = [1, 3];
/** Operations between two looks into the tables. */
const CHECKPOINT = 5_000;
/** Operations that are made up at once. */
const PIECE = 1_000;
/** A campaign ends with so many findings. */
const MAX_FINDINGS = 3;

/** How a campaign stands. */
export interface CampaignResult {
  readonly seed: number;
  /** Hypercalls that both sides have answered and that were compared, those of RTAS among them. */
  readonly hcalls: number;
  /** Machines as at the start. */
  readonly episodes: number;
  /** Machines that the reference was started as, or reset to. */
  readonly shapes: readonly string[];
  readonly coverage: readonly CoverageRow[];
  /** A divergence ends a campaign, and so does the third finding. */
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
}

/** The two that run. */
export interface Sides {
  readonly shape: Shape;
  readonly model: ModelSide;
  readonly reference: Side;
}

/**
 * Random hypercalls on the model and on a reference side by side, determined by the seed. A
 * campaign goes in episodes: a machine as at the start, operations, looks into the tables. The
 * first divergence is shrunk and ends it; a reference that dies is a finding, too, and the campaign
 * goes on with a fresh one.
 */
export class HcallCampaign {
  readonly #options: CampaignOptions;
  readonly #coverage = new Coverage();
  readonly #findings: Finding[] = [];
  readonly #seeds: Rng;
  readonly #unavailable = new Set<Shape>();
  readonly #shapes = new Set<string>();
  #hcalls = 0;
  #episodes = 0;
  #running: Sides | undefined;
  #isEnded = false;

  constructor(options: CampaignOptions) {
    this.#options = options;
    this.#seeds = createRng(options.seed);
  }

  get result(): CampaignResult {
    return {
      seed: this.#options.seed,
      hcalls: this.#hcalls,
      episodes: this.#episodes,
      shapes: [...this.#shapes],
      coverage: this.#coverage.rows(),
      findings: this.#findings,
    };
  }

  /**
   * Does the campaign, in steps of milliseconds, so that the caller can do something in between, or
   * leave. The reference is closed at the end, and when the caller leaves.
   * @throws LiveError when the reference cannot be started.
   */
  *run(): Generator<void, CampaignResult> {
    try {
      while (!this.#isDone) yield* this.#episode();
    } finally {
      this.#close();
    }
    return this.result;
  }

  /** Both sides as at the start, started anew where there is none or another machine runs. */
  restart(shape: Shape): Sides {
    if (this.#running?.shape === shape) {
      try {
        this.#running.reference.restart();
        this.#running.model.restart();
        return this.#running;
      } catch (error) {
        // It had died already.
        if (deathOf(error) === undefined) throw error;
      }
    }
    this.#close();
    const reference = this.#options.startReference(shape);
    if (reference === undefined) {
      const usual = SHAPES[0] as Shape;
      invariant(shape !== usual, 'HcallCampaign: there is always a machine of the first shape');
      this.#unavailable.add(shape);
      return this.restart(usual);
    }
    this.#shapes.add(shape.name);
    this.#running = { shape, reference, model: this.createModel(shape) };
    reference.restart();
    return this.#running;
  }

  /** A model of its own. */
  createModel(shape: Shape): ModelSide {
    const machine = modelOf(shape);
    return this.#options.createModel?.(machine) ?? new ModelSide(machine);
  }

  get #isDone(): boolean {
    return this.#isEnded || this.#hcalls >= this.#options.count;
  }

  *#episode(): Generator<void> {
    const episode = this.#episodes;
    this.#episodes += 1;
    const rng = createRng(this.#seeds.nextU32() * 2 ** 20 + (episode % 2 ** 20));
    // What an accident leaves behind may outlast a reset.
    if (this.#options.include?.length) this.#close();
    const sides = this.restart(this.#shapeOf(episode));
    const { machine } = sides.model;
    const generator = new OpGenerator(rng, machine, this.#options.include ?? []);
    const history: Op[] = [];
    let next: Op[] | undefined;
    const makeUp = (): Op[] => Array.from({ length: PIECE }, () => generator.next());
    const usual = episode < ROUND / 2 ? FIRST_EPISODES : EPISODE;
    const length = sides.shape === SHAPES[0] ? usual : OLD_EPISODE;
    while (history.length < length && !this.#isDone) {
      const isCheckpoint = history.length % CHECKPOINT < PIECE && history.length > 0;
      const looks = isCheckpoint ? [...generator.checkpoint()] : [];
      const piece = [...looks, ...(next ?? makeUp())];
      next = undefined;
      const meanwhile = (): void => {
        next = makeUp();
      };
      if (!(yield* this.#piece(piece, history, sides, meanwhile))) return;
    }
    yield* this.#piece([...generator.checkpoint()], history, sides);
  }

  // Adds a piece to the history. False when it ended in a finding.
  *#piece(
    piece: readonly Op[],
    history: Op[],
    sides: Sides,
    meanwhile: () => void = () => {},
  ): Generator<void, boolean> {
    const start = history.length;
    history.push(...piece);
    const progress: Progress = { begun: 0 };
    yield;
    try {
      const difference = runOps(piece, sides.model, sides.reference, {
        progress,
        meanwhile,
        onAnswer: (op, ours, theirs) => {
          this.#hcalls += 1;
          this.#coverage.count(op, ours, theirs);
        },
      });
      if (difference === undefined) return true;
      this.#isEnded = true;
      yield* this.#keep(history.slice(0, start + difference.index + 1), difference, sides);
    } catch (error) {
      if (deathOf(error) === undefined) throw error;
      yield* this.#keep(history.slice(0, start + progress.begun), error as Error, sides);
    }
    return false;
  }

  *#keep(
    history: readonly Op[],
    cause: Parameters<typeof explain>[0]['cause'],
    { shape }: Sides,
  ): Generator<void> {
    const { now, seed } = this.#options;
    // A reset may leave something behind: each try has a machine of its own.
    const restart = (): Sides => {
      this.#close();
      return this.restart(shape);
    };
    const origin = {
      shape: shape.name,
      settings: settingsOf(shape),
      seed,
      episode: this.#episodes - 1,
    };
    const createModel = (): ModelSide => this.createModel(shape);
    const place = this.#findings.length;
    // What is known is there at once: the caller may leave in the middle of it.
    for (const finding of explain({ history, cause, restart, createModel, now, ...origin })) {
      this.#findings[place] = finding;
      yield;
    }
    this.#close();
    if (this.#findings.length >= MAX_FINDINGS) this.#isEnded = true;
  }

  #shapeOf(episode: number): Shape {
    const turn = OLD_IN_ROUND.indexOf(episode % ROUND);
    const old = SHAPES[turn + 1];
    const isThere = turn >= 0 && old !== undefined && !this.#unavailable.has(old);
    return isThere ? old : (SHAPES[0] as Shape);
  }

  #close(): void {
    this.#running?.reference.close();
    this.#running = undefined;
  }
}
