import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  VIRTIO_CONFIG_S_NEEDS_RESET,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from '../src/index.js';
import { AVAIL, USED, writePacked } from './support/packed.js';
import { BUFFERS, createPair, type Pair, type PairOptions, segments } from './support/pair.js';

const NEXT = VIRTQ_DESC_F_NEXT;
const WRITE = VIRTQ_DESC_F_WRITE;
const INDIRECT = VIRTQ_DESC_F_INDIRECT;
const TABLE = BUFFERS - 0x10_0000;

type Desc = readonly [addr: number | bigint, len: number, flags: number, id?: number];

/** A device whose driver wrote these descriptors, by hand. */
function faced(
  ring: readonly Desc[],
  table: readonly Desc[] = [],
  options: PairOptions = {},
): Pair {
  const pair = createPair({ isPacked: true, ...options });
  writePacked(pair, pair.driver.ringGpa, ring);
  writePacked(pair, TABLE, table);
  return pair;
}

describe('what the device says to a driver in error', () => {
  const chain = (length: number): Desc[] =>
    Array.from({ length }, (): Desc => [BUFFERS, 16, AVAIL | NEXT]);
  const rows: readonly [message: string, ring: readonly Desc[], table?: readonly Desc[]][] = [
    ['Invalid size for indirect buffer table', [[TABLE, 24, AVAIL | INDIRECT]]],
    // QEMU 7.2 ends here: the length of a window must not be 0.
    ['Invalid size for indirect buffer table', [[TABLE, 0, AVAIL | INDIRECT]]],
    ['Cannot map indirect buffer', [[2 ** 26 - 16, 32, AVAIL | INDIRECT]]],
    ['Cannot map indirect buffer', [[2n ** 64n - 8n, 16, AVAIL | INDIRECT]]],
    // All eight go on to the next one: round and round.
    ['Looped descriptor', chain(8)],
    [
      'Incorrect order for descriptors',
      [
        [BUFFERS, 16, AVAIL | WRITE | NEXT],
        [BUFFERS, 16, AVAIL],
      ],
    ],
    [
      'Incorrect order for descriptors',
      [[TABLE, 32, AVAIL | INDIRECT]],
      [
        [BUFFERS, 16, WRITE],
        [BUFFERS, 16, 0],
      ],
    ],
    ['virtio: zero sized buffers are not allowed', [[BUFFERS, 0, AVAIL]]],
    ['virtio: bogus descriptor or out of resources', [[2 ** 26, 16, AVAIL]]],
    [
      'virtio: bogus descriptor or out of resources',
      [[Number.MAX_SAFE_INTEGER, 16, AVAIL | WRITE]],
    ],
  ];

  test.each(rows)('%s', (message, ring, table) => {
    const pair = faced(ring, table);
    expect(pair.device.pop()).toBeUndefined();
    expect(pair.core.errors).toEqual([message]);
    expect(pair.core.readStatus() & VIRTIO_CONFIG_S_NEEDS_RESET).toBe(VIRTIO_CONFIG_S_NEEDS_RESET);
    expect([pair.device.inUse, pair.device.lastAvailIdx]).toEqual([0, 0]);
    // Deaf from now on; QEMU's block device would not come to an end here.
    expect(pair.device.pop()).toBeUndefined();
    expect(pair.device.isEmpty()).toBe(true);
    expect(pair.core.errors.length).toBe(1);
  });

  test('virtio: too many write descriptors in indirect table', () => {
    const table = Array.from({ length: 1025 }, (): Desc => [BUFFERS, 1, 0]);
    const pair = faced([[TABLE, 16 * 1025, AVAIL | INDIRECT]], table);
    expect(pair.device.pop()).toBeUndefined();
    expect(pair.core.errors).toEqual(['virtio: too many write descriptors in indirect table']);
  });

  test('Virtqueue size exceeded: laps ahead of what was returned', () => {
    const pair = createPair({ isPacked: true, size: 2, hasIndirect: false });
    const offer = (flags: number): void => {
      writePacked(pair, pair.driver.ringGpa, [
        [BUFFERS, 1, flags],
        [BUFFERS, 1, flags],
      ]);
    };
    offer(AVAIL);
    pair.device.pop();
    pair.device.pop();
    offer(USED);
    expect(pair.device.pop()).toBeUndefined();
    expect(pair.core.errors).toEqual(['Virtqueue size exceeded']);
  });

  test('a table within a table is a buffer like any other', () => {
    const pair = faced([[TABLE, 16, AVAIL | INDIRECT]], [[TABLE, 16, INDIRECT]]);
    expect(pair.device.pop()).toMatchObject({ outNum: 1, outBytes: 16 });
  });

  test('a chain that runs into descriptors of the lap before ends at their flags', () => {
    const pair = faced([
      [BUFFERS, 16, AVAIL | NEXT],
      [BUFFERS, 16, AVAIL | USED],
    ]);
    expect(pair.device.pop()).toMatchObject({ ndescs: 2 });
  });

  test('any id goes back as it came', () => {
    const pair = faced([[BUFFERS, 16, AVAIL, 0xffff]]);
    pair.device.push(pair.device.pop()!, 0);
    expect(pair.memory.readU16Le(pair.driver.ringGpa + 12)).toBe(0xffff);
    expect(pair.driver.getUsed()).toMatchObject({ message: 'id 65535 out of range' });
  });

  test('event flags of 3, which are reserved, are taken for an event of one descriptor', () => {
    const pair = faced([[BUFFERS, 16, AVAIL]]);
    pair.memory.writeU32Le(Number(pair.driver.setup.avail), 0x3_0000);
    pair.device.push(pair.device.pop()!, 0);
    expect(pair.device.shouldNotify()).toBe(true);
  });
});

