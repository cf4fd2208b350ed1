/** The virtio-blk driver: what it asks for, and devices that answer badly. */
import {
  encodeBlkConfig,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_CONFIG_S_FAILED,
  VIRTIO_CONFIG_S_FEATURES_OK,
  VIRTIO_ID_BLOCK,
} from '@pinhole/virtio';
import { describe, expect, test } from 'vitest';
import { type BlkCommand, probeVirtioBlk, type VirtioBlkDriver } from '../../src/index.js';
import { createFakeDevice, type FakeDevice, type FakeDeviceOptions } from './fake-device.js';

const CONFIG = {
  capacity: 1000,
  segMax: 16,
  blkSize: 512,
  writeback: 1,
  maxDiscardSectors: 64,
  maxDiscardSeg: 4,
  maxWriteZeroesSectors: 64,
  maxWriteZeroesSeg: 1,
};
const FEATURES = [
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_WRITE_ZEROES,
];

type Options = Partial<FakeDeviceOptions> & { cpus?: number };

function fake(options: Options = {}): FakeDevice {
  return createFakeDevice({
    deviceId: VIRTIO_ID_BLOCK,
    features: FEATURES,
    config: encodeBlkConfig(CONFIG),
    answer: ({ inBytes }) => ({ bytes: new Uint8Array(inBytes) }),
    ...options,
  });
}

function probe(options: Options = {}): { device: FakeDevice; driver: VirtioBlkDriver } {
  const device = fake(options);
  const probed = probeVirtioBlk({ ...device.options, cpus: options.cpus ?? 1 });
  if (!probed.ok) throw new Error(probed.message);
  return { device, driver: probed.driver };
}

/** The request as it lay before the device. */
function sent(command: BlkCommand): {
  out: DataView;
  segments: readonly number[];
  inn: readonly number[];
} {
  const { device, driver } = probe();
  driver.submit([command]);
  const [one] = device.received;
  if (one === undefined) throw new Error('nothing was sent');
  const { out, outSegments, inSegments } = one;
  const view = new DataView(out.buffer, out.byteOffset, out.length);
  return { out: view, segments: outSegments, inn: inSegments };
}

describe('what it asks for', () => {
  test('A driver MUST set sector to 0 for a VIRTIO_BLK_T_FLUSH request [driver-5.2.6.1-3]', () => {
    const { out } = sent({ op: 'flush' });
    expect([out.getUint32(0, true), out.getBigUint64(8, true)]).toEqual([4, 0n]);
  });

  test('A driver SHOULD NOT include any data in a VIRTIO_BLK_T_FLUSH request [driver-5.2.6.1-4]', () => {
    const { segments, inn } = sent({ op: 'flush' });
    expect([segments, inn]).toEqual([[16], [1]]);
  });

  test('The length of data MUST be a multiple of the size of struct virtio_blk_discard_write_zeroes [driver-5.2.6.1-6]', () => {
    const ranges = [
      { sector: 5, sectors: 6 },
      { sector: 2 ** 33 + 1, sectors: 64 },
    ];
    const { out, segments } = sent({ op: 'discard', ranges });
    expect(segments).toEqual([16, 32]);
    expect([out.getBigUint64(16, true), out.getUint32(24, true)]).toEqual([5n, 6]);
    expect([out.getBigUint64(32, true), out.getUint32(40, true)]).toEqual([2n ** 33n + 1n, 64]);
  });

  test('The length of data MUST be 20 bytes for VIRTIO_BLK_T_GET_ID requests [driver-5.2.6.1-7]', () => {
    const { device, driver } = probe();
    driver.readSerial();
    expect(device.received[0]?.inSegments).toEqual([20, 1]);
  });

  test('The unmap bit MUST be zero for discard commands [driver-5.2.6.1-12]', () => {
    const ranges = [{ sector: 0, sectors: 1 }];
    expect(sent({ op: 'discard', ranges }).out.getUint32(28, true)).toBe(0);
    const zeroes = sent({ op: 'write-zeroes', ranges, mayUnmap: true });
    expect(zeroes.out.getUint32(28, true)).toBe(1);
  });

  test('A driver SHOULD accept the VIRTIO_BLK_F_RO feature if offered [driver-5.2.6.1-2]', () => {
    expect(probe({ features: [VIRTIO_BLK_F_RO] }).driver.isReadOnly).toBe(true);
    expect(probe().driver.isReadOnly).toBe(false);
  });

  test('If VIRTIO_BLK_F_CONFIG_WCE was not negotiated but VIRTIO_BLK_F_FLUSH was, the driver SHOULD assume presence of a writeback cache [driver-5.2.5.1-2]', () => {
    const { driver } = probe({ features: [VIRTIO_BLK_F_FLUSH] });
    expect(driver.isWriteback).toBe(true);
    expect(driver.setWriteback(false)).toBe(false);
    expect(probe({ features: [] }).driver.isWriteback).toBe(false);
  });

  test('The driver MUST NOT read writeback before setting the FEATURES_OK device status bit [driver-5.2.5.1-3]', () => {
    const statuses: number[] = [];
    const device: FakeDevice = fake({
      hooks: { getConfig: () => void statuses.push(device.core.status) },
    });
    probeVirtioBlk(device.options);
    expect(statuses.length).toBeGreaterThan(0);
    for (const status of statuses) expect(status & VIRTIO_CONFIG_S_FEATURES_OK).not.toBe(0);
  });

  test('Drivers SHOULD NOT negotiate VIRTIO_BLK_F_FLUSH if they are incapable of sending flushes [driver-5.2.5.1-1]', () => {
    const { device, driver } = probe();
    expect((driver.features >> 9n) & 1n).toBe(1n);
    driver.flush();
    expect(device.received[0]?.out[0]).toBe(4);
  });

  test('a command that the device does not have is not sent', () => {
    const { device, driver } = probe({ features: [] });
    const ranges = [{ sector: 0, sectors: 1 }];
    const commands: BlkCommand[] = [
      { op: 'flush' },
      { op: 'discard', ranges },
      { op: 'write-zeroes', ranges },
    ];
    const reasons = driver.submit(commands).map(({ outcome }) => outcome);
    expect(reasons).toEqual(
      ['flush', 'discard', 'write-zeroes'].map((op) => ({
        kind: 'rejected',
        reason: `the device has no ${op}`,
      })),
    );
    expect(device.received).toEqual([]);
  });
});

