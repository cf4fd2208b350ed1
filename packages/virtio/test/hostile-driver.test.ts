import { DmaAccess } from '@pinhole/memory';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  VIRTIO_CONFIG_S_NEEDS_RESET,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from '../src/index.js';
import { BUFFERS, createPair, type Pair, type PairOptions } from './support/pair.js';

const NEXT = VIRTQ_DESC_F_NEXT;
const WRITE = VIRTQ_DESC_F_WRITE;
const INDIRECT = VIRTQ_DESC_F_INDIRECT;
const TABLE = BUFFERS - 0x1_0000;

type Desc = readonly [addr: number | bigint, len: number, flags: number, next?: number];

/** Writes descriptors at `at`. */
function writeDescs(pair: Pair, at: number, descs: readonly Desc[]): void {
  descs.forEach(([addr, len, flags, next = 0], i) => {
    pair.memory.writeU64Le(at + 16 * i, BigInt(addr));
    pair.memory.writeU32Le(at + 16 * i + 8, len);
    pair.memory.writeU16Le(at + 16 * i + 12, flags);
    pair.memory.writeU16Le(at + 16 * i + 14, next);
  });
}

/** Makes head `head` available, and the index what it is told. */
function offer(pair: Pair, head = 0, idx = 1): void {
  const avail = pair.driver.ringGpa + pair.driver.layout.avail;
  pair.memory.writeU16Le(avail + 4 + 2 * pair.device.lastAvailIdx, head);
  pair.memory.writeU16Le(avail + 2, idx);
}

/** A device whose driver wrote these descriptors, by hand. */
function faced(
  ring: readonly Desc[],
  table: readonly Desc[] = [],
  options: PairOptions = {},
): Pair {
  const pair = createPair(options);
  writeDescs(pair, pair.driver.ringGpa, ring);
  writeDescs(pair, TABLE, table);
  offer(pair);
  return pair;
}

