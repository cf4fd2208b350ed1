import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { VirtqueueElement } from '../src/index.js';
import { BUFFERS, createPair, type Pair, type PairOptions } from './support/pair.js';

/**
 * One side of a queue as a thread with few instructions: it goes through its work step by step, and
 * may be stopped between any two of them while the other side goes on. `sleep` is over when the
 * other side notified; a notification that comes earlier is remembered.
 */
class Side {
  isAwake = false;
  steps = 0;
  readonly #run: Generator<'step' | 'sleep'>;

  constructor(run: Generator<'step' | 'sleep'>) {
    this.#run = run;
    this.#run.next();
  }

  wake(): void {
    this.isAwake = true;
  }

  step(): void {
    if (!this.isAwake) return;
    this.steps += 1;
    if (this.#run.next().value === 'sleep') this.isAwake = false;
  }
}

interface World {
  readonly pair: Pair;
  readonly device: Side;
  readonly driver: Side;
  /** The application has `count` more buffers to send. */
  send(count: number): void;
  sent(): number;
  done(): number;
}

function world(options: PairOptions, batch: number, sideOfDevice: 'quiet' | 'plain'): World {
  const pair = createPair(options);
  let wanted = 0;
  let sent = 0;
  let done = 0;
  let driver: Side;
  let device: Side;
  // What woke a side before it sleeps keeps it awake.
  const calls = { kick: 0, interrupt: 0 };

  function* deviceWork(): Generator<'step' | 'sleep'> {
    yield 'sleep';
    for (;;) {
      const seen = calls.kick;
      do {
        if (sideOfDevice === 'quiet') pair.device.setNotification(false);
        yield 'step';
        for (;;) {
          const taken: VirtqueueElement[] = [];
          for (let i = 0; i < batch; i += 1) {
            const element = pair.device.pop();
            yield 'step';
            if (element === undefined) break;
            taken.push(element);
          }
          if (taken.length === 0) break;
          for (const element of taken) {
            pair.device.push(element, 0);
            yield 'step';
          }
          const isWanted = pair.device.shouldNotify();
          yield 'step';
          if (isWanted) {
            calls.interrupt += 1;
            driver.wake();
          }
        }
        pair.device.setNotification(true);
        yield 'step';
      } while (!pair.device.isEmpty());
      if (seen === calls.kick) yield 'sleep';
      else yield 'step';
    }
  }

  function* driverWork(): Generator<'step' | 'sleep'> {
    yield 'sleep';
    for (;;) {
      const seen = calls.interrupt;
      do {
        pair.driver.noteInterrupt();
        pair.driver.disableCallbacks();
        yield 'step';
        while (pair.driver.getUsed() !== undefined) {
          done += 1;
          yield 'step';
        }
        // What comes back here comes without an interrupt.
        yield 'step';
      } while (!pair.driver.enableCallbacks());
      yield 'step';
      while (sent < wanted) {
        const before = sent;
        for (let i = 0; i < batch && sent < wanted; i += 1) {
          const pieces = Array.from({ length: 1 + (sent % 2) }, () => ({
            gpa: BUFFERS,
            length: 8,
          }));
          if (pair.driver.add(pieces, [], sent) !== 'ok') break;
          sent += 1;
          yield 'step';
        }
        if (sent === before) break;
        const isWanted = pair.driver.kickPrepare();
        yield 'step';
        if (isWanted) {
          calls.kick += 1;
          device.wake();
        }
      }
      if (seen === calls.interrupt) yield 'sleep';
      else yield 'step';
    }
  }

  device = new Side(deviceWork());
  driver = new Side(driverWork());
  return {
    pair,
    device,
    driver,
    send(count) {
      wanted += count;
      calls.interrupt += 1;
      driver.wake();
    },
    sent: () => sent,
    done: () => done,
  };
}

const options = fc.record({
  size: fc.constantFrom(2, 4, 8),
  hasEventIdx: fc.boolean(),
  isPacked: fc.boolean(),
  hasIndirect: fc.boolean(),
  hasInOrder: fc.boolean(),
});

/**
 * "notifications are not lost": whenever both sides sleep, there is nothing to do: each buffer that
 * was sent is back, and as many were sent as found room. [VIRTIO v1.2 §2.7.7, §2.7.10, §2.8.10]
 */
test('driver and device, interleaved at any step, are never both asleep with work pending', () => {
  fc.assert(
    fc.property(
      options,
      fc.integer({ min: 1, max: 3 }),
      fc.constantFrom('quiet' as const, 'plain' as const),
      fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 50, maxLength: 400 }),
      (pairOptions, batch, kind, schedule) => {
        const { pair, device, driver, send, sent, done } = world(pairOptions, batch, kind);
        let wanted = 0;
        const settle = (): void => {
          for (let i = 0; driver.isAwake || device.isAwake; i += 1) {
            if (i > 10_000) throw new Error('a side never sleeps');
            device.step();
            driver.step();
          }
          expect([sent(), done()]).toEqual([wanted, wanted]);
        };
        for (const choice of schedule) {
          if (choice === 0) {
            wanted += 3;
            send(3);
          } else if (choice <= 5) driver.step();
          else device.step();
          if (!driver.isAwake && !device.isAwake) settle();
        }
        settle();
        expect(pair.core.errors).toEqual([]);
      },
    ),
    { numRuns: 300 },
  );
});
