/** virtio-net: which frames come in, how they lie in buffers, commands, and drivers that do wrong. */
import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import {
  decodeNetConfig,
  decodeNetHeader,
  featureBits,
  negotiateFeatures,
  setDriverOk,
  VIRTIO_CONFIG_S_NEEDS_RESET,
  VIRTIO_NET_CTRL_ANNOUNCE,
  VIRTIO_NET_CTRL_MAC,
  VIRTIO_NET_CTRL_RX,
  VIRTIO_NET_CTRL_VLAN,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_MRG_RXBUF,
} from '@pinhole/virtio';
import { describe, expect, test } from 'vitest';
import { VirtioNet, type VirtioNetOptions } from '../src/index.js';
import { direct } from './direct-transport.js';
import { createRawDriver, type RawDriver } from './raw-driver.js';

const RX = 0;
const TX = 1;
const CTRL = 2;
const [PROMISC, ALLMULTI, ALLUNI, NOMULTI, NOUNI, NOBCAST] = [0, 1, 2, 3, 4, 5] as const;
const OWN = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const OTHER = [0x52, 0x54, 0, 0, 0, 1];
const GROUP = [0x33, 0x33, 0, 0, 0, 1];
const ALL = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff];

interface Setup {
  readonly net: VirtioNet;
  readonly driver: RawDriver;
  /** What the device sent. */
  readonly sent: Uint8Array[];
  /** A frame comes in; how many buffers it took. */
  receive(frame: Uint8Array): number;
  /** Sends a command; its ack. */
  control(kind: number, command: number, data?: readonly number[]): number;
  readonly configs: { count: number };
}

function setup(
  features: readonly number[] = [VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_CTRL_VQ],
  options: Partial<VirtioNetOptions> = {},
): Setup {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 26 }] });
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
  const configs = { count: 0 };
  net.core.onInterrupt((cause) => {
    if (cause === 'config') configs.count += 1;
  });
  negotiateFeatures(direct(net.core), { supported: featureBits(32, ...features) });
  const driver = createRawDriver(memory, net.core);
  setDriverOk(direct(net.core));
  return {
    net,
    driver,
    sent,
    configs,
    receive(frame) {
      driver.send(RX, [], [2000]);
      incoming(frame);
      return driver.used(RX).length;
    },
    control(kind, command, data = []) {
      const bytes = Uint8Array.of(kind, command, ...data);
      driver.send(CTRL, [bytes.length], [1], bytes);
      expect(driver.used(CTRL)).toEqual([1]);
      return driver.readIn()[0] as number;
    },
  };
}

function frame(to: readonly number[], length = 60, vlan?: number): Uint8Array {
  const bytes = Uint8Array.from({ length }, (_, i) => i & 0xff);
  bytes.set(to);
  bytes.set([0x02, 0, 0, 0, 0, 9], 6);
  if (vlan !== undefined) bytes.set([0x81, 0, vlan >> 8, vlan & 0xff], 12);
  return bytes;
}

/** Frames into a device with these receive buffers: what is used, and the bytes. */
function into(
  sizes: readonly number[],
  frames: readonly Uint8Array[],
  features: readonly number[] = [VIRTIO_NET_F_MRG_RXBUF],
): Setup & { used: number[]; buffers: Uint8Array[] } {
  let incoming: (frame: Uint8Array) => void = () => {};
  const made = setup(features, {
    backend: {
      send: () => {},
      onReceive: (receive) => {
        incoming = receive;
      },
    },
  });
  const reads = sizes.map((size) => {
    made.driver.send(RX, [], [size], new Uint8Array(0), 0xee);
    const { lastIn } = made.driver;
    return () => made.driver.read(lastIn);
  });
  for (const one of frames) incoming(one);
  const used = made.driver.used(RX);
  return { ...made, used, buffers: reads.map((read) => read()) };
}

