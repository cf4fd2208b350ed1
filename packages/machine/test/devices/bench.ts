/** A guest's driver and QEMU's device, face to face: memory, pages, and what both are told. */
import { createRng, type HiLo, hiOf, loOf } from '@pinhole/base';
import { GuestPages, type VirtioDriverOptions } from '@pinhole/guest';
import {
  createGuestMemory,
  createSystemMemorySpace,
  type DmaOps,
  type SparseMemory,
} from '@pinhole/memory';
import type { VirtioDeviceSettings } from '@pinhole/qemu';
import {
  connectPciInterrupts,
  createPciTransport,
  createVirtioPci,
  type VirtioDeviceCore,
  type VirtioTransport,
} from '@pinhole/virtio';

/** Both sides' memory. */
export interface Bench {
  readonly memory: SparseMemory;
  readonly pages: GuestPages;
  /** What every device is given; rings as the caller chooses. */
  readonly device: VirtioDeviceSettings;
  /** What every driver is given; without `idle` all happens at the kick. */
  driver(transport: VirtioTransport, idle?: () => boolean): VirtioDriverOptions;
  /** A buffer with these bytes. */
  put(bytes: Uint8Array): number;
  /** The bytes at an address. */
  get(gpa: number, length: number): Uint8Array;
  /** How many of the driver's mappings are live. */
  readonly live: () => number;
}

export type RingOptions = Pick<VirtioDeviceSettings, 'indirect' | 'eventIdx' | 'packed'>;

/** The kinds of rings that a test should work with. */
export const RINGS: readonly (readonly [string, RingOptions])[] = [
  ['split, indirect, EVENT_IDX', {}],
  ['split, direct', { indirect: false, eventIdx: false }],
  ['packed, indirect, EVENT_IDX', { packed: true }],
  ['packed, direct', { packed: true, indirect: false, eventIdx: false }],
];

export function createBench(rings: RingOptions = {}): Bench {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 26 }] });
  const pages = new GuestPages({
    pageSize: 4096,
    kernel: { base: 2 ** 20, size: 2 ** 24 },
    user: { base: 2 ** 25, size: 2 ** 25 },
    rng: createRng(1),
  });
  const mapped = new Map<number, number>();
  const dma: DmaOps = {
    name: 'physical',
    maxMappingSize: Number.MAX_SAFE_INTEGER,
    map(gpa, _length, _direction, out: HiLo): boolean {
      mapped.set(gpa, (mapped.get(gpa) ?? 0) + 1);
      out.hi = hiOf(gpa);
      out.lo = loOf(gpa);
      return true;
    },
    unmap(_hi, lo): void {
      mapped.set(lo, (mapped.get(lo) ?? 0) - 1);
    },
    allocCoherent(length, out): number | undefined {
      const gpa = pages.allocPages(length);
      if (gpa === undefined) return undefined;
      out.hi = hiOf(gpa);
      out.lo = loOf(gpa);
      return gpa;
    },
    freeCoherent: (gpa, _hi, _lo, length) => pages.freePages(gpa, length),
  };
  return {
    memory,
    pages,
    device: {
      memory,
      systemMemory: createSystemMemorySpace(memory),
      iommuPlatform: false,
      ...rings,
    },
    driver: (transport, idle) => ({
      transport,
      memory,
      pages,
      smpCacheBytes: 64,
      chooseDma: () => dma,
      ...(idle === undefined ? {} : { idle }),
    }),
    put(bytes) {
      const gpa = pages.allocPages(bytes.length);
      if (gpa === undefined) throw new Error('no memory');
      memory.write(gpa, bytes);
      return gpa;
    },
    get(gpa, length) {
      const bytes = new Uint8Array(length);
      memory.read(gpa, bytes);
      return bytes;
    },
    live: () => [...mapped.values()].reduce((sum, count) => sum + count, 0),
  };
}

/** The registers of a PCI function between a driver and the device, with interrupts. */
export function connect(device: VirtioDeviceCore): VirtioTransport {
  const fn = createVirtioPci({ device, mode: 'modern' });
  const made = createPciTransport(fn, { interrupts: connectPciInterrupts(fn) });
  if (!made.ok) throw new Error(made.message);
  return made.transport;
}

/**
 * A transport whose kicks do not reach the device until `deliver`: a device that takes its time.
 * It answers everything else itself.
 */
export function delayKicks(transport: VirtioTransport): {
  readonly transport: VirtioTransport;
  readonly kicks: { readonly index: number; readonly data: number | undefined }[];
  /** Lets the device see the oldest kick. False: there is none. */
  readonly deliver: () => boolean;
} {
  const kicks: { readonly index: number; readonly data: number | undefined }[] = [];
  const delayed = new Proxy(transport, {
    get(target, name) {
      if (name === 'notifyQueue') {
        return (index: number, data?: number) => kicks.push({ index, data });
      }
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  return {
    transport: delayed,
    kicks,
    deliver: () => {
      const kick = kicks.shift();
      if (kick === undefined) return false;
      transport.notifyQueue(kick.index, kick.data);
      return true;
    },
  };
}
