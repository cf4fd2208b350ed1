import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { DeviceQueue, Segment, VirtqueueElement } from '../src/index.js';
import { BUFFERS, createPair, type Pair } from './support/pair.js';

/** What a queue is, said simply: buffers go there in order, and come back in any order. */
class NaiveQueue {
  readonly waiting: { token: number; out: readonly Segment[]; inn: readonly Segment[] }[] = [];
  /** With IN_ORDER: taken, and not returned yet; finished once there is a length. */
  readonly row: { token: number; length?: number }[] = [];
  readonly returned: { token: number; length: number }[] = [];

  /** With IN_ORDER: what is finished and has no unfinished buffer before it goes back. */
  returnInOrder(): void {
    while (this.row[0]?.length !== undefined) {
      this.returned.push(this.row.shift() as { token: number; length: number });
    }
  }
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

const features = {
  hasIndirect: fc.boolean(),
  hasEventIdx: fc.boolean(),
  hasInOrder: fc.boolean(),
  isBehindIommu: fc.boolean(),
};

const shape = fc.oneof(
  fc.record({
    isPacked: fc.constant(false),
    size: fc.constantFrom(1, 2, 4, 8, 16, 64),
    ...features,
  }),
  fc.record({
    isPacked: fc.constant(true),
    size: fc.constantFrom(1, 2, 3, 5, 8, 13, 64),
    ...features,
  }),
);

type Shape = typeof shape extends fc.Arbitrary<infer T> ? T : never;

/** Takes the indices to just before they wrap. */
function wind(pair: Pair, laps: number): void {
  const buffer = [{ gpa: BUFFERS, length: 1 }];
  for (let i = 0; i < laps; i += 1) {
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

function check(pair: Pair, options: Shape, steps: readonly Step[]): void {
  const { hasIndirect, hasInOrder, isPacked } = options;
  const naive = new NaiveQueue();
  const taken: { element: VirtqueueElement; token: number }[] = [];
  let nextToken = 0;
  let inFlight = 0;
  // Descriptors of the buffers that the device has; in a split ring a buffer counts as one.
  let inUse = 0;
  const ndescs = new Map<number, number>();
  const sent = new Map<number, (typeof naive.waiting)[number]>();
  let lastPopped = -1;
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
      sent.set(nextToken, { token: nextToken, out, inn });
      ndescs.set(nextToken, isPacked ? needed : 1);
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
      lastPopped = expected.token;
      inUse += ndescs.get(expected.token)!;
      if (hasInOrder) naive.row.push({ token: expected.token });
    } else if (action.kind === 'push' && taken.length > 0) {
      const [done] = taken.splice(action.which % taken.length, 1);
      pair.device.push(done!.element, action.length);
      const { token } = done!;
      const before = naive.returned.length;
      if (hasInOrder) {
        naive.row.find((buffer) => buffer.token === token)!.length = action.length;
        naive.returnInOrder();
      } else {
        naive.returned.push({ token, length: action.length });
      }
      for (const back of naive.returned.slice(before)) inUse -= ndescs.get(back.token)!;
    } else if (action.kind === 'unpop' && taken.length > 0) {
      // Only what was taken last can be put back.
      const last = taken.at(-1)!;
      if (last.token !== lastPopped) continue;
      taken.pop();
      pair.device.unpop(last.element);
      if (hasInOrder) naive.row.pop();
      naive.waiting.unshift(sent.get(last.token)!);
      inUse -= ndescs.get(last.token)!;
      lastPopped = -1;
    } else if (action.kind === 'get') {
      const used = pair.driver.getUsed();
      const expected = naive.returned.shift();
      if (expected === undefined) expect(used).toBeUndefined();
      else {
        expect(used).toMatchObject({ kind: 'used', ...expected });
        inFlight -= 1;
      }
    }
    expect(pair.device.inUse).toBe(inUse);
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
        check(createPair(options), options, steps);
      }),
      { numRuns: 400 },
    );
  });

  test('where the indices wrap', () => {
    fc.assert(
      fc.property(shape, fc.array(step, { minLength: 20, maxLength: 80 }), (options, steps) => {
        const pair = createPair({ ...options, isBehindIommu: false });
        // A packed ring has no indices that run freely: one lap less one.
        wind(pair, options.isPacked ? 2 * options.size - 1 : 65_533);
        check(pair, options, steps);
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
