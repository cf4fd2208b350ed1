/**
 * Where KVM's in-kernel handlers and QEMU's differ: the same call on equal machines, both answers.
 * [linux v6.1.192 arch/powerpc/kvm/book3s_64_vio.c, qemu v7.2 hw/ppc/spapr_iommu.c]
 */
import { type TraceEvent, Tracer } from '@pinhole/base';
import { createGuestMemory } from '@pinhole/memory';
import type { TceEvent, TceTable } from '@pinhole/tce';
import { describe, expect, test } from 'vitest';
import {
  H_GET_TCE,
  H_PARAMETER,
  H_PUT_TCE,
  H_PUT_TCE_INDIRECT,
  H_STUFF_TCE,
  H_SUCCESS,
  RTAS_TOKENS,
  SpaprMachine,
  type TceHandler,
} from '../src/index.js';

const LIOBN = 0x8000_0000n;
const SECOND = 0x8000_0001n;
const WINDOW_2 = 2n ** 59n;
const LIST = 0x1_0000n;
const PAGES = 16;
/** Two pages of the host, a hole, and a piece that is half a page of the host. */
const REGIONS = [
  { base: 0, size: 0x4_0000 },
  { base: 0x8_0000, size: 0x8000 },
];

function setUp(tceHandler: TceHandler, kvmTceVfio?: boolean) {
  const logged: TraceEvent[] = [];
  const machine = new SpaprMachine({
    memory: createGuestMemory({ regions: REGIONS }),
    tceHandler,
    ...(kvmTceVfio === undefined ? {} : { kvmTceVfio }),
    phbs: [{ dmaWindowSize: PAGES * 4096 }],
    tracer: new Tracer({ emit: (event) => logged.push(event) }),
  });
  const table = machine.iommu.findTable(LIOBN) as TceTable;
  const heard: TceEvent[] = [];
  table.addNotifier({ notify: (event) => heard.push(event) });
  const call = (opcode: number, ...args: bigint[]) => machine.hypercalls.call(opcode, args).ret;
  const list = (...tces: bigint[]) =>
    tces.forEach((tce, i) => {
      machine.memory.writeU64Be(Number(LIST) + i * 8, tce);
    });
  const entries = () => Array.from({ length: PAGES }, (_, i) => table.get(i));
  return { machine, table, call, list, entries, heard, logged };
}

type Machine = ReturnType<typeof setUp>;

/** Makes the same call on both, and answers r3 of each and the entries that are left. */
function both(act: (machine: Machine) => number) {
  const [qemu, kvm] = [setUp('qemu'), setUp('kvm')];
  const ret = { qemu: act(qemu), kvm: act(kvm) };
  const written = (machine: Machine) =>
    machine.entries().flatMap((tce, i) => (tce === 0n ? [] : [[i, tce]]));
  return { ret, qemu: written(qemu), kvm: written(kvm) };
}

describe('H_PUT_TCE', () => {
  test('off a page: QEMU truncates, the kernel refuses', () => {
    expect(both(({ call }) => call(H_PUT_TCE, LIOBN, 0x1008n, 0x5003n))).toEqual({
      ret: { qemu: H_SUCCESS, kvm: H_PARAMETER },
      qemu: [[1, 0x5003n]],
      kvm: [],
    });
  });

  test.each([
    ['an address off the page', 0x5803n],
    ['a frame that is no memory', 0x5_0003n],
    ['a frame in half a page of the host', 0x8_0003n],
    ['a frame beyond all memory', 2n ** 63n + 1n],
  ])('%s is too hard for the kernel: QEMU stores it', (_what, tce) => {
    expect(both(({ call }) => call(H_PUT_TCE, LIOBN, 0x1000n, tce))).toEqual({
      ret: { qemu: H_SUCCESS, kvm: H_SUCCESS },
      qemu: [[1, tce]],
      kvm: [[1, tce]],
    });
    const { call, heard } = setUp('kvm');
    call(H_PUT_TCE, LIOBN, 0x1000n, tce);
    expect(heard).toHaveLength(1);
  });

  test('an entry that grants nothing is good whatever it holds: the kernel stores it', () => {
    const { call, entries, heard } = setUp('kvm');
    expect(call(H_PUT_TCE, LIOBN, 0x1000n, 0xdead_beef_dead_beecn)).toBe(H_SUCCESS);
    expect([entries()[1], heard]).toEqual([0xdead_beef_dead_beecn, []]);
  });

  test('alignment counts by the page size of the window', () => {
    for (const [tce, isHeard] of [
      [0x1_0003n, false],
      [0x1_1003n, true],
    ] as const) {
      const { machine, call } = setUp('kvm');
      const create = [0, 0x0800_0000, 0x2000_0000, 16, 24];
      machine.hypercalls.rtas(RTAS_TOKENS['ibm,create-pe-dma-window'], create, 4);
      const events: TceEvent[] = [];
      const table = machine.iommu.findTable(SECOND);
      table?.addNotifier({ notify: (event) => events.push(event) });
      expect(call(H_PUT_TCE, SECOND, WINDOW_2, tce)).toBe(H_SUCCESS);
      expect([table?.get(0), events.length > 0]).toEqual([tce, isHeard]);
    }
  });
});

