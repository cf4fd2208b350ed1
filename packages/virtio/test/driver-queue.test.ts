import { createGuestMemory } from '@pinhole/memory';
import { describe, expect, test } from 'vitest';
import {
  ADD_ERRNO,
  createDriverQueue,
  type DriverQueue,
  type DriverQueueOptions,
  splitRingLayout,
} from '../src/index.js';
import { BUFFERS, createPair, segments } from './support/pair.js';
import { IommuDma, TestHeap, TestIommu } from './support/space.js';

interface Alone {
  readonly dma: IommuDma;
  readonly iommu: TestIommu;
  readonly heap: TestHeap;
  readonly tables: TestHeap;
  readonly kicks: { count: number };
  readonly create: (options?: Partial<DriverQueueOptions>) => DriverQueue<string> | undefined;
}

function alone(heapSize: number = 2 ** 20, tables: TestHeap = new TestHeap(0x20_0000)): Alone {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 26 }] });
  const iommu = new TestIommu(memory);
  const heap = new TestHeap(0x10_0000, 0x10_0000 + heapSize);
  const dma = new IommuDma(iommu, heap);
  const kicks = { count: 0 };
  const notify = (): void => {
    kicks.count += 1;
  };
  const base = {
    memory,
    dma,
    tables,
    size: 8,
    layoutAlign: 128,
    hasIndirect: true,
    hasEventIdx: true,
    notify,
  };
  const create = (options: Partial<DriverQueueOptions> = {}): DriverQueue<string> | undefined =>
    createDriverQueue<string>({ ...base, ...options });
  return { dma, iommu, heap, tables, kicks, create };
}

describe('the ring', () => {
  test('is laid out as Linux lays it out on ppc64: 256 entries, cache lines of 128 bytes', () => {
    expect(splitRingLayout(256, 128)).toEqual({
      size: 256,
      desc: 0,
      avail: 0x1000,
      used: 0x1280,
      usedEvent: 0x1204,
      availEvent: 0x1a84,
      total: 6790,
    });
  });

  test('is made smaller until there is room for it', () => {
    const { create } = alone(3 * 4096);
    expect(create({ size: 1024 })?.size).toBe(256);
  });

  test('is not made smaller than a page, nor if it may not be', () => {
    expect(alone(1000).create({ size: 1024 })).toBeUndefined();
    expect(alone(3 * 4096).create({ size: 1024, mayReduceSize: false })).toBeUndefined();
    expect(alone(100).create({ size: 1 })).toBeUndefined();
  });

  test('knows a bus address above 32 bits', () => {
    const { create, dma } = alone();
    const high = create({
      dma: {
        name: 'high',
        maxMappingSize: 1,
        map: () => false,
        unmap: () => {},
        freeCoherent: () => {},
        allocCoherent(length, out) {
          const gpa = dma.allocCoherent(length, out);
          out.hi = 0x800_0000;
          out.lo = 0xffff_f000;
          return gpa;
        },
      },
    });
    expect(high?.setup).toMatchObject({
      desc: 0x800_0000_ffff_f000n,
      avail: 0x800_0000_ffff_f080n,
      used: 0x800_0000_ffff_f100n,
    });
  });

  test('is given back once', () => {
    const { create, heap, iommu } = alone();
    const queue = create()!;
    expect(heap.live).toBe(1);
    queue.free();
    queue.free();
    expect([heap.live, iommu.mappedPages]).toEqual([0, 0]);
    expect(queue.add(segments(BUFFERS, [1]), [], 'late')).toBe('broken');
  });
});