describe('looking at what waits without taking it', () => {
  test('counts both directions, direct and by table, over the end of the ring', () => {
    const pair = createPair({ isPacked: true, size: 3 });
    pair.driver.add(segments(BUFFERS, [1]), [], 0);
    pair.device.push(pair.device.pop()!, 0);
    pair.driver.getUsed();
    pair.driver.add(segments(BUFFERS, [16]), segments(BUFFERS * 2, [100, 50]), 0);
    pair.driver.add(segments(BUFFERS, [5]), [], 0);
    pair.driver.add(segments(BUFFERS, [7]), [], 0);
    expect(pair.device.availBytes(1000, 1000)).toEqual({ inBytes: 150, outBytes: 28 });
    expect(pair.device.availBytes(100, 16)).toEqual({ inBytes: 100, outBytes: 16 });
    expect(pair.device.inUse).toBe(0);
    // A kick is wanted for what comes after all of these.
    pair.device.availBytes(1000, 1000);
    pair.device.setNotification(true);
    expect(pair.memory.readU16Le(Number(pair.driver.setup.used))).toBe(1);
  });

  const rows: readonly [message: string, ring: readonly Desc[]][] = [
    ['Invalid size for indirect buffer table', [[TABLE, 0, AVAIL | INDIRECT]]],
    ['Cannot map indirect buffer', [[2 ** 26 - 16, 32, AVAIL | INDIRECT]]],
    // 32 MiB of table: QEMU would read it all.
    ['Looped descriptor', [[TABLE, 0x200_0000, AVAIL | INDIRECT]]],
    ['Looped descriptor', Array.from({ length: 8 }, (): Desc => [BUFFERS, 16, AVAIL | NEXT])],
  ];
  test.each(rows)('%s', (message, ring) => {
    const pair = faced(ring);
    expect(pair.device.availBytes(2 ** 31, 2 ** 31)).toEqual({ inBytes: 0, outBytes: 0 });
    expect(pair.core.errors).toEqual([message]);
  });
});

test('a ring behind an IOMMU that is not mapped reads as empty, and swallows what is written', () => {
  const pair = createPair({ isPacked: true, isBehindIommu: true });
  pair.driver.add(segments(BUFFERS, [16]), [], 1);
  const element = pair.device.pop()!;
  const { desc } = pair.driver.setup;
  pair.iommu.clear(Number(desc));
  expect(pair.device.pop()).toBeUndefined();
  pair.iommu.log.length = 0;
  pair.device.push(element, 0);
  // id, length, flags: one translation each, all in vain.
  expect(pair.iommu.log.map(({ address }) => address - Number(desc))).toEqual([12, 8, 14]);
  expect(pair.driver.getUsed()).toBeUndefined();
  expect(pair.core.errors).toEqual([]);
});

/** Writes a used descriptor, as a device would. */
function use(pair: Pair, place: number, id: number, length: number, flags = AVAIL | USED): void {
  writePacked(pair, pair.driver.ringGpa + 16 * place, [[0, length, flags, id]]);
}

