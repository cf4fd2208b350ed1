import { createGuestMemory, type GuestMemory } from '@pinhole/memory';
import { describe, expect, test } from 'vitest';
import {
  createDriverQueue,
  type DriverQueue,
  RING_EVENT_FLAGS_DESC,
  RING_EVENT_FLAGS_DISABLE,
  RING_EVENT_FLAGS_ENABLE,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
} from '../src/index.js';
import { AVAIL, packedDesc, ringBytes, USED, writePacked } from './support/packed.js';
import { BUFFERS, createPair, type Pair, type PairOptions, segments } from './support/pair.js';
import { physicalDma, TestHeap } from './support/space.js';
import { WatchedMemory } from './support/watched-memory.js';

const INN = BUFFERS * 2;

function packed(options: PairOptions = {}): Pair {
  return createPair({ isPacked: true, hasIndirect: false, ...options });
}

/** A driver's half without a device. */
function alone(memory: GuestMemory, size: number): DriverQueue<number> | undefined {
  return createDriverQueue<number>({
    memory,
    dma: physicalDma(new TestHeap(0x10_0000)),
    tables: new TestHeap(0x20_0000),
    size,
    layoutAlign: 128,
    hasIndirect: false,
    hasEventIdx: true,
    isPacked: true,
  });
}

/** Adds a buffer of `out` pieces to read and `inn` to write. */
function add(pair: Pair, out: number, inn: number, token = 0): string {
  const lengths = (count: number): number[] => new Array<number>(count).fill(16);
  return pair.driver.add(segments(BUFFERS, lengths(out)), segments(INN, lengths(inn)), token);
}

describe('VIRTIO v1.2 §2.8 "Packed Virtqueues"', () => {
  test('§2.8.1: "VIRTQ_DESC_F_AVAIL and VIRTQ_DESC_F_USED bits are different for an available descriptor and equal for a used descriptor"; both counters start at 1 and change with each lap', () => {
    const pair = packed({ size: 2 });
    for (const [avail, used] of [
      [AVAIL, AVAIL | USED],
      [USED, 0],
      [AVAIL, AVAIL | USED],
    ] as const) {
      for (const place of [0, 1]) {
        add(pair, 1, 0);
        expect(packedDesc(pair, place).flags).toBe(avail);
        pair.device.push(pair.device.pop()!, 0);
        expect(packedDesc(pair, place).flags).toBe(used);
        expect(pair.driver.getUsed()).toMatchObject({ kind: 'used' });
      }
    }
  });

  test('§2.8.3: in a used descriptor WRITE "is used to specify whether any data has been written by the device"', () => {
    const pair = packed();
    for (const [i, written] of [0, 5].entries()) {
      add(pair, 0, 1);
      pair.device.push(pair.device.pop()!, written);
      const { flags } = packedDesc(pair, i);
      expect(flags & VIRTQ_DESC_F_WRITE).toBe(written > 0 ? VIRTQ_DESC_F_WRITE : 0);
    }
  });

  test('§2.8.6: "Buffer ID is included in the last descriptor in the list"; "The device only writes out a single used descriptor for the whole list"', () => {
    const pair = packed();
    writePacked(pair, pair.driver.ringGpa, [
      [BUFFERS, 16, AVAIL | VIRTQ_DESC_F_NEXT, 1],
      [BUFFERS, 16, AVAIL | VIRTQ_DESC_F_NEXT, 2],
      [BUFFERS, 16, AVAIL, 5],
    ]);
    const element = pair.device.pop()!;
    expect(element).toMatchObject({ head: 5, ndescs: 3, outNum: 3 });
    pair.device.push(element, 0);
    expect(packedDesc(pair, 0)).toMatchObject({ id: 5, flags: AVAIL | USED });
    expect(packedDesc(pair, 1)).toMatchObject({ id: 2, flags: AVAIL | VIRTQ_DESC_F_NEXT });
  });

  test('§2.8.7: of the flags in an indirect table all but WRITE, and the buffer ID, are ignored by the device; as is WRITE of the descriptor that refers to it', () => {
    const pair = packed();
    const table = BUFFERS - 0x1000;
    writePacked(pair, pair.driver.ringGpa, [
      [table, 32, AVAIL | VIRTQ_DESC_F_INDIRECT | VIRTQ_DESC_F_WRITE, 3],
    ]);
    writePacked(pair, table, [
      [BUFFERS, 16, VIRTQ_DESC_F_INDIRECT | AVAIL | USED, 77],
      [INN, 8, VIRTQ_DESC_F_WRITE | VIRTQ_DESC_F_NEXT, 78],
    ]);
    const expected = { head: 3, ndescs: 1, outNum: 1, inNum: 1, outBytes: 16, inBytes: 8 };
    expect(pair.device.pop()).toMatchObject(expected);
  });

  test('§2.8.11: "The driver MUST ensure that the physical address of the first byte of each virtqueue part is a multiple of the specified alignment value" [driver-2.8.11-1]', () => {
    for (const size of [1, 3, 256, 1000]) {
      const { setup } = packed({ size }).driver;
      expect([setup.desc % 16n, setup.avail % 4n, setup.used % 4n]).toEqual([0n, 0n, 0n]);
    }
  });

  test.each([0, 32_769, 1.5, -1])('a ring of %s entries is refused', (size) => {
    const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 26 }] });
    expect(() => alone(memory, size)).toThrow(expect.objectContaining({ code: 'E_QUEUE_SIZE' }));
  });
});

