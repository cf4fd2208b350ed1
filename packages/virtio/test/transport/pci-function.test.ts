import { describe, expect, test } from 'vitest';
import {
  connectPciInterrupts,
  createPciTransport,
  createVirtioPci,
  featureBits,
  type PciInterrupt,
  readConfigFields,
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_VERSION_1,
  type VirtioPciDevice,
} from '../../src/index.js';
import { echoDevice, FEATURES, link, pci, transportOf, WAYS } from './support/link.js';

const COMMAND = 4;
const MASTER = 4;
const INTX_DISABLE = 0x400;
const STATUS = 20;
const QUEUE_SIZE = 24;
const QUEUE_ENABLE = 28;
const MSIX = 0x98;
const ENABLE = 0x8000;
const MASK_ALL = 0x4000;

const LINE = WAYS.find(({ name }) => name === 'PCI modern, polled')!;

/** A device that is up, driven by register accesses; what its function says to the platform. */
function live(): ReturnType<typeof link> & { fn: VirtioPciDevice; said: PciInterrupt[] } {
  const device = echoDevice();
  const fn = pci(device, 'modern');
  const said: PciInterrupt[] = [];
  const it = link({ ...LINE, connect: () => transportOf(createPciTransport(fn)) }, device);
  fn.onInterrupt((interrupt) => said.push(interrupt));
  return { ...it, fn, said };
}

const bytes = Uint8Array.of(1, 2, 3);

describe('what QEMU refuses', () => {
  test.each(['transitional', 'legacy'] as const)('ACCESS_PLATFORM behind a %s function', (mode) => {
    const features = featureBits(VIRTIO_F_VERSION_1, VIRTIO_F_ACCESS_PLATFORM);
    const device = echoDevice({ features }).core;
    expect(() => createVirtioPci({ device, mode })).toThrow(
      expect.objectContaining({
        code: 'E_LEGACY_PLATFORM',
        message: expect.stringContaining(
          'VIRTIO_F_IOMMU_PLATFORM was supported by neither legacy nor transitional device',
        ),
      }),
    );
    expect(() => createVirtioPci({ device, mode: 'modern' })).not.toThrow();
  });

  test('a value of queue_enable that is not 1 breaks the device', () => {
    const { fn, core, transport } = live();
    fn.bar(4)!.write(QUEUE_ENABLE, 2, 2);
    expect(core.errors).toEqual(['wrong value for queue_enable 2']);
    expect(transport.readStatus() & 0x40).toBe(0x40);
  });

  test('sizes of 0 and above 1024 leave the size as it was', () => {
    const common = pci(echoDevice(), 'modern').bar(4)!;
    for (const size of [0, 1025, 0xffff]) {
      common.write(QUEUE_SIZE, 2, size);
      expect(common.read(QUEUE_SIZE, 2)).toBe(256);
    }
    common.write(QUEUE_SIZE, 2, 1024);
    expect(common.read(QUEUE_SIZE, 2)).toBe(1024);
  });
});

test('a queue that is reset has its default size and no vector; enabled again, the size that was written', () => {
  const { fn } = live();
  const common = fn.bar(4)!;
  common.write(QUEUE_SIZE, 2, 16);
  common.write(26, 2, 1);
  common.write(58, 2, 1);
  expect([common.read(QUEUE_SIZE, 2), common.read(26, 2), common.read(QUEUE_ENABLE, 2)]).toEqual([
    256, 0xffff, 0,
  ]);
  common.write(QUEUE_ENABLE, 2, 1);
  expect([common.read(QUEUE_SIZE, 2), common.read(QUEUE_ENABLE, 2)]).toEqual([16, 1]);
});

