/** A restricted-dma-pool: buffers bounce through it, and coherent memory comes from it as well. */
import { createRng, type HiLo } from '@pinhole/base';
import { createGuestMemory, DmaDirection, type DmaOps } from '@pinhole/memory';
import { expect, test } from 'vitest';
import { createDirectDmaOps, GuestPages, Swiotlb } from '../src/index.js';

const MIB = 2 ** 20;
const POOL = { base: 8 * MIB, size: MIB };

function setUp(): { ops: DmaOps; pool: Swiotlb; memory: ReturnType<typeof createGuestMemory> } {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 16 * MIB }] });
  const pages = new GuestPages({
    pageSize: 4096,
    kernel: { base: MIB, size: MIB },
    user: { base: 4 * MIB, size: MIB },
    rng: createRng(1),
  });
  const pool = new Swiotlb({ memory, ...POOL, pageSize: 4096, cpus: 1 });
  const ops = createDirectDmaOps({
    memory,
    pages,
    ranges: [{ cpuStart: 0, dmaStart: 2n ** 40n, size: 16 * MIB }],
    forceBounce: pool,
    isPoolForAlloc: true,
    cpu: () => 0,
  });
  return { ops, pool, memory };
}

test('both lie in the pool, apart, on pages; all of it comes back', () => {
  const { ops, pool, memory } = setUp();
  memory.fill(POOL.base, POOL.size, 0xee);
  const out: HiLo = { hi: 0, lo: 0 };
  const ring = ops.allocCoherent(6000, out);
  expect([ring! >= POOL.base, ring! % 4096]).toEqual([true, 0]);
  expect([out.hi, out.lo]).toEqual([2 ** 8, ring]);
  // Zeroed: whole pages, and no more.
  expect([memory.readU8(ring!), memory.readU8(ring! + 8191), memory.readU8(ring! + 8192)]).toEqual([
    0, 0, 0xee,
  ]);
  const mapped: HiLo = { hi: 0, lo: 0 };
  expect(ops.map(5 * MIB, 4096, DmaDirection.FROM_DEVICE, mapped)).toBe(true);
  expect(mapped.lo >= ring! + 8192 || mapped.lo + 4096 <= ring!).toBe(true);
  expect(pool.contains(mapped.lo)).toBe(true);
  expect(pool.bytesBounced).toBe(4096);
  ops.unmap(mapped.hi, mapped.lo, 4096, DmaDirection.FROM_DEVICE);
  expect(pool.slotsUsed).toBe(4);
  ops.freeCoherent(ring!, out.hi, out.lo, 6000);
  expect(pool.slotsUsed).toBe(0);
});

test('when it is full there is none, whatever memory the guest has left', () => {
  const { ops, pool } = setUp();
  const out: HiLo = { hi: 0, lo: 0 };
  // A row of slots is 256 KiB at most.
  expect(ops.allocCoherent(257 * 1024, out)).toBe(undefined);
  const all = [1, 2, 3, 4].map(() => ops.allocCoherent(256 * 1024, out));
  expect(all.every((gpa) => gpa !== undefined && pool.contains(gpa))).toBe(true);
  expect(ops.allocCoherent(4096, out)).toBe(undefined);
  expect(ops.map(5 * MIB, 512, DmaDirection.TO_DEVICE, out)).toBe(false);
});
