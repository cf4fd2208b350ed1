/** A host bridge: what its devices reach, window by window and byte by byte. */
import { hi32, joinU64, lo32, type TraceEvent, Tracer } from '@pinhole/base';
import { createGuestMemory, DmaAccess, DmaStatus } from '@pinhole/memory';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  isPciLiobn,
  SPAPR_PHB_DEFAULTS,
  SpaprIommu,
  SpaprPhb,
  SpaprVioDevice,
  spaprMachineDefaults,
  spaprPciLiobn,
  spaprPhbBuid,
  TceTable,
} from '../src/index.js';

const MIB = 2 ** 20;
const WINDOW_2 = 2n ** 59n;
/** The last 16 MiB page is half there; between two regions is a hole inside a 4 KiB page. */
const REGIONS = [
  { base: 0, size: 0x5800 },
  { base: 0x5c00, size: 0x2400 },
  { base: 16 * MIB, size: 24 * MIB },
];
const memory = createGuestMemory({ regions: REGIONS });
const { READ, WRITE } = DmaAccess;
const { OK, NO_PERMISSION, NOT_MEMORY, NOTHING_THERE, INTERRUPT } = DmaStatus;

function setUp() {
  const events: TraceEvent[] = [];
  const tracer = new Tracer({ emit: (event) => events.push(event) });
  const phb = new SpaprPhb({ memory, dmaWindowSize: 64 * 4096, tracer });
  const [first, second] = phb.tables as [TceTable, TceTable];
  second.enable({ pageShift: 24, busOffset: WINDOW_2, nbTable: 16 });
  const translate = (bus: bigint, length: number, access: DmaAccess = READ) => {
    const out = { gpa: -1, length: -1 };
    const status = phb.translate(hi32(bus), lo32(bus), length, access, out);
    return { status, ...out };
  };
  return { phb, first, second, translate, events };
}

