import { describe, expect, test } from 'vitest';
import {
  connectMmioInterrupts,
  createMmioTransport,
  createVirtioMmio,
  type MmioRegion,
  type VirtioMmioDevice,
  type VirtioTransport,
} from '../../src/index.js';
import { bringUp, FEATURES, roundTrip, type TestDevice, testDevice } from './test-device.js';
import { type Access, watchRegion } from './watched-registers.js';

// VIRTIO v1.2 §4.2.2, table "MMIO Device Register Layout": offset, direction.
const REGISTERS: Readonly<Record<number, string>> = {
  0: 'R',
  4: 'R',
  8: 'R',
  12: 'R',
  16: 'R',
  20: 'W',
  32: 'W',
  36: 'W',
  48: 'W',
  52: 'R',
  56: 'W',
  68: 'RW',
  80: 'W',
  96: 'R',
  100: 'W',
  112: 'RW',
  128: 'W',
  132: 'W',
  144: 'W',
  148: 'W',
  160: 'W',
  164: 'W',
  172: 'W',
  176: 'R',
  180: 'R',
  184: 'R',
  188: 'R',
  192: 'RW',
  252: 'R',
};
const MAGIC = 0x000;
const VERSION = 0x004;
const DEVICE_ID = 0x008;
const DEVICE_FEATURES = 0x010;
const DEVICE_FEATURES_SEL = 0x014;
const DRIVER_FEATURES = 0x020;
const DRIVER_FEATURES_SEL = 0x024;
const QUEUE_SEL = 0x030;
const QUEUE_NUM = 0x038;
const QUEUE_READY = 0x044;
const QUEUE_NOTIFY = 0x050;
const INTERRUPT_STATUS = 0x060;
const INTERRUPT_ACK = 0x064;
const STATUS = 0x070;
const QUEUE_DESC = 0x080;
const QUEUE_DRIVER = 0x090;
const QUEUE_DEVICE = 0x0a0;
const QUEUE_RESET = 0x0c0;
const CONFIG_GENERATION = 0x0fc;
const CONFIG = 0x100;

interface Bench {
  readonly device: TestDevice;
  readonly region: VirtioMmioDevice;
  readonly lines: boolean[];
}

function bench(): Bench {
  const device = testDevice();
  const region = createVirtioMmio({ device: device.core });
  const lines: boolean[] = [];
  region.onInterrupt((isAsserted) => lines.push(isAsserted));
  return { device, region, lines };
}

/** By hand: a queue of 8 entries at 0x1000, live, without EVENT_IDX and not packed. */
function goLive({ region }: Bench): void {
  const write = (at: number, value: number): void => region.write(at, 4, value);
  for (const status of [0, 1, 3]) write(STATUS, status);
  for (const [half, bits] of [
    [1, 0x101],
    [0, 0],
  ] as const) {
    write(DRIVER_FEATURES_SEL, half);
    write(DRIVER_FEATURES, bits);
  }
  write(STATUS, 11);
  write(QUEUE_SEL, 0);
  write(QUEUE_NUM, 8);
  write(QUEUE_DESC, 0x1000);
  write(QUEUE_DRIVER, 0x2000);
  write(QUEUE_DEVICE, 0x3000);
  write(QUEUE_READY, 1);
  write(STATUS, 15);
}

/** Puts one buffer into that queue and kicks; whether it came back. */
function serves({ device, region }: Bench): boolean {
  const { memory } = device;
  const idx = memory.readU16Le(0x2002);
  memory.writeU64Le(0x1000, 0x8000n);
  memory.writeU32Le(0x1008, 16);
  memory.writeU32Le(0x100c, 0);
  memory.writeU16Le(0x2004 + 2 * (idx % 8), 0);
  memory.writeU16Le(0x2002, idx + 1);
  const before = memory.readU16Le(0x3002);
  region.write(QUEUE_NOTIFY, 4, 0);
  return memory.readU16Le(0x3002) !== before;
}

