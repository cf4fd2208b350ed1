import { describe, expect, test } from 'vitest';
import {
  type DeviceQueue,
  splitRingLayout,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_USED_F_NO_NOTIFY,
  vringNeedEvent,
} from '../src/index.js';
import { BUFFERS, createPair, type Pair, segments } from './support/pair.js';

/** The whole of one buffer's journey. */
function roundTrip(pair: Pair, out: readonly number[], inn: readonly number[], written = 0): void {
  expect(pair.driver.add(segments(BUFFERS, out), segments(BUFFERS * 2, inn), 7)).toBe('ok');
  const element = pair.device.pop()!;
  pair.device.push(element, written);
}

function descriptor(
  pair: Pair,
  index: number,
): { addr: number; len: number; flags: number; next: number } {
  const at = pair.driver.ringGpa + 16 * index;
  const { memory } = pair;
  return {
    addr: Number(memory.readU64Le(at)),
    len: memory.readU32Le(at + 8),
    flags: memory.readU16Le(at + 12),
    next: memory.readU16Le(at + 14),
  };
}

const availAt = (pair: Pair, offset: number): number =>
  pair.memory.readU16Le(pair.driver.ringGpa + pair.driver.layout.avail + offset);
const usedAt = (pair: Pair, offset: number): number =>
  pair.memory.readU16Le(pair.driver.ringGpa + pair.driver.layout.used + offset);

describe('VIRTIO v1.2 §2.7 "Split Virtqueues"', () => {
  test('§2.7: Descriptor Table 16 * (Queue Size), Available Ring 6 + 2 * (Queue Size), Used Ring 6 + 8 * (Queue Size)', () => {
    for (let size = 1; size <= 32_768; size *= 2) {
      const layout = splitRingLayout(size, 4);
      expect(layout.avail - layout.desc).toBe(16 * size);
      expect(layout.usedEvent + 2 - layout.avail).toBe(6 + 2 * size);
      expect(layout.total - layout.used).toBe(6 + 8 * size);
    }
  });

  test('§2.7: "Queue Size value is always a power of 2. The maximum Queue Size value is 32768."', () => {
    for (const size of [0, 3, 65_536, -8, 1.5, Number.NaN]) {
      expect(() => splitRingLayout(size, 4)).toThrow(
        expect.objectContaining({ code: 'E_QUEUE_SIZE' }),
      );
    }
  });

  test('§2.7.1: "The driver MUST ensure that the physical address of the first byte of each virtqueue part is a multiple of the specified alignment value" [driver-2.7.1-1]', () => {
    for (let size = 1; size <= 1024; size *= 2) {
      const { setup } = createPair({ size }).driver;
      expect([setup.desc % 16n, setup.avail % 2n, setup.used % 4n]).toEqual([0n, 0n, 0n]);
    }
  });
});

