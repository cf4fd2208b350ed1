/** Virtio over channel I/O, by its communication blocks: bytes that no driver of ours wrote. */
import { createRng } from '@pinhole/base';
import { describe, expect, test } from 'vitest';
import {
  Ccw,
  type ChannelCommand,
  type ChannelDevice,
  type ChannelStatus,
  createCcwTransport,
  createVirtioCcw,
  featureBit,
  hasFeature,
  VIRTIO_CONFIG_S_ACKNOWLEDGE,
  VIRTIO_CONFIG_S_DRIVER,
  VIRTIO_CONFIG_S_FEATURES_OK,
  VIRTIO_CONFIG_S_NEEDS_RESET,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
  type VirtioCcwDevice,
} from '../../src/index.js';
import {
  CCW_AREA,
  type DeviceSetup,
  echoDevice,
  FEATURES,
  link,
  WAYS,
  type Way,
} from './support/link.js';

const AT = 0x9000;
const REJECT = { ok: false, reason: 'command-reject' };
const CHECK = { ok: false, reason: 'program-check' };
const DONE = { ok: true, residual: 0 };

function plug(setup: DeviceSetup = {}, revision = 2) {
  const device = echoDevice(setup);
  const { core, memory } = device;
  const ccw = createVirtioCcw({ device: core, memory });
  const interrupts = { count: 0 };
  ccw.onInterrupt(() => {
    interrupts.count += 1;
  });
  /** Sends a command with these bytes as its payload. */
  const send = (code: number, bytes: readonly number[], count = bytes.length): ChannelStatus => {
    memory.write(AT, Uint8Array.from(bytes));
    return ccw.start({ code, address: AT, count });
  };
  const payload = (length: number): number[] => {
    const into = new Uint8Array(length);
    memory.read(AT, into);
    return [...into];
  };
  expect(send(Ccw.SET_VIRTIO_REV, [0, revision, 0, 0])).toEqual(DONE);
  return { ...device, ccw, interrupts, send, payload };
}

const u64 = (value: number): number[] => [0, 0, 0, 0, ...u32(value)];
const u32 = (value: number): number[] => [24, 16, 8, 0].map((shift) => (value >>> shift) & 0xff);

describe('basic concepts', () => {
  test('SENSE ID: control unit type 0x3832, and as its model the virtio device id', () => {
    expect(plug({ deviceId: 4 }).ccw.senseId).toEqual({ cuType: 0x3832, cuModel: 4 });
  });

  test('any command that it does not support is rejected [device-4.3.1.3-1]', () => {
    const { ccw } = plug();
    const known: readonly number[] = Object.values(Ccw);
    for (let code = 0; code < 256; code += 1) {
      if (known.includes(code)) continue;
      // What can be no command at all does not reach the device.
      const isCommand = (code & 0x0f) !== 0 && ((code & 0x0f) !== 8 || code === 8);
      expect(ccw.start({ code, address: AT, count: 8 })).toEqual(isCommand ? REJECT : CHECK);
    }
  });

  test('with length checks the length must be right; without, it must be enough [device-4.3.1.3-2, device-4.3.1.3-3, device-4.3.1.3-4]', () => {
    for (const [code, size] of [
      [Ccw.SET_VQ, 32],
      [Ccw.READ_FEAT, 5],
      [Ccw.WRITE_FEAT, 5],
      [Ccw.WRITE_STATUS, 1],
      [Ccw.READ_STATUS, 1],
      [Ccw.READ_VQ_CONF, 4],
      [Ccw.SET_IND, 8],
      [Ccw.SET_CONF_IND, 8],
      [Ccw.SET_IND_ADAPTER, 25],
    ] as const) {
      const { ccw, memory } = plug();
      memory.fill(AT, 64, 0);
      const start = (count: number, suppressesLength: boolean, address = AT): ChannelStatus =>
        ccw.start({ code, address, count, suppressesLength });
      expect(start(size, false)).toEqual(DONE);
      expect(start(size + 1, false)).toEqual(CHECK);
      expect(start(size - 1, false)).toEqual(CHECK);
      expect(start(size - 1, true)).toEqual(CHECK);
      expect(start(size + 3, true)).toEqual({ ok: true, residual: 3 });
      expect(start(size, false, 0)).toEqual(CHECK);
      expect(start(size, false, 2 ** 40)).toEqual(CHECK);
    }
  });
});