describe('the device', () => {
  test('says "virt", and version 2 [device-4.2.2.1-1, device-4.2.2.1-2]', () => {
    const { region } = bench();
    expect([region.read(MAGIC, 4), region.read(VERSION, 4)]).toEqual([0x7472_6976, 2]);
  });

  test('shows an event until it is acknowledged, and no other bits [device-4.2.2.1-3, device-4.2.2.1-4]', () => {
    const b = bench();
    goLive(b);
    const status = (): number => b.region.read(INTERRUPT_STATUS, 4);
    expect(status()).toBe(0);
    expect(serves(b)).toBe(true);
    expect([status(), status()]).toEqual([1, 1]);
    b.device.core.notifyConfig();
    expect(status()).toBe(3);
    b.region.write(INTERRUPT_ACK, 4, 1);
    expect(status()).toBe(2);
    b.region.write(INTERRUPT_ACK, 4, 2);
    expect(status()).toBe(0);
    expect(b.lines).toEqual([true, false]);
  });

  test('a reset clears InterruptStatus and QueueReady of all queues [device-4.2.2.1-5]', () => {
    const b = bench();
    goLive(b);
    serves(b);
    b.region.write(QUEUE_SEL, 4, 1);
    b.region.write(QUEUE_DESC, 4, 0x5000);
    b.region.write(QUEUE_READY, 4, 1);
    b.region.write(STATUS, 4, 0);
    expect(b.region.read(INTERRUPT_STATUS, 4)).toBe(0);
    for (const queue of [0, 1]) {
      b.region.write(QUEUE_SEL, 4, queue);
      expect(b.region.read(QUEUE_READY, 4)).toBe(0);
    }
  });

  test('changes ConfigGeneration with the configuration [device-4.2.2.1-6]', () => {
    const b = bench();
    const before = b.region.read(CONFIG_GENERATION, 4);
    b.device.config[0] = 77;
    b.device.core.notifyConfig();
    expect(b.region.read(CONFIG, 1)).toBe(77);
    expect(b.region.read(CONFIG_GENERATION, 4)).not.toBe(before);
  });

  test('leaves a queue alone that is not ready [device-4.2.2.1-7]', () => {
    const b = bench();
    goLive(b);
    expect(serves(b)).toBe(true);
    b.region.write(QUEUE_SEL, 4, 0);
    b.region.write(QUEUE_READY, 4, 0);
    expect(b.region.read(QUEUE_READY, 4)).toBe(0);
    expect(serves(b)).toBe(false);
  });

  test('QueueReset: 0 on reset, 0 while the queue is ready, 0 with QueueReady when it is over [device-4.2.2.1-8, device-4.2.2.1-9, device-4.2.2.1-10, device-4.2.2.1-12]', () => {
    const b = bench();
    const read = (): number[] => [b.region.read(QUEUE_READY, 4), b.region.read(QUEUE_RESET, 4)];
    b.region.write(STATUS, 4, 0);
    expect(read()).toEqual([0, 0]);
    goLive(b);
    expect(read()).toEqual([1, 0]);
    b.region.write(QUEUE_RESET, 4, 1);
    expect(read()).toEqual([0, 0]);
    expect(serves(b)).toBe(false);
    expect(b.device.core.queues[0]!.isConfigured).toBe(false);
  });
});

interface Watched {
  readonly device: TestDevice;
  readonly region: VirtioMmioDevice;
  readonly log: Access[];
  connect(): VirtioTransport;
  writes(at: number): number[];
}

function watched(answer: (at: number) => number | undefined = () => undefined): Watched {
  const device = testDevice();
  const region = createVirtioMmio({ device: device.core });
  const log: Access[] = [];
  const outer = watchRegion(region, log, answer);
  return {
    device,
    region,
    log,
    connect() {
      const result = createMmioTransport(outer, { interrupts: connectMmioInterrupts(region) });
      if (!result.ok) throw new Error(result.message);
      return result.transport;
    },
    writes: (at) => log.filter((a) => a.kind === 'write' && a.at === at).map(({ value }) => value),
  };
}

