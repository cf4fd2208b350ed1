/** Every accessor of every kind of memory, against a map of bytes, inside and outside of memory. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  ByteMemory,
  createGuestMemory,
  type GuestMemory,
  HypervisorView,
  PageOwnership,
} from '../src/index.js';

/** Two pieces that touch inside of a 64 KiB chunk, a hole, and one beyond 4 GiB. */
const REGIONS = [
  { base: 0, size: 0x8123 },
  { base: 0x8123, size: 0x1_0000 },
  { base: 0x1_0000_fff0, size: 0x1_0020 },
];
const isMemory = (at: number) => REGIONS.some(({ base, size }) => at >= base && at < base + size);

/** All shared: the view must then be the memory itself. */
function shared(): GuestMemory {
  const ownership = new PageOwnership({ pageSize: 4096 });
  ownership.share(0, 2 ** 34);
  return new HypervisorView(createGuestMemory({ regions: REGIONS }), ownership);
}

interface Access {
  readonly name: string;
  readonly width: number;
  /** The bytes that a write of `value` leaves, lowest address first. */
  write(memory: GuestMemory, gpa: number, value: bigint): void;
  read(memory: GuestMemory, gpa: number): bigint | number;
  readonly isLittle: boolean;
}
const ACCESSES: readonly Access[] = [
  access('U8', 1, true, 'writeU8', 'readU8'),
  access('U16Le', 2, true, 'writeU16Le', 'readU16Le'),
  access('U16Be', 2, false, 'writeU16Be', 'readU16Be'),
  access('U32Le', 4, true, 'writeU32Le', 'readU32Le'),
  access('U32Be', 4, false, 'writeU32Be', 'readU32Be'),
  wide('U64Le', true, 'writeU64Le', 'readU64Le'),
  wide('U64Be', false, 'writeU64Be', 'readU64Be'),
];

type Narrow = 'U8' | 'U16Le' | 'U16Be' | 'U32Le' | 'U32Be';
function access(
  name: Narrow,
  width: number,
  isLittle: boolean,
  set: `write${Narrow}`,
  get: `read${Narrow}`,
): Access {
  const write: Access['write'] = (memory, gpa, value) => memory[set](gpa, Number(value));
  return { name, width, isLittle, write, read: (memory, gpa) => memory[get](gpa) };
}

function wide(
  name: string,
  isLittle: boolean,
  set: 'writeU64Le' | 'writeU64Be',
  get: 'readU64Le' | 'readU64Be',
): Access {
  const write: Access['write'] = (memory, gpa, value) => memory[set](gpa, value);
  return { name, width: 8, isLittle, write, read: (memory, gpa) => memory[get](gpa) };
}

/** The value, byte by byte, without a DataView. */
function bytesOf({ width, isLittle }: Access, value: bigint): number[] {
  const bytes = Array.from({ length: width }, (_, i) => Number((value >> BigInt(8 * i)) & 0xffn));
  return isLittle ? bytes : bytes.reverse();
}

const EDGES = [0, 0x8123, 0x1_0000, 0x1_8123, 0x1_0000_fff0, 0x1_0001_0000, 0x1_0002_0000, 2 ** 52];
const anywhere = fc
  .tuple(fc.constantFrom(...EDGES), fc.integer({ min: -9, max: 9 }))
  .map(([edge, delta]) => edge + delta);
const step = fc.record({
  access: fc.constantFrom(...ACCESSES),
  gpa: anywhere,
  value: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
});