describe('H_GET_TCE', () => {
  test('off a page: QEMU truncates, the kernel refuses', () => {
    const get = ({ call, machine }: Machine) => {
      call(H_PUT_TCE, LIOBN, 0x1000n, 0x5003n);
      return machine.hypercalls.call(H_GET_TCE, [LIOBN, 0x1008n]);
    };
    expect(get(setUp('qemu'))).toEqual({ ret: H_SUCCESS, out: [0x5003n] });
    expect(get(setUp('kvm'))).toEqual({ ret: H_PARAMETER, out: [] });
  });

  test('what was never written reads as zero', () => {
    const answer = setUp('kvm').machine.hypercalls.call(H_GET_TCE, [LIOBN, 0xf000n]);
    expect(answer).toEqual({ ret: H_SUCCESS, out: [0n] });
  });
});

describe('H_PUT_TCE_INDIRECT', () => {
  test('beyond the end of the window: QEMU stores what fits, the kernel nothing', () => {
    const act = ({ call, list }: Machine) => {
      list(0x5003n, 0x6003n, 0x7003n);
      return call(H_PUT_TCE_INDIRECT, LIOBN, 0xe000n, LIST, 3n);
    };
    expect(both(act)).toEqual({
      ret: { qemu: H_PARAMETER, kvm: H_PARAMETER },
      qemu: [
        [14, 0x5003n],
        [15, 0x6003n],
      ],
      kvm: [],
    });
  });

  test.each([
    ['in the window', 0x1000n, H_SUCCESS],
    ['at its end', 0x1_0000n, H_SUCCESS],
    ['beyond it', 0x1_1000n, H_PARAMETER],
    ['off a page', 0x1008n, H_PARAMETER],
  ])('no entries, %s: QEMU refuses', (_what, ioba, kvm) => {
    const act = ({ call }: Machine) => call(H_PUT_TCE_INDIRECT, LIOBN, ioba, LIST, 0n);
    expect(both(act).ret).toEqual({ qemu: H_PARAMETER, kvm });
  });

  test('no entries from a list that is no memory: too hard, and then QEMU refuses', () => {
    const act = ({ call }: Machine) => call(H_PUT_TCE_INDIRECT, LIOBN, 0n, 2n ** 40n, 0n);
    expect(both(act).ret).toEqual({ qemu: H_PARAMETER, kvm: H_PARAMETER });
  });

  test.each([
    ['513 entries', LIST, 513n],
    ['a list off a page', LIST + 8n, 1n],
  ])('%s: both refuse', (_what, list, count) => {
    const act = ({ call }: Machine) => call(H_PUT_TCE_INDIRECT, LIOBN, 0n, list, count);
    expect(both(act)).toEqual({
      ret: { qemu: H_PARAMETER, kvm: H_PARAMETER },
      qemu: [],
      kvm: [],
    });
  });

  test('one entry that is too hard leaves the whole list to QEMU', () => {
    const { call, list, entries, heard } = setUp('kvm');
    list(0x5003n, 0x6803n, 0x7003n);
    expect(call(H_PUT_TCE_INDIRECT, LIOBN, 0n, LIST, 3n)).toBe(H_SUCCESS);
    expect(entries().slice(0, 3)).toEqual([0x5003n, 0x6803n, 0x7003n]);
    expect(heard.map(({ iova }) => iova)).toEqual([0n, 0x1000n, 0x2000n]);
  });

  test('a list that is no memory, or in half a page of the host, is left to QEMU', () => {
    for (const list of [0x5_0000n, 0x8_0000n]) {
      const { call, heard } = setUp('kvm');
      expect(call(H_PUT_TCE_INDIRECT, LIOBN, 0n, list, 2n)).toBe(H_SUCCESS);
      expect(heard).toHaveLength(2);
    }
  });

  test('an entry without permission whose frame is nowhere: refused in the second pass, those before it stay', () => {
    const act = ({ call, list }: Machine) => {
      list(0x5003n, 0x6000n, 0x5_0000n, 0x7003n);
      return call(H_PUT_TCE_INDIRECT, LIOBN, 0n, LIST, 4n);
    };
    expect(both(act)).toEqual({
      ret: { qemu: H_SUCCESS, kvm: H_PARAMETER },
      qemu: [
        [0, 0x5003n],
        [1, 0x6000n],
        [2, 0x5_0000n],
        [3, 0x7003n],
      ],
      kvm: [
        [0, 0x5003n],
        [1, 0x6000n],
      ],
    });
  });
});

