import { NO_TRACE, type Tracer } from '@pinhole/base';
import type { DmaOps, GuestMemory } from '@pinhole/memory';
import {
  createDriverQueue,
  type DriverQueue,
  decodeBlkConfig,
  encodeBlkHeader,
  featureBits,
  hasFeature,
  negotiateFeatures,
  type Segment,
  setDriverOk,
  VIRTIO_BLK_CONFIG_SIZE,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_GEOMETRY,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_SIZE_MAX,
  VIRTIO_BLK_F_TOPOLOGY,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_HEADER_SIZE,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_SECTOR_SIZE,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
  type VirtioTransport,
} from '@pinhole/virtio';
import { type QueueLimits, splitTransfer } from './block-layer.js';
import type { GuestPages } from './guest-pages.js';
import type { MapErrorRule } from './kernel-profiles/types.js';
import { BLK_DEF_MAX_BYTES } from './params.js';

/** The used ring starts at a multiple of this. [linux v6.1 arch/powerpc/include/asm/cache.h L1_CACHE_BYTES] */
const RING_ALIGN = 128;
/** What the status byte holds before the device writes it; not a status. */
const STATUS_NOT_WRITTEN = 0xff;
/** Tries of a request that finds no room; the kernel has no such limit. */
const MAX_REQUEUES = 100;
/** Header, status byte and book-keeping lie in one object, as in `struct virtblk_req`. */
const REQUEST_OBJECT_SIZE = 64;

/** Features of driver, ring code and transport. [linux v6.1 drivers/block/virtio_blk.c features] */
const SUPPORTED = featureBits(
  VIRTIO_BLK_F_SIZE_MAX,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_GEOMETRY,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_TOPOLOGY,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_RING_F_INDIRECT_DESC,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_F_VERSION_1,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_RING_RESET,
);

/** How a request ended. */
export type BlkOutcome =
  /** The device completed it with this status byte (0xff: it never wrote one). */
  | { readonly kind: 'done'; readonly status: number; readonly usedLength: number }
  /** It could not be given to the device: no room on the bus, or the queue is broken. */
  | { readonly kind: 'rejected'; readonly reason: string }
  /** The device took it and never answered. */
  | { readonly kind: 'hung' };

/** Options of {@link probeVirtioBlk}. */
export interface VirtioBlkDriverOptions {
  readonly transport: VirtioTransport;
  /** Guest memory as the guest sees it. */
  readonly memory: GuestMemory;
  readonly pages: GuestPages;
  /** The platform restricts what devices reach: see `negotiateFeatures`. */
  readonly hasRestrictedMemoryAccess?: () => boolean;
  /** What becomes of a request whose buffers cannot be mapped; default: it fails. */
  readonly mapError?: MapErrorRule;
  /** Decides how buffers are mapped, once the features are known. */
  readonly chooseDma: (features: bigint) => DmaOps;
  readonly tracer?: Tracer;
}

/** A driver, or why there is none. */
export type ProbeResult =
  | { readonly ok: true; readonly driver: VirtioBlkDriver }
  | { readonly ok: false; readonly message: string };

/** Finds the device and brings it up. [linux v6.1 drivers/block/virtio_blk.c virtblk_probe] */
export function probeVirtioBlk(options: VirtioBlkDriverOptions): ProbeResult {
  const negotiated = negotiateFeatures(options.transport, {
    supported: SUPPORTED,
    ...(options.hasRestrictedMemoryAccess === undefined
      ? {}
      : { hasRestrictedMemoryAccess: options.hasRestrictedMemoryAccess }),
  });
  if (!negotiated.ok) return { ok: false, message: negotiated.message };
  const { features } = negotiated;
  const dma = options.chooseDma(features);
  const queue = createDriverQueue<Request>({
    memory: options.memory,
    dma,
    tables: {
      allocate: (length) => options.pages.alloc(length),
      free: (gpa, length) => options.pages.free(gpa, length),
    },
    size: options.transport.queueMaxSize(0),
    layoutAlign: RING_ALIGN,
    hasIndirect: hasFeature(features, VIRTIO_RING_F_INDIRECT_DESC),
    hasEventIdx: hasFeature(features, VIRTIO_RING_F_EVENT_IDX),
    pageSize: options.pages.pageSize,
    notify: () => options.transport.notifyQueue(0),
    ...(options.tracer === undefined ? {} : { tracer: options.tracer }),
  });
  if (queue === undefined) return { ok: false, message: 'no room for the ring' };
  options.transport.setupQueue(0, queue.setup);
  return { ok: true, driver: new VirtioBlkDriver(options, features, dma, queue) };
}

interface Request {
  /** Of header and status byte. */
  readonly gpa: number;
  outcome: BlkOutcome;
}

/**
 * The guest's virtio-blk driver: synchronous, one transfer at a time.
 * [linux v6.1 drivers/block/virtio_blk.c]
 */
export class VirtioBlkDriver {
  readonly features: bigint;
  readonly dma: DmaOps;
  /** Sectors of 512 bytes. */
  readonly capacity: number;
  readonly limits: QueueLimits;
  /** Requests issued, and the data segments in them. */
  requests = 0;
  dataSegments = 0;
  readonly #options: VirtioBlkDriverOptions;
  readonly #queue: DriverQueue<Request>;
  readonly #tracer: Tracer;
  readonly #header = new DataView(new ArrayBuffer(VIRTIO_BLK_HEADER_SIZE));

