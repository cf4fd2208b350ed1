import { type TraceEvent, Tracer } from '@pinhole/base';
import { createGuestMemory, PageOwnership } from '@pinhole/memory';
import { SpaprIommu, SpaprPhb, SpaprVioDevice } from '@pinhole/tce';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  createSpaprHypercalls,
  createUltravisor,
  H_FUNCTION,
  H_GET_TCE,
  H_PARAMETER,
  H_PUT_TCE,
  H_PUT_TCE_INDIRECT,
  H_STUFF_TCE,
  H_SUCCESS,
  KVMPPC_H_RTAS,
  RTAS_TOKENS,
  U_FUNCTION,
  U_P2,
  U_PARAMETER,
  U_SUCCESS,
  UV_SHARE_PAGE,
  UV_UNSHARE_ALL_PAGES,
  UV_UNSHARE_PAGE,
} from '../src/index.js';

const MIB = 2 ** 20;
const LIOBN = 0x8000_0000n;
const LIST = 0x1_0000n;

function setUp(options: { ddw?: boolean; dmaWindowSize?: number } = {}) {
  const events: TraceEvent[] = [];
  const memory = createGuestMemory({ regions: [{ base: 0, size: MIB }] });
  const phb = new SpaprPhb({ memory, dmaWindowSize: 16 * 4096, ...options });
  const vio = new SpaprVioDevice({ reg: 0x7100_0000, memory });
  vio.table?.disable();
  const iommu = new SpaprIommu({ phbs: [phb], vio: [vio] });
  const tracer = new Tracer({ emit: (event) => events.push(event) });
  const hypercalls = createSpaprHypercalls({ iommu, memory, tracer });
  const call = (opcode: number, ...args: bigint[]) => hypercalls.call(opcode, args).ret;
  const get = (ioba: bigint) => hypercalls.call(H_GET_TCE, [LIOBN, ioba]).out[0];
  const list = (...tces: bigint[]) =>
    tces.forEach((tce, i) => {
      memory.writeU64Be(Number(LIST) + i * 8, tce);
    });
  return { memory, phb, hypercalls, call, get, list, events };
}

describe('H_PUT_TCE and H_GET_TCE', () => {
  test('store and return the entry as it is, unchecked', () => {
    const { call, get } = setUp();
    expect(call(H_PUT_TCE, LIOBN, 0x1000n, 0xfedc_ba98_7654_3211n)).toBe(H_SUCCESS);
    expect(get(0x1000n)).toBe(0xfedc_ba98_7654_3211n);
  });

  test('truncate a misaligned bus address', () => {
    const { call, get } = setUp();
    expect(call(H_PUT_TCE, LIOBN, 0x1fffn, 0x5003n)).toBe(H_SUCCESS);
    expect(get(0x1abcn)).toBe(0x5003n);
  });

  test.each([
    ['beyond the window', LIOBN, 0x1_0000n],
    ['far beyond', LIOBN, 2n ** 64n - 1n],
    ['an unknown LIOBN', 0x8000_0005n, 0n],
    ['a table that is not enabled', 0x8000_0001n, 0n],
    ['a disabled VIO table', 0x7100_0000n, 0n],
    ['a LIOBN of 33 bits', 0x1_8000_0000n, 0n],
  ])('%s: H_PARAMETER', (_what, liobn, ioba) => {
    const { call, hypercalls } = setUp();
    expect(call(H_PUT_TCE, liobn, ioba, 3n)).toBe(H_PARAMETER);
    expect(hypercalls.call(H_GET_TCE, [liobn, ioba])).toEqual({ ret: H_PARAMETER, out: [] });
  });
});