describe('the revision', () => {
  test.each([
    ['0, of a device that is not transitional, is rejected [device-4.3.2.1.1-3]', [0, 0, 0, 0]],
    ['3, which is reserved, is rejected [device-4.3.2.1.1-1]', [0, 3, 0, 0]],
    ['little-endian: 0x0100', [1, 0, 0, 0]],
    ['1 with data is rejected [device-4.3.2.1.1-2]', [0, 1, 0, 1, 0]],
  ])('%s', (_name, bytes) => {
    expect(plugFresh().send(Ccw.SET_VIRTIO_REV, bytes)).toEqual(REJECT);
  });

  test('any command before it is rejected [device-4.3.2.1.3-3]', () => {
    const { ccw } = plugFresh();
    for (const code of Object.values(Ccw)) {
      if (code === Ccw.SET_VIRTIO_REV) continue;
      expect(ccw.start({ code, address: AT, count: 8 })).toEqual(REJECT);
    }
  });

  test('it is selected once, until the subchannel is off and on again [device-4.3.2.1.1-5, device-4.3.2.1.1-6]', () => {
    const { send, ccw } = plug();
    expect(send(Ccw.SET_VIRTIO_REV, [0, 1, 0, 0])).toEqual(REJECT);
    expect(send(Ccw.SET_VIRTIO_REV, [0, 2, 0, 0])).toEqual(REJECT);
    ccw.reset();
    expect(send(Ccw.READ_STATUS, [0])).toEqual(REJECT);
    expect(send(Ccw.SET_VIRTIO_REV, [0, 1, 0, 0])).toEqual(DONE);
  });

  test('a command that is not contained in it is rejected: READ_STATUS in 1 [device-4.3.2.1.1-4]', () => {
    expect(plug({}, 1).send(Ccw.READ_STATUS, [0])).toEqual(REJECT);
    expect(plug({}, 2).send(Ccw.READ_STATUS, [0])).toEqual(DONE);
  });

  test('a driver starts with the highest and continues with lower ones [driver-4.3.2.1.2-1]', () => {
    const { memory, ccw } = plugFresh();
    const tried: number[] = [];
    const old: VirtioCcwDevice = {
      ...ccw,
      senseId: ccw.senseId,
      notify: () => 0,
      start: (command) => {
        if (command.code !== Ccw.SET_VIRTIO_REV) return ccw.start(command);
        tried.push(memory.readU16Be(command.address));
        return tried.at(-1) === 1 ? ccw.start(command) : (REJECT as ChannelStatus);
      },
    };
    const made = createCcwTransport(old, { memory, area: CCW_AREA });
    if (!made.ok) throw new Error(made.message);
    expect(tried).toEqual([2, 1]);
    // Without READ_STATUS it knows what it wrote.
    made.transport.writeStatus(VIRTIO_CONFIG_S_ACKNOWLEDGE);
    expect(made.transport.readStatus()).toBe(VIRTIO_CONFIG_S_ACKNOWLEDGE);
  });

  test('a driver leaves alone what is no virtio device, or takes no revision [driver-4.3.1.4-1, driver-4.3.2.1.3-1]', () => {
    const { memory, ccw } = plugFresh();
    const other = { ...ccw, senseId: { cuType: 0x3088, cuModel: 2 } } as VirtioCcwDevice;
    expect(createCcwTransport(other, { memory, area: CCW_AREA })).toEqual({
      ok: false,
      reason: 'bad',
      message: 'expected control unit type 3832, found 3088',
    });
    const legacy = {
      senseId: ccw.senseId,
      start: () => REJECT,
    } as unknown as VirtioCcwDevice;
    expect(createCcwTransport(legacy, { memory, area: CCW_AREA }).ok).toBe(false);
  });
});

