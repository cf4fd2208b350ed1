import { describe, expect, test } from 'vitest';
import {
  createPciLegacyTransport,
  createPciTransport,
  featureBit,
  featureBits,
  type MmioRegion,
  VIRTIO_F_ANY_LAYOUT,
  VIRTIO_F_BAD_FEATURE,
  VIRTIO_F_NOTIFY_ON_EMPTY,
  VIRTIO_F_VERSION_1,
  type VirtioPciDevice,
} from '../../src/index.js';
import { type EchoDevice, echoDevice, FEATURES, pci, transportOf } from './support/link.js';

const GUEST_FEATURES = 4;
const PFN = 8;
const NUM = 12;
const SEL = 14;
const STATUS = 18;
const VECTOR = 22;

function device(isBigEndianGuest = false): { fn: VirtioPciDevice; io: MmioRegion } & EchoDevice {
  const echo = echoDevice();
  const fn = pci(echo, 'transitional', { isBigEndianGuest });
  return { ...echo, fn, io: fn.bar(0)! };
}

describe('the registers of the legacy interface, as QEMU has them', () => {
  test('features: the lower 32, with those that only legacy drivers see', () => {
    const { io, fn } = device();
    const legacy = featureBits(VIRTIO_F_NOTIFY_ON_EMPTY, VIRTIO_F_ANY_LAYOUT, VIRTIO_F_BAD_FEATURE);
    expect(BigInt(io.read(0, 4))).toBe((FEATURES & 0xffff_ffffn) | legacy);
    expect(fn.bar(4)!.read(4, 4) & Number(legacy)).toBe(0);
  });

  test('a driver that accepts bit 30 accepts whatever it sees: it gets nothing', () => {
    const { io, core } = device();
    io.write(GUEST_FEATURES, 4, 0xffff_ffff);
    expect([core.features, io.read(GUEST_FEATURES, 4)]).toEqual([0n, 0]);
    io.write(GUEST_FEATURES, 4, 0x3000_0000);
    expect(core.features).toBe(0x3000_0000n);
  });

  test('a queue by its page: 4 KiB, whatever the guest has; all parts follow', () => {
    const { io, core } = device();
    io.write(SEL, 2, 1);
    io.write(PFN, 4, 0x123);
    expect(io.read(PFN, 4)).toBe(0x123);
    expect(core.queueSetup(1)).toEqual({
      size: 256,
      desc: 0x12_3000n,
      avail: 0x12_4000n,
      used: 0x12_5000n,
    });
    io.write(SEL, 2, 2);
    io.write(PFN, 4, 0x123);
    expect([io.read(PFN, 4), io.read(NUM, 2)]).toEqual([0, 0]);
    io.write(SEL, 2, 1024);
    expect(io.read(SEL, 2)).toBe(2);
  });

  test('page 0 resets all of the device', () => {
    const { io, core } = device();
    io.write(STATUS, 1, 7);
    io.write(PFN, 4, 0x100);
    io.write(SEL, 2, 1);
    io.write(PFN, 4, 0);
    expect([io.read(STATUS, 1), io.read(SEL, 2), core.queueSetup(0)]).toEqual([0, 0, undefined]);
  });

  test('a driver that never enables bus mastering gets it with ACKNOWLEDGE and DRIVER', () => {
    const { io, fn } = device();
    io.write(STATUS, 1, 1);
    expect(fn.configRead(4, 2) & 4).toBe(0);
    io.write(STATUS, 1, 3);
    expect(fn.configRead(4, 2) & 4).toBe(4);
  });

  test('the vectors are there only while MSI-X is on: the configuration moves', () => {
    const { io, fn } = device();
    expect(io.read(20, 1)).toBe(0);
    io.write(VECTOR, 2, 1);
    expect(fn.bar(4)!.read(26, 2)).toBe(0xffff);
    fn.configWrite(0x9a, 2, 0x8000);
    io.write(VECTOR, 2, 1);
    expect([io.read(VECTOR, 2), io.read(24, 1), io.read(25, 1)]).toEqual([1, 0, 1]);
    io.write(VECTOR, 2, 9);
    expect(io.read(VECTOR, 2)).toBe(0xffff);
  });

  test('what is between the registers reads as ones', () => {
    const { io } = device();
    for (const [at, width] of [
      [1, 1],
      [13, 1],
      [17, 1],
      [6, 2],
    ] as const) {
      expect(io.read(at, width)).toBe(2 ** (8 * width) - 1);
    }
  });

  test('registers are little-endian, the configuration is the guest its own', () => {
    const little = device(false).io;
    const big = device(true).io;
    expect([little.read(NUM, 2), big.read(NUM, 2)]).toEqual([256, 256]);
    // Bytes 0 to 3 at 20.
    expect([little.read(20, 4), big.read(20, 4)]).toEqual([0x0302_0100, 0x0001_0203]);
    expect([little.read(22, 2), big.read(22, 2)]).toEqual([0x0302, 0x0203]);
    expect([little.read(21, 1), big.read(21, 1)]).toEqual([1, 1]);
  });
});

