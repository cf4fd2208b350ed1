/** What the specification asks of a device whose driver takes a queue back. */
import { createRng } from '@pinhole/base';
import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import { createVirtioMmio } from '@pinhole/virtio';
import { expect, test } from 'vitest';
import { createRngBackend, VirtioRng } from '../../src/index.js';

// VIRTIO v1.2 §4.2.2: MMIO registers.
const DRIVER_FEATURES = 0x020;
const DRIVER_FEATURES_SEL = 0x024;
const QUEUE_NUM = 0x038;
const QUEUE_READY = 0x044;
const QUEUE_NOTIFY = 0x050;
const INTERRUPT_STATUS = 0x060;
const INTERRUPT_ACK = 0x064;
const STATUS = 0x070;
const QUEUE_DESC = 0x080;
const QUEUE_DRIVER = 0x090;
const QUEUE_DEVICE = 0x0a0;
const QUEUE_RESET = 0x0c0;

test.each([
  ['reset', true],
  ['left as it is', false],
])('requests that wait in a queue that is %s [device-2.6.1.1.1-1]', (_, isReset) => {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 20 }] });
  const rng = new VirtioRng({
    backend: createRngBackend(createRng(7)),
    memory,
    systemMemory: createSystemMemorySpace(memory),
    iommuPlatform: false,
    maxBytes: 64,
  });
  const region = createVirtioMmio({ device: rng.core });
  const write = (at: number, value: number): void => region.write(at, 4, value);
  for (const status of [0, 1, 3]) write(STATUS, status);
  // VERSION_1 and RING_RESET.
  write(DRIVER_FEATURES_SEL, 1);
  write(DRIVER_FEATURES, 0x101);
  write(STATUS, 11);
  write(QUEUE_NUM, 8);
  write(QUEUE_DESC, 0x1000);
  write(QUEUE_DRIVER, 0x2000);
  write(QUEUE_DEVICE, 0x3000);
  write(QUEUE_READY, 1);
  write(STATUS, 15);
  for (const [i, at] of [0x8000, 0x9000].entries()) {
    memory.writeU64Le(0x1000 + 16 * i, BigInt(at));
    memory.writeU32Le(0x1008 + 16 * i, 64);
    memory.writeU16Le(0x100c + 16 * i, 2);
    memory.writeU16Le(0x2004 + 2 * i, i);
  }
  memory.writeU16Le(0x2002, 2);
  write(QUEUE_NOTIFY, 0);
  // The quota is used up: the second buffer waits for the next period.
  expect(memory.readU16Le(0x3002)).toBe(1);
  write(INTERRUPT_ACK, 3);
  if (isReset) write(QUEUE_RESET, 1);
  rng.startPeriod();
  write(QUEUE_NOTIFY, 0);
  expect(memory.readU16Le(0x3002)).toBe(isReset ? 1 : 2);
  expect(region.read(INTERRUPT_STATUS, 4)).toBe(isReset ? 0 : 1);
  expect(memory.readU32Le(0x9000) === 0).toBe(isReset);
});
