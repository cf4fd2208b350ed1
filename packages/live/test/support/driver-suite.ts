/** The guest's drivers on one side: the same tests for the model and for a real QEMU. */
import { createRng } from '@pinhole/base';
import { isBlkSuccess, probeVirtioBlk, type VirtioBlkDriver } from '@pinhole/guest';
import type { GuestMemory } from '@pinhole/memory';
import { featureNames, type Segment, VIRTIO_ID_BLOCK } from '@pinhole/virtio';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  SideGuest,
  shapeName,
  VIRTIO_SHAPES,
  type VirtioShape,
  type VirtioSide,
} from '../../src/index.js';

const LARGE = 96 * 1024;
const BLOCK_SHAPES = VIRTIO_SHAPES.filter(({ type }) => type === 'blk');

/** Declares the suite. `start` makes a side with all of `VIRTIO_SHAPES`. */
export function driverSuite(start: (shapes: readonly VirtioShape[]) => VirtioSide): void {
  let side: VirtioSide;
  let guest: SideGuest;
  let memory: GuestMemory;
  // Of user memory; for all devices in turn.
  let large: [readonly Segment[], readonly Segment[]];
  let small: (readonly Segment[])[];
  beforeAll(() => {
    side = start(BLOCK_SHAPES);
    memory = side.memory;
    guest = new SideGuest(side, 1);
    const { pages } = guest;
    const buffer = (length: number): readonly Segment[] => pages.allocUser(length) ?? [];
    large = [buffer(LARGE), buffer(LARGE)];
    small = Array.from({ length: 60 }, () => buffer(4096));
  });
  afterAll(() => side?.close());

  describe.each(BLOCK_SHAPES.map((shape) => [shapeName(shape), shape] as const))(
    '%s',
    (_name, shape) => {
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
