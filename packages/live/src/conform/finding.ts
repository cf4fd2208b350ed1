import { LiveError } from '../errors.js';
import { formatOp, type Op, opToRequests } from './ops.js';
import { type Difference, runOps } from './run.js';
import { shrink } from './shrink.js';
import type { ModelSide, Side } from './sides.js';

/** Sequences that shrinking may try, and for how long. */
const SHRINK_TRIES = 600;
const SHRINK_MS = 60_000;

/** Of a sequence that is not shrunk: how much of its end is given. A batch is shorter. */
const TAIL = 2000;

/** What a campaign found. */
export interface Finding {
  /** `divergence`: the answers differ. Otherwise the reference died, hung, or was reset. */
  readonly kind: 'divergence' | Death;
  /** The machine. */
  readonly shape: string;
  readonly seed: number;
  readonly episode: number;
  /** Operations from the machine's start up to what shows it. */
  readonly length: number;
  /**
   * Whether they were seen to show it again on a new machine. Otherwise they are not shrunk, and only
   * the last 2,000 are given.
   */
  readonly isReproducible: boolean;
  /** The shortest sequence found that shows it, for people. */
  readonly sequence: readonly string[];
  /** The machine as `--set` options of `pinhole hcall`, and the sequence as its lines. */
  readonly set: readonly string[];
  readonly requests: readonly Record<string, unknown>[];
  /** What the model answers to the last operation. */
  readonly model: string;
  /** What the reference answers, or how it died. */
  readonly reference: string;
}

/** How a reference can fail to answer. */
export type Death = 'exit' | 'hang' | 'guest-reset';

/** How a reference failed to answer, if that is what the error says. */
export function deathOf(error: unknown): Death | undefined {
  if (!(error instanceof LiveError)) return undefined;
  if (error.code === 'E_QEMU_EXITED') return 'exit';
  if (error.code === 'E_QEMU_HANG') return 'hang';
  return error.code === 'E_GUEST_RESET' ? 'guest-reset' : undefined;
}

/** What is to be explained, and with what. */
interface Case {
  /** From the machine's start to what shows it. */
  readonly history: readonly Op[];
  readonly cause: Difference | Error;
  /** Both sides as new. */
  readonly restart: () => { readonly model: ModelSide; readonly reference: Side };
  readonly createModel: () => ModelSide;
  readonly now: () => number;
  readonly shape: string;
  readonly settings: readonly string[];
  readonly seed: number;
  readonly episode: number;
}

/**
 * Finds the shortest sequence that ends as a history did. Yields what is known so far between tries;
 * the last is the result.
 */
export function* explain(given: Case): Generator<Finding> {
  const { history, cause, now, createModel, shape, settings, seed, episode } = given;
  const kind = cause instanceof Error ? (deathOf(cause) ?? 'exit') : 'divergence';
  const deadline = now() + SHRINK_MS;
  let last = cause;
  const findingOf = (ops: readonly Op[], isReproducible: boolean): Finding => ({
    kind,
    shape,
    seed,
    episode,
    length: history.length,
    isReproducible,
    sequence: ops.map(formatOp),
    set: settings,
    requests: ops.flatMap((op) => opToRequests(op)),
    model: last instanceof Error ? modelAnswer(createModel(), ops) : last.model,
    reference: last instanceof Error ? last.message : last.reference,
  });
  let isStuck = false;
  const fails = (candidate: readonly Op[]): boolean => {
    const outcome = tryAlone(given, candidate);
    if (outcome === undefined) return false;
    if (outcome === 'no reference') {
      isStuck = true;
      return false;
    }
    const isSame =
      outcome instanceof Error
        ? deathOf(outcome) === kind
        : kind === 'divergence' && outcome.index === candidate.length - 1;
    if (isSame) last = outcome;
    return isSame;
  };
  const unshrunk = findingOf(history.slice(-TAIL), false);
  yield unshrunk;
  if (!fails(history)) return;
  let ops: readonly Op[] = history;
  const steps = shrink(history, {
    maxTries: SHRINK_TRIES,
    isOver: () => isStuck || now() > deadline,
    // What kills shows at the end of its batch; what differs, at once.
    isLastNeeded: kind === 'divergence',
    fails,
  });
  for (let step = steps.next(); ; step = steps.next()) {
    if (step.done === true) {
      ops = step.value;
      break;
    }
    yield unshrunk;
  }
  yield findingOf(ops, true);
}

// What comes of a sequence on new machines: a difference, a death, nothing; or no machine is to be had.
function tryAlone(
  { restart }: Case,
  ops: readonly Op[],
): Difference | Error | 'no reference' | undefined {
  let sides: ReturnType<Case['restart']>;
  try {
    sides = restart();
  } catch (error) {
    if (error instanceof LiveError) return 'no reference';
    throw error;
  }
  try {
    return runOps(ops, sides.model, sides.reference);
  } catch (error) {
    if (deathOf(error) === undefined) throw error;
    return error as Error;
  }
}

// What the model answers to the last operation of a sequence that the reference did not survive.
function modelAnswer(model: ModelSide, ops: readonly Op[]): string {
  let answer = 'it carries this out';
  // Against itself: there is nobody else left.
  runOps(ops, model, echoOf(model), {
    onAnswer: (op, ret) => {
      if (op === ops.at(-1)) answer = `${op.kind === 'rtas' ? 'status' : 'r3'} = ${ret}`;
    },
  });
  return answer;
}

function echoOf(model: ModelSide): Side {
  return {
    memory: model.memory,
    submit: () => {},
    collect: () => model.collect(),
    restart: () => {},
    reset: () => {},
    close: () => {},
  };
}
