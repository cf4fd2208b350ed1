/** RTAS through guest memory, and the logs of the window calls. */
import { type TraceEvent, Tracer } from '@pinhole/base';
import { createGuestMemory } from '@pinhole/memory';
import { SpaprIommu, SpaprPhb } from '@pinhole/tce';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  createSpaprHypercalls,
  H_FUNCTION,
  H_PARAMETER,
  H_PUT_TCE,
  H_SUCCESS,
  KVMPPC_H_RTAS,
  RTAS_TOKENS,
} from '../src/index.js';

const END = 0x1_0000;
const BUFFER = 0x8000;
const [QUERY, CREATE, REMOVE, RESET] = [0x2026, 0x2027, 0x2028, 0x2029];
const BUID = [0, 0x0800_0000, 0x2000_0000];
const OLD = 0xaaaa_aaaa;
const [PARAM_ERROR, HW_ERROR] = [0xffff_fffd, 0xffff_ffff];

function setUp(options: { pageSizeMask?: bigint } = {}) {
  const events: TraceEvent[] = [];
  const tracer = new Tracer({ emit: (event) => events.push(event) });
  const memory = createGuestMemory({ regions: [{ base: 0, size: END }] });
  const phbs = [new SpaprPhb({ memory, ...options }), new SpaprPhb({ memory, index: 1 })];
  const hypercalls = createSpaprHypercalls({ iommu: new SpaprIommu({ phbs }), memory, tracer });
  memory.fill(0, END, 0xaa);
  /** Writes a call's cells and makes it; answers r3 and the cells where the returns belong. */
  const rtas = (token: number, args: number[], nret: number) => {
    const at = BUFFER;
    memory.fill(at, 0x1000, 0xaa);
    [token, args.length, nret, ...args].forEach((cell, i) => {
      memory.writeU32Be(at + i * 4, cell);
    });
    const { ret } = hypercalls.call(KVMPPC_H_RTAS, [BigInt(at)]);
    const first = at + 12 + args.length * 4;
    return { ret, cells: Array.from({ length: 7 }, (_, i) => memory.readU32Be(first + i * 4)) };
  };
  return { memory, phb: phbs[0] as SpaprPhb, hypercalls, rtas, events };
}

const old = (count: number) => new Array<number>(count).fill(OLD);

