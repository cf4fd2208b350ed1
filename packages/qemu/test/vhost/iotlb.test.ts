/** What a vhost data plane remembers. [linux v6.1.176 drivers/vhost/iotlb.c] */
import { describe, expect, test } from 'vitest';
import { VHOST_MAX_IOTLB_ENTRIES, VhostIotlb } from '../../src/vhost/vhost-iotlb.js';

const END = 2n ** 64n - 1n;

test('an address goes by the range that holds it, up to its last byte', () => {
  const iotlb = new VhostIotlb();
  iotlb.add(0x1000n, 0x1fffn, 0x5000, 3);
  expect(iotlb.find(0xfffn)).toBeUndefined();
  expect(iotlb.find(0x1000n)?.gpa).toBe(0x5000);
  expect(iotlb.find(0x1fffn)?.gpa).toBe(0x5000);
  expect(iotlb.find(0x2000n)).toBeUndefined();
});

describe('ranges that overlap', () => {
  test('the one that starts first counts, whatever came last', () => {
    const iotlb = new VhostIotlb();
    iotlb.add(0x2000n, 0x3fffn, 0xa000, 3);
    iotlb.add(0x1000n, 0x2fffn, 0xb000, 3);
    expect(iotlb.find(0x2800n)?.gpa).toBe(0xb000);
    expect(iotlb.find(0x3800n)?.gpa).toBe(0xa000);
  });

  test('of two that start together the older one stays in force', () => {
    const iotlb = new VhostIotlb();
    iotlb.add(0x1000n, 0x1fffn, 0xa000, 3);
    iotlb.add(0x1000n, 0x1fffn, 0xb000, 3);
    expect(iotlb.size).toBe(2);
    expect(iotlb.find(0x1000n)?.gpa).toBe(0xa000);
    iotlb.delete(0x1fffn, 0x1fffn);
    expect(iotlb.size).toBe(0);
  });

  test('a byte that is forgotten takes with it all of every range that holds it', () => {
    const iotlb = new VhostIotlb();
    iotlb.add(0x0n, 0xff_ffffn, 0, 3);
    iotlb.add(0x100_0000n, 0x1ff_ffffn, 0x100_0000, 3);
    iotlb.delete(0x5000n, 0x5fffn);
    expect(iotlb.find(0xff_0000n)).toBeUndefined();
    expect(iotlb.find(0x100_0000n)?.gpa).toBe(0x100_0000);
  });

  test('what was not remembered can be forgotten', () => {
    const iotlb = new VhostIotlb();
    iotlb.add(0x1000n, 0x1fffn, 0xa000, 3);
    iotlb.delete(0x2000n, 0x8fffn);
    iotlb.delete(0x0n, 0xfffn);
    expect(iotlb.size).toBe(1);
  });
});

test('full, the oldest makes room, however often it was used', () => {
  const iotlb = new VhostIotlb();
  expect(iotlb.limit).toBe(2048);
  for (let i = 0n; i < 2048n; i += 1n) iotlb.add(i * 0x1000n, i * 0x1000n + 0xfffn, Number(i), 3);
  expect(iotlb.find(0n)?.gpa).toBe(0);
  iotlb.add(0x100_0000n, 0x100_0fffn, 9999, 3);
  expect(iotlb.find(0n)).toBeUndefined();
  expect(iotlb.find(0x1000n)?.gpa).toBe(1);
  expect([iotlb.size, iotlb.peak, iotlb.evictions]).toEqual([2048, 2048, 1]);
});

test('no range, and ranges at the end of the 64 bits', () => {
  const iotlb = new VhostIotlb();
  expect(iotlb.add(0x2000n, 0x1fffn, 0, 3)).toBe(-14);
  expect(iotlb.size).toBe(0);
  expect(iotlb.add(END, END, 0x1000, 3)).toBe(0);
  expect(iotlb.find(END)?.gpa).toBe(0x1000);
  expect(iotlb.find(END - 1n)).toBeUndefined();
});

test('all 64 bits become two entries, for whose sizes there is room', () => {
  const iotlb = new VhostIotlb();
  expect(iotlb.add(0n, END, 0, 3)).toBe(0);
  const half = 2n ** 63n;
  expect(iotlb.entries()).toEqual([
    { start: 0n, last: half - 1n, gpa: 0, perm: 3 },
    { start: half, last: END, gpa: 2 ** 63, perm: 3 },
  ]);
});

test('a limit of 1 keeps the last; 0 is no limit', () => {
  const one = new VhostIotlb(1);
  const any = new VhostIotlb(0);
  for (let i = 0n; i < 5000n; i += 1n) {
    one.add(i, i, Number(i), 3);
    any.add(i, i, Number(i), 3);
  }
  expect(one.entries().map(({ gpa }) => gpa)).toEqual([4999]);
  expect(any.size).toBe(5000);
});

test.each([
  ['one after the other', (i: number) => i],
  ['from the end', (i: number) => 2 ** 20 - i],
  ['all over the place', (i: number) => (i * 0x9e37) % 2 ** 20],
])('a hundred thousand pages, %s: no more than the limit is kept', (_how, page) => {
  const iotlb = new VhostIotlb();
  for (let i = 0; i < 100_000; i += 1) {
    const start = BigInt(page(i)) * 0x1000n;
    iotlb.add(start, start + 0xfffn, i, 3);
  }
  expect(iotlb.size).toBe(VHOST_MAX_IOTLB_ENTRIES);
  expect(iotlb.evictions).toBe(100_000 - VHOST_MAX_IOTLB_ENTRIES);
  // Exactly the last ones.
  expect(iotlb.entries().every(({ gpa }) => gpa >= 100_000 - VHOST_MAX_IOTLB_ENTRIES)).toBe(true);
});
