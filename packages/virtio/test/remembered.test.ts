import { NO_TRACE } from '@pinhole/base';
import {
  createGuestMemory,
  type DmaAccess,
  type DmaSpace,
  type DmaStatus,
  type SparseMemory,
  type Translation,
} from '@pinhole/memory';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  createDeviceQueue,
  createDriverQueue,
  type DeviceQueue,
  type DriverQueue,
  featureBit,
  VIRTIO_RING_F_EVENT_IDX,
} from '../src/index.js';
import { BUFFERS, segments } from './support/pair.js';
import { IommuDma, TestHeap, TestIommu } from './support/space.js';

/** A `TestIommu` whose translations may be remembered until it says otherwise. */
class RememberedIommu implements DmaSpace {
  readonly name = 'test';
  readonly isIdentity = false;
  generation: number | undefined = 0;
  remembered = 0;
  readonly iommu: TestIommu;

  constructor(iommu: TestIommu) {
    this.iommu = iommu;
  }

  countRemembered(): void {
    this.remembered += 1;
  }

  translate(
    hi: number,
    lo: number,
    length: number,
    access: DmaAccess,
    out: Translation,
  ): DmaStatus {
    return this.iommu.translate(hi, lo, length, access, out);
  }

  covers(hi: number, lo: number, length: number): boolean {
    return this.iommu.covers(hi, lo, length);
  }
}

interface Side {
  readonly memory: SparseMemory;
  readonly space: RememberedIommu;
  readonly dma: IommuDma;
  readonly device: DeviceQueue;
  readonly driver: DriverQueue<number>;
  readonly errors: string[];
  /** Translations, asked for or remembered. */
  translations(): number;
}

function side(isPacked: boolean, remembers: boolean): Side {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 26 }] });
  const iommu = new TestIommu(memory);
  const space = new RememberedIommu(iommu);
  if (!remembers) space.generation = undefined;
  const dma = new IommuDma(iommu, new TestHeap(0x10_0000));
  const tables = new TestHeap(0x20_0000);
  const driver = createDriverQueue<number>({
    memory,
    dma,
    tables,
    size: 8,
    layoutAlign: 128,
    hasIndirect: true,
    hasEventIdx: true,
    isPacked,
  })!;
  const errors: string[] = [];
  const owner = {
    get isBroken(): boolean {
      return errors.length > 0;
    },
    tracer: NO_TRACE,
    fail(message: string): void {
      errors.push(message);
    },
  };
  const device = createDeviceQueue(isPacked, { owner, id: 'q', maxSize: 8, memory, space });
  device.setFeatures(featureBit(VIRTIO_RING_F_EVENT_IDX));
  device.configure(driver.setup);
  const translations = (): number => space.iommu.log.length + space.remembered;
  return { memory, space, dma, device, driver, errors, translations };
}

const step = fc.record({
  kind: fc.constantFrom('serve', 'quiet', 'move ring', 'lose ring', 'find ring', 'add'),
  pieces: fc.integer({ min: 1, max: 4 }),
});

test('a device that remembers translations does what one does that asks for each, as often', () => {
  fc.assert(
    fc.property(fc.boolean(), fc.array(step, { maxLength: 40 }), (isPacked, steps) => {
      const sides = [side(isPacked, true), side(isPacked, false)] as const;
      const seen = sides.map(({ space, dma, device, driver, memory, errors, translations }) =>
        steps.map(({ kind, pieces }) => {
          const ring = Number(driver.setup.desc);
          const changed = (): void => {
            if (space.generation !== undefined) space.generation += 1;
          };
          let popped: unknown;
          if (kind === 'add') {
            driver.add(segments(BUFFERS, new Array<number>(pieces).fill(100)), [], 1);
            changed();
          } else if (kind === 'serve') {
            const element = device.pop();
            popped = element && [...element.gpa.subarray(0, element.outNum)];
            if (element !== undefined) device.push(element, pieces);
            device.shouldNotify();
            driver.getUsed();
            changed();
          } else if (kind === 'quiet') {
            device.setNotification(pieces % 2 === 0);
          } else if (kind === 'lose ring') {
            space.iommu.clear(ring);
            changed();
          } else {
            // Elsewhere lies another page, of zeroes; the ring's own is where the driver writes.
            const gpa = kind === 'move ring' ? 0x30_0000 : driver.ringGpa;
            space.iommu.set(ring, gpa, pieces === 1 ? 1 : 3);
            changed();
          }
          const bytes = new Uint8Array(128);
          memory.read(driver.ringGpa, bytes);
          return {
            popped,
            bytes: [...bytes],
            errors: [...errors],
            count: translations(),
            kind,
            maps: dma.live.size,
          };
        }),
      );
      expect(seen[0]).toEqual(seen[1]);
    }),
    { numRuns: 300 },
  );
});

test('a ring that nobody touches is translated once', () => {
  const { device, driver, space } = side(false, true);
  driver.add(segments(BUFFERS, [1]), [], 1);
  while (device.pop() !== undefined) {
    // Until the ring is empty.
  }
  space.remembered = 0;
  const asked = space.iommu.log.length;
  for (let i = 0; i < 10; i += 1) device.pop();
  expect([space.iommu.log.length, space.remembered]).toEqual([asked, 10]);
  // Not for now.
  space.generation = undefined;
  device.pop();
  expect(space.iommu.log.length).toBe(asked + 1);
  space.generation = 1;
  device.pop();
  expect(space.iommu.log.length).toBe(asked + 2);
});
