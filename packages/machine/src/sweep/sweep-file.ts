/**
 * A sweep as NDJSON: a line that says which sweep it is, then a row a line, in the order of points.
 * Each line ends with a checksum of itself; a row's goes on from that of the sweep, so that a row of
 * another sweep is noticed, too.
 */
import { z } from 'zod';
import { MachineError, type ScenarioProblem } from '../errors.js';
import { crc32 } from './crc32.js';
import { countPoints, MAX_POINTS, MAX_SHARDS, pointAt, type Shard } from './plan.js';
import { type SweepRow, sweepColumns } from './rows.js';
import type { SweepAxis } from './values.js';

/** What makes a sweep the one it is; two files of one sweep differ in `shard` alone. */
export interface SweepHeader {
  readonly schemaVersion: 1;
  /** The version of Pinhole that ran it: counts can differ from one to the next. */
  readonly pinhole: string;
  readonly title: string;
  /** A digest of the scenario with the settings that do not vary, its disk and its seed. */
  readonly scenario: string;
  /** A digest of the constants of the cost model; `null` where there are none. */
  readonly costs: { readonly preset: string; readonly digest: string } | null;
  readonly axes: readonly SweepAxis[];
  readonly points: number;
  /** `null`: all points. */
  readonly shard: Shard | null;
}

/** A sweep file that was read. */
export interface SweepFile {
  readonly header: SweepHeader;
  /** By point: the lines as they are in the file, and what they say. */
  readonly rows: ReadonlyMap<number, { readonly line: string; readonly row: SweepRow }>;
  /** Characters up to the end of the last whole line; what follows is a line that was cut short. */
  readonly wholeLength: number;
}

/** No line of a sweep is longer. */
const MAX_LINE = 2 ** 22;

const headerSchema: z.ZodType<{ readonly sweep: SweepHeader }> = z.strictObject({
  crc32: z.string(),
  sweep: z.strictObject({
    schemaVersion: z.literal(1),
    pinhole: z.string(),
    title: z.string(),
    scenario: z.string(),
    costs: z.strictObject({ preset: z.string(), digest: z.string() }).nullable(),
    axes: z
      .array(z.strictObject({ path: z.string().min(1), values: z.array(z.string()).min(1) }))
      .min(1),
    points: z.number().int().min(1).max(MAX_POINTS),
    shard: z
      .strictObject({
        index: z.number().int().min(1),
        of: z.number().int().min(1).max(MAX_SHARDS),
      })
      .nullable(),
  }),
});

const rowSchema = z.record(z.string(), z.union([z.string(), z.number(), z.null()]));

const CHECKSUM = 'crc32';

/** The first line of a sweep's file, with its line end. */
export function sweepHeaderLine(header: SweepHeader): string {
  return checkedLine({ sweep: header });
}

/** What the rows' checksums go on from: the same for all shards of a sweep. */
export function sweepChecksum(header: SweepHeader): string {
  return crc32(JSON.stringify({ ...header, shard: null }));
}

/** The line of a row of the sweep that has this checksum, with its line end. */
export function sweepRowLine(row: SweepRow, sweep: string): string {
  return checkedLine(row, sweep);
}

// The checksum is of the line as it would be without.
function checkedLine(value: object, before?: string): string {
  const text = JSON.stringify(value);
  return `${text.slice(0, -1)},"${CHECKSUM}":"${crc32(text, before)}"}\n`;
}

const CHECKED_LINE = new RegExp(`^(.*),"${CHECKSUM}":"([0-9a-f]{8})"}$`);

function checkLine(
  line: string,
  fail: (message: string) => MachineError,
  remedy: string,
  before?: string,
): void {
  const [, text, said] = CHECKED_LINE.exec(line) ?? [];
  if (text === undefined) {
    throw fail(`expected a line that ends with its ${CHECKSUM}, found another: ${remedy}`);
  }
  const found = crc32(`${text}}`, before);
  if (said === found) return;
  throw fail(
    `damaged or edited: expected a line with the ${CHECKSUM} ${said}, found one with ${found}: ${remedy}`,
  );
}

/** Whether a point is in a shard. */
function isInShard(index: number, shard: Shard | null): boolean {
  return shard === null || index % shard.of === shard.index - 1;
}

/** How many points a file has when it is whole. */
export function pointsOf({ points, shard }: SweepHeader): number {
  return shard === null ? points : Math.max(0, Math.ceil((points - (shard.index - 1)) / shard.of));
}

/**
 * Reads the text of a sweep's file. A last line without its end, which a program that was stopped
 * leaves, is no part of it.
 * @throws MachineError `E_SWEEP`: the line, what was expected, what was found.
 */