describe('H_STUFF_TCE', () => {
  const stuff =
    (ioba: bigint, value: bigint, npages: bigint) =>
    ({ call }: Machine) =>
      call(H_STUFF_TCE, LIOBN, ioba, value, npages);

  test('a value with permissions: QEMU stores it, the kernel refuses', () => {
    for (const value of [0x5001n, 0x5002n, 3n]) {
      expect(both(stuff(0x1000n, value, 1n))).toEqual({
        ret: { qemu: H_SUCCESS, kvm: H_PARAMETER },
        qemu: [[1, value]],
        kvm: [],
      });
    }
  });

  test('poison without permissions is stored by both', () => {
    const poison: [number, bigint] = [1, 0xdead_0000_0000_0004n];
    expect(both(stuff(0x1000n, poison[1], 1n))).toEqual({
      ret: { qemu: H_SUCCESS, kvm: H_SUCCESS },
      qemu: [poison],
      kvm: [poison],
    });
  });

  test('beyond the end of the window: QEMU stores what fits, the kernel nothing', () => {
    expect(both(stuff(0xf000n, 4n, 2n))).toEqual({
      ret: { qemu: H_PARAMETER, kvm: H_PARAMETER },
      qemu: [[15, 4n]],
      kvm: [],
    });
  });

  test.each([
    ['no pages: QEMU refuses', 0x1000n, 0n, H_SUCCESS],
    ['no pages at the end of the window', 0x1_0000n, 0n, H_SUCCESS],
    ['as many pages as 64 bits can say', 0n, 2n ** 64n - 1n, H_PARAMETER],
    ['so many that the sum is 0 again', 0x1000n, 2n ** 64n - 1n, H_PARAMETER],
  ])('%s', (_what, ioba, npages, kvm) => {
    const { ret, ...entries } = both(stuff(ioba, 4n, npages));
    expect(ret).toEqual({ qemu: H_PARAMETER, kvm });
    expect(entries).toEqual({ qemu: [], kvm: [] });
  });
});

describe('what nobody hears', () => {
  test('the kernel tells no notifier and logs nothing; QEMU does both', () => {
    const act = ({ call, list }: Machine) => {
      list(0x5003n, 0x6003n);
      call(H_PUT_TCE, LIOBN, 0x1000n, 0x5003n);
      call(H_PUT_TCE_INDIRECT, LIOBN, 0x2000n, LIST, 2n);
      call(H_STUFF_TCE, LIOBN, 0x1000n, 0n, 3n);
      call(H_GET_TCE, LIOBN, 0x1000n);
    };
    const logs = (machine: Machine) =>
      machine.logged.map(({ name }) => name).filter((name) => name.startsWith('spapr_iommu_pci'));
    const [qemu, kvm] = [setUp('qemu'), setUp('kvm')];
    act(qemu);
    act(kvm);
    expect(qemu.heard.map(({ type, iova }) => [type, iova])).toEqual([
      ['MAP', 0x1000n],
      ['MAP', 0x2000n],
      ['MAP', 0x3000n],
      ['UNMAP', 0x1000n],
      ['UNMAP', 0x2000n],
      ['UNMAP', 0x3000n],
    ]);
    expect(logs(qemu)).toEqual(
      ['put', 'indirect', 'stuff', 'get'].map((call) => `spapr_iommu_pci_${call}`),
    );
    expect([kvm.heard, logs(kvm)]).toEqual([[], []]);
    expect(kvm.entries()).toEqual(qemu.entries());
  });

  test('a replay afterwards tells what the kernel stored', () => {
    const { call, table } = setUp('kvm');
    call(H_PUT_TCE, LIOBN, 0x3000n, 0x5003n);
    const late: TceEvent[] = [];
    table.replay({ notify: (event) => late.push(event) });
    expect(late.map(({ iova, translatedAddr }) => [iova, translatedAddr])).toEqual([
      [0x3000n, 0x5000n],
    ]);
  });
});