  constructor(
    options: VirtioBlkDriverOptions,
    features: bigint,
    dma: DmaOps,
    queue: DriverQueue<Request>,
  ) {
    const { transport } = options;
    this.#options = options;
    this.#queue = queue;
    this.#tracer = options.tracer ?? NO_TRACE;
    this.features = features;
    this.dma = dma;
    const bytes = new Uint8Array(VIRTIO_BLK_CONFIG_SIZE);
    transport.readConfig(0, bytes);
    const config = decodeBlkConfig(bytes);
    this.capacity = config.capacity;
    const segMax = hasFeature(features, VIRTIO_BLK_F_SEG_MAX) ? config.segMax : 1;
    const sizeMax = hasFeature(features, VIRTIO_BLK_F_SIZE_MAX) ? config.sizeMax : 2 ** 32 - 1;
    this.limits = {
      maxSegments: Math.max(1, segMax),
      maxSegmentSize: Math.min(sizeMax, dma.maxMappingSize),
      maxBytes: BLK_DEF_MAX_BYTES,
    };
    transport.onInterrupt((cause) => {
      if (cause === 'queue') this.#handleInterrupt();
    });
    setDriverOk(transport);
  }

  /** Reads into user memory; one outcome a request that it took. `offset` in bytes. */
  read(offset: number, runs: readonly Segment[]): BlkOutcome[] {
    return this.#transfer('read', offset, runs);
  }

  /** Writes from user memory. */
  write(offset: number, runs: readonly Segment[]): BlkOutcome[] {
    return this.#transfer('write', offset, runs);
  }

  #transfer(op: 'read' | 'write', offset: number, runs: readonly Segment[]): BlkOutcome[] {
    let at = offset;
    return splitTransfer(runs, this.limits).map((segments) => {
      const length = segments.reduce((sum, segment) => sum + segment.length, 0);
      const sector = at / VIRTIO_BLK_SECTOR_SIZE;
      if (this.#tracer.on) {
        const args = { op, sector: BigInt(sector), length };
        this.#tracer.begin('guest', 'blk_request', args);
      }
      const outcome = this.#request(op, sector, segments);
      if (this.#tracer.on) this.#tracer.end('guest', 'blk_request');
      at += length;
      return outcome;
    });
  }

  #request(op: 'read' | 'write', sector: number, data: readonly Segment[]): BlkOutcome {
    const { memory, pages } = this.#options;
    const gpa = pages.alloc(REQUEST_OBJECT_SIZE);
    if (gpa === undefined) return { kind: 'rejected', reason: 'no memory for the request' };
    encodeBlkHeader(this.#header, op === 'read' ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, sector);
    memory.write(gpa, new Uint8Array(this.#header.buffer));
    const header = { gpa, length: VIRTIO_BLK_HEADER_SIZE };
    const status = { gpa: gpa + VIRTIO_BLK_HEADER_SIZE, length: 1 };
    memory.writeU8(status.gpa, STATUS_NOT_WRITTEN);
    const request: Request = { gpa, outcome: { kind: 'hung' } };
    this.requests += 1;
    this.dataSegments += data.length;
    const out = op === 'read' ? [header] : [header, ...data];
    const inn = op === 'read' ? [...data, status] : [status];
    const rejected = this.#add(out, inn, request);
    if (rejected !== undefined) {
      pages.free(gpa, REQUEST_OBJECT_SIZE);
      return rejected;
    }
    // The device works, and interrupts, before this returns.
    this.#queue.kick();
    // The memory of a request that hangs stays the device's.
    if (request.outcome.kind !== 'hung') pages.free(gpa, REQUEST_OBJECT_SIZE);
    return request.outcome;
  }

  // A buffer that cannot be mapped fails the request, or the block layer tries it again later. With
  // nothing else in flight later is no better: the kernel would go on for ever.
  #add(out: Segment[], inn: Segment[], request: Request): BlkOutcome | undefined {
    const { mapError } = this.#options;
    const isRequeued = mapError?.request === 'requeue';
    for (let tries = 0; ; tries += 1) {
      const added = this.#queue.add(out, inn, request);
      if (added === 'ok') return undefined;
      if (added !== 'no-dma-space') return { kind: 'rejected', reason: added };
      if (!isRequeued) {
        const errno = mapError === undefined ? '' : `: ${mapError.errno}, an I/O error`;
        return { kind: 'rejected', reason: `no room on the bus${errno}` };
      }
      if (tries < MAX_REQUEUES) continue;
      const reason = `no room on the bus: ${mapError.errno}, requeued ${tries} times (a livelock)`;
      return { kind: 'rejected', reason };
    }
  }

  /** [linux v6.1 drivers/block/virtio_blk.c virtblk_done] */
  #handleInterrupt(): void {
    do {
      this.#queue.disableCallbacks();
      for (;;) {
        const used = this.#queue.getUsed();
        if (used === undefined || used.kind === 'bad-ring') break;
        const status = this.#options.memory.readU8(used.token.gpa + VIRTIO_BLK_HEADER_SIZE);
        used.token.outcome = { kind: 'done', status, usedLength: used.length };
      }
    } while (!this.#queue.isBroken && !this.#queue.enableCallbacks());
  }
}

/** Whether a request was served without error. */
export function isBlkSuccess(outcome: BlkOutcome): boolean {
  return outcome.kind === 'done' && outcome.status === VIRTIO_BLK_S_OK;
}
