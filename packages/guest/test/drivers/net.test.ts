/** The virtio-net driver: what it sends and asks, and devices that answer badly. */
import {
  decodeNetHeader,
  encodeNetConfig,
  encodeNetHeader,
  VIRTIO_ID_NET,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_SPEED_DUPLEX,
  VIRTIO_NET_F_STATUS,
} from '@pinhole/virtio';
import { describe, expect, test } from 'vitest';
import { probeVirtioNet, type VirtioNetDriver } from '../../src/index.js';
import { type Answer, createFakeDevice, type FakeDevice } from './fake-device.js';

const RX = 0;
const TX = 1;
const CTRL = 2;
const MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const FEATURES = [
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_STATUS,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
];
const LINK_UP = { status: 1 };

interface Options {
  readonly features?: readonly number[];
  readonly config?: Uint8Array;
  readonly ctrl?: () => Answer | undefined;
}

interface Setup {
  readonly device: FakeDevice;
  readonly driver: VirtioNetDriver;
  readonly frames: number[][];
  readonly log: string[];
}

function fake({ features = FEATURES, config, ctrl }: Options = {}): FakeDevice {
  return createFakeDevice({
    deviceId: VIRTIO_ID_NET,
    features,
    config: config ?? encodeNetConfig(MAC, LINK_UP, 17),
    queues: [8, 8, 4],
    answer: ({ queue }) => {
      if (queue === TX) return {};
      if (queue === CTRL) return ctrl === undefined ? { bytes: Uint8Array.of(0) } : ctrl();
      return undefined;
    },
  });
}

function probe(options: Options = {}): Setup {
  const device = fake(options);
  const frames: number[][] = [];
  const log: string[] = [];
  const probed = probeVirtioNet({
    ...device.options,
    onFrame: (frame) => frames.push([...frame]),
    onLink: (isUp) => log.push(isUp ? 'up' : 'down'),
    onAnnounce: () => log.push('announce'),
  });
  if (!probed.ok) throw new Error(probed.message);
  return { device, driver: probed.driver, frames, log };
}

const commands = (device: FakeDevice) =>
  device.received.filter(({ queue }) => queue === CTRL).map(({ out }) => [...out]);

function packet(numBuffers: number, data: readonly number[], gsoType = 0): Uint8Array {
  return Buffer.concat([encodeNetHeader({ numBuffers, gsoType }), Uint8Array.from(data)]);
}

describe('what it sends', () => {
  test('The driver MUST set num_buffers to zero, flags to zero and gso_type to NONE [driver-5.1.6.2.1-1] [driver-5.1.6.2.1-2] [driver-5.1.6.2.1-3] [driver-5.1.6.2.1-4] [driver-5.1.6.2.1-5] [driver-5.1.6.2.1-6] [driver-5.1.6.2.1-11] [driver-5.1.6.2.1-16]', () => {
    const { device, driver } = probe();
    expect(driver.send(Uint8Array.of(1, 2, 3))).toBe(true);
    const sent = device.received.find(({ queue }) => queue === TX);
    expect(decodeNetHeader(sent!.out)).toEqual({
      flags: 0,
      gsoType: 0,
      hdrLen: 0,
      gsoSize: 0,
      csumStart: 0,
      csumOffset: 0,
      numBuffers: 0,
    });
    expect([...sent!.out.subarray(12)]).toEqual([1, 2, 3]);
  });

  test('the driver MUST NOT transmit packets of size exceeding mtu [driver-5.1.4.2-7]', () => {
    const { device, driver } = probe({
      features: [...FEATURES, VIRTIO_NET_F_MTU],
      config: encodeNetConfig(MAC, { ...LINK_UP, mtu: 1000 }, 17),
    });
    expect(driver.send(new Uint8Array(1019))).toBe(false);
    expect(driver.send(new Uint8Array(1018))).toBe(true);
    expect(driver.send(new Uint8Array(0))).toBe(false);
    expect(device.received.filter(({ queue }) => queue === TX)).toHaveLength(1);
    expect(driver.sent).toEqual({ frames: 1, dropped: 2 });
  });

  test('a full queue drops frames, and memory comes back', () => {
    const device = createFakeDevice({
      deviceId: VIRTIO_ID_NET,
      features: [VIRTIO_NET_F_MRG_RXBUF],
      queues: [8, 8],
      answer: () => undefined,
    });
    const probed = probeVirtioNet({ ...device.options, onFrame: () => {} });
    if (!probed.ok) throw new Error(probed.message);
    const { driver } = probed;
    for (let i = 0; i < 10; i += 1) driver.send(Uint8Array.of(i));
    expect(driver.sent).toEqual({ frames: 8, dropped: 2 });
    while (device.give(TX, new Uint8Array(0)));
    expect(driver.send(Uint8Array.of(9))).toBe(true);
    driver.remove();
    expect(device.live()).toBe(0);
  });
});

