/** A machine put together: its type, RTAS calls that come with it, saved state. */
import { createGuestMemory } from '@pinhole/memory';
import { TceError, type TceEvent } from '@pinhole/tce';
import { describe, expect, test } from 'vitest';
import {
  H_GET_TCE,
  H_PARAMETER,
  H_PUT_TCE,
  H_SUCCESS,
  KVMPPC_H_RTAS,
  RTAS_TOKENS,
  type RtasCallName,
  SpaprMachine,
  type SpaprMachineOptions,
} from '../src/index.js';

const GIB = 2 ** 30;
const BUID = [0x0800_0000, 0x2000_0000];
const FIRST = 0x8000_0000;
const SECOND = 0x8000_0001;
const HIGH = [0x0800_0000, 0];
const FOUR_GIB = [1, 0];

function build(options: Omit<SpaprMachineOptions, 'memory'> = {}) {
  const memory = createGuestMemory({ regions: [{ base: 0, size: GIB }] });
  const machine = new SpaprMachine({ memory, ...options });
  const rtas = (name: RtasCallName, args: number[], nret: number) =>
    machine.hypercalls.rtas(RTAS_TOKENS[name], args, nret);
  return {
    machine,
    memory,
    rtas,
    query: () => rtas('ibm,query-pe-dma-window', [0, ...BUID], 6),
    create: (page: number, window: number) =>
      rtas('ibm,create-pe-dma-window', [0, ...BUID, page, window], 4),
    remove: (liobn: number) => rtas('ibm,remove-pe-dma-window', [liobn], 1),
    reset: (...mode: number[]) => rtas('ibm,reset-pe-dma-window', [0, ...BUID, ...mode], 1),
    put: (liobn: number, ioba: bigint, tce: bigint) =>
      machine.hypercalls.call(H_PUT_TCE, [BigInt(liobn), ioba, tce]).ret,
    get: (liobn: number, ioba: bigint) =>
      machine.hypercalls.call(H_GET_TCE, [BigInt(liobn), ioba]).out[0],
  };
}

describe('the machine type', () => {
  test.each([
    ['pseries', 0x107],
    ['pseries-7.2', 0x107],
    ['pseries-4.2', 0x107],
    ['pseries-4.1', 0x3],
    ['pseries-2.7', 0x3],
  ])('%s has two windows; its page sizes are 0x%s', (machineType, pages) => {
    const { query, create } = build({ machineType });
    expect(query()).toEqual([0, 1, 0x20, 0, pages, 0]);
    expect(create(16, 24)).toEqual([0, SECOND, ...HIGH]);
    expect(build({ machineType }).create(24, 32)).toEqual(
      pages === 0x107 ? [0, SECOND, ...HIGH] : [-3],
    );
  });

  test('pseries-2.6 has one window, and no calls for others', () => {
    const { machine, query, create, remove, reset, put } = build({ machineType: 'pseries-2.6' });
    expect(machine.iommu.phbs[0]?.tables.map(({ liobn }) => liobn)).toEqual([FIRST]);
    expect([query(), create(16, 24), remove(FIRST), reset()]).toEqual([[-3], [-3], [-3], [-3]]);
    expect([put(FIRST, 0n, 3n), put(SECOND, 0n, 3n)]).toEqual([H_SUCCESS, H_PARAMETER]);
  });

  test('what a bridge says of itself comes before its machine’s type', () => {
    const phbs = [{ ddw: true, pageSizeMask: 0x101_0000n }];
    const { query, create } = build({ machineType: 'pseries-2.6', phbs });
    expect(query()).toEqual([0, 1, 0x20, 0, 0x6, 0]);
    expect(create(24, 32)).toEqual([0, SECOND, ...HIGH]);
  });

  test.each(['pseries-1.0', 'pc-q35-7.2', 'pseries-7', ''])('%j is refused', (machineType) => {
    expect(() => build({ machineType })).toThrow(
      expect.objectContaining({ code: 'E_MACHINE_TYPE' }),
    );
  });

  test('two VIO devices at one address are refused', () => {
    expect(() => build({ vio: [{ reg: 1, windowSize: 0 }, { reg: 1 }] })).toThrow(
      expect.objectContaining({ code: 'E_DUPLICATE_LIOBN' }),
    );
  });
});

