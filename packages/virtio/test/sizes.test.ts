import { describe, expect, test } from 'vitest';
import { BUFFERS, createPair, type Pair, segments } from './support/pair.js';

/** Fills the ring, empties it, and goes on until the place where the next buffer goes has come round. */
function laps(pair: Pair): void {
  const { size } = pair.driver;
  const piece = segments(BUFFERS, [8]);
  for (let lap = 0; lap < 3; lap += 1) {
    let added = 0;
    while (added < size && pair.driver.add(piece, [], added) === 'ok') added += 1;
    expect(added).toBe(size);
    expect(pair.driver.add(piece, [], 0)).toBe('ring-full');
    const elements = [];
    for (let e = pair.device.pop(); e !== undefined; e = pair.device.pop()) elements.push(e);
    expect(elements.length).toBe(size);
    for (const element of elements) pair.device.push(element, 1);
    for (let i = 0; i < size; i += 1) {
      if (pair.driver.getUsed()?.kind !== 'used') throw new Error(`buffer ${i} did not come back`);
    }
    expect(pair.driver.hasUsed()).toBe(false);
    // Out of step with the size.
    pair.driver.add(piece, [], 0);
    pair.device.push(pair.device.pop()!, 0);
    pair.driver.getUsed();
  }
  expect(pair.core.errors).toEqual([]);
}

describe('rings of every size', () => {
  test.each([1, 2, 64, 1024, 32_768])('split, %i entries', (size) => {
    laps(createPair({ size }));
  });

  test.each([1, 2, 3, 100, 1000, 1023, 32_767, 32_768])('packed, %i entries', (size) => {
    laps(createPair({ size, isPacked: true }));
  });

  test('a chain as long as a ring of 2048', () => {
    for (const isPacked of [false, true]) {
      const pair = createPair({ size: 2048, isPacked, hasIndirect: false });
      const pieces = new Array(2048).fill({ gpa: BUFFERS, length: 1 });
      expect(pair.driver.add(pieces, [], 1)).toBe('ok');
      const element = pair.device.pop()!;
      expect(element.outNum).toBe(2048);
      pair.device.push(element, 0);
      expect(pair.driver.getUsed()).toMatchObject({ token: 1 });
    }
  });
});

describe.each([{ isPacked: false }, { isPacked: true }])(
  'a queue that was reset, $isPacked',
  ({ isPacked }) => {
    function used(pair: Pair): void {
      for (let i = 0; i < 5; i += 1) pair.driver.add(segments(BUFFERS, [8]), [], i);
      pair.device.setNotification(false);
      for (let i = 0; i < 3; i += 1) pair.device.pop();
      pair.driver.disableCallbacks();
      pair.core.resetQueue(0);
    }

    test('starts anew in the same memory, once all buffers are taken back', () => {
      const pair = createPair({ isPacked, size: 8 });
      used(pair);
      expect(() => pair.driver.reset()).toThrow(
        expect.objectContaining({ code: 'E_QUEUE_IN_USE' }),
      );
      const tokens = [];
      for (let b = pair.driver.detachUnused(); b !== undefined; b = pair.driver.detachUnused()) {
        tokens.push(b.token);
      }
      expect(tokens.sort()).toEqual([0, 1, 2, 3, 4]);
      const { setup } = pair.driver;
      pair.driver.reset();
      expect(pair.driver.setup).toEqual(setup);
      pair.device.configure(setup);
      expect([pair.device.lastAvailIdx, pair.device.usedIdx, pair.device.inUse]).toEqual([0, 0, 0]);
      expect(pair.device.pop()).toBeUndefined();
      laps(pair);
    });

    test('is heard no more until it is set up', () => {
      const pair = createPair({ isPacked });
      used(pair);
      expect([pair.device.isConfigured, pair.device.isEmpty()]).toEqual([false, true]);
      expect(pair.device.pop()).toBeUndefined();
      expect(pair.device.availBytes(1, 1)).toEqual({ inBytes: 0, outBytes: 0 });
    });

    test('a bad ring is forgotten with the reset', () => {
      const pair = createPair({ isPacked, hasInOrder: true });
      used(pair);
      pair.memory.fill(pair.driver.ringGpa, 128, 0xff);
      while (pair.driver.detachUnused() !== undefined) {
        // All of them.
      }
      pair.driver.reset();
      pair.device.configure(pair.driver.setup);
      laps(pair);
    });
  },
);

describe('NOTIFICATION_DATA: number of the queue, and where the next entry goes', () => {
  test('split: the available index', () => {
    const pair = createPair({ size: 2 });
    expect(pair.driver.notificationData).toBe(0);
    pair.driver.add(segments(BUFFERS, [1]), [], 0);
    expect(pair.driver.notificationData).toBe(0x1_0000);
  });

  test('packed: place and wrap counter', () => {
    const pair = createPair({ size: 2, isPacked: true });
    expect(pair.driver.notificationData).toBe(0x8000_0000);
  });
});
