import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  createGuestMemory,
  createRangesSpace,
  createSystemMemorySpace,
  DmaAccess,
  DmaStatus,
  HypervisorView,
  MemoryError,
  type MemoryWindow,
  PageOwnership,
} from '../src/index.js';

const MIB = 2 ** 20;

describe('sparse memory', () => {
  test('a 64 TiB guest costs what it touches', () => {
    const memory = createGuestMemory({ regions: [{ base: 0, size: 64 * 2 ** 40 }] });
    memory.writeU64Be(64 * 2 ** 40 - 8, 0x0123_4567_89ab_cdefn);
    memory.fill(2 ** 40, 2 ** 30, 0);
    expect(memory.readU32Be(64 * 2 ** 40 - 4)).toBe(0x89ab_cdef);
    expect(memory.readU8(2 ** 45)).toBe(0);
    expect(memory.bytesHeld).toBeLessThanOrEqual(65_536);
  });

  test('bytes are bytes, whatever the width and order of access', () => {
    const model = new Uint8Array(MIB);
    const view = new DataView(model.buffer);
    const memory = createGuestMemory({ regions: [{ base: 0, size: MIB }] });
    const write = fc.record({
      // Near a border of 64 KiB more often than not.
      gpa: fc.oneof(fc.integer({ min: 65_524, max: 65_540 }), fc.integer({ min: 0, max: MIB - 8 })),
      value: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      kind: fc.integer({ min: 0, max: 6 }),
    });
    fc.assert(
      fc.property(fc.array(write, { minLength: 1, maxLength: 20 }), (writes) => {
        for (const { gpa, value, kind } of writes) {
          const n = Number(value & 0xffff_ffffn);
          if (kind === 0) [memory.writeU8(gpa, n & 255), view.setUint8(gpa, n)];
          if (kind === 1) [memory.writeU16Le(gpa, n & 0xffff), view.setUint16(gpa, n, true)];
          if (kind === 2) [memory.writeU16Be(gpa, n & 0xffff), view.setUint16(gpa, n)];
          if (kind === 3) [memory.writeU32Le(gpa, n), view.setUint32(gpa, n, true)];
          if (kind === 4) [memory.writeU32Be(gpa, n), view.setUint32(gpa, n)];
          if (kind === 5) [memory.writeU64Le(gpa, value), view.setBigUint64(gpa, value, true)];
          if (kind === 6) [memory.writeU64Be(gpa, value), view.setBigUint64(gpa, value)];
          expect([
            memory.readU8(gpa),
            memory.readU16Le(gpa),
            memory.readU16Be(gpa),
            memory.readU32Le(gpa),
            memory.readU32Be(gpa),
            memory.readU64Le(gpa),
            memory.readU64Be(gpa),
          ]).toEqual([
            view.getUint8(gpa),
            view.getUint16(gpa, true),
            view.getUint16(gpa),
            view.getUint32(gpa, true),
            view.getUint32(gpa),
            view.getBigUint64(gpa, true),
            view.getBigUint64(gpa),
          ]);
        }
        const all = new Uint8Array(MIB);
        memory.read(0, all);
        expect(Buffer.compare(all, model)).toBe(0);
      }),
      { numRuns: 50 },
    );
  });

  test('bulk copies cross pieces', () => {
    const memory = createGuestMemory({ regions: [{ base: 0, size: MIB }] });
    const data = Uint8Array.from({ length: 200_000 }, (_, i) => i % 251);
    memory.write(50_001, data);
    const back = new Uint8Array(data.length);
    memory.read(50_001, back);
    expect(Buffer.compare(back, data)).toBe(0);
    memory.fill(50_001, 100_000, 0);
    expect([memory.readU8(50_001), memory.readU8(150_000), memory.readU8(150_001)]).toEqual([
      0,
      0,
      data[100_000],
    ]);
  });

  describe('holes', () => {
    const memory = createGuestMemory({
      regions: [
        { base: 0x3000, size: 0x1000 },
        { base: 0, size: 0x1000 },
        { base: 0x4000, size: 0x10 },
      ],
    });

    test('only what is whole inside is backed; neighbours are one', () => {
      expect(memory.isBacked(0xffe, 2)).toBe(true);
      expect(memory.isBacked(0xfff, 2)).toBe(false);
      expect(memory.isBacked(0x1000, 1)).toBe(false);
      expect(memory.isBacked(0x3fff, 0x11)).toBe(true);
      expect(memory.isBacked(0x4010, 1)).toBe(false);
      expect(memory.isBacked(-1, 1)).toBe(false);
      expect(memory.isBacked(Number.NaN, 1)).toBe(false);
    });

    test.each([0xffd, 0x1000, 0x2ffd, 0x400d, -4, 2 ** 53, Number.NaN])(
      'an access at %d that leaves memory throws, and changes nothing',
      (gpa) => {
        const before = new Uint8Array(0x1000);
        memory.read(0, before);
        for (const access of [
          () => memory.writeU64Le(gpa, -1n),
          () => memory.writeU32Be(gpa, 0xffff_ffff),
          () => memory.write(gpa, new Uint8Array(8).fill(1)),
          () => memory.fill(gpa, 8, 1),
          () => memory.readU32Le(gpa),
          () => memory.readU64Be(gpa),
          () => memory.read(gpa, new Uint8Array(8)),
        ]) {
          expect(access).toThrow(MemoryError);
        }
        const after = new Uint8Array(0x1000);
        memory.read(0, after);
        expect(after).toEqual(before);
      },
    );

    test('after a good access next to the hole, the check still holds', () => {
      memory.writeU8(0xfff, 7);
      expect(() => memory.readU16Le(0xfff)).toThrow(
        /E_GPA|expected 2 bytes of guest memory at 0xfff/,
      );
      expect(() => memory.writeU32Le(0xffe, 0)).toThrow(MemoryError);
    });
  });

  test.each([
    [[{ base: 0, size: 0 }]],
    [
      [
        { base: 0, size: 16 },
        { base: 8, size: 16 },
      ],
    ],
    [[{ base: 2 ** 53, size: 1 }]],
    [[{ base: -1, size: 16 }]],
  ])('regions that cannot be: %j', (regions) => {
    expect(() => createGuestMemory({ regions })).toThrow(MemoryError);
  });
});

