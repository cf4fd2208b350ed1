/** The console driver: what it says, and devices that say nonsense. */
import {
  encodeConsoleConfig,
  encodeConsoleControl,
  VIRTIO_CONSOLE_F_EMERG_WRITE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
  VIRTIO_ID_CONSOLE,
} from '@pinhole/virtio';
import { describe, expect, test } from 'vitest';
import { probeVirtioConsole, type VirtioConsoleDriver } from '../../src/index.js';
import { createFakeDevice, type FakeDevice, type FakeDeviceOptions } from './fake-device.js';

const CONTROL_RX = 2;
const CONTROL_TX = 3;
const [ADD, REMOVE, CONSOLE, RESIZE, OPEN, NAME] = [1, 2, 4, 5, 6, 7] as const;

interface Setup {
  readonly device: FakeDevice;
  readonly driver: VirtioConsoleDriver;
  readonly inputs: number[];
  say(id: number, event: number, value: number, more?: Uint8Array): void;
  /** What the driver said since the last call: port, event, value. */
  said(): number[][];
}

function fake(options: Partial<FakeDeviceOptions> = {}): FakeDevice {
  return createFakeDevice({
    deviceId: VIRTIO_ID_CONSOLE,
    features: [VIRTIO_CONSOLE_F_MULTIPORT],
    config: encodeConsoleConfig({ maxNrPorts: 3 }, 12),
    queues: [4, 4, 4, 4, 4, 4, 4, 4],
    answer: ({ queue }) => (queue % 2 === 1 ? {} : undefined),
    ...options,
  });
}

function probe(options: Partial<FakeDeviceOptions> = {}): Setup {
  const device = fake(options);
  const inputs: number[] = [];
  const probed = probeVirtioConsole({ ...device.options, onInput: ({ id }) => inputs.push(id) });
  if (!probed.ok) throw new Error(probed.message);
  return {
    device,
    driver: probed.driver,
    inputs,
    say: (id, event, value, more) =>
      void device.give(CONTROL_RX, encodeConsoleControl({ id, event, value }, more)),
    said: () =>
      device.received
        .splice(0)
        .filter(({ queue }) => queue === CONTROL_TX)
        .map(({ out }) => [out[0] as number, out[4] as number, out[6] as number]),
  };
}

const text = (value: string): Uint8Array => Buffer.from(value, 'latin1');

function readAll(driver: VirtioConsoleDriver, id: number): string {
  const into = new Uint8Array(20_000);
  const count = driver.ports.get(id)?.read(into) ?? 0;
  return Buffer.from(into.subarray(0, count)).toString('latin1');
}

describe('what it says', () => {
  test('The driver MUST send a VIRTIO_CONSOLE_DEVICE_READY message if VIRTIO_CONSOLE_F_MULTIPORT is negotiated [driver-5.3.6.2.2-1]', () => {
    expect(probe().said()).toEqual([[0, 0, 1]]);
    expect(probe({ features: [] }).said()).toEqual([]);
  });

  test('a port is ready when it was added, and again if it is added again', () => {
    const { driver, say, said } = probe();
    said();
    say(2, ADD, 1);
    say(2, ADD, 1);
    expect(said()).toEqual([
      [2, 3, 1],
      [2, 3, 1],
    ]);
    expect([...driver.ports.keys()]).toEqual([2]);
  });

  test('Upon receipt of a CONSOLE_PORT message, the driver MUST respond with PORT_OPEN of value 1 [driver-5.3.6.2.2-2]', () => {
    const { driver, say, said } = probe();
    say(1, ADD, 1);
    said();
    say(1, CONSOLE, 1);
    expect(said()).toEqual([[1, OPEN, 1]]);
    expect(driver.ports.get(1)).toMatchObject({ isConsole: true, isGuestConnected: true });
  });

  test('it opens and closes a port by request', () => {
    const { driver, say, said } = probe();
    say(1, ADD, 1);
    said();
    expect([driver.setOpen(1, true), driver.setOpen(1, true), driver.setOpen(1, false)]).toEqual([
      true,
      true,
      true,
    ]);
    expect(said()).toEqual([
      [1, OPEN, 1],
      [1, OPEN, 0],
    ]);
    expect(driver.setOpen(9, true)).toBe(false);
  });

  test('The driver MUST NOT put a device-readable buffer in a receiveq, nor a device-writable one in a transmitq [driver-5.3.6.1-1] [driver-5.3.6.1-2]', () => {
    const { device, driver, say } = probe();
    say(0, ADD, 1);
    say(0, OPEN, 1);
    driver.ports.get(0)?.write(text('hello'));
    expect(device.received.length).toBeGreaterThan(8);
    for (const { queue, outSegments, inSegments } of device.received) {
      expect((queue % 2 === 0 ? outSegments : inSegments).length).toBe(0);
    }
  });
});

