/** What `--set` of a sweep says: one value, a list or a range. */
import { formatSize, parseSize } from '@pinhole/base';
import { MachineError } from '../errors.js';

/** A scenario key, and the values that it takes in turn. */
export interface SweepAxis {
  /** Such as `machine.memory`. */
  readonly path: string;
  /** As `--set path=value` has them; at least one, no two the same. */
  readonly values: readonly string[];
}

/** An axis has at most this many values. */
const MAX_VALUES = 10_000;
const RANGE = /^\s*([^.,\s][^,]*?)\s*\.\.\s*([^:,]+?)\s*(?::\s*([^:,]+?)\s*)?$/;

/**
 * Reads `path=values`: `a,b,c` is a list, `2GiB..64GiB` doubles, `1..8` counts, `a..b:step` adds.
 * A range ends with the last value that is not beyond `b`. Commas within brackets, braces or quotes
 * belong to a value.
 * @throws MachineError `E_SWEEP`
 */
export function parseSweepAxis(setting: string): SweepAxis {
  const split = setting.indexOf('=');
  const path = setting.slice(0, Math.max(split, 0)).trim();
  if (path === '') {
    throw problem(
      '',
      `expected path=values such as machine.memory=2GiB..64GiB, found "${cut(setting)}"`,
    );
  }
  const parts = splitList(setting.slice(split + 1));
  const values = parts.flatMap((part) => rangeOf(path, part) ?? [part.trim()]);
  if (values.length > MAX_VALUES) throw tooMany(path, values.length);
  const seen = new Set<string>();
  for (const value of values) {
    if (value === '') throw problem(path, 'expected a value between commas, found nothing');
    if (seen.has(value)) throw problem(path, `expected each value once, found ${cut(value)} twice`);
    seen.add(value);
  }
  return { path, values };
}

/** A number, or a size in bytes: what an axis of a chart is made of. */
export function sweepNumber(value: string): number | undefined {
  if (/^-?\d+(\.\d+)?$/.test(value)) return Number(value);
  return isSize(value) ? parseSize(value) : undefined;
}

/** Whether a value is a size with its unit. */
export function isSize(value: string): boolean {
  return /^\d+(\.\d+)?\s*([kmgt](i?b)?|b)$/i.test(value);
}

function rangeOf(path: string, part: string): string[] | undefined {
  const match = RANGE.exec(part);
  if (match === null || /["'[{]/.test(part)) return undefined;
  const [from = '', to = '', step] = match.slice(1);
  const ends = [from, to, ...(step === undefined ? [] : [step])];
  if (!ends.every((end) => isSize(end) || /^\d+$/.test(end))) {
    throw problem(
      path,
      `expected a range of whole numbers or sizes, such as 1..8 or 2GiB..64GiB, found "${cut(part)}"`,
    );
  }
  const [first, last, by] = ends.map((end) => readNumber(path, end)) as [number, number, number?];
  if (by === 0) throw problem(path, `expected a step above 0, found ${step}`);
  if (first > last) throw problem(path, `expected a range that rises, found ${cut(part)}`);
  const isSizes = ends.some(isSize);
  const doubles = by === undefined && isSizes;
  if (doubles && first === 0) {
    throw problem(path, `expected a range that doubles to begin above 0, found ${cut(part)}`);
  }
  const count = doubles
    ? Math.floor(Math.log2(last / first)) + 1
    : Math.floor((last - first) / (by ?? 1)) + 1;
  if (count > MAX_VALUES) throw tooMany(path, count);
  return Array.from({ length: count }, (_, i) => {
    const value = doubles ? first * 2 ** i : first + i * (by ?? 1);
    return isSizes ? sizeText(value) : String(value);
  });
}

function readNumber(path: string, text: string): number {
  const value = isSize(text) ? Number.NaN : Number(text);
  if (Number.isSafeInteger(value)) return value;
  try {
    return parseSize(text);
  } catch (error) {
    throw problem(path, error instanceof Error ? error.message : `found "${cut(text)}"`);
  }
}

// The shortest that means exactly this.
function sizeText(bytes: number): string {
  const text = formatSize(bytes).replace(' ', '');
  return parseSize(text) === bytes ? text : String(bytes);
}

// At commas outside of brackets and quotes.
function splitList(text: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let quote = '';
  let start = 0;
  for (let at = 0; at < text.length; at += 1) {
    const letter = text[at] as string;
    if (quote !== '') {
      if (letter === quote) quote = '';
    } else if (letter === '"' || letter === "'") quote = letter;
    else if (letter === '[' || letter === '{') depth += 1;
    else if (letter === ']' || letter === '}') depth -= 1;
    else if (letter === ',' && depth <= 0) {
      parts.push(text.slice(start, at));
      start = at + 1;
    }
  }
  parts.push(text.slice(start));
  return parts;
}

function tooMany(path: string, count: number): MachineError {
  return problem(path, `expected at most ${MAX_VALUES} values, found ${count}`);
}

function problem(path: string, message: string): MachineError {
  return new MachineError('E_SWEEP', [{ path: path === '' ? '--set' : `--set ${path}`, message }]);
}

function cut(text: string): string {
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
