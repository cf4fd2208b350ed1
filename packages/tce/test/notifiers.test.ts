/** Who hears what of a table's entries, in which order. */
import { createGuestMemory } from '@pinhole/memory';
import { describe, expect, test } from 'vitest';
import {
  SpaprIommu,
  SpaprPhb,
  SpaprVioDevice,
  TceError,
  type TceEvent,
  type TceNotifier,
  TceTable,
} from '../src/index.js';

const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 20 }] });
const ALL_ONES = 2n ** 64n - 1n;

function open(nbTable = 16, pageShift = 12): TceTable {
  const table = new TceTable(0x8000_0000);
  table.enable({ pageShift, busOffset: 2n ** 59n, nbTable });
  return table;
}

/** Listens, and keeps type and page of each event. */
function listen(table: TceTable | undefined, options: Omit<TceNotifier, 'notify'> = {}) {
  const heard: [string, bigint][] = [];
  const stop = table?.addNotifier({
    ...options,
    notify: ({ type, iova }) => heard.push([type, iova]),
  });
  return { heard, stop: () => stop?.() };
}

describe('order', () => {
  test('the newest hears first [qemu v7.2 softmmu/memory.c memory_region_register_iommu_notifier]', () => {
    const table = open();
    const order: string[] = [];
    for (const name of ['vhost', 'vfio', 'third']) {
      table.addNotifier({ notify: ({ iova }) => order.push(`${name} ${iova >> 12n}`) });
    }
    table.fill(1, 2, 3n);
    // All hear of one entry before any hears of the next.
    expect(order).toEqual(['third 1', 'vfio 1', 'vhost 1', 'third 2', 'vfio 2', 'vhost 2']);
  });

  test('who comes or goes meanwhile hears of it from the next event on', () => {
    const table = open();
    const order: string[] = [];
    const stopFirst = table.addNotifier({ notify: () => order.push('first') });
    let isAdded = false;
    const stopSecond = table.addNotifier({
      notify: () => {
        order.push('second');
        stopFirst();
        stopSecond();
        if (!isAdded) table.addNotifier({ notify: () => order.push('added') });
        isAdded = true;
      },
    });
    table.put(0, 3n);
    expect(order).toEqual(['second', 'first']);
    order.length = 0;
    table.put(0, 3n);
    expect(order).toEqual(['added']);
  });

  test('a notifier that closes the window is the last thing that is heard of it', () => {
    const table = open();
    const { heard } = listen(table);
    table.addNotifier({ notify: () => table.disable() });
    table.put(0, 3n);
    expect(heard).toEqual([['MAP', 0n]]);
    expect(table.isEnabled).toBe(false);
  });

  test('taking one back twice takes no other', () => {
    const table = open();
    const { heard } = listen(table);
    const again = listen(table);
    again.stop();
    again.stop();
    table.put(0, 3n);
    expect([heard, again.heard]).toEqual([[['MAP', 0n]], []]);
  });
});

