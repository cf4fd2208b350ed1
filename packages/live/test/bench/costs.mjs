// What measured constants of the cost presets come from. For power9-tcg: hypercalls, TCEs and translations on
// a real QEMU under TCG, and, where there is Python, IOTLB misses and invalidations of a vhost-user device.
// For this host's own kind of machine under KVM: how fast memory is copied.
// Best, median and 90th percentile of many rounds, where a line says nothing else; then their mean, which is
// what many of them add up to. Build first.
//   [PINHOLE_QEMU=...] node packages/live/test/bench/costs.mjs

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { createRng } from '@pinhole/base';
import { createPhysicalDmaOps, GuestPages, isBlkSuccess, probeVirtioBlk } from '@pinhole/guest';
import { H_PUT_TCE, H_PUT_TCE_INDIRECT, H_STUFF_TCE } from '@pinhole/hcall';
import { LiveQemu, SideGuest, shapeName, startVirtioMachine, VIRTIO_SHAPES } from '@pinhole/live';
import { createPciTransport } from '@pinhole/virtio';

const LIOBN = 0x8000_0000n;
const ROUNDS = 60;
const BATCH = 1024;
/** No hypercall: how long a batch takes without one. */
const H_NONE = 0xfff0;
const LIST = 0x40_0000;
/** A virtio-blk of QEMU takes no more. */
const MOST_SEGMENTS = 120;
const SEGMENT = 512;

function start(args = []) {
  try {
    const qemu = process.env.PINHOLE_QEMU ?? 'qemu-system-ppc64';
    return LiveQemu.start({ qemu, args });
  } catch (error) {
    if (error.code !== 'E_QEMU_MISSING') throw error;
    console.log(`not measured: ${error.message}`);
    process.exit(0);
  }
}

const at = (sorted, share) =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];

function show(label, samples, shares = [0, 0.5, 0.9]) {
  const sorted = [...samples].sort((a, b) => a - b);
  const mean = sorted.reduce((sum, value) => sum + value, 0) / sorted.length;
  const figures = [...shares.map((share) => at(sorted, share)), mean].map(Math.round);
  console.log(`${label.padEnd(54)} ${figures.map((ns) => String(ns).padStart(9)).join('')}`);
  return sorted;
}

/** Nanoseconds of one of `count` calls in one batch. */
function batch(qemu, count, fill) {
  const { registers } = qemu.batches;
  for (let i = 0; i < count; i += 1) registers.set(fill(i), 8 * i);
  const begin = process.hrtime.bigint();
  qemu.batches.submit(count);
  qemu.batches.collect();
  return Number(process.hrtime.bigint() - begin) / count;
}

const page = (i) => BigInt(i % 1024) * 4096n;
const put = (i) => [BigInt(H_PUT_TCE), LIOBN, page(i), page(i) + 3n];
const indirect = (count) => (i) => [
  BigInt(H_PUT_TCE_INDIRECT),
  LIOBN,
  page(i),
  BigInt(LIST),
  BigInt(count),
];
const stuff = (count) => (i) => [BigInt(H_STUFF_TCE), LIOBN, page(i), 0n, BigInt(count)];
const none = () => [BigInt(H_NONE)];

const qemu = start();
for (let i = 0; i < 512; i += 1) qemu.memory.writeU64Be(LIST + 8 * i, page(i) + 3n);
const rounds = (count, fill) => Array.from({ length: ROUNDS }, () => batch(qemu, count, fill));
console.log(`QEMU ${qemu.version}; nanoseconds: best, median, 90 %, mean of ${ROUNDS} rounds`);
show('a hypercall that does not exist', rounds(BATCH, none));
show('H_PUT_TCE', rounds(BATCH, put));
const one = show('H_PUT_TCE_INDIRECT of 1', rounds(BATCH, indirect(1)));
const many = show('H_PUT_TCE_INDIRECT of 512', rounds(128, indirect(512)));
show(
  '  so each further TCE',
  many.map((ns, i) => (ns - one[i]) / 511),
);
const stuffOne = show('H_STUFF_TCE of 1', rounds(BATCH, stuff(1)));
const stuffMany = show('H_STUFF_TCE of 512', rounds(128, stuff(512)));
show(
  '  so each further TCE',
  stuffMany.map((ns, i) => (ns - stuffOne[i]) / 511),
);
qemu.close();

measureTranslations();
await measureVhost();
measureCopies();

/**
 * By two disks, flag off and behind a second window, which costs a request nothing but translations. In CPU
 * time of the thread that serves them: what else the host does is not in it.
 */
