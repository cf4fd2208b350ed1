import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  addU64,
  createRng,
  createTickClock,
  distanceU64,
  formatSize,
  hex,
  hex64,
  hi32,
  hiOf,
  InternalError,
  invariant,
  isSafeHi,
  joinNumber,
  joinU64,
  lo32,
  loOf,
  ModelError,
  NO_TRACE,
  NotModelled,
  parseSize,
  splitU64,
  type TraceEvent,
  Tracer,
  u16,
} from '../src/index.js';

const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const safe = fc.maxSafeNat();

describe('halves', () => {
  test('are those of the 64-bit value', () => {
    fc.assert(
      fc.property(u64, (value) => {
        const out = { hi: 0, lo: 0 };
        splitU64(value, out);
        expect(BigInt(out.hi) * 2n ** 32n + BigInt(out.lo)).toBe(value);
        expect([hi32(value), lo32(value)]).toEqual([out.hi, out.lo]);
        expect(joinU64(out.hi, out.lo)).toBe(value);
      }),
    );
  });

  test('of a safe integer join to it', () => {
    fc.assert(
      fc.property(safe, (value) => {
        expect(joinNumber(hiOf(value), loOf(value))).toBe(value);
        expect(isSafeHi(hiOf(value))).toBe(true);
      }),
    );
    expect(isSafeHi(0x20_0000)).toBe(false);
  });

  test('add and measure modulo 2^64, exactly', () => {
    fc.assert(
      fc.property(u64, safe, (base, offset) => {
        const start = { hi: hi32(base), lo: lo32(base) };
        const out = { hi: 0, lo: 0 };
        addU64(start, offset, out);
        expect(joinU64(out.hi, out.lo)).toBe(BigInt.asUintN(64, base + BigInt(offset)));
        if (base + BigInt(offset) < 2n ** 64n) {
          expect(distanceU64(start, out.hi, out.lo)).toBe(offset);
        }
      }),
    );
  });

  test('below the base, or too far above it, the distance is -1', () => {
    const base = { hi: 0x0800_0000, lo: 5 };
    expect(distanceU64(base, 0x0800_0000, 4)).toBe(-1);
    expect(distanceU64(base, 0, 0)).toBe(-1);
    expect(distanceU64(base, 0x0820_0000, 4)).toBe(2 ** 53 - 1);
    expect(distanceU64(base, 0x0820_0000, 5)).toBe(-1);
  });
});

test('u16 wraps as ring indices do', () => {
  expect([u16(0x1_0000), u16(-1), u16(0xffff + 2)]).toEqual([0, 0xffff, 1]);
});

test('addresses print as traces print them', () => {
  expect(hex64(0x1000)).toBe('0x0000000000001000');
  expect(hex64(-1n)).toBe('0xffffffffffffffff');
  expect(hex(0x0800_0000_0000_0000n)).toBe('0x800000000000000');
});

describe('sizes', () => {
  test.each([
    ['4096', 4096],
    ['0x1000', 4096],
    ['64KiB', 65_536],
    ['2G', 2 ** 31],
    ['1.5 MiB', 1.5 * 2 ** 20],
    [512, 512],
  ])('%s', (text, bytes) => expect(parseSize(text)).toBe(bytes));

  test.each(['', 'x', '1.3', '-1', '9007199254740993', '3 apples', '1e3', Number.NaN, 0.5])(
    '"%s" is none',
    (text) => expect(() => parseSize(text)).toThrow(/expected a size/),
  );

  test('print shortly', () => {
    expect([0, 1023, 1024, 1536, 2 ** 31].map(formatSize)).toEqual([
      '0 B',
      '1023 B',
      '1 KiB',
      '1.5 KiB',
      '2 GiB',
    ]);
  });
});

describe('the generator', () => {
  const draw = (seed: number) => {
    const rng = createRng(seed);
    return Array.from({ length: 4 }, () => rng.nextU32());
  };

  test('is determined by the seed, beyond 32 bits too', () => {
    expect(draw(1)).toEqual(draw(1));
    expect(draw(1)).not.toEqual(draw(2));
    expect(draw(1)).not.toEqual(draw(1 + 2 ** 32));
  });

  test('fills its range evenly', () => {
    const rng = createRng(7);
    const counts = new Array<number>(10).fill(0);
    for (let i = 0; i < 10_000; i += 1) {
      const value = rng.below(10);
      counts[value] = (counts[value] ?? 0) + 1;
    }
    for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(150);
  });
});

describe('errors', () => {
  test('carry a code and what JSON can hold', () => {
    const error = new ModelError('E_X', 'expected 1, found 2', { details: { at: 2n ** 63n } });
    expect(JSON.parse(JSON.stringify(error))).toEqual({
      name: 'ModelError',
      code: 'E_X',
      message: 'expected 1, found 2',
      details: { at: '0x8000000000000000' },
    });
    expect(new NotModelled('the moon').code).toBe('E_NOT_MODELLED');
  });

  test('a broken invariant is our bug, and says so', () => {
    expect(() => invariant(false, 'X')).toThrow(InternalError);
    expect(() => invariant(false, 'X')).toThrow(/bug in Pinhole/);
    expect(() => invariant(true, 'X')).not.toThrow();
  });
});

describe('the tracer', () => {
  test('stamps events in order and keeps spans apart', () => {
    const events: TraceEvent[] = [];
    const tracer = new Tracer({ emit: (event) => events.push(event) }, createTickClock());
    tracer.begin('guest', 'a', { x: 1 });
    tracer.event('device', 'b', {});
    tracer.end('guest', 'a');
    expect(events).toEqual([
      { t: 0, actor: 'guest', name: 'a', phase: 'begin', args: { x: 1 } },
      { t: 1, actor: 'device', name: 'b', args: {} },
      { t: 2, actor: 'guest', name: 'a', phase: 'end', args: {} },
    ]);
  });

  test('without a sink is off and silent', () => {
    expect(NO_TRACE.on).toBe(false);
    expect(() => NO_TRACE.event('guest', 'a', {})).not.toThrow();
  });
});