describe('received packets', () => {
  test('If VIRTIO_NET_F_MRG_RXBUF has been negotiated, the device MUST set num_buffers to the number of buffers [device-5.1.6.4.1-2]', () => {
    const one = frame(OWN, 1000);
    const { used, buffers } = into([512, 400, 400, 400], [one]);
    expect(used).toEqual([512, 400, 100]);
    expect(decodeNetHeader(buffers[0]!)).toMatchObject({ flags: 0, gsoType: 0, numBuffers: 3 });
    const found = Buffer.concat([buffers[0]!.subarray(12), buffers[1]!, buffers[2]!]);
    expect(Buffer.compare(found.subarray(0, 1000), one)).toBe(0);
  });

  test('the device MUST use all buffers but the last completely [device-5.1.6.4.1-3]', () => {
    for (const sizes of [[12, 60], [13, 59], [30, 30, 30, 30], [72]]) {
      const { used } = into(sizes, [frame(OWN, 60)]);
      expect(used.slice(0, -1)).toEqual(sizes.slice(0, used.length - 1));
      expect(used.reduce((sum, length) => sum + length, 0)).toBe(72);
    }
  });

  test('The device MUST use all buffers used by a single receive packet together [device-5.1.6.4.1-4]', () => {
    const { net, driver, used } = into([40, 40], [frame(OWN, 100)]);
    expect(used).toEqual([]);
    driver.send(RX, [], [40]);
    expect(driver.used(RX)).toEqual([40, 40, 32]);
    expect(net.dropped.rx).toBe(0);
  });

  test('The device MUST use only a single descriptor if VIRTIO_NET_F_MRG_RXBUF was not negotiated [device-5.1.6.3.2-2]', () => {
    const { net, used } = into([50, 2000], [frame(OWN, 60), frame(OWN, 30)], []);
    // The first frame fits no buffer, and the buffer stays.
    expect(used).toEqual([42]);
    expect(net.dropped.rx).toBe(1);
  });

  test('without offloads the header says so [device-5.1.6.4.1-5] [device-5.1.6.4.1-13] [device-5.1.6.4.1-16]', () => {
    for (const features of [[], [VIRTIO_NET_F_MRG_RXBUF]]) {
      const { buffers } = into([2000], [frame(OWN)], features);
      expect([...buffers[0]!.subarray(0, 10)]).toEqual(Array(10).fill(0));
    }
  });

  test('frames wait for buffers, 256 at most', () => {
    const frames = Array.from({ length: 300 }, (_, i) => frame(OWN, 60 + i));
    const { net, driver } = into([], frames);
    expect(net.dropped.rx).toBe(44);
    for (let i = 0; i < 256; i += 1) driver.send(RX, [], [2000]);
    expect(driver.used(RX)).toEqual(frames.slice(0, 256).map(({ length }) => length + 12));
  });
});

