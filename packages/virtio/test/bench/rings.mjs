// Both halves of both rings beside the virtqueue of `v86`, in the same run. Build first.
//   node packages/virtio/test/bench/rings.mjs [--json docs/performance.json]
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import { driverQueue, packedDevice, splitDevice } from './support/chains.mjs';
import { peerV86 } from './support/peer-v86.mjs';
import { report } from './support/report.mjs';
import { heapGrowth, measure } from './support/windows.mjs';

setFlagsFromString('--expose-gc');
globalThis.gc = runInNewContext('gc');

const plain = createSystemMemorySpace;
const v86 = await peerV86();
const rings = [
  { name: 'split, device: pop, walk, push', run: splitDevice(plain) },
  { name: 'split, device: with a table', run: splitDevice(plain, { hasTables: true }) },
  { name: 'split, device: header read, status written', run: splitDevice(plain, { hasIo: true }) },
  { name: 'packed, device: pop, walk, push', run: packedDevice(plain) },
  { name: 'split, driver: add, get', run: driverQueue(false) },
  { name: 'packed, driver: add, get', run: driverQueue(true) },
];
const peers = [
  { name: `v86 ${v86.version}, over a plain array`, run: v86.plainMemory },
  { name: `v86 ${v86.version}, over its own memory`, run: v86.ownMemory },
];

const PAGES = 256;
const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 24 }] });
memory.fill(0, 4096 * PAGES, 1);
const flat = new Uint8Array(4096 * PAGES).fill(1);
const page = new Uint8Array(4096);
const pages = Array.from({ length: PAGES }, (_, i) => flat.subarray(4096 * i, 4096 * (i + 1)));
const each = (copy) => () => {
  for (let i = 0; i < PAGES; i += 1) copy(i);
  return PAGES;
};
const copies = [
  { name: 'TypedArray.set, 4 KiB out of memory', run: each((i) => page.set(pages[i])) },
  { name: 'read, 4 KiB', run: each((i) => memory.read(4096 * i, page)) },
  { name: 'TypedArray.set, 4 KiB into memory', run: each((i) => flat.set(page, 4096 * i)) },
  { name: 'write, 4 KiB', run: each((i) => memory.write(4096 * i, page)) },
];

const timed = measure([...rings, ...peers, ...copies]);
const peerNs = timed.find(({ name }) => name === peers[0].name).ns;
const heap = new Map(rings.map((ring) => [ring.name, heapGrowth(ring, 2_000_000)]));
const [setOut, , setIn] = timed.slice(-copies.length);
const rows = timed.map(({ name, ns }) => {
  const growth = heap.get(name);
  const isChain = name.includes('device') || name.startsWith('v86');
  const set = name.startsWith('read') ? setOut : name.startsWith('write') ? setIn : undefined;
  const times = set === undefined ? undefined : `${((100 * set.ns) / ns).toFixed(0)} % of set`;
  return [
    name,
    ns.toFixed(1),
    times ?? (isChain ? `${(peerNs / ns).toFixed(1)} x v86` : ''),
    growth === undefined ? '' : (growth.allocated / growth.done).toFixed(2),
  ];
});
report({
  key: 'rings',
  title: 'Virtqueues, one half at a time',
  about:
    'A queue of 256; chains of 16 B and 4 KiB to read and 1 B to write; EVENT_IDX; no IOMMU. Nanoseconds for a chain, or for a page that is copied: medians of many short windows, taken in turns. "Allocated": what the heap grew by while two million chains passed.',
  columns: ['what', 'ns', 'compared', 'allocated, B'],
  rows,
});
v86.end();
process.exit(0);
