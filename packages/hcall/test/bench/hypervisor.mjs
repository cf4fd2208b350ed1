// The figures of the hypervisor's side: medians of many short windows, with their baselines in the
// same run. Build first. Run: npm run bench, or node test/bench/hypervisor.mjs
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { H_PUT_TCE, H_PUT_TCE_INDIRECT, H_STUFF_TCE, SpaprMachine } from '@pinhole/hcall';
import { createGuestMemory, DmaAccess, DmaStatus } from '@pinhole/memory';

const GIB = 2 ** 30;
const LIOBN = 0x8000_0000n;
const LIST = 0x10_0000;

const machine = new SpaprMachine({
  memory: createGuestMemory({ regions: [{ base: 0, size: 2 * GIB }] }),
});
const { hypercalls, memory, iommu } = machine;
const [phb] = iommu.phbs;
const [window] = phb.tables;

/** The median time of one call of `run` in milliseconds, divided by `per`, in nanoseconds. */
function median(run, per, windows = 101) {
  // The first runs are for the compiler.
  for (let i = 0; i < 20; i += 1) run();
  const times = Array.from({ length: windows }, () => {
    const start = performance.now();
    run();
    return performance.now() - start;
  });
  times.sort((a, b) => a - b);
  return (times[windows >> 1] * 1e6) / per;
}

const rows = [];
const row = (what, value, unit, target, baseline = '') => {
  const verdict = target === undefined ? '' : value <= target ? 'holds' : 'MISSED';
  const limit = target === undefined ? '' : `at most ${target}`;
  rows.push([what, `${value.toFixed(1)} ${unit}`, limit, verdict, baseline]);
};

// Translations, as a device asks for them: one hot page, then pages at random.
for (let i = 0; i < window.nbTable; i += 1) window.put(i, BigInt(i) * 4096n + 3n);
const out = { gpa: 0, length: 0 };
const TRANSLATIONS = 20_000;
const oneHotPage = Uint32Array.from({ length: 4096 }, (_, i) => 0x2000 + (i & 0xff0));
const anywhere = Uint32Array.from(
  { length: 65_536 },
  (_, i) => (Math.imul(i, 0x9e3779b1) >>> 0) % GIB,
);
function translations(addresses) {
  const mask = addresses.length - 1;
  let bytes = 0;
  for (let i = 0; i < TRANSLATIONS; i += 1) {
    const status = phb.translate(0, addresses[i & mask], 16, DmaAccess.READ, out);
    if (status === DmaStatus.OK) bytes += out.length;
  }
  if (bytes === 0) throw new Error('nothing was translated');
}
const hot = median(() => translations(oneHotPage), TRANSLATIONS);
const probe = cProbe();
row('translate, one hot page', hot, 'ns', 15, 'as a device calls it');
if (probe === undefined) rows.push(['translate / the same in C', 'no C compiler', '', '', '']);
else row('translate / the same in C', hot / probe, 'x', 5, `C: ${probe.toFixed(1)} ns`);
row(
  'translate, anywhere in 1 GiB',
  median(() => translations(anywhere), TRANSLATIONS),
  'ns',
);

// H_PUT_TCE through the dispatcher.
const PUTS = 5_000;
const puts = Array.from({ length: PUTS }, (_, i) => [
  LIOBN,
  BigInt((i * 7919) % window.nbTable) * 4096n,
  BigInt(i) * 4096n + 3n,
]);
row(
  'H_PUT_TCE',
  median(() => {
    for (const args of puts)
      if (hypercalls.call(H_PUT_TCE, args).ret !== 0) throw new Error('refused');
  }, PUTS),
  'ns',
  250,
);

// H_PUT_TCE_INDIRECT of 512; the baseline only decodes the list.
const CALLS = 40;
for (let i = 0; i < 512; i += 1) memory.writeU64Be(LIST + i * 8, BigInt(i) * 4096n + 3n);
const lists = Array.from({ length: CALLS }, (_, i) => [
  LIOBN,
  BigInt(i * 512) * 4096n,
  BigInt(LIST),
  512n,
]);
const flat = new Uint32Array(1024);
const decoded = median(() => {
  const bytes = new Uint8Array(4096);
  const view = new DataView(bytes.buffer);
  for (let call = 0; call < CALLS; call += 1) {
    memory.read(LIST, bytes);
    for (let i = 0; i < 1024; i += 1) flat[i] = view.getUint32(i * 4);
  }
}, CALLS * 512);
row(
  'H_PUT_TCE_INDIRECT of 512, per TCE',
  median(() => {
    for (const args of lists) {
      if (hypercalls.call(H_PUT_TCE_INDIRECT, args).ret !== 0) throw new Error('refused');
    }
  }, CALLS * 512),
  'ns',
  10,
  `reading the list alone: ${decoded.toFixed(1)} ns`,
);

// What a kernel does to a window at boot: 512 calls of 512 entries. All of it is mapped before.
const clear = Array.from({ length: 512 }, (_, i) => [LIOBN, BigInt(i * 512) * 4096n, 0n, 512n]);
const mapped = () => {
  for (let i = 0; i < window.nbTable; i += 1) window.putHalves(i, 0, i * 4096 + 3);
};
const clears = Array.from({ length: 21 }, () => {
  mapped();
  const start = performance.now();
  for (const args of clear) hypercalls.call(H_STUFF_TCE, args);
  return performance.now() - start;
}).sort((a, b) => a - b);
if (window.live !== 0) throw new Error('entries are left');
row('512 H_STUFF_TCE that clear 1 GiB', clears[10], 'ms', 5);

row('a million TCEs scattered over 64 TiB', scattered(), 'MB', 200);

const widths = [0, 1, 2, 3, 4].map((c) => Math.max(...rows.map((r) => r[c].length)));
for (const r of rows)
  console.log(
    r
      .map((cell, c) => cell.padEnd(widths[c]))
      .join('  ')
      .trimEnd(),
  );
console.log(`Node ${process.version}, medians of many short windows`);

// The same lookup in C, where there is a compiler.
function cProbe() {
  const folder = mkdtempSync(join(tmpdir(), 'pinhole-bench-'));
  try {
    const program = join(folder, 'probe');
    const source = join(import.meta.dirname, 'translate-probe.c');
    const { status } = spawnSync('cc', ['-O2', '-o', program, source], { stdio: 'ignore' });
    return status === 0 ? Number(execFileSync(program, { encoding: 'utf8' })) : undefined;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

// Host memory for them, in a process of its own.
function scattered() {
  const script = `
    import { TceTable } from '@pinhole/tce';
    const table = new TceTable(1);
    table.enable({ pageShift: 16, busOffset: 2n ** 59n, nbTable: 2 ** 30 });
    globalThis.gc();
    const used = () => { const { heapUsed, arrayBuffers } = process.memoryUsage(); return heapUsed + arrayBuffers; };
    const before = used();
    for (let i = 0; i < 1_000_000; i += 1) {
      table.putHalves((Math.imul(i, 0x9e3779b1) >>> 0) % 2 ** 30, i >>> 20, ((i << 12) | 3) >>> 0);
    }
    globalThis.gc();
    console.log((used() - before) / 1e6);
    if (table.live < 990_000) throw new Error('entries are missing: ' + table.live);
  `;
  const args = ['--expose-gc', '--input-type=module', '-e', script];
  return Number(
    execFileSync(process.execPath, args, { encoding: 'utf8', cwd: import.meta.dirname }),
  );
}
