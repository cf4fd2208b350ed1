/** What devices see behind an emulated IOMMU: permissions, faults, the IOTLB and who is told. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  createGuestMemory,
  DmaAccess,
  DmaStatus,
  forEachAlignedBlock,
  type IommuEvent,
  IommuSpace,
  type IommuSpaceOptions,
} from '../src/index.js';

const { READ, WRITE } = DmaAccess;
const RW = 3;
const memory = createGuestMemory({
  regions: [
    { base: 0, size: 2 ** 30 },
    { base: 2 ** 32, size: 2 ** 30 },
  ],
});

function createSpace(options: Partial<IommuSpaceOptions> = {}): IommuSpace {
  return new IommuSpace({ name: 'test', memory, addressBits: 39, ...options });
}

function access(space: IommuSpace, address: number, how: 1 | 2 = READ, length = 1): string {
  const out = { gpa: -1, length: -1 };
  const hi = Math.floor(address / 2 ** 32);
  const status = space.translate(hi, address % 2 ** 32, length, how, out);
  if (status === DmaStatus.OK) return `0x${out.gpa.toString(16)}+${out.length}`;
  return Object.entries(DmaStatus).find(([, value]) => value === status)?.[0] ?? '?';
}

describe('translations', () => {
  test('end at each page: the next may be anywhere', () => {
    const space = createSpace();
    space.map(5, 0x10_0000, 2, RW);
    expect(access(space, 0x5ffe, READ, 100)).toBe('0x100ffe+2');
    expect(access(space, 0x6000, WRITE, 100)).toBe('0x101000+100');
    space.map(2 ** 26, 2 ** 32 + 0x4000, 1, RW);
    expect(access(space, 2 ** 38 + 1, READ, 9)).toBe(`0x100004001+9`);
  });

  test('what is not mapped, or not so, or beyond the address width gives the device nothing', () => {
    const space = createSpace();
    space.map(1, 0x1000, 1, 1);
    space.map(2, 0x2000, 1, 2);
    expect(access(space, 0x1000, READ)).toBe('0x1000+1');
    expect(access(space, 0x1000, WRITE)).toBe('NO_PERMISSION');
    expect(access(space, 0x2000, READ)).toBe('NO_PERMISSION');
    expect(access(space, 0x3000, READ)).toBe('NO_PERMISSION');
    expect(access(space, 2 ** 39 + 0x1000, READ)).toBe('NO_PERMISSION');
    expect(access(space, 2 ** 63, READ)).toBe('NO_PERMISSION');
    const narrow = createSpace({ addressBits: 20 });
    expect(narrow.map(255, 0, 1, RW)).toBe(true);
    expect(narrow.map(256, 0, 1, RW)).toBe(false);
    expect(access(narrow, 0xff_000)).toBe('0x0+1');
    expect(access(narrow, 0x100_000)).toBe('NO_PERMISSION');
  });

  test('memory that is none', () => {
    const space = createSpace();
    space.map(1, 2 ** 31, 1, RW);
    expect(access(space, 0x1000)).toBe('NOT_MEMORY');
  });

  test('where interrupts go, nothing is translated', () => {
    const space = createSpace({ interrupts: { base: 0xfee0_0000, size: 2 ** 20 } });
    space.map(0xf_ee00, 0x1000, 1, RW);
    expect(access(space, 0xfee0_0000, WRITE)).toBe('INTERRUPT');
    expect(access(space, 0xfeef_ffff, WRITE)).toBe('INTERRUPT');
    expect(access(space, 0xfef0_0000, WRITE)).toBe('NO_PERMISSION');
    expect(access(space, 2 ** 32 + 0xfee0_0000, WRITE)).toBe('NO_PERMISSION');
    expect(space.translations).toBe(2);
  });

  test('all of the bus is the IOMMU, mapped or not', () => {
    const space = createSpace();
    expect(space.isIdentity).toBe(false);
    expect(space.covers(0, 0, 4096)).toBe(true);
    expect(space.covers(2 ** 32 - 1, 2 ** 32 - 4096, 4096)).toBe(true);
    expect(space.covers(2 ** 32 - 1, 2 ** 32 - 4096, 4097)).toBe(false);
  });
});

describe('mappings', () => {
  test('a page in use is not mapped again, and nothing of the range is', () => {
    const space = createSpace();
    expect(space.map(10, 0x1000, 1, RW)).toBe(true);
    expect(space.map(8, 0x8000, 3, RW)).toBe(false);
    expect(space.livePages).toBe(1);
    expect(access(space, 0xa000)).toBe('0x1000+1');
    expect(space.unmap(8, 3)).toBe(1);
    expect(space.unmap(8, 3)).toBe(0);
  });

  test('are bounded, whatever a guest asks for', () => {
    const space = createSpace({ maxPages: 8 });
    expect(space.map(1, 0, 9, RW)).toBe(false);
    expect(space.map(1, 0, 8, RW)).toBe(true);
    expect(space.map(100, 0, 1, RW)).toBe(false);
    for (const [pfn, count] of [
      [-1, 1],
      [0, 0],
      [2 ** 27, 1],
      [0, 2 ** 40],
    ] as const) {
      expect(createSpace().map(pfn, 0, count, RW)).toBe(false);
    }
    expect([space.livePages, space.peakPages]).toEqual([8, 8]);
  });
});

describe('the IOTLB', () => {
  test('keeps what was used until it is invalidated, and nothing that failed', () => {
    const space = createSpace({ iotlbSize: 4 });
    space.map(1, 0x1000, 1, 1);
    expect(access(space, 0x1000, WRITE)).toBe('NO_PERMISSION');
    expect(access(space, 0x1000)).toBe('0x1000+1');
    expect(access(space, 0x1008)).toBe('0x1008+1');
    expect([space.translations, space.iotlbHits]).toEqual([3, 1]);
    space.unmap(1, 1);
    expect(access(space, 0x1000)).toBe('0x1000+1');
    expect(access(space, 0x1000, WRITE)).toBe('NO_PERMISSION');
    space.map(1, 0x9000, 1, RW);
    // The old page, where the new one is mapped: who maps before the invalidation is to blame.
    expect(access(space, 0x1000)).toBe('0x1000+1');
    space.invalidate(1, 1);
    expect(access(space, 0x1000)).toBe('0x9000+1');
  });

  test('is emptied when it is full', () => {
    const space = createSpace({ iotlbSize: 2 });
    space.map(1, 0x1000, 3, RW);
    for (const page of [1, 2]) access(space, page * 4096);
    space.unmap(1, 2);
    expect(access(space, 0x1000)).toBe('0x1000+1');
    expect(access(space, 0x3000)).toBe('0x3000+1');
    expect(access(space, 0x1000)).toBe('NO_PERMISSION');
  });

  test.each([0, 16])(
    'of %i entries: the generation changes before a translation could',
    (iotlbSize) => {
      const space = createSpace({ iotlbSize });
      space.map(1, 0x1000, 40, RW);
      const seen = new Map<number, { generation: number | undefined; found: string }>();
      fc.assert(
        fc.property(
          fc.array(fc.tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 0, max: 9 })), {
            maxLength: 60,
          }),
          (steps) => {
            for (const [pfn, action] of steps) {
              if (action === 0) space.unmap(pfn, 1);
              else if (action === 1) space.map(pfn, 0x10_0000 + pfn * 8192, 1, RW);
              else if (action === 2) space.invalidate(pfn, 3);
              else if (action === 3) space.invalidateAll();
              else {
                const { generation } = space;
                const found = access(space, pfn * 4096);
                const before = seen.get(pfn);
                if (before !== undefined && before.generation === space.generation)
                  expect(found).toBe(before.found);
                // The walk itself may have emptied the cache.
                if (found.startsWith('0x') && generation === space.generation) {
                  seen.set(pfn, { generation, found });
                } else seen.delete(pfn);
              }
            }
          },
        ),
      );
      expect(seen.size).toBeGreaterThan(0);
    },
  );

  test('with an observer each translation is asked for, and seen', () => {
    const seen: string[] = [];
    const space = createSpace({
      iotlbSize: 4,
      observer: {
        translated: (iova, gpa, how) => seen.push(`${iova} ${gpa} ${how}`),
        invalidated: (pfn, count) => seen.push(`invalidated ${pfn} ${count}`),
      },
    });
    expect(space.generation).toBeUndefined();
    space.map(1, 0x7000, 1, 1);
    access(space, 0x1008);
    access(space, 0x1008);
    access(space, 0x1008, WRITE);
    space.invalidate(1, 2);
    space.invalidateAll();
    expect(seen).toEqual([
      `${0x1008} ${0x7008} 1`,
      `${0x1008} ${0x7008} 1`,
      `${0x1008} undefined 2`,
      'invalidated 1 2',
      'invalidated undefined undefined',
    ]);
  });

  test('a remembered translation counts, as a hit', () => {
    const cached = createSpace({ iotlbSize: 1 });
    cached.countRemembered();
    const plain = createSpace();
    plain.countRemembered();
    expect([cached.translations, cached.iotlbHits, plain.translations, plain.iotlbHits]).toEqual([
      1, 1, 1, 0,
    ]);
  });
});

test('an unmapped page is stale while the IOTLB has it, if it was used', () => {
  const space = createSpace({ iotlbSize: 4 });
  space.map(1, 0x1000, 3, RW);
  access(space, 0x1000);
  access(space, 0x2000);
  expect(space.stalePages).toBe(0);
  space.unmap(1, 3);
  expect(space.stalePages).toBe(2);
  space.invalidate(1, 1);
  expect(space.stalePages).toBe(1);
  space.invalidateAll();
  expect(space.stalePages).toBe(0);
});

describe('who is told', () => {
  const listen = (space: IommuSpace, types?: IommuEvent['type'][]): string[] => {
    const told: string[] = [];
    space.addNotifier({
      ...(types === undefined ? {} : { types }),
      notify: ({ type, iova, translatedAddr, addrMask, perm }) => {
        const hex = (value: bigint): string => value.toString(16);
        told.push(`${type} ${hex(iova)} ${hex(translatedAddr)} ${hex(addrMask)} ${perm}`);
      },
    });
    return told;
  };

  test('of a map at once, of an unmap when it holds, in aligned blocks', () => {
    const plain = createSpace();
    const cached = createSpace({ iotlbSize: 4 });
    const [a, b] = [listen(plain), listen(cached)];
    for (const space of [plain, cached]) {
      space.map(3, 0x7000, 4, 1);
      space.unmap(3, 4);
    }
    const maps = ['MAP 3000 7000 fff 1', 'MAP 4000 8000 1fff 1', 'MAP 6000 a000 fff 1'];
    const unmaps = ['UNMAP 3000 0 fff 0', 'UNMAP 4000 0 1fff 0', 'UNMAP 6000 0 fff 0'];
    expect(a).toEqual([...maps, ...unmaps]);
    expect(b).toEqual(maps);
    cached.invalidate(3, 4);
    expect(b).toEqual([...maps, ...unmaps]);
    cached.invalidateAll();
    expect(b.at(-1)).toBe('UNMAP 0 0 ffffffffffffffff 0');
  });

  test('as QEMU 7.2: when all is invalidated, of what was mapped the time before', () => {
    const space = createSpace({ iotlbSize: 4, invalidateAllTells: 'known' });
    const told = listen(space, ['UNMAP']);
    space.map(1, 0x1000, 3, RW);
    space.invalidateAll();
    space.map(8, 0x8000, 1, RW);
    space.unmap(8, 1);
    space.unmap(1, 2);
    space.map(2, 0x9000, 1, RW);
    expect(told).toEqual([]);
    // Page 8 came and went unseen; page 3 is where it was.
    space.invalidateAll();
    const first = ['UNMAP 1000 0 fff 0', 'UNMAP 2000 0 fff 0'];
    expect(told).toEqual(first);
    space.unmap(3, 1);
    space.invalidate(3, 1);
    expect(told).toEqual([...first, 'UNMAP 3000 0 fff 0']);
  });

  test('those who asked, until they leave', () => {
    const space = createSpace();
    const told = listen(space, ['UNMAP']);
    let calls = 0;
    const remove = space.addNotifier({
      notify: () => {
        calls += 1;
        remove();
      },
    });
    space.map(1, 0, 1, RW);
    space.unmap(1, 1);
    expect([told, calls]).toEqual([['UNMAP 1000 0 fff 0'], 1]);
  });

  test('blocks are powers of two, aligned, and make up the range', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 2 ** 36 }),
        fc.integer({ min: 0, max: 2 ** 20 }),
        (pfn, count) => {
          let next = pfn;
          forEachAlignedBlock(pfn, count, (at, block) => {
            expect([at, Number.isInteger(Math.log2(block)), at % block]).toEqual([next, true, 0]);
            next += block;
          });
          expect(next).toBe(pfn + count);
        },
      ),
    );
  });
});

test('what a device can reach: each page once, mapped or still cached', () => {
  const space = createSpace({ iotlbSize: 8 });
  space.map(1, 0x1000, 2, RW);
  space.map(9, 0x1000, 1, 1);
  access(space, 0x2000);
  space.unmap(2, 1);
  const reached: string[] = [];
  space.forEachReachable((gpa, length) => reached.push(`${gpa.toString(16)}+${length}`));
  expect(reached.sort()).toEqual(['1000+4096', '2000+4096']);
});
