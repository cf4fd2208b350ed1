import { DmaAccess } from '@pinhole/memory';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from '../../src/index.js';
import { BUFFERS, createPair, type Pair, type PairOptions, segments } from '../support/pair.js';

// VIRTIO v1.2 §2.8.13: struct pvirtq_desc { le64 addr; le32 len; le16 id; le16 flags; }.
const AVAIL = 1 << 7;
const USED = 1 << 15;

const packed = (options: PairOptions = {}): Pair => createPair({ ...options, isPacked: true });
const flagsAt = (pair: Pair, index: number): number =>
  pair.memory.readU16Le(pair.driver.ringGpa + 16 * index + 14);
const idAt = (pair: Pair, index: number): number =>
  pair.memory.readU16Le(pair.driver.ringGpa + 16 * index + 12);

/** One descriptor, or all of them, as bytes. */
function descBytes(pair: Pair, index = 0, count = pair.driver.size - index): string {
  const bytes = new Uint8Array(16 * count);
  pair.memory.read(pair.driver.ringGpa + 16 * index, bytes);
  return bytes.join(' ');
}

describe('the driver', () => {
  test('aligns the parts: 16, 4 and 4 bytes [driver-2.8.11-1]', () => {
    for (const size of [1, 2, 3, 7, 255, 1000]) {
      const { desc, avail, used } = packed({ size }).driver.setup;
      expect([desc % 16n, avail % 4n, used % 4n]).toEqual([0n, 0n, 0n]);
    }
  });

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

  test('says where the next descriptor will be when it kicks with data [driver-2.8.16-3]', () => {
    const pair = packed({ size: 5, hasIndirect: false });
    let made = 0;
    for (let i = 0; i < 40; i += 1) {
      const count = (i % 3) + 1;
      pair.driver.add(segments(BUFFERS, new Array<number>(count).fill(16)), [], i);
      made += count;
      const lap = Math.floor(made / 5);
      const wrap = lap % 2 === 0 ? 1 : 0;
      expect(pair.driver.notificationData).toBe((((wrap << 15) | (made % 5)) << 16) >>> 0);
      pair.device.push(pair.device.pop()!, 0);
      pair.driver.getUsed();
    }
  });

  test('makes no list longer than the queue [driver-2.8.17-2]', () => {
    const pair = packed({ size: 3, hasIndirect: false });
    expect(pair.driver.add(segments(BUFFERS, [1, 1, 1, 1]), [], 1)).toBe('ring-full');
    expect(pair.driver.add(segments(BUFFERS, [1, 1, 1]), [], 1)).toBe('ok');
  });

  test('places what is writable after what is readable [driver-2.8.17-3]', () => {
    const pair = packed({ hasIndirect: false });
    pair.driver.add(segments(BUFFERS, [1, 2]), segments(BUFFERS * 2, [3, 4]), 1);
    const writable = [0, 1, 2, 3].map((i) => (flagsAt(pair, i) & VIRTQ_DESC_F_WRITE) !== 0);
    expect(writable).toEqual([false, false, true, true]);
  });

  test('begins no list for which there is no room [driver-2.8.17-4, driver-2.8.17-5]', () => {
    const pair = packed({ size: 4, hasIndirect: false });
    pair.driver.add(segments(BUFFERS, [1, 1]), [], 1);
    const before = descBytes(pair);
    expect(pair.driver.add(segments(BUFFERS, [1, 1, 1]), [], 2)).toBe('ring-full');
    expect(descBytes(pair)).toBe(before);
    pair.device.pop();
    expect(pair.device.isEmpty()).toBe(true);
  });

  test('hands the first descriptor of a list over last [driver-2.8.17-6]', () => {
    const pair = packed({ hasIndirect: false, isBehindIommu: true });
    const seen: [isFirstAvailable: boolean, others: number][] = [];
    const { map } = pair.dma;
    pair.dma.map = function watched(...args): boolean {
      seen.push([
        (flagsAt(pair, 0) & AVAIL) !== 0,
        [1, 2, 3].filter((i) => (flagsAt(pair, i) & AVAIL) !== 0).length,
      ]);
      return map.apply(this, args);
    };
    expect(pair.driver.add(segments(BUFFERS, [1, 1, 1, 1]), [], 1)).toBe('ok');
    // Each piece is mapped, then written: at the last, the two before it are available.
    expect(seen).toEqual([
      [false, 0],
      [false, 0],
      [false, 1],
      [false, 2],
    ]);
    expect(flagsAt(pair, 0) & (AVAIL | USED)).toBe(AVAIL);
  });

  test('sets INDIRECT only if that was negotiated [driver-2.8.19-1]', () => {
    const pair = packed({ hasIndirect: false });
    pair.driver.add(segments(BUFFERS, [1, 2, 3]), [], 1);
    expect([0, 1, 2].map((i) => flagsAt(pair, i) & VIRTQ_DESC_F_INDIRECT)).toEqual([0, 0, 0]);
  });

  test('sets no flag but WRITE in a table, and no NEXT beside INDIRECT [driver-2.8.19-2, driver-2.8.19-4]', () => {
    const pair = packed();
    pair.driver.add(segments(BUFFERS, [1, 2]), segments(BUFFERS * 2, [3, 4]), 1);
    expect(flagsAt(pair, 0)).toBe(VIRTQ_DESC_F_INDIRECT | AVAIL);
    const table = Number(pair.memory.readU64Le(pair.driver.ringGpa));
    expect([0, 1, 2, 3].map((i) => pair.memory.readU16Le(table + 16 * i + 14))).toEqual([
      0,
      0,
      VIRTQ_DESC_F_WRITE,
      VIRTQ_DESC_F_WRITE,
    ]);
  });
});

