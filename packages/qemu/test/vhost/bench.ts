/** A disk that vhost serves, behind an IOMMU that is a list of pages, and a driver without manners. */
import {
  createGuestMemory,
  createSystemMemorySpace,
  type DmaAccess,
  type GuestMemory,
} from '@pinhole/memory';
import {
  encodeBlkHeader,
  negotiateFeatures,
  setDriverOk,
  VIRTIO_BLK_T_IN,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_VERSION_1,
} from '@pinhole/virtio';
import { createMemoryBackend, type IommuAddressSpace, VirtioBlk } from '../../src/index.js';
import { direct } from '../direct-transport.js';

export const PAGE = 4096;
/** Where the driver's things are on the bus; in memory they are MOVED further down. */
export const MOVED = 0x1000_0000;
export const RING = 0x1001_0000;
export const HEADER = 0x1002_0000;
export const STATUS = 0x1002_1000;
export const DATA = 0x1003_0000;
export const UNTOUCHED = 0xee;
const MEMORY = 2 ** 20;

/** Pages by bus address; a page that is put over another is no unmap. */
export class PageIommu implements IommuAddressSpace {
  readonly name = 'pages';
  lookups = 0;
  readonly #pages = new Map<bigint, { gpa: number; perm: number }>();
  readonly #listeners = new Set<(iova: bigint, size: bigint) => void>();

  get listeners(): number {
    return this.#listeners.size;
  }

  map(iova: number, gpa: number, perm = 3): void {
    this.#pages.set(BigInt(iova), { gpa, perm });
  }

