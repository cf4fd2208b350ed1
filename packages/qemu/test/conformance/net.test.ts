/** What the specification asks of a network device, where no other test shows it. */
import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import {
  featureBits,
  negotiateFeatures,
  setDriverOk,
  VIRTIO_NET_CTRL_RX,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_RX_EXTRA,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_SPEED_DUPLEX,
} from '@pinhole/virtio';
import { expect, test } from 'vitest';
import { VirtioNet, type VirtioNetOptions } from '../../src/index.js';
import { direct } from '../direct-transport.js';
import { createRawDriver, type RawDriver } from '../raw-driver.js';

const RX = 0;
const TX = 1;
const CTRL = 2;
const HEADER = 12;
const ETH_HLEN = 14;

function bench(
  features: readonly number[] = [],
  options: Partial<VirtioNetOptions> = {},
): { net: VirtioNet; driver: RawDriver; sent: Uint8Array[]; incoming(frame: Uint8Array): void } {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 24 }] });
  const sent: Uint8Array[] = [];
  let incoming: (frame: Uint8Array) => void = () => {};
  const net = new VirtioNet({
    backend: {
      send: (frame) => sent.push(frame.slice()),
      onReceive: (receive) => {
        incoming = receive;
      },
    },
    memory,
    systemMemory: createSystemMemorySpace(memory),
    iommuPlatform: false,
    ...options,
  });
  negotiateFeatures(direct(net.core), { supported: featureBits(32, ...features) });
  const driver = createRawDriver(memory, net.core);
  setDriverOk(direct(net.core));
  return { net, driver, sent, incoming: (frame) => incoming(frame) };
}

const broadcast = (length: number): Uint8Array => new Uint8Array(length).fill(0xff);

test.each([68, 1500, 9000, 65_000])(
  'with an mtu of %i, packets of that size are sent on as they are [device-5.1.4.1-6]',
  (mtu) => {
    const { driver, sent } = bench([VIRTIO_NET_F_MTU], { mtu });
    const length = mtu + ETH_HLEN;
    const frame = Uint8Array.from({ length }, (_, i) => i & 0xff);
    driver.send(TX, [HEADER, length], [], Uint8Array.of(...new Uint8Array(HEADER), ...frame));
    expect(sent.length).toBe(1);
    expect(Buffer.compare(sent[0]!, frame)).toBe(0);
  },
);

test('num_buffers is the number of descriptor chains that hold the packet [device-5.1.6.3.2-1]', () => {
  for (const buffers of [1, 2, 5]) {
    const { driver, incoming } = bench([VIRTIO_NET_F_MRG_RXBUF]);
    driver.send(RX, [], [100]);
    const first = driver.lastIn;
    for (let i = 0; i < 8; i += 1) driver.send(RX, [], [100]);
    incoming(broadcast(100 * buffers - HEADER));
    expect(driver.used(RX).length).toBe(buffers);
    expect(driver.read(first)[10]).toBe(buffers);
  }
});

test('no gso_type is set whose feature was not negotiated [device-5.1.6.4.1-6, device-5.1.6.4.1-7, device-5.1.6.4.1-8]', () => {
  const { driver, incoming } = bench([VIRTIO_NET_F_MRG_RXBUF]);
  driver.send(RX, [], [60_000]);
  const buffer = driver.lastIn;
  incoming(broadcast(40_000));
  expect(driver.used(RX)).toEqual([40_000 + HEADER]);
  expect(driver.read(buffer)[1]).toBe(0);
});

test('the commands of CTRL_RX and of CTRL_RX_EXTRA are served [device-5.1.6.5.1.1-1, device-5.1.6.5.1.1-5]', () => {
  const { driver } = bench([
    VIRTIO_NET_F_CTRL_VQ,
    VIRTIO_NET_F_CTRL_RX,
    VIRTIO_NET_F_CTRL_RX_EXTRA,
  ]);
  // VIRTIO v1.2 §5.1.6.5.1: PROMISC, ALLMULTI, ALLUNI, NOMULTI, NOUNI, NOBCAST.
  for (const command of [0, 1, 2, 3, 4, 5]) {
    for (const isOn of [1, 0]) {
      driver.send(CTRL, [3], [1], Uint8Array.of(VIRTIO_NET_CTRL_RX, command, isOn));
      expect([driver.used(CTRL), driver.readIn()[0]]).toEqual([[1], 0]);
    }
  }
});

test('the speed is in units of 1 MBit per second, or unknown [device-5.1.4.1-9]', () => {
  const read = (options: Partial<VirtioNetOptions>): number => {
    const { net } = bench([VIRTIO_NET_F_SPEED_DUPLEX], options);
    const bytes = new Uint8Array(4);
    net.core.readConfig(12, bytes);
    return new DataView(bytes.buffer).getUint32(0, true);
  };
  expect([read({ speed: 1000 }), read({ duplex: 'full' })]).toEqual([1000, 0xffff_ffff]);
  expect(() => bench([], { speed: 2 ** 31 })).toThrow(/speed/);
});
