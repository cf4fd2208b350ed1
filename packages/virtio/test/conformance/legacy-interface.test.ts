import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import { describe, expect, test } from 'vitest';
import {
  createDriverQueue,
  createVirtioPci,
  featureBits,
  negotiateFeatures,
  VIRTIO_CONFIG_S_FEATURES_OK,
  VIRTIO_F_NOTIFY_ON_EMPTY,
  VIRTIO_F_VERSION_1,
  VIRTIO_ID_BLOCK,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VirtioDeviceCore,
} from '../../src/index.js';
import { physicalDma, TestHeap } from '../support/space.js';

// VIRTIO v1.2 §4.1.4.10: the legacy structure.
const GUEST_FEATURES = 4;
const QUEUE_PFN = 8;
const QUEUE_SEL = 14;
const QUEUE_NOTIFY = 16;
const STATUS = 18;
const CONFIG = 20;
const SIZE = 16;
const RING = 0x4000;

// VIRTIO v1.2 §2.7.2: struct virtq, with a Queue Align of 4096.
const AVAIL = RING + 16 * SIZE;
const USED = RING + Math.ceil((16 * SIZE + 2 * (3 + SIZE)) / 4096) * 4096;

function device(isBigEndianGuest: boolean) {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 22 }] });
  const taken: number[] = [];
  const written: number[] = [];
  const core: VirtioDeviceCore = new VirtioDeviceCore({
    deviceId: VIRTIO_ID_BLOCK,
    features: featureBits(VIRTIO_F_VERSION_1, VIRTIO_RING_F_EVENT_IDX),
    config: new Uint8Array(8),
    memory,
    space: createSystemMemorySpace(memory),
    queues: [
      {
        maxSize: SIZE,
        handleOutput: (queue) => {
          for (let e = queue.pop(); e !== undefined; e = queue.pop()) {
            taken.push(e.gpa[0]!, e.length[0]!);
            queue.push(e, 0);
          }
        },
      },
    ],
    hooks: { setConfig: (config) => written.push(config[0]!) },
    usesEventFds: false,
  });
  const fn = createVirtioPci({ device: core, mode: 'transitional', isBigEndianGuest });
  const bar = fn.bar(0)!;
  fn.configWrite(4, 2, 7);
  const view = new DataView(new ArrayBuffer(16));
  /** Writes a field in the guest's byte order. */
  const put = (at: number, width: 2 | 4 | 8, value: number): void => {
    if (width === 2) view.setUint16(0, value, !isBigEndianGuest);
    else if (width === 4) view.setUint32(0, value, !isBigEndianGuest);
    else view.setBigUint64(0, BigInt(value), !isBigEndianGuest);
    memory.write(at, new Uint8Array(view.buffer, 0, width));
  };
  const get16 = (at: number): number => {
    memory.read(at, new Uint8Array(view.buffer, 0, 2));
    return view.getUint16(0, !isBigEndianGuest);
  };
  const offer = (): void => {
    put(RING, 8, 0x9000);
    put(RING + 8, 4, 100);
    put(RING + 12, 4, 0);
    const idx = get16(AVAIL + 2);
    put(AVAIL + 4 + 2 * (idx % SIZE), 2, 0);
    put(AVAIL + 2, 2, idx + 1);
    bar.write(QUEUE_NOTIFY, 2, 0);
  };
  return { core, memory, bar, taken, written, put, get16, offer };
}

