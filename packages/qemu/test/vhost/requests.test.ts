/** A disk that vhost serves: requests, and what becomes of those whose translation does not come. */
import { featureBits, VIRTIO_F_ACCESS_PLATFORM } from '@pinhole/virtio';
import { describe, expect, test } from 'vitest';
import { createBench, DATA, HEADER, PAGE, RING, STATUS, UNTOUCHED } from './bench.js';

describe('behind an IOMMU', () => {
  test('each page is asked for at its first use, and not again', () => {
    const bench = createBench();
    bench.mapPages(DATA, 3);
    bench.submit([bench.readChain(DATA + 0x800, 2 * PAGE)]);
    // Descriptors, available ring; header, three pages of data, status. The used ring was pushed.
    expect(bench.blk.vhost?.counters).toMatchObject({ misses: 7, updates: 8, stalls: 0 });
    expect(bench.status()).toBe(0);
    expect(bench.bytes(DATA + 0x800, 2 * PAGE)).toEqual(
      bench.disk.subarray(3 * 512, 3 * 512 + 8192),
    );
    bench.submit([bench.readChain(DATA + 0x800, 2 * PAGE)]);
    expect(bench.blk.vhost?.counters).toMatchObject({ misses: 7, updates: 8 });
    expect(bench.usedIdx()).toBe(2);
  });

  test('pages that are mapped anew for each request are asked for in each', () => {
    const bench = createBench();
    for (let i = 0; i < 10; i += 1) {
      bench.mapPages(DATA, 2);
      bench.submit([bench.readChain(DATA, 2 * PAGE)]);
      bench.iommu.unmap(DATA);
      bench.iommu.unmap(DATA + PAGE);
    }
    // Rings, header and status once.
    expect(bench.blk.vhost?.counters).toMatchObject({
      misses: 4 + 20,
      updates: 25,
      invalidates: 20,
    });
    expect(bench.usedIdx()).toBe(10);
  });

  test('with little room each miss drops the oldest, and all requests still end', () => {
    const bench = createBench({ maxIotlbEntries: 4 });
    bench.mapPages(DATA, 8);
    for (let i = 0; i < 5; i += 1) bench.submit([bench.readChain(DATA, 8 * PAGE)]);
    const { evictions, misses, updates, entriesPeak, stalls } = bench.blk.vhost?.counters ?? {};
    expect(bench.usedIdx()).toBe(5);
    expect(bench.bytes(DATA, 8 * PAGE)).toEqual(bench.disk.subarray(3 * 512, 3 * 512 + 8 * PAGE));
    expect([entriesPeak, stalls]).toEqual([4, 0]);
    expect(evictions).toBe((updates ?? 0) - 4);
    expect(misses).toBe((updates ?? 0) - 1);
    expect(misses).toBeGreaterThan(5 * 8);
  });

  test('nothing is served before DRIVER_OK, and then all that waits', () => {
    const bench = createBench({ isNotReady: true });
    bench.mapPages(DATA, 1);
    bench.submit([bench.readChain()]);
    expect(bench.usedIdx()).toBe(0);
    bench.blk.core.setStatus(0xf);
    expect(bench.usedIdx()).toBe(1);
  });
});