function plugFresh() {
  const { core, memory } = echoDevice();
  const ccw = createVirtioCcw({ device: core, memory });
  const send = (code: number, bytes: readonly number[]): ChannelStatus => {
    memory.write(AT, Uint8Array.from(bytes));
    return ccw.start({ code, address: AT, count: bytes.length });
  };
  return { core, memory, ccw, send };
}

describe('status', () => {
  const OK = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK;

  test('what the device does not take is rejected, and stays as it was [device-4.3.2.3.2-1]', () => {
    const offered = FEATURES | featureBit(VIRTIO_F_ACCESS_PLATFORM);
    const { send, core } = plug({ features: offered });
    expect(send(Ccw.WRITE_STATUS, [3])).toEqual(DONE);
    // VERSION_1, not ACCESS_PLATFORM.
    expect(send(Ccw.WRITE_FEAT, [1, 0, 0, 0, 1])).toEqual(DONE);
    expect(send(Ccw.WRITE_STATUS, [OK])).toEqual(REJECT);
    expect(core.status).toBe(3);
    expect(send(Ccw.WRITE_FEAT, [3, 0, 0, 0, 1])).toEqual(DONE);
    expect(send(Ccw.WRITE_STATUS, [OK])).toEqual(DONE);
    expect(core.status).toBe(OK);
  });

  test('a driver takes a reject for a status that stayed, with either revision [driver-4.3.2.3.1-1]', () => {
    for (const revision of [1, 2]) {
      const { memory, ccw } = plugFresh();
      memory.write(AT, Uint8Array.of(0, revision, 0, 0));
      let isReady = false;
      const made = createCcwTransport(
        {
          senseId: ccw.senseId,
          notify: () => 0,
          start: (command) => {
            const isHigh =
              command.code === Ccw.SET_VIRTIO_REV && memory.readU16Be(command.address) > revision;
            if (isHigh || (isReady && command.code === Ccw.WRITE_STATUS)) {
              return REJECT as ChannelStatus;
            }
            return ccw.start(command);
          },
        },
        { memory, area: CCW_AREA },
      );
      if (!made.ok) throw new Error(made.message);
      made.transport.writeStatus(3);
      isReady = true;
      made.transport.writeStatus(OK);
      expect(made.transport.readStatus()).toBe(3);
    }
  });

  test('after VDEV_RESET it is zero, and there are no notifications [device-4.3.3.3.1-1, device-4.3.3.3.1-2]', () => {
    const way = WAYS.find(({ name }) => name === 'ccw')!;
    const it = link(way);
    it.exchange(0, Uint8Array.of(1, 2));
    const heard = it.heard.length;
    it.transport.writeStatus(0);
    expect(it.core.status).toBe(0);
    it.core.notifyConfig();
    it.transport.notifyQueue(0);
    expect([it.heard.length, it.kicks.length]).toEqual([heard, 1]);
    // The revision stays.
    expect(it.transport.readDeviceFeatures()).not.toBe(0n);
  });
});

describe('features', () => {
  test('32 bits by index, in little-endian byte order; beyond, zeroes', () => {
    const { send, payload, core } = plug();
    expect(send(Ccw.READ_FEAT, [9, 9, 9, 9, 1])).toEqual(DONE);
    const high = Number(core.modernFeatures >> 32n);
    expect(payload(5)).toEqual([high & 0xff, (high >> 8) & 0xff, 0, 0, 1]);
    expect(send(Ccw.READ_FEAT, [9, 9, 9, 9, 2])).toEqual(DONE);
    expect(payload(5)).toEqual([0, 0, 0, 0, 2]);
    // INDIRECT_DESC is bit 28, EVENT_IDX bit 29.
    expect(send(Ccw.WRITE_FEAT, [0, 0, 0, 0x30, 0])).toEqual(DONE);
    expect(send(Ccw.WRITE_FEAT, [1, 0, 0, 0, 1])).toEqual(DONE);
    expect(send(Ccw.WRITE_FEAT, [0xff, 0xff, 0xff, 0xff, 2])).toEqual(DONE);
    expect(core.features).toBe(0x1_3000_0000n);
  });

  test('RING_RESET cannot be had over channel I/O', () => {
    const { core } = plug();
    expect(hasFeature(FEATURES, VIRTIO_F_RING_RESET)).toBe(true);
    expect(hasFeature(core.modernFeatures, VIRTIO_F_RING_RESET)).toBe(false);
    expect(hasFeature(core.modernFeatures, VIRTIO_F_VERSION_1)).toBe(true);
  });
});

