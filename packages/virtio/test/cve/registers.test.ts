/**
 * Published holes of the registers of virtio devices, met by the device's side of PCI. Each comment
 * names the text that was read; docs/VIRTIO-CVES.md has the table.
 */
import { createGuestMemory, createSystemMemorySpace, type SparseMemory } from '@pinhole/memory';
import { expect, test } from 'vitest';
import {
  createVirtioPci,
  featureBits,
  type MmioRegion,
  VIRTIO_ID_BLOCK,
  VIRTIO_RING_F_EVENT_IDX,
  VirtioDeviceCore,
  type VirtioPciDevice,
} from '../../src/index.js';

interface Bench {
  readonly memory: SparseMemory;
  readonly core: VirtioDeviceCore;
  readonly fn: VirtioPciDevice;
  readonly kicked: number[];
  bar(index: number): MmioRegion;
}

function bench(): Bench {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 22 }] });
  const kicked: number[] = [];
  const core = new VirtioDeviceCore({
    deviceId: VIRTIO_ID_BLOCK,
    features: featureBits(VIRTIO_RING_F_EVENT_IDX),
    memory,
    space: createSystemMemorySpace(memory),
    queues: [0, 1].map((index) => ({
      maxSize: 16,
      handleOutput: (queue) => {
        kicked.push(index);
        for (let e = queue.pop(); e !== undefined; e = queue.pop()) queue.push(e, 0);
      },
    })),
    usesEventFds: false,
  });
  const fn = createVirtioPci({ device: core, mode: 'transitional' });
  fn.configWrite(4, 2, 7);
  return { memory, core, fn, kicked, bar: (index) => fn.bar(index)! };
}

// Offsets of the legacy structure: VIRTIO v1.2 §4.1.4.10; of the common configuration: §4.1.4.3.
const LEGACY_QUEUE_PFN = 8;
const LEGACY_QUEUE_SEL = 14;
const LEGACY_QUEUE_NOTIFY = 16;
const QUEUE_SIZE = 24;
const QUEUE_ENABLE = 28;
const QUEUE_DESC = 32;
const QUEUE_DRIVER = 40;
const QUEUE_DEVICE = 48;

// CVE-2011-2512, commit 7157e2e23e89 "virtio: guard against negative vq notifies": "A signed comparison
// is used but the virtqueue number could be negative [...] memory accesses outside of the virtqueue array."
test('CVE-2011-2512: a negative number in the Queue Notify register kicks no queue', () => {
  const { bar, kicked, core } = bench();
  for (const queue of [0, 1]) {
    bar(0).write(LEGACY_QUEUE_SEL, 2, queue);
    bar(0).write(LEGACY_QUEUE_PFN, 4, 4 + 4 * queue);
  }
  for (const value of [-1, -2, 0x8000, 0xffff, 1024, 2]) {
    bar(0).write(LEGACY_QUEUE_NOTIFY, 2, value);
    bar(0).write(LEGACY_QUEUE_SEL, 2, value);
    bar(0).read(LEGACY_QUEUE_PFN, 4);
  }
  expect([kicked, core.errors]).toEqual([[], []]);
  bar(0).write(LEGACY_QUEUE_NOTIFY, 2, 1);
  expect(kicked).toEqual([1]);
});

// CVE-2017-17381, record of the CVE list: "divide-by-zero error and QEMU process crash [...] by
// unsetting vring alignment while updating Virtio rings."
test('CVE-2017-17381: the page of a queue that is not there, or of size 0, is not computed', () => {
  const { bar, core } = bench();
  bar(0).write(LEGACY_QUEUE_SEL, 2, 700);
  bar(0).write(LEGACY_QUEUE_PFN, 4, 4);
  expect(bar(0).read(LEGACY_QUEUE_PFN, 4)).toBe(0);
  bar(4).write(QUEUE_SIZE, 2, 0);
  bar(4).write(QUEUE_DESC, 4, 0x4000);
  bar(4).write(QUEUE_ENABLE, 2, 1);
  expect(core.queues.every(({ size }) => size > 0)).toBe(true);
  bar(0).write(LEGACY_QUEUE_NOTIFY, 2, 0);
  expect(core.errors).toEqual([]);
});

// CVE-2020-13754, oss-security 2020-06-01: "an OOB access issue [...] while performing MSI-X mmio
// operations when a guest sent address goes beyond the mmio region."
test('CVE-2020-13754: accesses beside the MSI-X table and pending bits read 0 and write nothing', () => {
  const { fn, bar } = bench();
  const region = bar(1);
  const all = (): number[] =>
    Array.from({ length: region.size / 4 }, (_, i) => region.read(4 * i, 4));
  const before = all();
  for (const at of [region.size - 4, region.size, region.size + 4, 2 ** 31, 2 ** 32 - 4, -4]) {
    for (const width of [1, 2, 4] as const) {
      region.write(at, width, 0xffff_ffff);
      expect(region.read(at, width)).toBe(0);
    }
  }
  // Accesses that begin inside and end outside, and odd ones.
  for (const [at, width] of [
    [region.size - 1, 4],
    [region.size - 2, 4],
    [1, 4],
    [2, 4],
    [3, 2],
  ] as const) {
    region.write(at, width, 0xffff_ffff);
    expect(region.read(at, width)).toBe(0);
  }
  expect(all()).toEqual(before);
  expect(fn.configRead(0, 2)).toBe(0x1af4);
});

// CVE-2026-5747 (Firecracker), record of the CVE list: "modification of virtio queue configuration
// registers after device activation"; out-of-bounds write (CWE-787), division by zero (CWE-369).
test.each([0, 3, 32, 1024, 0x7fff, 0xffff])(
  'CVE-2026-5747: queue_size written as %i while the queue is at work moves nothing that it writes',
  (size) => {
    const { bar, memory, core } = bench();
    const common = bar(4);
    common.write(QUEUE_SIZE, 2, 16);
    common.write(QUEUE_DESC, 4, 0x1_0000);
    common.write(QUEUE_DRIVER, 4, 0x2_0000);
    common.write(QUEUE_DEVICE, 4, 0x3_0000);
    common.write(QUEUE_ENABLE, 2, 1);
    memory.writeU64Le(0x1_0000, 0x9000n);
    memory.writeU32Le(0x1_0008, 16);
    memory.writeU16Le(0x1_000c, 2);
    const queue = core.queues[0]!;
    for (let i = 1; i <= 40; i += 1) {
      if (i === 20) common.write(QUEUE_SIZE, 2, size);
      memory.writeU16Le(0x2_0002, i);
      const element = queue.pop()!;
      queue.push(element, 16);
    }
    expect(memory.readU16Le(0x3_0002)).toBe(40);
    const after = new Uint8Array(4096);
    memory.read(0x3_0000 + 6 + 8 * 16, after);
    expect(after.every((byte) => byte === 0)).toBe(true);
  },
);