describe('a translation that does not come', () => {
  test('the request waits: no completion, no error, and it is still to be taken', () => {
    const bench = createBench();
    bench.submit([bench.readChain()]);
    const { core, vhost } = bench.blk;
    expect(bench.usedIdx()).toBe(0);
    expect(bench.status()).toBe(UNTOUCHED);
    expect([core.status, core.errors]).toEqual([0xf, []]);
    expect(core.queues[0]).toMatchObject({ lastAvailIdx: 0, inUse: 0 });
    expect(vhost?.counters).toMatchObject({ stalls: 1 });
    expect(vhost?.firstStall?.message).toBe(
      'vhost: no translation to write at bus address 0x10030000',
    );
  });

  test('what was before it in the queue is done, what is behind it is not', () => {
    const bench = createBench();
    bench.mapPages(DATA, 1);
    const unmapped = DATA + 0x10_0000;
    bench.submit([bench.readChain(), bench.readChain(unmapped), bench.readChain()]);
    expect(bench.usedIdx()).toBe(1);
    expect(bench.blk.core.queues[0]?.lastAvailIdx).toBe(1);
  });

  test('a mapping that is made later is not heard of; a kick has it looked up again', () => {
    const bench = createBench();
    bench.submit([bench.readChain()]);
    bench.mapPages(DATA, 1);
    expect(bench.usedIdx()).toBe(0);
    bench.kick();
    expect(bench.usedIdx()).toBe(1);
    expect(bench.bytes(DATA, PAGE)).toEqual(bench.disk.subarray(3 * 512, 3 * 512 + PAGE));
  });

  test('another queue that gets the page wakes it', () => {
    const bench = createBench({ queues: 2 });
    bench.submit([bench.readChain()], { queue: 0 });
    bench.mapPages(DATA, 1);
    expect(bench.usedIdx(0)).toBe(0);
    bench.submit([bench.readChain()], { queue: 1 });
    expect([bench.usedIdx(0), bench.usedIdx(1)]).toEqual([1, 1]);
    expect(bench.blk.vhost?.counters.stalls).toBe(1);
  });

  test('it is asked for once a kick, and no more', () => {
    const bench = createBench();
    bench.submit([bench.readChain()]);
    const before = bench.blk.vhost?.counters.misses ?? 0;
    for (let i = 0; i < 100; i += 1) bench.kick();
    expect(bench.blk.vhost?.counters).toMatchObject({ misses: before + 100, stalls: 101 });
    expect(bench.blk.core.queues[0]).toMatchObject({ lastAvailIdx: 0, inUse: 0 });
  });

  test('after a reset of the device nothing waits', () => {
    const bench = createBench({ queues: 2 });
    bench.submit([bench.readChain()]);
    bench.blk.core.setStatus(0);
    bench.blk.core.reset();
    bench.mapPages(DATA, 1);
    bench.blk.vhost?.backend?.receive({
      type: 'UPDATE',
      iova: BigInt(DATA),
      gpa: 0x8_0000,
      size: 0x1000n,
      perm: 3,
    });
    expect(bench.usedIdx()).toBe(0);
  });

  // The rings are looked for at DRIVER_OK, too, when every queue is kicked.
  test.each([
    ['the header', HEADER, 1],
    ['the status byte', STATUS, 1],
    ['the descriptors', RING, 2],
    ['the available ring', RING + PAGE, 2],
    ['the used ring', RING + 2 * PAGE, 2],
  ])('%s: nothing happens', (_what, page, stalls) => {
    const bench = createBench({ unmapped: [page] });
    bench.mapPages(DATA, 1);
    bench.submit([bench.readChain()]);
    expect([bench.usedIdx(), bench.status()]).toEqual([0, UNTOUCHED]);
    expect(bench.blk.vhost?.counters.stalls).toBe(stalls);
    expect(bench.blk.core.errors).toEqual([]);
    bench.mapPages(page, 1);
    bench.kick();
    expect([bench.usedIdx(), bench.status()]).toEqual([1, 0]);
  });

  test.each([
    ['descriptors', 0],
    ['available ring', 1],
    ['used ring', 2],
  ])('a ring that is unmapped between two requests is not touched again: %s', (_what, page) => {
    const bench = createBench();
    const address = RING + page * PAGE;
    bench.mapPages(DATA, 1);
    bench.submit([bench.readChain()]);
    // Once more, with everything remembered.
    bench.submit([bench.readChain()]);
    bench.iommu.unmap(address);
    const before = bench.bytes(address, PAGE);
    bench.memory.fill(0xa_0000, PAGE, 0);
    bench.submit([bench.readChain()], { kick: false });
    const offered = bench.bytes(address, PAGE);
    bench.kick();
    expect(bench.blk.vhost?.counters.stalls).toBe(1);
    expect(bench.bytes(address, PAGE)).toEqual(offered);
    // The guest moves it to other memory, with what was in it.
    bench.memory.write(0xa_0000, offered);
    bench.iommu.map(address, 0xa_0000);
    bench.kick();
    expect(bench.blk.completed[0]).toBe(3);
    const moved = new Uint8Array(PAGE);
    bench.memory.read(0xa_0000, moved);
    const isWritten = page === 2;
    expect(Buffer.compare(moved, offered) !== 0).toBe(isWritten);
    expect(bench.bytes(address, PAGE)).toEqual(isWritten ? before : offered);
  });

  test('a page that may only be read, and is read by nobody before, cannot be written', () => {
    const bench = createBench();
    bench.mapPages(DATA, 1, 1);
    bench.submit([bench.readChain()]);
    expect(bench.usedIdx()).toBe(0);
    expect(bench.blk.vhost?.counters.stalls).toBe(1);
  });

  test('without permission (another VMM may say so) it waits, and is never asked for', () => {
    const bench = createBench();
    const iova = BigInt(DATA);
    bench.blk.vhost?.backend?.receive({
      type: 'UPDATE',
      iova,
      gpa: 0x8_0000,
      size: 0x1000n,
      perm: 1,
    });
    bench.submit([bench.readChain()]);
    const { misses } = bench.blk.vhost?.counters ?? { misses: -1 };
    expect(bench.blk.vhost?.firstStall?.reason).toBe('no permission');
    bench.kick();
    expect(bench.blk.vhost?.counters).toMatchObject({ misses, stalls: 2 });
  });

  test('addresses at the end of 64 bits, and lengths without end', () => {
    for (const [address, length] of [
      [0xffff_f000, 0xffff_ffff],
      [DATA, 0xffff_ffff],
    ] as const) {
      const bench = createBench();
      bench.mapPages(DATA, 4);
      bench.submit([bench.readChain(address, length)]);
      expect(bench.usedIdx()).toBe(0);
      expect(bench.blk.vhost?.counters.stalls).toBe(1);
    }
  });
});