describe('the device', () => {
  test('takes buffers as they lie in the ring, and writes used ones as they complete [device-2.8.12-1, device-2.8.12-2]', () => {
    const pair = packed({ hasIndirect: false });
    for (const length of [10, 20, 30, 40]) pair.driver.add(segments(BUFFERS, [length]), [], length);
    const elements = [0, 1, 2, 3].map(() => pair.device.pop()!);
    expect(elements.map(({ outBytes }) => outBytes)).toEqual([10, 20, 30, 40]);
    const heads = elements.map(({ head }) => head);
    for (const i of [2, 0, 3, 1]) pair.device.push(elements[i]!, 0);
    expect([0, 1, 2, 3].map((i) => idAt(pair, i))).toEqual([2, 0, 3, 1].map((i) => heads[i]));
    const tokens = [0, 1, 2, 3].map(() => {
      const used = pair.driver.getUsed();
      return used?.kind === 'used' ? used.token : used;
    });
    expect(tokens).toEqual([30, 10, 40, 20]);
  });

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

  test('takes a descriptor only when AVAIL changed [device-2.8.15-2]', () => {
    for (const laps of [0, 1, 2]) {
      const pair = packed({ size: 2, hasIndirect: false });
      for (let i = 0; i < 2 * laps; i += 1) {
        pair.driver.add(segments(BUFFERS, [16]), [], i);
        pair.device.push(pair.device.pop()!, 0);
        pair.driver.getUsed();
      }
      const wrap = laps % 2 === 0;
      const at = pair.driver.ringGpa;
      pair.memory.writeU64Le(at, BigInt(BUFFERS));
      pair.memory.writeU32Le(at + 8, 16);
      for (const isAvail of [false, true]) {
        for (const isUsed of [false, true]) {
          pair.memory.writeU16Le(at + 14, (isAvail ? AVAIL : 0) | (isUsed ? USED : 0));
          const element = pair.device.pop();
          expect(element !== undefined).toBe(isAvail === wrap && isUsed !== wrap);
          if (element !== undefined) pair.device.unpop(element);
        }
      }
    }
  });

  test('changes no descriptor that it marked as used [device-2.8.15-3]', () => {
    const pair = packed({ size: 8, hasIndirect: false });
    for (let i = 0; i < 8; i += 1) pair.driver.add([], segments(BUFFERS, [64]), i);
    const elements = Array.from({ length: 8 }, () => pair.device.pop()!);
    const used: string[] = [];
    for (const i of [3, 1, 7, 0, 2, 6, 5, 4]) {
      pair.device.push(elements[i]!, i);
      used.push(descBytes(pair, used.length, 1));
      expect(used.map((_, place) => descBytes(pair, place, 1))).toEqual(used);
    }
  });

  test('uses the descriptors of a list in their order [device-2.8.18-1]', () => {
    const pair = packed({ hasIndirect: false });
    const out = segments(BUFFERS, [10, 20]);
    const inn = segments(BUFFERS * 2, [30, 40]);
    pair.driver.add(out, inn, 1);
    expect(flagsAt(pair, 0) & VIRTQ_DESC_F_NEXT).toBe(VIRTQ_DESC_F_NEXT);
    const element = pair.device.pop()!;
    expect([...element.gpa.subarray(0, 4)]).toEqual([...out, ...inn].map(({ gpa }) => gpa));
    expect([...element.length.subarray(0, 4)]).toEqual([10, 20, 30, 40]);
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

  test('the driver chains descriptors in ring order [driver-2.7.5.2-2]', () => {
    const pair = createPair({ size: 4, hasInOrder: true, hasIndirect: false });
    for (let round = 0; round < 12; round += 1) {
      expect(pair.driver.add(segments(BUFFERS, [1, 2, 3]), [], round)).toBe('ok');
      const first = (3 * round) % 4;
      for (const i of [0, 1]) {
        const at = pair.driver.ringGpa + 16 * ((first + i) % 4);
        const next = (first + i) % 4 === 3 ? 0 : ((first + i) % 4) + 1;
        expect(pair.memory.readU16Le(at + 12)).toBe(VIRTQ_DESC_F_NEXT);
        expect(pair.memory.readU16Le(at + 14)).toBe(next);
      }
      pair.device.push(pair.device.pop()!, 0);
      expect(pair.driver.getUsed()).toMatchObject({ token: round });
    }
  });

  test('the entries of a table follow each other [driver-2.7.5.3.1-5]', () => {
    const pair = createPair({ hasInOrder: true });
    for (let round = 0; round < 10; round += 1) {
      pair.driver.add(segments(BUFFERS, [1, 2, 3, 4]), [], round);
      const table = Number(pair.memory.readU64Le(pair.driver.ringGpa + 16 * (round % 8)));
      expect([0, 1, 2].map((i) => pair.memory.readU16Le(table + 16 * i + 14))).toEqual([1, 2, 3]);
      pair.device.push(pair.device.pop()!, 0);
      pair.driver.getUsed();
    }
  });
});
