/**
 * The two halves of an IOTLB and what they say to each other. [qemu v7.2 hw/virtio/vhost.c]
 * [linux v6.1.176 drivers/vhost/vhost.c]
 */
import { createGuestMemory, DmaAccess, type GuestMemory } from '@pinhole/memory';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { VhostIotlbMessage } from '../../src/index.js';
import { VhostBackend } from '../../src/vhost/vhost-backend.js';
import { VhostStall } from '../../src/vhost/vhost-stall.js';
import { createBench, DATA, MOVED, PAGE, RING } from './bench.js';

const END = 2n ** 64n - 1n;

interface Side {
  readonly backend: VhostBackend;
  readonly sent: VhostIotlbMessage[];
  readonly retried: number[];
  /** Where a read or write of one byte comes out, or why it waits. */
  at(iova: bigint, access?: DmaAccess, length?: number): number | string;
}

/** A data plane alone; `answer` is QEMU. */
function side(answer?: (message: VhostIotlbMessage, backend: VhostBackend) => void): Side {
  const memory: GuestMemory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 20 }] });
  const sent: VhostIotlbMessage[] = [];
  const retried: number[] = [];
  const backend: VhostBackend = new VhostBackend({
    id: 'vd0',
    memory,
    send: (message) => {
      sent.push(message);
      answer?.(message, backend);
    },
    retry: (queue) => retried.push(queue),
  });
  const out = { gpa: 0, length: 0 };
  return {
    backend,
    sent,
    retried,
    at(iova, access = DmaAccess.READ, length = 1) {
      try {
        backend.translate(Number(iova >> 32n), Number(iova & 0xffff_ffffn), length, access, out);
      } catch (error) {
        if (error instanceof VhostStall) return error.reason;
        throw error;
      }
      return out.gpa;
    },
  };
}

const update = (iova: bigint, gpa: number, size: bigint, perm = 3): VhostIotlbMessage => ({
  type: 'UPDATE',
  iova,
  gpa,
  size,
  perm,
});