describe('a device that answers badly', () => {
  test.each([
    ['zero queues', { numQueues: 0 }, 'MQ advertised but zero queues reported'],
    ['a block size of 0', { blkSize: 0 }, 'virtio_blk: invalid block size: 0x0'],
    ['a block size of 3000', { blkSize: 3000 }, 'virtio_blk: invalid block size: 0xbb8'],
    ['a block larger than a page', { blkSize: 8192 }, 'virtio_blk: invalid block size: 0x2000'],
    ['fewer queues than it says', { numQueues: 9 }, 'no queue 1'],
  ])('%s: no driver, and the device is told', (_what, change, message) => {
    const device = fake({
      features: [...FEATURES, VIRTIO_BLK_F_MQ],
      config: encodeBlkConfig({ ...CONFIG, numQueues: 1, ...change }),
    });
    expect(probeVirtioBlk({ ...device.options, cpus: 4 })).toEqual({ ok: false, message });
    expect(device.core.status & VIRTIO_CONFIG_S_FAILED).toBe(VIRTIO_CONFIG_S_FAILED);
    expect(device.core.status & VIRTIO_CONFIG_S_DRIVER_OK).toBe(0);
  });

  test('no queue at all', () => {
    expect(probeVirtioBlk(fake({ queues: [] }).options)).toEqual({
      ok: false,
      message: 'no queue 0',
    });
  });

  test.each([
    ['no status byte', { length: 0 }, { status: 0xff, usedLength: 0 }],
    ['an unknown status', { bytes: Uint8Array.of(77) }, { status: 77, usedLength: 1 }],
    [
      'a length beyond the buffer',
      { length: 2 ** 32 - 1 },
      { status: 0xff, usedLength: 2 ** 32 - 1 },
    ],
  ])('%s is the outcome, no more', (_what, answer, expected) => {
    const { driver, device } = probe({ answer: () => answer });
    expect(driver.flush()).toEqual({ kind: 'done', ...expected });
    expect(device.live()).toBe(0);
  });

  test('a serial that is no text, or that it does not write', () => {
    const garbage = new Uint8Array(21).fill(0xff);
    garbage[20] = 0;
    expect(probe({ answer: () => ({ bytes: garbage }) }).driver.readSerial()).toHaveLength(20);
    expect(probe({ answer: () => ({ length: 21 }) }).driver.readSerial()).toBe('');
  });

  test('it returns what it never had: the queue is broken, what waits is rejected, the rest hangs', () => {
    const { device, driver } = probe({ answer: () => undefined, queues: [4] });
    const requests = driver.submit(Array.from({ length: 6 }, () => ({ op: 'flush' as const })));
    const { queue, element } = device.kept[0]!;
    element.head = 3;
    queue.push(element, 1);
    device.core.notifyDriver(0);
    expect(requests.map((request) => driver.wait(request).kind)).toEqual([
      'hung',
      'hung',
      'rejected',
      'rejected',
      'rejected',
      'rejected',
    ]);
    expect(driver.submit([{ op: 'flush' }])[0]?.outcome).toEqual({
      kind: 'rejected',
      reason: 'broken',
    });
  });

  test('interrupts for the configuration end no request', () => {
    const { device, driver } = probe({ answer: () => undefined });
    const [request] = driver.submit([{ op: 'flush' }]);
    for (let i = 0; i < 100; i += 1) device.core.notifyConfig();
    expect(request?.outcome).toBeUndefined();
  });

  test('a configuration that changes at every read is read all the same', () => {
    const config = encodeBlkConfig(CONFIG);
    const device: FakeDevice = fake({
      config,
      hooks: {
        getConfig: () => {
          config[0] = (config[0] ?? 0) + 1;
          device.core.notifyConfig();
        },
      },
    });
    expect(probeVirtioBlk(device.options).ok).toBe(true);
  });

  test('a new capacity counts from its interrupt on', () => {
    const config = encodeBlkConfig(CONFIG);
    const { device, driver } = probe({ config });
    const read: BlkCommand = { op: 'read', sector: 1000, data: [{ gpa: 2 ** 21, length: 512 }] };
    expect(driver.submit([read])[0]?.outcome?.kind).toBe('rejected');
    config.set(encodeBlkConfig({ ...CONFIG, capacity: 2000 }));
    device.core.notifyConfig();
    expect(driver.capacity).toBe(2000);
    expect(driver.submit([read])[0]?.outcome?.kind).toBe('done');
  });
});
