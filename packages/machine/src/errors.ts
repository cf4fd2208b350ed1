import { ModelError } from '@pinhole/base';

/**
 * - `E_SCENARIO`: a scenario that is not one: a wrong key, type or value, or no YAML at all.
 * - `E_MACHINE`: a machine that cannot exist.
 * - `E_WORKLOAD`: a workload that does not fit the disk.
 * - `E_COSTS`: constants of the cost model that are none, or missing.
 * - `E_SWEEP`: values, files or shards that make no sweep.
 */
export type MachineErrorCode = 'E_SCENARIO' | 'E_MACHINE' | 'E_WORKLOAD' | 'E_COSTS' | 'E_SWEEP';

/** One thing that is wrong with a scenario. */
export interface ScenarioProblem {
  /** Such as `machine.memory`, `devices[0].queues`; empty for the whole. */
  readonly path: string;
  /** From 1; absent when the value does not come from the file. */
  readonly line?: number;
  readonly column?: number;
  readonly message: string;
}

/** An input that a machine cannot be made of; `problems` has all that were found. */
export class MachineError extends ModelError<MachineErrorCode> {
  override name = 'MachineError';
  readonly problems: readonly ScenarioProblem[];

  constructor(
    code: MachineErrorCode,
    problems: readonly ScenarioProblem[],
    options: { file?: string; cause?: unknown } = {},
  ) {
    super(code, problems.map((problem) => describe(problem, options.file)).join('\n'), {
      details: { problems },
      ...(options.cause === undefined ? {} : { cause: options.cause }),
    });
    this.problems = problems;
  }
}

function describe(problem: ScenarioProblem, file: string | undefined): string {
  const position = problem.line === undefined ? '' : `:${problem.line}:${problem.column ?? 1}`;
  const where = file === undefined ? '' : `${file}${position}: `;
  const path = problem.path === '' ? '' : `${problem.path}: `;
  return `${where}${path}${problem.message}`;
}