describe('what is told', () => {
  test('one event an entry, by one call as by another, also of a value that was there already', () => {
    const table = open();
    const { heard } = listen(table);
    table.put(0, 3n);
    table.put(0, 3n);
    table.fill(1, 3, 0n);
    table.putHalves(5, 0, 0x5001);
    table.putHalves(5, 0, 0x6002);
    expect(heard).toEqual([
      ['MAP', 0n],
      ['MAP', 0n],
      ['UNMAP', 0x1000n],
      ['UNMAP', 0x2000n],
      ['UNMAP', 0x3000n],
      ['MAP', 0x5000n],
      // One valid entry in place of another: no UNMAP, so vhost keeps the old one.
      ['MAP', 0x5000n],
    ]);
  });

  test('the event has the page of the window, the page of memory, and the permission [qemu v7.2 hw/ppc/spapr_iommu.c put_tce_emu]', () => {
    const table = open(16, 24);
    const events: TceEvent[] = [];
    table.addNotifier({ notify: (event) => events.push(event) });
    table.put(15, 0xfedc_ba98_7654_3212n);
    table.put(15, 0xfedc_ba98_7654_3210n);
    const common = { liobn: 0x8000_0000, iova: 0xf00_0000n, addrMask: 0xff_ffffn };
    const translatedAddr = 0xfedc_ba98_7600_0000n;
    expect(events).toEqual([
      { ...common, type: 'MAP', translatedAddr, perm: 2 },
      { ...common, type: 'UNMAP', translatedAddr, perm: 0 },
    ]);
  });

  test('only of the types asked for', () => {
    const table = open();
    const [maps, unmaps, both] = [
      listen(table, { types: ['MAP'] }),
      listen(table, { types: ['UNMAP'] }),
      listen(table, { types: ['UNMAP', 'MAP'] }),
    ];
    table.put(0, 3n);
    table.put(0, 4n);
    expect(maps.heard).toEqual([['MAP', 0n]]);
    expect(unmaps.heard).toEqual([['UNMAP', 0n]]);
    expect(both.heard).toEqual([...maps.heard, ...unmaps.heard]);
  });

  test('nothing at reset, when the window closes, of a store past QEMU, or of a restore', () => {
    const vio = new SpaprVioDevice({ reg: 0x2000, memory });
    const iommu = new SpaprIommu({ phbs: [new SpaprPhb({ memory })], vio: [vio] });
    for (const act of [
      () => iommu.reset(),
      () => iommu.phbs[0]?.tables[0]?.disable(),
      () => iommu.phbs[0]?.tables[0]?.clear(),
      () => iommu.phbs[0]?.tables[0]?.storeHalves(0, 0, 3),
      () => iommu.phbs[0]?.tables[0]?.fillSilently(0, 9, 0, 3),
      () => iommu.restore(iommu.save()),
    ]) {
      iommu.reset();
      const heard = [listen(iommu.phbs[0]?.tables[0]).heard, listen(vio.table).heard];
      iommu.phbs[0]?.tables[0]?.put(0, 3n);
      vio.table?.put(0, 3n);
      act();
      expect(heard).toEqual([[['MAP', 0n]], [['MAP', 0n]]]);
    }
  });

  test('a VIO device’s window is not closed by a reset: who listens to it still does [qemu v7.2 hw/ppc/spapr_vio.c spapr_vio_quiesce_one]', () => {
    const vio = new SpaprVioDevice({ reg: 0x2000, memory });
    const { heard } = listen(vio.table);
    vio.setBypass(true);
    vio.reset();
    vio.table?.put(0, 3n);
    expect(heard).toEqual([['MAP', 0n]]);
  });
});

describe('ranges [qemu v7.2 softmmu/memory.c memory_region_notify_iommu_one]', () => {
  test('only pages inside are heard of, the first and the last as well', () => {
    const table = open();
    const { heard } = listen(table, { start: 0x3000n, end: 0x5fffn });
    table.fill(0, 16, 3n);
    expect(heard.map(([, iova]) => iova)).toEqual([0x3000n, 0x4000n, 0x5000n]);
  });

  test('one bound alone leaves the other side open', () => {
    const table = open();
    const [low, high] = [listen(table, { end: 0xfffn }), listen(table, { start: 0xf000n })];
    table.fill(0, 16, 3n);
    expect([low.heard, high.heard]).toEqual([[['MAP', 0n]], [['MAP', 0xf000n]]]);
  });

  test.each([
    ['a start inside of a page', { start: 0x800n }],
    ['an end inside of a page', { end: 0x1800n }],
    ['an end that is a page’s first byte', { end: 0x1000n }],
    ['an end before the start', { start: 0x2000n, end: 0x1fffn }],
    ['a start below zero', { start: -0x1000n }],
    ['no types', { types: [] }],
  ])('%s is refused', (_what, options) => {
    const table = open();
    expect(() => listen(table, options)).toThrow(expect.objectContaining({ code: 'E_NOTIFIER' }));
    const { heard } = listen(table);
    table.put(0, 3n);
    expect(heard).toHaveLength(1);
  });

  test('pages count by the size of the window’s', () => {
    const range = { start: 0x1000n, end: 0x1_ffffn };
    expect(() => listen(open(16, 16), range)).toThrow(TceError);
    expect(listen(open(), range).heard).toEqual([]);
    expect(listen(open(16, 16), { start: 0x1_0000n, end: ALL_ONES }).heard).toEqual([]);
  });
});

