// Random reads of 4 KiB, from the guest's driver through DMA operations, ring, PCI registers and
// device to a disk in memory and back, every way to memory: requests a second. Build first.
// Run: node test/bench/requests.mjs [--json FILE] [--profile]
//
// Medians of many short windows, the ways in turn, so that a noisy machine is noisy for all.

import { writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { createRng } from '@pinhole/base';
import { isBlkSuccess, probeVirtioBlk } from '@pinhole/guest';
import { createModelVirtioSide, SideGuest, shapeName, VIRTIO_SHAPES } from '@pinhole/live';

const WINDOW_MS = 60;
const WINDOWS = 25;
const WAYS = [
  ['flag off', 'blk-split-indirect-eventidx-bypass'],
  ['second window', 'blk-split-indirect-eventidx-ddw'],
  ['pinhole', 'blk-split-indirect-eventidx-pinhole'],
  ['flag off, packed', 'blk-packed-indirect-eventidx-bypass'],
  ['second window, packed', 'blk-packed-indirect-eventidx-ddw'],
  ['pinhole, packed', 'blk-packed-indirect-eventidx-pinhole'],
];
const DEPTHS = [1, 32];

const jsonAt = process.argv.indexOf('--json');
const shapes = VIRTIO_SHAPES.filter((shape) => WAYS.some(([, name]) => name === shapeName(shape)));
const guest = new SideGuest(createModelVirtioSide(shapes), 1);
const buffers = Array.from({ length: 32 }, () => guest.pages.allocUser(4096));
const rng = createRng(1);

const runs = WAYS.map(([name, device]) => {
  const shape = shapes.find((one) => shapeName(one) === device);
  const probed = probeVirtioBlk(guest.driverOptions(shape));
  if (!probed.ok) throw new Error(probed.message);
  return { name, driver: probed.driver, rates: DEPTHS.map(() => []) };
});

function batch(driver, depth) {
  const commands = [];
  for (let i = 0; i < depth; i += 1) {
    commands.push({ op: 'read', sector: 8 * rng.below(256), data: buffers[i] });
  }
  for (const request of driver.submit(commands)) {
    if (!isBlkSuccess(driver.wait(request))) throw new Error('a request failed');
  }
}

function window(driver, depth) {
  const start = performance.now();
  let done = 0;
  let now = start;
  while (now - start < WINDOW_MS) {
    for (let i = 0; i < 64 / depth; i += 1) batch(driver, depth);
    done += 64;
    now = performance.now();
  }
  return (done * 1000) / (now - start);
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

for (let n = -3; n < WINDOWS; n += 1) {
  for (const { driver, rates } of runs) {
    for (const [i, depth] of DEPTHS.entries()) {
      const rate = window(driver, depth);
      if (n >= 0) rates[i].push(rate);
    }
  }
}

const results = runs.map(({ name, rates }) => ({
  way: name,
  oneAtATime: Math.round(median(rates[0])),
  thirtyTwo: Math.round(median(rates[1])),
}));
const base = results[0];
for (const result of results) {
  result.ratio = Number((result.thirtyTwo / base.thirtyTwo).toFixed(2));
  process.stdout.write(
    `${result.way.padEnd(22)} ${String(result.oneAtATime).padStart(8)} requests/s one at a time, ${String(result.thirtyTwo).padStart(8)} in batches of 32 (${result.ratio})\n`,
  );
}

// Where the time goes: all ways, in batches.
const session = new Session();
session.connect();
await session.post('Profiler.enable');
await session.post('Profiler.setSamplingInterval', { interval: 200 });
await session.post('Profiler.start');
for (let n = 0; n < 10; n += 1) for (const { driver } of runs) window(driver, 32);
const { profile } = await session.post('Profiler.stop');
const self = new Map();
const total = profile.samples.length;
const byId = new Map(profile.nodes.map((node) => [node.id, node]));
for (const id of profile.samples) {
  const { functionName, url } = byId.get(id).callFrame;
  const file = url.split('/').slice(-3, -1).join('/').replace('/dist', '');
  const name = `${functionName || '(anonymous)'} ${file}`.trim();
  self.set(name, (self.get(name) ?? 0) + 1);
}
const top = [...self]
  .sort((a, b) => b[1] - a[1])
  .slice(0, 10)
  .map(([name, samples]) => ({ function: name, share: Number((samples / total).toFixed(3)) }));
process.stdout.write('\nself time, all ways:\n');
for (const { function: name, share } of top) {
  process.stdout.write(`${(100 * share).toFixed(1).padStart(5)} %  ${name}\n`);
}
if (jsonAt > 0) writeFileSync(process.argv[jsonAt + 1], JSON.stringify({ results, top }));
