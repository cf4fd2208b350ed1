import { DmaAccess } from '@pinhole/memory';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BUFFERS, createPair, type Pair, type PairOptions, segments } from '../support/pair.js';

const packed = (options: PairOptions = {}): Pair => createPair({ ...options, isPacked: true });
/** One descriptor, or all of them, as bytes. */
function descBytes(pair: Pair, index = 0, count = pair.driver.size - index): string {
  const bytes = new Uint8Array(16 * count);
  pair.memory.read(pair.driver.ringGpa + 16 * index, bytes);
  return bytes.join(' ');
}

describe('the driver', () => {
  test('changes no descriptor before it was used [driver-2.8.16-1, driver-2.8.16-2]', () => {
    const step = fc.record({ kind: fc.constantFrom('add', 'add', 'use', 'get'), count: fc.nat(2) });
    fc.assert(
      fc.property(fc.boolean(), fc.array(step, { maxLength: 60 }), (hasIndirect, steps) => {
        const pair = packed({ size: 7, hasIndirect });
        const { driver, device } = pair;
        // Places that the device has, from the oldest buffer on, and what is in them.
        let at = 0;
        const exposed: { places: number[]; bytes: string[] }[] = [];
        for (const { kind, count } of steps) {
          if (kind === 'add') {
            const free = driver.numFree;
            const lengths = Array.from({ length: count + 1 }, () => 16);
            const before = descBytes(pair);
            if (driver.add(segments(BUFFERS, lengths), [], 1) === 'ok') {
              const n = free - driver.numFree;
              const places = Array.from({ length: n }, (_, i) => (at + i) % 7);
              exposed.push({ places, bytes: places.map((place) => descBytes(pair, place, 1)) });
              at = (at + n) % 7;
            } else expect(descBytes(pair)).toBe(before);
          } else if (kind === 'use') {
            const element = device.pop();
            if (element !== undefined) {
              device.push(element, 0);
              exposed.shift();
            }
          } else driver.getUsed();
          for (const { places, bytes } of exposed) {
            expect(places.map((place) => descBytes(pair, place, 1))).toEqual(bytes);
          }
        }
      }),
      { numRuns: 100 },
    );
  });
});

describe('the device', () => {
  test('reaches what is readable for reading only, and what is writable for writing only [device-2.8.15-1]', () => {
    const pair = packed({ isBehindIommu: true, hasIndirect: false });
    pair.driver.add(segments(BUFFERS, [16, 4096]), segments(BUFFERS * 2, [512, 1]), 1);
    const buffers = [...pair.dma.live.keys()];
    pair.iommu.log.length = 0;
    pair.device.push(pair.device.pop()!, 513);
    expect(
      buffers.map((bus) =>
        pair.iommu.log.filter(({ address }) => address === bus).map(({ access }) => access),
      ),
    ).toEqual([[DmaAccess.READ], [DmaAccess.READ], [DmaAccess.WRITE], [DmaAccess.WRITE]]);
  });
});

describe('IN_ORDER', () => {
  test.each([
    ['split', false],
    ['packed', true],
  ])(
    '%s: the device returns buffers as they came, whatever is done first [device-6.2-3]',
    (_, isPacked) => {
      const pair = createPair({ isPacked, hasInOrder: true, hasIndirect: false });
      for (const token of [1, 2, 3, 4]) pair.driver.add(segments(BUFFERS, [token]), [], token);
      const elements = [0, 1, 2, 3].map(() => pair.device.pop()!);
      const seen: unknown[] = [];
      for (const i of [2, 0, 3, 1]) {
        pair.device.push(elements[i]!, 0);
        for (let used = pair.driver.getUsed(); used !== undefined; used = pair.driver.getUsed()) {
          seen.push(used.kind === 'used' ? used.token : used);
        }
      }
      expect(seen).toEqual([1, 2, 3, 4]);
      expect(pair.driver.isBroken).toBe(false);
    },
  );
});
