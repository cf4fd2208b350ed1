import { type HiLo, hi32, lo32 } from '@pinhole/base';
import type { GuestPages } from '@pinhole/guest';
import type { DmaDirection, DmaOps, GuestMemory } from '@pinhole/memory';
import {
  createDriverQueue,
  createPciLegacyTransport,
  createPciModernTransport,
  type DriverQueue,
  hasFeature,
  negotiateFeatures,
  type PciFunction,
  type Segment,
  setDriverOk,
  VIRTIO_CONFIG_S_NEEDS_RESET,
  VIRTIO_F_RING_PACKED,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
  type VirtioTransport,
} from '@pinhole/virtio';

/** The used ring starts at a multiple of this. [linux v6.1 arch/powerpc/include/asm/cache.h L1_CACHE_BYTES] */
const RING_ALIGN = 128;
/** Pieces have a cache line of their own, at least. */
const MIN_PIECE = 128;
/** No part of a ring is larger than so many bytes an entry. */
const DESCRIPTOR = 16;
/** Entries of a ring: QEMU 10 offers 1024, whatever its `queue-size`; QEMU 7.2 has 256. */
const MAX_RING = 256;
/** The same of a legacy device. [linux v6.1 include/uapi/linux/virtio_pci.h VIRTIO_PCI_VRING_ALIGN] */
const VIRTIO_PCI_VRING_ALIGN = 4096;
/** What memory that the device may write holds before. */
export const UNWRITTEN = 0xa5;

/** A buffer for a queue, as bytes: what the device reads, and room for what it writes. */
export interface RawRequest {
  readonly queue: number;
  /** One piece of guest memory each. */
  readonly out: readonly Uint8Array[];
  /** Lengths of the pieces that the device may write. */
  readonly inn: readonly number[];
  /** Pieces (those of `out` first, then those of `inn`) whose mapping is spoilt before the kick. */
  readonly faults?: readonly Fault[];
}

/** How a mapping is spoilt: taken away, made read-only, or replaced by the physical address. */
export interface Fault {
  readonly piece: number;
  readonly how: 'unmapped' | 'read-only' | 'physical';
}

/** What became of it. */
export interface RawOutcome {
  /** What the used ring said; undefined: the buffer did not come back. */
  used: number | undefined;
  /** The pieces that the device could write, as they are now. */
  inn: Uint8Array[];
}

/** What is around a device on one side. */
export interface RigOptions {
  readonly fn: PciFunction;
  readonly memory: GuestMemory;
  readonly pages: GuestPages;
  readonly dma: DmaOps;
  /** Spoils the mapping of so many bytes, in the device's window. */
  readonly spoil: (bus: HiLo, length: number, how: 'unmapped' | 'read-only') => void;
  /** Through the legacy interface, in the byte order of a big-endian guest. */
  readonly isLegacy?: boolean;
  /** Which features are accepted if they are offered. */
  readonly accept: bigint;
}

/** A guest's use of one virtio device without a driver's opinions: any bytes on any queue. */
export class VirtioRig {
  readonly transport: VirtioTransport;
  readonly features: bigint;
  readonly queues: readonly DriverQueue<RawOutcome>[];
  readonly #options: RigOptions;
  readonly #dma: SpoiltDma;
  readonly #flying = new Map<RawOutcome, Flying>();

  /** @throws Error what the kernel would say of a device that cannot be driven. */
  constructor(options: RigOptions) {
    this.#options = options;
    const { fn, memory, pages } = options;
    const { isLegacy = false } = options;
    const made = isLegacy ? createPciLegacyTransport(fn) : createPciModernTransport(fn);
    if (!made.ok) throw new Error(made.message);
    const { transport } = made;
    this.transport = transport;
    const negotiated = negotiateFeatures(transport, {
      supported: options.accept,
      allowsLegacy: isLegacy,
    });
    if (!negotiated.ok) throw new Error(negotiated.message);
    const { features } = negotiated;
    this.features = features;
    this.#dma = new SpoiltDma(options);
    const queues: DriverQueue<RawOutcome>[] = [];
    for (let index = 0; transport.queueMaxSize(index) > 0; index += 1) {
      const queue = createDriverQueue<RawOutcome>({
        id: `vq${index}`,
        memory,
        dma: this.#dma,
        tables: {
          allocate: (length) => pages.alloc(length),
          free: (gpa, length) => pages.free(gpa, length),
        },
        size: Math.min(transport.queueMaxSize(index), MAX_RING),
        layoutAlign: isLegacy ? VIRTIO_PCI_VRING_ALIGN : RING_ALIGN,
        isBigEndian: isLegacy,
        mayReduceSize: !isLegacy,
        isPacked: hasFeature(features, VIRTIO_F_RING_PACKED),
        hasIndirect: hasFeature(features, VIRTIO_RING_F_INDIRECT_DESC),
        hasEventIdx: hasFeature(features, VIRTIO_RING_F_EVENT_IDX),
        pageSize: pages.pageSize,
        notify: () => transport.notifyQueue(index),
      });
      if (queue === undefined) throw new Error(`no room for the ring of queue ${index}`);
      transport.setupQueue(index, queue.setup);
      queues.push(queue);
    }
    this.queues = queues;
    setDriverOk(transport);
  }

