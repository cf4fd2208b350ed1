/**
 * A whole run of the model against a whole run of real Linux on real QEMU: the same requests must
 * make the same hypercalls and the same device accesses, in the same order. What may differ is
 * where the kernel's allocator put its objects: addresses count from the page on where they point
 * into one, and physical addresses do not count.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { hex, type TraceEvent, Tracer } from '@pinhole/base';
import { findRecording, type RecordingName } from '@pinhole/recordings';
import { createMemorySink, createNdjsonWriter, findEvent, readQemuLog } from '@pinhole/trace';
import { expect, test } from 'vitest';
import { parseScenario, runScenario } from '../src/index.js';

/**
 * The 4 KiB reads with which each of these recordings begins. The eleventh is another: its header
 * happens to lie across two pages there.
 */
const READS = 10;
const RING_END = 0x4000n;
const BUS_ADDRESS = 0x0800_0000_0000_0000n;

function scenario(machine: string, device = ''): string {
  return `machine: { arch: pseries, memory: 2GiB, ${machine} }
devices: [{ type: virtio-blk, iommuPlatform: true ${device} }]
workload: [{ read: { offset: 0, length: ${READS * 4}KiB, block: 4KiB } }]`;
}

function runTraced(text: string): readonly TraceEvent[] {
  const sink = createMemorySink();
  runScenario(parseScenario(text), { tracer: new Tracer(sink) });
  return sink.events;
}

function recorded(name: RecordingName): readonly TraceEvent[] {
  const log = gunzipSync(readFileSync(findRecording(name).files.qemuTrace)).toString('utf8');
  return readQemuLog(log).events;
}

/** The story of a log from the ring's first map until `READS` requests are over. */
function story(events: readonly TraceEvent[]): string[] {
  const lines: string[] = [];
  let requests = 0;
  for (const { name, args } of events) {
    const bus = (key: string): string => {
      const address = args[key] as bigint;
      return hex(address < RING_END || address >= BUS_ADDRESS ? address : address & ~0xfffn);
    };
    if (name === 'spapr_iommu_pci_put') lines.push(`put ${bus('ioba')} ${permOf(args.tce)}`);
    if (name === 'spapr_iommu_pci_indirect') {
      lines.push(`indirect ${bus('ioba')} ${args.iobaN} ${permOf(args.tceN)}`);
    }
    // The boot clears the window by 512 entries at a time.
    if (name === 'spapr_iommu_pci_stuff' && args.npages !== 512n)
      lines.push(`stuff ${bus('ioba')}`);
    if (name === 'spapr_iommu_xlate')
      lines.push(`xlate ${bus('ioba')} ${args.perm} ${args.pgsize}`);
    if (name === 'virtio_queue_notify') lines.push('notify');
    if (name === 'virtqueue_pop') lines.push(`pop ${args.in_num} ${args.out_num}`);
    if (name === 'virtqueue_fill') lines.push(`fill ${args.len}`);
    if (name === 'virtio_blk_req_complete') lines.push(`complete ${args.status}`);
    if (name === 'virtqueue_flush') requests += 1;
    // The last request's accesses and unmaps come after its flush.
    if (requests === READS && name === 'virtio_queue_notify') break;
    if (requests === READS && name === 'spapr_iommu_pci_put') break;
  }
  return lines;
}

function permOf(tce: unknown): bigint {
  return (tce as bigint) & 3n;
}

test('path 2: hypercalls and device accesses of 10 reads are those of linux6.12-pinhole', () => {
  const model = story(runTraced(scenario('ddw: false')));
  const linux = story(recorded('linux6.12-pinhole'));
  // 1 ring map, then 4 puts and 4 stuffs a request.
  expect(model.filter((line) => line.startsWith('put'))).toHaveLength(4 * READS);
  expect(model.filter((line) => line.startsWith('stuff'))).toHaveLength(4 * READS);
  expect(model).toEqual(linux.slice(0, model.length));
  // What the recording has more begins the eleventh.
  expect(linux.slice(model.length)).toEqual(['indirect 0x290000 1 1', 'put 0x2a0000 3']);
});

test('without indirect descriptors, those of linux6.12-pinhole-noindirect', () => {
  const model = story(runTraced(scenario('ddw: false', ', indirect: false')));
  expect(model).toEqual(story(recorded('linux6.12-pinhole-noindirect')).slice(0, model.length));
  expect(model.filter((line) => line.startsWith('put'))).toHaveLength(3 * READS);
});