describe('the COMMAND register', () => {
  test('without bus mastering the device is no longer live, and leaves its queues alone', () => {
    const it = live();
    it.exchange(0, bytes);
    const command = it.fn.configRead(COMMAND, 2);
    it.fn.configWrite(COMMAND, 2, command & ~MASTER);
    expect(it.transport.readStatus() & VIRTIO_CONFIG_S_DRIVER_OK).toBe(0);
    expect(it.core.isBroken).toBe(true);
    expect(() => it.exchange(0, bytes)).toThrow('found undefined');
    it.fn.configWrite(COMMAND, 2, command);
    expect(it.core.isBroken).toBe(false);
    it.transport.notifyQueue(0);
    expect(it.queues[0]!.hasUsed()).toBe(true);
  });

  test('BARs that are not enabled read as ones and hear nothing', () => {
    const fn = pci(echoDevice(), 'transitional');
    const [io, msix, common] = [fn.bar(0)!, fn.bar(1)!, fn.bar(4)!];
    fn.configWrite(COMMAND, 2, 0);
    common.write(STATUS, 1, 1);
    expect([io.read(12, 2), msix.read(12, 4), common.read(STATUS, 1)]).toEqual([
      0xffff, 0xffff_ffff, 0xff,
    ]);
    fn.configWrite(COMMAND, 2, 2);
    expect([io.read(12, 2), msix.read(12, 4), common.read(STATUS, 1)]).toEqual([0xffff, 1, 0]);
    fn.configWrite(COMMAND, 2, 3);
    expect(io.read(12, 2)).toBe(256);
  });

  test('the line: asserted until the ISR is read, not while it is disabled', () => {
    const { fn, core, said } = live();
    core.notifyConfig();
    core.notifyConfig();
    expect(said).toEqual([{ kind: 'intx', asserted: true }]);
    fn.configWrite(COMMAND, 2, fn.configRead(COMMAND, 2) | INTX_DISABLE);
    fn.configWrite(COMMAND, 2, fn.configRead(COMMAND, 2) & ~INTX_DISABLE);
    expect(said.map((one) => one.kind === 'intx' && one.asserted)).toEqual([true, false, true]);
    expect(fn.bar(4)!.read(0x1000, 1)).toBe(3);
    expect(fn.bar(4)!.read(0x1000, 1)).toBe(0);
    expect(said.at(-1)).toEqual({ kind: 'intx', asserted: false });
    fn.configWrite(COMMAND, 2, fn.configRead(COMMAND, 2) | INTX_DISABLE);
    core.notifyConfig();
    expect(said).toHaveLength(4);
    // STATUS says it all the same. [PCI 3.0 §6.2.3]
    expect(fn.configRead(6, 2) & 8).toBe(8);
  });
});

describe('MSI-X', () => {
  function vectors(): ReturnType<typeof live> {
    const it = live();
    const table = it.fn.bar(1)!;
    it.fn.bar(4)!.write(16, 2, 1);
    for (const [at, value] of [
      [16, 0xfee0_0000],
      [20, 1],
      [24, 0x4021],
      [28, 0],
    ] as const) {
      table.write(at, 4, value);
    }
    it.fn.configWrite(MSIX + 2, 2, ENABLE);
    return it;
  }
  const message = { kind: 'msix', vector: 1, address: 0x1_fee0_0000n, data: 0x4021 };

  test('a message is what the table says', () => {
    const { core, said } = vectors();
    core.notifyConfig();
    expect(said).toEqual([message]);
  });

  test.each([
    ['of the vector', (fn: VirtioPciDevice, on: boolean) => fn.bar(1)!.write(28, 4, on ? 1 : 0)],
    [
      'of the function',
      (fn: VirtioPciDevice, on: boolean) =>
        fn.configWrite(MSIX + 2, 2, on ? ENABLE | MASK_ALL : ENABLE),
    ],
  ] as const)('the mask %s: pending, once, until it is taken away', (_, mask) => {
    const { fn, core, said } = vectors();
    mask(fn, true);
    core.notifyConfig();
    core.notifyConfig();
    expect([said.length, fn.bar(1)!.read(0x800, 4)]).toEqual([0, 2]);
    mask(fn, false);
    expect([said, fn.bar(1)!.read(0x800, 4)]).toEqual([[message], 0]);
  });

  test('an event that goes to another vector takes along what was pending', () => {
    const { fn, core, said } = vectors();
    fn.bar(1)!.write(28, 4, 1);
    core.notifyConfig();
    expect(fn.bar(1)!.read(0x800, 4)).toBe(2);
    fn.bar(4)!.write(16, 2, 0);
    expect(fn.bar(1)!.read(0x800, 4)).toBe(0);
    fn.bar(1)!.write(28, 4, 0);
    expect(said).toEqual([]);
  });

  test('a message is a write to the bus: none without bus mastering', () => {
    const { fn, core, said } = vectors();
    core.notifyConfig();
    fn.configWrite(COMMAND, 2, 2);
    core.notifyConfig();
    expect(said).toHaveLength(1);
  });

  test('enabling it takes the line back', () => {
    const { fn, core, said } = live();
    core.notifyConfig();
    fn.configWrite(MSIX + 2, 2, ENABLE);
    expect(said.at(-1)).toEqual({ kind: 'intx', asserted: false });
  });

  test('130 vectors: a larger BAR, the pending bits behind the table', () => {
    const fn = pci(echoDevice(), 'modern', { msixVectors: 130 });
    expect([fn.bar(1)?.size, fn.configRead(MSIX + 8, 4)]).toEqual([4096, (130 * 16) | 1]);
    expect(pci(echoDevice(), 'modern', { msixVectors: 5000 }).bar(1)?.size).toBe(0x1_0000);
  });
});