  /** Puts a buffer into its queue; it is the device's after `kick`. */
  submit(request: RawRequest): RawOutcome {
    const out = request.out.map((bytes) => this.#place(bytes));
    const inn = request.inn.map((length) => this.#place(new Uint8Array(length).fill(UNWRITTEN)));
    const outcome: RawOutcome = { used: undefined, inn: [] };
    this.#dma.prepare(request.faults ?? []);
    const added = this.queues[request.queue]?.add(out, inn, outcome);
    this.#dma.spoilNow();
    if (added !== 'ok') throw new Error(`queue ${request.queue}: ${added ?? 'not there'}`);
    this.#flying.set(outcome, { out, inn });
    return outcome;
  }

  kick(queue: number): void {
    this.queues[queue]?.kick();
  }

  /** Takes the ring's own entries away. */
  spoilRing(index: number): void {
    const queue = this.queues[index];
    if (queue === undefined) return;
    const { desc, avail, used, size } = queue.setup;
    for (const address of [desc, avail, used]) {
      const bus = { hi: hi32(address), lo: lo32(address) };
      this.#options.spoil(bus, DESCRIPTOR * size, 'unmapped');
    }
  }

  /** Takes back what the device returned. @returns how many buffers it still has. */
  collect(): number {
    for (const queue of this.queues) {
      for (;;) {
        const used = queue.getUsed();
        if (used === undefined || used.kind === 'bad-ring') break;
        used.token.used = used.length;
        this.#read(used.token);
      }
    }
    return this.#flying.size;
  }

  /** Looks at the buffers that did not come back: their memory stays the device's. */
  giveUp(): void {
    for (const [outcome, { inn }] of this.#flying) outcome.inn = inn.map((s) => this.#bytes(s));
    this.#flying.clear();
  }

  /** The device said that it cannot go on. */
  get needsReset(): boolean {
    return (this.transport.readStatus() & VIRTIO_CONFIG_S_NEEDS_RESET) !== 0;
  }

  /** Stops the device, and gives the memory of its rings back. */
  close(): void {
    this.transport.writeStatus(0);
    for (const queue of this.queues) {
      while (queue.detachUnused() !== undefined);
      queue.free();
    }
  }

  #place(bytes: Uint8Array): Segment {
    const { pages, memory } = this.#options;
    const gpa = pages.alloc(Math.max(MIN_PIECE, bytes.length));
    if (gpa === undefined) throw new Error(`no guest memory for ${bytes.length} bytes`);
    memory.write(gpa, bytes);
    return { gpa, length: bytes.length };
  }

  #read(outcome: RawOutcome): void {
    const flying = this.#flying.get(outcome);
    if (flying === undefined) return;
    this.#flying.delete(outcome);
    outcome.inn = flying.inn.map((segment) => this.#bytes(segment));
    for (const { gpa, length } of [...flying.out, ...flying.inn]) {
      this.#options.pages.free(gpa, Math.max(MIN_PIECE, length));
    }
  }

  #bytes({ gpa, length }: Segment): Uint8Array {
    const bytes = new Uint8Array(length);
    this.#options.memory.read(gpa, bytes);
    return bytes;
  }
}

interface Flying {
  readonly out: readonly Segment[];
  readonly inn: readonly Segment[];
}

/** DMA operations some of whose mappings go wrong behind the guest's back. */
class SpoiltDma implements DmaOps {
  readonly name: string;
  readonly maxMappingSize: number;
  readonly #options: RigOptions;
  #faults: readonly Fault[] = [];
  #piece = 0;
  /** The bus addresses in whose place the physical ones were given. */
  readonly #meant = new Map<number, HiLo>();
  readonly #spoilt: { bus: HiLo; length: number; how: 'unmapped' | 'read-only' }[] = [];

  constructor(options: RigOptions) {
    this.#options = options;
    this.name = options.dma.name;
    this.maxMappingSize = options.dma.maxMappingSize;
  }

  prepare(faults: readonly Fault[]): void {
    this.#faults = faults;
    this.#piece = 0;
  }

  spoilNow(): void {
    for (const { bus, length, how } of this.#spoilt.splice(0)) {
      this.#options.spoil(bus, length, how);
    }
    this.#faults = [];
  }

  map(gpa: number, length: number, direction: DmaDirection, out: HiLo): boolean {
    if (!this.#options.dma.map(gpa, length, direction, out)) return false;
    const fault = this.#faults.find(({ piece }) => piece === this.#piece);
    this.#piece += 1;
    if (fault?.how === 'physical') {
      this.#meant.set(gpa, { ...out });
      out.hi = Math.floor(gpa / 2 ** 32);
      out.lo = gpa % 2 ** 32;
    } else if (fault !== undefined) {
      this.#spoilt.push({ bus: { ...out }, length, how: fault.how });
    }
    return true;
  }

  unmap(hi: number, lo: number, length: number, direction: DmaDirection): void {
    const physical = hi * 2 ** 32 + lo;
    const bus = this.#meant.get(physical) ?? { hi, lo };
    this.#meant.delete(physical);
    this.#options.dma.unmap(bus.hi, bus.lo, length, direction);
  }

  allocCoherent(length: number, out: HiLo): number | undefined {
    return this.#options.dma.allocCoherent(length, out);
  }

  freeCoherent(gpa: number, hi: number, lo: number, length: number): void {
    this.#options.dma.freeCoherent(gpa, hi, lo, length);
  }
}