describe('the filter', () => {
  const ready = (): Setup => {
    const made = setup([VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_CTRL_VQ]);
    expect(made.control(VIRTIO_NET_CTRL_RX, PROMISC, [0])).toBe(0);
    return made;
  };
  const passes = ({ receive }: Setup) =>
    Object.entries({ OWN, OTHER, GROUP, ALL })
      .filter(([, to]) => receive(frame(to)) === 1)
      .map(([name]) => name);

  test('The device SHOULD drop packets for neither its mac nor the table [device-5.1.6.5.2.1-4]', () => {
    expect(passes(ready())).toEqual(['OWN', 'ALL']);
  });

  test('If promiscous mode is on, the device SHOULD receive all incoming packets [device-5.1.6.5.1.1-2]', () => {
    expect(passes(setup())).toEqual(['OWN', 'OTHER', 'GROUP', 'ALL']);
  });

  test('promiscuous mode takes effect even if one of the other modes is on [device-5.1.6.5.1.1-3]', () => {
    const made = setup();
    for (const mode of [NOMULTI, NOUNI, NOBCAST]) made.control(VIRTIO_NET_CTRL_RX, mode, [1]);
    expect(passes(made)).toEqual(['OWN', 'OTHER', 'GROUP', 'ALL']);
  });

  test.each([
    ['all-multicast [device-5.1.6.5.1.1-4]', [ALLMULTI], ['OWN', 'GROUP', 'ALL']],
    ['all-unicast [device-5.1.6.5.1.1-6]', [ALLUNI], ['OWN', 'OTHER', 'ALL']],
    [
      'no multicast, even if all-multicast is on, but broadcast [device-5.1.6.5.1.1-7] [device-5.1.6.5.1.1-8] [device-5.1.6.5.1.1-9]',
      [ALLMULTI, NOMULTI],
      ['OWN', 'ALL'],
    ],
    [
      'no unicast, even if all-unicast is on [device-5.1.6.5.1.1-10] [device-5.1.6.5.1.1-11]',
      [ALLUNI, NOUNI],
      ['ALL'],
    ],
    [
      'no broadcast, even if all-multicast is on [device-5.1.6.5.1.1-12] [device-5.1.6.5.1.1-13]',
      [ALLMULTI, NOBCAST],
      ['OWN', 'GROUP'],
    ],
  ])('%s', (_what, modes, expected) => {
    const made = ready();
    for (const mode of modes) expect(made.control(VIRTIO_NET_CTRL_RX, mode, [1])).toBe(0);
    expect(passes(made)).toEqual(expected);
  });

  const table = (unicast: readonly (readonly number[])[], multicast: typeof unicast): number[] =>
    [unicast, multicast].flatMap((macs) => [macs.length & 0xff, 0, 0, 0, ...macs.flat()]);

  test('The device MUST update the MAC filtering table before it consumes the command [device-5.1.6.5.2.1-2]', () => {
    const made = ready();
    expect(made.control(VIRTIO_NET_CTRL_MAC, 0, table([OTHER], [GROUP]))).toBe(0);
    expect(passes(made)).toEqual(['OWN', 'OTHER', 'GROUP', 'ALL']);
    expect(made.control(VIRTIO_NET_CTRL_MAC, 0, table([GROUP], [OTHER]))).toBe(0);
    expect(passes(made)).toEqual(['OWN', 'ALL']);
  });

  test('a table that is too large lets all of its kind in; both share 64 entries', () => {
    const many = (n: number) => Array.from({ length: n }, (_, i) => [2, 0, 0, 0, 1, i]);
    const made = ready();
    expect(made.control(VIRTIO_NET_CTRL_MAC, 0, table(many(65), []))).toBe(0);
    expect(passes(made)).toEqual(['OWN', 'OTHER', 'ALL']);
    expect(made.control(VIRTIO_NET_CTRL_MAC, 0, table(many(60), many(5)))).toBe(0);
    expect(passes(made)).toEqual(['OWN', 'GROUP', 'ALL']);
  });

  test('The device MUST update mac in config space before it consumes VIRTIO_NET_CTRL_MAC_ADDR_SET [device-5.1.6.5.2.1-3]', () => {
    const made = ready();
    expect(made.control(VIRTIO_NET_CTRL_MAC, 1, OTHER)).toBe(0);
    const config = new Uint8Array(6);
    made.net.core.readConfig(0, config);
    expect([...config]).toEqual(OTHER);
    expect(passes(made)).toEqual(['OTHER', 'ALL']);
  });

  test('The device MUST have an empty MAC filtering table on reset [device-5.1.6.5.2.1-1]', () => {
    const made = ready();
    made.control(VIRTIO_NET_CTRL_MAC, 0, table([OTHER], [GROUP]));
    made.control(VIRTIO_NET_CTRL_MAC, 1, OTHER);
    direct(made.net.core).writeStatus(0);
    const config = new Uint8Array(6);
    made.net.core.readConfig(0, config);
    expect([...config]).toEqual(OWN);
  });

  test('VLANs: all without the feature, with it those that were added', () => {
    const without = ready();
    expect(without.receive(frame(OWN, 60, 7))).toBe(1);
    const made = setup([VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_CTRL_VLAN]);
    made.control(VIRTIO_NET_CTRL_RX, PROMISC, [0]);
    expect(made.receive(frame(OWN, 60, 7))).toBe(0);
    expect(made.control(VIRTIO_NET_CTRL_VLAN, 0, [7, 0])).toBe(0);
    expect(made.receive(frame(OWN, 60, 0xe007))).toBe(1);
    expect(made.receive(frame(OWN, 60, 8))).toBe(0);
    expect(made.control(VIRTIO_NET_CTRL_VLAN, 1, [7, 0])).toBe(0);
    expect(made.receive(frame(OWN, 60, 7))).toBe(0);
    expect(made.control(VIRTIO_NET_CTRL_VLAN, 0, [0, 16])).toBe(1);
  });
});