describe('receive buffers', () => {
  const sizes = (features: readonly number[], config?: Uint8Array): number[] => {
    const { device } = probe(config === undefined ? { features } : { features, config });
    return device.kept.map(({ element }) => element.inBytes);
  };

  test('If VIRTIO_NET_F_MRG_RXBUF is not negotiated, buffers of at least 1526 bytes [driver-5.1.6.3.1-2]', () => {
    expect(sizes([])).toEqual(Array(8).fill(1530));
  });

  test('each buffer MUST be at least the size of the struct virtio_net_hdr [driver-5.1.6.3.1-3]', () => {
    expect(sizes([VIRTIO_NET_F_MRG_RXBUF])).toEqual(Array(8).fill(1536));
  });

  test('it MUST supply enough receive buffers for one packet of size mtu [driver-5.1.4.2-6]', () => {
    const config = encodeNetConfig(MAC, { ...LINK_UP, mtu: 9000 }, 17);
    const total = (list: number[]) => list.reduce((sum, size) => sum + size, 0);
    expect(sizes([VIRTIO_NET_F_MTU], config)[0]).toBe(9030);
    expect(total(sizes([VIRTIO_NET_F_MTU, VIRTIO_NET_F_MRG_RXBUF], config))).toBeGreaterThan(9030);
  });

  test('used ones go back to the device', () => {
    const { device, frames } = probe();
    for (let i = 0; i < 100; i += 1) device.give(RX, packet(1, [i]));
    expect(frames).toEqual(Array.from({ length: 100 }, (_, i) => [i]));
    expect(device.kept).toHaveLength(8);
  });
});

describe('the configuration', () => {
  test('If the driver negotiates VIRTIO_NET_F_MAC, the driver MUST set the physical address to mac [driver-5.1.4.2-1] [driver-5.1.4.2-2]', () => {
    expect(probe().driver.mac).toEqual(MAC);
  });

  test('Otherwise, it SHOULD use a locally-administered MAC address [driver-5.1.4.2-3]', () => {
    expect((probe({ features: [] }).driver.mac[0] ?? 0) & 3).toBe(2);
  });

  test('without STATUS the link is active, otherwise it is the bottom bit of status [driver-5.1.4.2-4]', () => {
    const config = encodeNetConfig(MAC, { status: 0 }, 17);
    expect(probe({ features: [], config }).driver.isLinkUp).toBe(true);
    const { device, driver, log } = probe({ config });
    expect([driver.isLinkUp, log]).toEqual([false, ['down']]);
    config[6] = 0xfd;
    device.core.notifyConfig();
    device.core.notifyConfig();
    expect([driver.isLinkUp, log]).toEqual([true, ['down', 'up']]);
  });

  test('an MTU below 68 is refused, so it is negotiated [driver-5.1.4.2-5]', () => {
    const features = [VIRTIO_NET_F_MTU];
    const config = encodeNetConfig(MAC, { mtu: 67 }, 17);
    expect(probeVirtioNet({ ...fake({ features, config }).options, onFrame: () => {} })).toEqual({
      ok: false,
      message: 'device MTU appears to have changed it is now 67 < 68',
    });
  });

  test('the driver MUST treat speed above 0x7fffffff and duplex other than 0 or 1 as unknown; it re-reads them [driver-5.1.4.2-9] [driver-5.1.4.2-10]', () => {
    const config = encodeNetConfig(MAC, { speed: 0x8000_0000, duplex: 2 }, 17);
    const { driver } = probe({ features: [VIRTIO_NET_F_SPEED_DUPLEX], config });
    expect([driver.speed, driver.duplex]).toEqual([undefined, undefined]);
    config.set(encodeNetConfig(MAC, { speed: 0x7fff_ffff, duplex: 1 }, 17));
    expect([driver.speed, driver.duplex]).toEqual([0x7fff_ffff, 'full']);
  });
});