describe('a device that returns what it cannot have', () => {
  test.each([
    ['id 8 out of range', 8],
    ['id 65535 out of range', 0xffff],
    ['id 3 is not a head!', 3],
  ])('%s', (message, id) => {
    const pair = createPair({ isPacked: true });
    pair.driver.add(segments(BUFFERS, [16]), [], 1);
    use(pair, 0, id, 0);
    expect(pair.driver.getUsed()).toEqual({ kind: 'bad-ring', id, message });
    expect(pair.driver.isBroken).toBe(true);
    expect(pair.driver.getUsed()).toBeUndefined();
    expect(pair.driver.add(segments(BUFFERS, [16]), [], 2)).toBe('broken');
    expect(pair.driver.kick()).toBe(false);
    expect(pair.driver.detachUnused()).toEqual({ token: 1 });
  });

  test('the same buffer twice; the middle of a chain', () => {
    const twice = createPair({ isPacked: true });
    twice.driver.add(segments(BUFFERS, [16]), [], 1);
    use(twice, 0, 0, 0);
    expect(twice.driver.getUsed()).toMatchObject({ token: 1 });
    use(twice, 1, 0, 0);
    expect(twice.driver.getUsed()).toMatchObject({ message: 'id 0 is not a head!' });
    const middle = createPair({ isPacked: true, hasIndirect: false });
    middle.driver.add(segments(BUFFERS, [16, 16, 16]), [], 1);
    use(middle, 0, 1, 0);
    expect(middle.driver.getUsed()).toMatchObject({ message: 'id 1 is not a head!' });
  });

  test('wrap bits of another lap are no news', () => {
    const pair = createPair({ isPacked: true });
    pair.driver.add(segments(BUFFERS, [16]), [], 1);
    for (const flags of [0, AVAIL, USED]) {
      use(pair, 0, 0, 0, flags);
      expect(pair.driver.getUsed()).toBeUndefined();
    }
  });

  test('a used descriptor beyond those that are out is not looked at before its turn', () => {
    const pair = createPair({ isPacked: true });
    pair.driver.add(segments(BUFFERS, [16]), [], 1);
    use(pair, 4, 0, 0);
    expect(pair.driver.getUsed()).toBeUndefined();
  });

  test('overwritten descriptors and tables do not change what is unmapped', () => {
    for (const hasIndirect of [false, true]) {
      const pair = createPair({ isPacked: true, isBehindIommu: true, hasIndirect });
      pair.driver.add(segments(BUFFERS, [16, 4096]), segments(BUFFERS * 2, [1]), 5);
      const element = pair.device.pop()!;
      pair.memory.fill(pair.driver.ringGpa, 16 * pair.driver.size, 0xff);
      pair.device.push(element, 1);
      expect(pair.driver.getUsed()).toMatchObject({ token: 5 });
      expect([pair.dma.live.size, pair.dma.badUnmaps]).toEqual([0, 0]);
      expect(pair.driver.numFree).toBe(pair.driver.size);
    }
  });
});

describe('garbage', () => {
  const options = fc.record({
    hasEventIdx: fc.boolean(),
    hasInOrder: fc.boolean(),
    isBehindIommu: fc.boolean(),
    size: fc.constantFrom(1, 3, 8),
  });

  test('in the ring and the event structures: the device does not throw, and it ends', () => {
    const bytes = fc.uint8Array({ minLength: 128, maxLength: 128 });
    fc.assert(
      fc.property(options, fc.array(bytes, { minLength: 1, maxLength: 6 }), (shape, rings) => {
        const pair = createPair({ isPacked: true, ...shape });
        const { ringGpa, size } = pair.driver;
        for (const ring of rings) {
          pair.memory.write(ringGpa, ring.subarray(0, 16 * size));
          // Sometimes memory: the upper half of some addresses is zero.
          for (let i = 0; i < size; i += 2) pair.memory.writeU32Le(ringGpa + 16 * i + 4, 0);
          pair.device.availBytes(1 << 20, 1 << 20);
          pair.device.setNotification(false);
          for (let i = 0; i < 20; i += 1) {
            const element = pair.device.pop();
            if (element !== undefined && i % 3 > 0) pair.device.push(element, i);
          }
          pair.device.setNotification(true);
          pair.core.notifyDriver(0);
          expect(pair.device.lastAvailIdx).toBeLessThan(size);
          expect(pair.device.usedIdx).toBeLessThan(size);
        }
      }),
      { numRuns: 300 },
    );
  });

  test('from the device: no exception, nothing unmapped twice', () => {
    const used = fc.record({ place: fc.nat(7), id: fc.nat(10), length: fc.nat(), lap: fc.nat(1) });
    fc.assert(
      fc.property(options, fc.boolean(), fc.array(used), (shape, hasIndirect, entries) => {
        const pair = createPair({ isPacked: true, hasIndirect, ...shape, isBehindIommu: true });
        const add = (): void => {
          pair.driver.add(segments(BUFFERS, [16]), segments(BUFFERS * 2, [1]), 1);
        };
        for (let i = 0; i < 4; i += 1) add();
        for (const { place, id, length, lap } of entries) {
          use(pair, place % pair.driver.size, id, length, lap === 0 ? 0 : AVAIL | USED);
          pair.driver.noteInterrupt();
          pair.driver.disableCallbacks();
          for (let i = 0; i < 4; i += 1) pair.driver.getUsed();
          pair.driver.enableCallbacks();
          pair.driver.kick();
          add();
        }
        expect(pair.dma.badUnmaps).toBe(0);
      }),
      { numRuns: 300 },
    );
  });
});
