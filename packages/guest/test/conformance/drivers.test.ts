/** What the specification asks of every driver, asked of ours. */
import {
  createDriverQueue,
  createMmioTransport,
  createVirtioMmio,
  encodeBlkConfig,
  hasFeature,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_CONFIG_S_FAILED,
  VIRTIO_CONFIG_S_FEATURES_OK,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_BAD_FEATURE,
  VIRTIO_F_ORDER_PLATFORM,
  VIRTIO_F_RING_PACKED,
  VIRTIO_ID_BLOCK,
  VIRTIO_ID_RNG,
  type VirtioTransport,
} from '@pinhole/virtio';
import { describe, expect, test } from 'vitest';
import { createPhysicalDmaOps, probeVirtioBlk, probeVirtioRng } from '../../src/index.js';
import {
  createFakeDevice,
  type FakeDevice,
  type FakeDeviceOptions,
} from '../drivers/fake-device.js';

const CONFIG = encodeBlkConfig({ capacity: 1000, segMax: 16, blkSize: 512, writeback: 1 });

function fake(options: Partial<FakeDeviceOptions> = {}): FakeDevice {
  return createFakeDevice({
    deviceId: VIRTIO_ID_BLOCK,
    features: [VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_BLK_SIZE],
    config: CONFIG,
    answer: ({ inBytes }) => ({ bytes: new Uint8Array(inBytes) }),
    ...options,
  });
}

/** The device's transport; what is asked of it is noted. */
function watch(inner: VirtioTransport): { transport: VirtioTransport; log: string[] } {
  const log: string[] = [];
  const transport = new Proxy(inner, {
    get(target, name): unknown {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]): unknown => {
        log.push(`${String(name)} ${typeof args[0] === 'object' ? '' : args[0]}`);
        return value.apply(target, args);
      };
    },
  });
  return { transport, log };
}

const DRIVERS = [
  ['blk', VIRTIO_ID_BLOCK, probeVirtioBlk],
  ['rng', VIRTIO_ID_RNG, probeVirtioRng],
] as const;

describe.each(DRIVERS)('%s', (_, deviceId, probe) => {
  const started = (device: FakeDevice = fake({ deviceId })) => {
    const { transport, log } = watch(device.options.transport);
    const result = probe({ ...device.options, transport, cpus: 1 });
    return { device, log, result };
  };
  const at = (log: readonly string[], status: number): number =>
    log.findIndex(
      (line) => line.startsWith('writeStatus') && (Number(line.slice(12)) & status) !== 0,
    );

  test('the configuration is not written before FEATURES_OK [driver-3.1.1-2]', () => {
    const { log } = started();
    const ok = at(log, VIRTIO_CONFIG_S_FEATURES_OK);
    expect(ok).toBeGreaterThan(0);
    expect(log.slice(0, ok).filter((line) => line.startsWith('writeConfig'))).toEqual([]);
  });

  test('no kick before DRIVER_OK [driver-3.1.1-6]', () => {
    const { log } = started();
    const ok = at(log, VIRTIO_CONFIG_S_DRIVER_OK);
    expect(ok).toBeGreaterThan(0);
    expect(log.slice(0, ok).filter((line) => line.startsWith('notifyQueue'))).toEqual([]);
  });

  test('a device that refuses the features is left alone, FAILED [driver-3.1.1-5]', () => {
    const device = fake({ deviceId, hooks: { validateFeatures: () => false } });
    const { result, log } = started(device);
    expect(result.ok).toBe(false);
    const refused = at(log, VIRTIO_CONFIG_S_FEATURES_OK);
    const rest = log.slice(refused + 1).filter((line) => !line.startsWith('readStatus'));
    expect(rest).toEqual([`writeStatus ${3 | VIRTIO_CONFIG_S_FAILED}`]);
  });

  test('RING_PACKED, ORDER_PLATFORM and ACCESS_PLATFORM are accepted, bit 30 is not [driver-6.1-2, driver-6.1-4, driver-6.1-5, driver-6.3-3]', () => {
    const features = [
      VIRTIO_F_RING_PACKED,
      VIRTIO_F_ORDER_PLATFORM,
      VIRTIO_F_ACCESS_PLATFORM,
      VIRTIO_F_BAD_FEATURE,
    ];
    const { device, result } = started(fake({ deviceId, features }));
    expect(result.ok).toBe(true);
    const accepted = features.map((bit) => hasFeature(device.core.features, bit));
    expect(accepted).toEqual([true, true, true, false]);
  });
});

