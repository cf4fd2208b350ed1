/** The values at which 64-bit arithmetic in halves, sizes and the generator could go wrong. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  addU64,
  createRng,
  distanceU64,
  formatSize,
  hi32,
  joinU64,
  lo32,
  ModelError,
  NotModelled,
  parseSize,
  type TraceEvent,
  Tracer,
  u16,
} from '../src/index.js';

const halves = (value: bigint) => ({ hi: hi32(value), lo: lo32(value) });
const BORDERS = [0n, 2n ** 31n, 2n ** 32n, 2n ** 52n, 2n ** 53n, 2n ** 59n, 2n ** 63n, 2n ** 64n];
const nearBorder = fc
  .tuple(fc.constantFrom(...BORDERS), fc.bigInt({ min: -3n, max: 3n }))
  .map(([border, delta]) => BigInt.asUintN(64, border + delta));
const u64 = fc.oneof(nearBorder, fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }));

describe('64 bits in two halves', () => {
  test.each([
    [0xffff_ffffn, 1, 0x1_0000_0000n],
    [2n ** 53n - 1n, 2 ** 53 - 1, 2n ** 54n - 2n],
    [2n ** 59n, 0x7054_0123, 0x0800_0000_7054_0123n],
    [2n ** 59n - 1n, 1, 2n ** 59n],
    [2n ** 64n - 1n, 1, 0n],
    [2n ** 64n - 0x1000n, 0x1_0000_0000, 0xffff_f000n],
  ])('%d + %d carries', (base, offset, sum) => {
    const out = { hi: 1, lo: 1 };
    addU64(halves(base), offset, out);
    expect(joinU64(out.hi, out.lo)).toBe(sum);
  });

  test('a sum may replace its own base', () => {
    const at = halves(2n ** 64n - 1n);
    addU64(at, 2, at);
    expect(at).toEqual({ hi: 0, lo: 1 });
  });

  test('the distance is the difference where that is a safe integer, else -1', () => {
    fc.assert(
      fc.property(u64, u64, (base, address) => {
        const difference = address - base;
        const isSafe = difference >= 0n && difference < 2n ** 53n;
        const { hi, lo } = halves(address);
        expect(distanceU64(halves(base), hi, lo)).toBe(isSafe ? Number(difference) : -1);
      }),
      { numRuns: 2000 },
    );
  });

  test('wider and negative values count by their low 64 bits', () => {
    expect(halves(-1n)).toEqual({ hi: 0xffff_ffff, lo: 0xffff_ffff });
    expect(halves(2n ** 64n + 5n)).toEqual({ hi: 0, lo: 5 });
  });

  test('ring indices are compared modulo 2^16', () => {
    fc.assert(
      fc.property(fc.nat({ max: 0xffff }), fc.nat({ max: 0xffff }), (start, steps) => {
        expect(u16(u16(start + steps) - start)).toBe(steps);
      }),
    );
  });
});

describe('sizes', () => {
  test('what is printed in a unit reads back, to the printed digit', () => {
    fc.assert(
      fc.property(fc.nat({ max: 2 ** 45 }), (bytes) => {
        const text = formatSize(bytes);
        const unit = parseSize(`1${text.split(' ')[1]}`);
        expect(Math.abs(Number.parseFloat(text) * unit - bytes)).toBeLessThanOrEqual(unit / 20);
      }),
    );
  });

  test('are never as much as 1024 of a unit that has a larger one', () => {
    expect([2 ** 20 - 1, 2 ** 30 - 1, 2 ** 40 - 1].map(formatSize)).toEqual([
      '1 MiB',
      '1 GiB',
      '1 TiB',
    ]);
    expect(formatSize(1023 * 1024)).toBe('1023 KiB');
  });

  test.each(['constructor', '1 constructor', '0x', '0xg', '1.5', '1..5k', '9PiB', '1 k b', '٣'])(
    '"%s" is none, and the code says so',
    (text) => {
      expect(() => parseSize(text)).toThrow(expect.objectContaining({ code: 'E_SIZE' }));
    },
  );

  test('hexadecimal digits are digits, not units', () => {
    expect([parseSize('0x1b'), parseSize('0xB'), parseSize(' 0x10 KiB ')]).toEqual([27, 11, 16384]);
  });
});

describe('the generator', () => {
  // Computed apart from this code, with the published algorithm.
  test.each([
    [0, [0x5515_bf5a, 0x760e_cfff, 0x1b36_c8e1, 0xc4b5_3e58]],
    [1, [0x2228_4310, 0xc2cd_1a3e, 0x29e8_1d7b, 0x8995_da7f]],
    [2 ** 32, [0xd4b3_554c, 0x7e45_6ee6, 0x869a_5c15, 0xdbaa_f296]],
    [2 ** 53 - 1, [0xfd6f_eaa6, 0x10e0_16bb, 0xc0b7_8a27, 0xf3a8_9be6]],
  ])('of seed %d gives the numbers of SFC32', (seed, expected) => {
    const rng = createRng(seed);
    expect(expected.map(() => rng.nextU32())).toEqual(expected);
  });

  test('stays below its bound, from 1 to 2^32, and takes one draw for it', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.integer({ min: 1, max: 2 ** 32 }), (seed, bound) => {
        const rng = createRng(seed);
        const twin = createRng(seed);
        for (let i = 0; i < 8; i += 1) {
          const value = rng.below(bound);
          expect(Number.isInteger(value) && value >= 0 && value < bound).toBe(true);
          twin.nextU32();
        }
        expect(rng.nextU32()).toBe(twin.nextU32());
      }),
    );
    const rng = createRng(3);
    expect([rng.below(1), rng.below(1)]).toEqual([0, 0]);
    expect(createRng(5).below(2 ** 32)).toBe(createRng(5).nextU32());
  });
});

describe('errors and traces', () => {
  test('a cause and details are kept; without details there are none', () => {
    const cause = new Error('below');
    const error = new ModelError('E_X', 'no', { cause });
    expect(error.cause).toBe(cause);
    expect(error.toJSON()).toEqual({ name: 'ModelError', code: 'E_X', message: 'no', details: {} });
    expect('cause' in new ModelError('E_X', 'no')).toBe(false);
    expect(new NotModelled('packed rings', { queue: 1n }).toJSON()).toEqual({
      name: 'NotModelled',
      code: 'E_NOT_MODELLED',
      message: 'packed rings is not modelled',
      details: { queue: '0x1' },
    });
  });

  test('events carry the time of the clock that was passed in', () => {
    const events: TraceEvent[] = [];
    const times = [5, 9];
    const tracer = new Tracer({ emit: (e) => events.push(e) }, { now: () => times.shift() ?? 0 });
    expect(tracer.on).toBe(true);
    tracer.event('device', 'x', {});
    tracer.event('device', 'x', {});
    expect(events.map(({ t }) => t)).toEqual([5, 9]);
  });

  test('a tracer that is off does not read the clock', () => {
    const clock = {
      now: (): number => {
        throw new Error('read');
      },
    };
    const tracer = new Tracer(undefined, clock);
    expect(tracer.on).toBe(false);
    expect(() => tracer.event('device', 'x', {})).not.toThrow();
  });
});