describe('commands', () => {
  test('MAC_TABLE_SET: a le32 number, that many addresses, and both again [driver-5.1.6.5.2.2-3]', () => {
    const { device, driver } = probe();
    const [a, b] = [Uint8Array.of(2, 0, 0, 0, 0, 1), Uint8Array.of(0x33, 0x33, 0, 0, 0, 2)];
    expect(driver.setAddresses([a], [b, b])).toBe(true);
    expect(commands(device)).toEqual([[1, 0, 1, 0, 0, 0, ...a, 2, 0, 0, 0, ...b, ...b]]);
  });

  test.each([
    ['promiscuous', (d: VirtioNetDriver) => d.setPromiscuous(true), [0, 0, 1]],
    ['all-multicast', (d: VirtioNetDriver) => d.setAllMulticast(false), [0, 1, 0]],
    ['a VLAN', (d: VirtioNetDriver) => d.setVlan(0x123, true), [2, 0, 0x23, 1]],
    ['no VLAN', (d: VirtioNetDriver) => d.setVlan(1, false), [2, 1, 1, 0]],
    ['an address', (d: VirtioNetDriver) => d.setMac(MAC), [1, 1, ...MAC]],
  ])('%s', (_what, act, bytes) => {
    const { device, driver } = probe();
    expect(act(driver)).toBe(true);
    expect(commands(device)).toEqual([bytes]);
  });

  test('the driver MUST NOT issue commands whose feature was not negotiated [driver-5.1.6.5.1.2-1] [driver-5.1.6.5.2.2-1]', () => {
    const { device, driver } = probe({ features: [VIRTIO_NET_F_CTRL_VQ] });
    expect([
      driver.setPromiscuous(true),
      driver.setAllMulticast(true),
      driver.setAddresses([], []),
      driver.setMac(MAC),
      driver.setVlan(1, true),
    ]).toEqual([false, false, false, false, false]);
    expect(commands(device)).toEqual([]);
  });

  test('it notifies its peers and sends the ack after it sees VIRTIO_NET_S_ANNOUNCE [driver-5.1.6.5.4.1-1] [driver-5.1.6.5.4.1-2]', () => {
    const config = encodeNetConfig(MAC, { status: 3 }, 17);
    const { device, log } = probe({ config });
    expect([log, commands(device)]).toEqual([['announce'], [[3, 0]]]);
  });

  test.each([
    ['an error', () => ({ bytes: Uint8Array.of(1) })],
    ['an unknown ack', () => ({ bytes: Uint8Array.of(0x55) })],
    ['no ack', () => ({ length: 1 })],
    ['no answer', () => undefined],
  ])('%s: it failed, and the address stays', (_what, ctrl) => {
    const { driver } = probe({ ctrl });
    expect(driver.setMac(Uint8Array.of(2, 2, 2, 2, 2, 2))).toBe(false);
    expect(driver.mac).toEqual(MAC);
  });

  test('an answer that comes too late is not taken for that of the next command', () => {
    let answers = 0;
    const { device, driver } = probe({
      ctrl: () => {
        answers += 1;
        return answers === 1 ? undefined : { bytes: Uint8Array.of(1) };
      },
    });
    expect(driver.setPromiscuous(true)).toBe(false);
    device.give(CTRL, Uint8Array.of(0));
    expect(driver.setPromiscuous(true)).toBe(false);
    driver.remove();
    expect(device.live()).toBe(0);
  });

  test('a feature that needs the control queue, without it: no driver', () => {
    const device = fake({ features: [VIRTIO_NET_F_CTRL_VLAN] });
    expect(probeVirtioNet({ ...device.options, onFrame: () => {} })).toEqual({
      ok: false,
      message: 'device advertises feature VIRTIO_NET_F_CTRL_VLAN but not VIRTIO_NET_F_CTRL_VQ',
    });
  });
});

describe('packets that make no sense are dropped, and the next is received', () => {
  test.each([
    ['less than a header', [[packet(1, []).subarray(0, 11), 11]]],
    ['nothing', [[new Uint8Array(0), 0]]],
    ['longer than its buffer', [[packet(1, [1]), 1537]]],
    ['four billion bytes', [[packet(1, [1]), 0xffff_ffff]]],
    ['in no buffer', [[packet(0, [1]), 13]]],
    ['of segments that nobody asked for', [[packet(1, [1], 1), 13]]],
    [
      'the second buffer too long',
      [
        [packet(2, [1]), 13],
        [Uint8Array.of(2), 1537],
      ],
    ],
  ] as const)('%s', (_what, buffers) => {
    const { device, driver, frames } = probe();
    // All at once: a driver that looks finds all.
    const last = buffers.length - 1;
    buffers.forEach(([bytes, length], i) => {
      if (i < last) device.hold(RX, bytes, length);
      else device.give(RX, bytes, length);
    });
    expect([frames, driver.receiveErrors]).toEqual([[], 1]);
    device.give(RX, packet(1, [7, 8]));
    expect(frames).toEqual([[7, 8]]);
    expect(device.kept).toHaveLength(8);
  });

  test('buffers that are missing: what is there is taken, and no more', () => {
    const { device, driver, frames } = probe();
    device.give(RX, packet(65_535, [1]));
    expect([frames, driver.receiveErrors, device.kept.length]).toEqual([[], 1, 8]);
  });

  test('a packet of several buffers is put together', () => {
    const { device, frames } = probe();
    device.hold(RX, packet(3, [1, 2]));
    device.hold(RX, Uint8Array.of(3));
    device.give(RX, Uint8Array.of(4, 5));
    expect(frames).toEqual([[1, 2, 3, 4, 5]]);
  });

  test('The driver MUST ignore flag bits that it does not recognize, and MUST NOT rely on hdr_len [driver-5.1.6.4.2-1] [driver-5.1.6.4.2-2] [driver-5.1.6.4.2-3]', () => {
    const { device, frames } = probe();
    const header = encodeNetHeader({
      flags: 0xff,
      hdrLen: 0xffff,
      csumStart: 0xffff,
      csumOffset: 0xffff,
      numBuffers: 1,
    });
    device.give(RX, Buffer.concat([header, Uint8Array.of(1, 2, 3)]));
    expect(frames).toEqual([[1, 2, 3]]);
  });
});