describe('VIRTIO v1.2 §2.8.12 "Device Requirements: Virtqueues"', () => {
  test('"The device MUST start processing driver descriptors in the order in which they appear in the ring." [device-2.8.12-1]', () => {
    const pair = packed({ size: 3 });
    for (let lap = 0; lap < 4; lap += 1) {
      const at = [BUFFERS, BUFFERS + 64];
      for (const gpa of at) pair.driver.add([{ gpa, length: 1 }], [], 0);
      const elements = at.map(() => pair.device.pop()!);
      expect(elements.map(({ gpa }) => gpa[0])).toEqual(at);
      for (const element of elements) pair.device.push(element, 0);
      for (const _ of at) pair.driver.getUsed();
    }
  });

  test('"The device MUST start writing device descriptors into the ring in the order in which they complete." [device-2.8.12-2]', () => {
    const pair = packed();
    for (const token of [0, 1, 2]) add(pair, 1, 0, token);
    const elements = [0, 1, 2].map(() => pair.device.pop()!);
    for (const i of [2, 0, 1]) pair.device.push(elements[i]!, 0);
    expect([0, 1, 2].map((i) => packedDesc(pair, i).id)).toEqual([2, 0, 1]);
    const tokens = [0, 1, 2].map(() => pair.driver.getUsed());
    expect(tokens.length).toBe(3);
    expect(pair.driver.getUsed()).toBeUndefined();
  });

  test('§2.8.9: of a request of several buffers, the first used descriptor is written last', () => {
    const pair = packed({ hasEventIdx: false });
    for (const pieces of [2, 3, 1]) add(pair, pieces, 0, pieces);
    const elements = [0, 1, 2].map(() => pair.device.pop()!);
    elements.forEach((element, i) => {
      pair.device.fill(element, 0, i);
    });
    expect(pair.driver.hasUsed()).toBe(false);
    pair.device.flush(3);
    // Each where the descriptors of those before it end.
    expect([0, 2, 5].map((i) => packedDesc(pair, i).flags & USED)).toEqual([USED, USED, USED]);
    for (const token of [2, 3, 1]) expect(pair.driver.getUsed()).toMatchObject({ token });
    expect(pair.device.inUse).toBe(0);
  });
});

describe('VIRTIO v1.2 §2.8.15 "Device Requirements: The Virtqueue Descriptor Table"', () => {
  test('"A device MUST NOT use a descriptor unless it observes the VIRTQ_DESC_F_AVAIL bit in its flags being changed (e.g. as compared to the initial zero value)." [device-2.8.15-2]', () => {
    const pair = packed({ size: 2 });
    expect(pair.device.pop()).toBeUndefined();
    // All flags in the first lap: only AVAIL without USED is news; in the second lap the reverse.
    for (const [flags, isNews] of [
      [0, false],
      [USED, false],
      [AVAIL | USED, false],
      [AVAIL, true],
    ] as const) {
      writePacked(pair, pair.driver.ringGpa, [[BUFFERS, 1, flags]]);
      expect(pair.device.isEmpty()).toBe(!isNews);
    }
    pair.device.push(pair.device.pop()!, 0);
    expect(pair.device.pop()).toBeUndefined();
  });

  test('"A device MUST NOT change a descriptor after changing it\'s the VIRTQ_DESC_F_USED bit in its flags." [device-2.8.15-3]', () => {
    const pair = packed();
    for (let i = 0; i < 8; i += 1) add(pair, 1, 0, i);
    const elements = Array.from({ length: 8 }, () => pair.device.pop()!);
    pair.device.push(elements[3]!, 0);
    const first = packedDesc(pair, 0);
    for (const [i, element] of elements.entries()) if (i !== 3) pair.device.push(element, i);
    pair.device.setNotification(true);
    pair.device.shouldNotify();
    expect(packedDesc(pair, 0)).toEqual(first);
  });
});

