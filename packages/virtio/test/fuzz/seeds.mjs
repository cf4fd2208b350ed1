// Writes the first corpus, from what real rings held: test/vectors. Run: node test/fuzz/seeds.mjs DIR
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createCounters, load } from './load.mjs';

const folder = process.argv[2];
if (folder === undefined) {
  console.error('usage: node test/fuzz/seeds.mjs DIR');
  process.exit(2);
}
const { chainSeeds, lapSeeds, traceSeeds } = await load('test/fuzz/seeds.ts', createCounters(4096));
const vector = (name) => readFileSync(new URL(`../vectors/${name}`, import.meta.url), 'utf8');
const traces = ['', '-noindirect', '-packed'].map((kind) =>
  traceSeeds(vector(`linux6.12-pinhole${kind}.guest.txt`)),
);
traces.push(lapSeeds());
const chains = vector('qemu7.2-chains.ndjson');
const corpora = {
  'split-device': [...chainSeeds(chains, false), ...traces.map(({ device }) => device)],
  'packed-device': [...chainSeeds(chains, true), ...traces.map(({ device }) => device)],
  'split-driver': traces.map(({ driver }) => driver),
  'packed-driver': traces.map(({ driver }) => driver),
};
mkdirSync(folder, { recursive: true });
for (const [name, programs] of Object.entries(corpora)) {
  const lines = programs.map((program) => Buffer.from(program).toString('base64'));
  writeFileSync(join(folder, `${name}.txt`), `${lines.join('\n')}\n`);
}