function session(w: Watched): void {
  const transport = w.connect();
  const { queues, open } = bringUp(w.device, transport);
  for (let i = 0; i < 20; i += 1) expect(roundTrip(queues[i % 2]!)).toBe(true);
  transport.readConfig(0, new Uint8Array(8));
  transport.readConfig(4, new Uint8Array(4));
  transport.readConfig(2, new Uint8Array(2));
  transport.readConfig(7, new Uint8Array(1));
  transport.configGeneration();
  transport.writeConfig(0, Uint8Array.of(9));
  transport.resetQueue(0);
  open(0);
  expect(roundTrip(queues[0]!)).toBe(true);
  transport.writeStatus(0);
}

describe('the driver', () => {
  /** Registers that read as this, and all that a driver asks of them. */
  const probe = (registers: Readonly<Record<number, number>>) => {
    const log: Access[] = [];
    const inner: MmioRegion = {
      size: 0x200,
      read: (at) => registers[at] ?? 0,
      write: () => {},
    };
    const result = createMmioTransport(watchRegion(inner, log));
    return { result, asked: log.map(({ kind, at }) => `${kind} ${at}`) };
  };

  test('accesses the registers of the table, as their direction says, with 32 bits [driver-4.2.2.2-1, driver-4.2.2.2-2]', () => {
    const w = watched();
    session(w);
    const registers = w.log.filter(({ at }) => at < CONFIG);
    expect(registers.length).toBeGreaterThan(50);
    for (const { at, kind, width } of registers) {
      expect(REGISTERS[at]).toContain(kind === 'read' ? 'R' : 'W');
      expect(width).toBe(4);
    }
    for (const { at, width } of w.log.filter((access) => access.at >= CONFIG)) {
      expect(at + width).toBeLessThanOrEqual(CONFIG + 8);
    }
  });

  test('accesses fields of the configuration at their width [driver-4.2.2.2-3]', () => {
    const w = watched();
    session(w);
    const reads = w.log.filter(({ at, kind }) => at >= CONFIG && kind === 'read');
    expect(reads.map(({ at, width }) => [at - CONFIG, width])).toEqual([
      [0, 4],
      [4, 4],
      [4, 4],
      [2, 2],
      [7, 1],
    ]);
  });

  test('begins with MagicValue and Version, and takes no other device [driver-4.2.2.2-4, driver-4.2.2.2-5, driver-4.2.3.1.1-1]', () => {
    expect(probe({ [MAGIC]: 0x7472_6977, [VERSION]: 2, [DEVICE_ID]: 2 }).result.ok).toBe(false);
    for (const version of [0, 1, 3]) {
      const { result, asked } = probe({ [MAGIC]: 0x7472_6976, [VERSION]: version, [DEVICE_ID]: 2 });
      expect(result.ok).toBe(false);
      expect(asked).toEqual(['read 0', 'read 4']);
    }
  });

  test('where there is no device looks no further, and it is no error [driver-4.2.2.2-6, driver-4.2.3.1.1-2]', () => {
    const { result, asked } = probe({ [MAGIC]: 0x7472_6976, [VERSION]: 2, [DEVICE_ID]: 0 });
    expect(result).toMatchObject({ ok: false, reason: 'no-device' });
    expect(asked).toEqual(['read 0', 'read 4', 'read 8']);
  });

  test('selects before it reads and writes features [driver-4.2.2.2-7, driver-4.2.2.2-8]', () => {
    const w = watched();
    session(w);
    const order = w.log
      .filter(({ at }) =>
        [DEVICE_FEATURES, DEVICE_FEATURES_SEL, DRIVER_FEATURES, DRIVER_FEATURES_SEL].includes(at),
      )
      .map(({ at, value }) =>
        at === DEVICE_FEATURES || at === DRIVER_FEATURES ? at : [at, value],
      );
    expect(order).toEqual([
      [DEVICE_FEATURES_SEL, 1],
      DEVICE_FEATURES,
      [DEVICE_FEATURES_SEL, 0],
      DEVICE_FEATURES,
      [DRIVER_FEATURES_SEL, 1],
      DRIVER_FEATURES,
      [DRIVER_FEATURES_SEL, 0],
      DRIVER_FEATURES,
    ]);
  });

  test('does not touch size and addresses of a queue that is ready [driver-4.2.2.2-10]', () => {
    const w = watched();
    session(w);
    const ready = new Set<number>();
    let selected = 0;
    for (const { at, kind, value } of w.log.filter((access) => access.kind === 'write')) {
      if (at === STATUS && value === 0) ready.clear();
      else if (at === QUEUE_SEL) selected = value;
      else if (at === QUEUE_RESET && value === 1) ready.delete(selected);
      else if (at === QUEUE_READY) {
        if (value === 1) ready.add(selected);
        else ready.delete(selected);
      } else if (at === QUEUE_NUM || (at >= QUEUE_DESC && at <= QUEUE_DEVICE + 4)) {
        expect([kind, ready.has(selected)]).toEqual(['write', false]);
      }
    }
    expect(w.writes(QUEUE_NUM)).toEqual([16, 16, 16]);
  });

  test('ignores bits of InterruptStatus that mean nothing [driver-4.2.2.2-12]', () => {
    let pretended: number | undefined;
    const w = watched((at) => (at === INTERRUPT_STATUS ? pretended : undefined));
    const heard: string[] = [];
    const transport = w.connect();
    transport.onInterrupt((cause) => heard.push(cause));
    pretended = 0xffff_fffc;
    expect(transport.pollInterrupt()).toBe(false);
    expect([heard, w.writes(INTERRUPT_ACK)]).toEqual([[], []]);
    pretended = 0xffff_ffff;
    transport.pollInterrupt();
    expect(heard.sort()).toEqual(['config', 'queue']);
    expect(w.writes(INTERRUPT_ACK)).toEqual([3]);
  });

  test('a queue is reset when QueueReset reads 0, and not before [driver-4.2.2.2-14]', () => {
    let left = 0;
    const w = watched((at) => {
      if (at !== QUEUE_RESET || left === 0) return undefined;
      left -= 1;
      return 1;
    });
    const transport = w.connect();
    bringUp(w.device, transport);
    left = 5;
    expect(transport.resetQueue(0)).toBe(true);
    expect(left).toBe(0);
    left = Number.POSITIVE_INFINITY;
    expect(transport.resetQueue(1)).toBe(false);
  });

  test('goes on as all drivers do: reset, ACKNOWLEDGE, DRIVER, features, FEATURES_OK, queues, DRIVER_OK [driver-4.2.3.1.1-4]', () => {
    const w = watched();
    bringUp(w.device, w.connect());
    expect(w.writes(STATUS)).toEqual([0, 1, 3, 11, 15]);
    const index = (at: number, value: number): number =>
      w.log.findIndex((a) => a.kind === 'write' && a.at === at && a.value === value);
    expect(index(DRIVER_FEATURES, Number(FEATURES & 0xffff_ffffn))).toBeLessThan(index(STATUS, 11));
    expect(index(STATUS, 11)).toBeLessThan(index(QUEUE_READY, 1));
    expect(index(QUEUE_READY, 1)).toBeLessThan(index(STATUS, 15));
  });

  test('asks an interrupt for its cause; one for used buffers is one for every queue [driver-4.2.3.4.1-1, driver-4.2.3.4.1-2]', () => {
    const w = watched();
    const heard: unknown[] = [];
    const transport = w.connect();
    transport.onInterrupt((cause, index) => {
      heard.push(cause, index, w.log.filter(({ at }) => at === INTERRUPT_STATUS).length);
    });
    const { queues } = bringUp(w.device, transport);
    w.log.length = 0;
    roundTrip(queues[1]!);
    expect(heard).toEqual(['queue', undefined, 1]);
  });
});