test('a reset of the function: nothing of the driver is left but what is no register', () => {
  const it = live();
  it.core.notifyConfig();
  it.fn.configWrite(0x3c, 1, 9);
  it.fn.configWrite(0xf0, 4, 0x1234_5678);
  it.fn.configWrite(MSIX + 2, 2, ENABLE);
  it.fn.reset();
  const fresh = pci(echoDevice(), 'modern');
  const dump = (fn: VirtioPciDevice): number[] =>
    Array.from({ length: 60 }, (_, i) => fn.configRead(4 * i, 4));
  expect(dump(it.fn)).toEqual(dump(fresh));
  expect(it.fn.configRead(0xf0, 4)).toBe(0x1234_5678);
  expect(it.fn.bar(4)!.read(STATUS, 1)).toBe(0);
});

test('interrupts that come while a handler runs are delivered after it, once', () => {
  const device = echoDevice();
  const fn = pci(device, 'modern');
  const interrupts = connectPciInterrupts(fn);
  const transport = transportOf(
    createPciTransport(fn, { interrupts: { onLine: interrupts.onLine } }),
  );
  let depth = 0;
  const depths: number[] = [];
  transport.onInterrupt(() => {
    depth += 1;
    depths.push(depth);
    if (depths.length < 4) device.core.notifyConfig();
    depth -= 1;
  });
  transport.writeStatus(VIRTIO_CONFIG_S_DRIVER_OK);
  device.core.notifyConfig();
  expect(new Set(depths)).toEqual(new Set([1]));
  expect(depths.length).toBeGreaterThan(3);
});

describe('a configuration that changes while it is read', () => {
  test('the driver gets values of one generation', () => {
    let reads = 0;
    const config = new Uint8Array(8);
    const device = echoDevice({
      features: FEATURES,
      config,
      hooks: {
        // Both halves change together, now and then between the reads of the halves.
        getConfig: () => {
          reads += 1;
          if (reads % 3 !== 2 || reads > 40) return;
          config.fill(reads);
          device.core.notifyConfig();
        },
      },
    });
    const transport = transportOf(createPciTransport(pci(device, 'modern')));
    const seen = readConfigFields(transport, [
      { offset: 0, length: 4 },
      { offset: 4, length: 4 },
    ]);
    expect(seen).toEqual(new Uint8Array(8).fill(seen[0]!));
    expect(reads).toBeGreaterThan(2);
  });

  test('one that changes without end does not hold the driver for ever', () => {
    const device = echoDevice({
      config: new Uint8Array(8),
      hooks: { getConfig: () => device.core.notifyConfig() },
    });
    const transport = transportOf(createPciTransport(pci(device, 'modern')));
    expect(
      readConfigFields(transport, [
        { offset: 0, length: 4 },
        { offset: 4, length: 4 },
      ]),
    ).toHaveLength(8);
  });
});
