import { MachineError, type ScenarioProblem } from '../errors.js';
import type { SweepRow } from './rows.js';
import {
  headerDifferences,
  pointsOf,
  type SweepFile,
  type SweepHeader,
  sweepHeaderLine,
} from './sweep-file.js';

/** A shard's file. */
export interface NamedSweep extends SweepFile {
  readonly name: string;
}

/** The shards of a sweep as one: what the sweep would have written without shards. */
export interface MergedSweep {
  readonly header: SweepHeader;
  readonly rows: readonly SweepRow[];
  /** The file, byte for byte. */
  readonly text: string;
}

/**
 * Puts shards together.
 * @throws MachineError `E_SWEEP` when they are of different sweeps, overlap, or something is missing:
 * all of it, by file.
 */
export function mergeSweeps(files: readonly NamedSweep[]): MergedSweep {
  const [first] = files;
  if (first === undefined) throw failure([{ path: '', message: 'expected files, found none' }]);
  const problems = files.flatMap(({ name, header }) =>
    headerDifferences(first.header, header).map((difference) => ({
      path: name,
      message: `not of the sweep of ${first.name}: ${difference}`,
    })),
  );
  if (problems.length > 0) throw failure(problems);
  problems.push(...shardProblems(files), ...missingPoints(files));
  if (problems.length > 0) throw failure(problems);
  const header: SweepHeader = { ...first.header, shard: null };
  const all = new Map(files.flatMap(({ rows }) => [...rows]));
  const sorted = [...all].sort(([a], [b]) => a - b).map(([, row]) => row);
  return {
    header,
    rows: sorted.map(({ row }) => row),
    text: sweepHeaderLine(header) + sorted.map(({ line }) => `${line}\n`).join(''),
  };
}

// Each shard once, all of one division, none left out.
function shardProblems(files: readonly NamedSweep[]): ScenarioProblem[] {
  const problems: ScenarioProblem[] = [];
  const of = files[0]?.header.shard?.of ?? 1;
  const seen = new Map<number, string>();
  for (const { name, header } of files) {
    const shard = header.shard ?? { index: 1, of: 1 };
    if (shard.of !== of) {
      problems.push({ path: name, message: `expected a shard of ${of}, found one of ${shard.of}` });
      continue;
    }
    const before = seen.get(shard.index);
    if (before !== undefined) {
      const message = `expected each shard once, found ${shard.index}/${of} as in ${before}`;
      problems.push({ path: name, message });
    }
    seen.set(shard.index, name);
  }
  if (problems.length > 0) return problems;
  const missing = Array.from({ length: of }, (_, i) => i + 1).filter((index) => !seen.has(index));
  if (missing.length === 0) return [];
  const names = missing.slice(0, 10).map((index) => `${index}/${of}`);
  const rest = missing.length > 10 ? ` and ${missing.length - 10} more` : '';
  return [{ path: '', message: `expected all shards, found no ${names.join(', ')}${rest}` }];
}

function missingPoints(files: readonly NamedSweep[]): ScenarioProblem[] {
  return files.flatMap(({ name, header, rows }) => {
    const wanted = pointsOf(header);
    if (rows.size === wanted) return [];
    const { index, of } = header.shard ?? { index: 1, of: 1 };
    let point = index - 1;
    while (rows.has(point)) point += of;
    return [
      {
        path: name,
        message: `expected ${wanted} points, found ${rows.size}: point ${point} is the first that is missing (run the sweep again to go on)`,
      },
    ];
  });
}

function failure(problems: readonly ScenarioProblem[]): MachineError {
  return new MachineError('E_SWEEP', problems);
}