describe('add', () => {
  test('maps what the device reads, what it writes, then the table; unmaps the table first', () => {
    const { create, dma } = alone();
    const queue = create()!;
    const pair = createPair({ isBehindIommu: true });
    pair.driver.add(segments(BUFFERS, [16, 4096]), segments(BUFFERS * 2, [1]), 1);
    pair.device.push(pair.device.pop()!, 1);
    pair.driver.getUsed();
    expect(pair.dma.log.map((line) => line.replace(/ \w+ /, ' '))).toEqual([
      'map 16 1',
      'map 4096 1',
      'map 1 2',
      'map 48 1',
      'unmap 48 1',
      'unmap 16 1',
      'unmap 4096 1',
      'unmap 1 2',
    ]);
    expect(queue.numFree).toBe(8);
    expect(dma.log).toEqual([]);
  });

  test('takes no table for one segment, without the feature, or when there is no memory for it', () => {
    const noTables = new TestHeap(0x20_0000, 0x20_0000);
    const { create, dma } = alone();
    const add = (options: Partial<DriverQueueOptions>, lengths: number[]): number => {
      const queue = create(options)!;
      dma.log.length = 0;
      expect(queue.add(segments(BUFFERS, lengths), [], 'x')).toBe('ok');
      expect(queue.numFree).toBe(8 - dma.log.length);
      return dma.log.length;
    };
    expect(add({}, [16])).toBe(1);
    expect(add({ hasIndirect: false }, [16, 16])).toBe(2);
    expect(add({ tables: noTables }, [16, 16, 16])).toBe(3);
  });

  test.each([
    [true, 0],
    [true, 1],
    [true, 2],
    [true, 3],
    [false, 1],
    [false, 2],
  ])(
    'when a mapping fails (table: %s, after %i) ends the others, first to last',
    (hasIndirect, budget) => {
      const { create, dma, tables, iommu } = alone();
      const queue = create({ hasIndirect })!;
      const ringPages = iommu.mappedPages;
      dma.budget = budget;
      const inn = segments(BUFFERS * 2, [1]);
      expect(queue.add(segments(BUFFERS, [16, 4096]), inn, 'x')).toBe('no-dma-space');
      const maps = dma.log.filter((line) => line.startsWith('map'));
      const unmaps = dma.log.filter((line) => line.startsWith('unmap'));
      expect(maps.length).toBe(budget);
      expect(unmaps.map((line) => line.slice(2))).toEqual(maps);
      expect([iommu.mappedPages, tables.live, queue.numFree]).toEqual([ringPages, 0, 8]);
      // Nothing is left of the attempt.
      dma.budget = Number.POSITIVE_INFINITY;
      expect(queue.add(segments(BUFFERS, [16]), [], 'y')).toBe('ok');
      expect(queue.detachUnused()).toEqual({ token: 'y' });
      expect([iommu.mappedPages, dma.badUnmaps]).toEqual([ringPages, 0]);
    },
  );

  test('a full ring prods the device if there is something to read', () => {
    const { create, kicks } = alone();
    const queue = create({ hasIndirect: false, size: 2 })!;
    expect(queue.add(segments(BUFFERS, [1, 1]), [], 'x')).toBe('ok');
    expect(queue.add([], segments(BUFFERS, [1]), 'y')).toBe('ring-full');
    expect(kicks.count).toBe(0);
    expect(queue.add(segments(BUFFERS, [1]), [], 'y')).toBe('ring-full');
    expect(kicks.count).toBe(1);
  });

  test('with tables the ring is full when its last descriptor is used', () => {
    const queue = alone().create({ size: 2 })!;
    expect(queue.add(segments(BUFFERS, [1, 1, 1]), [], 'x')).toBe('ok');
    expect(queue.add(segments(BUFFERS, [1, 1, 1]), [], 'y')).toBe('ok');
    expect(queue.add(segments(BUFFERS, [1, 1, 1]), [], 'z')).toBe('ring-full');
  });

  test('an empty buffer is a mistake of the caller', () => {
    expect(() => alone().create()!.add([], [], 'x')).toThrow(
      expect.objectContaining({ code: 'E_EMPTY_BUFFER' }),
    );
  });

  test('results are numbered as Linux numbers them', () => {
    expect(ADD_ERRNO).toEqual({ ok: 0, 'ring-full': -28, 'no-dma-space': -12, broken: -5 });
  });
});

describe('callbacks', () => {
  const usedEvent = (pair: ReturnType<typeof createPair>): number =>
    pair.memory.readU16Le(pair.driver.ringGpa + pair.driver.layout.usedEvent);

  test('with EVENT_IDX getUsed moves used_event on, unless callbacks are off', () => {
    const pair = createPair();
    const round = (): void => {
      pair.driver.add(segments(BUFFERS, [1]), [], 1);
      pair.device.push(pair.device.pop()!, 0);
      pair.driver.getUsed();
    };
    round();
    round();
    expect(usedEvent(pair)).toBe(2);
    pair.driver.disableCallbacks();
    expect(usedEvent(pair)).toBe(0);
    pair.driver.disableCallbacks();
    round();
    expect(usedEvent(pair)).toBe(0);
    expect(pair.driver.enableCallbacks()).toBe(true);
    expect(usedEvent(pair)).toBe(3);
  });

  test('after an interrupt disableCallbacks need not write', () => {
    const pair = createPair();
    pair.driver.add(segments(BUFFERS, [1]), [], 1);
    pair.driver.add(segments(BUFFERS, [1]), [], 2);
    pair.device.push(pair.device.pop()!, 0);
    pair.driver.getUsed();
    pair.device.push(pair.device.pop()!, 0);
    expect(pair.driver.noteInterrupt()).toBe(true);
    pair.driver.disableCallbacks();
    expect(usedEvent(pair)).toBe(1);
    // More to do: the caller has to look again.
    expect(pair.driver.enableCallbacks()).toBe(false);
  });

  test('buffers that the device still holds come back after a reset', () => {
    const pair = createPair({ isBehindIommu: true });
    for (const token of [1, 2]) pair.driver.add(segments(BUFFERS, [1, 1]), [], token);
    pair.core.writeStatus(0);
    expect(pair.driver.detachUnused()).toEqual({ token: 1 });
    expect(pair.driver.detachUnused()).toEqual({ token: 2 });
    expect(pair.driver.detachUnused()).toBeUndefined();
    expect([pair.dma.live.size, pair.driver.numFree, pair.tables.live]).toEqual([0, 8, 0]);
  });
});
