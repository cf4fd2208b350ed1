/** Linux's generic DMA API over an IOMMU: addresses, invalidation, commands, and where room ends. */
import { hiOf, joinNumber, loOf } from '@pinhole/base';
import {
  createGuestMemory,
  DmaAccess,
  DmaDirection,
  DmaStatus,
  type IommuEvent,
  IommuSpace,
} from '@pinhole/memory';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  createIntelIommuDriver,
  createSmmuV3Driver,
  createVirtioIommuDriver,
  GuestPages,
  IOVA_FQ_SIZE,
  IOVA_SINGLE_FQ_SIZE,
  type IommuDriver,
  IovaDma,
  type IovaDmaOptions,
  IovaDomain,
  IovaRcache,
  parseIommuCommandLine,
} from '../src/index.js';

const MIB = 2 ** 20;
const { TO_DEVICE, FROM_DEVICE, BIDIRECTIONAL } = DmaDirection;
const rng = { below: () => 0 } as unknown as ConstructorParameters<typeof GuestPages>[0]['rng'];

function createSetup(
  createDriver: (hardware: IommuSpace) => IommuDriver,
  options: Partial<IovaDmaOptions> & { readonly maxPages?: number } = {},
  iotlbSize = 1024,
): { dma: IovaDma; space: IommuSpace; driver: IommuDriver } {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 256 * MIB }] });
  const space = new IommuSpace({
    name: 'test',
    memory,
    addressBits: 39,
    iotlbSize,
    ...(options.maxPages === undefined ? {} : { maxPages: options.maxPages }),
  });
  const driver = createDriver(space);
  const pages = new GuestPages({
    pageSize: 4096,
    kernel: { base: 16 * MIB, size: 100 * MIB },
    user: { base: 128 * MIB, size: 100 * MIB },
    rng,
  });
  const { maxPages: _, ...rest } = options;
  const dma = new IovaDma({
    driver,
    memory,
    pages,
    apertureEnd: 2n ** 39n - 1n,
    isDeferred: false,
    ...rest,
  });
  return { dma, space, driver };
}

const intel = (hardware: IommuSpace): IommuDriver => createIntelIommuDriver({ hardware });
const virtio = (hardware: IommuSpace): IommuDriver => createVirtioIommuDriver({ hardware });
const smmu = (hardware: IommuSpace): IommuDriver => createSmmuV3Driver({ hardware });

function mapAt(
  dma: IovaDma,
  gpa: number,
  length: number,
  direction: 0 | 1 | 2 = TO_DEVICE,
): number {
  const out = { hi: 0, lo: 0 };
  return dma.map(gpa, length, direction, out) ? joinNumber(out.hi, out.lo) : -1;
}

function unmapAt(dma: IovaDma, address: number, length: number): void {
  dma.unmap(hiOf(address), loOf(address), length, TO_DEVICE);
}

