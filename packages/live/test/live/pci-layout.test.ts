import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRng, type Rng } from '@pinhole/base';
import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import {
  createVirtioPci,
  type PciFunction,
  type RegisterWidth,
  VIRTIO_ID_BLOCK,
  VIRTIO_ID_CONSOLE,
  VIRTIO_ID_NET,
  VIRTIO_ID_RNG,
  VirtioDeviceCore,
  type VirtioPciOptions,
} from '@pinhole/virtio';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { LiveQemu } from '../../src/index.js';
import { describeLive, QEMU } from './support/live.js';

const folder = mkdtempSync(join(tmpdir(), 'pinhole-live-'));
const disk = join(folder, 'disk.img');
writeFileSync(disk, new Uint8Array(2 ** 20));
afterAll(() => rmSync(folder, { recursive: true }));

const MODES: Readonly<Record<VirtioPciOptions['mode'], string>> = {
  modern: 'disable-legacy=on',
  transitional: 'disable-legacy=off',
  legacy: 'disable-modern=on,disable-legacy=off',
};

/** QEMU's devices, and what a model of one needs to look like it. */
const DEVICES = [
  { qemu: 'virtio-blk-pci', deviceId: VIRTIO_ID_BLOCK, queues: [256], configSize: 57 },
  { qemu: 'virtio-rng-pci', deviceId: VIRTIO_ID_RNG, queues: [8], configSize: 0 },
  { qemu: 'virtio-net-pci', deviceId: VIRTIO_ID_NET, queues: [256, 256, 64], configSize: 8 },
  {
    qemu: 'virtio-serial-pci',
    deviceId: VIRTIO_ID_CONSOLE,
    queues: [128, 128, 32, ...new Array<number>(61).fill(128)],
    configSize: 12,
  },
] as const;

const CASES = (Object.keys(MODES) as VirtioPciOptions['mode'][]).flatMap((mode) =>
  DEVICES.map((device) => ({ ...device, mode, name: `${device.qemu}, ${mode}` })),
);

function model(one: (typeof CASES)[number], real: PciFunction): PciFunction {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 20 }] });
  const { deviceId, queues, configSize, mode } = one;
  const device = new VirtioDeviceCore({
    deviceId,
    features: mode === 'legacy' ? 0n : featuresOf(real),
    config: mode === 'legacy' ? new Uint8Array(configSize) : configOf(real, configSize),
    memory,
    space: createSystemMemorySpace(memory),
    queues: queues.map((maxSize) => ({ maxSize, handleOutput: () => {} })),
  });
  return createVirtioPci({ device, mode });
}

function featuresOf(fn: PciFunction): bigint {
  const common = fn.bar(4)!;
  const half = (select: number): bigint => {
    common.write(0, 4, select);
    return BigInt(common.read(4, 4));
  };
  const features = (half(1) << 32n) | half(0);
  common.write(0, 4, 0);
  return features;
}

function configOf(fn: PciFunction, size: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, i) => fn.bar(4)!.read(0x2000 + i, 1));
}

/** All that configuration space reads, before anybody places the BARs. */
function bytes(fn: PciFunction): number[] {
  return Array.from({ length: 256 }, (_, at) => fn.configRead(at, 1));
}

const WIDTHS: readonly RegisterWidth[] = [1, 2, 4];

/** Reads of a region at each width, as long as they have no side effects that matter. */
function dump(fn: PciFunction, bar: number, from: number, to: number): number[][] {
  return WIDTHS.map((width) => {
    const values: number[] = [];
    for (let at = from; at + width <= to; at += width) values.push(fn.bar(bar)!.read(at, width));
    return values;
  });
}

describeLive('a real QEMU and the model lay a virtio function out alike', () => {
  let qemu: LiveQemu;
  let spaces: number[][];
  const real = (index: number): PciFunction => qemu.pciFunction({ device: index + 1 });

  beforeAll(() => {
    const args = CASES.flatMap(({ qemu: kind, mode }, index) => {
      const drive = `if=none,id=d${index},file=${disk},format=raw,file.locking=off`;
      const isBlk = kind === 'virtio-blk-pci';
      const own = isBlk ? `,drive=d${index}` : '';
      const device = `${kind}${own},${MODES[mode]},addr=${(index + 1).toString(16)}`;
      return [...(isBlk ? ['-drive', drive] : []), '-device', device];
    });
    qemu = LiveQemu.start({ qemu: QEMU, args });
    spaces = CASES.map((_, index) => bytes(real(index)));
  });
  afterAll(() => qemu?.close());

  test.each(CASES.map((one, index) => [one.name, one, index] as const))('%s', (_, one, index) => {
    const theirs = real(index);
    const ours = model(one, theirs);
    expect(bytes(ours)).toEqual(spaces[index]);
    for (let bar = 0; bar < 6; bar += 1) {
      expect([bar, ours.bar(bar)?.size]).toEqual([bar, theirs.bar(bar)?.size]);
      // Which bits of the register can be written: size, and kind.
      const mask = [ours, theirs].map((fn) => {
        const at = 0x10 + 4 * bar;
        const old = fn.configRead(at, 4);
        fn.configWrite(at, 4, 0xffff_ffff);
        const value = fn.configRead(at, 4);
        fn.configWrite(at, 4, old);
        return value;
      });
      expect(mask[0]).toBe(mask[1]);
    }
    // The vector table, the pending bits, and what is between them.
    for (const at of [0, 0x7f0, 0xff0]) {
      expect(dump(ours, 1, at, at + 0x10)).toEqual(dump(theirs, 1, at, at + 0x10));
    }
    if (one.mode !== 'legacy') {
      for (const at of [0, 0x1000, 0x2000, 0x3000]) {
        expect(dump(ours, 4, at, at + 0x40)).toEqual(dump(theirs, 4, at, at + 0x40));
      }
    }
    if (one.mode !== 'modern') {
      expect(dump(ours, 0, 4, 20)).toEqual(dump(theirs, 0, 4, 20));
      // The network device has features of its own that only legacy drivers see.
      if (one.mode === 'transitional' && one.deviceId !== VIRTIO_ID_NET) {
        expect(ours.bar(0)!.read(0, 4)).toBe(theirs.bar(0)!.read(0, 4));
      }
    }
  });
});