describe('ownership', () => {
  test('agrees with a set of pages', () => {
    const change = fc.record({
      share: fc.boolean(),
      gpa: fc.integer({ min: 0, max: 100_000 }),
      length: fc.integer({ min: 0, max: 30_000 }),
    });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 40 }), (changes) => {
        const ownership = new PageOwnership({ pageSize: 4096 });
        const pages = new Set<number>();
        for (const { share, gpa, length } of changes) {
          if (share) ownership.share(gpa, length);
          else ownership.unshare(gpa, length);
          if (length === 0) continue;
          for (let page = Math.floor(gpa / 4096); page * 4096 < gpa + length; page += 1) {
            if (share) pages.add(page);
            else pages.delete(page);
          }
        }
        expect(ownership.sharedBytes).toBe(pages.size * 4096);
        for (let page = 0; page < 40; page += 1) {
          expect(ownership.isShared(page * 4096 + 5)).toBe(pages.has(page));
        }
        let within = 0;
        for (let at = 1000; at < 61_000; at += 1) if (pages.has(Math.floor(at / 4096))) within += 1;
        expect(ownership.sharedBytesWithin(1000, 60_000)).toBe(within);
      }),
      { numRuns: 60 },
    );
  });
});

describe('the hypervisor of a secure guest', () => {
  const setUp = () => {
    const memory = createGuestMemory({ regions: [{ base: 0, size: 65_536 }] });
    const ownership = new PageOwnership({ pageSize: 4096 });
    memory.fill(0, 65_536, 0x42);
    ownership.share(0x2000, 0x1000);
    return { memory, view: new HypervisorView(memory, ownership) };
  };

  test('sees shared pages as they are and private ones as something else', () => {
    const { view } = setUp();
    const shared = new Uint8Array(4096);
    const hidden = new Uint8Array(4096);
    view.read(0x2000, shared);
    view.read(0x1000, hidden);
    expect(shared.every((byte) => byte === 0x42)).toBe(true);
    expect(hidden.filter((byte) => byte === 0x42).length).toBeLessThan(64);
    expect(view.ciphertextBytesRead).toBe(4096);
  });

  test('sees equal data in different places as different, and each place always the same', () => {
    const { view } = setUp();
    expect(view.readU32Le(0x1000)).toBe(view.readU32Le(0x1000));
    expect(view.readU32Le(0x1000)).not.toBe(view.readU32Le(0x1004));
  });

  test('writes reach shared pages only; the rest is dropped and counted', () => {
    const { memory, view } = setUp();
    view.write(0x1ff0, new Uint8Array(32).fill(9));
    expect([memory.readU8(0x1fff), memory.readU8(0x2000), memory.readU8(0x200f)]).toEqual([
      0x42, 9, 9,
    ]);
    expect(view.privateBytesWriteRefused).toBe(16);
    expect(() => view.write(65_530, new Uint8Array(8))).toThrow(MemoryError);
  });
});