  unmap(iova: number): void {
    this.#pages.delete(BigInt(iova));
    for (const notify of this.#listeners) notify(BigInt(iova), BigInt(PAGE));
  }

  getIotlbEntry(iova: bigint, access: DmaAccess): ReturnType<IommuAddressSpace['getIotlbEntry']> {
    this.lookups += 1;
    const page = iova - (iova % BigInt(PAGE));
    const found = this.#pages.get(page);
    if (found === undefined || (found.perm & access) === 0) return undefined;
    return { iova: page, gpa: found.gpa, size: BigInt(PAGE) };
  }

  addUnmapNotifier(notify: (iova: bigint, size: bigint) => void): () => void {
    this.#listeners.add(notify);
    return () => this.#listeners.delete(notify);
  }
}

type Piece = readonly [address: number, length: number, isWritable: boolean];

export interface Bench {
  readonly memory: GuestMemory;
  readonly blk: VirtioBlk;
  readonly iommu: PageIommu;
  readonly disk: Uint8Array;
  /** Maps pages at bus addresses to memory MOVED further down. */
  mapPages(iova: number, count: number, perm?: number): void;
  /** Puts chains into ring `queue`; then kicks unless told not to. */
  submit(chains: readonly (readonly Piece[])[], options?: { queue?: number; kick?: boolean }): void;
  kick(queue?: number): void;
  /** A read of sectors into DATA, or there. */
  readChain(data?: number, length?: number): Piece[];
  usedIdx(queue?: number): number;
  status(): number;
  bytes(iova: number, length: number): Uint8Array;
}

export interface BenchOptions {
  readonly hasIommu?: boolean;
  readonly flag?: boolean;
  readonly maxIotlbEntries?: number;
  readonly queues?: number;
  /** The driver does not say DRIVER_OK. */
  readonly isNotReady?: boolean;
  /** Pages that the driver forgets to map. */
  readonly unmapped?: readonly number[];
}

export function createBench(options: BenchOptions = {}): Bench {
  const { hasIommu = true, flag = true, queues = 1 } = options;
  const memory = createGuestMemory({ regions: [{ base: 0, size: MEMORY }] });
  const disk = Uint8Array.from({ length: 128 * 512 }, (_, i) => (i >> 9) + 1);
  const iommu = new PageIommu();
  const shift = hasIommu && flag ? MOVED : 0;
  const gpa = (address: number): number => (shift === 0 ? address % MOVED : address - MOVED);
  const bus = (address: number): number => (shift === 0 ? address % MOVED : address);
  const mapPages = (iova: number, count: number, perm = 3): void => {
    for (let i = 0; i < count; i += 1) iommu.map(iova + i * PAGE, iova + i * PAGE - MOVED, perm);
  };
  for (const [address, count] of [
    [RING, 8 * queues],
    [HEADER, 1],
    [STATUS, 1],
  ] as const) {
    mapPages(address, count);
  }
  for (const iova of options.unmapped ?? []) iommu.unmap(iova);
  const { maxIotlbEntries } = options;
  const blk = new VirtioBlk({
    backend: createMemoryBackend(disk),
    memory,
    systemMemory: createSystemMemorySpace(memory),
    iommuPlatform: flag,
    numQueues: queues,
    vhost: {
      ...(hasIommu ? { iommu } : {}),
      ...(maxIotlbEntries === undefined ? {} : { maxIotlbEntries }),
    },
  });
  const transport = direct(blk.core);
  const supported = (1n << BigInt(VIRTIO_F_VERSION_1)) | (1n << BigInt(VIRTIO_F_ACCESS_PLATFORM));
  const negotiated = negotiateFeatures(transport, { supported });
  if (!negotiated.ok) throw new Error(negotiated.message);
  const ring = (queue: number): number => RING + queue * 8 * PAGE;
  for (let queue = 0; queue < queues; queue += 1) {
    transport.setupQueue(queue, {
      size: 256,
      desc: BigInt(bus(ring(queue))),
      avail: BigInt(bus(ring(queue)) + PAGE),
      used: BigInt(bus(ring(queue)) + 2 * PAGE),
    });
  }
  const header = new Uint8Array(16);
  encodeBlkHeader(new DataView(header.buffer), VIRTIO_BLK_T_IN, 3);
  memory.write(gpa(HEADER), header);
  memory.writeU8(gpa(STATUS), UNTOUCHED);
  if (options.isNotReady !== true) setDriverOk(transport);
  const next = Array.from({ length: queues }, () => ({ desc: 0, avail: 0 }));
  const kick = (queue = 0): void => transport.notifyQueue(queue);
  return {
    memory,
    blk,
    iommu,
    disk,
    mapPages,
    submit(chains, { queue = 0, kick: kicks = true } = {}) {
      const at = next[queue] as { desc: number; avail: number };
      const base = gpa(ring(queue));
      for (const chain of chains) {
        memory.writeU16Le(base + PAGE + 4 + 2 * (at.avail % 256), at.desc % 256);
        chain.forEach(([address, length, isWritable], i) => {
          const desc = base + 16 * ((at.desc + i) % 256);
          const isLast = i === chain.length - 1;
          memory.writeU32Le(desc, bus(address));
          memory.writeU32Le(desc + 4, 0);
          memory.writeU32Le(desc + 8, length);
          memory.writeU16Le(desc + 12, (isLast ? 0 : 1) | (isWritable ? 2 : 0));
          memory.writeU16Le(desc + 14, (at.desc + i + 1) % 256);
        });
        at.desc += chain.length;
        at.avail += 1;
        memory.writeU16Le(base + PAGE + 2, at.avail & 0xffff);
      }
      if (kicks) kick(queue);
    },
    kick,
    readChain: (data = DATA, length = PAGE) => [
      [HEADER, 16, false],
      [data, length, true],
      [STATUS, 1, true],
    ],
    usedIdx: (queue = 0) => memory.readU16Le(gpa(ring(queue)) + 2 * PAGE + 2),
    status: () => memory.readU8(gpa(STATUS)),
    bytes(iova, length) {
      const into = new Uint8Array(length);
      memory.read(gpa(iova), into);
      return into;
    },
  };
}
