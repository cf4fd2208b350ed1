// Fuzzes the rings. Build first: npm run fuzz -- --executions 10000000 --seed 1
//   --target NAME   one of the targets; otherwise the executions are shared among all
//   --corpus DIR    programs to begin with; by default those of this folder
//   --save          write back the programs that reach something, as few as possible
//   --replay FILE   run one program and say what it finds
//   --report FILE   how many targets passed and failed, in the form of a vitest report
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createCounters, load } from './load.mjs';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const STATES = 2048;

const { values } = parseArgs({
  options: {
    executions: { type: 'string', default: '200000' },
    seed: { type: 'string', default: '1' },
    target: { type: 'string' },
    corpus: { type: 'string', default: join(HERE, 'corpus') },
    save: { type: 'boolean', default: false },
    replay: { type: 'string' },
    report: { type: 'string' },
  },
});

const counters = createCounters(2048);
const { Fuzzer, TARGETS } = await load('test/fuzz/index.ts', counters);
const names = values.target === undefined ? Object.keys(TARGETS) : [values.target];
for (const name of names) {
  if (TARGETS[name] === undefined) {
    console.error(`no target ${name}; there are: ${Object.keys(TARGETS).join(', ')}`);
    process.exit(2);
  }
}

function readCorpus(name) {
  const file = join(values.corpus, `${name}.txt`);
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '');
  return lines.map((line) => Uint8Array.from(Buffer.from(line, 'base64')));
}

function report(name, { input, error }) {
  const folder = join(HERE, 'findings');
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${name}-${Date.now()}.txt`);
  writeFileSync(file, `${Buffer.from(input).toString('base64')}\n`);
  console.log(`${name}: ${error.stack}`);
  console.log(`npm run fuzz -- --target ${name} --replay ${relative(process.cwd(), file)}`);
}

function fuzz(name, executions) {
  const states = new Uint8Array(STATES);
  const { weights, make } = TARGETS[name];
  const hits = [counters.hits, states];
  const corpus = readCorpus(name);
  const seed = Number(values.seed);
  const fuzzer = new Fuzzer({ target: make(states), hits, weights, seed, corpus });
  const start = performance.now();
  const cpu = process.cpuUsage();
  const found = fuzzer.replay() ?? fuzzer.fuzz(executions - corpus.length);
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const busy = (user + system) / 1e6;
  console.log(
    `${name}: ${fuzzer.executions} executions in ${seconds.toFixed(0)} s, ${busy.toFixed(0)} s of one core ` +
      `(${Math.round(fuzzer.executions / busy)}/s), ` +
      `${fuzzer.entries.length} programs reach ${fuzzer.coverage} states, ${found === undefined ? 'no finding' : 'a finding'}`,
  );
  if (found !== undefined) report(name, fuzzer.minimise(found));
  if (values.save) {
    mkdirSync(values.corpus, { recursive: true });
    const lines = fuzzer.minimalCorpus().map((input) => Buffer.from(input).toString('base64'));
    writeFileSync(join(values.corpus, `${name}.txt`), `${lines.join('\n')}\n`);
  }
  return found === undefined;
}

function replay(name, file) {
  const input = Uint8Array.from(Buffer.from(readFileSync(file, 'utf8').trim(), 'base64'));
  TARGETS[name].make(new Uint8Array(STATES)).run(input);
  console.log(`${name}: no finding`);
}

if (values.replay !== undefined) {
  replay(names[0], values.replay);
} else {
  const share = Math.ceil(Number(values.executions) / names.length);
  const results = names.map((name) => fuzz(name, share));
  const failed = results.filter((isGood) => !isGood).length;
  console.log(`${names.length - failed} targets without a finding, ${failed} with one`);
  if (values.report !== undefined) {
    mkdirSync(dirname(values.report), { recursive: true });
    const counts = { numPassedTests: names.length - failed, numFailedTests: failed };
    writeFileSync(
      values.report,
      JSON.stringify({ ...counts, numPendingTests: 0, numTodoTests: 0 }),
    );
  }
  process.exitCode = failed > 0 ? 1 : 0;
}
