/**
 * Published holes of drivers that face a hostile device, met by ours. Each comment names the text that
 * was read; docs/VIRTIO-CVES.md has the table.
 */
import {
  encodeConsoleConfig,
  encodeConsoleControl,
  VIRTIO_CONSOLE_CONTROL_RX,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_PORT_ADD,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_ID_CONSOLE,
} from '@pinhole/virtio';
import { expect, test } from 'vitest';
import { probeVirtioConsole } from '../../src/index.js';
import { createFakeDevice } from '../drivers/fake-device.js';

function bench(features: readonly number[]) {
  const device = createFakeDevice({
    deviceId: VIRTIO_ID_CONSOLE,
    features,
    config: encodeConsoleConfig({ maxNrPorts: 1 }, 12),
    queues: [4, 4, 4, 4],
    answer: ({ inBytes }) => (inBytes === 0 ? {} : undefined),
  });
  const probed = probeVirtioConsole(device.options);
  if (!probed.ok) throw new Error(probed.message);
  return { device, driver: probed.driver };
}

// CVE-2021-38160, record of the CVE list: "In drivers/char/virtio_console.c in the Linux kernel before
// 5.13.4, data corruption or loss can be triggered by an untrusted device that supplies a buf->len
// value exceeding the buffer size." Marked as disputed: "the length validation was added solely for
// robustness in the face of anomalous host OS behavior".
test.each([4097, 2 ** 16, 2 ** 31, 0xffff_ffff])(
  'CVE-2021-38160: input that claims %i bytes is no more than its buffer',
  (claimed) => {
    const { device, driver } = bench([]);
    const port = driver.ports.get(0)!;
    device.give(0, new Uint8Array(4096).fill(0x61), claimed);
    expect(port.available).toBe(4096);
    const into = new Uint8Array(8192);
    expect(port.read(into)).toBe(4096);
    expect(into.subarray(0, 4096).every((byte) => byte === 0x61)).toBe(true);
    expect(into.subarray(4096).every((byte) => byte === 0)).toBe(true);
    // What comes after it is found where it is.
    device.give(0, Uint8Array.of(1, 2, 3));
    expect([port.read(into), ...into.subarray(0, 3)]).toEqual([3, 1, 2, 3]);
  },
);

test('CVE-2021-38160: nor is a control message more than its buffer', () => {
  const { device, driver } = bench([VIRTIO_CONSOLE_F_MULTIPORT]);
  const say = (event: number, more?: Uint8Array, length?: number): void => {
    const message = encodeConsoleControl({ id: 0, event, value: 1 }, more);
    device.give(VIRTIO_CONSOLE_CONTROL_RX, message, length ?? message.length);
  };
  say(VIRTIO_CONSOLE_PORT_ADD);
  say(VIRTIO_CONSOLE_PORT_NAME, new Uint8Array(4096 - 8).fill(0x61), 0xffff_ffff);
  expect(driver.ports.get(0)?.name).toBe('a'.repeat(4096 - 8));
});
