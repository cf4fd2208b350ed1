// How a bench says what it found: a table for people, and with `--json FILE` one section of a file
// from which docs/PERFORMANCE.md is made.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';

/** `section`: key, title, about, columns, rows of strings. */
export function report({ key, ...section }) {
  const rows = [section.columns, ...section.rows];
  const widths = section.columns.map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  for (const row of rows) {
    console.log(
      row
        .map((cell, i) => cell.padEnd(widths[i]))
        .join('  ')
        .trimEnd(),
    );
  }
  const flag = process.argv.indexOf('--json');
  if (flag < 0) return;
  const file = process.argv[flag + 1];
  const all = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {};
  const machine = { cpu: cpus()[0]?.model ?? 'unknown', cores: availableParallelism() };
  all[key] = { ...section, machine, node: process.version };
  writeFileSync(file, `${asFormatted(all)}\n`);
}

/** As the formatter has it: a list of words that fits stays on its line. */
function asFormatted(value) {
  return JSON.stringify(value, null, 2).replace(
    /^( *)(.*)\[\n([^[\]{}]*)\n *\]/gm,
    (all, indent, key, items) => {
      const line = `${indent}${key}[${items.trim().replace(/\n */g, ' ')}]`;
      return line.length < 100 ? line : all;
    },
  );
}
