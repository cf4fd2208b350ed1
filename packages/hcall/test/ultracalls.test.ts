/** Ultracalls of a guest whose memory has a hole. */
import { createGuestMemory, PageOwnership } from '@pinhole/memory';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  createUltravisor,
  U_FUNCTION,
  U_P2,
  U_PARAMETER,
  U_SUCCESS,
  ULTRACALL_NAMES,
  UV_SHARE_PAGE,
  UV_UNSHARE_ALL_PAGES,
  UV_UNSHARE_PAGE,
} from '../src/index.js';

describe('ultracalls', () => {
  const PAGE = 0x1_0000;
  const secure = () => {
    const regions = [
      { base: 0, size: 4 * PAGE },
      { base: 6 * PAGE, size: 2 * PAGE },
    ];
    const memory = createGuestMemory({ regions });
    for (const { base, size } of regions) memory.fill(base, size, 0x42);
    const ownership = new PageOwnership({ pageSize: PAGE });
    const uv = createUltravisor({ memory, ownership });
    const call = (opcode: number, ...args: bigint[]) => uv.call(opcode, args).ret;
    const zeroed = () =>
      [0, 1, 2, 3, 6, 7].filter((page) => {
        const bytes = new Uint8Array(PAGE);
        memory.read(page * PAGE, bytes);
        return bytes.every((byte) => byte === 0);
      });
    return { memory, ownership, call, zeroed, counts: uv.counts };
  };

  test('sharing zeroes exactly the pages named, and so does unsharing', () => {
    const { memory, ownership, call, zeroed } = secure();
    expect(call(UV_SHARE_PAGE, 1n, 2n)).toBe(U_SUCCESS);
    expect([ownership.sharedRuns(), zeroed()]).toEqual([[{ gpa: PAGE, length: 2 * PAGE }], [1, 2]]);
    memory.fill(PAGE, 2 * PAGE, 0x42);
    expect(call(UV_UNSHARE_PAGE, 2n, 1n)).toBe(U_SUCCESS);
    expect([ownership.sharedRuns(), zeroed()]).toEqual([[{ gpa: PAGE, length: PAGE }], [2]]);
  });

  test('taking all pages back zeroes the shared ones and no other', () => {
    const { memory, ownership, call, zeroed } = secure();
    call(UV_SHARE_PAGE, 0n, 1n);
    call(UV_SHARE_PAGE, 6n, 2n);
    for (const page of [0, 6, 7]) memory.fill(page * PAGE, PAGE, 0x42);
    expect(call(UV_UNSHARE_ALL_PAGES)).toBe(U_SUCCESS);
    expect([ownership.sharedBytes, zeroed()]).toEqual([0, [0, 6, 7]]);
  });

  test.each([
    ['a first page in a hole', 4n, 1n, U_PARAMETER],
    ['a range across a hole', 3n, 4n, U_P2],
    ['a range to the end and beyond', 7n, 2n, U_P2],
    ['no pages, in a hole', 4n, 0n, U_P2],
    ['a page number of 64 bits', 2n ** 64n - 1n, 1n, U_PARAMETER],
    ['a page number that overflows 53 bits of address', 2n ** 37n, 1n, U_PARAMETER],
    ['a count that overflows them', 0n, 2n ** 37n, U_P2],
  ])('%s is refused, and nothing is shared or zeroed', (_what, gfn, count, code) => {
    for (const opcode of [UV_SHARE_PAGE, UV_UNSHARE_PAGE]) {
      const { ownership, call, zeroed } = secure();
      ownership.share(3 * PAGE, 1);
      expect(call(opcode, gfn, count)).toBe(code);
      expect([ownership.sharedBytes, zeroed()]).toEqual([PAGE, []]);
    }
  });

  test('each call is counted, by opcode, whatever came of it', () => {
    const { call, counts } = secure();
    call(UV_SHARE_PAGE, 0n, 1n);
    call(UV_SHARE_PAGE, 4n, 1n);
    call(UV_UNSHARE_PAGE, 0n, 1n);
    call(0xf104);
    call(-7);
    expect([...counts]).toEqual([
      [UV_SHARE_PAGE, 2],
      [UV_UNSHARE_PAGE, 1],
      [-1, 2],
    ]);
    expect([...counts.keys()].map((opcode) => ULTRACALL_NAMES.get(opcode))).toEqual([
      'UV_SHARE_PAGE',
      'UV_UNSHARE_PAGE',
      undefined,
    ]);
  });

  test('any 64-bit arguments give a known code, missing ones read as zero', () => {
    const word = fc.oneof(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.nat({ max: 9 }));
    const opcode = fc.constantFrom(UV_SHARE_PAGE, UV_UNSHARE_PAGE, UV_UNSHARE_ALL_PAGES, 0xf104);
    const { call } = secure();
    fc.assert(
      fc.property(opcode, fc.array(word, { maxLength: 3 }), (op, args) => {
        const codes = [U_SUCCESS, U_PARAMETER, U_P2, U_FUNCTION];
        expect(codes).toContain(call(op, ...args.map(BigInt)));
      }),
    );
    expect([call(UV_SHARE_PAGE), call(UV_SHARE_PAGE, 0n)]).toEqual([U_P2, U_P2]);
  });
});
