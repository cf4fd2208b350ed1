import { DmaAccess } from '@pinhole/memory';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  createDriverQueue,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_SIZE,
} from '../../src/index.js';
import { BUFFERS, createPair, type Pair, segments } from '../support/pair.js';
import { physicalDma } from '../support/space.js';

const availFlags = (pair: Pair): number =>
  pair.memory.readU16Le(pair.driver.ringGpa + pair.driver.layout.avail);
const usedFlags = (pair: Pair): number =>
  pair.memory.readU16Le(pair.driver.ringGpa + pair.driver.layout.used);

/** The descriptors of the chain at `head`, and of its table, as bytes. */
function chainBytes(pair: Pair, head: number): string {
  const { memory, driver } = pair;
  const bytes: number[] = [];
  const read = (at: number, length: number): void => {
    const into = new Uint8Array(length);
    memory.read(at, into);
    bytes.push(...into);
  };
  for (let index = head, steps = 0; steps <= driver.size; steps += 1) {
    const at = driver.ringGpa + VIRTQ_DESC_SIZE * index;
    read(at, VIRTQ_DESC_SIZE);
    const flags = memory.readU16Le(at + 12);
    if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0) {
      read(Number(memory.readU64Le(at)), memory.readU32Le(at + 8));
    }
    if ((flags & VIRTQ_DESC_F_NEXT) === 0) return bytes.join(' ');
    index = memory.readU16Le(at + 14);
  }
  throw new Error('the chain has no end');
}

describe('the driver', () => {
  test('without EVENT_IDX does not look at avail_event [driver-2.7.10.1-2]', () => {
    for (const event of [0, 1, 0x7fff, 0xffff]) {
      const pair = createPair({ hasEventIdx: false });
      for (let i = 0; i < 4; i += 1) {
        pair.memory.writeU16Le(pair.driver.ringGpa + pair.driver.layout.availEvent, event);
        pair.driver.add(segments(BUFFERS, [16]), [], i);
        expect(pair.driver.kickPrepare()).toBe(true);
      }
    }
  });

  test('puts no INDIRECT into an indirect table [driver-2.7.5.3.1-2]', () => {
    const pair = createPair();
    pair.driver.add(segments(BUFFERS, [1, 2, 3, 4]), segments(BUFFERS * 2, [5, 6]), 1);
    const ring = pair.driver.ringGpa;
    expect(pair.memory.readU16Le(ring + 12) & VIRTQ_DESC_F_INDIRECT).not.toBe(0);
    const table = Number(pair.memory.readU64Le(ring));
    const flags = [0, 1, 2, 3, 4, 5].map((i) => pair.memory.readU16Le(table + 16 * i + 12));
    expect(flags).toEqual([1, 1, 1, 1, 3, 2]);
  });

  test('does not touch the entries of buffers that the device has [driver-3.3.1-1]', () => {
    const step = fc.record({
      kind: fc.constantFrom('add', 'add', 'use', 'get'),
      count: fc.integer({ min: 1, max: 4 }),
      which: fc.nat(),
    });
    fc.assert(
      fc.property(fc.boolean(), fc.array(step, { maxLength: 60 }), (hasIndirect, steps) => {
        const pair = createPair({ size: 16, hasIndirect });
        const { driver, device, memory } = pair;
        const avail = driver.ringGpa + driver.layout.avail;
        const exposed = new Map<number, string>();
        const entries = new Map<number, number>();
        const taken: NonNullable<ReturnType<typeof device.pop>>[] = [];
        let added = 0;
        for (const { kind, count, which } of steps) {
          if (kind === 'add') {
            const lengths = Array.from({ length: count }, () => 16);
            if (driver.add(segments(BUFFERS, lengths), [], added) === 'ok') {
              const head = memory.readU16Le(avail + 4 + 2 * (added % driver.size));
              exposed.set(head, chainBytes(pair, head));
              entries.set(added % driver.size, head);
              added += 1;
            }
          } else if (kind === 'use') {
            const element = device.pop();
            if (element !== undefined) taken.push(element);
            const [done] = taken.splice(which % Math.max(taken.length, 1), 1);
            if (done !== undefined) {
              exposed.delete(done.head);
              for (const [at, head] of entries) if (head === done.head) entries.delete(at);
              device.push(done, 0);
            }
          } else driver.getUsed();
          for (const [head, bytes] of exposed) expect(chainBytes(pair, head)).toBe(bytes);
          for (const [at, head] of entries) expect(memory.readU16Le(avail + 4 + 2 * at)).toBe(head);
        }
      }),
      { numRuns: 100 },
    );
  });
});

describe('the device', () => {
  test('reaches what is readable for reading only, and what is writable for writing only [device-2.7.5.1-1]', () => {
    const pair = createPair({ isBehindIommu: true });
    pair.driver.add(segments(BUFFERS, [16, 4096]), segments(BUFFERS * 2, [512, 1]), 1);
    const buffers = [...pair.dma.live].filter(([, what]) => !what.includes(' 64 '));
    pair.iommu.log.length = 0;
    pair.device.push(pair.device.pop()!, 513);
    const accesses = buffers.map(([bus]) =>
      pair.iommu.log.filter(({ address }) => address === bus).map(({ access }) => access),
    );
    expect(accesses).toEqual([
      [DmaAccess.READ],
      [DmaAccess.READ],
      [DmaAccess.WRITE],
      [DmaAccess.WRITE],
    ]);
  });

  test('without EVENT_IDX sets the flags of the used ring to 0 or 1 [device-2.7.10.2-1]', () => {
    const pair = createPair({ hasEventIdx: false });
    const seen = [usedFlags(pair)];
    for (const isOn of [false, false, true, true, false]) {
      pair.device.setNotification(isOn);
      seen.push(usedFlags(pair));
    }
    expect(seen).toEqual([0, 1, 1, 0, 0, 1]);
    expect(availFlags(pair)).toBe(0);
  });
});

describe('a queue that is reset', () => {
  /** Two buffers wait, one of them was taken. */
  function atWork(): Pair {
    const pair = createPair();
    for (const token of [1, 2]) pair.driver.add(segments(BUFFERS, [16]), [], token);
    pair.device.pop();
    pair.device.setNotification(false);
    return pair;
  }

  test('is back at its start [device-2.6.1.1.1-2]', () => {
    const pair = atWork();
    pair.core.resetQueue(0);
    const { size, maxSize, isConfigured, inUse, lastAvailIdx, usedIdx, isNotificationOn } =
      pair.device;
    expect({ size, isConfigured, inUse, lastAvailIdx, usedIdx, isNotificationOn }).toEqual({
      size: maxSize,
      isConfigured: false,
      inUse: 0,
      lastAvailIdx: 0,
      usedIdx: 0,
      isNotificationOn: true,
    });
  });

  test('takes up what the driver then gives: another size, another place [device-2.6.1.2.1-1]', () => {
    const pair = atWork();
    pair.core.resetQueue(0);
    const again = createDriverQueue<number>({
      memory: pair.memory,
      dma: physicalDma(pair.heap),
      tables: pair.tables,
      size: 4,
      layoutAlign: 128,
      hasIndirect: true,
      hasEventIdx: true,
    })!;
    pair.core.setupQueue(0, again.setup);
    expect(pair.device.size).toBe(4);
    for (let i = 0; i < 10; i += 1) {
      expect(again.add(segments(BUFFERS, [i + 1]), [], i)).toBe('ok');
      const element = pair.device.pop()!;
      expect(element.outBytes).toBe(i + 1);
      pair.device.push(element, 0);
      expect(again.getUsed()).toMatchObject({ token: i });
    }
  });
});
