/**
 * Published holes of virtio-net devices, met by ours. Each comment names the text that was read;
 * docs/VIRTIO-CVES.md has the table.
 */
import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import {
  featureBits,
  negotiateFeatures,
  setDriverOk,
  VIRTIO_CONFIG_S_NEEDS_RESET,
  VIRTIO_NET_CTRL_MAC,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_MRG_RXBUF,
} from '@pinhole/virtio';
import { expect, test } from 'vitest';
import { type GlobalBounce, VirtioNet } from '../../src/index.js';
import { direct } from '../direct-transport.js';
import { createRawDriver, type RawDriver } from '../raw-driver.js';

const RX = 0;
const CTRL = 2;
const MAC_TABLE_SET = 0;
const VIRTIO_NET_ERR = 1;
const OWN = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const HEADER = 12;

interface Bench {
  readonly net: VirtioNet;
  readonly driver: RawDriver;
  readonly bounce: GlobalBounce;
  incoming(frame: Uint8Array): void;
}

function bench(...features: readonly number[]): Bench {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 26 }] });
  const bounce = { isInUse: false };
  let incoming: (frame: Uint8Array) => void = () => {};
  const net = new VirtioNet({
    backend: {
      send: () => {},
      onReceive: (receive) => {
        incoming = receive;
      },
    },
    memory,
    systemMemory: createSystemMemorySpace(memory),
    iommuPlatform: false,
    bounce,
  });
  negotiateFeatures(direct(net.core), { supported: featureBits(32, ...features) });
  const driver = createRawDriver(memory, net.core);
  setDriverOk(direct(net.core));
  return { net, driver, bounce, incoming: (frame) => incoming(frame) };
}

function frame(length: number, to: readonly number[] = OWN): Uint8Array {
  const bytes = new Uint8Array(length).fill(0xab);
  bytes.set(to);
  return bytes;
}

const le32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);

// CVE-2014-0150, record of the CVE list: "Integer overflow in the virtio_net_handle_mac function [...]
// via a MAC addresses table update request, which triggers a heap-based buffer overflow."
test.each([
  ['more than it carries', [...le32(3), ...OWN, ...le32(0)]],
  ['2^32 - 1', [...le32(0xffff_ffff), ...OWN, ...le32(0)]],
  // Times six this is 2, in 32 bits.
  ['a third of 2^33', [...le32(0x2aaa_aaab), 1, 2, ...le32(0)]],
  ['2^32 - 1 of the second kind', [...le32(0), ...le32(0xffff_ffff), ...OWN]],
])('CVE-2014-0150: a table of addresses that says %s is refused', (_, table) => {
  const { net, driver } = bench(VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_CTRL_RX);
  const bytes = Uint8Array.of(VIRTIO_NET_CTRL_MAC, MAC_TABLE_SET, ...table);
  driver.send(CTRL, [bytes.length], [1], bytes);
  expect(driver.used(CTRL)).toEqual([1]);
  expect(driver.readIn()[0]).toBe(VIRTIO_NET_ERR);
  expect(net.core.errors).toEqual([]);
});

test('CVE-2014-0150: a table of more addresses than there is room for takes no more room', () => {
  const { driver, incoming } = bench(VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_CTRL_RX);
  const count = 10_000;
  const macs = Array.from({ length: count }, (_, i) => [2, 0, 0, 0, i >> 8, i & 0xff]).flat();
  const command = [VIRTIO_NET_CTRL_MAC, MAC_TABLE_SET, ...le32(count), ...macs, ...le32(0)];
  const bytes = Uint8Array.from(command);
  driver.send(CTRL, [bytes.length], [1], bytes);
  expect(driver.readIn()[0]).toBe(0);
  // It overflowed: whatever is unicast comes in.
  driver.send(RX, [], [2000]);
  incoming(frame(60, [2, 9, 9, 9, 9, 9]));
  expect(driver.used(RX)).toEqual([60 + HEADER]);
});