test('the queues are given back after the reset, and not before [driver-3.3.1-2]', () => {
  const device = fake({ deviceId: VIRTIO_ID_RNG, answer: () => undefined });
  const { transport, log } = watch(device.options.transport);
  const { pages } = device.options;
  const freePages = pages.freePages.bind(pages);
  const freed: number[] = [];
  pages.freePages = (...args: Parameters<typeof freePages>): void => {
    freed.push(log.lastIndexOf('writeStatus 0'));
    freePages(...args);
  };
  const result = probeVirtioRng({ ...device.options, transport });
  if (!result.ok) throw new Error(result.message);
  result.driver.read(new Uint8Array(4));
  expect(freed).toEqual([]);
  log.length = 0;
  result.driver.remove();
  expect(freed.length).toBeGreaterThan(0);
  for (const reset of freed) expect(reset).toBeGreaterThanOrEqual(0);
  expect(device.live()).toBe(0);
});

test('a ring in memory that was used before begins with zeros [driver-2.7.10.1-1]', () => {
  const { memory, pages } = fake();
  memory.fill(2 ** 20, 2 ** 20, 0xff);
  const queue = createDriverQueue<number>({
    memory,
    dma: createPhysicalDmaOps({ memory, pages }),
    tables: { allocate: () => undefined, free: () => {} },
    size: 8,
    layoutAlign: 128,
    hasIndirect: false,
    hasEventIdx: false,
  })!;
  const used = Number(queue.setup.used);
  expect(memory.readU16Le(used)).toBe(0);
  expect(queue.getUsed()).toBeUndefined();
});

describe('the configuration', () => {
  test('fields of features that were not negotiated are not read [driver-2.5.1-2]', () => {
    const device = fake({ features: [] });
    const { transport, log } = watch(device.options.transport);
    expect(probeVirtioBlk({ ...device.options, transport, cpus: 1 }).ok).toBe(true);
    const offsets = log.filter((l) => l.startsWith('readConfig')).map((l) => Number(l.slice(11)));
    // VIRTIO v1.2 §5.2.4: capacity is the first field, and the only one that is always there.
    expect(offsets.length).toBeGreaterThan(0);
    expect(offsets.every((offset) => offset < 8)).toBe(true);
  });

  test('it may be larger than the driver knows; what is asked for is there [driver-2.5.1-3, driver-2.5.1-4]', () => {
    const config = new Uint8Array(500).fill(0xee);
    config.set(CONFIG);
    const result = probeVirtioBlk({ ...fake({ config }).options, cpus: 1 });
    expect(result.ok && result.driver.capacity).toBe(1000);
  });
});

test.each([1, 4, 16, 1024])(
  'behind MMIO a queue has at most QueueNumMax entries: %i [driver-4.2.2.2-9]',
  (queueNumMax) => {
    const device = fake({ deviceId: VIRTIO_ID_RNG, queues: [1024] });
    const region = createVirtioMmio({ device: device.core });
    const chosen: number[] = [];
    const result = createMmioTransport({
      size: region.size,
      // VIRTIO v1.2 §4.2.2: QueueNumMax at 0x034, QueueNum at 0x038.
      read: (at, width) => (at === 0x034 ? queueNumMax : region.read(at, width)),
      write(at, width, value): void {
        if (at === 0x038) chosen.push(value);
        region.write(at, width, value);
      },
    });
    if (!result.ok) throw new Error(result.message);
    expect(probeVirtioRng({ ...device.options, transport: result.transport }).ok).toBe(true);
    expect(chosen).toEqual([queueNumMax]);
  },
);