describe('queues', () => {
  test('READ_VQ_CONF: big-endian index in, size out', () => {
    const { send, payload } = plug({ queueSizes: [256, 64] });
    expect(send(Ccw.READ_VQ_CONF, [0, 1, 9, 9])).toEqual(DONE);
    expect(payload(4)).toEqual([0, 1, 0, 64]);
    expect(send(Ccw.READ_VQ_CONF, [0, 2, 9, 9])).toEqual(DONE);
    expect(payload(4)).toEqual([0, 2, 0, 0]);
    expect(send(Ccw.READ_VQ_CONF, [4, 0, 9, 9])).toEqual(CHECK);
  });

  test('SET_VQ: desc, index, size, driver, device; res0 is ignored [device-4.3.2.2.1-1]', () => {
    const { send, core } = plug();
    const block = (res0: number): number[] => [
      ...u64(0x1_0000),
      ...u32(res0),
      ...[0, 1, 0, 128],
      ...u64(0x2_0000),
      ...u64(0x3_0000),
    ];
    for (const res0 of [0, 0xffff_ffff]) {
      expect(send(Ccw.SET_VQ, block(res0))).toEqual(DONE);
      const expected = { size: 128, desc: 0x1_0000n, avail: 0x2_0000n, used: 0x3_0000n };
      expect(core.queueSetup(1)).toEqual(expected);
    }
    expect(core.queueSetup(0)).toBe(undefined);
  });

  test('a queue that is not there, or larger than it may be', () => {
    const { send, core } = plug();
    const block = (index: number, size: number): number[] => [
      ...[...u64(0x1_0000), ...u32(0)],
      ...[index >> 8, index & 0xff, size >> 8, size & 0xff],
      ...[...u64(0x2_0000), ...u64(0x3_0000)],
    ];
    expect(send(Ccw.SET_VQ, block(2, 16))).toEqual(CHECK);
    expect(send(Ccw.SET_VQ, block(1024, 16))).toEqual(CHECK);
    expect(send(Ccw.SET_VQ, block(0, 16))).toEqual(DONE);
    // The largest is what READ_VQ_CONF said at first; the addresses count, the size stays.
    expect(send(Ccw.SET_VQ, block(0, 257))).toEqual(CHECK);
    expect(core.queueSetup(0)).toMatchObject({ size: 16, desc: 0x1_0000n });
    expect(send(Ccw.SET_VQ, block(0, 256))).toEqual(DONE);
    // Without an address the size is not looked at.
    const gone = [...u64(0), ...u32(0), 0, 0, 0, 8, ...u64(0), ...u64(0)];
    expect(send(Ccw.SET_VQ, gone)).toEqual(DONE);
    expect(core.queueSize(0)).toBe(256);
  });

  test('more than 64 queues have no classic indicators', () => {
    const { send } = plug({ queueSizes: Array.from({ length: 65 }, () => 4) });
    expect(send(Ccw.SET_IND, u64(0xa000))).toEqual(REJECT);
    expect(send(Ccw.SET_CONF_IND, u64(0xa000))).toEqual(DONE);
  });
});

