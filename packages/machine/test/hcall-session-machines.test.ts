/** What the options of `pinhole hcall` change: KVM's handlers, machine types, bridges, VIO; saved state. */
import { describe, expect, test } from 'vitest';
import { HcallSession, parseMachine } from '../src/index.js';

const LIOBN = 0x8000_0000;
const BUID = [0x800_0000, 0x2000_0000] as const;

function start(...set: readonly string[]): HcallSession {
  return new HcallSession(parseMachine(['machine.arch=pseries', 'machine.memory=1MiB', ...set]));
}

const ask = (of: HcallSession, request: unknown): unknown => of.answer(JSON.stringify(request));
const retOf = (of: HcallSession, op: string, ...args: readonly (number | string)[]): number =>
  (ask(of, { op, args }) as { ret: number }).ret;
const rtas = (of: HcallSession, rtas: string, args: readonly number[], nret: number): unknown =>
  (ask(of, { rtas, args, nret }) as { rets: unknown }).rets;

describe("KVM's handlers answer otherwise than QEMU's", () => {
  test.each([
    ['a misaligned ioba', 'H_PUT_TCE', [LIOBN, 0x1001, 3], 0, -4],
    ['a misaligned ioba', 'H_GET_TCE', [LIOBN, 0x1001], 0, -4],
    ['no pages', 'H_STUFF_TCE', [LIOBN, 0, 0, 0], -4, 0],
    ['no pages', 'H_PUT_TCE_INDIRECT', [LIOBN, 0, 0x1000, 0], -4, 0],
    ['stuffing a permission', 'H_STUFF_TCE', [LIOBN, 0, 3, 1], 0, -4],
    ['no such table: QEMU answers', 'H_PUT_TCE', [0x1234, 0, 3], -4, -4],
    ['a frame that is no memory: QEMU answers', 'H_PUT_TCE', [LIOBN, 0, '0xffff000000003'], 0, 0],
  ])('%s: %s', (_what, op, args, qemu, kvm) => {
    expect(retOf(start(), op, ...args)).toBe(qemu);
    expect(retOf(start('machine.tceHandler=kvm'), op, ...args)).toBe(kvm);
  });

  test('what cannot be done as a whole: QEMU writes the first entries, KVM none', () => {
    const list = { write: { gpa: 0x1000, hex: '0000000000002003'.repeat(2) } };
    for (const [handler, first] of [
      ['qemu', '0x2003'],
      ['kvm', '0x0'],
    ] as const) {
      const session = start(`machine.tceHandler=${handler}`);
      ask(session, list);
      const last = 0x3fff_f000;
      expect(retOf(session, 'H_PUT_TCE_INDIRECT', LIOBN, last, 0x1000, 2)).toBe(-4);
      expect(ask(session, { op: 'H_GET_TCE', args: [LIOBN, last] })).toEqual({
        ret: 0,
        out: [first],
      });
    }
  });
});

describe('machines', () => {
  const create = [0, ...BUID, 12, 20] as const;

  test.each([['machine.ddw=false'], ['machine.type=pseries-2.6']])(
    '%s: no second window',
    (set) => {
      const session = start(set);
      expect(rtas(session, 'ibm,query-pe-dma-window', [0, ...BUID], 5)).toEqual([
        -3,
        ...Array(4).fill(null),
      ]);
      expect(rtas(session, 'ibm,create-pe-dma-window', create, 4)).toEqual([-3, null, null, null]);
      expect(retOf(session, 'H_PUT_TCE', 0x8000_0001, 0, 3)).toBe(-4);
      expect(retOf(session, 'H_PUT_TCE', LIOBN, 0, 3)).toBe(0);
    },
  );

  test('pseries-4.1 has neither 2 MiB nor 16 MiB pages, unless it is told so', () => {
    const mask = (...set: string[]): unknown =>
      (rtas(start(...set), 'ibm,query-pe-dma-window', [0, ...BUID], 5) as number[])[3];
    expect(mask('machine.type=pseries-4.1')).toBe(0x3);
    expect(mask('machine.type=pseries-4.2')).toBe(0x107);
    expect(mask('machine.type=pseries-4.1', 'machine.pageSizes=0x1000000')).toBe(0x4);
    expect(mask('machine.type=pseries-2.6', 'machine.ddw=true')).toBe(0x3);
  });

  test('more bridges and VIO devices have windows of their own', () => {
    const session = start(
      'machine.hostBridges=[{index: 3, dmaWindowSize: 64KiB}]',
      'machine.vio=[{reg: 0x2000}]',
    );
    expect(retOf(session, 'H_PUT_TCE', 0x8000_0300, 0xf000, 3)).toBe(0);
    expect(retOf(session, 'H_PUT_TCE', 0x8000_0300, 0x1_0000, 3)).toBe(-4);
    expect(retOf(session, 'H_PUT_TCE', 0x2000, 0xfff_f000, 3)).toBe(0);
    expect(retOf(session, 'H_PUT_TCE', 0x2000, 0x1000_0000, 3)).toBe(-4);
    expect(retOf(session, 'H_PUT_TCE', 0x8000_0100, 0, 3)).toBe(-4);
    expect(rtas(session, 'ibm,set-tce-bypass', [0x2000, 1], 1)).toEqual([0]);
    expect(session.machine.iommu.vio[0]?.isBypassed).toBe(true);
    const at = [0, BUID[0], BUID[1] + 3, 12, 16];
    expect(rtas(session, 'ibm,create-pe-dma-window', at, 4)).toEqual([
      0, 0x8000_0301, 0x800_0000, 0,
    ]);
  });

  test('in the limited-address mode the second window starts at 4 GiB', () => {
    const session = start('machine.limitedAddressMode=true');
    expect(rtas(session, 'ibm,reset-pe-dma-window', [0, ...BUID, 1], 1)).toEqual([0]);
    expect(rtas(session, 'ibm,create-pe-dma-window', create, 4)).toEqual([0, 0x8000_0001, 1, 0]);
    expect(rtas(start(), 'ibm,reset-pe-dma-window', [0, ...BUID, 1], 1)).toEqual([-3]);
  });

  test.each([
    ['machine.arch=arm64', 'machine.arch: expected pseries, which has hypercalls, found arm64'],
    ['machine.memory=5000', 'machine.memory: expected a multiple of 4 KiB, found 5000 bytes'],
    ['machine.memory=0', 'machine.memory: expected a multiple of 4 KiB, found 0 bytes'],
    [
      'machine.maxMemory=4096',
      "machine.maxMemory: expected at least the memory's 1048576, found 4096",
    ],
    ['machine.dmaRanges=[]', 'machine.dmaRanges: a pseries host bridge has windows'],
    [
      'machine.type=pc',
      'machine.type: expected pseries, pseries-7.2, pseries-2.6 or so, found "pc"',
    ],
    ['machine.type=pseries-1.0', 'expected a machine type such as pseries'],
    ['machine.hostBridges=[{index: 1}, {index: 1}]', 'found two with 0x80000100'],
    ['machine.vio=[{reg: 7, windowSize: 5}]', 'found 5 bytes at unit 0x7'],
    ['machine.dmaWindowSize=4097', 'found 4097 bytes at 0x0'],
    ['devices=[]', 'devices: expected one of the keys'],
  ])('%s is no such machine', (set, message) => expect(() => start(set)).toThrow(message));
});