describe('a translation', () => {
  test('ends where memory ends, when that is inside of the page', () => {
    const { first, second, translate } = setUp();
    second.put(2, 0x0200_0003n);
    const last = WINDOW_2 + 40n * BigInt(MIB) - 16n;
    expect(translate(last, 4096)).toEqual({ status: OK, gpa: 40 * MIB - 16, length: 16 });
    expect(translate(last + 16n, 1).status).toBe(NOT_MEMORY);
    first.put(1, 0x5003n);
    expect(translate(0x17f0n, 0x100)).toEqual({ status: OK, gpa: 0x57f0, length: 0x10 });
    expect(translate(0x1800n, 1).status).toBe(NOT_MEMORY);
    expect(translate(0x1c00n, 0x1000)).toEqual({ status: OK, gpa: 0x5c00, length: 0x400 });
  });

  test('agrees byte by byte with the entries, the memory and the windows', () => {
    const entry = fc.oneof(
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      fc
        .tuple(
          fc.constantFrom(0x4000n, 0x5000n, 0x7000n, 0x100_0000n, 0x200_0000n),
          fc.nat({ max: 0xfff }),
        )
        .map(([page, low]) => page | BigInt(low)),
    );
    const edges = [0n, 0x1000n, 0x1800n, 0x2000n, 0x4_0000n, WINDOW_2, WINDOW_2 + 0x100_0000n];
    const address = fc
      .tuple(
        fc.constantFrom(...edges, WINDOW_2 + 0x180_0000n, 2n ** 63n),
        fc.integer({ min: -20, max: 20 }),
      )
      .map(([edge, delta]) => BigInt.asUintN(64, edge + BigInt(delta)));
    fc.assert(
      fc.property(
        fc.array(entry, { minLength: 4, maxLength: 4 }),
        address,
        fc.integer({ min: 1, max: 5000 }),
        fc.constantFrom(READ, WRITE),
        (entries, bus, length, access) => {
          const { first, second, translate } = setUp();
          for (const [i, tce] of entries.entries()) (i < 2 ? first : second).put(i % 2, tce);
          /** Where one byte is, by definition. */
          const byte = (at: bigint): bigint | DmaStatus => {
            const isFirst = at < 0x4_0000n;
            if (!isFirst && (at < WINDOW_2 || at >= WINDOW_2 + 0x1000_0000n)) return NOTHING_THERE;
            const page = isFirst ? 0x1000n : 0x100_0000n;
            const relative = isFirst ? at : at - WINDOW_2;
            const index = Number(relative / page);
            const tce = index < 2 ? (entries[index + (isFirst ? 0 : 2)] as bigint) : 0n;
            if ((tce & BigInt(access)) === 0n) return NO_PERMISSION;
            const gpa = tce - (tce % page) + (relative % page);
            const isMemory = REGIONS.some(
              ({ base, size }) => gpa >= BigInt(base) && gpa < BigInt(base + size),
            );
            return isMemory ? gpa : NOT_MEMORY;
          };
          const result = translate(bus, length, access);
          const start = byte(bus);
          if (typeof start !== 'bigint') {
            expect(result).toEqual({ status: start, gpa: -1, length: -1 });
            return;
          }
          expect(result.status).toBe(OK);
          expect(result.length).toBeLessThanOrEqual(length);
          const ends = [0, result.length - 1];
          for (const i of ends) expect(byte(bus + BigInt(i))).toBe(BigInt(result.gpa + i));
          // Whoever asks for more gets it only at the end of the page or of the memory.
          if (result.length < length) {
            const after = bus + BigInt(result.length);
            const page = bus < 0x4_0000n ? 0x1000n : 0x100_0000n;
            expect(after % page === 0n || byte(after) === NOT_MEMORY).toBe(true);
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  test('is logged whatever its end, as QEMU logs it, but not where no window is', () => {
    const { first, second, translate, events } = setUp();
    first.put(2, 0xdead_b000_0000_0ffen);
    second.put(1, 0x0123_4567n);
    events.length = 0;
    translate(0x2010n, 4);
    translate(0x3010n, 4);
    translate(WINDOW_2 + 0x100_0020n, 4);
    translate(0x4_0000n, 4);
    translate(WINDOW_2 - 1n, 4);
    const [name, actor] = ['spapr_iommu_xlate', 'hypervisor'];
    const window = { liobn: 0x8000_0000n, pgsize: 0xfff };
    expect(events.map(({ t: _, ...event }) => event)).toEqual([
      { name, actor, args: { ...window, ioba: 0x2010n, tce: 0xdead_b000_0000_0000n, perm: 2 } },
      { name, actor, args: { ...window, ioba: 0x3010n, tce: 0n, perm: 0 } },
      {
        name,
        actor,
        args: {
          liobn: 0x8000_0001n,
          ioba: 0x100_0020n,
          tce: 0x100_0000n,
          perm: 3,
          pgsize: 0xff_ffff,
        },
      },
    ]);
  });
});

test('covers whole ranges of one window, whatever its entries hold', () => {
  const { phb } = setUp();
  const covers = (bus: bigint, length: number) => phb.covers(hi32(bus), lo32(bus), length);
  expect([covers(0n, 64 * 4096), covers(0n, 64 * 4096 + 1)]).toEqual([true, false]);
  expect([covers(0x3_ffffn, 1), covers(0x4_0000n, 1)]).toEqual([true, false]);
  expect([covers(WINDOW_2 - 1n, 1), covers(WINDOW_2, 2 ** 28)]).toEqual([false, true]);
  expect([covers(WINDOW_2, 2 ** 28 + 1), covers(2n ** 64n - 1n, 1)]).toEqual([false, false]);
});

test('what devices reach is each permitted page, of both windows', () => {
  const { phb, first, second } = setUp();
  first.put(0, 0x4abcn);
  first.put(1, 0x5001n);
  first.put(63, 0xffff_ffff_ffff_f002n);
  second.put(15, 0x0212_3457n);
  const seen: [bigint, number][] = [];
  phb.forEachReachable((gpa, length) => seen.push([gpa, length]));
  expect(seen).toEqual([
    [0x5000n, 4096],
    [0xffff_ffff_ffff_f000n, 4096],
    [0x0200_0000n, 16 * MIB],
  ]);
});

test('reset closes both windows and opens the default one, empty; the flag and the counts stay', () => {
  const { phb, first, second, translate } = setUp();
  first.put(0, 3n);
  second.put(0, 3n);
  translate(0n, 1);
  translate(WINDOW_2, 1);
  phb.reset();
  expect(first).toMatchObject({ nbTable: 64, live: 0, isDefaultWindow: true });
  expect(second).toMatchObject({ isEnabled: false, live: 0, isDefaultWindow: false });
  expect([translate(0n, 1).status, translate(WINDOW_2, 1).status]).toEqual([
    NO_PERMISSION,
    NOTHING_THERE,
  ]);
  expect(phb.translations).toBe(3);
});

test('without dynamic windows there is one table, and no free number once it is open', () => {
  const phb = new SpaprPhb({ memory, ddw: false });
  expect(phb.tables.map(({ liobn }) => liobn)).toEqual([0x8000_0000]);
  expect([phb.activeWindows, phb.freeLiobn]).toEqual([1, undefined]);
});

test('a window may lie anywhere: on both sides of 2^32 it is one', () => {
  const phb = new SpaprPhb({ memory, dmaWindowAddress: 0xffff_f000n, dmaWindowSize: 8192 });
  phb.tables[0]?.put(0, 0x4003n);
  phb.tables[0]?.put(1, 0x6003n);
  const out = { gpa: 0, length: 0 };
  expect([phb.translate(0, 0xffff_fff0, 64, READ, out), out.gpa]).toEqual([OK, 0x4ff0]);
  expect([phb.translate(1, 0x10, 64, READ, out), out.gpa]).toEqual([OK, 0x6010]);
  expect(phb.translate(1, 0x1000, 64, READ, out)).toBe(NOTHING_THERE);
  expect(phb.translate(0, 0xffff_efff, 64, READ, out)).toBe(NOTHING_THERE);
});

test.each([
  ['a size that is no number', { dmaWindowSize: Number.NaN }],
  ['a size below zero', { dmaWindowSize: -4096 }],
  ['an address below zero', { dmaWindowAddress: -4096n }],
  ['an end beyond 2^64', { ddw: false, dmaWindowAddress: 2n ** 64n - 4096n }],
  ['an end inside the second window', { dma64WindowAddress: 0x3fff_f000n }],
  ['a second window beyond 2^64', { dma64WindowAddress: 2n ** 64n }],
])('refuses %s, and says what it found', (_what, options) => {
  expect(() => new SpaprPhb({ memory, ...options })).toThrow(
    expect.objectContaining({ code: 'E_DMA_WINDOW', name: 'TceError' }),
  );
});

test('a window may end exactly where the second begins, or where 64 bits end', () => {
  const dma64WindowAddress = 0x4000_0000n;
  expect(new SpaprPhb({ memory, dma64WindowAddress }).activeWindows).toBe(1);
  const dmaWindowAddress = 2n ** 64n - BigInt(SPAPR_PHB_DEFAULTS.dmaWindowSize);
  const phb = new SpaprPhb({ memory, ddw: false, dmaWindowAddress });
  expect(phb.covers(0xffff_ffff, 0xffff_ffff, 1)).toBe(true);
  expect(phb.covers(0, 0, 1)).toBe(false);
});

describe('the page where devices write to interrupt [qemu v7.2 hw/ppc/spapr_pci.c spapr_phb_realize]', () => {
  const MSI = 0x400_0000_0000n;

  test('is 4 KiB at 4 TiB; its neighbours are not', () => {
    const { phb, translate, events } = setUp();
    events.length = 0;
    for (const [bus, status] of [
      [MSI - 1n, NOTHING_THERE],
      [MSI, INTERRUPT],
      [MSI + 0xfffn, INTERRUPT],
      [MSI + 0x1000n, NOTHING_THERE],
      [MSI - 2n ** 32n, NOTHING_THERE],
      [MSI + 2n ** 32n, NOTHING_THERE],
    ] as const) {
      expect(translate(bus, 4, WRITE), bus.toString(16)).toEqual({ status, gpa: -1, length: -1 });
    }
    // No window covers it, no entry says so.
    expect(phb.covers(hi32(MSI), lo32(MSI), 4)).toBe(false);
    expect([events, phb.translations]).toEqual([[], 0]);
  });

  test('is there whatever windows are open', () => {
    const { phb, translate } = setUp();
    for (const table of phb.tables) table.disable();
    expect(translate(MSI, 4).status).toBe(INTERRUPT);
  });

  // All subregions have one priority, and the one added last comes first: tables are added later.
  test('yields to a window that covers it [qemu v7.2 softmmu/memory.c memory_region_update_container_subregions]', () => {
    const { first, translate } = setUp();
    first.disable();
    // 2^31 pages of 64 KiB, as a guest can make them once the default window is gone.
    first.enable({ pageShift: 16, busOffset: 0n, nbTable: 2 ** 31 });
    expect(translate(MSI, 4).status).toBe(NO_PERMISSION);
    first.put(Number(MSI >> 16n), 3n);
    expect(translate(MSI + 0x10n, 4)).toEqual({ status: OK, gpa: 0x10, length: 4 });
  });
});

test('where two windows overlap, the one of the higher number answers [qemu v7.2 softmmu/memory.c]', () => {
  const { first, second, translate } = setUp();
  first.disable();
  first.enable({ pageShift: 34, busOffset: 0n, nbTable: 2 ** 27 });
  first.fill(2 ** 25, 4, 0n);
  expect(translate(WINDOW_2, 4).status).toBe(NO_PERMISSION);
  second.put(0, 0x0100_0003n);
  expect(translate(WINDOW_2, 4)).toEqual({ status: OK, gpa: 16 * MIB, length: 4 });
  // Past the end of the second, the first is seen again.
  first.put(2 ** 25, 3n);
  expect(translate(WINDOW_2 + 0x1000_0000n, 4).status).toBe(NOT_MEMORY);
  second.disable();
  expect(translate(WINDOW_2, 4)).toEqual({ status: OK, gpa: 0, length: 4 });
});

describe('machine types [qemu v7.2 hw/ppc/spapr.c]', () => {
  const ALL = 0x121_1000n;
  test.each([
    ['pseries', true, ALL],
    ['pseries-7.2', true, ALL],
    ['pseries-10.0', true, ALL],
    ['pseries-4.2', true, ALL],
    ['pseries-4.1', true, 0x1_1000n],
    ['pseries-3.1', true, 0x1_1000n],
    ['pseries-2.12', true, 0x1_1000n],
    ['pseries-2.12-sxxm', true, 0x1_1000n],
    ['pseries-2.10', true, 0x1_1000n],
    ['pseries-2.7', true, 0x1_1000n],
    ['pseries-2.6', false, 0x1_1000n],
    ['pseries-2.1', false, 0x1_1000n],
  ])('%s', (machineType, ddw, pageSizeMask) => {
    expect(spaprMachineDefaults(machineType)).toEqual({ ddw, pageSizeMask });
  });

  test.each([
    '',
    'PSERIES',
    'pseries-',
    'pseries-7',
    'pseries-7.2.1',
    'pseries-2.0',
    'pseries-0.15',
    'pseries-7.2-sxxm',
    ' pseries',
    'pseries-2.6\n',
    'powernv9',
    'pseries-1e3.1',
  ])('%j is none', (machineType) => {
    expect(() => spaprMachineDefaults(machineType)).toThrow(
      expect.objectContaining({ code: 'E_MACHINE_TYPE', name: 'TceError' }),
    );
  });
});

test('with both windows closed a new one gets the LIOBN that QEMU comes upon first', () => {
  // What QEMU 7.2.22 and 10.0.13 answer on a machine with 31 bridges.
  const first = Array.from({ length: 31 }, (_, index) => {
    const phb = new SpaprPhb({ index, memory });
    for (const table of phb.tables) table.disable();
    return phb.tables.findIndex(({ liobn }) => liobn === phb.freeLiobn);
  });
  expect(first).toEqual(first.map((_, index) => (index === 28 ? 1 : 0)));
});

describe('numbers', () => {
  test('of windows and bridges are those of QEMU', () => {
    expect([spaprPciLiobn(0, 0), spaprPciLiobn(0, 1), spaprPciLiobn(30, 1)]).toEqual([
      0x8000_0000, 0x8000_0001, 0x8000_1e01,
    ]);
    expect(spaprPhbBuid(1)).toBe(0x0800_0000_2000_0001n);
    expect([0x8000_0000, 0x7fff_ffff, 0x7100_0000].map(isPciLiobn)).toEqual([true, false, false]);
  });

  test('name one table each: a second with the same number is refused, and changes nothing', () => {
    const vio = new SpaprVioDevice({ reg: 0x7100_0000, memory });
    const iommu = new SpaprIommu({ phbs: [new SpaprPhb({ memory })], vio: [vio] });
    const refused = expect.objectContaining({
      code: 'E_DUPLICATE_LIOBN',
      details: { liobn: 0x7100_0000 },
    });
    expect(() => iommu.addVio(new SpaprVioDevice({ reg: 0x7100_0000, memory }))).toThrow(refused);
    expect(iommu.findTable(0x7100_0000n)).toBe(vio.table);
    const phbs = [new SpaprPhb({ memory }), new SpaprPhb({ memory })];
    expect(() => new SpaprIommu({ phbs })).toThrow(/two with 0x80000000/);
  });

  test('wider than 32 bits name nothing, even when their low half does', () => {
    const iommu = new SpaprIommu({ phbs: [new SpaprPhb({ memory })] });
    for (const high of [1n, 0x8000_0000n, 0xffff_ffffn]) {
      const liobn = joinU64(Number(high), 0x8000_0000);
      expect(iommu.findTable(liobn)).toBeUndefined();
    }
    expect(iommu.findPhb(0n)).toBeUndefined();
    expect(iommu.phbOf(new TceTable(0x8000_0000))).toBeUndefined();
  });
});

describe('the generation of the translations', () => {
  test('is another one after each change that can end a translation differently', () => {
    const phb = new SpaprPhb({ memory, dmaWindowSize: 64 * 4096 });
    const [first, second] = phb.tables as [TceTable, TceTable];
    const changes: (() => unknown)[] = [
      () => first.put(0, 0x4003n),
      () => first.storeHalves(0, 0, 0x5003),
      () => first.fill(0, 4, 3n),
      () => first.clear(),
      () => second.enable({ pageShift: 12, busOffset: 0n, nbTable: 4 }),
      () => second.disable(),
      () => phb.reset(),
    ];
    for (const change of changes) {
      const before = phb.generation;
      change();
      expect(phb.generation).not.toBe(before);
    }
    const { generation } = phb;
    phb.translate(0, 0, 1, READ, { gpa: 0, length: 0 });
    phb.covers(0, 0, 1);
    expect(phb.generation).toBe(generation);
  });

  test('is not there while a trace wants to see each translation', () => {
    expect(setUp().phb.generation).toBeUndefined();
  });

  test('what was remembered counts as a translation', () => {
    const phb = new SpaprPhb({ memory });
    phb.countRemembered();
    expect(phb.translations).toBe(1);
  });
});