describe('H_PUT_TCE_INDIRECT', () => {
  const put = (s: ReturnType<typeof setUp>, ioba: bigint, count: bigint, list = LIST) =>
    s.call(H_PUT_TCE_INDIRECT, LIOBN, ioba, list, count);

  test('installs a list of big-endian doublewords', () => {
    const s = setUp();
    s.list(0x5003n, 0x6001n, 0x7002n);
    expect(put(s, 0x2000n, 3n)).toBe(H_SUCCESS);
    expect([0x2000n, 0x3000n, 0x4000n].map(s.get)).toEqual([0x5003n, 0x6001n, 0x7002n]);
  });

  test('stops at the end of the window; what is before stays', () => {
    const s = setUp();
    s.list(0x5003n, 0x6003n, 0x7003n);
    expect(put(s, 0xe000n, 3n)).toBe(H_PARAMETER);
    expect([0xe000n, 0xf000n].map(s.get)).toEqual([0x5003n, 0x6003n]);
  });

  test.each([
    ['no entries', 0n, LIST, H_PARAMETER],
    ['513 entries', 513n, LIST, H_PARAMETER],
    ['a list off a page', 1n, LIST + 8n, H_PARAMETER],
    ['a list outside memory: zeros', 1n, 2n ** 40n, H_SUCCESS],
    ['a list at the top of the address space', 2n, 2n ** 64n - 4096n, H_SUCCESS],
  ])('%s', (_what, count, list, ret) => {
    const s = setUp();
    s.call(H_PUT_TCE, LIOBN, 0n, 0x9003n);
    expect(put(s, 0n, count, list)).toBe(ret);
    expect(s.get(0n)).toBe(ret === H_SUCCESS ? 0n : 0x9003n);
  });

  test('512 entries are one call, from a list at the very end of memory', () => {
    const s = setUp({ dmaWindowSize: 512 * 4096 });
    const list = BigInt(MIB - 4096);
    s.memory.writeU64Be(MIB - 8, 0x5003n);
    expect(put(s, 0n, 512n, list)).toBe(H_SUCCESS);
    expect(s.get(511n * 4096n)).toBe(0x5003n);
  });

  test('logs the first address, the last index and its entry', () => {
    const s = setUp();
    s.list(0x5003n, 0x6003n);
    put(s, 0x2000n, 2n);
    expect(s.events.find(({ name }) => name === 'spapr_iommu_pci_indirect')?.args).toEqual({
      liobn: LIOBN,
      ioba: 0x2000n,
      tcelist: LIST,
      iobaN: 1n,
      tceN: 0x6003n,
      ret: 0n,
    });
  });
});

describe('H_STUFF_TCE', () => {
  test('fills, with permissions too', () => {
    const { call, get } = setUp();
    expect(call(H_STUFF_TCE, LIOBN, 0x1000n, 0x5003n, 3n)).toBe(H_SUCCESS);
    expect([0n, 0x1000n, 0x3000n, 0x4000n].map(get)).toEqual([0n, 0x5003n, 0x5003n, 0n]);
  });

  test('is limited by the window, not by 512; what is before its end stays', () => {
    const s = setUp({ dmaWindowSize: 1024 * 4096 });
    expect(s.call(H_STUFF_TCE, LIOBN, 0n, 1n, 1024n)).toBe(H_SUCCESS);
    expect(s.call(H_STUFF_TCE, LIOBN, 0n, 2n, 1025n)).toBe(H_PARAMETER);
    expect(s.get(0n)).toBe(1n);
    expect(s.call(H_STUFF_TCE, LIOBN, 0x3f_f000n, 2n, 2n)).toBe(H_PARAMETER);
    expect(s.get(0x3f_f000n)).toBe(2n);
    expect(s.call(H_STUFF_TCE, LIOBN, 0n, 3n, 0n)).toBe(H_PARAMETER);
  });

  test('logs the address at which it stopped, as QEMU does', () => {
    const { call, events } = setUp();
    call(H_STUFF_TCE, LIOBN, 0x1000n, 0n, 3n);
    expect(events.find(({ name }) => name === 'spapr_iommu_pci_stuff')?.args.ioba).toBe(0x4000n);
  });
});

test('an unknown opcode is H_FUNCTION', () => {
  expect(setUp().call(0x123)).toBe(H_FUNCTION);
});