describe('bus addresses', () => {
  test('top-down below 4 GiB, aligned to the size rounded up to a power of two', () => {
    const { dma } = createSetup(intel);
    expect(mapAt(dma, 0x1_0234, 16)).toBe(0xffff_f234);
    expect(mapAt(dma, 0x2_0000, 3 * 4096)).toBe(0xffff_8000);
    expect(mapAt(dma, 0x2_0fff, 2)).toBe(0xffff_6fff);
  });

  test('the one that was given back last is given first, to the same size', () => {
    const { dma } = createSetup(intel);
    const [a, b, c] = [0, 1, 2].map((i) => mapAt(dma, 0x1_0000 + i * 4096, 4096));
    unmapAt(dma, a as number, 4096);
    unmapAt(dma, b as number, 4096);
    expect(mapAt(dma, 0x2_0000, 8192)).toBe(0xffff_a000);
    expect(mapAt(dma, 0x2_0000, 1)).toBe(b);
    expect(mapAt(dma, 0x2_0000, 1)).toBe(a);
    expect(c).toBe(0xffff_d000);
  });

  test('more than 32 pages are not kept, and are found again from the top', () => {
    const { dma } = createSetup(intel);
    const large = mapAt(dma, MIB, 64 * 4096);
    unmapAt(dma, large, 64 * 4096);
    expect(mapAt(dma, MIB, 65 * 4096)).toBe(0xfff8_0000);
    expect(large).toBe(0xfffc_0000);
  });

  test.each([
    ['each time', false, 0xfffc_0000],
    ['once, and then no more', true, 2 ** 39 - 2 * 0x4_0000],
  ])(
    'without room below 4 GiB it goes above; a kernel tries below %s',
    (_what, isSacOnce, next) => {
      const printed: string[] = [];
      const { dma } = createSetup(intel, {
        isSacOnce,
        reserved: [{ lo: 1, hi: 2 ** 20 - 65 }],
        print: (message) => printed.push(message),
      });
      const size = 64 * 4096;
      const low = mapAt(dma, MIB, size);
      expect(low).toBe(0xfffc_0000);
      expect(mapAt(dma, MIB, size)).toBe(2 ** 39 - size);
      unmapAt(dma, low, size);
      expect(mapAt(dma, MIB, size)).toBe(next);
      expect(printed).toEqual(isSacOnce ? ['Using 39-bit DMA addresses'] : []);
    },
  );

  test('a 32-bit mask never leaves 32 bits', () => {
    const { dma } = createSetup(intel, {
      mask: 2n ** 32n - 1n,
      reserved: [{ lo: 3, hi: 2 ** 20 - 1 }],
    });
    expect(mapAt(dma, MIB, 4096)).toBe(0x2000);
    expect(mapAt(dma, MIB, 4096)).toBe(0x1000);
    // Page 0 is none.
    expect(mapAt(dma, MIB, 4096)).toBe(-1);
  });

  test('a window too small: what is kept is given up before a map fails', () => {
    const { dma, space } = createSetup(intel, {
      mask: 2n ** 32n - 1n,
      reserved: [{ lo: 9, hi: 2 ** 20 - 1 }],
    });
    const held = [1, 2, 3, 4, 5, 6, 7, 8].map(() => mapAt(dma, MIB, 4096));
    expect(held).not.toContain(-1);
    for (const address of held) unmapAt(dma, address, 4096);
    // Eight single pages are kept; four in a row can be had from them.
    expect(mapAt(dma, MIB, 4 * 4096)).toBe(0x4000);
    expect(mapAt(dma, MIB, 8 * 4096)).toBe(-1);
    expect(space.livePages).toBe(4);
  });

  test('deferred: what waits for its invalidation is not given, even if nothing else is left', () => {
    const { dma } = createSetup(intel, {
      mask: 2n ** 32n - 1n,
      reserved: [{ lo: 2, hi: 2 ** 20 - 1 }],
      isDeferred: true,
    });
    const only = mapAt(dma, MIB, 4096);
    unmapAt(dma, only, 4096);
    expect(mapAt(dma, MIB, 4096)).toBe(-1);
    dma.flush();
    expect(mapAt(dma, MIB, 4096)).toBe(only);
  });

  test('a map that the IOMMU refuses leaves nothing behind', () => {
    for (const driver of [intel, virtio]) {
      const { dma, space } = createSetup(driver, { maxPages: 4 });
      expect(mapAt(dma, MIB, 3 * 4096)).toBe(0xffff_c000);
      expect(mapAt(dma, MIB, 2 * 4096)).toBe(-1);
      expect(space.livePages).toBe(3);
      // The two pages that were given for it are kept for the next who wants two.
      expect(mapAt(dma, MIB, 4096)).toBe(0xffff_9000);
      expect(mapAt(dma, MIB, 4096)).toBe(-1);
      unmapAt(dma, 0xffff_c000, 3 * 4096);
      expect(space.livePages).toBe(1);
    }
  });

  test('coherent memory is zeroed, whole pages, both ways; it is given back with its address', () => {
    const { dma, space, driver } = createSetup(intel);
    const out = { hi: 0, lo: 0 };
    const gpa = dma.allocCoherent(6726, out);
    expect([gpa === undefined, joinNumber(out.hi, out.lo)]).toEqual([false, 0xffff_e000]);
    const translation = { gpa: 0, length: 0 };
    for (const access of [DmaAccess.READ, DmaAccess.WRITE]) {
      expect(space.translate(0, 0xffff_ffff, 9, access, translation)).toBe(DmaStatus.OK);
      expect(translation).toEqual({ gpa: (gpa as number) + 8191, length: 1 });
    }
    dma.freeCoherent(gpa as number, out.hi, out.lo, 6726);
    expect([space.livePages, driver.counts]).toEqual([0, { maps: 1, unmaps: 1, commands: 1 }]);
    expect(dma.allocCoherent(200 * MIB, out)).toBeUndefined();
  });

  test('two mappings never share a page, and all that is freed can be had again', () => {
    const operation = fc.record({ pages: fc.integer({ min: 1, max: 40 }), keep: fc.boolean() });
    fc.assert(
      fc.property(
        fc.array(operation, { maxLength: 120 }),
        fc.boolean(),
        (operations, isDeferred) => {
          const { dma } = createSetup(intel, {
            isDeferred,
            reserved: [{ lo: 2 ** 20 - 900, hi: 2 ** 20 - 800 }],
          });
          const live = new Map<number, number>();
          const taken = new Set<number>();
          for (const { pages, keep } of operations) {
            const address = mapAt(dma, MIB, pages * 4096);
            const first = address / 4096;
            expect(first % 2 ** Math.ceil(Math.log2(pages))).toBe(0);
            for (let i = 0; i < pages; i += 1) {
              expect(taken.has(first + i)).toBe(false);
              expect(first + i < 2 ** 20 - 900 || first + i > 2 ** 20 - 800).toBe(true);
              taken.add(first + i);
            }
            live.set(address, pages);
            if (keep) continue;
            const [oldest, size] = [...live][0] as [number, number];
            unmapAt(dma, oldest, size * 4096);
            live.delete(oldest);
            for (let i = 0; i < size; i += 1) taken.delete(oldest / 4096 + i);
          }
          for (const [address, pages] of live) unmapAt(dma, address, pages * 4096);
          dma.flush();
          expect(mapAt(dma, MIB, 64 * 4096)).toBeGreaterThan(0);
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe('the allocator below', () => {
  test('a failed size is not looked for again below 4 GiB until something is freed there', () => {
    const domain = new IovaDomain({ reserved: [{ lo: 17, hi: 2 ** 20 - 1 }] });
    expect(domain.alloc(8, 2 ** 20)).toBe(8);
    expect(domain.alloc(8, 2 ** 20)).toBe(0);
    expect(domain.alloc(4, 2 ** 20)).toBe(4);
    domain.free(8);
    expect(domain.alloc(8, 2 ** 20)).toBe(8);
  });

  test('reserved ranges that overlap are one', () => {
    const domain = new IovaDomain({
      reserved: [
        { lo: 5, hi: 9 },
        { lo: 20, hi: 30 },
        { lo: 8, hi: 21 },
      ],
    });
    expect(domain.size).toBe(1);
    expect(domain.alloc(1, 31)).toBe(4);
  });

  test('full magazines go to the depot, and come back', () => {
    const cache = new IovaRcache(new IovaDomain());
    const taken = Array.from({ length: 1000 }, () => cache.alloc(1, 2 ** 20 - 1, false));
    expect(new Set(taken).size).toBe(1000);
    for (const pfn of taken) cache.free(pfn, 1);
    const again = Array.from({ length: 1000 }, () => cache.alloc(1, 2 ** 20 - 1, false));
    expect(new Set(again)).toEqual(new Set(taken));
    expect(again[0]).toBe(taken.at(-1));
  });

  test('a kept range above the limit is passed over', () => {
    const cache = new IovaRcache(new IovaDomain());
    const high = cache.alloc(1, 2 ** 24, false);
    const low = cache.alloc(1, 2 ** 20 - 1, false);
    cache.free(low, 1);
    cache.free(high, 1);
    expect([high, cache.alloc(1, 2 ** 20 - 1, false)]).toEqual([2 ** 24, low]);
  });

  test('an emptied space is searched within bounded time', () => {
    const cache = new IovaRcache(new IovaDomain({ reserved: [{ lo: 40_001, hi: 2 ** 20 - 1 }] }));
    let count = 0;
    while (cache.alloc(1, 2 ** 20 - 1, true) !== 0) count += 1;
    expect(count).toBe(40_000);
    let given = 0;
    for (let i = 0; i < 1_000_000; i += 1) given += cache.alloc(1, 2 ** 20 - 1, false);
    expect(given).toBe(0);
  });
});

describe('invalidation', () => {
  test('strict: an unmapped page is gone at once', () => {
    for (const driver of [intel, virtio, smmu]) {
      // virtio-iommu has no cache: an UNMAP request holds at once.
      const { dma, space } = createSetup(driver, {}, driver === virtio ? 0 : 1024);
      const address = mapAt(dma, 0x1_0000, 4096);
      const out = { gpa: 0, length: 0 };
      expect(space.translate(0, address, 8, DmaAccess.READ, out)).toBe(DmaStatus.OK);
      unmapAt(dma, address, 4096);
      expect(space.translate(0, address, 8, DmaAccess.READ, out)).toBe(DmaStatus.NO_PERMISSION);
    }
  });

  test('deferred: a page that the device used stays in reach until the flush, another does not', () => {
    const { dma, space } = createSetup(intel, { isDeferred: true });
    const used = mapAt(dma, 0x1_0000, 4096);
    const unused = mapAt(dma, 0x2_0000, 4096);
    const out = { gpa: 0, length: 0 };
    space.translate(0, used, 8, DmaAccess.READ, out);
    unmapAt(dma, used, 4096);
    unmapAt(dma, unused, 4096);
    expect(dma.deferred).toBe(2);
    expect(space.translate(0, used, 8, DmaAccess.READ, out)).toBe(DmaStatus.OK);
    expect(space.translate(0, unused, 8, DmaAccess.READ, out)).toBe(DmaStatus.NO_PERMISSION);
    dma.flush();
    expect(dma.deferred).toBe(0);
    expect(space.translate(0, used, 8, DmaAccess.READ, out)).toBe(DmaStatus.NO_PERMISSION);
  });

  test('a full queue flushes itself: at the 256th unmap, and every 255 after', () => {
    const { dma, driver } = createSetup(intel, { isDeferred: true });
    for (let i = 1; i <= 3 * IOVA_FQ_SIZE; i += 1) {
      unmapAt(dma, mapAt(dma, 0x1_0000, 1), 1);
      expect(driver.counts.commands).toBe(Math.floor((i - 1) / 255));
    }
  });

  test('virtio-iommu waits in a longer queue, and its unmaps are sent with the next map', () => {
    const { dma, space, driver } = createSetup(
      (hardware) => createVirtioIommuDriver({ hardware, isDeferred: true }),
      { isDeferred: true },
    );
    const first = mapAt(dma, 0x1_0000, 4096);
    unmapAt(dma, first, 4096);
    expect([space.livePages, driver.waitingPages]).toEqual([1, 1]);
    const second = mapAt(dma, 0x1_0000, 4096);
    expect([space.livePages, driver.waitingPages]).toEqual([1, 0]);
    expect(second).not.toBe(first);
    const held = Array.from({ length: 200 }, () => mapAt(dma, 0x1_0000, 4096));
    for (const address of held) unmapAt(dma, address, 4096);
    // The queue itself holds 128 requests.
    expect(driver.waitingPages).toBe(200 - 128);
    expect([dma.deferred, IOVA_SINGLE_FQ_SIZE]).toEqual([201, 32_768]);
    expect(driver.counts.commands).toBe(202 + 201);
  });
});

describe('commands', () => {
  test.each([
    // One page-selective invalidation an unmap. [linux v6.1 iommu_flush_iotlb_psi]
    ['intel-iommu', 1, 1, intel],
    ['intel-iommu', 33, 1, intel],
    // A MAP and an UNMAP request. [linux v6.1 viommu_map_pages, viommu_unmap_pages]
    ['virtio-iommu', 1, 2, virtio],
    // One for each five bits of the number of pages. [linux v6.1 __arm_smmu_tlb_inv_range]
    ['smmuv3', 1, 1, smmu],
    ['smmuv3', 31, 1, smmu],
    ['smmuv3', 32, 1, smmu],
    ['smmuv3', 33, 2, smmu],
    ['smmuv3', 1023, 2, smmu],
    ['smmuv3', 1025, 2, smmu],
  ])('%s: %i pages mapped and unmapped, strictly: %i', (_name, pages, commands, create) => {
    const { dma, driver, space } = createSetup(create);
    unmapAt(dma, mapAt(dma, MIB + 4096, pages * 4096), pages * 4096);
    expect(driver.counts).toEqual({ maps: 1, unmaps: 1, commands });
    expect(space.livePages).toBe(0);
  });

  test('caching mode: maps are told as well', () => {
    const { dma, driver } = createSetup((hardware) =>
      createIntelIommuDriver({ hardware, hasCachingMode: true }),
    );
    unmapAt(dma, mapAt(dma, MIB, 4096), 4096);
    expect(driver.counts).toEqual({ maps: 1, unmaps: 1, commands: 2 });
  });

  test.each([
    // Both addresses at a multiple of 32 pages: 32, then 8, then 1. The unmap is cut alike.
    [41, 32, 3],
    // Memory one page off: 4 KiB pages only, in one request.
    [41, 33, 1],
    // Memory two pages off: pairs, and one left.
    [41, 34, 2],
    [10, 64, 2],
  ])(
    'virtio-iommu: %i pages of memory from page %i on are cut where the page size changes',
    (pages, first, parts) => {
      const { dma, driver, space } = createSetup(virtio);
      const before = driver.counts.commands;
      const address = mapAt(dma, MIB + first * 4096, pages * 4096);
      expect(driver.counts.commands - before).toBe(parts);
      expect(space.livePages).toBe(pages);
      unmapAt(dma, address, pages * 4096);
      expect(space.livePages).toBe(0);
    },
  );

  test('a page-selective invalidation reaches an aligned power of two of pages', () => {
    const { dma, space } = createSetup(intel);
    const told: IommuEvent[] = [];
    space.addNotifier({ types: ['UNMAP'], notify: (event) => told.push(event) });
    unmapAt(dma, mapAt(dma, MIB, 3 * 4096, BIDIRECTIONAL), 3 * 4096);
    expect(told).toEqual([
      { type: 'UNMAP', iova: 0xffff_c000n, translatedAddr: 0n, addrMask: 0x3fffn, perm: 0 },
    ]);
  });
});

describe('permissions', () => {
  test.each([
    [TO_DEVICE, true, false],
    [FROM_DEVICE, false, true],
    [BIDIRECTIONAL, true, true],
  ])('direction %i: a device may read: %s, write: %s', (direction, mayRead, mayWrite) => {
    const { dma, space } = createSetup(intel);
    const address = mapAt(dma, 0x1_0000, 4096, direction);
    const out = { gpa: 0, length: 0 };
    const may = (access: 1 | 2): boolean =>
      space.translate(0, address, 1, access, out) === DmaStatus.OK;
    expect([may(DmaAccess.READ), may(DmaAccess.WRITE)]).toEqual([mayRead, mayWrite]);
  });
});

test.each([
  ['', { isOff: false, isPassthrough: false, isIntelStrict: false }],
  ['intel_iommu=on,sm_on', { isOff: false, isPassthrough: false, isIntelStrict: false }],
  ['intel_iommu=off', { isOff: true, isPassthrough: false, isIntelStrict: false }],
  ['iommu=pt', { isOff: false, isPassthrough: true, isIntelStrict: false }],
  ['iommu.passthrough=1 iommu=nopt', { isOff: false, isPassthrough: false, isIntelStrict: false }],
  ['iommu.strict=0', { isOff: false, isPassthrough: false, isIntelStrict: false, isStrict: false }],
  [
    'intel_iommu=on,strict',
    { isOff: false, isPassthrough: false, isIntelStrict: true, isStrict: true },
  ],
  // The one is read after the other, wherever they stand.
  [
    'intel_iommu=strict iommu.strict=0',
    { isOff: false, isPassthrough: false, isIntelStrict: true, isStrict: true },
  ],
  [
    'iommu.strict=1 iommu.strict=maybe',
    { isOff: false, isPassthrough: false, isIntelStrict: false, isStrict: true },
  ],
  ['-- iommu=pt', { isOff: false, isPassthrough: false, isIntelStrict: false }],
])('the command line "%s"', (cmdline, expected) => {
  expect(parseIommuCommandLine(cmdline)).toEqual(expected);
});
