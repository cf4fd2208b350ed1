import { callName, type HcallOp, type RtasOp } from './ops.js';

/** How often a call came back with a code, on both sides. */
export interface CoverageRow {
  readonly call: string;
  /** r3, or the status of an RTAS call. */
  readonly ret: number;
  readonly model: number;
  readonly reference: number;
}

/** Counts return codes. */
export class Coverage {
  readonly #counts = new Map<string, Map<number, [model: number, reference: number]>>();

  count(op: HcallOp | RtasOp, model: number, reference: number): void {
    const name = callName(op);
    let rets = this.#counts.get(name);
    if (rets === undefined) {
      rets = new Map();
      this.#counts.set(name, rets);
    }
    this.#at(rets, model)[0] += 1;
    this.#at(rets, reference)[1] += 1;
  }

  /** By name, then from success down. */
  rows(): CoverageRow[] {
    return [...this.#counts]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .flatMap(([call, rets]) =>
        [...rets]
          .sort(([a], [b]) => b - a)
          .map(([ret, [model, reference]]) => ({ call, ret, model, reference })),
      );
  }

  #at(rets: Map<number, [number, number]>, ret: number): [number, number] {
    let pair = rets.get(ret);
    if (pair === undefined) {
      pair = [0, 0];
      rets.set(ret, pair);
    }
    return pair;
  }
}