describe('notifications', () => {
  test('the bit of the queue in a 64-bit value, bit 0 of another for the configuration', () => {
    const { send, core, memory, interrupts } = plug();
    const bits = (at: number): number[] => {
      const bytes = new Uint8Array(8);
      memory.read(at, bytes);
      return [...bytes];
    };
    core.setFeatures(featureBit(VIRTIO_F_VERSION_1));
    core.notifyDriver(1);
    expect(interrupts.count).toBe(0);
    expect(send(Ccw.SET_IND, u64(0xa000))).toEqual(DONE);
    expect(send(Ccw.SET_CONF_IND, u64(0xa008))).toEqual(DONE);
    expect(send(Ccw.SET_VQ, [...vq(0), ...u64(0x2_0000), ...u64(0x3_0000)])).toEqual(DONE);
    expect(send(Ccw.SET_VQ, [...vq(1), ...u64(0x5_0000), ...u64(0x6_0000)])).toEqual(DONE);
    core.setStatus(15);
    core.notifyDriver(1);
    expect([bits(0xa000), bits(0xa008)]).toEqual([u64(2), u64(0)]);
    core.notifyDriver(0);
    core.notifyConfig();
    expect([bits(0xa000), bits(0xa008)]).toEqual([u64(3), u64(1)]);
    expect(interrupts.count).toBe(3);
  });

  test('a bit of a row, counted from the left, and the summary: one interrupt while it is set [device-4.3.3.1.2.1-1]', () => {
    const { send, core, memory, interrupts } = plug();
    core.setFeatures(featureBit(VIRTIO_F_VERSION_1));
    // Summary at 0xa000, indicators at 0xb000 from bit 13 on, subclass 3.
    const area = [...u64(0xa000), ...u64(0xb000), ...u64(13), 3];
    expect(send(Ccw.SET_IND_ADAPTER, area)).toEqual(DONE);
    expect(send(Ccw.SET_VQ, [...vq(0), ...u64(0x2_0000), ...u64(0x3_0000)])).toEqual(DONE);
    expect(send(Ccw.SET_VQ, [...vq(1), ...u64(0x5_0000), ...u64(0x6_0000)])).toEqual(DONE);
    core.setStatus(15);
    core.notifyDriver(0);
    core.notifyDriver(1);
    expect([memory.readU16Be(0xb000), memory.readU8(0xa000), interrupts.count]).toEqual([6, 1, 1]);
    memory.writeU8(0xa000, 0);
    core.notifyDriver(1);
    expect([memory.readU8(0xa000), interrupts.count]).toEqual([1, 2]);
  });

  test('classic and adapter indicators exclude each other [device-4.3.2.6.1-1, device-4.3.2.6.3.1-1]', () => {
    const area = [...u64(0xa000), ...u64(0xb000), ...u64(0), 0];
    const first = plug();
    expect(first.send(Ccw.SET_IND, u64(0xa000))).toEqual(DONE);
    expect(first.send(Ccw.SET_IND_ADAPTER, area)).toEqual(REJECT);
    const second = plug();
    expect(second.send(Ccw.SET_IND_ADAPTER, area)).toEqual(DONE);
    expect(second.send(Ccw.SET_IND, u64(0xa000))).toEqual(REJECT);
    // Addresses of 0 do not change that, a reset does.
    expect(second.send(Ccw.SET_IND_ADAPTER, [...u64(0), ...u64(0), ...u64(0), 0])).toEqual(DONE);
    expect(second.send(Ccw.SET_IND, u64(0xa000))).toEqual(REJECT);
    expect(second.send(Ccw.VDEV_RESET, [])).toEqual(DONE);
    expect(second.send(Ccw.SET_IND, u64(0xa000))).toEqual(DONE);
  });

  test('a driver clears the summary before it looks at the bits: what comes meanwhile interrupts again [driver-4.3.3.1.2.2-1]', () => {
    const it = link(WAYS.find(({ name }) => name === 'ccw')!);
    const summary = CCW_AREA + 17;
    const seen: number[] = [];
    it.transport.onInterrupt(() => seen.push(it.memory.readU8(summary)));
    it.exchange(0, Uint8Array.of(1));
    it.exchange(1, Uint8Array.of(1));
    expect(seen).toEqual([0, 0]);
  });

  test('diagnose 0x500: the low 16 bits are the queue, NOTIFICATION_DATA lies above', () => {
    const { ccw, kicks } = plug();
    // A queue that is not there is no error, a number that none can have is one.
    expect([ccw.notify(2, 0), ccw.notify(1023, 0)]).toEqual([0, 0]);
    expect([ccw.notify(1024, 0), ccw.notify(-1, 0)]).toEqual([-22, -22]);
    const it = link(WAYS.find(({ name }) => name === 'ccw')!);
    it.exchange(1, Uint8Array.of(7));
    expect([kicks, it.kicks]).toEqual([[], [1]]);
  });

  test('indicators that are no memory hurt nobody', () => {
    for (const address of [[0xff, ...u64(1).slice(1)], u64(0xffff_fffc)]) {
      const { send, core, interrupts } = plug();
      expect(send(Ccw.SET_CONF_IND, address)).toEqual(DONE);
      core.setStatus(15);
      core.notifyConfig();
      expect(interrupts.count).toBeLessThan(2);
    }
    const { send, core, interrupts } = plug();
    core.setFeatures(featureBit(VIRTIO_F_VERSION_1));
    expect(
      send(Ccw.SET_IND_ADAPTER, [...u64(0xffff_fff0), ...u64(0xffff_fff8), ...u64(0), 0]),
    ).toEqual(DONE);
    expect(send(Ccw.SET_VQ, [...vq(0), ...u64(0x2_0000), ...u64(0x3_0000)])).toEqual(DONE);
    core.setStatus(15);
    core.notifyDriver(0);
    // Without its summary there is none.
    expect(interrupts.count).toBe(0);
  });
});

