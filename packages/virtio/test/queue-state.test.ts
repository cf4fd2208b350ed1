import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  createDeviceQueue,
  type DeviceQueue,
  type DeviceQueueState,
  type ElementState,
  featureBits,
  VIRTIO_F_IN_ORDER,
  VIRTIO_RING_F_EVENT_IDX,
} from '../src/index.js';
import { BUFFERS, createPair, type Pair, type PairOptions, segments } from './support/pair.js';

const SIZE = 8;

/** Another device's queue over the same memory, with the same features. */
function another(
  pair: Pair,
  { isPacked = false, hasInOrder, hasEventIdx }: PairOptions,
): DeviceQueue {
  const { memory, space, core } = pair;
  const queue = createDeviceQueue(isPacked, { owner: core, id: 'q', maxSize: SIZE, memory, space });
  queue.setFeatures(
    featureBits(
      ...(hasInOrder === true ? [VIRTIO_F_IN_ORDER] : []),
      ...(hasEventIdx === false ? [] : [VIRTIO_RING_F_EVENT_IDX]),
    ),
  );
  return queue;
}

/** Through a file and back. */
function asFile<T>(state: T): T {
  return JSON.parse(JSON.stringify(state)) as T;
}

test('a queue that is saved between any two steps goes on as if nothing had happened', () => {
  const shape = fc.record({
    isPacked: fc.boolean(),
    hasInOrder: fc.boolean(),
    hasEventIdx: fc.boolean(),
    isBehindIommu: fc.boolean(),
  });
  const steps = fc.array(fc.constantFrom('add', 'pop', 'push', 'get', 'save', 'quiet'), {
    maxLength: 60,
  });
  fc.assert(
    fc.property(shape, steps, fc.infiniteStream(fc.nat(7)), (options, kinds, choice) => {
      const pair = createPair({ ...options, size: SIZE });
      let device = pair.device;
      let taken: ReturnType<DeviceQueue['pop']>[] = [];
      let added = 0;
      let back = 0;
      for (const kind of kinds) {
        const which = choice.next().value as number;
        if (kind === 'add') {
          const out = segments(BUFFERS, new Array<number>(1 + (which % 3)).fill(4 + which));
          if (pair.driver.add(out, [], added) === 'ok') added += 1;
        } else if (kind === 'pop') {
          const element = device.pop();
          if (element !== undefined) taken.push(element);
        } else if (kind === 'push') {
          const [element] = taken.splice(which % Math.max(taken.length, 1), 1);
          if (element === undefined) continue;
          device.push(element, which);
          device.shouldNotify();
        } else if (kind === 'get') {
          if (pair.driver.getUsed() !== undefined) back += 1;
        } else if (kind === 'quiet') {
          device.setNotification(which % 2 === 0);
        } else {
          const state = asFile(device.save());
          const elements = asFile(taken.map((element) => device.saveElement(element!)));
          const next = another(pair, options);
          next.restore(state);
          const restored = elements.map((element) => next.restoreElement(element)!);
          expect(next.save()).toEqual(state);
          restored.forEach((element, i) => {
            const count = element.outNum + element.inNum;
            const was = taken[i]!;
            expect(element).toMatchObject({ head: was.head, ndescs: was.ndescs });
            expect([...element.gpa.subarray(0, count)]).toEqual([...was.gpa.subarray(0, count)]);
            expect(next.saveElement(element)).toEqual(elements[i]);
          });
          taken = restored;
          device = next;
        }
      }
      for (let more = device.pop(); more !== undefined; more = device.pop()) taken.push(more);
      for (const element of taken) device.push(element!, 0);
      while (pair.driver.getUsed() !== undefined) back += 1;
      expect(back).toBe(added);
      expect([pair.core.errors, device.inUse]).toEqual([[], 0]);
    }),
    { numRuns: 300 },
  );
});

test('a queue without addresses comes back without addresses', () => {
  const pair = createPair({ size: SIZE });
  pair.core.writeStatus(0);
  const state = asFile(pair.device.save());
  expect(state).not.toHaveProperty('rings');
  const queue = another(pair, {});
  queue.restore(state);
  expect([queue.isConfigured, queue.size, queue.pop()]).toEqual([false, SIZE, undefined]);
});

