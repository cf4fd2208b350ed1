// What the README shows of a run: its table and the picture, from `pinhole compare --format json`.
//   node test/first-page/first-page.mjs --write  writes them
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PICTURE_THEMES, pathsPicture, size } from './paths-picture.mjs';

const root = join(import.meta.dirname, '../../../..');
const README = join(root, 'README.md');
const BEGIN = '<!-- written by npm run docs:readme -->\n';
const END = '<!-- until here -->\n';

/** @returns the files by path, as they must be. */
export function firstPage() {
  const main = join(import.meta.dirname, '../../dist/main.js');
  const json = execFileSync(process.execPath, [main, 'compare', '--format', 'json'], {
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
  });
  const { paths } = JSON.parse(json);
  const files = new Map();
  for (const theme of PICTURE_THEMES) {
    files.set(join(root, `docs/paths-${theme}.svg`), pathsPicture(paths, theme));
  }
  const readme = readFileSync(README, 'utf8');
  const [before, rest = ''] = readme.split(BEGIN);
  const [, after = ''] = rest.split(END);
  files.set(README, `${before}${BEGIN}\n${table(paths)}\n${END}${after}`);
  return files;
}

const OUTCOMES = {
  works: 'works',
  'works-slow': 'works, slowly',
  fails: '**fails**',
  'wrong-data': '**wrong data**',
};

function table(paths) {
  const rows = paths.map(({ number, report }) => {
    const { title, verdict, counters, reach } = report;
    const bounced = counters.workload.bytesBounced;
    return [
      number,
      title.replace('arch_virtio_wants_dma_ops()', "the RFC's hook"),
      OUTCOMES[verdict.outcome] ?? verdict.outcome,
      counters.hcallsPerRequestTotal === 0 ? '0' : counters.hcallsPerRequestTotal.toFixed(2),
      bounced === 0 ? '' : size(bounced),
      size(reach.plaintext),
    ];
  });
  const head = ['#', 'machine and guest', '', 'hypercalls a request', 'copied', 'device sees'];
  const line = (cells) => `| ${cells.join(' | ')} |\n`;
  return line(head) + line(['---', '---', '---', '---:', '---:', '---:']) + rows.map(line).join('');
}

if (process.argv[2] === '--write') {
  for (const [path, text] of firstPage()) writeFileSync(path, text);
}