/** Seeds, which are places on the bus as well. */
const RUNS = [
  ['modern', 1],
  ['modern', 2],
  ['transitional', 3],
  ['transitional', 4],
] as const;

/** Accesses that set nothing going: no notifications, and the device never goes live. */
describeLive('a real QEMU and the model answer the same random accesses alike', () => {
  let qemu: LiveQemu;

  beforeAll(() => {
    // One each: a reset leaves what is written where no register is.
    const args = RUNS.flatMap(([mode], index) => {
      return ['-device', `virtio-rng-pci,${MODES[mode]},addr=${index + 1}`];
    });
    qemu = LiveQemu.start({ qemu: QEMU, args });
  });
  afterAll(() => qemu?.close());

  test.each(RUNS)('%s, seed %i', (mode, seed) => {
    const theirs = qemu.pciFunction({ device: seed });
    const ours = model({ ...DEVICES[1], mode, name: 'rng' }, theirs);
    ours.bar(4);
    const answers = new Set<number>();
    const rng = createRng(seed);
    const pick = <T>(from: readonly T[]): T => from[rng.below(from.length)]!;
    for (let step = 0; step < 4000; step += 1) {
      const width = pick(WIDTHS);
      const { where, at, value } = pick(PLACES)(rng, width, mode);
      const both = [ours, theirs].map((fn) => {
        const { read, write } =
          where === 'config'
            ? {
                read: (): number => fn.configRead(at, width),
                write: (): void => fn.configWrite(at, width, value),
              }
            : {
                read: (): number => fn.bar(where)!.read(at, width),
                write: (): void => fn.bar(where)!.write(at, width, value),
              };
        if (step % 3 !== 0) write();
        return read();
      });
      answers.add(both[1]!);
      expect([step, where, at, width, value, both[0]]).toEqual([
        step,
        where,
        at,
        width,
        value,
        both[1],
      ]);
    }
    // They did say something.
    expect(answers.size).toBeGreaterThan(100);
  });
});

interface Access {
  readonly where: number | 'config';
  readonly at: number;
  readonly value: number;
}

type Place = (rng: Rng, width: RegisterWidth, mode: 'modern' | 'transitional') => Access;

const aligned = (rng: Rng, from: number, length: number, width: RegisterWidth): number =>
  from + width * rng.below(Math.floor(length / width));

function anyValue(rng: Rng): number {
  const some = [0, 1, 2, 3, 8, 0xb, 0xff, 0x100, 0x3ff, 0x400, 0x401, 0xffff, 0x1_0000];
  return rng.below(4) === 0 ? rng.nextU32() : some[rng.below(some.length)]!;
}

const PLACES: readonly Place[] = [
  // The common configuration. DRIVER_OK and addresses of rings are left alone.
  (rng, width) => {
    const at = aligned(rng, 0, 0x40, width);
    const isAddress = at + width > 0x20 && at < 0x38;
    const isStatus = at <= 20 && at + width > 20;
    const value = anyValue(rng);
    return { where: 4, at: isAddress ? 0x18 : at, value: isStatus ? (value & ~4) >>> 0 : value };
  },
  (rng, width) => ({ where: 4, at: aligned(rng, 0x1000, 0x10, width), value: anyValue(rng) }),
  (rng, width) => ({ where: 4, at: aligned(rng, 0x2000, 0x10, width), value: anyValue(rng) }),
  // Vectors and pending bits.
  (rng, width) => ({ where: 1, at: aligned(rng, 0, 0x30, width), value: anyValue(rng) }),
  (rng, width) => ({ where: 1, at: aligned(rng, 0x7f8, 0x20, width), value: anyValue(rng) }),
  // Capabilities, and what is behind them.
  (rng, width) => ({ where: 'config', at: aligned(rng, 0x28, 0x5c, width), value: anyValue(rng) }),
  (rng, width) => ({ where: 'config', at: aligned(rng, 0x98, 0x60, width), value: anyValue(rng) }),
  // COMMAND: with memory and I/O enabled.
  (rng, width) => ({ where: 'config', at: 4, value: width === 1 ? 3 | rng.below(8) : 7 }),
  // The legacy interface, but for addresses, notifications and the status.
  (rng, width, mode) => {
    const at = [0, 4, 12, 14, 20, 22, 24, 28][rng.below(8)]!;
    if (mode === 'modern') return { where: 'config', at: 0, value: 0 };
    return { where: 0, at: at % width === 0 ? at : 4, value: anyValue(rng) };
  },
];