describe('a state that no queue can be in is refused, and changes nothing', () => {
  const split: DeviceQueueState = {
    layout: 'split',
    size: SIZE,
    rings: { desc: '0x10000', avail: '0x20000', used: '0x30000' },
    lastAvailIdx: 5,
    usedIdx: 3,
    inUse: 2,
    isNotificationOn: true,
  };
  const packed: DeviceQueueState = {
    ...split,
    layout: 'packed',
    lastAvailWrapCounter: 1,
    usedWrapCounter: 1,
  };
  const { rings: _, ...withoutRings } = split;
  const rows: [what: string, state: DeviceQueueState][] = [
    ['another layout', { ...packed, layout: 'split', lastAvailIdx: 70_000 }],
    ['size 0', { ...split, size: 0 }],
    ['a size beyond 1024', { ...split, size: 2048 }],
    ['an index beyond 16 bits', { ...split, usedIdx: 65_536 }],
    ['an index and no addresses', withoutRings],
    ['more in flight than the ring has', { ...split, lastAvailIdx: 12 }],
    ['a used index before the available index', { ...split, usedIdx: 6 }],
    ['more in flight than were taken', { ...split, inUse: 3 }],
    ['fewer than none in flight', { ...split, inUse: -1 }],
    ['packed: an index beyond the ring', { ...packed, lastAvailIdx: 8 }],
    ['packed: a used index ahead in the same lap', { ...packed, usedIdx: 6 }],
    ['packed: a lap too far', { ...packed, usedWrapCounter: 0 }],
  ];
  test.each(rows)('%s', (_what, state) => {
    const pair = createPair({ size: SIZE, isPacked: state.layout === 'packed' });
    const before = pair.device.save();
    expect(() => pair.device.restore(state)).toThrow(
      expect.objectContaining({ code: 'E_QUEUE_STATE' }),
    );
    expect(pair.device.save()).toEqual(before);
  });

  test('of the other layout', () => {
    expect(() => createPair({ size: SIZE }).device.restore(packed)).toThrow(/packed/);
  });

  test('with IN_ORDER, a row that does not add up', () => {
    const pair = createPair({ size: SIZE, hasInOrder: true });
    const one = { head: 0, ndescs: 1 };
    const tooMany = { ...split, row: [one, one, one] };
    expect(() => pair.device.restore(tooMany)).toThrow(/found one of 3/);
    pair.device.restore({ ...split, row: [one, one] });
    expect(pair.device.inUse).toBe(2);
  });

  test('an element that is not in flight', () => {
    const pair = createPair({ size: SIZE });
    const element: ElementState = { head: 0, ndescs: 1, place: 0, out: [], in: [] };
    expect(() => pair.device.restoreElement(element)).toThrow(
      expect.objectContaining({ code: 'E_QUEUE_STATE' }),
    );
  });
});

test('the guest moved its index too far while nobody looked: the device is broken, as in QEMU', () => {
  const pair = createPair({ size: SIZE });
  const state = pair.device.save();
  pair.memory.writeU16Le(pair.driver.ringGpa + pair.driver.layout.avail + 2, 100);
  pair.device.restore(state);
  expect(pair.core.errors[0]).toMatch(/Guest index 0x64 inconsistent with Host index 0x0/);
});

test('a mapping that went away breaks the device; nothing stays mapped', () => {
  const pair = createPair({ size: SIZE, isBehindIommu: true });
  pair.driver.add(segments(BUFFERS, [16, 16]), [], 1);
  const element = asFile(pair.device.saveElement(pair.device.pop()!));
  const state = asFile(pair.device.save());
  pair.iommu.clear(Number(element.out[1]!.address));
  const queue = another(pair, {});
  queue.restore(state);
  expect(queue.restoreElement(element)).toBeUndefined();
  expect(pair.core.errors).toEqual(['virtio: error trying to map MMIO memory']);
});
