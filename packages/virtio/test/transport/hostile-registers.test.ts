import { createRng, type Rng } from '@pinhole/base';
import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import { describe, expect, test } from 'vitest';
import {
  createMmioTransport,
  createPciTransport,
  createVirtioMmio,
  createVirtioPci,
  type DeviceQueue,
  featureBit,
  type MmioRegion,
  negotiateFeatures,
  type RegisterWidth,
  setDriverOk,
  splitRingLayout,
  VIRTIO_F_VERSION_1,
  VIRTIO_ID_BLOCK,
  VirtioDeviceCore,
  type VirtioTransport,
} from '../../src/index.js';
import { FEATURES, link, transportOf, WAYS, type Way } from './support/link.js';

const MEMORY = 2 ** 19;
const STEPS = 100_000;
const WIDTHS: readonly RegisterWidth[] = [1, 2, 4];
/** Values on which something may turn. */
const VALUES = [0, 1, 2, 3, 4, 7, 8, 11, 15, 0x40, 0xff, 0x100, 0x400, 0xffff, 0x8000_0000];

interface Victim {
  readonly core: VirtioDeviceCore;
  readonly regions: readonly MmioRegion[];
  readonly interrupts: { count: number };
  /** A driver's way to it, to start from. */
  connect(): VirtioTransport;
}

/** Takes a few requests at most, writes a little into each: a kick is bounded by the test itself. */
function serve(core: VirtioDeviceCore, queue: DeviceQueue, index: number): void {
  for (let n = 0; n < 4; n += 1) {
    const element = queue.pop();
    if (element === undefined) return;
    queue.push(element, Math.min(element.inBytes, 4));
    core.notifyDriver(index);
  }
}

/** A byte of rings that are almost right: indices, addresses and lengths are small ones. */
function garbage(at: number, rng: Rng): number {
  if (rng.below(16) === 0) return rng.below(256);
  if (at % 0x1000 === 2) return 1 + rng.below(4);
  if (at % 16 === 12) return rng.below(8) & 2;
  return at % 8 < 2 ? rng.below(64) : 0;
}

/** Memory that cannot be left: an access outside of it throws. */
function device(rng: Rng): VirtioDeviceCore {
  const memory = createGuestMemory({ regions: [{ base: 0, size: MEMORY }] });
  memory.write(
    0,
    Uint8Array.from({ length: MEMORY }, (_, at) => garbage(at, rng)),
  );
  const config = new Uint8Array(24);
  const core: VirtioDeviceCore = new VirtioDeviceCore({
    deviceId: VIRTIO_ID_BLOCK,
    features: FEATURES,
    config,
    memory,
    space: createSystemMemorySpace(memory),
    queues: [4, 256, 1024].map((maxSize, index) => ({
      maxSize,
      handleOutput: (queue) => serve(core, queue, index),
    })),
    usesEventFds: rng.below(2) === 1,
    hooks: { setConfig: (next) => config.set(next) },
  });
  return core;
}

const TARGETS: readonly (readonly [string, (rng: Rng) => Victim])[] = [
  ...(['modern', 'transitional', 'legacy'] as const).map((mode) => {
    const make = (rng: Rng): Victim => {
      const core = device(rng);
      const fn = createVirtioPci({ device: core, mode, isBigEndianGuest: mode === 'transitional' });
      const interrupts = { count: 0 };
      fn.onInterrupt(() => {
        interrupts.count += 1;
      });
      const config: MmioRegion = {
        size: 256,
        read: (offset, width) => fn.configRead(offset, width),
        write: (offset, width, value) => fn.configWrite(offset, width, value),
      };
      const bars = [0, 1, 2, 3, 4, 5].map((index) => fn.bar(index));
      const regions = [config, ...bars.filter((bar) => bar !== undefined)];
      const connect = (): VirtioTransport => {
        // MSI-X, which somebody may have enabled, is off again: there is a line to hear.
        fn.configWrite(mode === 'legacy' ? 0x42 : 0x9a, 2, 0);
        return transportOf(createPciTransport(fn));
      };
      return { core, regions, interrupts, connect };
    };
    return [`PCI ${mode}`, make] as const;
  }),
  [
    'MMIO',
    (rng) => {
      const core = device(rng);
      const region = createVirtioMmio({ device: core });
      const interrupts = { count: 0 };
      region.onInterrupt(() => {
        interrupts.count += 1;
      });
      const connect = (): VirtioTransport => transportOf(createMmioTransport(region));
      return { core, regions: [region], interrupts, connect };
    },
  ],
];

