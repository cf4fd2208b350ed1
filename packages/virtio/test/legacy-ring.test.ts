import { NO_TRACE } from '@pinhole/base';
import { createGuestMemory, createSystemMemorySpace, type SparseMemory } from '@pinhole/memory';
import { describe, expect, test } from 'vitest';
import {
  createDeviceQueue,
  createDriverQueue,
  type DeviceQueue,
  type DriverQueue,
  featureBit,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTQ_DESC_F_INDIRECT,
} from '../src/index.js';
import { BUFFERS, segments } from './support/pair.js';
import { physicalDma, TestHeap } from './support/space.js';
import { WatchedMemory } from './support/watched-memory.js';

interface Legacy {
  readonly memory: SparseMemory;
  readonly driver: DriverQueue<number>;
  readonly device: DeviceQueue;
}

/** A legacy driver on a big-endian machine and its device; `isSlow`: no ring is reached directly. */
function legacy(isSlow: boolean): Legacy {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 26 }] });
  const seen = isSlow ? new WatchedMemory(memory) : memory;
  const driver = createDriverQueue<number>({
    memory: seen,
    dma: physicalDma(new TestHeap(0x10_0000)),
    tables: new TestHeap(0x20_0000),
    size: 8,
    layoutAlign: 4096,
    hasIndirect: true,
    hasEventIdx: true,
    isBigEndian: true,
  })!;
  const owner = {
    isBroken: false,
    tracer: NO_TRACE,
    fail(message: string): void {
      throw new Error(message);
    },
  };
  const space = createSystemMemorySpace(memory);
  const options = { owner, id: 'q', maxSize: 8, memory: seen, space, isBigEndian: true };
  const device = createDeviceQueue(false, options);
  device.setFeatures(featureBit(VIRTIO_RING_F_EVENT_IDX));
  device.configure(driver.setup);
  return { memory, driver, device };
}

describe.each([false, true])('byte by byte: %s', (isSlow) => {
  test('§2.7.3: "when using the legacy interface, transitional devices and drivers MUST use the native endian of the guest as the endian of fields and in the virtqueue" [driver-2.7.3-1, device-2.7.3-1]', () => {
    const { memory, driver, device } = legacy(isSlow);
    const { setup } = driver;
    for (let i = 1; i <= 12; i += 1) {
      const out = segments(BUFFERS, [16, 4096]);
      expect(driver.add(out, segments(BUFFERS * 2, [1]), i)).toBe('ok');
      expect(driver.kickPrepare()).toBe(true);
      expect(memory.readU16Be(Number(setup.avail) + 2)).toBe(i);
      const at = Number(setup.desc);
      expect(memory.readU32Be(at + 8)).toBe(48);
      expect(memory.readU16Be(at + 12)).toBe(VIRTQ_DESC_F_INDIRECT);
      const table = Number(memory.readU64Be(at));
      expect(memory.readU64Be(table)).toBe(BigInt(BUFFERS));
      expect(memory.readU16Be(table + 14)).toBe(1);
      const element = device.pop()!;
      expect(element).toMatchObject({ outBytes: 4112, inBytes: 1 });
      expect(element.gpa[0]).toBe(BUFFERS);
      device.setNotification(true);
      expect(memory.readU16Be(Number(setup.used) + 4 + 8 * 8)).toBe(i);
      device.push(element, 0x1234);
      expect(memory.readU16Be(Number(setup.used) + 2)).toBe(i);
      expect(memory.readU32Be(Number(setup.used) + 8 + 8 * ((i - 1) % 8))).toBe(0x1234);
      expect(driver.getUsed()).toMatchObject({ token: i, length: 0x1234 });
    }
  });
});