describe('VIRTIO v1.2 §2.8.16 "Driver Requirements: The Virtqueue Descriptor Table"', () => {
  test('"A driver MUST NOT change a descriptor unless it observes the VIRTQ_DESC_F_USED bit in its flags being changed." [driver-2.8.16-1]', () => {
    const pair = packed({ size: 4 });
    expect(add(pair, 3, 0)).toBe('ok');
    const before = ringBytes(pair);
    // Taken, but not used.
    const element = pair.device.pop()!;
    expect(add(pair, 2, 0)).toBe('ring-full');
    expect(ringBytes(pair)).toEqual(before);
    pair.device.push(element, 0);
    pair.driver.getUsed();
    expect(add(pair, 4, 0)).toBe('ok');
  });

  test('"A driver MUST NOT change a descriptor after changing the VIRTQ_DESC_F_AVAIL bit in its flags." [driver-2.8.16-2]', () => {
    const pair = packed();
    add(pair, 2, 1);
    const before = ringBytes(pair).subarray(0, 48);
    add(pair, 2, 1);
    pair.driver.disableCallbacks();
    pair.driver.enableCallbacks();
    pair.driver.kick();
    expect(ringBytes(pair).subarray(0, 48)).toEqual(before);
  });

  test('"When notifying the device, driver MUST set next_off and next_wrap to match the next descriptor not yet made available to the device." [driver-2.8.16-3]', () => {
    const pair = packed({ size: 3 });
    const next = (): number => pair.driver.notificationData >>> 16;
    const seen = [next()];
    for (let i = 0; i < 4; i += 1) {
      add(pair, 2, 0);
      seen.push(next());
      pair.device.push(pair.device.pop()!, 0);
      pair.driver.getUsed();
    }
    // The wrap counter is bit 15.
    expect(seen).toEqual([0x8000, 0x8002, 0x0001, 0x8000, 0x8002]);
  });
});

describe('VIRTIO v1.2 §2.8.17 "Driver Requirements: Scatter-Gather Support"', () => {
  test('"A driver MUST NOT create a descriptor list longer than the Queue Size." [driver-2.8.17-2]', () => {
    const pair = packed({ size: 4 });
    expect(add(pair, 5, 0)).toBe('ring-full');
    expect(ringBytes(pair)).toEqual(new Uint8Array(64));
    expect(add(pair, 4, 0)).toBe('ok');
  });

  test('"The driver MUST place any device-writable descriptor elements after any device-readable descriptor elements." [driver-2.8.17-3]', () => {
    for (const hasIndirect of [false, true]) {
      const pair = packed({ hasIndirect });
      add(pair, 2, 2);
      const table = hasIndirect ? packedDesc(pair, 0).addr : pair.driver.ringGpa;
      const flags = [0, 1, 2, 3].map((i) => packedDesc(pair, i, table).flags & VIRTQ_DESC_F_WRITE);
      expect(flags).toEqual([0, 0, VIRTQ_DESC_F_WRITE, VIRTQ_DESC_F_WRITE]);
    }
  });

  test('"A driver MUST make sure there\'s enough space in the ring for the whole list before making the first descriptor in the list available to the device." [driver-2.8.17-4, driver-2.8.17-5]', () => {
    const pair = packed({ size: 4 });
    add(pair, 2, 0);
    const before = ringBytes(pair);
    expect(add(pair, 3, 0)).toBe('ring-full');
    expect(ringBytes(pair)).toEqual(before);
    expect(pair.driver.numFree).toBe(2);
  });

  test('"A driver MUST NOT make the first descriptor in the list available before all subsequent descriptors comprising the list are made available." [driver-2.8.17-6]', () => {
    const memory = new WatchedMemory(createGuestMemory({ regions: [{ base: 0, size: 2 ** 26 }] }));
    const driver = alone(memory, 4)!;
    for (const out of [[16], [16, 16, 16]]) {
      memory.writes.length = 0;
      driver.add(segments(BUFFERS, out), [], 0);
      const head = out.length === 1 ? 0 : 1;
      const flagsOfHead = driver.ringGpa + 16 * head + 14;
      expect(memory.writes.at(-1)).toBe(flagsOfHead);
      expect(memory.writes.filter((at) => at === flagsOfHead)).toHaveLength(1);
    }
  });
});