export function readSweepFile(text: string, file: string): SweepFile {
  const fail = (line: number, message: string): MachineError =>
    new MachineError('E_SWEEP', [{ path: '', line, column: 1, message }], { file });
  const wholeLength = text.lastIndexOf('\n') + 1;
  if (wholeLength === 0) throw fail(1, 'expected the first line of a sweep, found none');
  const lines = text.slice(0, wholeLength - 1).split('\n');
  const header = readHeader(lines[0] ?? '', (message) => fail(1, message));
  const columns = sweepColumns(header.axes);
  const sweep = sweepChecksum(header);
  const rows = new Map<number, { line: string; row: SweepRow }>();
  for (const [at, line] of lines.entries()) {
    if (at === 0) continue;
    const failHere = (message: string): MachineError => fail(at + 1, message);
    const row = readRow(line, header, columns, failHere);
    const index = row.point as number;
    checkLine(line, failHere, `delete the line, and the sweep runs point ${index} again`, sweep);
    if (rows.has(index)) throw failHere(`expected each point once, found point ${index} again`);
    rows.set(index, { line, row });
  }
  return { header, rows, wholeLength };
}

function readHeader(line: string, fail: (message: string) => MachineError): SweepHeader {
  const result = headerSchema.safeParse(parseLine(line, fail));
  if (!result.success) {
    const [issue] = result.error.issues;
    const where = issue?.path.join('.') ?? '';
    throw fail(
      `expected the first line of a sweep, {"sweep": {...}}, found another${where === '' ? '' : ` (${where}: ${issue?.message})`}`,
    );
  }
  const { sweep } = result.data;
  const count = countPoints(sweep.axes);
  if (count !== sweep.points) throw fail(`expected points ${count}, found ${sweep.points}`);
  const { shard } = sweep;
  if (shard !== null && shard.index > shard.of) {
    throw fail(`expected a shard from 1 to ${shard.of}, found ${shard.index}`);
  }
  checkLine(line, fail, 'the file must be made again');
  return sweep;
}

function readRow(
  line: string,
  { axes, points, shard }: SweepHeader,
  columns: readonly string[],
  fail: (message: string) => MachineError,
): SweepRow {
  const result = rowSchema.safeParse(parseLine(line, fail));
  if (!result.success) throw fail('expected a row, {"point": ...}, found another value');
  const { [CHECKSUM]: _, ...row } = result.data;
  const keys = Object.keys(row);
  if (keys.length !== columns.length || keys.some((key, at) => key !== columns[at])) {
    throw fail(`expected a row with ${columns.join(', ')}; found ${keys.join(', ').slice(0, 200)}`);
  }
  const { point } = row;
  const isPoint = typeof point === 'number' && Number.isInteger(point) && point >= 0;
  if (!isPoint || point >= points) {
    throw fail(`expected a point from 0 to ${points - 1}, found ${String(point)}`);
  }
  if (!isInShard(point, shard)) {
    throw fail(`expected a point of shard ${shard?.index}/${shard?.of}, found point ${point}`);
  }
  const { values } = pointAt(axes, point);
  for (const [at, { path }] of axes.entries()) {
    if (row[path] !== values[at]) {
      throw fail(`expected ${path} ${values[at]} at point ${point}, found ${String(row[path])}`);
    }
  }
  return row;
}

function parseLine(line: string, fail: (message: string) => MachineError): unknown {
  if (line.length > MAX_LINE) throw fail(`expected at most ${MAX_LINE} characters in a line`);
  try {
    return JSON.parse(line) as unknown;
  } catch {
    const shown = line.length > 60 ? `${line.slice(0, 57)}...` : line;
    throw fail(`expected a line of JSON, found ${JSON.stringify(shown)}`);
  }
}

/** What a file's sweep has otherwise than another; empty when they are the same but for the shard. */
export function headerDifferences(expected: SweepHeader, found: SweepHeader): string[] {
  const texts = (header: SweepHeader): [string, string][] => [
    ['pinhole', header.pinhole],
    ['title', JSON.stringify(header.title)],
    ['scenario, settings, disk or seed', header.scenario],
    ['costs', header.costs === null ? 'none' : `${header.costs.preset} ${header.costs.digest}`],
    ['axes', header.axes.map(({ path, values }) => `${path}=${values.join(',')}`).join(' ')],
  ];
  const others = texts(found);
  return texts(expected).flatMap(([name, value], at) => {
    const other = others[at]?.[1] ?? '';
    return value === other ? [] : [`${name}: expected ${cut(value)}, found ${cut(other)}`];
  });
}

/** As `headerDifferences`, and the shard. @throws MachineError `E_SWEEP` when there are any. */
export function checkSameSweep(expected: SweepHeader, found: SweepHeader, file: string): void {
  const shards = [expected, found].map(({ shard }) =>
    shard === null ? 'none' : `${shard.index}/${shard.of}`,
  );
  const differences = headerDifferences(expected, found);
  if (shards[0] !== shards[1]) differences.push(`shard: expected ${shards[0]}, found ${shards[1]}`);
  if (differences.length === 0) return;
  const problems: ScenarioProblem[] = differences.map((message) => ({
    path: '',
    line: 1,
    column: 1,
    message: `a file of another sweep: ${message}`,
  }));
  throw new MachineError('E_SWEEP', problems, { file });
}

function cut(text: string): string {
  return text.length > 100 ? `${text.slice(0, 97)}...` : text;
}
