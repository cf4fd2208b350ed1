import { describe, expect, test } from 'vitest';
import { VIRTQ_DESC_F_NEXT } from '../src/index.js';
import { AVAIL, packedDesc, USED, writePacked } from './support/packed.js';
import { BUFFERS, createPair, type Pair, type PairOptions, segments } from './support/pair.js';

const both = [{ isPacked: false }, { isPacked: true }];

function inOrder(options: PairOptions): Pair {
  return createPair({ hasInOrder: true, hasIndirect: false, ...options });
}

/** Buffers of one piece to read and, in bytes, one to write. */
function add(pair: Pair, inBytes: number, token: number): void {
  const result = pair.driver.add(segments(BUFFERS, [4]), segments(BUFFERS * 2, [inBytes]), token);
  expect(result).toBe('ok');
}

/** A device that says with one entry that everything up to `id` is done. */
function useBatch(pair: Pair, isPacked: boolean, id: number, length: number, count: number): void {
  if (isPacked) {
    writePacked(pair, pair.driver.ringGpa, [[0, length, AVAIL | USED, id]]);
    return;
  }
  const used = pair.driver.ringGpa + pair.driver.layout.used;
  pair.memory.writeU32Le(used + 4, id);
  pair.memory.writeU32Le(used + 8, length);
  pair.memory.writeU16Le(used + 2, count);
}

describe.each(both)('VIRTIO_F_IN_ORDER, packed: $isPacked', ({ isPacked }) => {
  test('buffers that are finished early are held back, and go back in the order they came', () => {
    const pair = inOrder({ isPacked });
    for (const token of [1, 2, 3]) add(pair, 16, token);
    const elements = [1, 2, 3].map(() => pair.device.pop()!);
    pair.device.push(elements[2]!, 3);
    pair.device.push(elements[1]!, 2);
    expect(pair.driver.getUsed()).toBeUndefined();
    expect(pair.device.inUse).toBe(isPacked ? 6 : 3);
    pair.device.push(elements[0]!, 1);
    expect(pair.device.inUse).toBe(0);
    for (const token of [1, 2, 3]) {
      expect(pair.driver.getUsed()).toMatchObject({ token, length: token });
    }
    expect(pair.driver.getUsed()).toBeUndefined();
  });

  test('the driver uses descriptors in ring order, lap after lap', () => {
    const pair = inOrder({ isPacked, size: 8 });
    for (let i = 0; i < 10; i += 1) {
      pair.driver.add(segments(BUFFERS, [1, 2, 3]), [], i);
      const at = (3 * i) % 8;
      const element = pair.device.pop()!;
      expect(element.head).toBe(at);
      for (const n of [0, 1]) {
        const index = (at + n) % 8;
        if (isPacked) {
          expect(packedDesc(pair, index)).toMatchObject({ id: at, len: n + 1 });
        } else {
          const next = pair.memory.readU16Le(pair.driver.ringGpa + 16 * index + 14);
          expect(next).toBe((index + 1) % 8);
        }
      }
      pair.device.push(element, 0);
      expect(pair.driver.getUsed()).toMatchObject({ token: i });
    }
  });

  test('one used entry stands for a batch: the buffers before it were used completely', () => {
    const pair = inOrder({ isPacked });
    for (const token of [10, 20, 30]) add(pair, token, token);
    useBatch(pair, isPacked, 4, 7, 3);
    expect(pair.driver.hasUsed()).toBe(true);
    expect(pair.driver.getUsed()).toMatchObject({ token: 10, length: 10 });
    expect(pair.driver.hasUsed()).toBe(true);
    expect(pair.driver.enableCallbacks()).toBe(false);
    expect(pair.driver.getUsed()).toMatchObject({ token: 20, length: 20 });
    expect(pair.driver.getUsed()).toMatchObject({ token: 30, length: 7 });
    expect(pair.driver.getUsed()).toBeUndefined();
    expect(pair.driver.numFree).toBe(8);
  });

  test('a batch that was never given out is no batch', () => {
    const pair = inOrder({ isPacked });
    add(pair, 1, 1);
    useBatch(pair, isPacked, 5, 0, 1);
    expect(pair.driver.getUsed()).toMatchObject({ message: 'id 5 is not a head!' });
  });

  test('what an element popped last leaves when it is put back', () => {
    const pair = inOrder({ isPacked });
    for (const token of [1, 2]) add(pair, 16, token);
    const first = pair.device.pop()!;
    pair.device.unpop(pair.device.pop()!);
    const second = pair.device.pop()!;
    pair.device.push(second, 2);
    pair.device.push(first, 1);
    for (const token of [1, 2]) expect(pair.driver.getUsed()).toMatchObject({ token });
  });
});

test('§2.7.5.2: "when making a descriptor with VRING_DESC_F_NEXT set in flags at offset x in the table available to the device, driver MUST set next to 0 for the last descriptor in the table and to x + 1 for the rest" [driver-2.7.5.2-2]', () => {
  const pair = inOrder({ size: 4 });
  for (let lap = 0; lap < 8; lap += 1) {
    add(pair, 1, lap);
    pair.device.push(pair.device.pop()!, 0);
    pair.driver.getUsed();
    // Out of the middle: the last descriptor of the table is in a chain's middle, too.
    pair.driver.add(segments(BUFFERS, [1, 1, 1]), [], lap);
    for (let x = 0; x < 4; x += 1) {
      const at = pair.driver.ringGpa + 16 * x;
      if ((pair.memory.readU16Le(at + 12) & VIRTQ_DESC_F_NEXT) === 0) continue;
      expect(pair.memory.readU16Le(at + 14)).toBe(x === 3 ? 0 : x + 1);
    }
    pair.device.push(pair.device.pop()!, 0);
    pair.driver.getUsed();
  }
});

test('§2.7.5.3.1: "indirect descriptors MUST appear sequentially, with next taking the value of 1 for the 1st descriptor, 2 for the 2nd one, etc." [driver-2.7.5.3.1-5]', () => {
  const pair = inOrder({ hasIndirect: true });
  pair.driver.add(segments(BUFFERS, [1, 1, 1]), segments(BUFFERS * 2, [1]), 0);
  const table = Number(pair.memory.readU64Le(pair.driver.ringGpa));
  const next = [0, 1, 2].map((i) => pair.memory.readU16Le(table + 16 * i + 14));
  expect(next).toEqual([1, 2, 3]);
});

test('split: a used entry that names a buffer further on than the index does is refused', () => {
  const pair = inOrder({});
  for (const token of [1, 2, 3]) add(pair, 1, token);
  useBatch(pair, false, 4, 0, 2);
  expect(pair.driver.getUsed()).toMatchObject({ message: 'id 4 is ahead of its turn' });
});
