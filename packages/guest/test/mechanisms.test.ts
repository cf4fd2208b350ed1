/** Allocator, bounce buffers, block layer, decision: the parts on their own. */
import { createRng } from '@pinhole/base';
import { createGuestMemory, DmaDirection, PageOwnership } from '@pinhole/memory';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  createDirectDmaOps,
  findPolicy,
  GuestPages,
  IommuTable,
  Swiotlb,
  splitTransfer,
} from '../src/index.js';

const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 31 }] });

describe('IommuTable', () => {
  const small = () => new IommuTable({ liobn: 1, busOffset: 0n, size: 256, pageShift: 12 });

  test('the small pool of a 1 MiB window yields 12 single pages, then the large pool helps out', () => {
    // One pool of 192 entries: entry 0 is reserved, and small allocations advance by blocks of 16.
    const table = small();
    const entries = Array.from({ length: 13 }, () => table.alloc(1, 0, 0));
    expect(entries.slice(0, 12)).toEqual([1, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176]);
    // Back at the pool's start, behind entry 1.
    expect(entries[12]).toBe(2);
  });

  test('the last entry of a pool is never handed out', () => {
    const table = new IommuTable({ liobn: 1, busOffset: 0n, size: 256, pageShift: 12 });
    const all = new Set<number>();
    for (let entry = table.alloc(1, 0, 0); entry >= 0; entry = table.alloc(1, 0, 0)) all.add(entry);
    expect(all.has(0)).toBe(false);
    expect(all.has(191)).toBe(false);
    expect(all.has(255)).toBe(false);
    expect(all.size).toBe(190 + 63);
  });

  test('a large request finds no room between single pages that are 16 apart, and says so', () => {
    const table = small();
    for (let i = 0; i < 12; i += 1) table.alloc(1, 0, 0);
    // 63 usable entries in the large pool, 15 between two blocks.
    expect(table.alloc(64, 0, 0)).toBe(-1);
    expect(table.alloc(63, 0, 0)).toBe(192);
  });

  test('CPUs 0 to 7 begin in pools 0, 1, 3, 0, 2, 3, 1, 2 of a 1 GiB window', () => {
    const first = (cpu: number) =>
      new IommuTable({ liobn: 1, busOffset: 0n, size: 262_144, pageShift: 12 }).alloc(1, 0, cpu);
    const pools = Array.from({ length: 8 }, (_, cpu) => Math.floor(first(cpu) / 0xc000));
    expect(pools).toEqual([0, 1, 3, 0, 2, 3, 1, 2]);
    expect(first(1)).toBe(0xc000);
  });

  test('what is allocated is free, aligned and never given twice', () => {
    const operation = fc.record({
      npages: fc.integer({ min: 1, max: 40 }),
      order: fc.integer({ min: 0, max: 4 }),
      free: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 200 }), (operations) => {
        const table = new IommuTable({ liobn: 1, busOffset: 0n, size: 1000, pageShift: 12 });
        const owned = new Set<number>();
        const held: { entry: number; npages: number }[] = [];
        for (const { npages, order, free } of operations) {
          const oldest = free ? held.shift() : undefined;
          if (oldest !== undefined) {
            table.free(oldest.entry, oldest.npages);
            for (let i = 0; i < oldest.npages; i += 1) owned.delete(oldest.entry + i);
          }
          const entry = table.alloc(npages, order, 0);
          if (entry < 0) continue;
          expect(entry % 2 ** order).toBe(0);
          for (let i = 0; i < npages; i += 1) {
            expect(owned.has(entry + i)).toBe(false);
            owned.add(entry + i);
          }
          held.push({ entry, npages });
        }
        expect(table.inUse).toBe(owned.size);
      }),
    );
  });
});

