import { closeSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  MATRIX_POLICIES,
  parseScenario,
  type Scenario,
  scenarioTextOfCell,
} from '@pinhole/machine';
import { InputError } from './exit.js';
import { openToRead } from './files.js';

const FOLDER = fileURLToPath(new URL('../scenarios/', import.meta.url));

/** A scenario that comes with the program. */
export interface BuiltInScenario {
  /** Such as `2-pinhole`. */
  readonly id: string;
  readonly number: number;
  readonly path: string;
}

/** The nine paths of the debate, in order. */
export function builtInScenarios(): BuiltInScenario[] {
  return readdirSync(FOLDER)
    .filter((name) => name.endsWith('.yaml'))
    .map((name) => {
      const id = name.replace(/\.yaml$/, '');
      return { id, number: Number.parseInt(id, 10), path: join(FOLDER, name) };
    })
    .sort((a, b) => a.number - b.number);
}

/** A scenario and the image that it names, as a path from here. */
export interface LoadedScenario {
  readonly scenario: Scenario;
  readonly imagePath: string | undefined;
}

/**
 * Reads a scenario file, or one of the built-in ones by name or number.
 * @throws InputError, MachineError
 */
export function loadScenario(nameOrPath: string, set: readonly string[]): LoadedScenario {
  const isFile = existsSync(nameOrPath);
  // A cell of the matrix is a scenario, too.
  if (!isFile && MATRIX_POLICIES.some((policy) => nameOrPath.startsWith(`${policy}/`))) {
    const text = scenarioTextOfCell(nameOrPath);
    return { scenario: parseScenario(text, { set }), imagePath: undefined };
  }
  const builtIn = isFile
    ? undefined
    : builtInScenarios().find(
        ({ id, number }) => id === nameOrPath || String(number) === nameOrPath,
      );
  if (builtIn === undefined && !isFile) {
    throw new InputError(
      `${nameOrPath}: expected a scenario file, or one of: ${builtInScenarios()
        .map(({ id }) => id)
        .join(', ')}; found neither`,
    );
  }
  const path = builtIn?.path ?? nameOrPath;
  const fd = openToRead(path, 'a scenario file');
  let text: string;
  try {
    text = readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
  const scenario = parseScenario(text, { file: path, set });
  const image = scenario.devices[0]?.image;
  return {
    scenario,
    imagePath: image === undefined ? undefined : resolve(dirname(path), image),
  };
}
