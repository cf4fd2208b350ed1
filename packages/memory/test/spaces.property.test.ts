/** Device spaces and the hypervisor's view, against definitions that look at one byte at a time. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  createGuestMemory,
  createRangesSpace,
  createSystemMemorySpace,
  DmaAccess,
  type DmaSpace,
  DmaStatus,
  HypervisorView,
  PageOwnership,
} from '../src/index.js';

const REGIONS = [
  { base: 0, size: 0x3000 },
  { base: 0x3000, size: 0x1000 },
  { base: 0x8000, size: 0x1000 },
  { base: 2 ** 52, size: 0x1000 },
];
const RANGES = [
  { dmaStart: 0xffff_f000n, cpuStart: 0, size: 0x2000 },
  { dmaStart: 2n ** 59n, cpuStart: 0x2000, size: 0x7000 },
  { dmaStart: 2n ** 64n - 0x1000n, cpuStart: 0x8000, size: 0x1000 },
];
const memory = createGuestMemory({ regions: REGIONS });
const isMemory = (at: bigint) =>
  REGIONS.some(({ base, size }) => at >= BigInt(base) && at < BigInt(base) + BigInt(size));

/** Where one byte on the bus is in memory. */
const identity = (at: bigint) => (isMemory(at) ? at : DmaStatus.NOTHING_THERE);
const ranged = (at: bigint) => {
  const range = RANGES.find((r) => at >= r.dmaStart && at < r.dmaStart + BigInt(r.size));
  if (range === undefined) return DmaStatus.NOTHING_THERE;
  const gpa = at - range.dmaStart + BigInt(range.cpuStart);
  return isMemory(gpa) ? gpa : DmaStatus.NOT_MEMORY;
};

const EDGES = [
  0n,
  0x3000n,
  0x4000n,
  0x8000n,
  0x9000n,
  0xffff_f000n,
  0x1_0000_0000n,
  0x1_0000_1000n,
  2n ** 52n,
  2n ** 53n,
  2n ** 59n,
  2n ** 59n + 0x2000n,
  2n ** 59n + 0x6000n,
  2n ** 59n + 0x7000n,
  2n ** 64n - 0x1000n,
  2n ** 64n,
];
const address = fc
  .tuple(fc.constantFrom(...EDGES), fc.bigInt({ min: -40n, max: 40n }))
  .map(([edge, delta]) => BigInt.asUintN(64, edge + delta));
const length = fc.integer({ min: 1, max: 100 });

describe.each<[string, DmaSpace, (at: bigint) => bigint | DmaStatus]>([
  ['system memory', createSystemMemorySpace(memory), identity],
  ['dma-ranges', createRangesSpace(memory, RANGES), ranged],
])('%s', (_name, space, definition) => {
  const at = (address: bigint) => [Number(address >> 32n), Number(address & 0xffff_ffffn)] as const;

  test('each byte of an answer is where that byte is, and no more than was asked for', () => {
    fc.assert(
      fc.property(address, length, (start, asked) => {
        const out = { gpa: -1, length: -1 };
        const status = space.translate(...at(start), asked, DmaAccess.WRITE, out);
        const first = definition(start);
        if (typeof first !== 'bigint') {
          expect(status).toBe(first);
          expect(out).toEqual({ gpa: -1, length: -1 });
          return;
        }
        expect(status).toBe(DmaStatus.OK);
        expect(out.length).toBeGreaterThan(0);
        expect(out.length).toBeLessThanOrEqual(asked);
        for (let i = 0; i < out.length; i += 1) {
          expect(definition(start + BigInt(i))).toBe(BigInt(out.gpa + i));
        }
      }),
      { numRuns: 300 },
    );
  });

  test('covers what answers from the first byte to the last', () => {
    fc.assert(
      fc.property(address, length, (start, asked) => {
        const bytes = Array.from({ length: asked }, (_, i) => start + BigInt(i));
        const isCovered = bytes.every((byte) => definition(byte) !== DmaStatus.NOTHING_THERE);
        expect(space.covers(...at(start), asked)).toBe(isCovered);
      }),
      { numRuns: 300 },
    );
  });
});

describe('the hypervisor and a secure guest', () => {
  const PAGE = 256;
  const setUp = (sharedPages: readonly number[]) => {
    const guest = createGuestMemory({ regions: [{ base: 0, size: 16 * PAGE }] });
    const ownership = new PageOwnership({ pageSize: PAGE });
    for (let at = 0; at < 16 * PAGE; at += 1) guest.writeU8(at, at * 7);
    for (const page of sharedPages) ownership.share(page * PAGE, PAGE);
    return { guest, view: new HypervisorView(guest, ownership) };
  };
  const pages = fc.uniqueArray(fc.nat({ max: 15 }));
  const range = fc
    .tuple(fc.nat({ max: 16 * PAGE }), fc.nat({ max: 16 * PAGE }))
    .map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const);

  test('a write over many pages reaches the shared bytes, and exactly the others are counted', () => {
    fc.assert(
      fc.property(pages, range, (sharedPages, [from, to]) => {
        const { guest, view } = setUp(sharedPages);
        view.write(from, new Uint8Array(to - from).fill(0xee));
        let refused = 0;
        for (let at = 0; at < 16 * PAGE; at += 1) {
          const isShared = sharedPages.includes(Math.floor(at / PAGE));
          const isWritten = at >= from && at < to;
          expect(guest.readU8(at)).toBe(isWritten && isShared ? 0xee : (at * 7) & 0xff);
          if (isWritten && !isShared) refused += 1;
        }
        expect(view.privateBytesWriteRefused).toBe(refused);
      }),
      { numRuns: 50 },
    );
  });

  test('a read in one piece gives the same bytes as one byte at a time; the guest sees the data', () => {
    fc.assert(
      fc.property(pages, range, (sharedPages, [from, to]) => {
        const { guest, view } = setUp(sharedPages);
        const bytes = new Uint8Array(to - from);
        view.read(from, bytes);
        const hidden = bytes.filter((_, i) => !sharedPages.includes(Math.floor((from + i) / PAGE)));
        expect(view.ciphertextBytesRead).toBe(hidden.length);
        bytes.forEach((byte, i) => {
          const at = from + i;
          expect(byte).toBe(view.readU8(at));
          if (sharedPages.includes(Math.floor(at / PAGE))) expect(byte).toBe((at * 7) & 0xff);
          expect(guest.readU8(at)).toBe((at * 7) & 0xff);
        });
      }),
      { numRuns: 50 },
    );
  });

  test('what was private is readable once it is shared, and no longer when it is not', () => {
    const { guest, view } = setUp([]);
    const ownership = new PageOwnership({ pageSize: PAGE });
    const other = new HypervisorView(guest, ownership);
    const before = other.readU64Le(0x100);
    expect(before).toBe(view.readU64Le(0x100));
    ownership.share(0x1ff, 1);
    expect(other.readU64Le(0x100)).toBe(guest.readU64Le(0x100));
    ownership.unshare(0x100, 1);
    expect(other.readU64Le(0x100)).toBe(before);
    expect(before).not.toBe(guest.readU64Le(0x100));
  });
});

test('a page size that is no power of two is our bug', () => {
  expect(() => new PageOwnership({ pageSize: 3000 })).toThrow(/power of two/);
});