describe('device spaces', () => {
  const memory = createGuestMemory({
    regions: [
      { base: 0, size: 0x1_0000 },
      { base: 0x2_0000, size: 0x1000 },
    ],
  });
  const out = { gpa: 0, length: 0 };

  test('system memory: the address itself, up to the hole', () => {
    const space = createSystemMemorySpace(memory);
    expect(space.translate(0, 0xfff0, 0x100, DmaAccess.READ, out)).toBe(DmaStatus.OK);
    expect(out).toEqual({ gpa: 0xfff0, length: 0x10 });
    expect(space.translate(0, 0x1_0000, 1, DmaAccess.READ, out)).toBe(DmaStatus.NOTHING_THERE);
    expect(space.translate(0x0800_0000, 0, 1, DmaAccess.READ, out)).toBe(DmaStatus.NOTHING_THERE);
    expect(space.covers(0, 0xfff0, 0x10)).toBe(true);
    expect(space.covers(0, 0xfff0, 0x11)).toBe(false);
  });

  test('dma-ranges: moved, and nothing outside', () => {
    const ranges = [{ cpuStart: 0x8000, dmaStart: 0xffff_c000n, size: 0x8000 }];
    const space = createRangesSpace(memory, ranges);
    // Across 2^32 on the bus.
    expect(space.translate(1, 0x10, 0x20, DmaAccess.WRITE, out)).toBe(DmaStatus.OK);
    expect(out).toEqual({ gpa: 0xc010, length: 0x20 });
    expect(space.translate(1, 0x3ff0, 0x100, DmaAccess.READ, out)).toBe(DmaStatus.OK);
    expect(out.length).toBe(0x10);
    expect(space.translate(1, 0x4000, 1, DmaAccess.READ, out)).toBe(DmaStatus.NOTHING_THERE);
    expect(space.translate(0, 0x8000, 1, DmaAccess.READ, out)).toBe(DmaStatus.NOTHING_THERE);
    expect(space.covers(0, 0xffff_c000, 0x8000)).toBe(true);
    expect(space.covers(0, 0xffff_c000, 0x8001)).toBe(false);
  });
});

describe('a window', () => {
  const memory = createGuestMemory({
    regions: [
      { base: 0, size: 0x2_8000 },
      { base: 0x3_0000, size: 0x1_0000 },
    ],
  });
  const window: MemoryWindow = {
    view: new DataView(new ArrayBuffer(0)),
    offset: 0,
    from: 0,
    to: 0,
  };

  test('shows memory where it lies, and how much around it', () => {
    expect(memory.window(0x1_0010, 16, window)).toBe(false);
    memory.writeU32Le(0x1_0010, 0x1234_5678);
    expect(memory.window(0x1_0010, 16, window)).toBe(true);
    expect(window.view.getUint32(window.offset, true)).toBe(0x1234_5678);
    expect([window.from, window.to]).toEqual([0x1_0000, 0x2_0000]);
    window.view.setUint16(window.offset + 2, 0xabcd, true);
    expect(memory.readU32Le(0x1_0010)).toBe(0xabcd_5678);
    memory.fill(0x1_0010, 4, 0xff);
    expect(window.view.getInt32(window.offset)).toBe(-1);
  });

  test('is not there for what is not in one piece, or no memory', () => {
    memory.fill(0, 0x2_8000, 1);
    for (const [gpa, length] of [
      [0xfff8, 16],
      [0x2_7ff8, 16],
      [0x2_8000, 4],
      [0x5_0000, 4],
      [-4, 4],
      [0x1_0000, 0],
    ] as const) {
      expect(memory.window(gpa, length, window)).toBe(false);
    }
    expect(memory.window(0x2_7ff8, 8, window)).toBe(true);
    expect(window.to).toBe(0x2_8000);
  });
});