test('hostile arguments: any 64 bits, missing ones too; always a known code, never an exception', () => {
  const word = fc.oneof(
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    fc.constantFrom(LIOBN, 0x8000_0001n, 0n, 1n, 512n, 513n, 2n ** 63n, 2n ** 64n - 4096n),
  );
  const opcode = fc.constantFrom(
    H_PUT_TCE,
    H_GET_TCE,
    H_STUFF_TCE,
    H_PUT_TCE_INDIRECT,
    KVMPPC_H_RTAS,
    7,
  );
  const { hypercalls } = setUp();
  fc.assert(
    fc.property(opcode, fc.array(word, { maxLength: 5 }), (op, args) => {
      expect([H_SUCCESS, H_PARAMETER, H_FUNCTION]).toContain(hypercalls.call(op, args).ret);
    }),
    { numRuns: 2000 },
  );
});

describe('dynamic windows', () => {
  const BUID = [0, 0x0800_0000, 0x2000_0000];
  const rtas = (
    s: ReturnType<typeof setUp>,
    name: keyof typeof RTAS_TOKENS,
    args: number[],
    nret: number,
  ) => s.hypercalls.rtas(RTAS_TOKENS[name], args, nret);
  const create = (s: ReturnType<typeof setUp>, pageShift: number, windowShift: number) =>
    rtas(s, 'ibm,create-pe-dma-window', [...BUID, pageShift, windowShift], 4);
  const query = (s: ReturnType<typeof setUp>, nret = 6) =>
    rtas(s, 'ibm,query-pe-dma-window', BUID, nret);

  test('query has 5 or 6 outputs, and page sizes 4K, 64K, 2M, 16M by default', () => {
    const s = setUp();
    expect(query(s, 5)).toEqual([0, 1, 0x8000_0000, 0x107, 0]);
    expect(query(s, 6)).toEqual([0, 1, 0x20, 0, 0x107, 0]);
    expect(query(s, 4)).toEqual([-3]);
  });

  test('create opens a window at 2^59; a second one is -1; remove makes room', () => {
    const s = setUp();
    expect(create(s, 24, 32)).toEqual([0, 0x8000_0001, 0x0800_0000, 0]);
    expect(s.phb.tables[1]).toMatchObject({ nbTable: 256, pageShift: 24 });
    expect(create(s, 24, 32)).toEqual([-1]);
    expect(query(s)[1]).toBe(0);
    expect(rtas(s, 'ibm,remove-pe-dma-window', [0x8000_0001], 1)).toEqual([0]);
    expect(rtas(s, 'ibm,remove-pe-dma-window', [0x8000_0001], 1)).toEqual([-3]);
    expect(query(s)[1]).toBe(1);
  });

  test.each([
    ['window shift 0, as a guest without maxmem asks', 24, 0, -3],
    ['a page size that is not offered', 25, 32, -3],
    ['a page shift beyond 63', 76, 80, -3],
    ['2^32 entries', 12, 44, -1],
    ['a window beyond all reason', 12, 0xffff_ffff, -1],
  ])('create: %s', (_what, pageShift, windowShift, status) => {
    expect(create(setUp(), pageShift, windowShift)).toEqual([status]);
  });

  test('a bad page size comes before a lack of windows', () => {
    const s = setUp();
    create(s, 24, 32);
    expect(create(s, 25, 32)).toEqual([-3]);
  });

  test('removing the default window, then the other one, brings an empty default back', () => {
    const s = setUp();
    s.call(H_PUT_TCE, LIOBN, 0n, 3n);
    create(s, 24, 32);
    expect(rtas(s, 'ibm,remove-pe-dma-window', [0x8000_0000], 1)).toEqual([0]);
    expect(s.call(H_PUT_TCE, LIOBN, 0n, 3n)).toBe(H_PARAMETER);
    expect(rtas(s, 'ibm,remove-pe-dma-window', [0x8000_0001], 1)).toEqual([0]);
    expect(s.phb.activeWindows).toBe(1);
    expect(s.get(0n)).toBe(0n);
  });

  test('a table that was once the default window stays "default": removing it restores nothing', () => {
    const s = setUp();
    rtas(s, 'ibm,remove-pe-dma-window', [0x8000_0000], 1);
    // The first window of none comes at the default address, in table 0.
    expect(create(s, 16, 24)).toEqual([0, 0x8000_0000, 0, 0]);
    rtas(s, 'ibm,remove-pe-dma-window', [0x8000_0000], 1);
    expect(s.phb.activeWindows).toBe(0);
  });

  test('reset leaves only the default window', () => {
    const s = setUp();
    create(s, 24, 32);
    expect(rtas(s, 'ibm,reset-pe-dma-window', BUID, 1)).toEqual([0]);
    expect(s.phb.activeWindows).toBe(1);
    expect(rtas(s, 'ibm,reset-pe-dma-window', [0, 1, 2], 1)).toEqual([-3]);
  });

  test('without ddw every call is a parameter error', () => {
    const s = setUp({ ddw: false });
    expect([query(s), create(s, 24, 32), rtas(s, 'ibm,reset-pe-dma-window', BUID, 1)]).toEqual([
      [-3],
      [-3],
      [-3],
    ]);
    expect(rtas(s, 'ibm,remove-pe-dma-window', [0x8000_0000], 1)).toEqual([-3]);
  });

  test('through the buffer: only the cells that the call defines are written', () => {
    const s = setUp();
    const write = (cells: number[]) =>
      cells.forEach((cell, i) => {
        s.memory.writeU32Be(0x8000 + i * 4, cell);
      });
    const read = (count: number) =>
      Array.from({ length: count }, (_, i) => s.memory.readU32Be(0x8000 + i * 4));
    write([RTAS_TOKENS['ibm,create-pe-dma-window'], 5, 4, ...BUID, 24, 0, 0xaa, 0xbb, 0xcc, 0xdd]);
    expect(s.call(KVMPPC_H_RTAS, 0x8000n)).toBe(H_SUCCESS);
    expect(read(12).slice(8)).toEqual([0xffff_fffd, 0xbb, 0xcc, 0xdd]);
    write([0x9999, 0, 1, 0xaa]);
    expect(s.call(KVMPPC_H_RTAS, 0x8000n)).toBe(H_PARAMETER);
    expect(s.memory.readU32Be(0x800c)).toBe(0xffff_fffd);
    expect(s.call(KVMPPC_H_RTAS, 2n ** 60n - 4n)).toBe(H_PARAMETER);
  });
});