describe('the limited-address mode', () => {
  const limited = () => build({ phbs: [{ limitedAddressMode: true }] });

  test('is a fourth argument of reset: a second window is at 4 GiB then', () => {
    const { machine, reset, create } = limited();
    expect(create(24, 32)).toEqual([0, SECOND, ...HIGH]);
    expect(reset(1)).toEqual([0]);
    expect(machine.iommu.phbs[0]).toMatchObject({ isLimited: true, activeWindows: 1 });
    expect(create(24, 32)).toEqual([0, SECOND, ...FOUR_GIB]);
  });

  test('without the flag that call is refused, and resets nothing', () => {
    const { reset, create, put, get } = build();
    create(24, 32);
    put(FIRST, 0n, 3n);
    expect([reset(1), reset(0)]).toEqual([[-3], [-3]]);
    expect(get(FIRST, 0n)).toBe(3n);
    expect(create(24, 32)).toEqual([-1]);
  });

  test.each([
    ['a usual reset', ({ reset }) => reset()],
    ['a fourth argument of 0', ({ reset }) => reset(0)],
    ['a reset of the machine', ({ machine }) => machine.reset()],
    [
      'removing the last window, which was no default window',
      ({ create, remove }) => {
        create(24, 32);
        remove(FIRST);
        remove(SECOND);
      },
    ],
  ] as [string, (machine: ReturnType<typeof build>) => void][])('%s leaves it', (_what, leave) => {
    const machine = limited();
    machine.reset(1);
    leave(machine);
    expect(machine.machine.iommu.phbs[0]?.isLimited).toBe(false);
    expect(machine.create(24, 32)).toEqual([0, SECOND, ...HIGH]);
  });

  test('the first window of none is still at the default window’s place', () => {
    const { reset, remove, create } = limited();
    reset(1);
    remove(FIRST);
    expect(create(16, 24)).toEqual([0, FIRST, 0, 0]);
    expect(create(16, 24)).toEqual([0, SECOND, ...FOUR_GIB]);
  });

  test.each([
    ['5 arguments', [1, 1], 1],
    ['2 outputs', [1], 2],
    ['a mode that is none', [2], 1],
  ])('%s: refused, the mode stays', (_what, mode, nret) => {
    const { machine, rtas, reset } = limited();
    reset(1);
    expect(rtas('ibm,reset-pe-dma-window', [0, ...BUID, ...mode], nret)).toEqual([-3]);
    expect(machine.iommu.phbs[0]?.isLimited).toBe(true);
  });
});

describe('shifts without reason [qemu v7.2 hw/ppc/spapr_rtas_ddw.c rtas_ibm_create_pe_dma_window]', () => {
  test.each([
    ['the largest window', 16, 47, [0, SECOND, ...HIGH]],
    ['2^32 entries', 16, 48, [-1]],
    ['a window of 2^64 bytes', 34, 64, [-1]],
    ['a window of more', 34, 65, [-1]],
    ['a window as large as a cell can say', 34, 0xffff_ffff, [-1]],
    ['a page of 2^64 bytes', 64, 64, [-3]],
    ['a window smaller than its pages', 34, 33, [-3]],
    ['one page', 34, 34, [0, SECOND, ...HIGH]],
  ])('%s', (_what, page, window, answer) => {
    const { machine, create } = build({ phbs: [{ pageSizeMask: 0x4_0001_0000n }] });
    expect(create(page, window)).toEqual(answer);
    expect(machine.iommu.phbs[0]?.activeWindows).toBe(answer.length === 1 ? 1 : 2);
  });
});

describe('ibm,set-tce-bypass [qemu v7.2 hw/ppc/spapr_vio.c rtas_set_tce_bypass]', () => {
  const withVio = () => build({ vio: [{ reg: 0x2000 }, { reg: 0x3000, windowSize: 0 }] });
  const bypass = ({ rtas }: ReturnType<typeof build>, args: number[], nret = 1) =>
    rtas('ibm,set-tce-bypass', args, nret);

  test.each([1, 2, 0x8000_0000, 0xffff_ffff])('%d enables', (enable) => {
    const machine = withVio();
    const [device] = machine.machine.iommu.vio;
    expect(bypass(machine, [0x2000, enable])).toEqual([0]);
    expect(device?.isBypassed).toBe(true);
    expect(bypass(machine, [0x2000, 0])).toEqual([0]);
    expect(device?.isBypassed).toBe(false);
  });

  test.each([
    ['an unknown unit', [0x2001, 1]],
    ['a unit that is a bridge’s window', [FIRST, 1]],
    ['a device without a window', [0x3000, 1]],
    ['1 argument', [0x2000]],
    ['3 arguments', [0x2000, 1, 0]],
    ['none', []],
  ])('%s: -3, nothing changes', (_what, args) => {
    const machine = withVio();
    expect(bypass(machine, args)).toEqual([-3]);
    expect(machine.machine.iommu.vio.map(({ isBypassed }) => isBypassed)).toEqual([false, false]);
  });

  test.each([0, 1, 2, 7])('with room for %d outputs: that is not looked at', (nret) => {
    const machine = withVio();
    expect(bypass(machine, [0x2000, 1], nret)).toEqual([0]);
    expect(machine.machine.iommu.vio[0]?.isBypassed).toBe(true);
  });

  test('through a buffer: the status alone is written', () => {
    const { machine, memory } = withVio();
    const cells = [RTAS_TOKENS['ibm,set-tce-bypass'], 2, 1, 0x2000, 1, 0xaa, 0xbb];
    cells.forEach((cell, i) => {
      memory.writeU32Be(0x8000 + i * 4, cell);
    });
    expect(machine.hypercalls.call(KVMPPC_H_RTAS, [0x8000n]).ret).toBe(H_SUCCESS);
    expect([memory.readU32Be(0x8014), memory.readU32Be(0x8018)]).toEqual([0, 0xbb]);
    expect(machine.iommu.vio[0]?.isBypassed).toBe(true);
  });

  test('entries stay, and hypercalls reach them; a reset clears both', () => {
    const machine = withVio();
    const { put, get } = machine;
    put(0x2000, 0x1000n, 0x5003n);
    bypass(machine, [0x2000, 1]);
    expect([put(0x2000, 0x2000n, 0x6003n), get(0x2000, 0x1000n)]).toEqual([H_SUCCESS, 0x5003n]);
    machine.machine.reset();
    expect([get(0x2000, 0x1000n), get(0x2000, 0x2000n)]).toEqual([0n, 0n]);
    expect(machine.machine.iommu.vio[0]?.isBypassed).toBe(false);
  });

  test('removing a VIO device’s window is refused', () => {
    const { machine, remove } = withVio();
    expect(remove(0x2000)).toEqual([-3]);
    expect(machine.iommu.vio[0]?.table?.isEnabled).toBe(true);
  });
});