describe('what QEMU says to a driver in error', () => {
  const rows: readonly [message: string, ring: readonly Desc[], table?: readonly Desc[]][] = [
    ['Invalid size for indirect buffer table', [[TABLE, 0, INDIRECT]]],
    ['Invalid size for indirect buffer table', [[TABLE, 24, INDIRECT]]],
    ['Cannot map indirect buffer', [[2 ** 26 - 16, 32, INDIRECT]]],
    ['Cannot map indirect buffer', [[2n ** 64n - 8n, 16, INDIRECT]]],
    [
      'Looped descriptor',
      [
        [BUFFERS, 16, NEXT, 1],
        [BUFFERS, 16, NEXT, 0],
      ],
    ],
    [
      'Looped descriptor',
      [[TABLE, 32, INDIRECT]],
      [
        [BUFFERS, 1, NEXT, 1],
        [BUFFERS, 1, NEXT, 0],
      ],
    ],
    ['Desc next is 8', [[BUFFERS, 16, NEXT, 8]]],
    ['Desc next is 1', [[TABLE, 16, INDIRECT]], [[BUFFERS, 16, NEXT, 1]]],
    [
      'Incorrect order for descriptors',
      [
        [BUFFERS, 16, WRITE | NEXT, 1],
        [BUFFERS, 16, 0],
      ],
    ],
    ['virtio: zero sized buffers are not allowed', [[BUFFERS, 0, 0]]],
    ['virtio: bogus descriptor or out of resources', [[2 ** 26, 16, 0]]],
    ['virtio: bogus descriptor or out of resources', [[Number.MAX_SAFE_INTEGER, 16, WRITE]]],
  ];

  test.each(rows)('%s', (message, ring, table) => {
    const pair = faced(ring, table);
    expect(pair.device.pop()).toBeUndefined();
    expect(pair.core.errors).toEqual([message]);
    expect(pair.core.isBroken).toBe(true);
    expect(pair.core.readStatus() & VIRTIO_CONFIG_S_NEEDS_RESET).toBe(VIRTIO_CONFIG_S_NEEDS_RESET);
    expect(pair.interrupts.config).toBe(1);
    expect(pair.device.inUse).toBe(0);
    // Deaf from now on.
    expect(pair.device.pop()).toBeUndefined();
    expect(pair.device.isEmpty()).toBe(true);
    expect(pair.core.errors.length).toBe(1);
  });

  test('Guest says index 8 is available', () => {
    const pair = faced([[BUFFERS, 16, 0]]);
    offer(pair, 8);
    expect(pair.device.pop()).toBeUndefined();
    expect(pair.core.errors).toEqual(['Guest says index 8 is available']);
  });

  // What the device returns is offered again at once, as where the used ring lies over the available one.
  test('Virtqueue never becomes empty', () => {
    const pair = faced([[BUFFERS, 16, 0]]);
    offer(pair, 0, 1000);
    pair.device.limitPops(20);
    let taken = 0;
    for (let element = pair.device.pop(); element !== undefined; element = pair.device.pop()) {
      taken += 1;
      pair.device.push(element, 0);
    }
    expect(taken).toBe(20);
    expect(pair.core.errors).toEqual(['Virtqueue never becomes empty']);
    expect(pair.device.isEmpty()).toBe(true);
  });

  test('Virtqueue size exceeded', () => {
    const pair = faced([[BUFFERS, 16, 0]]);
    offer(pair, 0, 1000);
    for (let i = 0; i < 8; i += 1) expect(pair.device.pop()).toBeDefined();
    expect(pair.device.pop()).toBeUndefined();
    expect(pair.core.errors).toEqual(['Virtqueue size exceeded']);
  });

  test('virtio: too many write descriptors in indirect table', () => {
    const table = Array.from({ length: 1025 }, (_, i): Desc => [BUFFERS, 1, NEXT, i + 1]);
    const pair = faced([[TABLE, 16 * 1025, INDIRECT]], table);
    expect(pair.device.pop()).toBeUndefined();
    expect(pair.core.errors).toEqual(['virtio: too many write descriptors in indirect table']);
  });

  test('1024 segments are not too many', () => {
    const table = Array.from(
      { length: 1024 },
      (_, i): Desc => [BUFFERS, 1, i < 1023 ? NEXT : 0, i + 1],
    );
    const pair = faced([[TABLE, 16 * 1024, INDIRECT]], table);
    expect(pair.device.pop()).toMatchObject({ outNum: 1024, outBytes: 1024 });
  });

  test.each([
    ['Cannot map desc', { desc: 2 ** 26 - 16 }],
    ['Cannot map used', { used: 2 ** 26 - 16 }],
    ['Cannot map avail', { avail: 2 ** 26 - 16 }],
  ])('%s', (message, where: { desc?: number; used?: number; avail?: number }) => {
    const pair = createPair();
    const { desc = 0x1000, used = 0x2000, avail = 0x3000 } = where;
    const setup = { size: 8, desc: BigInt(desc), used: BigInt(used), avail: BigInt(avail) };
    pair.core.setupQueue(0, setup);
    expect(pair.core.errors).toEqual([message]);
    expect(pair.device.pop()).toBeUndefined();
  });

  test('a ring that begins where nothing is opens, and reads as empty', () => {
    const pair = createPair();
    const nowhere = 2n ** 60n;
    pair.core.setupQueue(0, { size: 8, desc: nowhere, used: nowhere, avail: nowhere });
    expect(pair.core.errors).toEqual([]);
    expect(pair.device.pop()).toBeUndefined();
    pair.device.setNotification(false);
    pair.device.setNotification(true);
    expect(pair.core.isBroken).toBe(false);
  });

  test('a queue without addresses is not there for kicks; one with an address missing never fills', () => {
    const pair = createPair();
    pair.core.setupQueue(0, { size: 8, desc: 0n, used: 0x2000n, avail: 0x3000n });
    expect(pair.device.isConfigured).toBe(false);
    expect(pair.device.pop()).toBeUndefined();
    pair.core.setupQueue(0, { size: 8, desc: 0x1000n, used: 0x2000n, avail: 0n });
    expect(pair.device.pop()).toBeUndefined();
    expect(pair.core.errors).toEqual([]);
  });

  test('a size that QEMU does not take leaves the old one', () => {
    const pair = createPair();
    for (const size of [0, 2048]) {
      pair.core.setupQueue(0, { ...pair.driver.setup, size });
      expect(pair.device.size).toBe(8);
    }
  });
});

