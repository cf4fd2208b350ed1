import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import { describe, expect, test } from 'vitest';
import {
  createVirtioPci,
  type DeviceQueue,
  featureBits,
  type MmioRegion,
  type PciInterrupt,
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_ID_BLOCK,
  VIRTIO_ID_CONSOLE,
  VIRTIO_ID_NET,
  VIRTIO_ID_RNG,
  VIRTIO_RING_F_EVENT_IDX,
  VirtioDeviceCore,
  type VirtioPciDevice,
} from '../../src/index.js';

/** A device, and a driver that knows the numbers of the specification and nothing else. */
interface Bench {
  readonly core: VirtioDeviceCore;
  readonly fn: VirtioPciDevice;
  readonly interrupts: PciInterrupt[];
  readonly config: Uint8Array;
  /** The structure of a `cfg_type`, as the first capability of it says. */
  structure(type: number): Structure;
}
interface Structure {
  read(at: number, width: 1 | 2 | 4): number;
  write(at: number, width: 1 | 2 | 4, value: number): void;
  readonly offset: number;
  readonly length: number;
  readonly capability: number;
}

// VIRTIO v1.2 §4.1.4: cfg_type.
const COMMON = 1;
const NOTIFY = 2;
const ISR = 3;
const DEVICE = 4;
const PCI_CFG = 5;
// §4.1.4.3: struct virtio_pci_common_cfg.
const DEVICE_FEATURE_SELECT = 0;
const DEVICE_FEATURE = 4;
const DRIVER_FEATURE_SELECT = 8;
const DRIVER_FEATURE = 12;
const CONFIG_MSIX_VECTOR = 16;
const NUM_QUEUES = 18;
const DEVICE_STATUS = 20;
const CONFIG_GENERATION = 21;
const QUEUE_SELECT = 22;
const QUEUE_SIZE = 24;
const QUEUE_MSIX_VECTOR = 26;
const QUEUE_ENABLE = 28;
const QUEUE_NOTIFY_OFF = 30;
const QUEUE_DESC = 32;
const QUEUE_DRIVER = 40;
const QUEUE_DEVICE = 48;
const QUEUE_RESET = 58;
const NO_VECTOR = 0xffff;
const QUEUES = 3;
const FEATURES = featureBits(VIRTIO_F_VERSION_1, VIRTIO_RING_F_EVENT_IDX, VIRTIO_F_RING_RESET);

function capabilities(fn: VirtioPciDevice): number[] {
  const found: number[] = [];
  for (let at = fn.configRead(0x34, 1); at !== 0; at = fn.configRead(at + 1, 1)) found.push(at);
  return found;
}
const virtioCapabilities = (fn: VirtioPciDevice, type: number): number[] =>
  capabilities(fn).filter((at) => fn.configRead(at, 1) === 9 && fn.configRead(at + 3, 1) === type);

function bench(
  options: {
    mode?: 'modern' | 'transitional';
    vectors?: number;
    deviceId?: number;
    features?: bigint;
  } = {},
): Bench {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 20 }] });
  const config = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
  const handleOutput = (queue: DeviceQueue): void => {
    for (let e = queue.pop(); e !== undefined; e = queue.pop()) queue.push(e, 0);
  };
  const core = new VirtioDeviceCore({
    deviceId: options.deviceId ?? VIRTIO_ID_BLOCK,
    features: options.features ?? FEATURES,
    config,
    memory,
    space: createSystemMemorySpace(memory),
    queues: Array.from({ length: QUEUES }, () => ({ maxSize: 16, handleOutput })),
    usesEventFds: false,
  });
  const fn = createVirtioPci({
    device: core,
    mode: options.mode ?? 'modern',
    ...(options.vectors === undefined ? {} : { msixVectors: options.vectors }),
  });
  const interrupts: PciInterrupt[] = [];
  fn.onInterrupt((interrupt) => interrupts.push(interrupt));
  fn.bar(0);
  fn.configWrite(4, 2, fn.configRead(4, 2) | 7);
  return {
    core,
    fn,
    interrupts,
    config,
    structure(type) {
      const capability = virtioCapabilities(fn, type)[0]!;
      const region = fn.bar(fn.configRead(capability + 4, 1)) as MmioRegion;
      const offset = fn.configRead(capability + 8, 4);
      return {
        capability,
        offset,
        length: fn.configRead(capability + 12, 4),
        read: (at, width) => region.read(offset + at, width),
        write: (at, width, value) => region.write(offset + at, width, value),
      };
    },
  };
}

