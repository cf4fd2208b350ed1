/** virtio-rng: quota, and drivers that offer it nonsense. */
import { createRng } from '@pinhole/base';
import { createGuestMemory, createSystemMemorySpace, type GuestMemory } from '@pinhole/memory';
import { negotiateFeatures, setDriverOk } from '@pinhole/virtio';
import { describe, expect, test } from 'vitest';
import { createRngBackend, VirtioRng, type VirtioRngOptions } from '../src/index.js';
import { direct } from './direct-transport.js';
import { createRawDriver, type RawDriver } from './raw-driver.js';

function setup(options: Partial<VirtioRngOptions> = {}): {
  memory: GuestMemory;
  rng: VirtioRng;
  driver: RawDriver;
} {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 22 }] });
  const rng = new VirtioRng({
    backend: createRngBackend(createRng(7)),
    memory,
    systemMemory: createSystemMemorySpace(memory),
    iommuPlatform: false,
    ...options,
  });
  negotiateFeatures(direct(rng.core), { supported: 1n << 32n });
  const driver = createRawDriver(memory, rng.core);
  setDriverOk(direct(rng.core));
  return { memory, rng, driver };
}

test('The device MUST place one or more random bytes into the buffer [device-5.4.6.2-1]', () => {
  const { memory, driver } = setup();
  driver.send(0, [], [100, 5000]);
  expect(driver.used(0)).toEqual([5100]);
  const bytes = new Uint8Array(5100);
  memory.read(driver.lastIn[0]!.gpa, bytes.subarray(0, 100));
  memory.read(driver.lastIn[1]!.gpa, bytes.subarray(100));
  const expected = new Uint8Array(5100);
  createRngBackend(createRng(7)).fill(expected);
  expect(Buffer.compare(bytes, expected)).toBe(0);
});

test('it offers what QEMU offers: nothing of its own, one queue of 8, no configuration', () => {
  const { rng } = setup();
  expect(rng.core.modernFeatures).toBe(0x101_3000_0000n);
  expect([rng.core.queueSize(0), rng.core.queueSize(1)]).toEqual([8, 0]);
});

describe('the quota', () => {
  test('ends in the middle of a buffer; the next period goes on with the next buffer', () => {
    const { rng, driver } = setup({ maxBytes: 100 });
    driver.send(0, [], [64]);
    driver.send(0, [], [64]);
    driver.send(0, [], [64]);
    expect(driver.used(0)).toEqual([64, 36]);
    expect(rng.quota).toBe(0);
    rng.startPeriod();
    expect(driver.used(0)).toEqual([64]);
    expect(rng.quota).toBe(36);
  });

  test('of 0: nothing, ever', () => {
    const { rng, driver } = setup({ maxBytes: 0 });
    driver.send(0, [], [64]);
    rng.startPeriod();
    expect(driver.used(0)).toEqual([]);
  });

  test('that is no number is refused', () => {
    expect(() => setup({ maxBytes: -1 })).toThrow(/max-bytes/);
    expect(() => setup({ maxBytes: 0.5 })).toThrow(/max-bytes/);
  });
});

describe('a hostile driver', () => {
  test('a buffer that cannot be written stays, alone; before another it goes back empty', () => {
    const { driver } = setup();
    driver.send(0, [64], []);
    expect(driver.used(0)).toEqual([]);
    driver.send(0, [], [10]);
    expect(driver.used(0)).toEqual([0, 10]);
  });

  test('a buffer of the same megabyte eight times over is filled as far as the quota goes', () => {
    const { rng, driver } = setup({ maxBytes: 3 * 2 ** 20 });
    const segment = { gpa: 2 ** 20, length: 2 ** 20 };
    driver.add(
      0,
      [],
      Array.from({ length: 8 }, () => segment),
    );
    expect(driver.used(0)).toEqual([3 * 2 ** 20]);
    expect([rng.quota, rng.core.errors]).toEqual([0, []]);
  });

  test('nothing is given before DRIVER_OK, and what waits then is', () => {
    const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 22 }] });
    const rng = new VirtioRng({
      backend: createRngBackend(createRng(7)),
      memory,
      systemMemory: createSystemMemorySpace(memory),
      iommuPlatform: false,
    });
    negotiateFeatures(direct(rng.core), { supported: 1n << 32n });
    const driver = createRawDriver(memory, rng.core);
    driver.send(0, [], [16]);
    expect(driver.used(0)).toEqual([]);
    setDriverOk(direct(rng.core));
    expect(driver.used(0)).toEqual([16]);
  });
});
