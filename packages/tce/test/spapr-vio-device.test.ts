/** Devices of the virtual I/O bus: a window each, and the switch past it. [qemu v7.2 hw/ppc/spapr_vio.c] */
import { type TraceEvent, Tracer } from '@pinhole/base';
import { createGuestMemory, DmaAccess, DmaStatus } from '@pinhole/memory';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SpaprVioDevice } from '../src/index.js';

const MIB = 2 ** 20;
const { READ, WRITE } = DmaAccess;
const { OK, NO_PERMISSION, NOT_MEMORY, NOTHING_THERE } = DmaStatus;

function setUp(size = 512 * MIB, options: { windowSize?: number } = {}) {
  const events: TraceEvent[] = [];
  const device = new SpaprVioDevice({
    reg: 0x2000,
    name: 'l-lan',
    memory: createGuestMemory({ regions: [{ base: 0, size }] }),
    tracer: new Tracer({ emit: (event) => events.push(event) }),
    ...options,
  });
  const translate = (address: number, length = 16, access: DmaAccess = READ) => {
    const out = { gpa: -1, length: -1 };
    const hi = Math.floor(address / 2 ** 32);
    const status = device.translate(hi, address % 2 ** 32, length, access, out);
    return status === OK ? [status, out.gpa, out.length] : [status];
  };
  const covers = (address: number, length: number) =>
    device.covers(Math.floor(address / 2 ** 32), address % 2 ** 32, length);
  return { device, translate, covers, events };
}

describe('the window', () => {
  test('is the device’s own: 256 MiB of 4 KiB pages at 0; its number is the unit address', () => {
    const { device } = setUp();
    expect(device.name).toBe('l-lan@2000');
    expect(device.table).toMatchObject({
      liobn: 0x2000,
      pageShift: 12,
      busOffset: 0n,
      nbTable: 0x1_0000,
      isDefaultWindow: false,
    });
  });

  test('gives what an entry permits, and is logged', () => {
    const { device, translate, events } = setUp();
    device.table?.put(1, 0x5001n);
    device.table?.put(0xffff, 0x6003n);
    device.table?.put(2, BigInt(512 * MIB) | 3n);
    expect(translate(0x1ff0, 64)).toEqual([OK, 0x5ff0, 16]);
    expect(translate(0x1000, 16, WRITE)).toEqual([NO_PERMISSION]);
    expect(translate(0xfff_f000)).toEqual([OK, 0x6000, 16]);
    expect(translate(0x2000)).toEqual([NOT_MEMORY]);
    expect(translate(0x3000)).toEqual([NO_PERMISSION]);
    expect(events.map(({ name, args }) => [name, args.liobn, args.ioba])).toEqual(
      [0x1ff0n, 0x1000n, 0xfff_f000n, 0x2000n, 0x3000n].map((ioba) => [
        'spapr_iommu_xlate',
        0x2000n,
        ioba,
      ]),
    );
  });

  test('ends at 256 MiB, whatever memory there is', () => {
    const { translate, covers } = setUp();
    expect(translate(256 * MIB - 1)).toEqual([NO_PERMISSION]);
    expect(translate(256 * MIB)).toEqual([NOTHING_THERE]);
    expect(translate(2 ** 60)).toEqual([NOTHING_THERE]);
    expect(translate(2 ** 32)).toEqual([NOTHING_THERE]);
    expect([covers(0, 256 * MIB), covers(0, 256 * MIB + 1)]).toEqual([true, false]);
    expect([covers(2 ** 32, 1), covers(2 ** 60, 1)]).toEqual([false, false]);
  });

  test('is cut where memory ends: the device’s space is no larger [spapr_vio_busdev_realize]', () => {
    const { device, translate, covers } = setUp(64 * MIB + 0x800);
    device.table?.fill(0, 0x1_0000, 0x5003n);
    expect(translate(64 * MIB, 0x1000)).toEqual([OK, 0x5000, 0x800]);
    expect(translate(64 * MIB + 0x7ff)).toEqual([OK, 0x57ff, 1]);
    expect(translate(64 * MIB + 0x800)).toEqual([NOTHING_THERE]);
    expect(translate(128 * MIB)).toEqual([NOTHING_THERE]);
    expect(covers(64 * MIB, 0x800)).toBe(true);
    expect(covers(64 * MIB, 0x801)).toBe(false);
  });

  test.each([
    ['a window of half a page', { reg: 1, windowSize: 0x1800 }],
    ['a window below zero', { reg: 1, windowSize: -4096 }],
    ['a window that is no number', { reg: 1, windowSize: Number.NaN }],
    ['a window of 2^32 pages', { reg: 1, windowSize: 2 ** 44 }],
    ['a unit address below zero', { reg: -1 }],
    ['a unit address of 33 bits', { reg: 2 ** 32 }],
    ['a unit address between two', { reg: 0.5 }],
  ])('%s is refused', (_what, options) => {
    const memory = createGuestMemory({ regions: [{ base: 0, size: MIB }] });
    expect(() => new SpaprVioDevice({ ...options, memory })).toThrow(
      expect.objectContaining({ code: 'E_DMA_WINDOW', name: 'TceError' }),
    );
  });
});

