// Hypercalls a second on a real QEMU: one at a time, and in batches of some sizes, with registers
// filled in and answers looked at; then reads of a BAR, of configuration space and of memory.
// Build first. Run: [PINHOLE_QEMU=...] node test/bench/hypercalls.mjs
import { H_PUT_TCE } from '@pinhole/hcall';
import { LiveQemu } from '@pinhole/live';

const ROUNDS = 5;
const LIOBN = 0x8000_0000n;
const PAGES = 0x4_0000;

const begin = performance.now();
const qemu = start();
console.log(`QEMU ${qemu.version}, started in ${(performance.now() - begin).toFixed(0)} ms`);

function start() {
  try {
    return LiveQemu.start({
      qemu: process.env.PINHOLE_QEMU ?? 'qemu-system-ppc64',
      args: ['-device', 'virtio-rng-pci,disable-legacy=on,addr=1'],
    });
  } catch (error) {
    if (error.code !== 'E_QEMU_MISSING') throw error;
    console.log(`not measured: ${error.message}`);
    process.exit(0);
  }
}

/** Times `count` operations some times over, and prints the best round. */
function measure(label, count, run) {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < ROUNDS; round += 1) {
    const start = performance.now();
    run(count);
    best = Math.min(best, (performance.now() - start) / count);
  }
  console.log(
    `${label.padEnd(34)} ${Math.round(1000 / best)
      .toLocaleString('en')
      .padStart(10)} /s`,
  );
}

function check(ret) {
  if (ret !== 0n && ret !== 0) throw new Error(`H_PUT_TCE returned ${ret}`);
}

/** Puts `count` TCEs in batches of `size`, and fills in the next batch while QEMU works. */
function putBatched(count, size) {
  const { batches } = qemu;
  const { registers, answers } = batches;
  const look = () => {
    const done = batches.collect();
    for (let i = 0; i < done; i += 1) check(answers[8 * i]);
  };
  for (let done = 0; done < count; done += size) {
    for (let i = 0; i < size; i += 1) {
      registers[8 * i] = BigInt(H_PUT_TCE);
      registers[8 * i + 1] = LIOBN;
      registers[8 * i + 2] = BigInt(((done + i) % PAGES) * 4096);
      registers[8 * i + 3] = BigInt(i * 4096 + 3);
    }
    if (done > 0) look();
    batches.submit(size);
  }
  look();
}

measure('H_PUT_TCE, one at a time', 10_000, (count) => {
  for (let i = 0; i < count; i += 1) {
    check(qemu.call(H_PUT_TCE, [LIOBN, BigInt((i % PAGES) * 4096), 3n]).ret);
  }
});
for (const size of [16, 128, 1024, 2048]) {
  measure(`H_PUT_TCE, batches of ${size}`, 64 * 2048, (count) => putBatched(count, size));
}
const pci = qemu.pciFunction({ device: 1 });
const bar = pci.bar(4);
measure('read of a BAR', 5_000, (count) => {
  for (let i = 0; i < count; i += 1) bar.read(0, 4);
});
measure('read of configuration space', 5_000, (count) => {
  for (let i = 0; i < count; i += 1) pci.configRead(0, 4);
});
const page = new Uint8Array(4096);
measure('read of a page of memory', 20_000, (count) => {
  for (let i = 0; i < count; i += 1) qemu.memory.read(0x10_0000 + (i % 1000) * 4096, page);
});
measure('reset', 10, (count) => {
  for (let i = 0; i < count; i += 1) qemu.reset();
});
qemu.close();