/** As far as the registers let it, has the device work on rings of garbage. */
function bringUp({ connect }: Victim, rng: Rng): void {
  const transport = connect();
  negotiateFeatures(transport, { supported: FEATURES & randomBits(rng), allowsLegacy: true });
  const page = (): number => 0x1000 * (1 + rng.below(15));
  for (const index of [0, 1, 2]) {
    if (transport.isLegacy) {
      const size = transport.queueMaxSize(index);
      const { avail, used } = splitRingLayout(size, 4096);
      const at = 0x1000 * (1 + rng.below(4));
      const rings = { desc: BigInt(at), avail: BigInt(at + avail), used: BigInt(at + used) };
      transport.setupQueue(index, { size, ...rings });
    } else {
      const rings = { desc: BigInt(page()), avail: BigInt(page()), used: BigInt(page()) };
      transport.setupQueue(index, { size: 1 + rng.below(256), ...rings });
    }
  }
  setDriverOk(transport);
  transport.notifyQueue(rng.below(3));
}

function randomBits(rng: Rng): bigint {
  return featureBit(VIRTIO_F_VERSION_1) | (BigInt(rng.nextU32()) << 32n) | BigInt(rng.nextU32());
}

/** Mostly where registers are; sometimes far away, and not aligned. */
function offset(rng: Rng, region: MmioRegion): number {
  const kind = rng.below(10);
  if (kind === 0) return rng.below(2 ** 31) * (rng.below(2) === 0 ? -1 : 1);
  if (kind < 4) return rng.below(region.size);
  const structure = 0x1000 * rng.below(4);
  return (structure + rng.below(0x40)) % region.size;
}

function value(rng: Rng): number {
  if (rng.below(3) !== 0) return VALUES[rng.below(VALUES.length)]!;
  return rng.below(2) === 0 ? rng.below(0x1_0000) : rng.below(2 ** 32);
}

describe.each(TARGETS)('%s: a driver that accesses registers at random', (_, make) => {
  test('100,000 accesses: no exception, no access outside memory', () => {
    const rng = createRng(1);
    const victim = make(rng);
    const { core, regions, interrupts } = victim;
    let bad = 0;
    for (let step = 0; step < STEPS; step += 1) {
      const region = regions[rng.below(regions.length)]!;
      const width = WIDTHS[rng.below(3)]!;
      const at = offset(rng, region);
      if (rng.below(3) === 0) {
        const read = region.read(at, width);
        if (!(Number.isInteger(read) && read >= 0 && read < 2 ** (8 * width))) bad += 1;
      } else {
        region.write(at, width, value(rng));
      }
      if (step % 64 === 0) bringUp(victim, rng);
    }
    expect(bad).toBe(0);
    // It did something.
    expect(interrupts.count).toBeGreaterThan(100);
    expect(core.errors.length).toBeGreaterThan(100);
  });
});

/** A driver can still use the device after all that, if it resets it. */
describe.each(WAYS.map((way) => [way.name, way] as const))('%s', (_, way: Way) => {
  test('after 2,000 random accesses a driver that knows its way is served', () => {
    const rng = createRng(3);
    const first = link(way);
    const { transport } = first;
    for (let step = 0; step < 2000; step += 1) {
      const index = rng.below(3);
      const setup = {
        size: VALUES[rng.below(VALUES.length)]!,
        desc: BigInt(rng.below(2 ** 20)),
        avail: BigInt(rng.below(2 ** 20)),
        used: BigInt(rng.below(2 ** 20)),
      };
      const acts = [
        (): void => transport.writeStatus(rng.below(256)),
        (): void => transport.writeDriverFeatures(BigInt(value(rng)) << BigInt(rng.below(32))),
        (): void => transport.notifyQueue(index, rng.below(2) === 0 ? undefined : value(rng)),
        (): void => transport.writeConfig(rng.below(80), new Uint8Array(rng.below(9))),
        (): void => void transport.resetQueue(index),
        (): void => void transport.pollInterrupt(),
        (): void => {
          // The legacy driver refuses what the interface cannot say.
          if (!transport.isLegacy) transport.setupQueue(index, setup);
        },
      ];
      acts[rng.below(acts.length)]!();
    }
    const again = link({ ...way, connect: () => transport }, first);
    const sent = Uint8Array.of(1, 2, 3);
    expect(again.exchange(0, sent)).toEqual(sent.slice().reverse());
    expect(again.exchange(1, sent)).toEqual(sent.slice().reverse());
    const isModern = (again.features & featureBit(VIRTIO_F_VERSION_1)) !== 0n;
    expect(isModern).toBe(!transport.isLegacy);
  });
});
