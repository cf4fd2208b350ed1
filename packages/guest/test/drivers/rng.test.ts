/** The virtio-rng driver, and devices that give less or claim more. */
import { VIRTIO_ID_RNG } from '@pinhole/virtio';
import { describe, expect, test } from 'vitest';
import { probeVirtioRng, type VirtioRngDriver } from '../../src/index.js';
import { type Answer, createFakeDevice, type FakeDevice } from './fake-device.js';

function probe(answer: (n: number) => Answer | undefined): {
  device: FakeDevice;
  driver: VirtioRngDriver;
} {
  let n = 0;
  const device = createFakeDevice({
    deviceId: VIRTIO_ID_RNG,
    queues: [8],
    answer: () => answer(n++),
  });
  const probed = probeVirtioRng(device.options);
  if (!probed.ok) throw new Error(probed.message);
  return { device, driver: probed.driver };
}

const filled = (length: number, value: number): Answer => ({
  bytes: new Uint8Array(length).fill(value),
});

function read(driver: VirtioRngDriver, length: number): { count: number; bytes: number[] } {
  const bytes = new Uint8Array(length);
  return { count: driver.read(bytes), bytes: [...bytes] };
}

test('The driver MUST NOT place device-readable buffers into the queue [driver-5.4.6.1-1]', () => {
  const { device, driver } = probe((n) => filled(128, n));
  read(driver, 1000);
  for (const { outSegments, inSegments } of device.received) {
    expect([outSegments, inSegments]).toEqual([[], [128]]);
  }
});

test('The driver MUST examine the length written by the device [driver-5.4.6.1-2, driver-2.7.8.3-1]', () => {
  const { driver } = probe((n) => filled(n + 1, n + 1));
  expect(read(driver, 10)).toEqual({ count: 10, bytes: [1, 2, 2, 3, 3, 3, 4, 4, 4, 4] });
});

test('what is left of a buffer is given before more is asked for', () => {
  const { device, driver } = probe((n) => filled(128, n + 1));
  expect(read(driver, 100).bytes.every((byte) => byte === 1)).toBe(true);
  expect(device.received).toHaveLength(1);
  expect(read(driver, 28).bytes.every((byte) => byte === 1)).toBe(true);
  expect(device.received).toHaveLength(2);
  expect(read(driver, 1).bytes).toEqual([2]);
});

describe('a device in error', () => {
  test('a length beyond the buffer is clamped to it', () => {
    const { driver } = probe((n) => ({ ...filled(128, n + 1), length: 0xffff_ffff }));
    const { count, bytes } = read(driver, 200);
    expect(count).toBe(200);
    expect(bytes).toEqual([...Array(128).fill(1), ...Array(72).fill(2)]);
  });

  test('one that claims bytes that it did not write gives zeros, not what was there', () => {
    const { driver } = probe((n) => (n === 0 ? filled(128, 9) : { length: 128 }));
    read(driver, 128);
    expect(read(driver, 4)).toEqual({ count: 4, bytes: [0, 0, 0, 0] });
  });

  test('no bytes: the read ends, and the next asks again', () => {
    const { device, driver } = probe((n) => (n < 3 ? {} : filled(5, 5)));
    expect(read(driver, 4).count).toBe(0);
    expect(read(driver, 4).count).toBe(0);
    expect(read(driver, 4)).toEqual({ count: 4, bytes: [5, 5, 5, 5] });
    expect(device.received.length).toBe(4);
  });

  test('no answer: the read ends; the bytes come when they come', () => {
    const { device, driver } = probe(() => undefined);
    expect(read(driver, 4).count).toBe(0);
    device.give(0, Uint8Array.of(1, 2, 3, 4, 5));
    expect(read(driver, 8)).toEqual({ count: 5, bytes: [1, 2, 3, 4, 5, 0, 0, 0] });
    driver.remove();
    expect(device.live()).toBe(0);
  });

  test('a broken queue gives nothing more', () => {
    const { device, driver } = probe(() => undefined);
    const { queue, element } = device.kept[0]!;
    element.head = 5;
    queue.push(element, 128);
    device.core.notifyDriver(0);
    expect(read(driver, 4).count).toBe(0);
    expect(read(driver, 4).count).toBe(0);
  });

  test('without a queue there is no driver', () => {
    const device = createFakeDevice({ deviceId: VIRTIO_ID_RNG, queues: [] });
    expect(probeVirtioRng(device.options)).toEqual({ ok: false, message: 'no queue 0' });
  });
});
