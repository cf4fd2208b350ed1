import { type Document, isMap, isScalar, LineCounter, parseDocument } from 'yaml';
import type { z } from 'zod';
import { MachineError, type MachineErrorCode, type ScenarioProblem } from './errors.js';

/** A text has at most this many characters; aliases in it expand at most 100 times. */
const MAX_TEXT = 2 ** 20;

/** What {@link readChecked} reads, and how it says what is wrong. */
export interface CheckedTextOptions<T> {
  readonly schema: z.ZodType<T>;
  readonly code: MachineErrorCode;
  /** Names the file in errors. */
  readonly file?: string | undefined;
  /** `path=value` pairs that replace what the text says; the values are YAML. */
  readonly set?: readonly string[] | undefined;
  /** What else can be wrong with it. */
  readonly check?: (value: T) => ScenarioProblem | undefined;
  /** What to say of a key that the schema does not have. */
  readonly describeUnknownKey?: (key: string, path: string) => string;
}

/**
 * Reads YAML or JSON text and checks it.
 * @throws MachineError with every problem: where, what was expected, what was found.
 */
export function readChecked<T>(text: string, options: CheckedTextOptions<T>): T {
  const fail = (problems: readonly ScenarioProblem[]): MachineError =>
    new MachineError(
      options.code,
      problems,
      options.file === undefined ? {} : { file: options.file },
    );
  if (text.length > MAX_TEXT) {
    throw fail([
      { path: '', message: `expected at most ${MAX_TEXT} characters, found ${text.length}` },
    ]);
  }
  const lineCounter = new LineCounter();
  const document = parseDocument(text, { lineCounter });
  if (document.errors.length > 0) {
    throw fail(
      document.errors.map((error) => {
        const { line, col } = lineCounter.linePos(error.pos[0]);
        const message = error.message.split('\n')[0]?.replace(/ at line \d+, column \d+:?$/, '');
        return { path: '', line, column: col, message: message ?? 'not YAML' };
      }),
    );
  }
  const overridden = applySettings(document, options.set ?? []);
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    const message = error instanceof Error ? error.message : 'the document cannot be expanded';
    throw fail([{ path: '', line: 1, column: 1, message }]);
  }
  const result = options.schema.safeParse(value);
  if (!result.success) {
    const describeKey = options.describeUnknownKey ?? unknownKey;
    throw fail(
      result.error.issues.flatMap((issue) =>
        toProblems(issue, value, document, lineCounter, overridden, describeKey),
      ),
    );
  }
  const problem = options.check?.(result.data);
  if (problem === undefined) return result.data;
  const path = parsePath(problem.path);
  const place = overridden.has(problem.path) ? {} : positionOf(document, lineCounter, path, false);
  throw fail([{ ...problem, ...place }]);
}

const unknownKey = (): string =>
  'expected one of the keys that the schema has, found an unknown one (see `pinhole config schema`)';

/** Items before one that is set are made, too: no list of a scenario is as long. */
const MAX_INDEX = 9999;

const parsePath = (path: string): (string | number)[] =>
  [...path.matchAll(/[^.[\]]+/g)].map(([key]) => (/^\d+$/.test(key) ? Number(key) : key));

// Applies `path=value`; the value is YAML. Returns the paths, which have no place in the file.
function applySettings(document: Document, settings: readonly string[]): Set<string> {
  const overridden = new Set<string>();
  for (const setting of settings) {
    const split = setting.indexOf('=');
    const path = setting.slice(0, Math.max(split, 0));
    const keys = parsePath(path);
    if (split < 1 || keys.length === 0) {
      throw new MachineError('E_SCENARIO', [
        {
          path: '',
          message: `--set: expected path=value such as machine.memory=4GiB, found "${setting}"`,
        },
      ]);
    }
    if (keys.some((key) => typeof key === 'number' && key > MAX_INDEX)) {
      throw new MachineError('E_SCENARIO', [
        { path: formatPath(keys), message: `--set: expected an index from 0 to ${MAX_INDEX}` },
      ]);
    }
    const value = readValue(setting.slice(split + 1), formatPath(keys));
    try {
      document.setIn(keys, document.createNode(value));
    } catch {
      throw new MachineError('E_SCENARIO', [
        { path: formatPath(keys), message: '--set: the scenario has nothing here that can be set' },
      ]);
    }
    overridden.add(formatPath(keys));
  }
  return overridden;
}

// One value in YAML; an alias in it may have no anchor, or expand too often.
function readValue(text: string, path: string): unknown {
  const given = parseDocument(text);
  try {
    if (given.errors.length === 0) return given.toJS({ maxAliasCount: 100 }) as unknown;
  } catch {
    // Said below.
  }
  throw new MachineError('E_SCENARIO', [
    { path, message: `--set: expected a value in YAML, found ${show(text)}` },
  ]);
}

function toProblems(
  issue: z.core.$ZodIssue,
  value: unknown,
  document: Document,
  lineCounter: LineCounter,
  overridden: ReadonlySet<string>,
  describeKey: (key: string, path: string) => string,
): ScenarioProblem[] {
  const path = issue.path.filter((key) => typeof key !== 'symbol');
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({
      path: formatPath([...path, key]),
      ...positionOf(document, lineCounter, [...path, key], true),
      message: describeKey(key, formatPath(path)),
    }));
  }
  const name = formatPath(path);
  const found = lookUp(value, path);
  const position = overridden.has(name) ? {} : positionOf(document, lineCounter, path, false);
  return [{ path: name, ...position, message: `${describeIssue(issue)}, found ${show(found)}` }];
}

function describeIssue(issue: z.core.$ZodIssue): string {
  if (issue.code === 'invalid_value' && !issue.message.startsWith('expected ')) {
    return `expected ${issue.values.map((value) => JSON.stringify(value)).join(' or ')}`;
  }
  const message = issue.message.replace(/^Invalid input: /, '').replace(/, received .*$/, '');
  // A size that is none says what it found already.
  return message.replace(/, found ".*"$/, '');
}

function lookUp(value: unknown, path: readonly (string | number)[]): unknown {
  let at = value;
  for (const key of path) {
    if (at === null || typeof at !== 'object') return undefined;
    at = (at as Record<string | number, unknown>)[key];
  }
  return at;
}

function show(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text = JSON.stringify(value, (_key, item: unknown) =>
    typeof item === 'bigint' ? item.toString() : item,
  );
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

// Where a value (or a key) stands; of a missing one, where its parent stands.
function positionOf(
  document: Document,
  lineCounter: LineCounter,
  path: readonly (string | number)[],
  isKey: boolean,
): { line?: number; column?: number } {
  for (let length = path.length; length >= 0; length -= 1) {
    const keys = path.slice(0, length);
    const parent: unknown = length === 0 ? undefined : document.getIn(keys.slice(0, -1), true);
    const pair = isMap(parent)
      ? parent.items.find(({ key }) => isScalar(key) && key.value === keys.at(-1))
      : undefined;
    const node: unknown = isKey && length === path.length ? pair?.key : document.getIn(keys, true);
    const range = (node as { range?: readonly number[] | null } | undefined)?.range;
    if (range?.[0] !== undefined) {
      const { line, col } = lineCounter.linePos(range[0]);
      return { line, column: col };
    }
  }
  return {};
}

function formatPath(path: readonly (string | number)[]): string {
  return path
    .map((key, index) => (typeof key === 'number' ? `[${key}]` : index === 0 ? key : `.${key}`))
    .join('');
}
