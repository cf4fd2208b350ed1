// Lines a second that `pinhole hcall` answers: 200,000 of all kinds, in the session alone, and end to
// end through the program, from a file to a file. Build all first. Run: node test/bench/hcall-session.mjs
import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createRng, hex } from '@pinhole/base';
import { HcallSession, parseMachine } from '@pinhole/machine';

const COUNT = 200_000;
const ROUNDS = 3;
const LIOBN = '0x80000000';
const BUID = [0x800_0000, 0x2000_0000];

const rng = createRng(1);
const page = (pages) => hex(rng.below(pages) * 4096);
const KINDS = [
  () => ({ op: 'H_PUT_TCE', args: [LIOBN, page(262_144), hex(rng.below(65_536) * 4096 + 3)] }),
  () => ({ op: 'H_GET_TCE', args: [LIOBN, page(262_144)] }),
  () => ({ op: 'H_STUFF_TCE', args: [LIOBN, page(262_144), 0, 1 + rng.below(16)] }),
  () => ({
    op: 'H_PUT_TCE_INDIRECT',
    args: [LIOBN, page(262_144), page(65_536), 1 + rng.below(512)],
  }),
  () => ({ rtas: 'ibm,query-pe-dma-window', args: [0, ...BUID], nret: 5 }),
  () => ({ write: { gpa: page(65_536), hex: '00ff'.repeat(8) } }),
  () => ({ read: { gpa: page(65_536), length: 16 } }),
  () => ({ op: 'H_PUT' }),
];
const lines = Array.from({ length: COUNT }, () => JSON.stringify(KINDS[rng.below(KINDS.length)]()));

/** Prints the best of some rounds of `work`, which answers all lines. */
function measure(label, work) {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round += 1) {
    const start = performance.now();
    work();
    best = Math.min(best, performance.now() - start);
  }
  const rate = Math.round((COUNT / best) * 1000);
  console.log(`${label.padEnd(34)} ${rate.toLocaleString('en')} lines/s`);
}

measure('session', () => {
  const session = new HcallSession(parseMachine(['machine.arch=pseries', 'machine.memory=256MiB']));
  for (const line of lines) session.answer(line);
});

const folder = mkdtempSync(join(tmpdir(), 'pinhole-bench-'));
const [questions, answers] = [join(folder, 'questions'), join(folder, 'answers')];
writeFileSync(questions, `${lines.join('\n')}\n`);
const program = fileURLToPath(new URL('../../../../apps/cli/dist/main.js', import.meta.url));
measure('pinhole hcall, its start included', () => {
  const files = [openSync(questions, 'r'), openSync(answers, 'w')];
  const { status } = spawnSync(process.execPath, [program, 'hcall'], {
    stdio: [...files, 'inherit'],
  });
  files.forEach(closeSync);
  if (status !== 0 || statSync(answers).size === 0) throw new Error('pinhole hcall: no answers');
});
rmSync(folder, { recursive: true });