describe('VIRTIO v1.2 §2.8.18, §2.8.19', () => {
  test('"The device MUST use descriptors in a list chained by the VIRTQ_DESC_F_NEXT flag in the same order that they were made available by the driver." [device-2.8.18-1]', () => {
    const pair = packed({ size: 5 });
    for (let i = 0; i < 4; i += 1) {
      const out = segments(BUFFERS, [1, 2, 3]);
      pair.driver.add(out, [], 0);
      const element = pair.device.pop()!;
      expect([...element.gpa.subarray(0, 3)]).toEqual(out.map(({ gpa }) => gpa));
      expect([...element.length.subarray(0, 3)]).toEqual([1, 2, 3]);
      pair.device.push(element, 0);
      pair.driver.getUsed();
    }
  });

  test('"The driver MUST NOT set the VIRTQ_DESC_F_INDIRECT flag unless the VIRTIO_F_INDIRECT_DESC feature was negotiated." [driver-2.8.19-1]', () => {
    const flags = (hasIndirect: boolean): number => {
      const pair = packed({ hasIndirect });
      add(pair, 2, 1);
      return packedDesc(pair, 0).flags & VIRTQ_DESC_F_INDIRECT;
    };
    expect([flags(false), flags(true)]).toEqual([0, VIRTQ_DESC_F_INDIRECT]);
  });

  test('"The driver MUST NOT set any flags except DESC_F_WRITE within an indirect descriptor." [driver-2.8.19-2]', () => {
    const pair = packed({ hasIndirect: true });
    add(pair, 2, 1);
    const table = packedDesc(pair, 0).addr;
    expect([0, 1, 2].map((i) => packedDesc(pair, i, table).flags)).toEqual([
      0,
      0,
      VIRTQ_DESC_F_WRITE,
    ]);
  });

  test('"A driver MUST NOT write direct descriptors with VIRTQ_DESC_F_INDIRECT set in a scatter-gather list linked by VIRTQ_DESC_F_NEXT." [driver-2.8.19-4]', () => {
    const pair = packed({ hasIndirect: true });
    add(pair, 2, 1);
    const both = VIRTQ_DESC_F_INDIRECT | VIRTQ_DESC_F_NEXT;
    expect(packedDesc(pair, 0).flags & both).toBe(VIRTQ_DESC_F_INDIRECT);
    expect(pair.driver.numFree).toBe(7);
  });
});

describe('VIRTIO v1.2 §2.8.10 "Driver and Device Event Suppression"', () => {
  const device = (pair: Pair): number => pair.memory.readU32Le(Number(pair.driver.setup.used));
  const driver = (pair: Pair): number => pair.memory.readU32Le(Number(pair.driver.setup.avail));

  test('without EVENT_IDX each side enables and disables all events', () => {
    const pair = packed({ hasEventIdx: false });
    pair.device.setNotification(false);
    expect(device(pair) >>> 16).toBe(RING_EVENT_FLAGS_DISABLE);
    add(pair, 1, 0);
    expect(pair.driver.kickPrepare()).toBe(false);
    pair.device.setNotification(true);
    expect(device(pair) >>> 16).toBe(RING_EVENT_FLAGS_ENABLE);
    add(pair, 1, 0);
    expect(pair.driver.kickPrepare()).toBe(true);
    pair.driver.disableCallbacks();
    expect(driver(pair) >>> 16).toBe(RING_EVENT_FLAGS_DISABLE);
    pair.device.push(pair.device.pop()!, 0);
    expect(pair.device.shouldNotify()).toBe(false);
    expect(pair.driver.enableCallbacks()).toBe(false);
    expect(pair.device.shouldNotify()).toBe(true);
  });

  test('with it the event of one descriptor, its wrap counter in bit 15', () => {
    const pair = packed({ size: 4 });
    add(pair, 3, 0);
    const element = pair.device.pop()!;
    pair.device.setNotification(true);
    expect(device(pair)).toBe((RING_EVENT_FLAGS_DESC << 16) | 0x8003);
    pair.device.push(element, 0);
    pair.driver.disableCallbacks();
    pair.driver.getUsed();
    expect(pair.driver.enableCallbacks()).toBe(true);
    expect(driver(pair)).toBe((RING_EVENT_FLAGS_DESC << 16) | 0x8003);
    // Passed over: the descriptor is the last one of the lap, and in the middle of this buffer.
    pair.driver.kickPrepare();
    add(pair, 2, 0);
    expect(pair.driver.kickPrepare()).toBe(true);
    add(pair, 1, 0);
    expect(pair.driver.kickPrepare()).toBe(false);
  });
});
