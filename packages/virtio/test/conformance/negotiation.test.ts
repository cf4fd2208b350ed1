import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type DeviceHooks,
  featureBit,
  featureBits,
  negotiateFeatures,
  setDriverOk,
  VIRTIO_CONFIG_S_FAILED,
  VIRTIO_CONFIG_S_FEATURES_OK,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_ID_BLOCK,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from '../../src/index.js';
import { DirectDevice } from '../support/direct-transport.js';
import { logTransport } from './logged-transport.js';

const MODERN = featureBit(VIRTIO_F_VERSION_1);

function device(features: bigint, hooks: DeviceHooks = {}): DirectDevice {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 20 }] });
  return new DirectDevice({
    deviceId: VIRTIO_ID_BLOCK,
    features,
    config: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8),
    memory,
    space: createSystemMemorySpace(memory),
    queues: [{ maxSize: 256, handleOutput: () => {} }],
    hooks,
  });
}

describe('the driver', () => {
  test('writes its features once, and none after FEATURES_OK [driver-3.1.1-3]', () => {
    fc.assert(
      fc.property(
        fc.bigInt({ min: 0n, max: 2n ** 34n - 1n }),
        fc.bigInt({ min: 0n, max: 2n ** 34n - 1n }),
        (offered, supported) => {
          const { transport, log } = logTransport(device((offered | MODERN) & ~(1n << 34n)));
          const result = negotiateFeatures(transport, { supported: supported | MODERN });
          if (result.ok) setDriverOk(transport);
          const features = log.filter((line) => line.startsWith('writeDriverFeatures'));
          expect(features).toEqual([`writeDriverFeatures ${(offered & supported) | MODERN}`]);
          const isOk = (line: string): boolean =>
            line.startsWith('writeStatus') &&
            (Number(line.split(' ')[1]) & VIRTIO_CONFIG_S_FEATURES_OK) !== 0;
          expect(log.indexOf(features[0]!)).toBeLessThan(log.findIndex(isOk));
        },
      ),
    );
  });

  test('without VERSION_1 goes into legacy mode, or sets FAILED and does no more [driver-2.2.1-2]', () => {
    const old = featureBits(VIRTIO_RING_F_EVENT_IDX);
    const legacy = logTransport(device(old));
    const supported = old | MODERN;
    expect(negotiateFeatures(legacy.transport, { supported, allowsLegacy: true }).ok).toBe(true);
    expect(legacy.log).toEqual([
      'writeStatus 0',
      'writeStatus 1',
      'writeStatus 3',
      `writeDriverFeatures ${old}`,
    ]);
    const modern = logTransport(device(old));
    expect(negotiateFeatures(modern.transport, { supported }).ok).toBe(false);
    expect(modern.log.at(-1)).toBe(`writeStatus ${3 | VIRTIO_CONFIG_S_FAILED}`);
    expect(modern.log.filter((line) => !line.startsWith('writeStatus'))).toEqual([]);
  });

  test('without FEATURES_OK of legacy devices: the same steps but for two [driver-3.1.2-1]', () => {
    const { transport, log } = logTransport(device(featureBits(VIRTIO_RING_F_EVENT_IDX)));
    negotiateFeatures(transport, { supported: 2n ** 32n - 1n, allowsLegacy: true });
    setDriverOk(transport);
    expect(log.map((line) => line.replace(/Features.*/, 'Features'))).toEqual([
      'writeStatus 0',
      'writeStatus 1',
      'writeStatus 3',
      'writeDriverFeatures',
      'writeStatus 7',
    ]);
  });

  test('resets a device that it gave up before it tries again [driver-2.1.1-3]', () => {
    let accepts = false;
    const core = device(MODERN, { validateFeatures: () => accepts });
    const { transport, log } = logTransport(core);
    expect(negotiateFeatures(transport, { supported: MODERN }).ok).toBe(false);
    expect(core.readStatus() & VIRTIO_CONFIG_S_FAILED).not.toBe(0);
    const given = log.length;
    accepts = true;
    expect(negotiateFeatures(transport, { supported: MODERN }).ok).toBe(true);
    expect(log[given]).toBe('writeStatus 0');
    expect(core.readStatus() & VIRTIO_CONFIG_S_FAILED).toBe(0);
  });
});

describe('the device', () => {
  test('takes the same features again after a reset [device-2.2.2-3]', () => {
    const all = featureBits(
      VIRTIO_F_VERSION_1,
      VIRTIO_RING_F_EVENT_IDX,
      VIRTIO_RING_F_INDIRECT_DESC,
      VIRTIO_F_RING_RESET,
    );
    const core = device(all);
    for (let round = 0; round < 3; round += 1) {
      expect(negotiateFeatures(core, { supported: all })).toEqual({ ok: true, features: all });
      setDriverOk(core);
      if (round === 1) core.fail('the driver broke a rule');
    }
  });
});