describe('the ultravisor', () => {
  const setUpSecure = () => {
    const memory = createGuestMemory({ regions: [{ base: 0, size: MIB }] });
    const ownership = new PageOwnership({ pageSize: 65_536 });
    const uv = createUltravisor({ memory, ownership });
    return { memory, ownership, call: (op: number, ...args: bigint[]) => uv.call(op, args).ret };
  };

  test('shares and unshares pages, and zeroes them', () => {
    const { memory, ownership, call } = setUpSecure();
    memory.writeU8(0x1_0005, 7);
    expect(call(UV_SHARE_PAGE, 1n, 2n)).toBe(U_SUCCESS);
    expect([ownership.isShared(0x1_0000), ownership.isShared(0x3_0000)]).toEqual([true, false]);
    expect(memory.readU8(0x1_0005)).toBe(0);
    memory.writeU8(0x1_0005, 7);
    expect(call(UV_UNSHARE_PAGE, 1n, 1n)).toBe(U_SUCCESS);
    expect([ownership.isShared(0x1_0000), memory.readU8(0x1_0005)]).toEqual([false, 0]);
    expect(call(UV_UNSHARE_ALL_PAGES)).toBe(U_SUCCESS);
    expect(ownership.sharedBytes).toBe(0);
  });

  test.each([
    ['a page beyond memory', 16n, 1n, U_PARAMETER],
    ['a page beyond everything', 2n ** 60n, 1n, U_PARAMETER],
    ['too many', 15n, 2n, U_P2],
    ['none', 0n, 0n, U_P2],
    ['more than there can be', 0n, 2n ** 64n - 1n, U_P2],
  ])('refuses %s', (_what, gfn, count, ret) => {
    const { ownership, call } = setUpSecure();
    expect(call(UV_SHARE_PAGE, gfn, count)).toBe(ret);
    expect(ownership.sharedBytes).toBe(0);
  });

  test('knows no other calls', () => {
    expect(setUpSecure().call(0xf104)).toBe(U_FUNCTION);
  });
});
