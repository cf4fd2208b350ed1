/** The guest's drivers on one side: the same tests for the model and for a real QEMU. */
import { createRng } from '@pinhole/base';
import {
  isBlkSuccess,
  probeVirtioBlk,
  probeVirtioNet,
  probeVirtioRng,
  type VirtioBlkDriver,
  type VirtioNetDriver,
} from '@pinhole/guest';
import type { GuestMemory } from '@pinhole/memory';
import { featureNames, type Segment, VIRTIO_ID_BLOCK } from '@pinhole/virtio';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { entropyContents } from '../../src/conform-virtio/contents.js';
import { networkOf } from '../../src/conform-virtio/frames.js';
import {
  SideGuest,
  shapeName,
  VIRTIO_SHAPES,
  type VirtioShape,
  type VirtioSide,
} from '../../src/index.js';

const LARGE = 96 * 1024;
const shapesOf = (type: VirtioShape['type']): VirtioShape[] =>
  VIRTIO_SHAPES.filter((shape) => shape.type === type && shape.isLegacy !== true);
const BLOCK_SHAPES = shapesOf('blk');
const RNG_SHAPES = shapesOf('rng');
/** Two devices on one hub, for each way to memory. */
const NETWORKS = shapesOf('net')
  .filter(({ packed }) => !packed)
  .map((shape) => networkOf(shape, VIRTIO_SHAPES));
const named = (shapes: readonly VirtioShape[]): [string, VirtioShape][] =>
  shapes.map((shape) => [shapeName(shape), shape]);