function vq(index: number): number[] {
  return [...u64(0x1_0000 + index * 0x3_0000), ...u32(0), 0, index, 0, 16];
}

describe('what a driver does, by its commands', () => {
  function watched(revision = 2) {
    const device = echoDevice();
    const ccw = createVirtioCcw({ device: device.core, memory: device.memory });
    const commands: ChannelCommand[] = [];
    const cookies: number[] = [];
    const watchedDevice: ChannelDevice = {
      senseId: ccw.senseId,
      notify: (data, cookie) => {
        cookies.push(cookie);
        return ccw.notify(data, cookie) < 0 ? -1 : 100 + cookies.length;
      },
      start: (command) => {
        commands.push(command);
        const asked = device.memory.readU16Be(command.address);
        if (command.code === Ccw.SET_VIRTIO_REV && asked > revision) return REJECT as ChannelStatus;
        return ccw.start(command);
      },
    };
    const way: Way = {
      name: 'watched',
      isPolled: true,
      connect: ({ memory }) => {
        const made = createCcwTransport(watchedDevice, { memory, area: CCW_AREA });
        if (!made.ok) throw new Error(made.message);
        return made.transport;
      },
    };
    return { ...link(way, device), commands, cookies };
  }
  const codes = (commands: readonly ChannelCommand[]): number[] => commands.map(({ code }) => code);

  test('it sets the revision first, and once [driver-4.3.2.1.2-2, driver-4.3.2.1.2-3]', () => {
    const { commands, exchange } = watched();
    exchange(0, Uint8Array.of(1));
    expect(codes(commands).indexOf(Ccw.SET_VIRTIO_REV)).toBe(0);
    expect(codes(commands).lastIndexOf(Ccw.SET_VIRTIO_REV)).toBe(0);
  });

  test('its lengths are right, whether they are checked or not [driver-4.3.1.4-2]', () => {
    const { commands, transport } = watched();
    transport.readConfig(4, new Uint8Array(8));
    const sizes = new Map<number, number>([
      [Ccw.SET_VIRTIO_REV, 4],
      [Ccw.READ_FEAT, 5],
      [Ccw.WRITE_FEAT, 5],
      [Ccw.READ_STATUS, 1],
      [Ccw.WRITE_STATUS, 1],
      [Ccw.READ_VQ_CONF, 4],
      [Ccw.SET_VQ, 32],
      [Ccw.SET_IND_ADAPTER, 25],
      [Ccw.SET_CONF_IND, 8],
      [Ccw.VDEV_RESET, 0],
      [Ccw.READ_CONF, 12],
    ]);
    for (const { code, count } of commands) expect([code, count]).toEqual([code, sizes.get(code)]);
    expect(new Set(codes(commands))).toEqual(new Set(sizes.keys()));
  });

  test('it never issues READ_STATUS with revision 1 [driver-4.3.2.3.1-3]', () => {
    const { commands, transport, core, exchange } = watched(1);
    exchange(1, Uint8Array.of(1));
    core.fail('broken');
    transport.pollInterrupt();
    transport.readStatus();
    expect(codes(commands)).not.toContain(Ccw.READ_STATUS);
  });

  test('with 2 it reads the status after a change, as the device has it [driver-4.3.2.3.1-2, device-4.3.2.3.2-2]', () => {
    const { commands, transport, core, heard } = watched();
    core.fail('broken');
    transport.pollInterrupt();
    expect(heard.at(-1)?.cause).toBe('config');
    const before = commands.length;
    expect(transport.readStatus()).toBe(core.status);
    expect(codes(commands.slice(before))).toEqual([Ccw.READ_STATUS]);
    expect(core.status & VIRTIO_CONFIG_S_NEEDS_RESET).not.toBe(0);
  });

  test('it passes on the cookie of the last notification of the queue [driver-4.3.3.2.2-1]', () => {
    const { cookies, exchange } = watched();
    for (const queue of [0, 0, 1, 0]) exchange(queue, Uint8Array.of(1));
    expect(cookies).toEqual([0, 101, 0, 102]);
  });
});

