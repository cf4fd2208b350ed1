/** Packed rings and indirect tables that vhost has to wait for. */
import { hiOf, loOf } from '@pinhole/base';
import { createGuestMemory, createSystemMemorySpace, type DmaOps } from '@pinhole/memory';
import {
  createDriverQueue,
  encodeBlkHeader,
  negotiateFeatures,
  setDriverOk,
  VIRTIO_BLK_T_IN,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '@pinhole/virtio';
import { expect, test } from 'vitest';
import { createMemoryBackend, VirtioBlk } from '../../src/index.js';
import { direct } from '../direct-transport.js';
import { MOVED, PAGE, PageIommu } from './bench.js';

const DATA = 0x8_0000;
const OTHER = 0x9_0000;
const TABLES = 0x6_0000;

function createPackedBench(hasIndirect: boolean) {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 20 }] });
  const iommu = new PageIommu();
  const disk = Uint8Array.from({ length: 8192 }, (_, i) => (i >> 9) + 1);
  const blk = new VirtioBlk({
    backend: createMemoryBackend(disk),
    memory,
    systemMemory: createSystemMemorySpace(memory),
    iommuPlatform: true,
    packed: true,
    queueSize: 8,
    vhost: { iommu },
  });
  const transport = direct(blk.core);
  const bits = [VIRTIO_F_VERSION_1, VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_RING_PACKED];
  if (hasIndirect) bits.push(VIRTIO_RING_F_INDIRECT_DESC);
  const supported = bits.reduce((sum, bit) => sum | (1n << BigInt(bit)), 0n);
  expect(negotiateFeatures(transport, { supported }).ok).toBe(true);
  let next = 0x1_0000;
  // Everything is MOVED on the bus; what is mapped there is for the test to say.
  const dma: DmaOps = {
    name: 'moved',
    maxMappingSize: Number.MAX_SAFE_INTEGER,
    map(gpa, _length, _direction, out) {
      out.hi = hiOf(gpa + MOVED);
      out.lo = loOf(gpa + MOVED);
      return true;
    },
    unmap() {},
    allocCoherent(length, out) {
      const gpa = next;
      next += Math.ceil(length / PAGE) * PAGE;
      for (let at = gpa; at < next; at += PAGE) iommu.map(at + MOVED, at);
      out.hi = hiOf(gpa + MOVED);
      out.lo = loOf(gpa + MOVED);
      return gpa;
    },
    freeCoherent() {},
  };
  let table = TABLES;
  const queue = createDriverQueue<number>({
    memory,
    dma,
    tables: {
      allocate: (length) => {
        table += length;
        return table - length;
      },
      free: () => {},
    },
    isPacked: true,
    size: 8,
    layoutAlign: 128,
    hasIndirect,
    hasEventIdx: false,
    notify: () => transport.notifyQueue(0),
  });
  if (queue === undefined) throw new Error('no room for the ring');
  transport.setupQueue(0, queue.setup);
  setDriverOk(transport);
  const header = new Uint8Array(16);
  encodeBlkHeader(new DataView(header.buffer), VIRTIO_BLK_T_IN, 2);
  memory.write(0x4_0000, header);
  for (const page of [0x4_0000, 0x5_0000]) iommu.map(page + MOVED, page);
  return {
    blk,
    iommu,
    memory,
    disk,
    queue,
    read(data: number, token: number) {
      const out = [{ gpa: 0x4_0000, length: 16 }];
      const inn = [
        { gpa: data, length: 512 },
        { gpa: 0x5_0000, length: 1 },
      ];
      expect(queue.add(out, inn, token)).toBe('ok');
      queue.kick();
    },
    done() {
      const tokens: number[] = [];
      for (let used = queue.getUsed(); used !== undefined; used = queue.getUsed()) {
        if (used.kind === 'bad-ring') throw new Error(used.message);
        tokens.push(used.token);
      }
      return tokens;
    },
  };
}

test.each([false, true])(
  'a request waits, and goes on where the ring was (indirect: %s)',
  (hasIndirect) => {
    const bench = createPackedBench(hasIndirect);
    const { iommu, blk } = bench;
    if (hasIndirect) iommu.map(TABLES + MOVED, TABLES);
    iommu.map(DATA + MOVED, DATA);
    // Round the ring of eight, so that the wait comes with the wrap counters turned over.
    for (let i = 0; i < 5; i += 1) {
      bench.read(DATA, i);
      expect(bench.done()).toEqual([i]);
    }
    const before = blk.core.queues[0]?.save();
    bench.read(OTHER, 100);
    expect(bench.done()).toEqual([]);
    expect(blk.core.queues[0]?.save()).toEqual(before);
    expect(blk.vhost?.counters.stalls).toBe(1);
    iommu.map(OTHER + MOVED, OTHER);
    bench.queue.kick();
    blk.core.notifyQueue(0);
    expect(bench.done()).toEqual([100]);
    bench.read(DATA, 101);
    expect(bench.done()).toEqual([101]);
    const found = new Uint8Array(512);
    bench.memory.read(OTHER, found);
    expect(found).toEqual(bench.disk.subarray(1024, 1536));
    expect(blk.core.errors).toEqual([]);
  },
);

test('an indirect table that is not mapped', () => {
  const bench = createPackedBench(true);
  bench.iommu.map(DATA + MOVED, DATA);
  bench.read(DATA, 1);
  expect(bench.done()).toEqual([]);
  // The flags of the first descriptor, which are read first.
  expect(bench.blk.vhost?.firstStall?.iova).toBe(BigInt(TABLES + MOVED + 14));
  bench.iommu.map(TABLES + MOVED, TABLES);
  bench.blk.core.notifyQueue(0);
  expect(bench.done()).toEqual([1]);
});