describe('notifiers', () => {
  const events = (act: (machine: ReturnType<typeof build>) => void): string[] => {
    const machine = build({ vio: [{ reg: 0x2000 }] });
    machine.create(16, 24);
    const heard: string[] = [];
    for (const liobn of [FIRST, SECOND, 0x2000]) {
      machine.machine.iommu.tableAt(liobn)?.addNotifier({
        notify: ({ type, iova }: TceEvent) =>
          heard.push(`${type} ${liobn.toString(16)} ${iova.toString(16)}`),
      });
    }
    act(machine);
    return heard;
  };

  test('hear of puts, in the window that they are in', () => {
    const heard = events(({ put }) => {
      put(FIRST, 0x1000n, 3n);
      put(SECOND, 2n ** 59n + 0x2_0000n, 3n);
      put(0x2000, 0x3000n, 0n);
      put(FIRST, 0x4000_0000n, 3n);
    });
    expect(heard).toEqual(['MAP 80000000 1000', 'MAP 80000001 20000', 'UNMAP 2000 3000']);
  });

  test('hear nothing of windows that close, and nothing of those that open in their place', () => {
    const acts = [
      ({ reset }: ReturnType<typeof build>) => reset(),
      ({ remove }: ReturnType<typeof build>) => remove(SECOND),
      ({ machine }: ReturnType<typeof build>) => machine.reset(),
    ];
    for (const act of acts) {
      const heard = events((machine) => {
        act(machine);
        machine.create(16, 24);
        machine.put(SECOND, 2n ** 59n, 3n);
      });
      expect(heard).toEqual([]);
    }
  });
});

describe('saved state', () => {
  test.each([
    ['nothing', undefined, /schemaVersion: expected 1, found undefined/],
    ['null', null, /schemaVersion/],
    ['a number', 1, /schemaVersion/],
    ['a string', '{}', /schemaVersion/],
    ['another version', { schemaVersion: 2, iommu: {} }, /expected 1, found 2/],
    ['a version in a string', { schemaVersion: '1' }, /schemaVersion/],
    [
      'a version that no text can be made of',
      JSON.parse('{"schemaVersion":{"toString":1}}'),
      /else/,
    ],
    ['a version in a list', { schemaVersion: [1] }, /something else/],
    ['no IOMMU', { schemaVersion: 1 }, /iommu: expected an object, found undefined/],
    ['an IOMMU of no bridges', { schemaVersion: 1, iommu: { phbs: [], vio: [] } }, /phbs\.length/],
  ])('%s is refused, and changes nothing', (_what, saved, message) => {
    const { machine, put } = build();
    put(FIRST, 0n, 3n);
    const before = machine.save();
    const restore = () => machine.restore(saved);
    expect(restore).toThrow(TceError);
    expect(restore).toThrow(message);
    expect(restore).toThrow(expect.objectContaining({ code: 'E_SAVED_STATE' }));
    expect(machine.save()).toEqual(before);
  });

  test('of a machine of another kind is refused', () => {
    const others: Omit<SpaprMachineOptions, 'memory'>[] = [
      { machineType: 'pseries-2.6' },
      { phbs: [{}, { index: 1 }] },
      { phbs: [{ index: 1 }] },
      { vio: [{ reg: 0x2000 }] },
      { phbs: [{ dmaWindowAddress: 0x1000n }] },
    ];
    for (const options of others) {
      const { machine } = build(options);
      expect(() => build().machine.restore(machine.save())).toThrow(TceError);
      expect(() => machine.restore(build().machine.save())).toThrow(TceError);
    }
    // A window with pages that the other does not offer.
    const { machine, create } = build();
    create(24, 32);
    const restore = () => build({ machineType: 'pseries-4.1' }).machine.restore(machine.save());
    expect(restore).toThrow(
      /phbs\[0\]\.tables\[1\]\.pageShift: expected a page size of the machine/,
    );
  });

  test('the default-window flag comes along: removing that window restores nothing', () => {
    const before = build();
    before.remove(FIRST);
    before.create(16, 24);
    const after = build();
    after.machine.restore(before.machine.save());
    after.remove(FIRST);
    expect(after.machine.iommu.phbs[0]?.activeWindows).toBe(0);
  });
});