describe('VIRTIO v1.2 §2.7.5 "The Virtqueue Descriptor Table"', () => {
  test('§2.7.5.1: "A device MUST NOT write to any descriptor table entry." [device-2.7.5.1-2]', () => {
    const pair = createPair();
    expect(pair.driver.add(segments(BUFFERS, [16]), segments(BUFFERS * 2, [512]), 1)).toBe('ok');
    const before = new Uint8Array(16 * 8);
    pair.memory.read(pair.driver.ringGpa, before);
    pair.device.push(pair.device.pop()!, 512);
    const after = new Uint8Array(16 * 8);
    pair.memory.read(pair.driver.ringGpa, after);
    expect(after).toEqual(before);
  });

  test('§2.7.5.3.1: "The driver MUST NOT set the VIRTQ_DESC_F_INDIRECT flag unless the VIRTIO_F_INDIRECT_DESC feature was negotiated." [driver-2.7.5.3.1-1]', () => {
    const pair = createPair({ hasIndirect: false });
    roundTrip(pair, [16, 512], [1]);
    expect([0, 1, 2].map((i) => descriptor(pair, i).flags)).toEqual([
      VIRTQ_DESC_F_NEXT,
      VIRTQ_DESC_F_NEXT,
      VIRTQ_DESC_F_WRITE,
    ]);
  });

  test('§2.7.5.3.1: "A driver MUST NOT set both VIRTQ_DESC_F_INDIRECT and VIRTQ_DESC_F_NEXT in flags." [driver-2.7.5.3.1-4]', () => {
    const pair = createPair();
    roundTrip(pair, [16, 512], [1]);
    expect(descriptor(pair, 0)).toMatchObject({ flags: VIRTQ_DESC_F_INDIRECT, len: 48 });
  });

  test('§2.7.5.3.1: "A driver MUST NOT create a descriptor chain longer than the Queue Size of the device."', () => {
    const pair = createPair({ size: 4, hasIndirect: false });
    expect(pair.driver.add(segments(BUFFERS, [1, 1, 1, 1, 1]), [], 1)).toBe('ring-full');
    expect(pair.driver.add(segments(BUFFERS, [1, 1, 1, 1]), [], 1)).toBe('ok');
  });

  test('§2.7.5.3.1, deviation as Linux and QEMU: an indirect table may be longer than the queue', () => {
    const pair = createPair({ size: 4 });
    expect(pair.driver.add(segments(BUFFERS, [1, 1, 1, 1, 1]), [], 1)).toBe('ok');
    expect(pair.device.pop()).toMatchObject({ outNum: 5 });
  });

  test('§2.7.5.3.2: "The device MUST ignore the write-only flag in the descriptor that refers to an indirect table." [device-2.7.5.3.2-1]', () => {
    const pair = createPair();
    pair.driver.add(segments(BUFFERS, [16]), segments(BUFFERS * 2, [512]), 1);
    pair.memory.writeU16Le(pair.driver.ringGpa + 12, VIRTQ_DESC_F_INDIRECT | VIRTQ_DESC_F_WRITE);
    expect(pair.device.pop()).toMatchObject({ outNum: 1, inNum: 1 });
  });

  test('§2.7.5.3.2, deviation as QEMU: of normal descriptors followed by an indirect one, the device takes the table for a buffer', () => {
    const pair = createPair({ hasIndirect: false });
    pair.driver.add(segments(BUFFERS, [16, 48]), [], 1);
    pair.memory.writeU16Le(pair.driver.ringGpa + 16 + 12, VIRTQ_DESC_F_INDIRECT);
    expect(pair.device.pop()).toMatchObject({ outNum: 2, outBytes: 64 });
  });
});

describe('VIRTIO v1.2 §2.7.6 "The Virtqueue Available Ring"', () => {
  test('§2.7.6: "idx field indicates where the driver would put the next descriptor entry in the ring (modulo the queue size). This starts at 0, and increases."', () => {
    const pair = createPair({ size: 2 });
    for (let i = 1; i <= 5; i += 1) {
      expect(availAt(pair, 2)).toBe(i - 1);
      roundTrip(pair, [16], []);
      pair.driver.getUsed();
    }
    expect(availAt(pair, 2)).toBe(5);
  });

  test('§2.7.13.3: "idx always increments, and wraps naturally at 65536" [driver-2.7.6.1-1]', () => {
    const pair = createPair({ size: 4 });
    const buffer = segments(BUFFERS, [16]);
    for (let i = 0; i < 65_540; i += 1) {
      expect(pair.driver.add(buffer, [], i)).toBe('ok');
      pair.device.push(pair.device.pop()!, 0);
      expect(pair.driver.getUsed()).toMatchObject({ token: i });
    }
    expect(availAt(pair, 2)).toBe(4);
    expect(usedAt(pair, 2)).toBe(4);
    expect(pair.device.lastAvailIdx).toBe(4);
  });
});