describe('windows that come and go', () => {
  test('a closed one has nobody to tell: asking for it is refused', () => {
    const table = new TceTable(1);
    expect(() => listen(table)).toThrow(expect.objectContaining({ code: 'E_NOTIFIER' }));
  });

  test('who listened is gone when it closes, and does not come back when it opens', () => {
    const table = open();
    const { heard, stop } = listen(table);
    table.disable();
    table.enable({ pageShift: 16, busOffset: 0n, nbTable: 4 });
    table.put(0, 3n);
    expect(heard).toEqual([]);
    // Taking it back now takes no one else.
    const later = listen(table);
    stop();
    table.put(1, 3n);
    expect(later.heard).toEqual([['MAP', 0x1_0000n]]);
  });

  test('a bridge’s reset closes and opens: those of its default window are gone as well', () => {
    const phb = new SpaprPhb({ memory });
    const { heard } = listen(phb.tables[0]);
    phb.reset();
    phb.tables[0]?.put(0, 3n);
    expect(heard).toEqual([]);
  });
});

describe('replay [qemu v7.2 hw/ppc/spapr_iommu.c spapr_tce_replay]', () => {
  test('tells what is mapped, in ascending order, and nothing else', () => {
    const table = open(2 ** 20);
    table.put(9000, 0x5001n);
    table.put(2 ** 20 - 1, 0x6002n);
    table.put(3, 0x7003n);
    table.put(4, 0x8000n);
    table.fill(4096, 2, 0x9003n);
    const events: TceEvent[] = [];
    table.replay({ notify: (event) => events.push(event) });
    expect(events.map(({ type, iova, translatedAddr, perm }) => [type, iova, translatedAddr, perm]))
      // Whoever is told late is told the same as at the time.
      .toEqual([
        ['MAP', 0x3000n, 0x7000n, 3],
        ['MAP', 0x100_0000n, 0x9000n, 3],
        ['MAP', 0x100_1000n, 0x9000n, 3],
        ['MAP', 9000n << 12n, 0x5000n, 1],
        ['MAP', 0xffff_f000n, 0x6000n, 2],
      ]);
  });

  test('goes past types and range: QEMU calls the notifier itself', () => {
    const table = open();
    table.put(1, 3n);
    const heard: bigint[] = [];
    table.replay({ types: ['UNMAP'], start: 0x5000n, notify: ({ iova }) => heard.push(iova) });
    expect(heard).toEqual([0x1000n]);
  });

  test('of a window that is closed, or has no entries: nothing', () => {
    const table = open();
    const heard: TceEvent[] = [];
    table.replay({ notify: (event) => heard.push(event) });
    table.put(0, 3n);
    table.disable();
    table.replay({ notify: (event) => heard.push(event) });
    expect(heard).toEqual([]);
  });

  test('tells no one else', () => {
    const table = open();
    table.put(0, 3n);
    const { heard } = listen(table);
    table.replay({ notify: () => undefined });
    expect(heard).toEqual([]);
  });
});

describe('windows that open [qemu v7.2 include/exec/memory.h MemoryListener region_add]', () => {
  test('an open one is told at once, and each opening from then on, until it is enough', () => {
    const table = open();
    let opened = 0;
    const stop = table.onOpen(() => {
      opened += 1;
    });
    expect(opened).toBe(1);
    table.disable();
    table.enable({ pageShift: 16, busOffset: 0n, nbTable: 4 });
    expect(opened).toBe(2);
    stop();
    table.disable();
    table.enable({ pageShift: 16, busOffset: 0n, nbTable: 4 });
    expect(opened).toBe(2);
  });

  test('a closed one is told when it opens; notifiers can be added then', () => {
    const table = new TceTable(0x8000_0000);
    const heard: bigint[] = [];
    table.onOpen(() => table.addNotifier({ notify: ({ iova }) => heard.push(iova) }));
    expect(table.hasNotifiers).toBe(false);
    table.enable({ pageShift: 12, busOffset: 0n, nbTable: 4 });
    table.put(1, 0x5003n);
    expect(table.hasNotifiers).toBe(true);
    table.disable();
    expect(table.hasNotifiers).toBe(false);
    table.enable({ pageShift: 12, busOffset: 0n, nbTable: 4 });
    table.put(2, 0x5003n);
    expect(heard).toEqual([0x1000n, 0x2000n]);
  });
});
