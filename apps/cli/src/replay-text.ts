import type { ReplayFinding, ReplayReport } from '@pinhole/machine';
import { conclusion, type FileReport, isClean, type ReplayOutcome } from './replay-outcome.js';
import { type CheckedRow, checkedRows, differenceRows, places, runRows } from './replay-rows.js';
import { SEVERITY_MARKS } from './report/marks.js';
import { type Colors, colorsIf, markText, paint, type TerminalOptions } from './terminal-style.js';
import { plain, wrap } from './terminal-text.js';

/** Prose is not wider than this, however wide the terminal. */
const MAX_WIDTH = 100;
/** Below this, figures do not stand below one another. */
const NARROW = 48;

/** A replay for people. */
export function renderReplay(outcome: ReplayOutcome, options: TerminalOptions): string {
  const { qemu, guest, report } = outcome;
  const { width } = options;
  const colors = colorsIf(options.color);
  const tone = isClean(outcome) ? 'good' : 'bad';
  const files = guest === undefined ? [qemu] : [qemu, guest];
  const differences = differenceRows(report).map(
    ({ where, what, recorded, model }) =>
      `${where}: ${what}: recorded ${recorded}, the model has ${model}`,
  );
  const problems = files.flatMap(problemTexts);
  const lines = [
    ...files.flatMap((file) => wrap(plain(fileText(file)), width, '  ')),
    ...runRows(report).flatMap(([key, text]) =>
      wrap(plain(text), width, ' '.repeat(11), `  ${key.padEnd(8)} `),
    ),
    '',
    'checked against the model',
    ...checkedRows(report).map((row) => checkedLine(row, width, colors)),
    ...remarks(report).flatMap((text) => wrap(text, width, '    ', '  ')),
    ...[...differences, ...problems].flatMap((text) => wrap(plain(text), width, '    ', '  ')),
    '',
    ...(report.findings.length === 0 ? ['no findings'] : []),
    ...report.findings.flatMap((one) => findingLines(one, Math.min(width, MAX_WIDTH), colors)),
    ...wrap(conclusion(outcome), width).map((line) => paint(tone, line, colors)),
  ];
  return `${lines.join('\n')}\n`;
}

function fileText({ path, summary }: FileReport): string {
  const { lines, events, problems } = summary;
  return `${path}: ${lines} lines, ${events} events, ${problems['unknown-event']} events of other kinds`;
}

function checkedLine({ what, count, wrong }: CheckedRow, width: number, colors: Colors): string {
  const line =
    width < NARROW
      ? `  ${what}: ${count}, ${wrong} wrong`
      : `  ${what.padEnd(19)} ${String(count).padStart(9)} ${String(wrong).padStart(9)} wrong`;
  return wrong === 0 ? line : paint('bad', line, colors);
}

function remarks({ guest }: ReplayReport): string[] {
  const { hcallsUntraced = 0, ordersFound = 0 } = guest ?? {};
  return [
    ...(hcallsUntraced > 0
      ? [
          `${hcallsUntraced} hypercalls of the guest were made inside another one, where Linux traces none`,
        ]
      : []),
    ...(ordersFound > 0
      ? [`${ordersFound} times the order of several CPUs had to be searched for, and was found`]
      : []),
  ];
}

function problemTexts({ path, summary, problems, cutShort }: FileReport): string[] {
  const bad = Object.entries(summary.problems)
    .filter(([kind, count]) => count > 0 && kind !== 'unknown-event')
    .map(([kind, count]) => `${count} ${kind}`);
  return [
    ...(bad.length > 0 ? [`${path}: lines that could not be read: ${bad.join(', ')}`] : []),
    ...problems.map(
      ({ line, kind, text, expected }) =>
        `line ${line}: ${kind}${expected === undefined ? '' : `: expected ${expected}`}: ${text}`,
    ),
    ...(cutShort === undefined ? [] : [`${path}: incomplete: ${cutShort}`]),
  ];
}

function findingLines(finding: ReplayFinding, width: number, colors: Colors): string[] {
  const { code, severity, summary, evidence, remedy } = finding;
  const mark = SEVERITY_MARKS[severity];
  const where = evidence.first === undefined ? '' : places(evidence.first);
  return [
    paint(mark.tone, `${markText(mark)} ${code}`, colors),
    ...wrap(plain(summary), width, '  ', '  '),
    ...(where === '' ? [] : [`  first: ${where}`]),
    ...wrap(plain(remedy), width, '     ', '  -> '),
    '',
  ];
}