describe('Swiotlb', () => {
  const create = (messages: string[] = []) =>
    new Swiotlb({
      memory,
      base: 2 ** 30,
      size: 2 ** 20,
      pageSize: 4096,
      cpus: 1,
      onFull: (message) => messages.push(message),
    });

  test('maps copy in for every direction; only unmaps from the device copy back', () => {
    const pool = create();
    memory.write(0x1000, new Uint8Array(512).fill(7));
    const bounce = pool.map(0x1000, 512, 0);
    expect(memory.readU8(bounce)).toBe(7);
    memory.fill(bounce, 512, 9);
    pool.unmap(bounce, 512, DmaDirection.TO_DEVICE);
    expect(memory.readU8(0x1000)).toBe(7);
    const again = pool.map(0x1000, 512, 0);
    memory.fill(again, 512, 9);
    pool.unmap(again, 512, DmaDirection.FROM_DEVICE);
    expect(memory.readU8(0x1000)).toBe(9);
    expect(pool.bytesBounced).toBe(3 * 512);
    expect(pool.slotsUsed).toBe(0);
  });

  test('256 KiB is the largest mapping', () => {
    const pool = create();
    expect(pool.map(0, 256 * 1024, 0)).toBe(2 ** 30);
    expect(pool.map(0, 256 * 1024 + 1, 0)).toBe(-1);
  });

  test("a full pool says so in the kernel's words", () => {
    const messages: string[] = [];
    const pool = create(messages);
    for (let i = 0; i < 4; i += 1) expect(pool.map(0, 256 * 1024, 0)).toBeGreaterThan(0);
    expect(pool.map(0, 512, 0)).toBe(-1);
    expect(messages).toEqual([
      'swiotlb buffer is full (sz: 512 bytes), total 512 (slots), used 512 (slots)',
    ]);
  });

  test('mappings never overlap and all slots come back', () => {
    const size = fc.integer({ min: 1, max: 100_000 });
    fc.assert(
      fc.property(fc.array(fc.tuple(size, fc.boolean()), { maxLength: 100 }), (operations) => {
        const pool = create();
        const held: { at: number; length: number }[] = [];
        for (const [length, free] of operations) {
          const oldest = free ? held.shift() : undefined;
          if (oldest !== undefined) pool.unmap(oldest.at, oldest.length, DmaDirection.TO_DEVICE);
          const at = pool.map(0, length, 0);
          if (at < 0) continue;
          expect(at).toBeGreaterThanOrEqual(pool.base);
          expect(at + length).toBeLessThanOrEqual(pool.base + pool.size);
          for (const other of held) {
            expect(at + length <= other.at || other.at + other.length <= at).toBe(true);
          }
          held.push({ at, length });
        }
        for (const { at, length } of held) pool.unmap(at, length, DmaDirection.TO_DEVICE);
        expect(pool.slotsUsed).toBe(0);
        // And the free runs have grown together again.
        for (let i = 0; i < 4; i += 1) expect(pool.map(0, 256 * 1024, 0)).toBeGreaterThan(0);
      }),
    );
  });
});

describe('splitTransfer', () => {
  test('keeps every limit and loses no byte', () => {
    const run = fc.record({
      gpa: fc.integer({ min: 0, max: 1000 }).map((page) => page * 4096),
      length: fc.integer({ min: 1, max: 64 }).map((pages) => pages * 4096),
    });
    const limits = { maxSegments: 5, maxSegmentSize: 65_536, maxBytes: 200_704 };
    fc.assert(
      fc.property(fc.array(run, { maxLength: 30 }), (runs) => {
        const requests = splitTransfer(runs, limits);
        for (const request of requests) {
          expect(request.length).toBeLessThanOrEqual(limits.maxSegments);
          expect(request.length).toBeGreaterThan(0);
          for (const { length } of request) expect(length).toBeLessThanOrEqual(65_536);
          const bytes = request.reduce((sum, { length }) => sum + length, 0);
          expect(bytes).toBeLessThanOrEqual(limits.maxBytes);
        }
        const pages = (list: readonly { gpa: number; length: number }[]): number[] =>
          list.flatMap(({ gpa, length }) =>
            Array.from({ length: length / 4096 }, (_, i) => gpa + i * 4096),
          );
        expect(pages(requests.flat())).toEqual(pages(runs));
      }),
    );
  });

  test('runs that touch become one segment', () => {
    const runs = [
      { gpa: 0x1000, length: 0x1000 },
      { gpa: 0x2000, length: 0x3000 },
    ];
    const limits = { maxSegments: 254, maxSegmentSize: 2 ** 32, maxBytes: 2 ** 20 };
    expect(splitTransfer(runs, limits)).toEqual([[{ gpa: 0x1000, length: 0x4000 }]]);
  });
});