/** Declares the suite. `start` makes a side with all of `VIRTIO_SHAPES`. */
export function driverSuite(start: (shapes: readonly VirtioShape[]) => VirtioSide): void {
  let side: VirtioSide;
  let guest: SideGuest;
  let memory: GuestMemory;
  // Of user memory; for all devices in turn.
  let large: [readonly Segment[], readonly Segment[]];
  let small: (readonly Segment[])[];
  beforeAll(() => {
    side = start([...BLOCK_SHAPES, ...RNG_SHAPES, ...NETWORKS.flat()]);
    memory = side.memory;
    guest = new SideGuest(side, 1);
    const { pages } = guest;
    const buffer = (length: number): readonly Segment[] => pages.allocUser(length) ?? [];
    large = [buffer(LARGE), buffer(LARGE)];
    small = Array.from({ length: 60 }, () => buffer(4096));
  });
  afterAll(() => side?.close());

  describe.each(named(BLOCK_SHAPES))('%s', (_name, shape) => {
    let driver: VirtioBlkDriver;

    beforeAll(() => {
      const probed = probeVirtioBlk(guest.driverOptions(shape));
      if (!probed.ok) throw new Error(probed.message);
      driver = probed.driver;
    });
    afterAll(() => driver?.remove());

    test('negotiates what the device was given', () => {
      const names = featureNames(driver.features, VIRTIO_ID_BLOCK);
      expect(names.includes('VIRTIO_F_RING_PACKED')).toBe(shape.packed);
      expect(names.includes('VIRTIO_RING_F_INDIRECT_DESC')).toBe(shape.indirect);
      expect(names.includes('VIRTIO_RING_F_EVENT_IDX')).toBe(shape.eventIdx);
      expect(names.includes('VIRTIO_F_ACCESS_PLATFORM')).toBe(shape.iommuPlatform);
      expect(driver.capacity).toBe(2048);
      expect(driver.readSerial()).toBe('pinhole');
    });

    test('what is written is on the disk, and comes back', () => {
      const data = randomBytes(LARGE, shape.slot);
      const [from, into] = large;
      scatter(memory, from, data);
      expect(driver.write(8192, from).every(isBlkSuccess)).toBe(true);
      expect(isBlkSuccess(driver.flush())).toBe(true);
      expect(equal(side.disk(shape).subarray(8192, 8192 + data.length), data)).toBe(true);
      scatter(memory, into, new Uint8Array(LARGE));
      expect(driver.read(8192, into).every(isBlkSuccess)).toBe(true);
      expect(equal(gather(memory, into), data)).toBe(true);
    });

    test('sixty requests with one kick: each gets its own sectors', () => {
      const disk = side.disk(shape);
      const requests = driver.submit(
        small.map((data, i) => ({ op: 'read' as const, sector: 16 * i, data })),
      );
      for (const [i, request] of requests.entries()) {
        expect(driver.wait(request)).toEqual({ kind: 'done', status: 0, usedLength: 4097 });
        const { command } = request;
        const data = command.op === 'read' ? gather(memory, command.data) : new Uint8Array(0);
        expect(equal(data, disk.subarray(8192 * i, 8192 * i + 4096))).toBe(true);
      }
    });

    test('write zeroes and discard', () => {
      const ranges = [{ sector: 64, sectors: 16 }];
      const [zero] = driver.submit([{ op: 'write-zeroes', ranges }]);
      expect(zero && driver.wait(zero)).toMatchObject({ kind: 'done', status: 0 });
      expect(
        side
          .disk(shape)
          .subarray(32768, 40960)
          .every((byte) => byte === 0),
      ).toBe(true);
      const [discard] = driver.submit([{ op: 'discard', ranges }]);
      expect(discard && driver.wait(discard)).toMatchObject({ kind: 'done', status: 0 });
    });
  });

  test.each(named(RNG_SHAPES))('%s: the bytes are those of the backend', (_name, shape) => {
    const probed = probeVirtioRng(guest.driverOptions(shape));
    if (!probed.ok) throw new Error(probed.message);
    const bytes = new Uint8Array(1500);
    for (let at = 0; at < bytes.length; ) {
      const read = probed.driver.read(bytes.subarray(at));
      expect(read).toBeGreaterThan(0);
      at += read;
    }
    probed.driver.remove();
    expect(equal(bytes, entropyContents().subarray(0, bytes.length))).toBe(true);
  });

  test.each(NETWORKS.map((pair) => [pair.map(shapeName).join(' and '), pair] as const))(
    '%s: frames go both ways',
    (_name, pair) => {
      const received: Uint8Array[][] = pair.map(() => []);
      const options = pair.map((shape) => guest.driverOptions(shape));
      const drivers = pair.map((_shape, i) => {
        const probed = probeVirtioNet({
          ...(options[i] as (typeof options)[number]),
          onFrame: (frame) => received[i]?.push(frame.slice()),
        });
        if (!probed.ok) throw new Error(probed.message);
        return probed.driver;
      });
      const [one, other] = drivers as [VirtioNetDriver, VirtioNetDriver];
      for (let n = 0; n < 40; n += 1) {
        const [from, to] = n % 2 === 0 ? [one, other] : [other, one];
        const frame = randomBytes(60 + 37 * n, n);
        frame.set(to.mac, 0);
        frame.set(from.mac, 6);
        // An EtherType that nobody filters.
        frame.set([0x88, 0xb5], 12);
        expect(from.send(frame)).toBe(true);
        const into = received[n % 2 === 0 ? 1 : 0] as Uint8Array[];
        const count = Math.floor(n / 2) + 1;
        side.wait(() => {
          for (const { transport } of options) transport.pollInterrupt();
          return into.length >= count;
        }, 5_000);
        expect(into).toHaveLength(count);
        expect(equal(into.at(-1) as Uint8Array, frame)).toBe(true);
      }
      for (const driver of drivers) driver.remove();
    },
  );
}

function randomBytes(length: number, seed: number): Uint8Array {
  const rng = createRng(seed);
  return new Uint8Array(length).map(() => rng.nextU32());
}

function scatter(memory: GuestMemory, runs: readonly Segment[], bytes: Uint8Array): void {
  let at = 0;
  for (const { gpa, length } of runs) {
    memory.write(gpa, bytes.subarray(at, at + length));
    at += length;
  }
}

function gather(memory: GuestMemory, runs: readonly Segment[]): Uint8Array {
  const bytes = new Uint8Array(runs.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const { gpa, length } of runs) {
    memory.read(gpa, bytes.subarray(at, at + length));
    at += length;
  }
  return bytes;
}

const equal = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;
