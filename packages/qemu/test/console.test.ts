/** virtio-serial: ports, control messages, emergency write, and drivers that do wrong. */
import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import {
  decodeConsoleConfig,
  decodeConsoleControl,
  encodeConsoleControl,
  featureBits,
  negotiateFeatures,
  setDriverOk,
  VIRTIO_CONSOLE_F_EMERG_WRITE,
  VIRTIO_CONSOLE_F_MULTIPORT,
} from '@pinhole/virtio';
import { describe, expect, test } from 'vitest';
import {
  type ConsoleBackend,
  ConsoleLog,
  VirtioConsole,
  type VirtioConsoleOptions,
} from '../src/index.js';
import { direct } from './direct-transport.js';
import { createRawDriver, type RawDriver } from './raw-driver.js';

const CONTROL_RX = 2;
const CONTROL_TX = 3;
const [DEVICE_READY, PORT_ADD, PORT_READY, CONSOLE_PORT, PORT_OPEN, PORT_NAME] = [
  0, 1, 3, 4, 6, 7,
] as const;

interface Setup {
  readonly device: VirtioConsole;
  readonly driver: RawDriver;
  readonly log: ConsoleLog;
  /** Sends a control message, with room for `answers`; what came. */
  control(id: number, event: number, value: number, answers?: number): unknown[];
}

function setup(
  options: Partial<VirtioConsoleOptions> = {},
  features: readonly number[] = [VIRTIO_CONSOLE_F_MULTIPORT],
): Setup {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 24 }] });
  const log = new ConsoleLog(64);
  const device = new VirtioConsole({
    ports: [{ backend: log }],
    maxPorts: 4,
    memory,
    systemMemory: createSystemMemorySpace(memory),
    iommuPlatform: false,
    ...options,
  });
  negotiateFeatures(direct(device.core), { supported: featureBits(32, ...features) });
  const driver = createRawDriver(memory, device.core);
  setDriverOk(direct(device.core));
  // Buffers that wait for messages, oldest first.
  const reads: (() => Uint8Array)[] = [];
  return {
    device,
    driver,
    log,
    control(id, event, value, answers = 8) {
      while (reads.length < answers) {
        driver.send(CONTROL_RX, [], [64]);
        const { lastIn } = driver;
        reads.push(() => driver.read(lastIn));
      }
      const bytes = encodeConsoleControl({ id, event, value });
      driver.send(CONTROL_TX, [bytes.length], [], bytes);
      expect(driver.used(CONTROL_TX)).toEqual([0]);
      return driver.used(CONTROL_RX).map((length) => {
        const found = (reads.shift() as () => Uint8Array)().subarray(0, length);
        const rest = Buffer.from(found.subarray(8)).toString('latin1');
        const { id: port, event: what, value: n } = decodeConsoleControl(found)!;
        return rest === '' ? [port, what, n] : [port, what, n, rest];
      });
    },
  };
}

const bytes = (text: string): Uint8Array => Uint8Array.from(text, (char) => char.charCodeAt(0));
const taken = (log: ConsoleLog): string => Buffer.from(log.bytes).toString('latin1');