/** Accepts all, sets up queue 0 of 8 entries at 0x1000, and goes live. */
function goLive(b: Bench, vectors: { config?: number; queue?: number } = {}): void {
  const common = b.structure(COMMON);
  common.write(DEVICE_STATUS, 1, 0);
  common.write(DEVICE_STATUS, 1, 3);
  for (const half of [0, 1]) {
    common.write(DEVICE_FEATURE_SELECT, 4, half);
    const bits = common.read(DEVICE_FEATURE, 4);
    common.write(DRIVER_FEATURE_SELECT, 4, half);
    common.write(DRIVER_FEATURE, 4, bits);
  }
  common.write(DEVICE_STATUS, 1, 11);
  if (vectors.config !== undefined) common.write(CONFIG_MSIX_VECTOR, 2, vectors.config);
  common.write(QUEUE_SELECT, 2, 0);
  common.write(QUEUE_SIZE, 2, 8);
  if (vectors.queue !== undefined) common.write(QUEUE_MSIX_VECTOR, 2, vectors.queue);
  common.write(QUEUE_DESC, 4, 0x1000);
  common.write(QUEUE_DRIVER, 4, 0x2000);
  common.write(QUEUE_DEVICE, 4, 0x3000);
  common.write(QUEUE_ENABLE, 2, 1);
  common.write(DEVICE_STATUS, 1, 15);
}

/** Turns MSI-X on, vector `v` with address 0x1000 * v and data v, unmasked. */
function enableMsix(b: Bench): number {
  const at = capabilities(b.fn).find((cap) => b.fn.configRead(cap, 1) === 0x11)!;
  const vectors = (b.fn.configRead(at + 2, 2) & 0x7ff) + 1;
  const table = b.fn.bar(b.fn.configRead(at + 4, 4) & 7)!;
  const offset = b.fn.configRead(at + 4, 4) & ~7;
  for (let v = 0; v < vectors; v += 1) {
    table.write(offset + 16 * v, 4, 0x1000 * v);
    table.write(offset + 16 * v + 8, 4, v);
    table.write(offset + 16 * v + 12, 4, 0);
  }
  b.fn.configWrite(at + 2, 2, 0x8000);
  return vectors;
}
const sent = (b: Bench): number[] =>
  b.interrupts.flatMap((i) => (i.kind === 'msix' ? [i.vector] : []));