describe('the configuration', () => {
  test('is transmitted from its start; too long is an error only if lengths are checked', () => {
    const { ccw, memory, send, payload } = plug({ config: Uint8Array.of(1, 2, 3, 4) });
    expect(send(Ccw.READ_CONF, [0, 0, 0])).toEqual(DONE);
    expect(payload(3)).toEqual([1, 2, 3]);
    expect(send(Ccw.READ_CONF, [0, 0, 0, 0, 0])).toEqual(CHECK);
    memory.fill(AT, 8, 9);
    const long = { code: Ccw.READ_CONF, address: AT, count: 8, suppressesLength: true };
    expect(ccw.start(long)).toEqual({ ok: true, residual: 4 });
    expect(payload(8)).toEqual([1, 2, 3, 4, 9, 9, 9, 9]);
  });

  test('a driver compares it with the old version and keeps a generation count', () => {
    const config = Uint8Array.of(1, 2, 3, 4);
    const { core, memory } = echoDevice({ config });
    const ccw = createVirtioCcw({ device: core, memory });
    const made = createCcwTransport(ccw, { memory, area: CCW_AREA });
    if (!made.ok) throw new Error(made.message);
    const { transport } = made;
    const generationAfter = (offset: number): number => {
      transport.readConfig(offset, new Uint8Array(1));
      return transport.configGeneration();
    };
    const first = generationAfter(3);
    expect(generationAfter(3)).toBe(first);
    config[2] = 9;
    // What lies before a field is transmitted with it.
    expect(generationAfter(1)).toBe(first);
    const second = generationAfter(3);
    expect(second).not.toBe(first);
    expect(generationAfter(3)).toBe(second);
  });
});