describe('tables that the kernel does not have', () => {
  test.each([
    ['an unknown LIOBN', 0x8000_0007n],
    ['a LIOBN of 33 bits', 0x1_8000_0000n],
    ['a closed window', SECOND],
  ])('%s: left to QEMU, which refuses', (_what, liobn) => {
    const { call, logged } = setUp('kvm');
    expect(call(H_PUT_TCE, liobn, 0n, 3n)).toBe(H_PARAMETER);
    expect(logged.some(({ name }) => name === 'spapr_iommu_pci_put')).toBe(true);
  });

  test.each([
    // [linux v6.1.192 kvm_vm_ioctl_create_spapr_tce]: 12 to 34, and an end within 64 bits.
    ['pages of 2 KiB', { pageShift: 11, busOffset: 0n, nbTable: 4 }, false],
    ['pages of 4 KiB', { pageShift: 12, busOffset: 0n, nbTable: 4 }, true],
    ['pages of 16 GiB', { pageShift: 34, busOffset: 0n, nbTable: 4 }, true],
    ['pages of 32 GiB', { pageShift: 35, busOffset: 0n, nbTable: 4 }, false],
    ['a window to the last page but one', { pageShift: 12, busOffset: -0x5000n, nbTable: 4 }, true],
    ['a window to the last page', { pageShift: 12, busOffset: -0x4000n, nbTable: 4 }, false],
  ])('%s', (_what, window, isInKernel) => {
    const { call, table, logged } = setUp('kvm');
    table.disable();
    const busOffset = BigInt.asUintN(64, window.busOffset);
    table.enable({ ...window, busOffset });
    expect(call(H_PUT_TCE, LIOBN, busOffset, 4n)).toBe(H_SUCCESS);
    expect(logged.some(({ name }) => name === 'spapr_iommu_pci_put')).toBe(!isInKernel);
  });

  test('a VIO window is the kernel’s as well', () => {
    const machine = new SpaprMachine({
      memory: createGuestMemory({ regions: REGIONS }),
      tceHandler: 'kvm',
      vio: [{ reg: 0x2000 }],
    });
    expect(machine.hypercalls.call(H_PUT_TCE, [0x2000n, 8n, 3n]).ret).toBe(H_PARAMETER);
    expect(machine.hypercalls.call(H_PUT_TCE, [0x2000n, 0n, 3n]).ret).toBe(H_SUCCESS);
    expect(machine.hypercalls.call(H_GET_TCE, [0x2000n, 0n]).out).toEqual([3n]);
  });
});

describe('a table that somebody listens to [qemu v7.2 hw/ppc/spapr_iommu.c spapr_tce_set_need_vfio]', () => {
  test('stays in the kernel where that has KVM_CAP_SPAPR_TCE_VFIO: nobody hears', () => {
    const { call, heard, entries } = setUp('kvm', true);
    expect(call(H_PUT_TCE, LIOBN, 0x1000n, 0x2003n)).toBe(H_SUCCESS);
    expect(entries()[1]).toBe(0x2003n);
    expect(heard).toEqual([]);
  });

  test('is QEMU’s where it does not: its handlers answer, and the listener hears', () => {
    const { call, heard } = setUp('kvm', false);
    expect(call(H_PUT_TCE, LIOBN, 0x1000n, 0x2003n)).toBe(H_SUCCESS);
    expect(call(H_STUFF_TCE, LIOBN, 0x1000n, 0n, 2n)).toBe(H_SUCCESS);
    expect(heard.map(({ type, iova }) => [type, iova])).toEqual([
      ['MAP', 0x1000n],
      ['UNMAP', 0x1000n],
      ['UNMAP', 0x2000n],
    ]);
    // QEMU's answer to what the kernel would have refused.
    expect(call(H_PUT_TCE, LIOBN, 0x1008n, 0x2003n)).toBe(H_SUCCESS);
  });

  test('a table that nobody listens to is the kernel’s either way', () => {
    const { machine, call } = setUp('kvm', false);
    machine.reset();
    expect(call(H_PUT_TCE, LIOBN, 0x1008n, 0x2003n)).toBe(H_PARAMETER);
  });
});