describe('VIRTIO v1.2 §2.7.7 "Used Buffer Notification Suppression"', () => {
  test('§2.7.7.1, without EVENT_IDX: "The driver MUST set flags to 0 or 1." [driver-2.7.7.1-1]', () => {
    const pair = createPair({ hasEventIdx: false });
    const flags = [availAt(pair, 0)];
    pair.driver.disableCallbacks();
    flags.push(availAt(pair, 0));
    pair.driver.enableCallbacks();
    flags.push(availAt(pair, 0));
    expect(flags).toEqual([0, VIRTQ_AVAIL_F_NO_INTERRUPT, 0]);
  });

  test('§2.7.7.1, with EVENT_IDX: "The driver MUST set flags to 0." [driver-2.7.7.1-2]', () => {
    const pair = createPair({ hasEventIdx: true });
    pair.driver.disableCallbacks();
    expect(availAt(pair, 0)).toBe(0);
    pair.driver.enableCallbacks();
    expect(availAt(pair, 0)).toBe(0);
  });

  test('§2.7.7.2, without EVENT_IDX: "If flags is 1, the device SHOULD NOT send a notification. If flags is 0, the device MUST send a notification." [device-2.7.7.2-2, device-2.7.7.2-3]', () => {
    const pair = createPair({ hasEventIdx: false });
    roundTrip(pair, [16], []);
    expect(pair.core.notifyDriver(0)).toBe(true);
    pair.driver.disableCallbacks();
    roundTrip(pair, [16], []);
    expect(pair.core.notifyDriver(0)).toBe(false);
    expect(pair.interrupts.queue).toBe(1);
  });

  test('§2.7.7.2, without EVENT_IDX: "The device MUST ignore the used_event value." [device-2.7.7.2-1]', () => {
    const pair = createPair({ hasEventIdx: false });
    pair.memory.writeU16Le(pair.driver.ringGpa + pair.driver.layout.usedEvent, 0x5555);
    roundTrip(pair, [16], []);
    expect(pair.core.notifyDriver(0)).toBe(true);
  });

  test('§2.7.7.2, with EVENT_IDX: "The device MUST ignore the lower bit of flags." [device-2.7.7.2-4]', () => {
    const pair = createPair();
    pair.memory.writeU16Le(pair.driver.ringGpa + pair.driver.layout.avail, 1);
    roundTrip(pair, [16], []);
    expect(pair.core.notifyDriver(0)).toBe(true);
  });

  test('§2.7.7.2, with EVENT_IDX: "If the idx field in the used ring was equal to used_event, the device MUST send a notification. Otherwise the device SHOULD NOT send a notification." [device-2.7.7.2-5, device-2.7.7.2-6]', () => {
    const pair = createPair();
    roundTrip(pair, [16], []);
    // QEMU's first notification after set-up looks at nothing.
    expect(pair.core.notifyDriver(0)).toBe(true);
    const told: boolean[] = [];
    pair.memory.writeU16Le(pair.driver.ringGpa + pair.driver.layout.usedEvent, 3);
    for (let i = 1; i <= 4; i += 1) {
      roundTrip(pair, [16], []);
      told.push(pair.core.notifyDriver(0));
    }
    expect(told).toEqual([false, false, true, false]);
  });

  test('§2.7.7.1: "The driver MUST handle spurious notifications from the device." [driver-2.7.7.1-3]', () => {
    const pair = createPair();
    expect(pair.driver.noteInterrupt()).toBe(false);
    expect(pair.driver.getUsed()).toBeUndefined();
    expect(pair.driver.isBroken).toBe(false);
  });
});

describe('VIRTIO v1.2 §2.7.8 "The Virtqueue Used Ring"', () => {
  test('§2.7.8: "id indicates the head entry of the descriptor chain, and len the total of bytes written into the buffer"', () => {
    const pair = createPair();
    roundTrip(pair, [16], [512], 512);
    const entry = pair.driver.ringGpa + pair.driver.layout.used + 4;
    expect([pair.memory.readU32Le(entry), pair.memory.readU32Le(entry + 4)]).toEqual([0, 512]);
  });

  test('§2.7.8.2: "The device MUST set len prior to updating the used idx." [device-2.7.8.2-1]', () => {
    const pair = createPair({ isBehindIommu: true });
    pair.driver.add([{ gpa: BUFFERS, length: 16 }], [{ gpa: BUFFERS + 4096, length: 1 }], 1);
    const element = pair.device.pop()!;
    pair.iommu.log.length = 0;
    pair.device.push(element, 1);
    const used = Number(pair.driver.setup.used);
    expect(pair.iommu.log.map(({ address }) => address - used)).toEqual([4, 2]);
  });
});