test('saved and restored in the middle of its work', () => {
  const way = WAYS.find(({ name }) => name === 'ccw')!;
  const it = link(way);
  it.exchange(0, Uint8Array.of(1, 2, 3));
  const { core, memory } = it;
  const other = createVirtioCcw({ device: echoDevice({ memory }).core, memory });
  const ccw = createVirtioCcw({ device: core, memory });
  expect(ccw.save().revision).toBe(-1);
  memory.write(AT, Uint8Array.of(0, 2, 0, 0));
  ccw.start({ code: Ccw.SET_VIRTIO_REV, address: AT, count: 4 });
  memory.write(AT, Uint8Array.from(u64(0xa000)));
  ccw.start({ code: Ccw.SET_IND, address: AT, count: 8 });
  const state = ccw.save();
  other.restore(state);
  expect(other.save()).toEqual(state);
  expect([state.revision, state.indicators]).toEqual([2, 0xa000]);
  expect(other.start({ code: Ccw.READ_STATUS, address: AT, count: 1 })).toEqual(DONE);
});

test('a hostile driver: 100,000 random commands, no exception, nothing outside of memory', () => {
  const rng = createRng(1);
  const codes = [...Object.values(Ccw), 0x03];
  let { ccw, memory, core } = plug();
  for (let n = 0; n < 100_000; n += 1) {
    if (n % 2000 === 0) ({ ccw, memory, core } = plug());
    const address = [AT, AT + rng.below(64), 0, 2 ** 24 - rng.below(40), 2 ** 31][rng.below(5)]!;
    for (let i = 0; i < 32; i += 1) {
      const value = [0, 1, 2, 0xff, rng.below(256)][rng.below(5)]!;
      if (rng.below(4) === 0) memory.writeU8(AT + i, value);
    }
    const code = codes[rng.below(codes.length)]!;
    const count = [1, 4, 5, 8, 32, 64, 65_535, -1][rng.below(8)]!;
    const status = ccw.start({ code, address, count, suppressesLength: rng.below(2) === 1 });
    if (status.ok) expect(status.residual).toBeGreaterThanOrEqual(count < 0 ? -1 : 0);
    ccw.notify(rng.below(4), 0);
    if (rng.below(8) === 0) core.notifyConfig();
  }
});

test('a hostile device: whatever it answers, the driver gives back what it was asked for', () => {
  const rng = createRng(2);
  const { memory } = echoDevice();
  const made = createCcwTransport(
    {
      senseId: { cuType: 0x3832, cuModel: 2 },
      notify: () => -rng.below(3),
      start: ({ code, address, count }) => {
        if (code === Ccw.SET_VIRTIO_REV) return DONE as ChannelStatus;
        // It writes wherever the driver let it, and more.
        for (let i = 0; i < 300; i += 1) memory.writeU8(address + i, rng.below(256));
        const lies = [{ ok: true, residual: rng.below(600) - 100 }, DONE, REJECT, CHECK, DONE];
        return (count > 0 ? lies[rng.below(5)] : DONE) as ChannelStatus;
      },
    },
    { memory, area: CCW_AREA },
  );
  if (!made.ok) throw new Error(made.message);
  const { transport } = made;
  let heard = 0;
  transport.onInterrupt(() => {
    heard += 1;
  });
  for (let n = 0; n < 2000; n += 1) {
    transport.writeStatus([0, 1, 3, 11, 15, 128][rng.below(6)]!);
    expect(transport.readStatus()).toBeLessThan(256);
    expect(transport.readDeviceFeatures()).toBeLessThan(2n ** 64n);
    transport.writeDriverFeatures(BigInt(rng.nextU32()));
    expect(transport.queueMaxSize(rng.below(80))).toBeLessThan(65_536);
    transport.configGeneration();
    transport.readConfig(rng.below(300), new Uint8Array(rng.below(16)));
    transport.writeConfig(rng.below(300), new Uint8Array(rng.below(16)));
    transport.setupQueue(rng.below(3), { size: 16, desc: 1n, avail: 2n, used: 3n });
    transport.notifyQueue(rng.below(3));
    const before = heard;
    transport.pollInterrupt();
    // One for each of three queues, one for the configuration.
    expect(heard - before).toBeLessThanOrEqual(4);
  }
});