describe('RTAS calls through a buffer', () => {
  test('have the tokens that QEMU gives them', () => {
    expect(Object.values(RTAS_TOKENS)).toEqual([0x2010, QUERY, CREATE, REMOVE, RESET]);
  });

  test.each([
    ['query, 5 outputs', QUERY, BUID, 5, [0, 1, 0x8000_0000, 0x107, 0]],
    ['query, 6 outputs', QUERY, BUID, 6, [0, 1, 0x20, 0, 0x107, 0]],
    ['query of the second bridge', QUERY, [7, 0x0800_0000, 0x2000_0001], 5, [0, 1]],
    ['create', CREATE, [...BUID, 24, 31], 4, [0, 0x8000_0001, 0x0800_0000, 0]],
    ['remove', REMOVE, [0x8000_0000], 1, [0]],
    ['reset', RESET, BUID, 1, [0]],
  ])('%s: writes its outputs, and H_SUCCESS is in r3', (_what, token, args, nret, expected) => {
    const { ret, cells } = setUp().rtas(token, args, nret);
    expect(ret).toBe(H_SUCCESS);
    expect(cells.slice(0, expected.length)).toEqual(expected);
    expect(cells.slice(nret)).toEqual(old(7 - nret));
  });

  test.each([
    ['query with 4 outputs', QUERY, BUID, 4],
    ['query with 7 outputs', QUERY, BUID, 7],
    ['query with 2 arguments', QUERY, BUID.slice(1), 6],
    ['query of no bridge', QUERY, [0, 0, 0], 6],
    ['query of a bridge that is not there', QUERY, [0, 0x0800_0000, 0x2000_0002], 6],
    ['create with 4 arguments', CREATE, [...BUID, 24], 4],
    ['create with 3 outputs', CREATE, [...BUID, 24, 31], 3],
    ['create in no bridge', CREATE, [0, 0, 0, 24, 31], 4],
    ['create with pages larger than the window', CREATE, [...BUID, 24, 23], 4],
    ['create with pages that are not offered', CREATE, [...BUID, 13, 31], 4],
    ['create with a page shift of 64', CREATE, [...BUID, 64, 70], 4],
    ['create with the largest shifts', CREATE, [...BUID, 0xffff_ffff, 0xffff_ffff], 4],
    ['remove of an unknown window', REMOVE, [0x8000_0002], 1],
    ['remove of a closed window', REMOVE, [0x8000_0001], 1],
    ['remove with 2 outputs', REMOVE, [0x8000_0000], 2],
    ['remove with 2 arguments', REMOVE, [0x8000_0000, 0], 1],
    ['reset with 2 outputs', RESET, BUID, 2],
    ['reset of no bridge', RESET, [0, 0, 0], 1],
  ])('%s: -3 and nothing else is written', (_what, token, args, nret) => {
    const { rtas, phb } = setUp();
    expect(rtas(token, args, nret)).toEqual({ ret: H_SUCCESS, cells: [PARAM_ERROR, ...old(6)] });
    expect(phb.activeWindows).toBe(1);
  });

  test('a parameter error comes before a hardware error, and that writes only the status too', () => {
    const { rtas } = setUp();
    expect(rtas(CREATE, [...BUID, 24, 31], 4).cells[0]).toBe(0);
    expect(rtas(CREATE, [...BUID, 24, 31], 4).cells).toEqual([HW_ERROR, ...old(6)]);
    expect(rtas(CREATE, [...BUID, 24, 0], 4).cells).toEqual([PARAM_ERROR, ...old(6)]);
    expect(rtas(CREATE, [...BUID, 25, 31], 4).cells).toEqual([PARAM_ERROR, ...old(6)]);
  });

  test('an unknown token: H_PARAMETER in r3, -3 in the status', () => {
    const answer = { ret: H_PARAMETER, cells: [PARAM_ERROR, ...old(6)] };
    for (const token of [0, 0x2025, 0x202a, 0xffff_ffff]) {
      expect(setUp().rtas(token, [1, 2], 1)).toEqual(answer);
    }
  });

  test('the address of the returns is computed from nargs modulo 2^32, as in QEMU', () => {
    const { memory, hypercalls } = setUp();
    [QUERY, 0x4000_0002, 6].forEach((cell, i) => {
      memory.writeU32Be(BUFFER + i * 4, cell);
    });
    expect(hypercalls.call(KVMPPC_H_RTAS, [BigInt(BUFFER)]).ret).toBe(H_SUCCESS);
    expect(memory.readU32Be(BUFFER + 20)).toBe(PARAM_ERROR);
  });

  test('the top four bits of the address do not count', () => {
    const { memory, hypercalls } = setUp();
    [RESET, 3, 1, ...BUID].forEach((cell, i) => {
      memory.writeU32Be(BUFFER + i * 4, cell);
    });
    expect(hypercalls.call(KVMPPC_H_RTAS, [0xf000_0000_0000_8000n]).ret).toBe(H_SUCCESS);
    expect(memory.readU32Be(BUFFER + 24)).toBe(0);
  });

  test('outputs beyond the end of memory are lost, those before it are written', () => {
    const { memory, hypercalls } = setUp();
    const at = END - 8 * 4;
    [QUERY, 3, 6, ...BUID].forEach((cell, i) => {
      memory.writeU32Be(at + i * 4, cell);
    });
    expect(hypercalls.call(KVMPPC_H_RTAS, [BigInt(at)]).ret).toBe(H_SUCCESS);
    expect([memory.readU32Be(END - 8), memory.readU32Be(END - 4)]).toEqual([0, 1]);
  });

  test('whatever the cells hold and wherever they are, r3 is a known code', () => {
    const word = fc.oneof(fc.nat({ max: 0xffff_ffff }), fc.constantFrom(...BUID, 24, 31, 3, 5, 1));
    const token = fc.oneof(word, fc.constantFrom(QUERY, CREATE, REMOVE, RESET));
    const at = fc.oneof(
      fc.nat({ max: END + 64 }),
      fc.integer({ min: END - 64, max: END + 8 }),
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    );
    fc.assert(
      fc.property(token, fc.array(word, { maxLength: 10 }), at, (first, cells, address) => {
        const { memory, hypercalls, phb } = setUp();
        [first, ...cells].forEach((cell, i) => {
          const gpa = Number(address) + i * 4;
          if (memory.isBacked(gpa, 4)) memory.writeU32Be(gpa, cell);
        });
        const { ret, out } = hypercalls.call(KVMPPC_H_RTAS, [BigInt(address)]);
        expect([H_SUCCESS, H_PARAMETER]).toContain(ret);
        expect(out).toEqual([]);
        expect(phb.activeWindows).toBeLessThanOrEqual(2);
      }),
      { numRuns: 500 },
    );
  });
});

