/** Disagreements of QEMU's log and the model: all are counted, the first are kept. */
import { hex, type TraceValue } from '@pinhole/base';
import type { ReplayMismatch } from './hypervisor-replay.js';

/** One thing that was compared. */
export type Compared = readonly [
  what: string,
  logged: TraceValue | undefined,
  model: TraceValue | undefined,
];

/** Keeps the first disagreements of one kind. */
export class MismatchLog {
  readonly kept: ReplayMismatch[] = [];
  count = 0;
  readonly #keep: number;

  constructor(keep: number) {
    this.#keep = keep;
  }

  /** Counts one mismatch if anything differs, and keeps what differs first. */
  compare(line: number, event: string, rows: readonly Compared[]): boolean {
    for (const [what, logged, model] of rows) {
      if (logged === model) continue;
      this.count += 1;
      if (this.kept.length < this.#keep) {
        this.kept.push({ line, event, what, logged: show(logged), model: show(model) });
      }
      return false;
    }
    return true;
  }
}

function show(value: TraceValue | undefined): string {
  if (value === undefined) return 'none';
  return typeof value === 'string' || typeof value === 'boolean' ? String(value) : hex(value);
}