describe.each([
  ['little-endian', false],
  ['big-endian', true],
])('%s guest', (_, isBigEndianGuest) => {
  test('the device finds the ring by its page, in the layout of the legacy interface, in the byte order of the guest [device-2.7.2-2, device-2.7.3-1]', () => {
    const { bar, taken, offer, get16 } = device(isBigEndianGuest);
    bar.write(STATUS, 1, 3);
    bar.write(GUEST_FEATURES, 4, 0);
    bar.write(QUEUE_SEL, 2, 0);
    bar.write(QUEUE_PFN, 4, RING / 4096);
    bar.write(STATUS, 1, 7);
    offer();
    offer();
    expect(taken).toEqual([0x9000, 100, 0x9000, 100]);
    expect(get16(USED + 2)).toBe(2);
  });

  test('the driver lays the ring out in the same way, in the same byte order [driver-2.7.2-2, driver-2.7.3-1]', () => {
    const { memory, get16 } = device(isBigEndianGuest);
    const heap = new TestHeap(RING);
    const queue = createDriverQueue<number>({
      memory,
      dma: physicalDma(heap),
      tables: heap,
      size: SIZE,
      layoutAlign: 4096,
      hasIndirect: false,
      hasEventIdx: false,
      mayReduceSize: false,
      isBigEndian: isBigEndianGuest,
    })!;
    expect(queue.setup).toMatchObject({
      desc: BigInt(RING),
      avail: BigInt(AVAIL),
      used: BigInt(USED),
    });
    queue.add([{ gpa: 0x9000, length: 100 }], [], 1);
    expect([get16(AVAIL + 2), get16(AVAIL + 4)]).toEqual([1, 0]);
    const desc = new DataView(new ArrayBuffer(16));
    memory.read(RING, new Uint8Array(desc.buffer));
    const isLittle = !isBigEndianGuest;
    expect([desc.getBigUint64(0, isLittle), desc.getUint32(8, isLittle)]).toEqual([0x9000n, 100]);
  });
});

test('a legacy driver may write the configuration before it read the features [device-3.1.2-2]', () => {
  const { bar, written } = device(false);
  bar.write(STATUS, 1, 3);
  bar.write(CONFIG, 1, 42);
  expect(written).toEqual([42]);
});

test('a legacy driver may use the device before DRIVER_OK [device-3.1.2-3]', () => {
  const { bar, taken, offer } = device(false);
  bar.write(STATUS, 1, 3);
  bar.write(GUEST_FEATURES, 4, 0);
  bar.write(QUEUE_PFN, 4, RING / 4096);
  offer();
  expect(taken.length).toBe(2);
});

test('a driver knows a legacy device by VERSION_1, which it does not offer [driver-2.2.3-1]', () => {
  const { core } = device(false);
  const old = device(false);
  old.core.plug({ removed: featureBits(VIRTIO_F_VERSION_1) });
  const supported = featureBits(VIRTIO_F_VERSION_1, VIRTIO_RING_F_EVENT_IDX);
  for (const [it, isLegacy] of [
    [core, false],
    [old.core, true],
  ] as const) {
    const statuses: number[] = [];
    const transport = {
      deviceId: VIRTIO_ID_BLOCK,
      isLegacy: false,
      readDeviceFeatures: () => it.modernFeatures,
      writeDriverFeatures: (bits: bigint) => it.setFeatures(bits),
      readStatus: () => it.status,
      writeStatus(value: number): void {
        statuses.push(value);
        it.setStatus(value);
      },
    };
    const result = negotiateFeatures(transport as never, { supported, allowsLegacy: true });
    expect(result.ok).toBe(true);
    expect(statuses.some((s) => (s & VIRTIO_CONFIG_S_FEATURES_OK) !== 0)).toBe(!isLegacy);
  }
});

test('with NOTIFY_ON_EMPTY the driver hears when the device runs out of buffers, wanted or not [device-6.3-1]', () => {
  for (const isNegotiated of [false, true]) {
    const { core, bar, offer, put } = device(false);
    bar.write(STATUS, 1, 3);
    bar.write(GUEST_FEATURES, 4, isNegotiated ? 2 ** VIRTIO_F_NOTIFY_ON_EMPTY : 0);
    bar.write(QUEUE_PFN, 4, RING / 4096);
    bar.write(STATUS, 1, 7);
    put(AVAIL, 2, VIRTQ_AVAIL_F_NO_INTERRUPT);
    offer();
    expect(core.notifyDriver(0)).toBe(isNegotiated);
  }
});
