import { createGuestMemory, createSystemMemorySpace, type SparseMemory } from '@pinhole/memory';
import {
  createDriverQueue,
  type DriverQueue,
  featureBits,
  hasFeature,
  negotiateFeatures,
  setDriverOk,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_ID_BLOCK,
  VIRTIO_RING_F_EVENT_IDX,
  VirtioDeviceCore,
  type VirtioTransport,
} from '../../src/index.js';
import { physicalDma, TestHeap } from '../support/space.js';

/** What the device offers. */
export const FEATURES: bigint = featureBits(
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_RING_PACKED,
);

export interface TestDevice {
  readonly core: VirtioDeviceCore;
  readonly memory: SparseMemory;
  readonly config: Uint8Array;
}

/** A device with two queues of 16 entries that gives every buffer back, and 8 bytes to configure. */
export function testDevice(features: bigint = FEATURES, configWrites: number[] = []): TestDevice {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 22 }] });
  const config = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
  const core: VirtioDeviceCore = new VirtioDeviceCore({
    deviceId: VIRTIO_ID_BLOCK,
    features,
    config,
    memory,
    space: createSystemMemorySpace(memory),
    queues: [0, 1].map((index) => ({
      maxSize: 16,
      handleOutput: (queue) => {
        for (let e = queue.pop(); e !== undefined; e = queue.pop()) queue.push(e, 0);
        core.notifyDriver(index);
      },
    })),
    hooks: { setConfig: (bytes) => configWrites.push(bytes[0]!) },
    usesEventFds: false,
  });
  return { core, memory, config };
}

/** What a driver does with a device, from its reset to DRIVER_OK. */
export function bringUp(
  device: TestDevice,
  transport: VirtioTransport,
  supported: bigint = FEATURES,
): { queues: DriverQueue<number>[]; open(index: number): void; features: bigint } {
  const result = negotiateFeatures(transport, { supported, allowsLegacy: transport.isLegacy });
  if (!result.ok) throw new Error(result.message);
  const { features } = result;
  const heap = new TestHeap(0x10_0000);
  const queues: DriverQueue<number>[] = [];
  const open = (index: number): void => {
    const queue = createDriverQueue<number>({
      memory: device.memory,
      dma: physicalDma(heap),
      tables: heap,
      size: Math.min(transport.queueMaxSize(index), 16),
      layoutAlign: transport.isLegacy ? 4096 : 64,
      isPacked: hasFeature(features, VIRTIO_F_RING_PACKED),
      hasIndirect: false,
      hasEventIdx: hasFeature(features, VIRTIO_RING_F_EVENT_IDX),
      notify: () => transport.notifyQueue(index),
    });
    if (queue === undefined) throw new Error('no room');
    queues[index] = queue;
    transport.setupQueue(index, queue.setup);
  };
  open(0);
  open(1);
  setDriverOk(transport);
  return { queues, open, features };
}

/** Sends one buffer through a queue, and says whether it came back. */
export function roundTrip(queue: DriverQueue<number>): boolean {
  queue.add([{ gpa: 0x20_0000, length: 16 }], [], 1);
  queue.kick();
  const isBack = queue.getUsed()?.kind === 'used';
  queue.enableCallbacks();
  return isBack;
}
