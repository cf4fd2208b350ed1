/** The configuration of devices, as a legacy driver of either byte order finds it. */
import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import { createVirtioPci, type VirtioDeviceCore } from '@pinhole/virtio';
import { expect, test } from 'vitest';
import {
  ConsoleLog,
  createMemoryBackend,
  VirtioBlk,
  VirtioConsole,
  VirtioNet,
} from '../../src/index.js';

// VIRTIO v1.2 §4.1.4.10: the configuration follows the legacy structure.
const CONFIG = 20;
const MAC = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

function settings() {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 20 }] });
  return { memory, systemMemory: createSystemMemorySpace(memory), iommuPlatform: false };
}

const blk = (): VirtioDeviceCore =>
  new VirtioBlk({ ...settings(), backend: createMemoryBackend(new Uint8Array(0x12_3400)) }).core;
const net = (): VirtioDeviceCore =>
  new VirtioNet({
    ...settings(),
    backend: { send: () => {}, onReceive: () => {} },
    mac: Uint8Array.from(MAC),
    mtu: 1500,
  }).core;
const serial = (): VirtioDeviceCore =>
  new VirtioConsole({ ...settings(), ports: [{ backend: new ConsoleLog() }], maxPorts: 0x102 })
    .core;

/** The device's registers, for a guest of this byte order. */
function registers(core: VirtioDeviceCore, isBigEndianGuest: boolean) {
  const fn = createVirtioPci({ device: core, mode: 'legacy', msixVectors: 0, isBigEndianGuest });
  fn.configWrite(4, 2, 7);
  const bar = fn.bar(0)!;
  return {
    number: (offset: number, width: 1 | 2 | 4) => bar.read(CONFIG + offset, width),
    bytes: (offset: number, length: number) =>
      Array.from({ length }, (_, i) => bar.read(CONFIG + offset + i, 1)),
  };
}

const inOrder = (value: bigint, length: number, isBigEndian: boolean): number[] => {
  const bytes = Array.from({ length }, (_, i) => Number((value >> BigInt(8 * i)) & 0xffn));
  return isBigEndian ? bytes.reverse() : bytes;
};

const ORDERS = [
  ['little-endian', false],
  ['big-endian', true],
] as const;

test.each(ORDERS)(
  'a %s guest finds the fields of a block device in its byte order [device-5.2.4.1-1]',
  (_, isBig) => {
    const { number, bytes } = registers(blk(), isBig);
    // capacity, seg_max, blk_size, num_queues.
    expect(bytes(0, 8)).toEqual(inOrder(0x91an, 8, isBig));
    expect(bytes(12, 4)).toEqual(inOrder(254n, 4, isBig));
    expect(bytes(20, 4)).toEqual(inOrder(512n, 4, isBig));
    expect(number(20, 4)).toBe(512);
  },
);

test.each(ORDERS)(
  'a %s guest finds the fields of a network device in its byte order, and the address as it is [device-5.1.4.3-1]',
  (_, isBig) => {
    const { number, bytes } = registers(net(), isBig);
    expect(bytes(0, 6)).toEqual(MAC);
    // status, max_virtqueue_pairs, mtu.
    expect(bytes(6, 6)).toEqual([1n, 1n, 1500n].flatMap((value) => inOrder(value, 2, isBig)));
    expect([number(6, 2), number(10, 2)]).toEqual([1, 1500]);
  },
);

test.each(ORDERS)(
  'a %s guest finds the fields of a console in its byte order [device-5.3.4.1-1]',
  (_, isBig) => {
    const { number, bytes } = registers(serial(), isBig);
    expect(bytes(4, 4)).toEqual(inOrder(0x102n, 4, isBig));
    expect(number(4, 4)).toBe(0x102);
  },
);