describe('a big-endian guest', () => {
  test('its byte order counts until the driver accepts VERSION_1', () => {
    const { core, fn } = device(true);
    expect(core.isBigEndian).toBe(true);
    const common = fn.bar(4)!;
    common.write(8, 4, 1);
    common.write(12, 4, 1);
    expect([core.features, core.isBigEndian]).toEqual([featureBit(VIRTIO_F_VERSION_1), false]);
    common.write(20, 1, 0);
    expect(core.isBigEndian).toBe(true);
  });
});

test('a queue that is set up before the features stays set up, in the byte order that they mean', () => {
  const { core, fn, io, memory } = device(true);
  io.write(PFN, 4, 0x100);
  memory.writeU16Le(0x10_1002, 1);
  expect(core.queues[0]!.isEmpty()).toBe(false);
  fn.bar(4)!.write(8, 4, 1);
  fn.bar(4)!.write(12, 4, 1);
  expect([core.queues[0]!.isConfigured, core.queues[0]!.isEmpty()]).toEqual([true, false]);
});

describe('the legacy driver', () => {
  const transport = (): ReturnType<typeof transportOf> =>
    transportOf(createPciLegacyTransport(device().fn));
  const good = { size: 256, desc: 0x10_0000n, avail: 0x10_1000n, used: 0x10_2000n };

  test.each([
    ['another size', { ...good, size: 128 }],
    ['not on a page', { ...good, desc: 0x10_0010n }],
    ['beyond 2^44', { ...good, desc: 2n ** 44n, avail: 2n ** 44n, used: 2n ** 44n }],
    ['parts elsewhere', { ...good, used: 0x10_3000n }],
  ])('a ring that the interface cannot say is a mistake of the caller: %s', (_, setup) => {
    expect(() => transport().setupQueue(0, setup)).toThrow(
      expect.objectContaining({ code: 'E_LEGACY_QUEUE' }),
    );
  });

  test('a ring that it can say is set up', () => {
    const it = device();
    transportOf(createPciLegacyTransport(it.fn)).setupQueue(0, good);
    expect(it.core.queueSetup(0)).toEqual(good);
  });

  test('only functions of revision 0 with an id from 0x1000 to 0x103f have the interface', () => {
    const modern = pci(echoDevice(), 'modern', { name: '0000:00:07.0' });
    expect(createPciLegacyTransport(modern)).toEqual({
      ok: false,
      reason: 'no-device',
      message:
        'expected a legacy virtio function (1af4:1000 to 1af4:103f, revision 0) at 0000:00:07.0, found 1af4:1042 revision 1',
    });
  });

  test('it is taken only where there is no modern way', () => {
    expect(transportOf(createPciTransport(device().fn)).isLegacy).toBe(false);
    expect(transportOf(createPciTransport(pci(echoDevice(), 'legacy'))).isLegacy).toBe(true);
    const nothing = {
      name: '0000:00:08.0',
      configRead: () => 0xffff,
      configWrite: () => {},
      bar: () => undefined,
    };
    expect(createPciTransport(nothing)).toMatchObject({ ok: false, reason: 'no-device' });
  });
});