describe('discovery', () => {
  const ids = [VIRTIO_ID_NET, VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_RNG];

  test('the PCI Vendor ID is 0x1AF4 [device-4.1.2.1-1]', () => {
    for (const mode of ['modern', 'transitional'] as const) {
      expect(bench({ mode }).fn.configRead(0, 2)).toBe(0x1af4);
    }
  });

  test('the PCI Device ID is 0x1040 and the virtio id, or the transitional one [device-4.1.2.1-2, device-4.1.2.1-3, device-4.1.2.3-3]', () => {
    const idOf = (deviceId: number, mode: 'modern' | 'transitional'): number =>
      bench({ deviceId, mode }).fn.configRead(2, 2);
    expect(ids.map((id) => idOf(id, 'modern'))).toEqual(ids.map((id) => 0x1040 + id));
    // §4.1.2.1: network card 0x1000, block device 0x1001, console 0x1003, entropy source 0x1005.
    expect(ids.map((id) => idOf(id, 'transitional'))).toEqual([0x1000, 0x1001, 0x1003, 0x1005]);
  });

  test('revision and subsystem of a device without a legacy interface: 1 and above, 0x40 and above [device-4.1.2.1-4, device-4.1.2.1-5]', () => {
    const { fn } = bench();
    expect(fn.configRead(8, 1)).toBeGreaterThanOrEqual(1);
    expect(fn.configRead(0x2e, 2)).toBeGreaterThanOrEqual(0x40);
  });

  test('a transitional device has revision 0 and the virtio id as its subsystem [device-4.1.2.3-1, device-4.1.2.3-2]', () => {
    for (const deviceId of ids) {
      const { fn } = bench({ deviceId, mode: 'transitional' });
      expect([fn.configRead(8, 1), fn.configRead(0x2e, 2)]).toEqual([0, deviceId]);
    }
  });

  test('a transitional device has the legacy interface in I/O space in BAR0 [device-4.1.4.10-1, device-4.1.5.1.1.1-1]', () => {
    const { fn } = bench({ mode: 'transitional' });
    expect(fn.configRead(0x10, 4) & 1).toBe(1);
    expect(fn.bar(0)!.read(12, 2)).toBe(16);
    expect(bench().fn.bar(0)).toBeUndefined();
  });
});

describe('structures', () => {
  test('there is one at least of each [device-4.1.4.3.1-2, device-4.1.4.4.1-1, device-4.1.4.5.1-1, device-4.1.4.6-1]', () => {
    for (const mode of ['modern', 'transitional'] as const) {
      const { fn } = bench({ mode });
      for (const type of [COMMON, NOTIFY, ISR, DEVICE]) {
        expect(virtioCapabilities(fn, type).length).toBeGreaterThanOrEqual(1);
      }
    }
  });

  test('there is a capability for access through configuration space [device-4.1.4.9.1-1]', () => {
    expect(virtioCapabilities(bench().fn, PCI_CFG).length).toBeGreaterThanOrEqual(1);
  });

  test('they are aligned to 4 bytes [device-4.1.4.3.1-1, device-4.1.4.4.1-2, device-4.1.4.4.1-7, device-4.1.4.6.1-1]', () => {
    const b = bench();
    for (const type of [COMMON, NOTIFY, DEVICE]) expect(b.structure(type).offset % 4).toBe(0);
  });

  test('cap_len covers all of a capability [device-4.1.4.2-1]', () => {
    const { fn } = bench();
    for (const [type, length] of [
      [COMMON, 16],
      [ISR, 16],
      [DEVICE, 16],
      [NOTIFY, 20],
      [PCI_CFG, 20],
    ] as const) {
      expect(fn.configRead(virtioCapabilities(fn, type)[0]! + 2, 1)).toBe(length);
    }
  });

  test('there is a place for the notification of each queue [device-4.1.4.4.1-3, device-4.1.4.4.1-4, device-4.1.4.4.1-5, device-4.1.4.4.1-6, device-4.1.4.4.1-8, device-4.1.4.4.1-9]', () => {
    const b = bench();
    const { capability, length } = b.structure(NOTIFY);
    const multiplier = b.fn.configRead(capability + 16, 4);
    // A power of two, and a multiple of 4: what is asked with NOTIFICATION_DATA and without.
    expect(Math.log2(multiplier) % 1).toBe(0);
    expect(multiplier % 4).toBe(0);
    const common = b.structure(COMMON);
    for (let queue = 0; queue < QUEUES; queue += 1) {
      common.write(QUEUE_SELECT, 2, queue);
      const off = common.read(QUEUE_NOTIFY_OFF, 2);
      expect(length).toBeGreaterThanOrEqual(off * multiplier + 4);
    }
  });

  test('configuration space reaches the structures [device-4.1.4.9.1-2, device-4.1.4.9.1-3]', () => {
    const b = bench();
    const { capability: at } = b.structure(PCI_CFG);
    const common = b.structure(COMMON);
    const aim = (offset: number, width: number): void => {
      b.fn.configWrite(at + 4, 1, b.fn.configRead(common.capability + 4, 1));
      b.fn.configWrite(at + 8, 4, common.offset + offset);
      b.fn.configWrite(at + 12, 4, width);
    };
    aim(QUEUE_SELECT, 2);
    b.fn.configWrite(at + 16, 2, 2);
    expect(common.read(QUEUE_SELECT, 2)).toBe(2);
    aim(NUM_QUEUES, 2);
    expect(b.fn.configRead(at + 16, 2)).toBe(QUEUES);
    aim(DEVICE_FEATURE, 4);
    expect(b.fn.configRead(at + 16, 4)).toBe(Number(FEATURES & 0xffff_ffffn));
  });

  test('the halves of a 64-bit field can be read by themselves [device-4.1.3.2-1]', () => {
    const device = bench().structure(DEVICE);
    expect(device.read(4, 4)).toBe(0x0807_0605);
    expect(device.read(0, 4)).toBe(0x0403_0201);
  });
});