describe('control messages', () => {
  test('the device adds its ports when the driver is ready, none twice, none from max_nr_ports on [device-5.3.6.2.1-1]', () => {
    const ports = [{ backend: new ConsoleLog() }, { backend: new ConsoleLog(), id: 3 }];
    const { control } = setup({ ports });
    expect(control(0, DEVICE_READY, 1)).toEqual([
      [0, PORT_ADD, 1],
      [3, PORT_ADD, 1],
    ]);
    expect(() => setup({ ports: [{ backend: new ConsoleLog(), id: 4 }] })).toThrow(/below 4/);
    const twice = [
      { backend: new ConsoleLog(), id: 1 },
      { backend: new ConsoleLog(), id: 1 },
    ];
    expect(() => setup({ ports: twice })).toThrow(/a port of its own/);
  });

  test('a port that is ready hears what it is, its name, and that this end is open', () => {
    const port = { backend: new ConsoleLog(), isConsole: false, name: 'org.example.agent' };
    const { control } = setup({ ports: [{ backend: new ConsoleLog() }, port] });
    expect(control(0, PORT_READY, 1)).toEqual([
      [0, CONSOLE_PORT, 1],
      [0, PORT_OPEN, 1],
    ]);
    expect(control(1, PORT_READY, 1)).toEqual([
      [1, PORT_NAME, 1, 'org.example.agent\0'],
      [1, PORT_OPEN, 1],
    ]);
  });

  test('a driver that failed hears nothing', () => {
    const { control } = setup();
    expect([control(0, DEVICE_READY, 0), control(0, PORT_READY, 0)]).toEqual([[], []]);
  });

  test('without a buffer for it a message is lost; into a short one goes its beginning', () => {
    const { driver, control } = setup();
    expect(control(0, DEVICE_READY, 1, 0)).toEqual([]);
    driver.send(CONTROL_RX, [], [3]);
    const message = encodeConsoleControl({ id: 0, event: DEVICE_READY, value: 1 });
    driver.send(CONTROL_TX, [8], [], message);
    expect(driver.used(CONTROL_RX)).toEqual([8]);
  });

  test.each([
    ['of an unknown port', 7, PORT_OPEN, 1],
    ['of an unknown kind', 0, 99, 1],
    ['that only the device sends', 0, PORT_ADD, 1],
  ])('one %s is ignored', (_what, id, event, value) => {
    const { device, control } = setup();
    expect(control(id, event, value)).toEqual([]);
    expect(device.core.errors).toEqual([]);
  });

  test('half a message, an empty one and a huge one are ignored', () => {
    const { device, driver } = setup();
    driver.send(CONTROL_TX, [7], []);
    driver.send(CONTROL_TX, [], [8]);
    driver.send(CONTROL_TX, [2 ** 20], []);
    expect(driver.used(CONTROL_TX)).toEqual([0, 0, 0]);
    expect(device.core.errors).toEqual([]);
  });
});

describe('what the guest writes', () => {
  test('goes to the backend, in any pieces', () => {
    const { driver, log } = setup();
    driver.send(1, [3, 2, 1], [], bytes('abcdef'));
    driver.send(1, [4], [], bytes('ghij'));
    expect([taken(log), driver.used(1)]).toEqual(['abcdefghij', [0, 0]]);
  });

  test('to a port that nobody has is dropped', () => {
    const { driver } = setup();
    driver.send(4 + 1, [4], [], bytes('lost'));
    expect(driver.used(5)).toEqual([0]);
  });

  const slow = (): ConsoleBackend & { room: number; got: string } => ({
    room: 5,
    got: '',
    write(part) {
      const count = Math.min(this.room, part.length);
      this.got += Buffer.from(part.subarray(0, count)).toString('latin1');
      this.room -= count;
      return count;
    },
  });

  test('and a serial port cannot take is held, where it stopped', () => {
    const backend = slow();
    const { device, driver } = setup({ ports: [{ backend, isConsole: false }] });
    const [port] = device.ports;
    expect(port?.id).toBe(1);
    driver.send(5, [3, 5], [], bytes('abcdefgh'));
    driver.send(5, [2], [], bytes('ij'));
    expect([backend.got, driver.used(5)]).toEqual(['abcde', []]);
    backend.room = 4;
    port?.resume();
    expect([backend.got, driver.used(5)]).toEqual(['abcdefghi', [0]]);
    backend.room = 9;
    port?.resume();
    expect([backend.got, driver.used(5)]).toEqual(['abcdefghij', [0]]);
  });

  test('and a console cannot take is lost, for it would stop the guest', () => {
    const backend = slow();
    const { driver } = setup({ ports: [{ backend }] });
    driver.send(1, [8], [], bytes('abcdefgh'));
    expect([backend.got, driver.used(1)]).toEqual(['abcde', [0]]);
  });

  test('a held buffer is given up when this end closes, at the reset and with its queue', () => {
    for (const end of ['close', 'reset', 'queue'] as const) {
      const backend = { ...slow(), room: 0 };
      const { device, driver } = setup({ ports: [{ backend, isConsole: false, id: 1 }] });
      driver.send(5, [4], [], bytes('abcd'));
      driver.send(5, [4], [], bytes('efgh'));
      if (end === 'close') device.ports[0]?.setOpen(false);
      else if (end === 'reset') direct(device.core).writeStatus(0);
      else device.core.resetQueue(5);
      backend.room = 100;
      device.ports[0]?.resume();
      expect(backend.got).toBe('');
      if (end === 'close') expect(driver.used(5)).toEqual([0]);
    }
  });

  test('is kept by a log only as far as its limit', () => {
    const { driver, log } = setup();
    for (let i = 0; i < 10; i += 1) driver.send(1, [30], [], bytes(String(i).repeat(30)));
    expect(taken(log)).toBe('7'.repeat(4) + '8'.repeat(30) + '9'.repeat(30));
  });
});