describe('dma-direct', () => {
  const pages = new GuestPages({
    pageSize: 4096,
    kernel: { base: 0, size: 2 ** 28 },
    user: { base: 2 ** 30, size: 2 ** 30 },
    rng: createRng(1),
  });

  test('memory in no range cannot be mapped', () => {
    const ranges = [{ cpuStart: 0x1000, dmaStart: 0x1_0000_0000n, size: 0x1000 }];
    const ops = createDirectDmaOps({ memory, pages, ranges, cpu: () => 0 });
    const out = { hi: 0, lo: 0 };
    expect(ops.map(0x1800, 0x800, 1, out)).toBe(true);
    expect(out).toEqual({ hi: 1, lo: 0x800 });
    expect(ops.map(0x1801, 0x800, 1, out)).toBe(false);
    expect(ops.map(0xfff, 1, 1, out)).toBe(false);
  });
});

test('coherent memory of a secure guest is shared while it is allocated, and private again after', () => {
  const pages = new GuestPages({
    pageSize: 4096,
    kernel: { base: 0x10_0000, size: 2 ** 20 },
    user: { base: 2 ** 30, size: 2 ** 30 },
    rng: createRng(1),
  });
  const shared = new PageOwnership({ pageSize: 4096 });
  const ranges = [{ cpuStart: 0, dmaStart: 0n, size: 2 ** 31 }];
  const setShared = (gpa: number, length: number, isShared: boolean): void => {
    if (isShared) shared.share(gpa, length);
    else shared.unshare(gpa, length);
  };
  const ops = createDirectDmaOps({ memory, pages, ranges, setShared, cpu: () => 0 });
  const out = { hi: 0, lo: 0 };
  const gpa = ops.allocCoherent(6790, out) ?? -1;
  expect(shared.sharedRuns()).toEqual([{ gpa, length: 8192 }]);
  ops.freeCoherent(gpa, out.hi, out.lo, 6790);
  expect(shared.sharedBytes).toBe(0);
});

describe('the decision', () => {
  const ask = (policy: string, flag: boolean, hook: boolean, hasBusOffset: boolean) =>
    findPolicy(policy)?.vringUseDmaApi({
      hasAccessPlatform: flag,
      archWantsDmaOps: { answer: hook, because: 'a test' },
      hasBusOffset,
    });

  test('upstream: the flag alone [driver-6.1-3]', () => {
    expect(ask('upstream', true, false, false)?.useDmaApi).toBe(true);
    expect(ask('upstream', false, true, true)?.useDmaApi).toBe(false);
  });

  test('rfc-2018: the flag or the hook, and a warning where the bus has an offset', () => {
    expect(ask('rfc-2018', false, false, true)).toMatchObject({ useDmaApi: false });
    expect(ask('rfc-2018', false, true, false)).toMatchObject({ useDmaApi: true });
    expect(ask('rfc-2018', false, true, false)?.warning).toBeUndefined();
    expect(ask('rfc-2018', false, true, true)?.warning).toMatch(/^WARN/);
    expect(ask('rfc-2018', true, true, true)?.warning).toBeUndefined();
  });
});