function measureTranslations() {
  const shapes = ['blk-split-indirect-eventidx-bypass', 'blk-split-indirect-eventidx-ddw'].map(
    (name) => VIRTIO_SHAPES.find((shape) => shapeName(shape) === name),
  );
  const folder = mkdtempSync(join(tmpdir(), 'pinhole-costs-'));
  const pidfile = join(folder, 'pid');
  const { PINHOLE_QEMU: qemu } = process.env;
  const args = ['-pidfile', pidfile];
  const side = startVirtioMachine(shapes, qemu === undefined ? { args } : { qemu, args });
  const pid = readFileSync(pidfile, 'utf8').trim();
  rmSync(folder, { recursive: true });
  const guest = new SideGuest(side, 1);
  const drivers = shapes.map((shape) => {
    const probed = probeVirtioBlk(guest.driverOptions(shape));
    if (!probed.ok) throw new Error(probed.message);
    return probed.driver;
  });
  const [{ gpa: base }] = guest.pages.allocUser(MOST_SEGMENTS * 2 * SEGMENT);
  const still = new Int32Array(new SharedArrayBuffer(4));
  // Nanoseconds on a CPU, when it has nothing more to do.
  const cpuTime = () => {
    const read = () =>
      Number(readFileSync(`/proc/${pid}/task/${pid}/schedstat`, 'utf8').split(' ')[0]);
    for (let last = -1, now = read(); ; last = now, now = read()) {
      if (now === last) return now;
      Atomics.wait(still, 0, 0, 2);
    }
  };
  // Of a read of so many segments that do not touch: the least of 8 times 64.
  const time = (driver, segments) => {
    const data = Array.from({ length: segments }, (_, i) => ({
      gpa: base + 2 * SEGMENT * i,
      length: SEGMENT,
    }));
    const commands = Array.from({ length: 32 }, () => ({ op: 'read', sector: 0, data }));
    const isRead = () => driver.submit(commands).every((read) => isBlkSuccess(driver.wait(read)));
    const times = Array.from({ length: 8 }, () => {
      const begin = cpuTime();
      if (!isRead() || !isRead()) throw new Error('a read failed');
      return (cpuTime() - begin) / 64;
    });
    return Math.min(...times);
  };
  // More segments cost both; what the window adds to each is the rest.
  const added = () => {
    const [bypass, window] = drivers.map((driver) => time(driver, MOST_SEGMENTS) - time(driver, 2));
    return (window - bypass) / (MOST_SEGMENTS - 2);
  };
  added();
  show('a translation: 10 %, median, 90 %', Array.from({ length: 15 }, added), [0.1, 0.5, 0.9]);
  side.close();
}

/** By one CPU, from memory that was not touched for a while, and of what was just copied. */
function measureCopies() {
  const pool = 2 ** 26;
  const [from, to] = [Buffer.alloc(pool, 1), Buffer.alloc(pool, 2)];
  for (const piece of [4096, 65_536]) {
    for (const [name, spread] of [
      ['cold', pool],
      ['hot', piece],
    ]) {
      let at = 0;
      // MB/s, the best of 10 times 2 MiB.
      const best = () => {
        const rates = Array.from({ length: 10 }, () => {
          const begin = process.hrtime.bigint();
          for (let done = 0; done < 2 ** 21; done += piece, at = (at + piece) % spread) {
            from.copy(to, at, at, at + piece);
          }
          return (2 ** 21 * 1e3) / Number(process.hrtime.bigint() - begin);
        });
        return Math.max(...rates);
      };
      const rates = Array.from({ length: 20 }, best);
      show(`copies of ${piece} bytes, ${name}, MB/s: 10 %, median, 90 %`, rates, [0.1, 0.5, 0.9]);
    }
  }
}

async function measureVhost() {
  const folder = mkdtempSync(join(tmpdir(), 'pinhole-iotlb-'));
  const socket = join(folder, 'vhost-user');
  const script = new URL('support/iotlb-backend.py', import.meta.url).pathname;
  const backend = spawn('python3', [script, socket, '4000'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const failed = new Promise((resolve) => backend.on('error', () => resolve(undefined)));
  const lines = createInterface({ input: backend.stdout })[Symbol.asyncIterator]();
  const next = async () => (await Promise.race([lines.next(), failed]))?.value;
  try {
    if ((await next()) !== 'ready') {
      console.log('IOTLB not measured: no python3');
      return;
    }
    const live = start([
      ...['-chardev', `socket,id=vu,path=${socket}`],
      ...['-device', 'vhost-user-blk-pci,chardev=vu,iommu_platform=on,disable-legacy=on,addr=1'],
    ]);
    const misses = [];
    drive(live);
    for (let line = await next(); line !== 'done' && line !== undefined; line = await next()) {
      misses.push(Number(line));
    }
    show('IOTLB miss, from its message to its update', misses);
    const times = (value) =>
      Array.from({ length: 4 * ROUNDS }, () => {
        batch(live, 64, (i) => [BigInt(H_PUT_TCE), LIOBN, 0x800_0000n + page(i), 3n]);
        return batch(live, 64, (i) => [BigInt(H_PUT_TCE), LIOBN, 0x800_0000n + page(i), value]);
      });
    // What is mapped over again notifies nobody; what is unmapped invalidates.
    const without = show('H_PUT_TCE that maps', times(3n));
    const withOne = show('H_PUT_TCE that unmaps', times(0n));
    show(
      '  so an IOTLB invalidation',
      withOne.map((ns, i) => ns - without[i]),
    );
    live.close();
  } finally {
    backend.kill();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A guest whose bus addresses are physical ones, as far as DRIVER_OK. */
function drive(live) {
  for (let i = 0; i < 512; i += 1) live.memory.writeU64Be(LIST + 8 * i, 0n);
  for (let first = 0; first < 0x8000; first += 512) {
    for (let i = 0; i < 512; i += 1) {
      live.memory.writeU64Be(LIST + 8 * i, BigInt(first + i) * 4096n + 3n);
    }
    const ioba = BigInt(first) * 4096n;
    live.call(H_PUT_TCE_INDIRECT, [LIOBN, ioba, BigInt(LIST), 512n]);
  }
  const { memory } = live;
  const pages = new GuestPages({
    pageSize: 4096,
    kernel: { base: 0x100_0000, size: 0x200_0000 },
    user: { base: 0x400_0000, size: 0x200_0000 },
    rng: createRng(1),
  });
  const made = createPciTransport(live.pciFunction({ device: 1 }));
  if (!made.ok) throw new Error(made.message);
  const probed = probeVirtioBlk({
    transport: made.transport,
    memory,
    pages,
    smpCacheBytes: 128,
    chooseDma: () => createPhysicalDmaOps({ memory, pages }),
  });
  if (!probed.ok) throw new Error(probed.message);
}
