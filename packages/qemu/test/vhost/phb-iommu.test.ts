/** What a pseries host bridge tells vhost. */
import { hi32, lo32 } from '@pinhole/base';
import { createGuestMemory, DmaAccess } from '@pinhole/memory';
import { SpaprPhb, type SpaprPhbOptions, type TceTable } from '@pinhole/tce';
import { describe, expect, test } from 'vitest';
import { phbIommu } from '../../src/vhost/iommu-address-spaces.js';

const SECOND = 2n ** 59n;
const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 26 }] });

function setUp(options: Partial<SpaprPhbOptions> = {}) {
  const phb = new SpaprPhb({ memory, ...options });
  const [first, second] = phb.tables as readonly [TceTable, TceTable];
  return { phb, first, second, iommu: phbIommu(phb) };
}

function openSecond(table: TceTable): void {
  table.enable({ pageShift: 24, busOffset: SECOND, nbTable: 4 });
}

describe('a look-up gives the whole page', () => {
  test('4 KiB in the default window, 16 MiB in a second one', () => {
    const { first, second, iommu } = setUp();
    openSecond(second);
    first.put(3, 0x7003n);
    second.put(1, 0x200_0003n);
    expect(iommu.getIotlbEntry(0x3456n, DmaAccess.READ)).toEqual({
      iova: 0x3000n,
      gpa: 0x7000,
      size: 0x1000n,
    });
    expect(iommu.getIotlbEntry(SECOND + 0x123_4567n, DmaAccess.WRITE)).toEqual({
      iova: SECOND + 0x100_0000n,
      gpa: 0x200_0000,
      size: 0x100_0000n,
    });
  });

  test('nothing outside of windows, without permission, where there is no memory', () => {
    const { phb, first, iommu } = setUp();
    first.put(0, 0x7001n);
    first.put(1, 0x4000_0003n);
    const before = phb.translations;
    expect(iommu.getIotlbEntry(0n, DmaAccess.WRITE)).toBeUndefined();
    expect(iommu.getIotlbEntry(0x1000n, DmaAccess.READ)).toBeUndefined();
    expect(iommu.getIotlbEntry(0x2000n, DmaAccess.READ)).toBeUndefined();
    expect(iommu.getIotlbEntry(2n ** 63n, DmaAccess.READ)).toBeUndefined();
    expect(iommu.getIotlbEntry(0n, DmaAccess.READ)).toBeDefined();
    // Each that fell into the window is a translation of it.
    expect(phb.translations).toBe(before + 4);
  });

  test('a window that starts in the middle of a page of its own is cut wrongly, as by QEMU', () => {
    const { phb, first, iommu } = setUp();
    first.disable();
    first.enable({ pageShift: 16, busOffset: 0x8000n, nbTable: 4 });
    first.put(0, 0x3_0003n);
    const out = { gpa: 0, length: 0 };
    phb.translate(hi32(0x9000n), lo32(0x9000n), 1, DmaAccess.READ, out);
    expect(out.gpa).toBe(0x3_1000);
    // Bus address 0x9000 is 0x1000 bytes into the entry; vhost takes it for 0x9000.
    expect(iommu.getIotlbEntry(0x9000n, DmaAccess.READ)).toMatchObject({ iova: 0n, gpa: 0x3_0000 });
  });
});

describe('unmaps', () => {
  function heardBy(iommu: ReturnType<typeof phbIommu>) {
    const heard: [bigint, bigint][] = [];
    const stop = iommu.addUnmapNotifier((iova, size) => heard.push([iova, size]));
    return { heard, stop };
  }

  test('one a TCE, by its address on the bus, in whichever window', () => {
    const { first, second, iommu } = setUp();
    openSecond(second);
    const { heard } = heardBy(iommu);
    first.fill(2, 3, 0n);
    second.put(1, 0n);
    first.put(9, 0x5003n);
    expect(heard).toEqual([
      [0x2000n, 0x1000n],
      [0x3000n, 0x1000n],
      [0x4000n, 0x1000n],
      [SECOND + 0x100_0000n, 0x100_0000n],
    ]);
  });

  test('of a window that opens later, and of one that opens again', () => {
    const { phb, first, second, iommu } = setUp();
    const { heard } = heardBy(iommu);
    openSecond(second);
    second.put(0, 0n);
    phb.reset();
    first.put(0, 0n);
    expect(heard).toEqual([
      [SECOND, 0x100_0000n],
      [0n, 0x1000n],
    ]);
  });

  test('not when a window is closed or cleared, and not after the end', () => {
    const { phb, first, second, iommu } = setUp();
    const { heard, stop } = heardBy(iommu);
    first.put(0, 0x5003n);
    phb.reset();
    stop();
    first.put(0, 0n);
    openSecond(second);
    second.put(0, 0n);
    expect(heard).toEqual([]);
    expect([first.hasNotifiers, second.hasNotifiers]).toEqual([false, false]);
  });
});