test('a first 4 KiB read uses bus addresses 0x10000, 0x20000, 0x30000 and 0x40000', () => {
  const puts = runTraced(scenario('ddw: false'))
    .filter(({ name }) => name === 'spapr_iommu_pci_put')
    .slice(0, 4);
  expect(puts.map(({ args }) => [hex(args.ioba as bigint), permOf(args.tce)])).toEqual([
    ['0x10000', 1n],
    ['0x20000', 3n],
    ['0x30000', 3n],
    ['0x40000', 1n],
  ]);
});

test('path 2: each request of n segments makes 2·(n+3) hypercalls', () => {
  const text = scenario('ddw: false')
    .replace('40KiB', '8MiB')
    .replace('block: 4KiB', 'block: 1MiB');
  let hypercalls = 0;
  let segments = 0;
  const seen: number[] = [];
  for (const { name, phase, args } of runTraced(text)) {
    if (name === 'hcall' && phase === 'begin') hypercalls += 1;
    // All but the header and the status byte.
    if (name === 'virtqueue_pop') segments = Number(args.in_num) + Number(args.out_num) - 2;
    if (name === 'blk_request' && phase === 'begin') hypercalls = 0;
    if (name === 'blk_request' && phase === 'end') {
      expect(hypercalls).toBe(2 * (segments + 3));
      seen.push(segments);
    }
  }
  expect(seen).toHaveLength(8);
  expect(new Set(seen).size).toBeGreaterThan(2);
});

test('path 3: one hypercall maps all memory; the device translates 16 times a request', () => {
  const events = runTraced(scenario('maxMemory: 4GiB'));
  const calls = (name: string) => events.filter((event) => event.name === name);
  const [indirect, ...more] = calls('spapr_iommu_pci_indirect');
  const real = recorded('linux6.12-ddw').find(({ name }) => name === 'spapr_iommu_pci_indirect');
  expect(more).toEqual([]);
  for (const key of ['liobn', 'ioba', 'iobaN', 'tceN', 'ret']) {
    expect(indirect?.args[key]).toBe(real?.args[key]);
  }
  expect(calls('spapr_iommu_pci_put')).toEqual([]);
  const count = (list: readonly TraceEvent[]): number =>
    story(list).filter((line) => line.startsWith('xlate')).length;
  // The recording's story goes on to the next kick.
  expect(count(events)).toBe(count(recorded('linux6.12-ddw')));
});

test('the same seed gives a byte-identical trace, another seed another one', () => {
  const digest = (seed: number): string => {
    const hash = createHash('sha256');
    const writer = createNdjsonWriter((text) => hash.update(text));
    const text = `${scenario('ddw: false').replace('4KiB }', '64KiB }')}\nseed: ${seed}`;
    runScenario(parseScenario(text.replace('72KiB', '2MiB')), { tracer: new Tracer(writer) });
    writer.close();
    return hash.digest('hex');
  };
  expect(digest(1)).toBe(digest(1));
  expect(digest(1)).not.toBe(digest(2));
});

test('every event that a run emits is in the catalogue, with all its arguments', () => {
  const offset =
    'machine: { arch: arm64, memory: 2GiB, dmaRanges: [{ cpu: 0x40000000, bus: 0, size: 1GiB }] }';
  const runs = [
    scenario('ddw: false'),
    scenario('maxMemory: 4GiB'),
    scenario('').replace('true', 'false').concat('\nguest: { secure: true }'),
    scenario('maxMemory: 4GiB').concat('\nguest: { secure: true }'),
    scenario('')
      .replace(/^.*$/m, offset)
      .replace('true', 'false')
      .concat('\nguest: { policy: rfc-2018 }'),
  ];
  const names = new Set<string>();
  for (const run of runs) {
    for (const { name, args, phase } of runTraced(run)) {
      names.add(name);
      const spec = findEvent(name);
      expect(spec?.span, name).toBe(phase !== undefined);
      for (const [key, value] of Object.entries(args)) {
        const arg = spec?.args.find((row) => row.name === key);
        expect(typeof value, `${name} ${key}`).toBe(arg?.type);
      }
    }
  }
  for (const name of ['hcall', 'uv_share_page', 'virtio_error', 'guest_warn', 'blk_request']) {
    expect(names).toContain(name);
  }
});