describe('a saved state', () => {
  const OPTIONS = ['machine.hostBridges=[{index: 1}]', 'machine.vio=[{reg: 0x2000}]'];

  function busy(): HcallSession {
    const session = start(...OPTIONS);
    rtas(session, 'ibm,create-pe-dma-window', [0, ...BUID, 16, 24], 4);
    rtas(session, 'ibm,set-tce-bypass', [0x2000, 1], 1);
    retOf(session, 'H_STUFF_TCE', LIOBN, 0x1000, '0xfedcba9876543213', 5);
    retOf(session, 'H_PUT_TCE', 0x8000_0001, '0x800000000030000', '0x40003');
    retOf(session, 'H_PUT_TCE', 0x8000_0100, 0, '0x5001');
    return session;
  }
  const saved = (of: HcallSession): unknown =>
    (ask(of, { save: true }) as { saved: unknown }).saved;

  test('is what another session with the same options becomes', () => {
    const state = saved(busy());
    const other = start(...OPTIONS);
    retOf(other, 'H_PUT_TCE', LIOBN, 0x9000, 3);
    expect(ask(other, { restore: state })).toEqual({});
    expect(saved(other)).toEqual(state);
    const get = (liobn: number, ioba: string): unknown =>
      ask(other, { op: 'H_GET_TCE', args: [liobn, ioba] });
    expect(get(LIOBN, '0x5000')).toEqual({ ret: 0, out: ['0xfedcba9876543213'] });
    expect(get(LIOBN, '0x9000')).toEqual({ ret: 0, out: ['0x0'] });
    expect(get(0x8000_0001, '0x800000000030000')).toEqual({ ret: 0, out: ['0x40003'] });
  });

  test.each([
    ['fewer bridges', [OPTIONS[1] as string]],
    ['fewer VIO devices', [OPTIONS[0] as string]],
    ['another bridge', ['machine.hostBridges=[{index: 2}]', OPTIONS[1] as string]],
    ['another device', [OPTIONS[0] as string, 'machine.vio=[{reg: 0x2001}]']],
    ['no second window', [...OPTIONS, 'machine.ddw=false']],
    ['other page sizes', [...OPTIONS, 'machine.pageSizes=0x1000']],
  ])('is refused by a machine with %s, which stays as it is', (_what, options) => {
    const state = saved(busy());
    const other = start(...options);
    retOf(other, 'H_PUT_TCE', LIOBN, 0x9000, 3);
    const before = saved(other);
    expect(ask(other, { restore: state })).toMatchObject({ error: { code: 'E_SAVED_STATE' } });
    expect(saved(other)).toEqual(before);
  });

  test.each([[null], [[]], [7], [{}], [{ schemaVersion: 2 }], [{ schemaVersion: 1 }]])(
    'is not %j',
    (state) => {
      expect(ask(start(), { restore: state })).toMatchObject({ error: { code: 'E_SAVED_STATE' } });
    },
  );
});