describe('the common configuration', () => {
  test('shows the offered features 32 at a time [device-4.1.4.3.1-3, device-6.2-1]', () => {
    const common = bench().structure(COMMON);
    const halves = [0, 1, 2, 0xffff_ffff].map((select) => {
      common.write(DEVICE_FEATURE_SELECT, 4, select);
      return common.read(DEVICE_FEATURE, 4);
    });
    expect(halves).toEqual([Number(FEATURES & 0xffff_ffffn), Number(FEATURES >> 32n), 0, 0]);
    expect(halves[1]! & 1).toBe(1);
  });

  test('shows the accepted features 32 at a time [device-4.1.4.3.1-4]', () => {
    const common = bench().structure(COMMON);
    for (const half of [0, 1]) {
      common.write(DRIVER_FEATURE_SELECT, 4, half);
      common.write(DRIVER_FEATURE, 4, half === 0 ? Number(FEATURES & 0xffff_ffffn) : 1);
    }
    const halves = [0, 1].map((half) => {
      common.write(DRIVER_FEATURE_SELECT, 4, half);
      return common.read(DRIVER_FEATURE, 4);
    });
    expect(halves).toEqual([Number(FEATURES & 0xffff_ffffn), 1]);
  });

  test('has another generation after a change [device-4.1.4.3.1-5]', () => {
    const b = bench();
    goLive(b);
    const common = b.structure(COMMON);
    const before = common.read(CONFIG_GENERATION, 1);
    expect(b.structure(DEVICE).read(0, 1)).toBe(1);
    b.config[0] = 99;
    b.core.notifyConfig();
    expect(b.structure(DEVICE).read(0, 1)).toBe(99);
    expect(common.read(CONFIG_GENERATION, 1)).not.toBe(before);
  });

  test('a status of 0 resets the device: status, queues, vectors, features [device-4.1.4.3.1-6, device-4.1.4.3.1-7, device-4.1.5.1.2.1-7]', () => {
    const b = bench();
    goLive(b, { config: 1, queue: 2 });
    const common = b.structure(COMMON);
    expect([common.read(QUEUE_ENABLE, 2), common.read(QUEUE_MSIX_VECTOR, 2)]).toEqual([1, 2]);
    common.write(DEVICE_STATUS, 1, 0);
    expect(common.read(DEVICE_STATUS, 1)).toBe(0);
    expect(b.core.features).toBe(0n);
    expect(common.read(CONFIG_MSIX_VECTOR, 2)).toBe(NO_VECTOR);
    for (let queue = 0; queue < QUEUES; queue += 1) {
      common.write(QUEUE_SELECT, 2, queue);
      expect([common.read(QUEUE_ENABLE, 2), common.read(QUEUE_MSIX_VECTOR, 2)]).toEqual([
        0,
        NO_VECTOR,
      ]);
    }
  });

  test('queue_reset: 0 on reset, 0 while the queue is enabled, 0 with queue_enable when it is over [device-4.1.4.3.1-8, device-4.1.4.3.1-9, device-4.1.4.3.1-10, device-4.1.4.3.1-12]', () => {
    const b = bench();
    const common = b.structure(COMMON);
    common.write(DEVICE_STATUS, 1, 0);
    expect(common.read(QUEUE_RESET, 2)).toBe(0);
    goLive(b);
    expect([common.read(QUEUE_ENABLE, 2), common.read(QUEUE_RESET, 2)]).toEqual([1, 0]);
    expect(b.core.queues[0]!.isConfigured).toBe(true);
    common.write(QUEUE_RESET, 2, 1);
    expect([common.read(QUEUE_ENABLE, 2), common.read(QUEUE_RESET, 2)]).toEqual([0, 0]);
    expect(b.core.queues[0]!.isConfigured).toBe(false);
  });

  test('the size of a queue that is not there is 0, of others a power of two [device-4.1.4.3.1-13, device-4.1.4.3.1-14]', () => {
    const common = bench().structure(COMMON);
    const sizes = [0, 1, 2, 3, 1023].map((queue) => {
      common.write(QUEUE_SELECT, 2, queue);
      return common.read(QUEUE_SIZE, 2);
    });
    expect(sizes).toEqual([16, 16, 16, 0, 0]);
  });
});

