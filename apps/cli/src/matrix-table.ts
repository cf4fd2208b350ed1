import {
  CELL_OUTCOMES,
  type CellOutcome,
  type CellResult,
  MATRIX_POLICIES,
  type MatrixCell,
} from '@pinhole/machine';
import { costSentence } from './matrix-costs.js';
import { CELL_MARKS } from './matrix-marks.js';
import { type Colors, colorsIf, markText, paint } from './terminal-style.js';
import { plain, wrap } from './terminal-text.js';

/** How the table is printed. */
export interface MatrixTableOptions {
  /** Columns of the output. */
  readonly width: number;
  readonly color: boolean;
  /** How many cells there would have been. */
  readonly planned: number;
}

/** Up to so many cells are listed one by one. */
const FEW = 24;
/** Columns of one symbol, and the space after it. */
const CELL_WIDTH = 3;

const SHORT_POLICY: Readonly<Record<string, string>> = {
  'linux-4.18': '4.18',
  'rfc-2018': 'rfc',
  'rfc-2018-direct-ops': 'rfc-d',
  'always-flag': 'alw.',
  'linux-5.10': '5.10',
  'linux-6.1': '6.1',
  'linux-6.12': '6.12',
  'linux-7.2': '7.2',
};

/**
 * The matrix for a terminal: machines by policies, then what the symbols stand for, and examples.
 * Where not all policies fit beside one another, the next ones follow below.
 */
export function renderMatrixTable(
  results: readonly CellResult[],
  options: MatrixTableOptions,
): string {
  const colors = colorsIf(options.color);
  const { width } = options;
  const isFolded = results.length > FEW;
  const lines = [
    ...wrap(summary(results, options.planned), width),
    '',
    ...(isFolded ? [...grid(results, width, colors), ''] : []),
    ...(isFolded ? examples(results, width, colors) : list(results, width, colors)),
  ];
  return `${lines.join('\n').trimEnd()}\n`;
}

function summary(results: readonly CellResult[], planned: number): string {
  const cells = results.length === 1 ? '1 cell' : `${results.length} cells`;
  const of = planned > results.length ? ` of ${planned}` : '';
  return `${cells}${of}, each a run of its own with every byte checked.`;
}

// A row for each kind of guest of each machine; below each policy, flag off and flag on.
function grid(results: readonly CellResult[], width: number, colors: Colors): string[] {
  const policies = MATRIX_POLICIES.filter((id) => results.some(({ cell }) => cell.policy === id));
  const flags = [false, true].filter((flag) => results.some(({ cell }) => cell.flag === flag));
  const rows = new Map<string, CellResult[]>();
  for (const result of results) {
    const name = plain(rowName(result.cell));
    rows.set(name, [...(rows.get(name) ?? []), result]);
  }
  const longest = Math.max(FLAG_HEAD.length, ...[...rows.keys()].map((name) => name.length));
  const nameWidth = Math.min(longest, 30) + 1;
  // The space after the last symbol needs no room.
  const room = Math.floor((width + 1 - nameWidth) / (flags.length * CELL_WIDTH));
  const atOnce = Math.max(1, room);
  const isMixed = [...rows.values()].some((row) =>
    policies.some((id) => flags.some((flag) => symbolOf(pick(row, id, flag)).isMixed)),
  );
  const legend = isMixed
    ? 'flag: of off, on on. *: the worst of vhost or not and of the rings, which differ'
    : 'flag: of off, on on';
  const blocks = Array.from({ length: Math.ceil(policies.length / atOnce) }, (_, block) =>
    gridBlock(rows, policies.slice(block * atOnce, (block + 1) * atOnce), flags, nameWidth, colors),
  );
  return [...blocks.flatMap((lines) => [...lines, '']), ...wrap(legend, width)];
}

const FLAG_HEAD = 'machine           flag:';

function gridBlock(
  rows: ReadonlyMap<string, readonly CellResult[]>,
  policies: readonly string[],
  flags: readonly boolean[],
  nameWidth: number,
  colors: Colors,
): string[] {
  const policyWidth = flags.length * CELL_WIDTH;
  const head = policies.map((id) => (SHORT_POLICY[id] ?? id).padEnd(policyWidth)).join('');
  const flagHead = flags.map((flag) => (flag ? 'on ' : 'of ')).join('');
  return [
    `${''.padEnd(nameWidth)}${head}`.trimEnd(),
    `${FLAG_HEAD.padEnd(nameWidth)}${policies.map(() => flagHead).join('')}`.trimEnd(),
    ...[...rows].map(([name, row]) => {
      const cells = policies.flatMap((id) =>
        flags.map((flag) => {
          const { outcome, isMixed } = symbolOf(pick(row, id, flag));
          if (outcome === undefined) return ''.padEnd(CELL_WIDTH);
          const { symbol, tone } = CELL_MARKS[outcome];
          return `${paint(tone, symbol, colors)}${isMixed ? '*' : ' '} `;
        }),
      );
      return `${name.slice(0, nameWidth - 1).padEnd(nameWidth)}${cells.join('')}`.trimEnd();
    }),
  ];
}

function rowName({ platform, secure }: MatrixCell): string {
  return secure ? `${platform}, secure` : platform;
}

function pick(row: readonly CellResult[], policy: string, flag: boolean): readonly CellResult[] {
  return row.filter(({ cell }) => cell.policy === policy && cell.flag === flag);
}

/** The most severe outcome of several cells, and whether they differ. */
function symbolOf(cells: readonly CellResult[]): {
  outcome: CellOutcome | undefined;
  isMixed: boolean;
} {
  const found = CELL_OUTCOMES.filter((id) => cells.some(({ outcome }) => outcome === id));
  const real = found.filter((id) => id !== 'no-machine');
  return { outcome: real[0] ?? found[0], isMixed: real.length > 1 };
}

// What the symbols stand for, and the first cell of each.
function examples(results: readonly CellResult[], width: number, colors: Colors): string[] {
  return CELL_OUTCOMES.flatMap((outcome) => {
    const all = results.filter((result) => result.outcome === outcome);
    const first = all[0];
    if (first === undefined) return [];
    const mark = CELL_MARKS[outcome];
    const head = `${markText(mark)}: ${all.length}`;
    if (outcome === 'works') return [paint(mark.tone, head, colors)];
    const example = `${first.cell.id}: ${plain(first.findings[0]?.text ?? '')}`;
    return [
      paint(mark.tone, head, colors),
      ...wrap(`such as ${clipped(example, 4 * width)}`, width, '    ', '    '),
      ...costLines(first, width),
    ];
  });
}

function list(results: readonly CellResult[], width: number, colors: Colors): string[] {
  return results.flatMap((result) => {
    const { symbol, tone } = CELL_MARKS[result.outcome];
    const [first = '', ...rest] = wrap(result.cell.id, width, '    ', `${symbol} `);
    return [
      `${paint(tone, symbol, colors)}${first.slice(symbol.length)}`,
      ...rest,
      ...wrap(plain(result.text), width, '    ', '    '),
      ...costLines(result, width),
    ];
  });
}

function costLines({ costs }: CellResult, width: number): string[] {
  const text = costSentence(costs);
  return text === undefined ? [] : wrap(text, width, '    ', '    ');
}

function clipped(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 3)}...`;
}