describe('the data plane', () => {
  test('a miss asks for the address itself and the direction; the answer is used', () => {
    const { at, sent } = side(({ iova }, backend) =>
      backend.receive(update(iova & ~0xfffn, 0x5000, 0x1000n)),
    );
    expect(at(0x800_0000_0000_1234n, DmaAccess.WRITE)).toBe(0x5234);
    expect(at(0x800_0000_0000_1ff0n)).toBe(0x5ff0);
    expect(sent).toEqual([{ type: 'MISS', iova: 0x800_0000_0000_1234n, perm: 2 }]);
  });

  test('missing permission is no miss: nothing is asked', () => {
    const { backend, at, sent } = side();
    backend.receive(update(0x2000n, 0x6000, 0x1000n, 1));
    expect(at(0x2000n, DmaAccess.READ)).toBe(0x6000);
    expect(at(0x2000n, DmaAccess.WRITE)).toBe('no permission');
    expect(sent).toEqual([]);
  });

  test('an update that does not hold the address does not help, and is asked for once an access', () => {
    const { at, sent } = side((_, backend) => backend.receive(update(0x9000n, 0x5000, 0x1000n)));
    expect(at(0x1000n)).toBe('no translation');
    expect(at(0x1000n)).toBe('no translation');
    expect(sent).toHaveLength(2);
  });

  test.each([
    ['no size', update(0x1000n, 0, 0n), -22],
    ['a range that wraps', update(END, 0, 2n), -14],
    ['memory that wraps', update(0x1000n, 0x1000, END), -14],
    ['a message of its own', { type: 'MISS', iova: 0n, perm: 1 } as VhostIotlbMessage, -14],
    ['an access failure', { type: 'ACCESS_FAIL', iova: 0n, perm: 1 } as VhostIotlbMessage, -14],
  ])('%s is refused, and changes nothing', (_what, message, ret) => {
    const { backend } = side();
    backend.receive(update(0x1000n, 0x5000, 0x1000n));
    const before = backend.counters;
    expect(backend.receive(message)).toBe(ret);
    expect(backend.counters).toEqual(before);
    expect(backend.iotlb.size).toBe(1);
  });

  test('a range to the last byte of 64 bits is one', () => {
    const { backend, at } = side();
    expect(backend.receive(update(END - 0xfffn, 0x5000, 0x1000n))).toBe(0);
    expect(at(END)).toBe(0x5fff);
  });

  test('a translation that leads to no memory waits, and one that runs out of it ends there', () => {
    const { backend, at } = side();
    backend.receive(update(0n, 2 ** 20 - 0x1000, 2n ** 40n));
    const out = { gpa: 0, length: 0 };
    backend.translate(0, 0, 0x4000, DmaAccess.READ, out);
    expect(out).toEqual({ gpa: 2 ** 20 - 0x1000, length: 0x1000 });
    expect(at(0x1000n)).toBe('no memory');
    expect(at(2n ** 40n - 1n)).toBe('no memory');
  });

  test('invalidations: of nothing, of a part, of everything', () => {
    const { backend } = side();
    for (let i = 0n; i < 4n; i += 1n) backend.receive(update(i * 0x1000n, 0x5000, 0x1000n));
    backend.receive({ type: 'INVALIDATE', iova: 0x8000n, size: 0x1000n });
    expect(backend.iotlb.size).toBe(4);
    backend.receive({ type: 'INVALIDATE', iova: 0x1800n, size: 0x1000n });
    expect(backend.iotlb.size).toBe(2);
    // What QEMU sends for 2^64 bytes: the size does not fit into 64 bits.
    backend.receive({ type: 'INVALIDATE', iova: 0n, size: 0n });
    expect(backend.iotlb.size).toBe(0);
    expect(backend.counters.invalidates).toBe(3);
  });

  test('who waits is tried again by an update that holds the address, once, and by no other', () => {
    const { backend, retried } = side();
    backend.wait(0, 0x1234n);
    backend.wait(1, 0x5000n);
    backend.receive(update(0x2000n, 0x5000, 0x1000n));
    expect(retried).toEqual([]);
    backend.receive(update(0x1000n, 0x5000, 0x1000n));
    expect(retried).toEqual([0]);
    backend.receive(update(0x0n, 0x5000, 0x10_0000n));
    expect(retried).toEqual([0, 1]);
    backend.wait(0, 0x1234n);
    backend.flush();
    backend.receive(update(0x1000n, 0x5000, 0x1000n));
    expect(retried).toEqual([0, 1]);
  });

  test('only the end of 64 bits is out of reach from the start', () => {
    const { backend } = side();
    expect(backend.covers(0xffff_ffff, 0xffff_f000, 0x1000)).toBe(true);
    expect(backend.covers(0xffff_ffff, 0xffff_f000, 0x1001)).toBe(false);
  });

  test('any messages and accesses: it answers, remembers no more than it may, throws nothing else', () => {
    const u64 = fc.oneof(
      fc.bigInt({ min: 0n, max: END }),
      fc.constantFrom(0n, 0x1000n, END - 0xfffn, END),
    );
    const step = fc.record({
      what: fc.constantFrom('UPDATE' as const, 'INVALIDATE' as const, 'access' as const),
      iova: u64,
      size: u64,
      gpa: fc.nat(2 ** 21),
      perm: fc.nat(3),
      length: fc.integer({ min: 1, max: 2 ** 31 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const { backend, at } = side();
        for (const { what, iova, size, gpa, perm, length } of steps) {
          if (what === 'UPDATE') backend.receive(update(iova, gpa, size, perm));
          else if (what === 'INVALIDATE') backend.receive({ type: what, iova, size });
          else {
            const found = at(iova, DmaAccess.READ, length);
            expect(typeof found === 'string' || found < 2 ** 20).toBe(true);
          }
        }
        expect(backend.iotlb.size).toBeLessThanOrEqual(2048);
      }),
    );
  });
});

describe('QEMU', () => {
  test('at the start the used ring is pushed, and it listens; the other rings are asked for', () => {
    const { blk, iommu } = createBench();
    const page = (iova: number): object => ({
      start: BigInt(iova),
      last: BigInt(iova) + 0xfffn,
      gpa: iova - MOVED,
      perm: 3,
    });
    const rings = [page(RING), page(RING + PAGE), page(RING + 2 * PAGE)];
    expect(blk.vhost?.backend?.iotlb.entries()).toEqual(rings);
    expect(blk.vhost?.counters).toMatchObject({ misses: 2, updates: 3, invalidates: 0 });
    expect(iommu.listeners).toBe(1);
  });

  test('of a queue that the driver does not use, bus address 0 is looked up', () => {
    // The second queue has no rings: [qemu v7.2 hw/virtio/vhost.c vhost_dev_start] does not mind.
    const bench = createBench({ queues: 2, isNotReady: true });
    bench.blk.core.resetQueue(1);
    bench.iommu.map(0, 0x8000);
    bench.blk.core.setStatus(0xf);
    const starts = bench.blk.vhost?.backend?.iotlb.entries().map(({ start }) => start);
    expect(starts?.[0]).toBe(0n);
    expect(starts).toHaveLength(4);
  });

  test('a translation that it does not have it does not answer', () => {
    const { blk } = createBench();
    const before = blk.vhost?.counters;
    expect(blk.vhost?.handleIotlbMessage({ type: 'MISS', iova: 0x77n, perm: 1 })).toBe(-14);
    expect(blk.vhost?.counters).toEqual(before);
  });

  test.each([
    ['ACCESS_FAIL', { type: 'ACCESS_FAIL', iova: 0n, perm: 1 } as const, -95],
    ['UPDATE', update(0n, 0, 1n), -22],
    ['INVALIDATE', { type: 'INVALIDATE', iova: 0n, size: 1n } as const, -22],
  ])('%s from the data plane is refused', (_what, message, ret) => {
    expect(createBench().blk.vhost?.handleIotlbMessage(message)).toBe(ret);
  });

  test('a mapping that leads to no memory is not told', () => {
    const { blk, iommu } = createBench();
    iommu.map(0x7000_0000, 2 ** 30);
    const before = blk.vhost?.counters;
    expect(blk.vhost?.handleIotlbMessage({ type: 'MISS', iova: 0x7000_0000n, perm: 1 })).toBe(-14);
    expect(blk.vhost?.counters).toEqual(before);
  });

  test('a page that ends beyond memory is told as far as memory goes', () => {
    const bench = createBench();
    // The bench's pages are 4 KiB; this one begins 2 KiB before the end of memory.
    bench.iommu.map(0x7000_0000, 2 ** 20 - 2048);
    bench.blk.vhost?.handleIotlbMessage({ type: 'MISS', iova: 0x7000_0000n, perm: 1 });
    const entry = bench.blk.vhost?.backend?.iotlb.find(0x7000_0000n);
    expect(entry?.last).toBe(0x7000_07ffn);
    expect(bench.blk.vhost?.counters.granules).toEqual({ '2048': 1, '4096': 3 });
  });

  test('each page that is unmapped is one message, remembered or not', () => {
    const { blk, iommu } = createBench();
    for (let i = 0; i < 5; i += 1) iommu.unmap(DATA + i * PAGE);
    expect(blk.vhost?.counters).toMatchObject({ misses: 2, invalidates: 5 });
  });

  test('a page that is read may be written from then on: the permission is checked at the miss', () => {
    const bench = createBench();
    bench.mapPages(DATA, 1, 1);
    const write = bench.blk.vhost?.handleIotlbMessage({
      type: 'MISS',
      iova: BigInt(DATA),
      perm: 2,
    });
    expect(write).toBe(-14);
    bench.blk.vhost?.handleIotlbMessage({ type: 'MISS', iova: BigInt(DATA), perm: 1 });
    expect(bench.blk.vhost?.backend?.iotlb.find(BigInt(DATA))?.perm).toBe(3);
    bench.submit([bench.readChain()]);
    expect(bench.status()).toBe(0);
    expect(bench.bytes(DATA, 1)).toEqual(bench.disk.subarray(3 * 512, 3 * 512 + 1));
  });

  test('a mapping that replaces another is not heard of: the old page is still used', () => {
    const bench = createBench();
    bench.mapPages(DATA, 1);
    bench.submit([bench.readChain()]);
    bench.iommu.map(DATA, 0x8_0000);
    bench.memory.fill(0x8_0000, PAGE, 0xaa);
    bench.disk.fill(0x77);
    bench.submit([bench.readChain()]);
    expect(bench.usedIdx()).toBe(2);
    expect(bench.memory.readU8(0x8_0000)).toBe(0xaa);
    expect(bench.bytes(DATA, PAGE).every((byte) => byte === 0x77)).toBe(true);
  });

  test('stopped, nothing is remembered and nobody listens; started, it begins again', () => {
    const bench = createBench();
    bench.mapPages(DATA, 1);
    bench.submit([bench.readChain()]);
    expect(bench.blk.vhost?.backend?.iotlb.size).toBeGreaterThan(3);
    bench.blk.core.setStatus(0xb);
    expect(bench.blk.vhost?.backend?.iotlb.size).toBe(0);
    expect(bench.iommu.listeners).toBe(0);
    bench.kick();
    expect(bench.usedIdx()).toBe(1);
    bench.blk.core.setStatus(0xf);
    expect(bench.iommu.listeners).toBe(1);
    bench.submit([bench.readChain()]);
    expect(bench.usedIdx()).toBe(2);
  });
});