describe('where there is no IOMMU', () => {
  test('ACCESS_PLATFORM is hidden from the data plane, which has no IOTLB', () => {
    const bench = createBench({ hasIommu: false });
    const { vhost, core } = bench.blk;
    const bit = featureBits(VIRTIO_F_ACCESS_PLATFORM);
    expect(core.features & bit).toBe(bit);
    expect(vhost?.backendFeatures).toBe(core.features & ~bit);
    expect(vhost?.backend).toBeUndefined();
    expect(bench.blk.space.isIdentity).toBe(true);
    bench.submit([bench.readChain()]);
    expect(bench.status()).toBe(0);
    expect(vhost?.counters).toMatchObject({ misses: 0, updates: 0, invalidates: 0, stalls: 0 });
  });

  test('without the flag the same, though the bus has an IOMMU', () => {
    const bench = createBench({ flag: false });
    expect(bench.blk.space.isIdentity).toBe(true);
    expect(bench.iommu.listeners).toBe(0);
    bench.submit([bench.readChain()]);
    expect(bench.status()).toBe(0);
    expect(bench.iommu.lookups).toBe(0);
  });

  test('what is no memory is not bounced: the request waits for ever', () => {
    const bench = createBench({ hasIommu: false });
    bench.submit([bench.readChain(0x800_0000)]);
    expect([bench.usedIdx(), bench.status()]).toEqual([0, UNTOUCHED]);
    expect(bench.blk.mapper.bytesLost).toBe(0);
    expect(bench.blk.vhost?.firstStall?.reason).toBe('no memory');
  });
});

test('with an IOMMU the data plane keeps the bit', () => {
  const { vhost, core } = createBench().blk;
  expect(vhost?.backendFeatures).toBe(core.features);
});
