import { type TraceEvent, Tracer } from '@pinhole/base';
import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import { describe, expect, test } from 'vitest';
import {
  type DeviceHooks,
  featureBit,
  featureBits,
  negotiateFeatures,
  setDriverOk,
  VIRTIO_CONFIG_S_ACKNOWLEDGE,
  VIRTIO_CONFIG_S_DRIVER,
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_CONFIG_S_FAILED,
  VIRTIO_CONFIG_S_FEATURES_OK,
  VIRTIO_CONFIG_S_NEEDS_RESET,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_VERSION_1,
  VIRTIO_ID_BLOCK,
  VIRTIO_RING_F_EVENT_IDX,
} from '../src/index.js';
import { DirectDevice } from './support/direct-transport.js';
import { createPair } from './support/pair.js';

const MODERN = featureBit(VIRTIO_F_VERSION_1);
const PLATFORM = featureBits(VIRTIO_F_VERSION_1, VIRTIO_F_ACCESS_PLATFORM);

function device(
  features: bigint,
  hooks: DeviceHooks = {},
  events: TraceEvent[] = [],
): DirectDevice {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 20 }] });
  return new DirectDevice({
    deviceId: VIRTIO_ID_BLOCK,
    features,
    config: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8),
    memory,
    space: createSystemMemorySpace(memory),
    queues: [{ maxSize: 256, handleOutput: () => {} }],
    hooks,
    tracer: new Tracer({ emit: (event) => events.push(event) }),
  });
}

const statuses = (events: readonly TraceEvent[]): unknown[] =>
  events.filter(({ name }) => name === 'virtio_set_status').map(({ args }) => args.val);

