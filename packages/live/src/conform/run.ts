import { RECORD_REGISTERS } from '../layout.js';
import {
  dump,
  type HcallOp,
  type Op,
  RTAS_SLOT_CELLS,
  RTAS_UNTOUCHED,
  type RtasOp,
} from './ops.js';
import { type Answers, BATCH_MAX, type Side } from './sides.js';

const SLOT = RTAS_SLOT_CELLS * 4;

/** Where the two sides part. */
export interface Difference {
  /** Which operation of the sequence. */
  readonly index: number;
  readonly model: string;
  readonly reference: string;
}

/** What a run tells of each call: `ret` is r3 or, of an RTAS call, its status. */
type OnAnswer = (op: HcallOp | RtasOp, model: number, reference: number) => void;

/** How far a run came, for who wants to know where the reference died. */
export interface Progress {
  /** How many operations were handed over. */
  begun: number;
}

/** Options of {@link runOps}. */
export interface RunOptions {
  readonly onAnswer?: OnAnswer;
  readonly progress?: Progress;
  /** Is called once, when the model has done everything and the reference may still be at work. */
  readonly meanwhile?: () => void;
}

/**
 * Runs operations on both sides at once, and compares all registers, the cells of RTAS calls, and
 * memory where it is read. Ends at the first difference. While the reference works on a batch, the
 * model does, too.
 */
export function runOps(
  ops: readonly Op[],
  model: Side,
  reference: Side,
  options: RunOptions = {},
): Difference | undefined {
  const progress = options.progress ?? { begun: 0 };
  for (let at = 0; at < ops.length; ) {
    const op = ops[at] as Op;
    if (op.kind === 'write') {
      model.memory.write(op.gpa, op.bytes);
      reference.memory.write(op.gpa, op.bytes);
    } else if (op.kind === 'read') {
      const difference = compareMemory(op.gpa, op.length, at, model, reference);
      if (difference !== undefined) return difference;
    } else if (op.kind === 'reset') {
      progress.begun = at + 1;
      reference.reset();
      model.reset();
    } else {
      const batch = takeBatch(ops, at);
      progress.begun = at + batch.length;
      reference.submit(batch);
      model.submit(batch);
      const ours = model.collect();
      if (at + batch.length === ops.length) options.meanwhile?.();
      const answers = [ours, reference.collect()] as const;
      const difference = compareBatch(batch, at, ...answers, options.onAnswer);
      if (difference !== undefined) return difference;
      at += batch.length - 1;
    }
    at += 1;
  }
  return undefined;
}

// Calls from `at` on that can be made at once: a buffer in a place of its own goes alone, since
// buffers are placed before the first call.
function takeBatch(ops: readonly Op[], at: number): (HcallOp | RtasOp)[] {
  const batch: (HcallOp | RtasOp)[] = [];
  for (let i = at; i < ops.length && batch.length < BATCH_MAX; i += 1) {
    const op = ops[i] as Op;
    if (op.kind !== 'hcall' && op.kind !== 'rtas') break;
    const isAlone = op.kind === 'rtas' && op.at !== undefined;
    if (isAlone && batch.length > 0) break;
    batch.push(op);
    if (isAlone) break;
  }
  return batch;
}

function compareBatch(
  batch: readonly (HcallOp | RtasOp)[],
  first: number,
  model: Answers,
  reference: Answers,
  onAnswer: OnAnswer | undefined,
): Difference | undefined {
  const modelWords = words(model.registers);
  const referenceWords = words(reference.registers);
  for (let i = 0; i < batch.length; i += 1) {
    const op = batch[i] as HcallOp | RtasOp;
    let isEqual = true;
    for (let w = i * RECORD_REGISTERS * 2; w < (i + 1) * RECORD_REGISTERS * 2; w += 1) {
      if (modelWords[w] !== referenceWords[w]) isEqual = false;
    }
    if (isEqual && op.kind === 'rtas' && op.at === undefined) {
      for (let b = i * SLOT; b < (i + 1) * SLOT; b += 1) {
        if (model.rtas[b] !== reference.rtas[b]) isEqual = false;
      }
    }
    onAnswer?.(
      op,
      retOf(op, i, model.rtas, modelWords),
      retOf(op, i, reference.rtas, referenceWords),
    );
    if (!isEqual) {
      const [ours, theirs] = [describe(op, i, model), describe(op, i, reference)];
      return { index: first + i, model: ours, reference: theirs };
    }
  }
  return undefined;
}

function compareMemory(
  gpa: number,
  length: number,
  index: number,
  model: Side,
  reference: Side,
): Difference | undefined {
  const ours = new Uint8Array(length);
  const theirs = new Uint8Array(length);
  model.memory.read(gpa, ours);
  reference.memory.read(gpa, theirs);
  if (Buffer.compare(ours, theirs) === 0) return undefined;
  const at = ours.findIndex((byte, i) => byte !== theirs[i]);
  const show = (bytes: Uint8Array): string =>
    `at 0x${(gpa + at).toString(16)}: ${dump(bytes.slice(at, at + 16))}`;
  return { index, model: show(ours), reference: show(theirs) };
}

function words(registers: BigUint64Array): Uint32Array {
  return new Uint32Array(registers.buffer, registers.byteOffset, registers.length * 2);
}

// r3, or the status of an RTAS call whose buffer is in a place of ours.
function retOf(
  op: HcallOp | RtasOp,
  position: number,
  rtas: Uint8Array,
  words: Uint32Array,
): number {
  if (op.kind === 'rtas' && op.at === undefined && op.nargs < RTAS_SLOT_CELLS - 3) {
    return new DataView(rtas.buffer, rtas.byteOffset + position * SLOT).getInt32(
      (3 + op.nargs) * 4,
    );
  }
  const at = position * RECORD_REGISTERS * 2;
  return ((words[at + 1] as number) | 0) * 2 ** 32 + (words[at] as number);
}

function describe(op: HcallOp | RtasOp, position: number, answers: Answers): string {
  const at = position * RECORD_REGISTERS;
  const changed = [`r3 = ${BigInt.asIntN(64, answers.registers[at] ?? 0n)}`];
  const args = op.kind === 'hcall' ? op.args : [];
  for (let r = 1; r < RECORD_REGISTERS && op.kind === 'hcall'; r += 1) {
    const value = answers.registers[at + r] ?? 0n;
    if (value !== (args[r - 1] ?? 0n)) changed.push(`r${r + 3} = 0x${value.toString(16)}`);
  }
  if (op.kind === 'rtas' && op.at === undefined) {
    const rets = cells(op, position, answers).map((cell) =>
      cell === RTAS_UNTOUCHED ? '-' : `0x${cell.toString(16)}`,
    );
    while (rets.at(-1) === '-') rets.pop();
    changed.push(`rets = [${rets.join(', ')}]`);
  }
  return changed.join(', ');
}

// What lies behind the arguments of a buffer.
function cells(op: RtasOp, position: number, { rtas }: Answers): number[] {
  const view = new DataView(rtas.buffer, rtas.byteOffset + position * SLOT, SLOT);
  const all = Array.from({ length: RTAS_SLOT_CELLS }, (_, i) => view.getUint32(i * 4));
  return op.nargs < RTAS_SLOT_CELLS ? all.slice(3 + op.nargs) : [];
}
