/**
 * Published holes of virtio-serial devices, met by ours. Each comment names the text that was read;
 * docs/VIRTIO-CVES.md has the table.
 */
import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import {
  encodeConsoleControl,
  featureBits,
  negotiateFeatures,
  setDriverOk,
  VIRTIO_CONFIG_S_NEEDS_RESET,
  VIRTIO_CONSOLE_CONTROL_RX,
  VIRTIO_CONSOLE_CONTROL_TX,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_PORT_READY,
} from '@pinhole/virtio';
import { expect, test } from 'vitest';
import { ConsoleLog, VirtioConsole } from '../../src/index.js';
import { direct } from '../direct-transport.js';
import { createRawDriver } from '../raw-driver.js';

const AT = 0x4000;
const AROUND = 64;
const NAME = 'a.name.that.is.longer.than.any.buffer.here';

// CVE-2015-5745, record of the CVE list: "Buffer overflow in the send_control_msg function in
// hw/char/virtio-serial-bus.c in QEMU before 2.4.0 allows guest users to cause a denial of service
// (QEMU process crash) via a crafted virtio control message."
test.each([1, 2, 3, 4, 7, 8, 9, 20])(
  'CVE-2015-5745: into control buffers of %i bytes the device writes no more than they have',
  (length) => {
    const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 24 }] });
    const device = new VirtioConsole({
      ports: [{ backend: new ConsoleLog(), isConsole: false, id: 1, name: NAME }],
      maxPorts: 2,
      memory,
      systemMemory: createSystemMemorySpace(memory),
      iommuPlatform: false,
    });
    negotiateFeatures(direct(device.core), {
      supported: featureBits(32, VIRTIO_CONSOLE_F_MULTIPORT),
    });
    const driver = createRawDriver(memory, device.core);
    setDriverOk(direct(device.core));
    memory.fill(AT, 4 * AROUND, 0xee);
    // One buffer for PORT_ADD, one for PORT_NAME, one for PORT_OPEN.
    for (let i = 0; i < 3; i += 1) {
      driver.add(VIRTIO_CONSOLE_CONTROL_RX, [], [{ gpa: AT + i * AROUND, length }]);
    }
    for (const event of [VIRTIO_CONSOLE_DEVICE_READY, VIRTIO_CONSOLE_PORT_READY]) {
      const message = encodeConsoleControl({ id: 1, event, value: 1 });
      driver.send(VIRTIO_CONSOLE_CONTROL_TX, [message.length], [], message);
    }
    expect(driver.used(VIRTIO_CONSOLE_CONTROL_RX)).toHaveLength(3);
    const found = driver.read([{ gpa: AT, length: 4 * AROUND }]);
    for (let i = 0; i < 4; i += 1) {
      const from = i < 3 ? length : 0;
      const beside = found.subarray(i * AROUND + from, (i + 1) * AROUND);
      expect(beside.every((byte) => byte === 0xee)).toBe(true);
    }
    // What was written is the beginning of each message.
    for (let i = 0; i < 3; i += 1) expect(found[i * AROUND]).toBe(1);
    expect(device.core.status & VIRTIO_CONFIG_S_NEEDS_RESET).toBe(0);
  },
);
