/** What the specification asks of drivers behind the legacy interface. */
import {
  createPciLegacyTransport,
  createVirtioPci,
  encodeBlkConfig,
  encodeConsoleConfig,
  encodeNetConfig,
  featureBits,
  hasFeature,
  VIRTIO_CONSOLE_CONTROL_RX,
  VIRTIO_CONSOLE_CONTROL_TX,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_F_ANY_LAYOUT,
  VIRTIO_F_VERSION_1,
  VIRTIO_ID_BLOCK,
  VIRTIO_ID_CONSOLE,
  VIRTIO_ID_NET,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_CTRL_VQ,
} from '@pinhole/virtio';
import { expect, test } from 'vitest';
import { probeVirtioBlk, probeVirtioConsole, probeVirtioNet } from '../../src/index.js';
import {
  createFakeDevice,
  type FakeDevice,
  type FakeDeviceOptions,
} from '../drivers/fake-device.js';

const MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);

/** The device, met through the registers of the legacy interface. */
function legacy(options: FakeDeviceOptions): FakeDevice {
  const device = createFakeDevice(options);
  const fn = createVirtioPci({ device: device.core, mode: 'transitional', msixVectors: 0 });
  const result = createPciLegacyTransport(fn);
  if (!result.ok) throw new Error(result.message);
  return { ...device, options: { ...device.options, transport: result.transport } };
}

// The text says that header is 8 bytes; its three fields have 4, 4 and 8.
test('a request is one descriptor with the header, some with data, and one byte for the status [driver-5.2.6.4-1]', () => {
  const device = legacy({
    deviceId: VIRTIO_ID_BLOCK,
    config: encodeBlkConfig({ capacity: 1000 }),
    answer: ({ inBytes }) => ({ bytes: new Uint8Array(inBytes) }),
  });
  const probed = probeVirtioBlk(device.options);
  if (!probed.ok) throw new Error(probed.message);
  const { driver } = probed;
  expect(
    [VIRTIO_F_VERSION_1, VIRTIO_F_ANY_LAYOUT].map((bit) => hasFeature(driver.features, bit)),
  ).toEqual([false, false]);
  const data = [{ gpa: 2 ** 24, length: 1024 }];
  driver.submit([
    { op: 'read', sector: 0, data },
    { op: 'write', sector: 0, data },
  ]);
  driver.readSerial();
  const shapes = device.received.map(({ outSegments, inSegments }) => [outSegments, inSegments]);
  expect(shapes).toEqual([
    [[16], [1024, 1]],
    [[16, 1024], [1]],
    [[16], [20, 1]],
  ]);
});

/** A device that does or does not offer ANY_LAYOUT, and its driver. */
function network(hasAnyLayout: boolean) {
  const inner = legacy({
    deviceId: VIRTIO_ID_NET,
    features: [
      VIRTIO_NET_F_CTRL_VQ,
      VIRTIO_NET_F_CTRL_RX,
      VIRTIO_NET_F_CTRL_VLAN,
      VIRTIO_NET_F_CTRL_MAC_ADDR,
    ],
    config: encodeNetConfig(MAC, { status: 1 }, 17),
    queues: [8, 8, 4],
    answer: ({ queue }) => {
      if (queue === 1) return {};
      return queue === 2 ? { bytes: Uint8Array.of(0) } : undefined;
    },
  });
  const { transport } = inner.options;
  const without = new Proxy(transport, {
    get(target, name): unknown {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]): unknown => {
        const result: unknown = value.apply(target, args);
        if (hasAnyLayout || name !== 'readDeviceFeatures') return result;
        return (result as bigint) & ~featureBits(VIRTIO_F_ANY_LAYOUT);
      };
    },
  });
  const probed = probeVirtioNet({
    ...inner.options,
    transport: without,
    onFrame: () => {},
  });
  if (!probed.ok) throw new Error(probed.message);
  const { driver } = probed;
  expect(hasFeature(driver.features, VIRTIO_F_VERSION_1)).toBe(false);
  expect(hasFeature(driver.features, VIRTIO_F_ANY_LAYOUT)).toBe(hasAnyLayout);
  const { length } = inner.received;
  const shapes = (): unknown =>
    inner.received
      .slice(length)
      .map(({ outSegments, inSegments }) => [...outSegments, '|', ...inSegments]);
  return { driver, shapes };
}

test('a command is a descriptor of two bytes, one with its data, and one byte for the ack [driver-5.1.6.6-2]', () => {
  const { driver, shapes } = network(false);
  driver.setPromiscuous(true);
  driver.setVlan(5, true);
  driver.setMac(MAC);
  expect(shapes()).toEqual([
    [2, 1, '|', 1],
    [2, 2, '|', 1],
    [2, 6, '|', 1],
  ]);
});

test('each table of addresses has a descriptor of its own [driver-5.1.6.6-3]', () => {
  const { driver, shapes } = network(false);
  driver.setAddresses([MAC], [MAC, MAC]);
  driver.setAddresses([], []);
  expect(shapes()).toEqual([
    [2, 4 + 6, 4 + 12, '|', 1],
    [2, 4, 4, '|', 1],
  ]);
});

test('the header of a frame has a descriptor of its own, unless the device takes any layout', () => {
  for (const [hasAnyLayout, shape] of [
    [false, [10, 60, '|']],
    [true, [70, '|']],
  ] as const) {
    const { driver, shapes } = network(hasAnyLayout);
    driver.send(new Uint8Array(60));
    expect(shapes()).toEqual([shape]);
  }
});

test('each control message, sent or to be received, is one descriptor [driver-5.3.6.4-1]', () => {
  const device = legacy({
    deviceId: VIRTIO_ID_CONSOLE,
    features: [VIRTIO_CONSOLE_F_MULTIPORT],
    config: encodeConsoleConfig({ maxNrPorts: 1 }, 8),
    queues: [4, 4, 4, 4],
    answer: ({ inBytes }) => (inBytes === 0 ? {} : undefined),
  });
  const probed = probeVirtioConsole(device.options);
  if (!probed.ok) throw new Error(probed.message);
  expect(hasFeature(probed.driver.features, VIRTIO_F_VERSION_1)).toBe(false);
  const shapes = (wanted: number): unknown =>
    device.received
      .filter(({ queue }) => queue === wanted)
      .map(({ outSegments, inSegments }) => [...outSegments, '|', ...inSegments]);
  // Four buffers, and DEVICE_READY.
  expect(shapes(VIRTIO_CONSOLE_CONTROL_RX)).toEqual(Array(4).fill(['|', 4096]));
  expect(shapes(VIRTIO_CONSOLE_CONTROL_TX)).toEqual([[8, '|']]);
});
