import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { DeviceQueue, Segment, VirtqueueElement } from '../src/index.js';
import { BUFFERS, createPair, type Pair } from './support/pair.js';

/** What a queue is, said simply: buffers go there in order, and come back in any order. */
class NaiveQueue {
  readonly waiting: { token: number; out: readonly Segment[]; inn: readonly Segment[] }[] = [];
  readonly returned: { token: number; length: number }[] = [];
}

const segment = fc.record({
  gpa: fc.integer({ min: BUFFERS, max: BUFFERS + 2 ** 22 }),
  length: fc.oneof(fc.integer({ min: 1, max: 600 }), fc.integer({ min: 1, max: 20_000 })),
});

const step = fc.oneof(
  fc.record({
    kind: fc.constant('add' as const),
    out: fc.array(segment, { maxLength: 4 }),
    inn: fc.array(segment, { maxLength: 4 }),
  }),
  fc.record({ kind: fc.constant('pop' as const) }),
  fc.record({ kind: fc.constant('push' as const), which: fc.nat(), length: fc.nat(0xffff_ffff) }),
  fc.record({ kind: fc.constant('get' as const) }),
  fc.record({ kind: fc.constant('unpop' as const) }),
);

type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

const shape = fc.record({
  size: fc.constantFrom(1, 2, 4, 8, 16, 64),
  hasIndirect: fc.boolean(),
  hasEventIdx: fc.boolean(),
  isBehindIommu: fc.boolean(),
});

/** Takes the indices to just before they wrap. */
function wind(pair: Pair): void {
  const buffer = [{ gpa: BUFFERS, length: 1 }];
  for (let i = 0; i < 65_533; i += 1) {
    pair.driver.add(buffer, [], 0);
    pair.device.push(pair.device.pop()!, 0);
    pair.driver.getUsed();
  }
}

/** The bytes that an element covers, as runs of guest memory. */
function runs(element: VirtqueueElement, from: number, count: number): Segment[] {
  const result: { gpa: number; length: number }[] = [];
  for (let i = from; i < from + count; i += 1) {
    const last = result.at(-1);
    const gpa = element.gpa[i]!;
    if (last !== undefined && last.gpa + last.length === gpa) last.length += element.length[i]!;
    else result.push({ gpa, length: element.length[i]! });
  }
  return result;
}

function joined(segments: readonly Segment[]): Segment[] {
  const result: { gpa: number; length: number }[] = [];
  for (const { gpa, length } of segments) {
    const last = result.at(-1);
    if (last !== undefined && last.gpa + last.length === gpa) last.length += length;
    else result.push({ gpa, length });
  }
  return result;
}

function check(pair: Pair, hasIndirect: boolean, steps: readonly Step[]): void {
  const naive = new NaiveQueue();
  const taken: { element: VirtqueueElement; token: number }[] = [];
  let nextToken = 0;
  let inFlight = 0;
  for (const action of steps) {
    if (action.kind === 'add') {
      const { out, inn } = action;
      const total = out.length + inn.length;
      if (total === 0) continue;
      const free = pair.driver.numFree;
      const result = pair.driver.add(out, inn, nextToken);
      const needed = hasIndirect && total > 1 ? 1 : total;
      expect(result).toBe(free >= needed ? 'ok' : 'ring-full');
      if (result !== 'ok') continue;
      naive.waiting.push({ token: nextToken, out, inn });
      nextToken += 1;
      inFlight += 1;
    } else if (action.kind === 'pop') {
      const element = pair.device.pop();
      const expected = naive.waiting.shift();
      expect(element === undefined).toBe(expected === undefined);
      if (element === undefined || expected === undefined) continue;
      expect(runs(element, 0, element.outNum)).toEqual(joined(expected.out));
      expect(runs(element, element.outNum, element.inNum)).toEqual(joined(expected.inn));
      taken.push({ element, token: expected.token });
    } else if (action.kind === 'push' && taken.length > 0) {
      const [done] = taken.splice(action.which % taken.length, 1);
      pair.device.push(done!.element, action.length);
      naive.returned.push({ token: done!.token, length: action.length });
    } else if (action.kind === 'get') {
      const used = pair.driver.getUsed();
      const expected = naive.returned.shift();
      if (expected === undefined) expect(used).toBeUndefined();
      else {
        expect(used).toMatchObject({ kind: 'used', ...expected });
        inFlight -= 1;
      }
    }
    expect(pair.device.inUse).toBe(taken.length);
    expect(pair.driver.hasUsed()).toBe(naive.returned.length > 0);
  }
  // Everything goes home.
  for (let element = pair.device.pop(); element !== undefined; element = pair.device.pop()) {
    taken.push({ element, token: -1 });
  }
  for (const { element } of taken) pair.device.push(element, 0);
  for (let i = 0; i < inFlight; i += 1) expect(pair.driver.getUsed()).toBeDefined();
  expect(pair.driver.getUsed()).toBeUndefined();
  expect(pair.driver.numFree).toBe(pair.driver.size);
  expect([pair.dma.live.size, pair.dma.badUnmaps, pair.tables.live]).toEqual([0, 0, 0]);
  expect(pair.core.errors).toEqual([]);
}