describe.each([
  ['sparse memory', () => createGuestMemory({ regions: REGIONS })],
  ["the hypervisor's view of shared memory", shared],
])('%s', (_name, create) => {
  test('agrees with a map of bytes; what leaves memory throws and changes nothing', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const memory = create();
        const model = new Map<number, number>();
        for (const { access, gpa, value: bits } of steps) {
          const value = BigInt.asUintN(access.width * 8, bits);
          const bytes = bytesOf(access, value);
          if (bytes.every((_, i) => isMemory(gpa + i))) {
            access.write(memory, gpa, value);
            bytes.forEach((byte, i) => {
              model.set(gpa + i, byte);
            });
            expect(BigInt(access.read(memory, gpa)), access.name).toBe(value);
          } else {
            const error = expect.objectContaining({
              code: 'E_GPA_OUT_OF_RANGE',
              details: { gpa, length: access.width },
            });
            expect(() => access.write(memory, gpa, value), access.name).toThrow(error);
            expect(() => access.read(memory, gpa), access.name).toThrow(error);
          }
          for (let i = -8; i < 16; i += 1) {
            const at = gpa + i;
            if (isMemory(at)) expect(memory.readU8(at)).toBe(model.get(at) ?? 0);
          }
        }
      }),
      { numRuns: 200 },
    );
  });

  test('bulk copies and fills agree with a map of bytes', () => {
    const bulk = fc.record({
      gpa: anywhere,
      length: fc.oneof(fc.nat({ max: 20 }), fc.nat({ max: 0x1_8200 })),
      value: fc.nat({ max: 255 }),
      isFill: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(bulk, { maxLength: 4 }), (steps) => {
        const memory = create();
        const model = new Uint8Array(0x1_8123);
        const high = new Uint8Array(0x1_0020);
        for (const { gpa, length, value, isFill } of steps) {
          const bytes = Uint8Array.from({ length }, (_, i) => (isFill ? value : value + i));
          const act = () => (isFill ? memory.fill(gpa, length, value) : memory.write(gpa, bytes));
          // Nothing, at the very end, is in no region.
          if (gpa >= 0 && gpa < model.length && gpa + length <= model.length) {
            act();
            model.set(bytes, gpa);
          } else if (gpa >= 0x1_0000_fff0 && gpa < 0x1_0002_0010 && gpa + length <= 0x1_0002_0010) {
            act();
            high.set(bytes, gpa - 0x1_0000_fff0);
          } else if (length > 0) {
            expect(act).toThrow(expect.objectContaining({ code: 'E_GPA_OUT_OF_RANGE' }));
          }
        }
        const low = new Uint8Array(model.length).fill(1);
        const top = new Uint8Array(high.length).fill(1);
        memory.read(0, low);
        memory.read(0x1_0000_fff0, top);
        expect([Buffer.compare(low, model), Buffer.compare(top, high)]).toEqual([0, 0]);
      }),
      { numRuns: 100 },
    );
  });

  test('a fill that is larger than memory says so, however large', () => {
    for (const length of [0x1_8124, 2 ** 40, 2 ** 53]) {
      expect(() => create().fill(0, length, 1)).toThrow(
        expect.objectContaining({ code: 'E_GPA_OUT_OF_RANGE', details: { gpa: 0, length } }),
      );
    }
  });
});

test('a large fill of memory that is a view is written in pieces', () => {
  let longest = 0;
  let written = 0;
  class Probe extends ByteMemory {
    readonly regions = [{ base: 0, size: 2 ** 40 }];
    override isBacked(gpa: number, length: number): boolean {
      return gpa >= 0 && gpa + length <= 2 ** 40;
    }
    override read(): void {}
    override write(gpa: number, from: Uint8Array): void {
      expect(gpa).toBe(0x1001 + written);
      expect(from.every((byte) => byte === 7)).toBe(true);
      longest = Math.max(longest, from.length);
      written += from.length;
    }
  }
  new Probe().fill(0x1001, 5_000_001, 7);
  expect(written).toBe(5_000_001);
  expect(longest).toBeLessThanOrEqual(2 ** 20);
});

test('only what is written costs: each 64 KiB once, reads and zeroes nothing', () => {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 64 * 2 ** 40 }] });
  memory.read(2 ** 44, new Uint8Array(200_000));
  memory.fill(2 ** 44, 2 ** 28, 0);
  expect(memory.bytesHeld).toBe(0);
  memory.writeU8(2 ** 44, 1);
  memory.writeU8(2 ** 44 + 65_535, 1);
  expect(memory.bytesHeld).toBe(65_536);
  memory.writeU16Le(2 ** 44 + 65_535, 1);
  expect(memory.bytesHeld).toBe(131_072);
});