describe('commands that are wrong answer an error and change nothing', () => {
  test.each([
    ['an unknown class', 99, 0, []],
    ['queue pairs', 4, 0, [1, 0]],
    ['offloads', 5, 0, [0, 0, 0, 0, 0, 0, 0, 0]],
    ['an unknown receive mode', VIRTIO_NET_CTRL_RX, 6, [1]],
    ['a receive mode without a value', VIRTIO_NET_CTRL_RX, PROMISC, []],
    ['a short address', VIRTIO_NET_CTRL_MAC, 1, [1, 2, 3, 4, 5]],
    ['a long address', VIRTIO_NET_CTRL_MAC, 1, [1, 2, 3, 4, 5, 6, 7]],
    ['half a table', VIRTIO_NET_CTRL_MAC, 0, [1, 0, 0, 0, 1, 2, 3]],
    ['one table', VIRTIO_NET_CTRL_MAC, 0, [0, 0, 0, 0]],
    ['a table and a rest', VIRTIO_NET_CTRL_MAC, 0, [0, 0, 0, 0, 0, 0, 0, 0, 1]],
    ['four billion addresses', VIRTIO_NET_CTRL_MAC, 0, [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]],
    ['an unknown command for addresses', VIRTIO_NET_CTRL_MAC, 2, [1, 2, 3, 4, 5, 6]],
    ['half a VLAN', VIRTIO_NET_CTRL_VLAN, 0, [1]],
    ['an unknown command for VLANs', VIRTIO_NET_CTRL_VLAN, 2, [1, 0]],
    ['an ack of no announcement', VIRTIO_NET_CTRL_ANNOUNCE, 0, []],
  ])('%s', (_what, kind, command, data) => {
    const { net, control } = setup();
    expect(control(kind, command, data)).toBe(1);
    expect(net.core.errors).toEqual([]);
  });
});

test('the device MUST clear VIRTIO_NET_S_ANNOUNCE upon receipt of VIRTIO_NET_CTRL_ANNOUNCE_ACK [device-5.1.6.5.4.2-1]', () => {
  const { net, control, configs } = setup([VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_ANNOUNCE]);
  const status = (): number => {
    const bytes = new Uint8Array(8);
    net.core.readConfig(0, bytes);
    return decodeNetConfig(bytes).status;
  };
  net.announce();
  expect([status(), configs.count]).toEqual([3, 1]);
  expect(control(VIRTIO_NET_CTRL_ANNOUNCE, 0)).toBe(0);
  expect([status(), configs.count]).toEqual([1, 1]);
});