describe('VIRTIO v1.2 §2.7.10 "Available Buffer Notification Suppression"', () => {
  test('§2.7.10.1: "The driver MUST initialize flags in the used ring to 0 when allocating the used ring."', () => {
    expect(usedAt(createPair(), 0)).toBe(0);
  });

  test('§2.7.10.1, without EVENT_IDX: "If flags is 1, the driver SHOULD NOT send a notification. If flags is 0, the driver MUST send a notification." [driver-2.7.10.1-3, driver-2.7.10.1-4]', () => {
    const pair = createPair({ hasEventIdx: false });
    pair.device.setNotification(false);
    expect(usedAt(pair, 0)).toBe(VIRTQ_USED_F_NO_NOTIFY);
    pair.driver.add(segments(BUFFERS, [16]), [], 1);
    expect(pair.driver.kickPrepare()).toBe(false);
    pair.device.setNotification(true);
    pair.driver.add(segments(BUFFERS, [16]), [], 1);
    expect(pair.driver.kickPrepare()).toBe(true);
  });

  test('§2.7.10.1, with EVENT_IDX: "The driver MUST ignore the lower bit of flags." [driver-2.7.10.1-5]', () => {
    const pair = createPair();
    pair.memory.writeU16Le(pair.driver.ringGpa + pair.driver.layout.used, 1);
    pair.driver.add(segments(BUFFERS, [16]), [], 1);
    expect(pair.driver.kickPrepare()).toBe(true);
  });

  test('§2.7.10.1, with EVENT_IDX: "If the idx field in the available ring was equal to avail_event, the driver MUST send a notification. Otherwise the driver SHOULD NOT send a notification." [driver-2.7.10.1-6, driver-2.7.10.1-7]', () => {
    const pair = createPair();
    pair.memory.writeU16Le(pair.driver.ringGpa + pair.driver.layout.availEvent, 2);
    const kicks = [0, 1, 2, 3].map((token) => {
      pair.driver.add(segments(BUFFERS, [16]), [], token);
      return pair.driver.kickPrepare();
    });
    expect(kicks).toEqual([false, false, true, false]);
  });

  test('§2.7.10.2, with EVENT_IDX: "The device MUST set flags to 0." [device-2.7.10.2-2]', () => {
    const pair = createPair();
    pair.device.setNotification(false);
    pair.device.setNotification(true);
    expect(usedAt(pair, 0)).toBe(0);
  });

  test('§2.7.10.2: "The device MUST handle spurious notifications from the driver." [device-2.7.10.2-3]', () => {
    const popped: unknown[] = [];
    const pair = createPair({
      handleOutput: (queue: DeviceQueue) => popped.push(queue.pop()),
    });
    pair.core.notifyQueue(0);
    expect(popped).toEqual([undefined]);
    expect(pair.core.isBroken).toBe(false);
  });
});

describe('VIRTIO v1.2 §2.7.13 "Supplying Buffers to The Device"', () => {
  test('§2.7.13.1: the algorithm that "maps it into the descriptor table to form a descriptor chain"', () => {
    const pair = createPair({ hasIndirect: false });
    const out = segments(BUFFERS, [16, 100]);
    const inn = segments(BUFFERS * 2, [4096]);
    pair.driver.add(out, inn, 1);
    expect([0, 1, 2].map((i) => descriptor(pair, i))).toEqual([
      { addr: out[0]!.gpa, len: 16, flags: VIRTQ_DESC_F_NEXT, next: 1 },
      { addr: out[1]!.gpa, len: 100, flags: VIRTQ_DESC_F_NEXT, next: 2 },
      { addr: inn[0]!.gpa, len: 4096, flags: VIRTQ_DESC_F_WRITE, next: 3 },
    ]);
    expect(availAt(pair, 4)).toBe(0);
  });
});

test('an event index is passed by the step from old to new, modulo 65536', () => {
  expect(vringNeedEvent(0xffff, 0, 0xffff)).toBe(true);
  expect(vringNeedEvent(0, 1, 0xffff)).toBe(true);
  expect(vringNeedEvent(1, 1, 0xffff)).toBe(false);
  expect(vringNeedEvent(5, 5, 5)).toBe(false);
});