describe('looking at what waits without taking it', () => {
  test('counts both directions, and stops when it has seen enough', () => {
    const pair = faced([
      [BUFFERS, 16, NEXT, 1],
      [BUFFERS, 100, WRITE | NEXT, 2],
      [BUFFERS, 50, WRITE],
    ]);
    expect(pair.device.availBytes(1000, 1000)).toEqual({ inBytes: 150, outBytes: 16 });
    expect(pair.device.availBytes(100, 16)).toEqual({ inBytes: 100, outBytes: 16 });
    expect(pair.device.inUse).toBe(0);
  });

  const rows: readonly [message: string, ring: readonly Desc[], table?: readonly Desc[]][] = [
    ['Invalid size for indirect buffer table', [[TABLE, 0, INDIRECT]]],
    ['Cannot map indirect buffer', [[2 ** 26 - 16, 32, INDIRECT]]],
    ['Looped descriptor', [[BUFFERS, 16, NEXT, 0]]],
    ['Desc next is 9', [[TABLE, 32, INDIRECT]], [[BUFFERS, 16, NEXT, 9]]],
    // A table of 4 GiB that leads back to its start: QEMU would read it 2^28 times.
    ['Looped descriptor', [[TABLE, 0x200_0000, INDIRECT]], [[BUFFERS, 16, NEXT, 0]]],
  ];
  test.each(rows)('%s', (message, ring, table) => {
    const pair = faced(ring, table);
    expect(pair.device.availBytes(2 ** 31, 2 ** 31)).toEqual({ inBytes: 0, outBytes: 0 });
    expect(pair.core.errors).toEqual([message]);
  });

  test('Guest moved used index from 0 to 9; Guest says index 77 is available', () => {
    const moved = faced([[BUFFERS, 16, 0]]);
    offer(moved, 0, 9);
    expect(moved.device.availBytes(1, 1)).toEqual({ inBytes: 0, outBytes: 0 });
    expect(moved.core.errors).toEqual(['Guest moved used index from 0 to 9']);
    const silly = faced([[BUFFERS, 16, 0]]);
    offer(silly, 77);
    expect(silly.device.availBytes(1, 1)).toEqual({ inBytes: 0, outBytes: 0 });
    expect(silly.core.errors).toEqual(['Guest says index 77 is available']);
  });

  test('a queue that is not set up holds nothing', () => {
    const pair = createPair();
    pair.core.writeStatus(0);
    expect(pair.device.availBytes(1, 1)).toEqual({ inBytes: 0, outBytes: 0 });
  });

  /** A table of which one descriptor is used, and a direct buffer after it. */
  function twoBuffers(tableLength: number): Pair {
    const ring: readonly Desc[] = [
      [TABLE, tableLength, INDIRECT],
      [BUFFERS, 10, 0],
    ];
    const pair = faced(ring, [[BUFFERS, 20, WRITE]]);
    pair.memory.writeU16Le(pair.driver.ringGpa + pair.driver.layout.avail + 6, 1);
    offer(pair, 0, 2);
    return pair;
  }

  test('several buffers, direct and by table', () => {
    const pair = twoBuffers(32);
    expect(pair.device.availBytes(1000, 1000)).toEqual({ inBytes: 20, outBytes: 10 });
  });

  test('as in QEMU 7.2, the length of a table limits all the chains after it', () => {
    const pair = twoBuffers(16);
    expect(pair.device.availBytes(1000, 1000)).toEqual({ inBytes: 0, outBytes: 0 });
    expect(pair.core.errors).toEqual(['Looped descriptor']);
  });
});

