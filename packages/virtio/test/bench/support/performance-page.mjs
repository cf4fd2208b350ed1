// docs/PERFORMANCE.md, from what the benches measured: docs/performance.json.
//   node test/bench/support/performance-page.mjs          prints it
//   node test/bench/support/performance-page.mjs --write  writes it
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const docs = new URL('../../../../../docs/', import.meta.url);

const table = (rows) => rows.map((cells) => `| ${cells.join(' | ')} |`);

function section({ title, about, machine, node, columns, rows }) {
  const line = [columns.map(() => '---')];
  return [
    `## ${title}`,
    '',
    about,
    '',
    ...table([columns, ...line, ...rows]),
    '',
    `${machine.cpu}, ${machine.cores} cores; Node ${node}.`,
    '',
  ];
}

/** The page for measured sections, in the order of the file. */
export function performancePage() {
  const sections = JSON.parse(readFileSync(new URL('performance.json', docs), 'utf8'));
  return [
    '# Performance',
    '',
    'Made by `npm run docs:performance` from `performance.json`; do not edit. Measure anew on a quiet',
    'machine: `npm run build`, then each bench under `packages/*/test/bench` with',
    '`--json docs/performance.json`. Times say nothing by themselves: compare within a table.',
    '',
    ...Object.values(sections).flatMap(section),
  ].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const page = performancePage();
  if (process.argv.includes('--write')) writeFileSync(new URL('PERFORMANCE.md', docs), page);
  else process.stdout.write(page);
}