describe('input', () => {
  test('fills buffers while there are some, once the guest has the port open', () => {
    const { device, driver, control } = setup();
    const [port] = device.ports;
    driver.send(0, [], [2]);
    driver.send(0, [], [100]);
    expect([port?.input(bytes('early')), port?.room]).toEqual([0, 0]);
    control(0, PORT_OPEN, 1);
    expect([port?.isGuestConnected, port?.room]).toEqual([true, 102]);
    expect(port?.input(bytes('hello'))).toBe(5);
    expect(driver.used(0)).toEqual([2, 3]);
    expect([port?.input(bytes('more')), port?.room]).toEqual([0, 0]);
    control(0, PORT_OPEN, 0);
    driver.send(0, [], [8]);
    expect(port?.input(bytes('late'))).toBe(0);
  });

  test('without control messages the only port is open from DRIVER_OK on', () => {
    const { device, driver } = setup({ maxPorts: 1 }, []);
    driver.send(0, [], [8]);
    expect(device.ports[0]?.input(bytes('hi'))).toBe(2);
  });

  test('into buffers that cannot be written goes nothing, and they come back', () => {
    const { device, driver, control } = setup();
    control(0, PORT_OPEN, 1);
    for (let i = 0; i < 5; i += 1) driver.send(0, [8], []);
    expect(device.ports[0]?.input(bytes('hi'))).toBe(0);
    expect(driver.used(0)).toEqual([0, 0, 0, 0, 0]);
  });

  test('the backend hears when the guest opens the port, gives room, and closes it', () => {
    const log: string[] = [];
    const backend: ConsoleBackend = {
      write: ({ length }) => length,
      onGuest: (isOpen) => log.push(isOpen ? 'open' : 'closed'),
      onWritable: () => log.push('room'),
    };
    const { device, driver, control } = setup({ ports: [{ backend }] });
    driver.send(0, [], [8]);
    control(0, PORT_OPEN, 1);
    control(0, PORT_OPEN, 1);
    driver.send(0, [], [8]);
    direct(device.core).writeStatus(0);
    expect(log).toEqual(['open', 'room', 'closed']);
  });
});

describe('emergency write', () => {
  test('The device MUST allow a write to emerg_wr, even on an unconfigured device; its lower byte goes out [device-5.3.5.1-1] [device-5.3.5.1-2]', () => {
    const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 20 }] });
    const log = new ConsoleLog();
    const device = new VirtioConsole({
      ports: [{ backend: log }],
      memory,
      systemMemory: createSystemMemorySpace(memory),
      iommuPlatform: false,
    });
    device.core.writeConfig(8, Uint8Array.of(0x41, 1, 2, 3));
    device.core.writeConfig(0, Uint8Array.of(9));
    device.core.writeConfig(8, Uint8Array.of(0x42, 0, 0, 0));
    expect(taken(log)).toBe('AB');
  });

  test('can be switched off', () => {
    const { device, log } = setup({ emergencyWrite: false }, [VIRTIO_CONSOLE_F_EMERG_WRITE]);
    device.core.writeConfig(8, Uint8Array.of(0x41, 0, 0, 0));
    expect([taken(log), device.core.modernFeatures & 4n]).toEqual(['', 0n]);
  });
});

test("features, configuration and queues are QEMU's", () => {
  const { device } = setup({ maxPorts: 31 });
  expect(device.core.modernFeatures).toBe(0x101_3000_0006n);
  const config = new Uint8Array(12);
  device.core.readConfig(0, config);
  expect(decodeConsoleConfig(config)).toEqual({ cols: 0, rows: 0, maxNrPorts: 31, emergWr: 0 });
  const sizes = Array.from({ length: 65 }, (_, i) => device.core.queueSize(i));
  expect(sizes).toEqual([128, 128, 32, 32, ...Array(60).fill(128), 0]);
  expect(() => setup({ maxPorts: 512 })).toThrow(/max_ports/);
});