describe('behind an IOMMU', () => {
  /** A ring at bus page 16, mapped or not; returns what the device then translates. */
  function behindIommu(): Pair {
    return faced([[0x9000, 16, 0]], [], { isBehindIommu: true });
  }

  test('a ring that is not mapped reads as empty; no error (observed: device status stays 0xf)', () => {
    const pair = behindIommu();
    const { desc } = pair.driver.setup;
    for (let page = 0; page < 3; page += 1) pair.iommu.clear(Number(desc) + 4096 * page);
    expect(pair.device.pop()).toBeUndefined();
    expect(pair.core.readStatus()).toBe(0xf);
  });

  test('a descriptor that is not mapped: 4 zero bytes, then QEMU 7.2 reads on at the offset', () => {
    const pair = createPair({ isBehindIommu: true, hasEventIdx: false });
    const size = 8;
    pair.memory.writeU16Le(0x5000 + 2, 1);
    pair.memory.writeU16Le(0x5000 + 4, 3);
    pair.iommu.set(0x5_0000, 0x5000, 3);
    // Bus page 0 holds a descriptor of its own at offset 48: where the ring's third is in the ring.
    pair.memory.writeU64Le(0x6000 + 48, 0x1234_5678_0000_9abcn);
    pair.memory.writeU32Le(0x6000 + 56, 0x77);
    pair.iommu.set(0, 0x6000, 3);
    pair.core.setupQueue(0, { size, desc: 0x8_0000n, avail: 0x5_0000n, used: 0x5_0100n });
    pair.iommu.log.length = 0;
    expect(pair.device.pop()).toBeUndefined();
    // avail.idx, avail.ring[0], the descriptor, the rest of it; then the buffer, at 0x12345678_00000000.
    expect(pair.iommu.log.map(({ address }) => address)).toEqual([
      0x5_0002, 0x5_0004, 0x8_0030, 0x34,
    ]);
    expect(pair.core.errors).toEqual(['virtio: bogus descriptor or out of resources']);
  });

  test('a descriptor that is not mapped, nor bus page 0: four translations, and zeros', () => {
    const pair = createPair({ isBehindIommu: true, hasEventIdx: false });
    pair.memory.writeU16Le(0x5000 + 2, 1);
    pair.iommu.set(0x5_0000, 0x5000, 3);
    pair.core.setupQueue(0, { size: 8, desc: 0x8_0000n, avail: 0x5_0000n, used: 0x5_0100n });
    pair.iommu.log.length = 0;
    expect(pair.device.pop()).toBeUndefined();
    expect(pair.iommu.log.map(({ address }) => address)).toEqual([
      0x5_0002, 0x5_0004, 0x8_0000, 4, 8, 12,
    ]);
    expect(pair.core.errors).toEqual(['virtio: zero sized buffers are not allowed']);
  });

  test('a used ring that may not be written swallows the entry, in two pieces', () => {
    const pair = behindIommu();
    pair.iommu.set(0x9000, BUFFERS, 3);
    const element = pair.device.pop()!;
    for (let page = 0; page < 3; page += 1) {
      pair.iommu.set(Number(pair.driver.setup.desc) + 4096 * page, pair.driver.ringGpa, 1);
    }
    pair.iommu.log.length = 0;
    pair.device.push(element, 0);
    const used = Number(pair.driver.setup.used);
    expect(pair.iommu.log).toEqual([
      { address: used + 4, access: DmaAccess.WRITE },
      { address: 8, access: DmaAccess.WRITE },
      { address: used + 2, access: DmaAccess.WRITE },
    ]);
    expect(pair.driver.getUsed()).toBeUndefined();
  });

  test('fields that straddle two mappings: 16 bits read as zero, a descriptor goes on elsewhere', () => {
    const pair = createPair({ isBehindIommu: true, hasEventIdx: false });
    // avail.idx in the last byte of one page and the first of the next.
    pair.iommu.set(0x5_0000, 0x5000, 3);
    pair.iommu.set(0x5_1000, 0x6000, 3);
    pair.memory.writeU16Le(0x5fff, 1);
    pair.core.setupQueue(0, { size: 8, desc: 0x5_0ff8n, avail: 0x5_0ffdn, used: 0x5_0100n });
    expect(pair.device.pop()).toBeUndefined();
    pair.memory.writeU16Le(0x5802, 1);
    pair.core.setupQueue(0, { size: 8, desc: 0x5_0ff8n, avail: 0x5_0800n, used: 0x5_0100n });
    pair.iommu.log.length = 0;
    pair.device.pop();
    expect(pair.iommu.log.slice(2).map(({ address }) => address)).toEqual([0x5_0ff8, 8, 12]);
  });

  test('a straddling write of an index is lost, as QEMU loses it', () => {
    const pair = createPair({ isBehindIommu: true, hasEventIdx: false });
    pair.iommu.set(0x5_0000, 0x5000, 3);
    pair.iommu.set(0x5_1000, 0x6000, 3);
    pair.core.setupQueue(0, { size: 8, desc: 0x5_0000n, avail: 0x5_0800n, used: 0x5_0fffn });
    pair.device.setNotification(false);
    expect([pair.memory.readU8(0x5fff), pair.memory.readU8(0x6000)]).toEqual([0, 0]);
  });

  test('a buffer of pages that are not contiguous: each break is translated twice', () => {
    const pair = createPair({ isBehindIommu: true });
    pair.driver.add([{ gpa: BUFFERS, length: 3 * 4096 }], [], 1);
    const bus = [...pair.dma.live.keys()][0]!;
    // The second page somewhere else.
    pair.iommu.set(bus + 4096, BUFFERS + 0x10_0000, 1);
    pair.iommu.log.length = 0;
    const element = pair.device.pop()!;
    expect(element.outNum).toBe(3);
    expect([...element.gpa.subarray(0, 3)]).toEqual([
      BUFFERS,
      BUFFERS + 0x10_0000,
      BUFFERS + 0x2000,
    ]);
    expect(pair.iommu.log.slice(-5).map(({ address }) => address - bus)).toEqual([
      0, 4096, 4096, 8192, 8192,
    ]);
  });
});