describe('sending', () => {
  test.each([
    ['in one piece', [72]],
    ['header apart', [12, 60]],
    ['header in pieces', [1, 5, 6, 60]],
    ['header and some data, then byte by byte', [20, 1, 1, 50]],
  ])('%s: the frame is what comes after the header', (_what, pieces) => {
    const { driver, sent } = setup();
    const one = frame(OTHER);
    driver.send(TX, pieces, [], Buffer.concat([new Uint8Array(12), one]));
    expect(driver.used(TX)).toEqual([0]);
    expect(sent.map((bytes) => Buffer.compare(bytes, one))).toEqual([0]);
  });

  test('The device MUST ignore flag bits that it does not recognize; it MUST NOT rely on hdr_len [device-5.1.6.2.2-1] [device-5.1.6.2.2-2] [device-5.1.6.2.2-3]', () => {
    const { driver, sent } = setup();
    const header = new Uint8Array(12).fill(0xff);
    header[0] = 0xfe;
    driver.send(TX, [72], [], Buffer.concat([header, frame(OTHER)]));
    expect(sent.map((bytes) => Buffer.compare(bytes, frame(OTHER)))).toEqual([0]);
  });

  test('nothing but a header, less than one, or too much: returned, and not sent', () => {
    const { net, driver, sent } = setup();
    for (const size of [12, 11, 1, 12 + 69_633]) driver.send(TX, [size], []);
    expect(driver.used(TX)).toEqual([0, 0, 0, 0]);
    expect([sent, net.dropped.tx]).toEqual([[], 4]);
  });

  test('the link is down: nothing is sent or received, and the driver hears of it', () => {
    const { net, driver, sent, receive, configs } = setup();
    net.setLink(false);
    net.setLink(false);
    expect([configs.count, net.isLinkUp]).toEqual([1, false]);
    driver.send(TX, [72], []);
    expect([driver.used(TX), sent]).toEqual([[0], []]);
    expect(receive(frame(OWN))).toBe(0);
    net.setLink(true);
    expect([configs.count, receive(frame(OWN))]).toEqual([2, 1]);
  });
});

describe('a hostile driver breaks its device', () => {
  test.each([
    ['a frame in a writable buffer', TX, [], [72], 'virtio-net header not in first element'],
    ['a command without room for the ack', CTRL, [3], [], 'virtio-net ctrl missing headers'],
    ['half a command', CTRL, [1], [1], 'virtio-net ctrl missing headers'],
  ] as const)('%s', (_what, queue, out, inn, message) => {
    const { net, driver } = setup();
    driver.send(queue, out, inn);
    expect(net.core.errors).toEqual([message]);
    expect(net.core.status & VIRTIO_CONFIG_S_NEEDS_RESET).not.toBe(0);
    expect(driver.used(queue)).toEqual([]);
  });

  test('a receive buffer that cannot be written', () => {
    const made = setup([]);
    made.driver.send(RX, [2000], []);
    expect(made.receive(frame(OWN))).toBe(0);
    expect(made.net.core.errors).toEqual(['virtio-net receive queue contains no in buffers']);
  });

  test('a first receive buffer that is too short for the header', () => {
    for (const features of [[], [VIRTIO_NET_F_MRG_RXBUF]]) {
      const { net, used } = into([11, 2000], [frame(OWN)], features);
      expect(net.core.errors).toEqual(['virtio-net receive buffer too short for the header']);
      expect(used).toEqual([]);
    }
  });
});

describe('what is offered', () => {
  test("QEMU's defaults without offloads", () => {
    const { net } = setup();
    // 2 GUEST_OFFLOADS, 5 MAC, 15 to 21, 23; 28, 29; 32; 40.
    expect(net.core.modernFeatures).toBe(0x101_30bf_8024n);
    expect(net.core.queueSize(2)).toBe(64);
    expect(net.core.queueSize(3)).toBe(0);
  });

  test('MTU, speed and duplex as the user says; features that are switched off', () => {
    const { net } = setup([], { mtu: 9000, speed: 1000, duplex: 'full', without: [15, 17] });
    const features = net.core.modernFeatures;
    expect([3n, 63n, 15n, 17n].map((bit) => (features >> bit) & 1n)).toEqual([1n, 1n, 0n, 0n]);
    const bytes = new Uint8Array(17);
    net.core.readConfig(0, bytes);
    expect(decodeNetConfig(bytes)).toEqual({
      status: 1,
      maxVirtqueuePairs: 1,
      mtu: 9000,
      speed: 1000,
      duplex: 1,
    });
  });

  test.each([{ mtu: 67 }, { mtu: 65_536 }, { speed: -1 }, { mac: new Uint8Array(5) }])(
    '%o is refused [device-5.1.4.1-2]',
    (options) => {
      expect(() => setup([], options)).toThrow(/virtio-net: expected/);
    },
  );
});
