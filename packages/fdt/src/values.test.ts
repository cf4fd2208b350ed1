import { describe, expect, test } from 'vitest';
import {
  createNode,
  decodeCells,
  decodeString,
  decodeStrings,
  decodeU32,
  decodeU64,
  encodeCells,
  encodeStrings,
  encodeU64s,
} from './index.js';

const invalid: unknown = expect.objectContaining({ code: 'E_FDT_VALUE' });
const bytes = (...list: number[]) => Uint8Array.from(list);

// The examples of [Devicetree v0.4 §2.2.4.2 "Property Values"].
test('<u32>', () => {
  expect(encodeCells([0x1122_3344])).toEqual(bytes(0x11, 0x22, 0x33, 0x44));
  expect(decodeU32(bytes(0x11, 0x22, 0x33, 0x44))).toBe(0x1122_3344);
  expect(decodeU32(bytes(0xff, 0xff, 0xff, 0xfe))).toBe(0xffff_fffe);
});

test('<u64> is two cells, the more significant one first', () => {
  const value = bytes(0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88);
  expect(encodeU64s([0x1122_3344_5566_7788n])).toEqual(value);
  expect(encodeCells([0x1122_3344, 0x5566_7788])).toEqual(value);
  expect(decodeU64(value)).toBe(0x1122_3344_5566_7788n);
  expect(decodeU64(new Uint8Array(8).fill(0xff))).toBe(2n ** 64n - 1n);
});

test('<string> and <stringlist>', () => {
  const hello = bytes(0x68, 0x65, 0x6c, 0x6c, 0x6f, 0);
  const world = bytes(0x77, 0x6f, 0x72, 0x6c, 0x64, 0);
  expect(encodeStrings(['hello', 'world'])).toEqual(bytes(...hello, ...world));
  expect(decodeStrings(bytes(...hello, ...world))).toEqual(['hello', 'world']);
  expect(decodeString(hello)).toBe('hello');
});

test('lists of nothing, and strings of nothing', () => {
  expect(decodeCells(bytes())).toEqual([]);
  expect(encodeCells([])).toEqual(bytes());
  expect(decodeStrings(bytes())).toEqual([]);
  expect(encodeStrings([])).toEqual(bytes());
  expect(decodeStrings(bytes(0))).toEqual(['']);
  expect(decodeStrings(bytes(0, 0x61, 0))).toEqual(['', 'a']);
});

test('text beyond ASCII is UTF-8', () => {
  const text = 'é% ☃ 😀';
  expect(encodeStrings([text])).toEqual(bytes(...Buffer.from(`${text}\0`)));
  expect(decodeString(encodeStrings([text]))).toBe(text);
});

describe('refused', () => {
  test.each([
    ['cells of 5 bytes', () => decodeCells(new Uint8Array(5))],
    ['a u32 of 8 bytes', () => decodeU32(new Uint8Array(8))],
    ['a u64 of 4 bytes', () => decodeU64(new Uint8Array(4))],
    ['a string without NUL', () => decodeString(bytes(0x61))],
    ['two strings as one', () => decodeString(bytes(0x61, 0, 0x62, 0))],
    ['no string as one', () => decodeString(bytes())],
    ['a list whose last string has no NUL', () => decodeStrings(bytes(0x61, 0, 0x62))],
    ['bytes that are no UTF-8', () => decodeString(bytes(0xc3, 0x28, 0))],
    ['UTF-8 longer than need be', () => decodeString(bytes(0xc0, 0x80, 0))],
    ['a cell of 33 bits', () => encodeCells([2 ** 32])],
    ['a cell below 0', () => encodeCells([-1])],
    ['a cell that is no integer', () => encodeCells([0.5])],
    ['65 bits', () => encodeU64s([2n ** 64n])],
    ['a number below 0', () => encodeU64s([-1n])],
    ['a string with a NUL', () => encodeStrings(['a\0b'])],
    ['half a surrogate pair', () => encodeStrings(['\ud800'])],
  ])('%s', (_, run) => {
    expect(run).toThrow(invalid);
  });
});

test('createNode: a value of each kind', () => {
  const raw = bytes(1, 2, 3);
  const child = createNode('child');
  const values = { s: 'a', l: ['a', 'b'], n: 1, c: [1, 2], u: 3n, r: raw, t: true, e: [] } as const;
  const node = createNode('n@0', { ...values, l: [...values.l], c: [...values.c], e: [] }, [child]);
  expect(node).toEqual({
    name: 'n@0',
    properties: [
      { name: 's', value: bytes(0x61, 0) },
      { name: 'l', value: bytes(0x61, 0, 0x62, 0) },
      { name: 'n', value: bytes(0, 0, 0, 1) },
      { name: 'c', value: bytes(0, 0, 0, 1, 0, 0, 0, 2) },
      { name: 'u', value: bytes(0, 0, 0, 0, 0, 0, 0, 3) },
      { name: 'r', value: raw },
      { name: 't', value: bytes() },
      { name: 'e', value: bytes() },
    ],
    children: [child],
  });
});