describe('interrupts', () => {
  test('ISR: the bit for the configuration [device-4.1.4.5.1-2]', () => {
    const b = bench();
    goLive(b);
    b.core.notifyConfig();
    expect(b.interrupts).toContainEqual({ kind: 'intx', asserted: true });
    expect(b.structure(ISR).read(0, 1) & 2).toBe(2);
  });

  test('ISR: the bit for queues, and none for the configuration; a read clears it [device-4.1.4.5.1-3, device-4.1.4.5.1-5]', () => {
    const b = bench();
    goLive(b);
    b.core.notifyDriver(0);
    expect(b.interrupts).toEqual([{ kind: 'intx', asserted: true }]);
    expect(b.structure(ISR).read(0, 1)).toBe(1);
    expect(b.structure(ISR).read(0, 1)).toBe(0);
    expect(b.interrupts).toEqual([
      { kind: 'intx', asserted: true },
      { kind: 'intx', asserted: false },
    ]);
  });

  test('the Interrupt Status of the header follows the ISR [device-4.1.4.5.1-4]', () => {
    const b = bench();
    goLive(b);
    const status = (): number => b.fn.configRead(6, 2) & 8;
    expect(status()).toBe(0);
    b.core.notifyDriver(0);
    expect(status()).toBe(8);
    b.structure(ISR).read(0, 1);
    expect(status()).toBe(0);
  });

  test('MSI-X: the table has as many vectors as the capability says, from 2 to 0x800 [device-4.1.5.1.2.1-1, device-4.1.5.1.2.1-2]', () => {
    for (const deviceId of [VIRTIO_ID_NET, VIRTIO_ID_BLOCK, VIRTIO_ID_CONSOLE, VIRTIO_ID_RNG]) {
      const b = bench({ deviceId });
      const vectors = enableMsix(b);
      expect(vectors).toBeGreaterThanOrEqual(2);
      expect(vectors).toBeLessThanOrEqual(0x800);
      const common = b.structure(COMMON);
      common.write(CONFIG_MSIX_VECTOR, 2, vectors - 1);
      expect(common.read(CONFIG_MSIX_VECTOR, 2)).toBe(vectors - 1);
      common.write(CONFIG_MSIX_VECTOR, 2, vectors);
      expect(common.read(CONFIG_MSIX_VECTOR, 2)).toBe(NO_VECTOR);
    }
  });

  test('MSI-X: every event can have every vector, and none again [device-4.1.5.1.2.1-4, device-4.1.5.1.2.1-5, device-4.1.5.1.2.1-6, device-4.1.5.1.2.1-8]', () => {
    const b = bench({ vectors: 5 });
    const common = b.structure(COMMON);
    for (const vector of [0, 1, 2, 3, 4, NO_VECTOR, 4]) {
      common.write(CONFIG_MSIX_VECTOR, 2, vector);
      expect(common.read(CONFIG_MSIX_VECTOR, 2)).toBe(vector);
      for (let queue = 0; queue < QUEUES; queue += 1) {
        common.write(QUEUE_SELECT, 2, queue);
        common.write(QUEUE_MSIX_VECTOR, 2, vector);
        expect(common.read(QUEUE_MSIX_VECTOR, 2)).toBe(vector);
      }
    }
  });

  test('MSI-X: a vector that is not there reads back as NO_VECTOR [device-4.1.5.1.2.1-9]', () => {
    const common = bench({ vectors: 5 }).structure(COMMON);
    for (const vector of [5, 0x7ff, 0xfffe]) {
      common.write(CONFIG_MSIX_VECTOR, 2, vector);
      common.write(QUEUE_MSIX_VECTOR, 2, vector);
      expect(common.read(CONFIG_MSIX_VECTOR, 2)).toBe(NO_VECTOR);
      expect(common.read(QUEUE_MSIX_VECTOR, 2)).toBe(NO_VECTOR);
    }
  });

  test('MSI-X: without a vector no interrupt, of queues or of the configuration [device-4.1.5.3.1-1, device-4.1.5.4.1-1]', () => {
    const b = bench({ vectors: 5 });
    enableMsix(b);
    goLive(b);
    b.core.notifyDriver(0);
    b.core.notifyConfig();
    expect(sent(b)).toEqual([]);
    expect(b.interrupts.filter((i) => i.kind === 'intx' && i.asserted)).toEqual([]);
    goLive(b, { config: 3, queue: 4 });
    b.core.notifyDriver(0);
    b.core.notifyConfig();
    expect(sent(b)).toEqual([4, 3]);
  });
});

