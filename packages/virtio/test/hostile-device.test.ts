import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BUFFERS, createPair, type Pair, segments } from './support/pair.js';

/** Writes used entry `at` and the index after it, as a device would. */
function use(pair: Pair, at: number, id: number, length: number): void {
  const used = pair.driver.ringGpa + pair.driver.layout.used;
  pair.memory.writeU32Le(used + 4 + 8 * (at % pair.driver.size), id);
  pair.memory.writeU32Le(used + 8 + 8 * (at % pair.driver.size), length);
  pair.memory.writeU16Le(used + 2, (at + 1) & 0xffff);
}

describe('a device that returns what it cannot have', () => {
  test.each([
    ['id 8 out of range', 8],
    ['id 4294967295 out of range', 0xffff_ffff],
    ['id 3 is not a head!', 3],
  ])('%s', (message, id) => {
    const pair = createPair();
    pair.driver.add(segments(BUFFERS, [16]), [], 1);
    use(pair, 0, id, 0);
    expect(pair.driver.getUsed()).toEqual({ kind: 'bad-ring', id, message });
    expect(pair.driver.isBroken).toBe(true);
    expect(pair.driver.brokenBy).toMatchObject({ message });
    // Out of use: the other buffers are not given up.
    expect(pair.driver.getUsed()).toBeUndefined();
    expect(pair.driver.add(segments(BUFFERS, [16]), [], 2)).toBe('broken');
    expect(pair.driver.kick()).toBe(false);
    expect(pair.driver.enableCallbacks()).toBe(true);
    expect(pair.driver.detachUnused()).toEqual({ token: 1 });
  });

  test('the same buffer twice', () => {
    const pair = createPair();
    pair.driver.add(segments(BUFFERS, [16]), [], 1);
    use(pair, 0, 0, 0);
    expect(pair.driver.getUsed()).toMatchObject({ token: 1 });
    use(pair, 1, 0, 0);
    expect(pair.driver.getUsed()).toMatchObject({ message: 'id 0 is not a head!' });
  });

  test('the middle of a chain', () => {
    const pair = createPair({ hasIndirect: false });
    pair.driver.add(segments(BUFFERS, [16, 16, 16]), [], 1);
    use(pair, 0, 1, 0);
    expect(pair.driver.getUsed()).toMatchObject({ message: 'id 1 is not a head!' });
  });

  test('a length beyond the buffer is passed on: it is the driver who knows its request', () => {
    const pair = createPair();
    pair.driver.add([], segments(BUFFERS, [16]), 1);
    use(pair, 0, 0, 0xffff_ffff);
    expect(pair.driver.getUsed()).toMatchObject({ length: 0xffff_ffff });
  });
});

test('a device that overwrites the descriptors does not change what is unmapped', () => {
  for (const hasIndirect of [false, true]) {
    const pair = createPair({ isBehindIommu: true, hasIndirect });
    pair.driver.add(segments(BUFFERS, [16, 4096]), segments(BUFFERS * 2, [1]), 5);
    const element = pair.device.pop()!;
    pair.memory.fill(pair.driver.ringGpa, 16 * pair.driver.size, 0xff);
    pair.device.push(element, 1);
    expect(pair.driver.getUsed()).toMatchObject({ token: 5 });
    expect([pair.dma.live.size, pair.dma.badUnmaps]).toEqual([0, 0]);
    expect(pair.driver.numFree).toBe(pair.driver.size);
  }
});

test('garbage in the used ring: no exception, nothing unmapped twice', () => {
  fc.assert(
    fc.property(
      fc.array(fc.record({ id: fc.nat(10), length: fc.nat(), skip: fc.nat(3) }), { maxLength: 20 }),
      fc.boolean(),
      (entries, hasIndirect) => {
        const pair = createPair({ isBehindIommu: true, hasIndirect });
        for (let i = 0; i < 4; i += 1) {
          pair.driver.add(segments(BUFFERS, [16]), segments(BUFFERS * 2, [1]), i);
        }
        let at = 0;
        for (const { id, length, skip } of entries) {
          use(pair, at + skip, id, length);
          at += 1;
          pair.driver.noteInterrupt();
          pair.driver.disableCallbacks();
          for (let i = 0; i < 4; i += 1) pair.driver.getUsed();
          pair.driver.enableCallbacks();
          pair.driver.kick();
          pair.driver.add(segments(BUFFERS, [16]), segments(BUFFERS * 2, [1]), 9);
        }
        expect(pair.dma.badUnmaps).toBe(0);
      },
    ),
    { numRuns: 300 },
  );
});
