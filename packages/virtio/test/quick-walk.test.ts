import { NO_TRACE } from '@pinhole/base';
import {
  createGuestMemory,
  createSystemMemorySpace,
  type GuestMemory,
  type SparseMemory,
} from '@pinhole/memory';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  createDeviceQueue,
  type DeviceQueue,
  featureBit,
  splitRingLayout,
  VIRTIO_RING_F_EVENT_IDX,
} from '../src/index.js';
import { WatchedMemory } from './support/watched-memory.js';

const MEMORY = 0x2_0000;
const RING = 0x1_0000;
const TABLE = 0x1_4000;
const LAYOUT = splitRingLayout(8, 4);

/** A device over memory that it may reach where it lies, or only access by access. */
function device(isQuick: boolean, isPacked: boolean, offset: number): Side {
  const memory = createGuestMemory({ regions: [{ base: 0, size: MEMORY }] });
  // The driver has written to its ring.
  memory.fill(RING, 0x5000, 1);
  memory.fill(RING, 0x5000, 0);
  const seen: GuestMemory = isQuick ? memory : new WatchedMemory(memory);
  const errors: string[] = [];
  const owner = {
    get isBroken(): boolean {
      return errors.length > 0;
    },
    tracer: NO_TRACE,
    fail(message: string): void {
      errors.push(message);
    },
  };
  const space = createSystemMemorySpace(seen);
  const queue = createDeviceQueue(isPacked, { owner, id: 'q', maxSize: 8, memory: seen, space });
  queue.setFeatures(featureBit(VIRTIO_RING_F_EVENT_IDX));
  const at = RING + offset;
  queue.configure({
    size: 8,
    desc: BigInt(at),
    avail: BigInt(at + LAYOUT.avail),
    used: BigInt(at + LAYOUT.used),
  });
  return { memory, queue, errors };
}

interface Side {
  readonly memory: SparseMemory;
  readonly queue: DeviceQueue;
  readonly errors: string[];
}

const descriptor = fc.record({
  addr: fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom(0x100, TABLE, TABLE + 16, TABLE + 6, MEMORY - 8) },
    { weight: 1, arbitrary: fc.integer({ min: 0, max: 2 ** 53 - 1 }) },
  ),
  len: fc.oneof(fc.constantFrom(16, 32, 48), fc.nat(100)),
  // Of the split layout: flags and next; of the packed one: id and flags, available in the first lap.
  flags: fc.nat(7),
  next: fc.oneof({ weight: 8, arbitrary: fc.nat(7) }, { weight: 1, arbitrary: fc.nat(0xffff) }),
});

type Desc = typeof descriptor extends fc.Arbitrary<infer T> ? T : never;

function write(side: Side, at: number, descs: readonly Desc[], isPacked: boolean): void {
  descs.forEach(({ addr, len, flags, next }, i) => {
    side.memory.writeU64Le(at + 16 * i, BigInt(addr));
    side.memory.writeU32Le(at + 16 * i + 8, len);
    side.memory.writeU16Le(at + 16 * i + 12, isPacked ? next : flags);
    side.memory.writeU16Le(at + 16 * i + 14, isPacked ? flags | 0x80 : next);
  });
}

test('chains that are walked quickly are those that are walked step by step, good and bad', () => {
  const eight = { minLength: 8, maxLength: 8 };
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.constantFrom(0, 0, 0, 2),
      fc.array(descriptor, eight),
      fc.array(descriptor, eight),
      fc.array(fc.nat(7), eight),
      (isPacked, offset, ring, table, heads) => {
        const [quick, slow] = [true, false].map((isQuick) => {
          const side = device(isQuick, isPacked, offset);
          write(side, RING + offset, ring, isPacked);
          write(side, TABLE, table, isPacked);
          if (!isPacked) {
            const avail = RING + offset + LAYOUT.avail;
            heads.forEach((head, i) => {
              side.memory.writeU16Le(avail + 4 + 2 * i, head);
            });
            side.memory.writeU16Le(avail + 2, 8);
          }
          const taken = [];
          for (let e = side.queue.pop(); e !== undefined; e = side.queue.pop()) {
            const { head, ndescs, outNum, inNum } = e;
            const count = outNum + inNum;
            const segments = [...e.gpa.subarray(0, count), ...e.length.subarray(0, count)];
            taken.push({ head, ndescs, outNum, inNum, segments, state: side.queue.saveElement(e) });
            side.queue.push(e, count);
          }
          const bytes = new Uint8Array(0x200);
          side.memory.read(RING, bytes);
          return { taken, errors: side.errors, bytes: [...bytes] };
        });
        expect(quick).toEqual(slow);
      },
    ),
    { numRuns: 1000 },
  );
});