describe('ports', () => {
  test('input is read in any portions, from any number of buffers, which go back', () => {
    const { device, driver, inputs } = probe({ features: [] });
    const sent = Array.from({ length: 20 }, (_, i) => `line ${i}\n`);
    let read = '';
    for (const line of sent) {
      device.give(0, text(line));
      const into = new Uint8Array(3);
      const count = driver.ports.get(0)?.read(into) ?? 0;
      read += Buffer.from(into.subarray(0, count)).toString('latin1');
      if (device.kept.length < 2) read += readAll(driver, 0);
    }
    read += readAll(driver, 0);
    expect(read).toBe(sent.join(''));
    expect([device.kept.length, inputs.length]).toEqual([4, 20]);
  });

  test('input for a closed port is dropped', () => {
    const { device, driver, say } = probe();
    say(1, ADD, 1);
    device.give(4, text('early'));
    expect(driver.ports.get(1)?.available).toBe(0);
    driver.setOpen(1, true);
    device.give(4, text('now'));
    expect(readAll(driver, 1)).toBe('now');
  });

  test('a write waits for the other end, but for a console; a full queue takes no more', () => {
    const { device, driver, say } = probe({
      answer: ({ queue }) => (queue === 3 ? {} : undefined),
    });
    say(1, ADD, 1);
    const port = driver.ports.get(1);
    expect(port?.write(text('a'))).toBe(0);
    say(1, OPEN, 1);
    expect(port?.write(text('a'))).toBe(1);
    expect(port?.write(new Uint8Array(200_000))).toBe(3 * 32_768);
    expect(port?.write(text('b'))).toBe(0);
    device.give(5, new Uint8Array(0));
    expect(port?.write(text('b'))).toBe(1);
    driver.remove();
    expect(device.live()).toBe(0);
  });

  test('one that is removed takes no writes, and can come back', () => {
    const { device, driver, say } = probe();
    say(1, ADD, 1);
    say(1, OPEN, 1);
    const port = driver.ports.get(1);
    say(1, REMOVE, 1);
    expect([driver.ports.size, port?.write(text('x'))]).toEqual([0, 0]);
    for (let i = 0; i < 50; i += 1) {
      say(1, ADD, 1);
      say(1, REMOVE, 1);
    }
    say(1, ADD, 1);
    say(1, OPEN, 1);
    driver.setOpen(1, true);
    device.give(4, text('again'));
    expect(readAll(driver, 1)).toBe('again');
    driver.remove();
    expect(device.live()).toBe(0);
  });

  test('name and size are as the device says; the first name stays', () => {
    const { driver, say } = probe();
    say(1, ADD, 1);
    say(1, CONSOLE, 1);
    say(1, NAME, 1, text('first\0'));
    say(1, NAME, 1, text('second\0'));
    say(1, RESIZE, 1, Uint8Array.of(80, 0, 25, 0));
    expect(driver.ports.get(1)).toMatchObject({ name: 'first', size: { cols: 80, rows: 25 } });
  });

  test('without control messages the size is in the configuration', () => {
    const config = encodeConsoleConfig({ cols: 132, rows: 50 }, 12);
    const { device, driver } = probe({ features: [VIRTIO_CONSOLE_F_SIZE], config });
    expect(driver.ports.get(0)?.size).toEqual({ cols: 132, rows: 50 });
    config[0] = 40;
    device.core.notifyConfig();
    expect(driver.ports.get(0)?.size).toEqual({ cols: 40, rows: 50 });
  });

  test('emergency write goes to the configuration, if the device has it', () => {
    const written: Uint8Array[] = [];
    const hooks = { setConfig: (config: Uint8Array) => void written.push(config.slice(8)) };
    expect(probe({ hooks }).driver.emergencyWrite(0x41)).toBe(false);
    const { driver } = probe({ features: [VIRTIO_CONSOLE_F_EMERG_WRITE], hooks });
    expect(driver.emergencyWrite(0x141)).toBe(true);
    expect(written).toEqual([Uint8Array.of(0x41, 0, 0, 0)]);
  });
});

describe('a device in error', () => {
  test.each([
    ['a port from max_nr_ports on', 3, ADD],
    ['four billion ports', 0xffff_ffff, ADD],
    ['a message to an unknown port', 2, OPEN],
    ['the removal of an unknown port', 2, REMOVE],
    ['an unknown event', 1, 77],
  ])('%s is ignored', (_what, id, event) => {
    const { driver, say, said } = probe();
    say(1, ADD, 1);
    said();
    say(id, event, 1);
    expect([said(), [...driver.ports.keys()], driver.badMessages]).toEqual([[], [1], 1]);
  });

  test.each([
    ['half a message', Uint8Array.of(1, 0, 0), 3],
    ['nothing', new Uint8Array(0), 0],
    ['a size that is cut short', encodeConsoleControl({ id: 1, event: RESIZE, value: 1 }), 10],
  ])('%s is ignored', (_what, bytes, length) => {
    const { device, driver, say } = probe();
    say(1, ADD, 1);
    say(1, CONSOLE, 1);
    device.give(CONTROL_RX, bytes, length);
    expect([driver.badMessages, driver.ports.get(1)?.size]).toEqual([1, undefined]);
  });

  test('a name without end, and a length beyond the buffer: no more than the buffer', () => {
    const { device, driver, say } = probe();
    say(1, ADD, 1);
    const long = encodeConsoleControl({ id: 1, event: NAME, value: 1 }, Buffer.alloc(4088, 'x'));
    device.give(CONTROL_RX, long, 0xffff_ffff);
    expect(driver.ports.get(1)?.name).toBe('x'.repeat(4088));
  });

  test('input longer than its buffer is cut; empty input is none', () => {
    const { device, driver, inputs } = probe({ features: [] });
    device.give(0, new Uint8Array(0));
    expect(inputs).toEqual([]);
    device.give(0, text('x'), 0xffff_ffff);
    expect(driver.ports.get(0)?.available).toBe(4096);
    expect(device.kept).toHaveLength(3);
    readAll(driver, 0);
    expect(device.kept).toHaveLength(4);
  });

  test('more ports than queues: no driver', () => {
    const config = encodeConsoleConfig({ maxNrPorts: 0xffff_ffff }, 12);
    expect(probeVirtioConsole(fake({ config }).options)).toEqual({
      ok: false,
      message: 'no queue 8',
    });
  });
});