/** A queue of garbage: no matter what memory holds, the device does not throw, and it ends. */
describe('garbage', () => {
  test.each([false, true])('behind an IOMMU: %s', (isBehindIommu) => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1024, maxLength: 1024 }),
        fc.array(fc.nat(0xffff), { minLength: 1, maxLength: 8 }),
        fc.boolean(),
        (bytes, indices, hasEventIdx) => {
          const pair = createPair({ isBehindIommu, hasEventIdx });
          pair.memory.write(pair.driver.ringGpa, bytes);
          // Addresses that sometimes are memory: the upper half of some descriptors is zero.
          for (let i = 0; i < 8; i += 2)
            pair.memory.writeU32Le(pair.driver.ringGpa + 16 * i + 4, 0);
          for (const idx of indices) {
            pair.memory.writeU16Le(pair.driver.ringGpa + pair.driver.layout.avail + 2, idx);
            pair.device.availBytes(1 << 20, 1 << 20);
            pair.device.setNotification(false);
            for (let i = 0; i < 20; i += 1) {
              const element = pair.device.pop();
              if (element !== undefined && i % 3 > 0) pair.device.push(element, i);
            }
            pair.device.setNotification(true);
            pair.core.notifyDriver(0);
          }
          expect(pair.device.inUse).toBeLessThanOrEqual(pair.device.size);
        },
      ),
      { numRuns: 300 },
    );
  });
});
