// Nanoseconds a translation through a host bridge, as devices ask for them: every page of a window
// in turn, one hot page, and pages at random. Build first. Run: node test/bench/translate.mjs
import { createRng } from '@pinhole/base';
import { createGuestMemory, DmaAccess, DmaStatus } from '@pinhole/memory';
import { SpaprPhb } from '@pinhole/tce';

const COUNT = 5_000_000;
const ROUNDS = 5;
const GIB = 2 ** 30;

const memory = createGuestMemory({ regions: [{ base: 0, size: 2 * GIB }] });
const phb = new SpaprPhb({ memory });
const [window, second] = phb.tables;
window.fill(0, window.nbTable, 0x3n);
for (let i = 0; i < window.nbTable; i += 1) window.put(i, BigInt(i) * 4096n + 3n);
second.enable({ pageShift: 24, busOffset: phb.dma64WindowAddress, nbTable: 128 });
for (let i = 0; i < 128; i += 1) second.put(i, BigInt(i) * 0x100_0000n + 3n);

const rng = createRng(1);
const anywhere = Uint32Array.from({ length: 65_536 }, () => rng.below(GIB));
const out = { gpa: 0, length: 0 };

/** Times `COUNT` translations some times over; the first rounds are for the compiler. */
function measure(label, hi, addressAt) {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round += 1) {
    let bytes = 0;
    const start = performance.now();
    for (let i = 0; i < COUNT; i += 1) {
      const status = phb.translate(hi, addressAt(i), 16, DmaAccess.READ, out);
      if (status === DmaStatus.OK) bytes += out.length;
    }
    best = Math.min(best, (performance.now() - start) / COUNT);
    if (bytes === 0) throw new Error(`${label}: nothing was translated`);
  }
  console.log(`${label.padEnd(34)} ${(best * 1e6).toFixed(1)} ns/op`);
}

measure('default window, one page', 0, (i) => 0x2000 + (i & 0xff0));
measure('default window, page after page', 0, (i) => (i * 4096) % GIB);
measure('default window, anywhere', 0, (i) => anywhere[i & 0xffff]);
measure('second window, 16 MiB pages', 0x0800_0000, (i) => anywhere[i & 0xffff]);