describe('VIRTIO v1.2 §2.1 "Device Status Field"', () => {
  test('§2.1: "The device status field starts out as 0, and is reinitialized to 0 by the device during reset." [device-2.4.1-1]', () => {
    const core = device(MODERN);
    expect(core.readStatus()).toBe(0);
    core.writeStatus(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    expect(core.readStatus()).toBe(3);
    core.writeStatus(0);
    expect(core.readStatus()).toBe(0);
  });

  test('§2.1.2: "The device SHOULD set DEVICE_NEEDS_RESET when it enters an error state that a reset is needed. If DRIVER_OK is set, after it sets DEVICE_NEEDS_RESET, the device MUST send a device configuration change notification to the driver." [device-2.1.2-2, device-2.1.2-3]', () => {
    const pair = createPair();
    pair.core.fail('the driver did what it must not');
    expect(pair.core.readStatus() & VIRTIO_CONFIG_S_NEEDS_RESET).toBe(VIRTIO_CONFIG_S_NEEDS_RESET);
    expect(pair.interrupts.config).toBe(1);
    expect(pair.core.errors).toEqual(['the driver did what it must not']);
  });

  test('§2.1.2, before DRIVER_OK: no notification of an error', () => {
    const core = device(MODERN);
    let interrupts = 0;
    core.onInterrupt(() => {
      interrupts += 1;
    });
    negotiateFeatures(core, { supported: MODERN });
    core.fail('early');
    expect([core.readStatus(), interrupts]).toEqual([0x4b, 0]);
  });

  test('a legacy driver hears nothing of an error, and the device is deaf all the same', () => {
    const core = device(MODERN);
    core.writeStatus(7);
    core.fail('bad');
    expect(core.readStatus()).toBe(7);
    expect(core.isBroken).toBe(true);
  });

  test('§2.1.2, deviation as QEMU: a kick before DRIVER_OK is served', () => {
    let kicks = 0;
    const pair = createPair({
      handleOutput: () => {
        kicks += 1;
      },
    });
    pair.core.writeStatus(VIRTIO_CONFIG_S_ACKNOWLEDGE);
    pair.core.notifyQueue(0);
    expect(kicks).toBe(1);
  });
});

describe('VIRTIO v1.2 §2.2 "Feature Bits"', () => {
  test('§2.2.1: "The driver MUST NOT accept a feature which the device did not offer": the device drops it', () => {
    const core = device(MODERN);
    core.writeDriverFeatures(MODERN | featureBit(VIRTIO_RING_F_EVENT_IDX));
    expect(core.features).toBe(MODERN);
  });

  test('§2.2.2: "otherwise it MUST fail to set the FEATURES_OK device status bit when the driver writes it": ACCESS_PLATFORM offered and not accepted [device-2.2.2-2]', () => {
    const core = device(PLATFORM);
    core.writeStatus(3);
    core.writeDriverFeatures(MODERN);
    core.writeStatus(3 | VIRTIO_CONFIG_S_FEATURES_OK);
    expect(core.readStatus()).toBe(3);
  });

  test('§2.2.2: a device model can refuse a combination [driver-3.1.1-4]', () => {
    const core = device(MODERN, { validateFeatures: () => false });
    expect(negotiateFeatures(core, { supported: MODERN })).toEqual({
      ok: false,
      reason: 'features-refused',
      message: 'virtio: device refuses features: 3',
      errno: -19,
    });
    expect(core.readStatus()).toBe(3 | VIRTIO_CONFIG_S_FAILED);
  });

  test('§3.1.1 step 5: "The driver MUST NOT accept new feature bits after this step."', () => {
    const core = device(PLATFORM);
    negotiateFeatures(core, { supported: PLATFORM });
    core.writeDriverFeatures(0n);
    expect(core.features).toBe(PLATFORM);
  });
});

describe('VIRTIO v1.2 §2.4 "Device Reset"', () => {
  test('§2.4.1: "A device MUST NOT send notifications or interact with the queues after indicating completion of the reset" [device-2.4.1-2]', () => {
    let kicks = 0;
    const pair = createPair({
      handleOutput: () => {
        kicks += 1;
      },
    });
    pair.core.writeStatus(0);
    pair.core.notifyQueue(0);
    pair.core.notifyConfig();
    expect([kicks, pair.interrupts.config]).toEqual([0, 0]);
    expect(pair.device.pop()).toBeUndefined();
    expect([pair.core.features, pair.device.isConfigured]).toEqual([0n, false]);
  });

  test('a reset mends a broken device', () => {
    const pair = createPair();
    pair.core.fail('broken');
    expect(pair.core.isBroken).toBe(true);
    pair.core.writeStatus(0);
    expect(pair.core.isBroken).toBe(false);
  });

  test('a reset shows twice in the log, as in QEMU', () => {
    const events: TraceEvent[] = [];
    const core = device(MODERN, {}, events);
    negotiateFeatures(core, { supported: MODERN });
    setDriverOk(core);
    expect(statuses(events)).toEqual([0, 0, 1, 3, 11, 15]);
  });
});

describe('VIRTIO v1.2 §2.5 "Device Configuration Space"', () => {
  test('§2.5.2: "The device MUST allow reading of any device-specific configuration field before FEATURES_OK is set by the driver." [device-2.5.2-1]', () => {
    const into = new Uint8Array(4);
    device(MODERN).readConfig(4, into);
    expect([...into]).toEqual([5, 6, 7, 8]);
  });

  test('what lies beyond its end reads as ones, as in QEMU', () => {
    const into = new Uint8Array(4);
    device(MODERN).readConfig(6, into);
    expect([...into]).toEqual([255, 255, 255, 255]);
  });
});

describe('VIRTIO v1.2 §3.1.1 "Driver Requirements: Device Initialization"', () => {
  test('"The driver MUST follow this sequence to initialize a device" [driver-2.1.1-1, driver-2.1.1-2, driver-3.1.1-1, driver-6.1-1]', () => {
    const events: TraceEvent[] = [];
    const heard: (bigint | number)[] = [];
    const core = device(
      PLATFORM,
      { setFeatures: (f) => heard.push(f), setStatus: (s) => heard.push(s) },
      events,
    );
    expect(negotiateFeatures(core, { supported: PLATFORM | 1n })).toEqual({
      ok: true,
      features: PLATFORM,
    });
    setDriverOk(core);
    expect(heard).toEqual([0, 0, 1, 3, PLATFORM, 11, 15]);
    expect(core.readStatus() & VIRTIO_CONFIG_S_DRIVER_OK).toBe(VIRTIO_CONFIG_S_DRIVER_OK);
  });

  test('§6.1: "A driver MUST accept VIRTIO_F_VERSION_1 if it is offered. A driver MAY fail to operate further if VIRTIO_F_VERSION_1 is not offered."', () => {
    const core = device(featureBit(VIRTIO_RING_F_EVENT_IDX));
    const supported = MODERN | featureBit(VIRTIO_RING_F_EVENT_IDX);
    expect(negotiateFeatures(core, { supported })).toMatchObject({
      ok: false,
      reason: 'no-version-1',
      errno: -22,
    });
    expect(negotiateFeatures(core, { supported, allowsLegacy: true })).toMatchObject({ ok: true });
    expect(core.readStatus()).toBe(3);
  });

  test('a guest with restricted memory gives up on a device without ACCESS_PLATFORM', () => {
    const options = { supported: PLATFORM, hasRestrictedMemoryAccess: () => true };
    expect(negotiateFeatures(device(MODERN), options)).toEqual({
      ok: false,
      reason: 'restricted-memory',
      message: 'device must provide VIRTIO_F_ACCESS_PLATFORM',
      errno: -19,
    });
    expect(negotiateFeatures(device(PLATFORM), options)).toMatchObject({ ok: true });
    const legacy = { ...options, allowsLegacy: true };
    expect(negotiateFeatures(device(0n), legacy)).toMatchObject({
      message: 'device must provide VIRTIO_F_VERSION_1',
    });
  });
});

describe('queues and interrupts', () => {
  test('with event descriptors every queue is kicked once at DRIVER_OK', () => {
    let kicks = 0;
    const handleOutput = (): void => {
      kicks += 1;
    };
    const pair = createPair({ usesEventFds: true, handleOutput });
    expect(kicks).toBe(1);
    pair.core.writeStatus(pair.core.readStatus() | VIRTIO_CONFIG_S_DRIVER_OK);
    expect(kicks).toBe(1);
  });

  test('queues that are not there have no size and hear nothing', () => {
    const core = device(MODERN);
    expect([core.queueMaxSize(0), core.queueMaxSize(1)]).toEqual([256, 0]);
    core.setupQueue(1, { size: 8, desc: 0n, avail: 0n, used: 0n });
    core.notifyQueue(1);
    expect(() => core.notifyDriver(1)).toThrow(expect.objectContaining({ code: 'E_QUEUE_INDEX' }));
  });

  test('an interrupt says which queue it was; a broken device sends none, unless through an irqfd', () => {
    for (const usesEventFds of [false, true]) {
      const pair = createPair({ usesEventFds });
      const heard: unknown[] = [];
      pair.core.onInterrupt((cause, index) => heard.push([cause, index]));
      expect(pair.core.notifyDriver(0)).toBe(true);
      pair.core.fail('broken');
      expect(pair.core.notifyDriver(0)).toBe(false);
      pair.core.writeStatus(0);
      pair.core.fail('legacy');
      expect(pair.core.notifyDriver(0)).toBe(true);
      const last = usesEventFds ? [['queue', 0]] : [];
      expect(heard).toEqual([['queue', 0], ['config', undefined], ...last]);
    }
  });
});