// CVE-2014-0077, record of the CVE list: "when mergeable buffers are disabled, does not properly
// validate packet lengths, which allows guest OS users to cause a denial of service (memory corruption
// and host OS crash)".
test.each([100, 1000, 1525])(
  'CVE-2014-0077: without mergeable buffers a packet for a buffer of %i bytes that is too long changes nothing beside it',
  (size) => {
    const { driver, incoming } = bench();
    driver.send(RX, [], [size]);
    const [buffer] = driver.lastIn;
    driver.send(RX, [], [16]);
    const [after] = driver.lastIn;
    incoming(frame(1600));
    for (const length of driver.used(RX)) expect(length).toBeLessThanOrEqual(size);
    const beside = { gpa: buffer!.gpa + size, length: 4096 - size };
    expect(driver.read([beside, after!]).every((byte) => byte === 0)).toBe(true);
  },
);

// CVE-2015-7295, record of the CVE list: "when big or mergeable receive buffers are not supported,
// allows remote attackers to cause a denial of service (guest network consumption) via a flood of jumbo
// frames".
test('CVE-2015-7295: a flood of frames that fit no buffer does not end the guest’s network', () => {
  const { net, driver, incoming } = bench();
  for (let i = 0; i < 64; i += 1) driver.send(RX, [], [1526]);
  for (let i = 0; i < 1000; i += 1) incoming(frame(9000));
  expect(net.core.errors).toEqual([]);
  driver.used(RX);
  driver.send(RX, [], [1526]);
  incoming(frame(64));
  expect(driver.used(RX)).toContain(64 + HEADER);
});

// CVE-2019-3900, commit "vhost_net: fix possible infinite loop" (e2412c07f8f3): "if one end sends
// packets faster than the other end can process them".
test('CVE-2019-3900: frames for a guest without buffers wait up to a limit, then they are dropped', () => {
  const { net, driver, incoming } = bench(VIRTIO_NET_F_MRG_RXBUF);
  for (let i = 0; i < 5000; i += 1) incoming(frame(60));
  expect(net.dropped.rx).toBeGreaterThan(4000);
  for (let i = 0; i < 200; i += 1) driver.send(RX, [], [2000]);
  expect(driver.used(RX).length).toBe(200);
});

// CVE-2022-26353, patch "virtio-net: fix map leaking on error during receive" (qemu-devel 2022-03-10):
// "it forgot to unmap the cached elements on error which will lead to leaking of mapping".
test.each([
  ['first', [false, true, true]],
  ['last', [true, true, false]],
])('CVE-2022-26353: a packet whose %s buffer is no memory leaves nothing mapped', (_, isMemory) => {
  const { net, driver, bounce, incoming } = bench(VIRTIO_NET_F_MRG_RXBUF);
  for (const is of isMemory) {
    if (is) driver.send(RX, [], [400]);
    else driver.add(RX, [], [{ gpa: 2 ** 40, length: 400 }]);
  }
  incoming(frame(1000));
  // What is no memory goes to the one bounce buffer, and is lost.
  expect([bounce.isInUse, net.core.queues[RX]!.inUse]).toEqual([false, 0]);
  expect(net.core.status & VIRTIO_CONFIG_S_NEEDS_RESET).toBe(0);
});

test('CVE-2022-26353: a packet that fails half way gives its buffers up', () => {
  const { net, driver, bounce, incoming } = bench(VIRTIO_NET_F_MRG_RXBUF);
  driver.send(RX, [], [200]);
  // Two pieces that are no memory: there is one bounce buffer.
  driver.add(
    RX,
    [],
    [
      { gpa: 2 ** 40, length: 600 },
      { gpa: 2 ** 41, length: 600 },
    ],
  );
  incoming(frame(1000));
  expect(net.core.status & VIRTIO_CONFIG_S_NEEDS_RESET).not.toBe(0);
  expect([bounce.isInUse, net.core.queues[RX]!.inUse]).toEqual([false, 0]);
});

// CVE-2021-3748, record of the CVE list: "num_buffers being set after the virtqueue elem has been unmapped".
test('CVE-2021-3748: num_buffers is in the first buffer when it comes back', () => {
  const { driver, incoming } = bench(VIRTIO_NET_F_MRG_RXBUF);
  driver.send(RX, [], [200]);
  const first = driver.lastIn;
  for (let i = 0; i < 5; i += 1) driver.send(RX, [], [200]);
  incoming(frame(1000));
  const used = driver.used(RX);
  expect(used.length).toBe(6);
  const bytes = driver.read(first);
  expect((bytes[10] ?? 0) | ((bytes[11] ?? 0) << 8)).toBe(6);
});