describe('driver and device agree with a naive queue', () => {
  test('from the start [driver-2.7.4.2-1, device-2.7.4.1-1]', () => {
    fc.assert(
      fc.property(shape, fc.array(step, { maxLength: 80 }), (options, steps) => {
        check(createPair(options), options.hasIndirect, steps);
      }),
      { numRuns: 400 },
    );
  });

  test('where the indices wrap', () => {
    fc.assert(
      fc.property(shape, fc.array(step, { minLength: 20, maxLength: 80 }), (options, steps) => {
        const pair = createPair({ ...options, isBehindIommu: false });
        wind(pair);
        check(pair, options.hasIndirect, steps);
      }),
      { numRuns: 15 },
    );
  });
});

test('an element that was given back is the next one again', () => {
  const pair = createPair();
  for (const token of [1, 2]) pair.driver.add([{ gpa: BUFFERS, length: token }], [], token);
  pair.device.unpop(pair.device.pop()!);
  expect(pair.device.pop()).toMatchObject({ outBytes: 1 });
  expect(pair.device.pop()).toMatchObject({ outBytes: 2 });
});

/**
 * Each side sleeps until the other wakes it. Whatever the order, with suppression in both
 * directions, no wake-up is lost: every buffer comes back.
 */
test('no notification is lost', () => {
  const burst = fc.record({ count: fc.integer({ min: 1, max: 6 }), kicksEach: fc.boolean() });
  fc.assert(
    fc.property(
      shape,
      fc.array(burst, { maxLength: 30 }),
      fc.boolean(),
      (options, bursts, late) => {
        let done = 0;
        let sent = 0;
        const finished: VirtqueueElement[] = [];
        const finish = (queue: DeviceQueue): void => {
          for (const element of finished.splice(0)) {
            queue.push(element, 0);
            pair.core.notifyDriver(0);
          }
        };
        const pair: Pair = createPair({
          ...options,
          handleOutput(queue) {
            do {
              queue.setNotification(false);
              for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
                finished.push(element);
              }
              queue.setNotification(true);
            } while (!queue.isEmpty());
            if (!late) finish(queue);
          },
        });
        pair.core.onInterrupt((cause) => {
          if (cause !== 'queue' || !pair.driver.noteInterrupt()) return;
          do {
            pair.driver.disableCallbacks();
            while (pair.driver.getUsed() !== undefined) done += 1;
          } while (!pair.driver.enableCallbacks());
        });
        for (const { count, kicksEach } of bursts) {
          for (let i = 0; i < count; i += 1) {
            const result = pair.driver.add([{ gpa: BUFFERS, length: 16 }], [], i);
            if (result === 'ok') sent += 1;
            if (kicksEach) pair.driver.kick();
          }
          pair.driver.kick();
          if (late) finish(pair.device);
        }
        expect(done).toBe(sent);
      },
    ),
    { numRuns: 300 },
  );
});