describe('bypass [spapr_vio_set_bypass]', () => {
  test('an address is a guest-physical one, within memory, and nothing is looked up', () => {
    const { device, translate, covers, events } = setUp();
    device.setBypass(true);
    expect([device.isBypassed, device.isIdentity]).toEqual([true, true]);
    expect(translate(0x1234, 0x5000, WRITE)).toEqual([OK, 0x1234, 0x5000]);
    // Beyond the window, to the end of memory.
    expect(translate(512 * MIB - 8)).toEqual([OK, 512 * MIB - 8, 8]);
    expect(translate(512 * MIB)).toEqual([NOTHING_THERE]);
    expect(translate(2 ** 60)).toEqual([NOTHING_THERE]);
    expect([covers(0, 512 * MIB), covers(1, 512 * MIB)]).toEqual([true, false]);
    expect(events).toEqual([]);
    expect(device.table?.translations).toBe(0);
  });

  test('entries are there again afterwards, and can be written meanwhile', () => {
    const { device, translate } = setUp();
    device.table?.put(1, 0x5003n);
    device.setBypass(true);
    device.table?.put(2, 0x6003n);
    expect(translate(0x1000)).toEqual([OK, 0x1000, 16]);
    device.setBypass(false);
    expect(translate(0x1000)).toEqual([OK, 0x5000, 16]);
    expect(translate(0x2000)).toEqual([OK, 0x6000, 16]);
  });

  test('a reset ends it and clears the entries; the window stays [spapr_vio_busdev_reset]', () => {
    const { device, translate } = setUp();
    device.table?.put(1, 0x5003n);
    device.setBypass(true);
    device.reset();
    expect([device.isBypassed, device.table?.live, device.table?.nbTable]).toEqual([
      false,
      0,
      0x1_0000,
    ]);
    expect(translate(0x1000)).toEqual([NO_PERMISSION]);
  });

  test('of a device without a window does nothing: it has no memory to reach', () => {
    const { device, translate, covers } = setUp(512 * MIB, { windowSize: 0 });
    expect(device.table).toBeUndefined();
    device.reset();
    device.setBypass(true);
    expect([device.isBypassed, translate(0), covers(0, 1)]).toEqual([
      false,
      [NOTHING_THERE],
      false,
    ]);
    expect(device.save()).toEqual({ reg: 0x2000, bypass: false, table: null });
  });
});

test('byte by byte: the entry, or the address itself, and never beyond memory', () => {
  const size = 0x8800;
  const address = fc.oneof(
    fc.nat({ max: 0xa000 }),
    fc.constantFrom(0x7fff, 0x8000, 0x87ff, 0x8800),
  );
  fc.assert(
    fc.property(
      fc.array(fc.bigInt({ min: 0n, max: 0xffffn }), { minLength: 10, maxLength: 10 }),
      fc.boolean(),
      address,
      fc.integer({ min: 1, max: 0x3000 }),
      fc.constantFrom(READ, WRITE),
      (entries, isBypassed, start, length, access) => {
        const { device, translate } = setUp(size);
        entries.forEach((tce, i) => {
          device.table?.put(i, tce);
        });
        device.setBypass(isBypassed);
        const byte = (at: number): number | DmaStatus[] => {
          if (at >= size) return [NOTHING_THERE];
          if (isBypassed) return at;
          const tce = Number(entries[Math.floor(at / 4096)]);
          if ((tce & access) === 0) return [NO_PERMISSION];
          const gpa = (tce & ~0xfff) + (at % 4096);
          return gpa < size ? gpa : [NOT_MEMORY];
        };
        const [status, gpa = 0, found = 0] = translate(start, length, access);
        const first = byte(start);
        if (typeof first !== 'number') {
          expect([status]).toEqual(first);
          return;
        }
        expect([status, gpa]).toEqual([OK, first]);
        expect(found).toBeGreaterThan(0);
        expect(found).toBeLessThanOrEqual(length);
        expect(byte(start + found - 1)).toBe(gpa + found - 1);
        if (found < length && !isBypassed && (start + found) % 4096 !== 0) {
          expect(typeof byte(start + found)).toBe('object');
        }
        if (found < length && isBypassed) expect(start + found).toBe(size);
      },
    ),
    { numRuns: 500 },
  );
});
