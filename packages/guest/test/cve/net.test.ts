/**
 * Published holes of drivers that face a hostile device, met by ours. Each comment names the text that
 * was read; docs/VIRTIO-CVES.md has the table.
 */
import { encodeNetHeader, VIRTIO_ID_NET, VIRTIO_NET_F_MRG_RXBUF } from '@pinhole/virtio';
import { expect, test } from 'vitest';
import { probeVirtioNet } from '../../src/index.js';
import { createFakeDevice } from '../drivers/fake-device.js';

const RX = 0;
const HEADER = 12;

function bench(features: readonly number[]) {
  const device = createFakeDevice({
    deviceId: VIRTIO_ID_NET,
    features,
    config: new Uint8Array(12),
    queues: [16, 16],
    answer: () => undefined,
  });
  const frames: Uint8Array[] = [];
  const probed = probeVirtioNet({ ...device.options, onFrame: (frame) => frames.push(frame) });
  if (!probed.ok) throw new Error(probed.message);
  return { device, frames, driver: probed.driver };
}

/** A header that says over how many buffers the packet is spread, and `length` bytes after it. */
function packet(numBuffers: number, length: number): Uint8Array {
  const bytes = new Uint8Array(HEADER + length).fill(0xab);
  bytes.set(encodeNetHeader({ numBuffers }).subarray(0, HEADER));
  return bytes;
}

// CVE-2025-38375, record of the CVE list: "when reading the following buffers from the ring, we forget to
// check the received length with the true allocate size. This can lead to an out-of-bound read."
test.each([0xffff_ffff, 2 ** 31, 70_000, 4097 + 61_440])(
  'CVE-2025-38375: a following buffer that claims %i bytes spoils its packet; nothing else is read',
  (length) => {
    const { device, frames, driver } = bench([VIRTIO_NET_F_MRG_RXBUF]);
    // Both are there when the driver looks.
    for (const [bytes, claimed] of [
      [packet(2, 100), HEADER + 100],
      [new Uint8Array(10), length],
    ] as const) {
      const at = device.kept.findIndex(({ queue }) => queue === device.core.queues[RX]);
      const { queue, element } = device.kept.splice(at, 1)[0]!;
      device.memory.write(element.gpa[0]!, bytes);
      queue.push(element, claimed);
    }
    device.core.notifyDriver(RX);
    expect([frames.length, driver.receiveErrors]).toEqual([0, 1]);
    device.give(RX, packet(1, 60));
    expect(frames.map((frame) => frame.length)).toEqual([60]);
  },
);

test.each([
  ['mergeable buffers', [VIRTIO_NET_F_MRG_RXBUF]],
  ['one buffer a packet', []],
])(
  'CVE-2025-38375: with %s the first that claims more than it has, or no header, is an error',
  (_, features) => {
    const { device, frames, driver } = bench(features);
    for (const length of [0xffff_ffff, 100_000, HEADER - 1, 0]) {
      device.give(RX, packet(1, 60), length);
    }
    expect([frames.length, driver.receiveErrors]).toEqual([0, 4]);
    device.give(RX, packet(1, 60));
    expect(frames.map((frame) => frame.length)).toEqual([60]);
  },
);
