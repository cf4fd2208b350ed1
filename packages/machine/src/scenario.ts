import type { z } from 'zod';
import type { Architecture } from './architecture.js';
import { architectureNames, architectures } from './architectures/index.js';
import { readChecked } from './checked-text.js';
import type { MachineConfig, Scenario } from './scenario-config.js';
import { machineOnlySchema, scenarioSchema } from './scenario-schema.js';

/** Options of {@link parseScenario}. */
export interface ParseScenarioOptions {
  /** Names the file in errors. */
  readonly file?: string;
  /** `path=value` pairs that replace what the file says, such as `machine.memory=4GiB`. */
  readonly set?: readonly string[];
  /** Those that `machine.arch` can name. Default: {@link architectures}. */
  readonly architectures?: readonly Architecture[];
}

/**
 * Reads a scenario from YAML or JSON text.
 * @throws MachineError `E_SCENARIO` with every problem: where, what was expected, what was found.
 */
export function parseScenario(text: string, options: ParseScenarioOptions = {}): Scenario {
  return parseChecked(scenarioSchema, text, options);
}

/**
 * Makes the description of a machine from `path=value` pairs alone; see {@link parseScenario}.
 * @param set - such as `machine.memory=4GiB`; `machine.arch` at least.
 * @throws MachineError `E_SCENARIO`.
 */
export function parseMachine(set: readonly string[]): MachineConfig {
  return parseChecked(machineOnlySchema, 'machine: {}', { set }).machine;
}

function parseChecked<T extends { readonly machine: MachineConfig }>(
  schema: z.ZodType<T>,
  text: string,
  options: ParseScenarioOptions,
): T {
  const known = options.architectures ?? architectures;
  return readChecked(text, {
    schema,
    code: 'E_SCENARIO',
    file: options.file,
    set: options.set,
    check: ({ machine: { arch } }) =>
      known.some(({ id }) => id === arch)
        ? undefined
        : {
            path: 'machine.arch',
            message: `expected ${architectureNames(known)}, found "${arch}"`,
          },
  });
}
