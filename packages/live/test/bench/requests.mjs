// Random reads of 4 KiB, from the guest's driver through DMA operations, ring, PCI registers and
// device to a disk in memory and back, every way to memory: requests a second. Build first.
//   node packages/live/test/bench/requests.mjs [--json docs/performance.json]
//
// Medians of many short windows, the ways in turn, so that a noisy machine is noisy for all.

import { Session } from 'node:inspector/promises';
import { createRng } from '@pinhole/base';
import { isBlkSuccess, probeVirtioBlk } from '@pinhole/guest';
import { createModelVirtioSide, SideGuest, shapeName, VIRTIO_SHAPES } from '@pinhole/live';

const { report } = await import(
  new URL('../../../virtio/test/bench/support/report.mjs', import.meta.url).href
);

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

const medians = runs.map(({ rates }) => rates.map(median));
const thousands = (rate) => Math.round(rate).toLocaleString('en-US');
report({
  key: 'requests',
  title: 'Whole requests',
  about:
    "Random reads of 4 KiB: the guest's driver, its DMA operations (hypercalls for the pinhole), ring, PCI registers, device, a disk in memory, interrupt, and back. Requests a second, one at a time and 32 with one kick; indirect tables, EVENT_IDX.",
  columns: ['way to memory', 'one at a time', '32 at once', 'compared with the flag off'],
  rows: runs.map(({ name }, i) => [
    name,
    thousands(medians[i][0]),
    thousands(medians[i][1]),
    `${Math.round((100 * medians[i][1]) / medians[0][1])} %`,
  ]),
});

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
  const file = /packages\/([a-z]+)\//.exec(url)?.[1] ?? 'node';
  const name = `${functionName || '(anonymous)'}\t${file}`;
  self.set(name, (self.get(name) ?? 0) + 1);
}
const top = [...self]
  .sort((a, b) => b[1] - a[1])
  .slice(0, 10)
  .map(([name, samples]) => [...name.split('\t'), `${((100 * samples) / total).toFixed(1)} %`]);
process.stdout.write('\n');
report({
  key: 'profile',
  title: 'Where the time of whole requests goes',
  about: 'The ten functions with the most time of their own, all of these ways together.',
  columns: ['function', 'package', 'share'],
  rows: top,
});
