/** Input that is made to cost much. What would take more than linear time would not end in time. */
import { describe, expect, test } from 'vitest';
import { type FdtOptions, parseFdt, writeFdt } from '../src/index.js';
import { begin, end, endNode, prop, rawBlob, rootWith, word } from './raw-blob.js';

const refusal = (blob: Uint8Array, options?: FdtOptions): unknown => {
  try {
    parseFdt(blob, options);
    return 'taken';
  } catch (error) {
    return (error as { code: unknown }).code;
  }
};

/** `count` copies of `tokens`, which `edit` may change by index. */
function repeat(tokens: number[], count: number, edit?: (copy: DataView, index: number) => void) {
  const all = new Uint8Array(tokens.length * count);
  for (let index = 0; index < count; index += 1) {
    all.set(tokens, index * tokens.length);
    edit?.(new DataView(all.buffer, index * tokens.length, tokens.length), index);
  }
  return all;
}

/** A blob of any size: `rawBlob` goes through arrays of numbers. */
function blobOf(parts: (number[] | Uint8Array)[], strings: string): Uint8Array {
  const structure = Buffer.concat(parts.map((part) => Uint8Array.from(part)));
  const blob = Buffer.concat([
    rawBlob({ structure: [], strings: '' }),
    structure,
    Buffer.from(strings),
  ]);
  blob.writeUInt32BE(blob.length, 0x04);
  blob.writeUInt32BE(56 + structure.length, 0x0c);
  blob.writeUInt32BE(strings.length, 0x20);
  blob.writeUInt32BE(structure.length, 0x24);
  return blob;
}

const LEVELS = 100_000;
const deep = blobOf([begin(''), repeat(begin('a'), LEVELS), repeat(endNode, LEVELS + 1), end], '');

describe('100,000 levels', () => {
  test('are refused', () => {
    expect(refusal(deep)).toBe('E_FDT_DEPTH');
  });

  test('are read and written where they are asked for', () => {
    const maxDepth = LEVELS + 1;
    const written = writeFdt(parseFdt(deep, { maxDepth }), { maxDepth });
    expect(Buffer.compare(written, deep)).toBe(0);
  });

  test('do not overflow the stack when they do not end, and the message stays short', () => {
    const open = blobOf([begin(''), repeat(begin('a'), LEVELS), end], '');
    expect(refusal(open, { maxDepth: Number.POSITIVE_INFINITY })).toBe('E_FDT_STRUCTURE');
    expect(() => parseFdt(open, { maxDepth: Number.POSITIVE_INFINITY })).toThrow(/^.{1,400}$/);
  });
});

test('a name of 1 MiB is not read to its end by each of 100,000 properties', () => {
  const properties = repeat(prop(0), 100_000, (copy, index) => copy.setUint32(8, index));
  const blob = blobOf([begin(''), properties, endNode, end], 'a'.repeat(2 ** 20));
  expect(refusal(blob)).toBe('E_FDT_NAME');
});

test('50,000 nodes, each with a name at an offset of its own', () => {
  const nodes = repeat([...begin('n1234567'), ...prop(0), ...endNode], 50_000, (copy, index) => {
    for (const [at, digit] of [...String(index).padStart(7, '0')].entries()) {
      copy.setUint8(5 + at, digit.charCodeAt(0));
    }
    copy.setUint32(24, Math.floor(index / 255) * 256 + (index % 255));
  });
  const strings = `${'a'.repeat(255)}\0`.repeat(400);
  const fdt = parseFdt(blobOf([begin(''), nodes, endNode, end], strings));
  expect(fdt.root.children).toHaveLength(50_000);
  expect(fdt.root.children[254]).toEqual({
    name: 'n0000254',
    properties: [{ name: 'a', value: new Uint8Array() }],
    children: [],
  });
  expect(writeFdt(fdt).length).toBe(56 + 8 + 50_000 * 32 + 8 + 256);
});

test('255 names that end alike are written in one string', () => {
  const properties = Array.from({ length: 255 }, (_, index) => ({
    name: 'a'.repeat(255 - index),
    value: new Uint8Array(),
  }));
  const blob = writeFdt({
    root: { name: '', properties, children: [] },
    reservations: [],
    bootCpuid: 0,
  });
  expect(blob.length).toBe(56 + 8 + 255 * 12 + 8 + 256);
});

test('values are one copy of the blob, however many there are', () => {
  const properties = Array.from({ length: 26 }, (_, index) =>
    prop(index * 2, Array(1000).fill(index)),
  );
  const strings = [...'abcdefghijklmnopqrstuvwxyz'].map((name) => `${name}\0`).join('');
  const { root } = parseFdt(rawBlob({ structure: rootWith(...properties), strings }));
  const buffers = new Set(root.properties.map(({ value }) => value.buffer));
  expect(root.properties).toHaveLength(26);
  expect(buffers.size).toBe(1);
});

test.each([0x7fff_ffff, 0x8000_0000, 0xffff_fff8, 0xffff_ffff])(
  'a value of 0x%s bytes allocates nothing',
  (length) => {
    const before = process.memoryUsage().arrayBuffers;
    expect(refusal(rawBlob({ structure: rootWith(prop(0, [], length)) }))).toBe('E_FDT_BOUNDS');
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 20);
  },
);

test('a blob that says it is 4 GiB allocates nothing', () => {
  const before = process.memoryUsage().arrayBuffers;
  expect(refusal(rawBlob({ header: { totalsize: 0xffff_ffff } }))).toBe('E_FDT_TRUNCATED');
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 20);
});

test('250,000 reservations without an end', () => {
  const blob = blobOf([begin(''), endNode, end, repeat(word(1), 1_000_000)], '');
  new DataView(blob.buffer, blob.byteOffset).setUint32(0x10, 72);
  expect(refusal(blob)).toBe('E_FDT_RESERVATION');
});