test('each page size has its bit in the answer to a query', () => {
  const bits = [
    [12, 0x1],
    [16, 0x2],
    [24, 0x4],
    [25, 0x8],
    [26, 0x10],
    [27, 0x20],
    [28, 0x40],
    [34, 0x80],
    [21, 0x100],
    [13, 0],
  ] as const;
  for (const [shift, bit] of bits) {
    const { rtas } = setUp({ pageSizeMask: 1n << BigInt(shift) });
    expect(rtas(QUERY, BUID, 5).cells[3], `shift ${shift}`).toBe(bit);
  }
  // Machine types up to pseries-4.1: 4 KiB and 64 KiB.
  expect(setUp({ pageSizeMask: 0x1_1000n }).rtas(QUERY, BUID, 5).cells[3]).toBe(0x3);
});

test('window calls are logged with the values of the recorded runs', () => {
  const { rtas, events } = setUp();
  const logged = () =>
    events.splice(0).flatMap(({ name, args }) => (name === 'hcall' ? [] : [[name, args]]));
  const buid = 0x0800_0000_2000_0000n;
  rtas(QUERY, BUID, 6);
  const query = { buid, addr: 0, wa: 1, win_size: 0x8000_0000n, pgmask: 0x107 };
  expect(logged()).toEqual([['spapr_iommu_ddw_query', query]]);
  rtas(CREATE, [...BUID, 24, 32], 4);
  const start = 0x0800_0000_0000_0000n;
  const create = { addr: 0, pg_size: 0x100_0000n, req_size: 0x1_0000_0000n, liobn: 0x8000_0001 };
  const table = expect.objectContaining({ liobn: 0x8000_0001n, fd: -1 });
  expect(logged()).toEqual([
    ['spapr_iommu_new_table', table],
    ['spapr_iommu_ddw_create', { buid, start, ...create }],
  ]);
  rtas(REMOVE, [0x8000_0000], 1);
  expect(logged()).toEqual([['spapr_iommu_ddw_remove', { liobn: 0x8000_0000 }]]);
  rtas(REMOVE, [0x8000_0001], 1);
  expect(logged().map(([name]) => name)).toEqual([
    'spapr_iommu_ddw_remove',
    'spapr_iommu_ddw_reset',
  ]);
  rtas(RESET, [9, ...BUID.slice(1)], 1);
  expect(logged()).toEqual([['spapr_iommu_ddw_reset', { buid, addr: 9 }]]);
});

test('each hypercall is counted by its opcode, all that do not exist together, and is a span in the trace', () => {
  const { hypercalls, events } = setUp();
  for (const opcode of [H_PUT_TCE, H_PUT_TCE, 0x44]) hypercalls.call(opcode, []);
  expect([...hypercalls.counts]).toEqual([
    [H_PUT_TCE, 2],
    [-1, 1],
  ]);
  const spans = events.filter(({ name }) => name === 'hcall');
  expect(spans.map(({ phase, args }) => [phase, ...Object.values(args)])).toEqual([
    ['begin', 'H_PUT_TCE'],
    ['end', H_PARAMETER],
    ['begin', 'H_PUT_TCE'],
    ['end', H_PARAMETER],
    ['begin', '0x44'],
    ['end', H_FUNCTION],
  ]);
});
