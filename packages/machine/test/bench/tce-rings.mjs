// The device's half of both rings behind a real window of TCEs: each access to the ring and each
// buffer is translated, as in QEMU. Build first.
//   node packages/machine/test/bench/tce-rings.mjs [--json docs/performance.json]
import { createSystemMemorySpace } from '@pinhole/memory';
import { SpaprPhb } from '@pinhole/tce';

// The work and the way to time it are those of the queues' own bench.
const support = new URL('../../../virtio/test/bench/support/', import.meta.url);
const [{ packedDevice, splitDevice }, { report }, { measure }] = await Promise.all(
  ['chains.mjs', 'report.mjs', 'windows.mjs'].map((file) => import(new URL(file, support).href)),
);

const PAGES = 2 ** 14;

/** The space of a device below a host bridge that maps each page to itself. */
function bridge(memory) {
  const phb = new SpaprPhb({ memory });
  for (let page = 0; page < PAGES; page += 1) phb.tables[0].put(page, BigInt(4096 * page + 3));
  return phb;
}

let phb;
const counted = (memory) => {
  phb = bridge(memory);
  return phb;
};
const lookups = (run) => {
  const before = phb.translations;
  const chains = run();
  return (phb.translations - before) / chains;
};

const cases = [];
const counts = new Map();
for (const [name, make, options] of [
  ['split, device', splitDevice],
  ['split, device: header read, status written', splitDevice, { hasIo: true }],
  ['split, device: with a table', splitDevice, { hasTables: true }],
  ['packed, device', packedDevice],
]) {
  const run = make(counted, options);
  counts.set(name, lookups(run));
  cases.push({ name, run });
}
const plain = splitDevice(createSystemMemorySpace);
cases.push({ name: 'split, device: without an IOMMU', run: plain });

report({
  key: 'translated',
  title: 'Virtqueues behind a window of TCEs',
  about:
    'The same chains behind a PCI host bridge. "Lookups": accesses to the ring and buffers of a chain that are translated, as many as in QEMU; what a page of the ring translates to is remembered until the table changes.',
  columns: ['what', 'ns', 'lookups'],
  rows: measure(cases).map(({ name, ns }) => [
    name,
    ns.toFixed(1),
    counts.has(name) ? counts.get(name).toFixed(1) : '0',
  ]),
});