describe('the legacy interface', () => {
  const legacy = (b: Bench): MmioRegion => b.fn.bar(0)!;

  test('the device configuration follows the headers: at 20, at 24 with MSI-X [device-4.1.4.10-5]', () => {
    const b = bench({ mode: 'transitional' });
    expect(legacy(b).read(20, 4)).toBe(0x0403_0201);
    enableMsix(b);
    expect(legacy(b).read(24, 4)).toBe(0x0403_0201);
  });

  test('fields can be read in pieces of any width [device-4.1.4.10-3]', () => {
    const b = bench({ mode: 'transitional' });
    const bytes = [20, 21, 22, 23].map((at) => legacy(b).read(at, 1));
    expect(bytes).toEqual([1, 2, 3, 4]);
    expect([legacy(b).read(20, 2), legacy(b).read(22, 2)]).toEqual([0x0201, 0x0403]);
  });

  test('a driver that comes that way has accepted nothing above bit 31 [device-4.1.4.10-6, device-2.2.3-2]', () => {
    const b = bench({ mode: 'transitional' });
    legacy(b).write(18, 1, 3);
    legacy(b).write(4, 4, 0xffff_ffff & ~(1 << 30));
    legacy(b).write(18, 1, 7);
    expect(b.core.features >> 32n).toBe(0n);
    expect(b.core.features & featureBits(VIRTIO_RING_F_EVENT_IDX)).not.toBe(0n);
    expect(b.core.status & VIRTIO_CONFIG_S_DRIVER_OK).not.toBe(0);
  });

  test('ANY_LAYOUT is offered to legacy drivers [device-6.3-2]', () => {
    const b = bench({ mode: 'transitional' });
    expect(legacy(b).read(0, 4) & (1 << 27)).not.toBe(0);
  });
});
