import type { DmaOps } from '@pinhole/memory';
import {
  type BlkConfig,
  blkConfigParts,
  type ConfigPart,
  decodeBlkConfig,
  featureBit,
  featureBits,
  type Segment,
  VIRTIO_BLK_CONFIG_WRITEBACK,
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
  VIRTIO_BLK_ID_BYTES,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_SECTOR_SIZE,
} from '@pinhole/virtio';
import type { MapErrorRule } from '../../kernel-profiles/types.js';
import { BLK_DEF_MAX_BYTES } from '../../params.js';
import { type DriverContext, openDevice, type VirtioDriverOptions } from '../driver-context.js';
import { BlkQueue } from './blk-queue.js';
import { type BlkCommand, type BlkOutcome, type BlkRequest, RequestObject } from './blk-request.js';
import { type QueueLimits, splitTransfer } from './block-layer.js';

/** [linux v6.1 drivers/block/virtio_blk.c VIRTIO_BLK_MAX_SG_ELEMS] */
const MAX_SG_ELEMS = 32_768;
/** [linux v6.1 drivers/block/virtio_blk.c MAX_DISCARD_SEGMENTS] */
const MAX_DISCARD_SEGMENTS = 256;

/** [linux v6.1 drivers/block/virtio_blk.c features] */
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
);

/** Options of {@link probeVirtioBlk}. */
export interface VirtioBlkDriverOptions extends VirtioDriverOptions {
  /** What becomes of a request whose buffers cannot be mapped; default: it fails. */
  readonly mapError?: MapErrorRule;
  /** The guest's CPUs: it uses at most as many queues. Default 1. */
  readonly cpus?: number;
}

/** A driver, or why there is none. */
export type ProbeResult =
  | { readonly ok: true; readonly driver: VirtioBlkDriver }
  | { readonly ok: false; readonly message: string };

/** Finds the device and brings it up. [linux v6.1 drivers/block/virtio_blk.c virtblk_probe] */
export function probeVirtioBlk(options: VirtioBlkDriverOptions): ProbeResult {
  const opened = openDevice(options, SUPPORTED);
  if (!opened.ok) return opened;
  const { context } = opened;
  const isMultiqueue = context.has(VIRTIO_BLK_F_MQ);
  const offered = isMultiqueue ? readConfig(context, fieldsOf(VIRTIO_BLK_F_MQ)).numQueues : 1;
  if (offered === 0) return context.abandon('MQ advertised but zero queues reported');
  const queues: BlkQueue[] = [];
  for (let index = 0; index < Math.min(options.cpus ?? 1, offered); index += 1) {
    const ring = context.openQueue<RequestObject>(index);
    if (typeof ring === 'string') return context.abandon(ring);
    queues.push(new BlkQueue(context, ring, options.mapError));
  }
  const config = readConfig(context, probedFields(context.features));
  if (context.has(VIRTIO_BLK_F_BLK_SIZE) && !isBlockSize(config.blkSize, options)) {
    return context.abandon(`virtio_blk: invalid block size: 0x${config.blkSize.toString(16)}`);
  }
  return { ok: true, driver: new VirtioBlkDriver(context, queues, config) };
}

/** How requests are submitted. */
export interface SubmitOptions {
  /** The queue: on Linux, that of the CPU. Default 0. */
  readonly queue?: number;
  /** Called as each request ends, which may be before `submit` returns. */
  readonly onDone?: (request: BlkRequest) => void;
}

/** The limits of discard and write zeroes; 0 ranges: the device has no such command. */
export interface RangeLimits {
  readonly maxRanges: number;
  /** Of one range. */
  readonly maxSectors: number;
}

/** The guest's virtio-blk driver. [linux v6.1 drivers/block/virtio_blk.c] */
export class VirtioBlkDriver {
  readonly features: bigint;
  readonly dma: DmaOps;
  readonly limits: QueueLimits;
  readonly discardLimits: RangeLimits;
  readonly writeZeroesLimits: RangeLimits;
  readonly isReadOnly: boolean;
  /** How many queues are in use. */
  readonly queueCount: number;
  /** Requests issued, and the data segments in them. */
  requests = 0;
  dataSegments = 0;
  readonly #context: DriverContext;
  readonly #queues: readonly BlkQueue[];
  #capacity: number;

  /** Use {@link probeVirtioBlk}. */
  constructor(context: DriverContext, queues: readonly BlkQueue[], config: BlkConfig) {
    const { features, dma } = context;
    this.#context = context;
    this.#queues = queues;
    this.#capacity = config.capacity;
    this.features = features;
    this.dma = dma;
    this.queueCount = queues.length;
    this.isReadOnly = context.has(VIRTIO_BLK_F_RO);
    const segMax = context.has(VIRTIO_BLK_F_SEG_MAX) ? config.segMax : 1;
    const sizeMax = context.has(VIRTIO_BLK_F_SIZE_MAX) ? config.sizeMax : 2 ** 32 - 1;
    this.limits = {
      maxSegments: Math.min(Math.max(1, segMax), MAX_SG_ELEMS - 2),
      // A device that says 0 would have no request fit; the kernel would refuse to set it.
      maxSegmentSize: Math.max(1, Math.min(sizeMax, dma.maxMappingSize)),
      maxBytes: BLK_DEF_MAX_BYTES,
    };
    this.discardLimits = rangeLimits(
      context.has(VIRTIO_BLK_F_DISCARD),
      config.maxDiscardSectors,
      config.maxDiscardSeg === 0 ? this.limits.maxSegments : config.maxDiscardSeg,
    );
    this.writeZeroesLimits = rangeLimits(
      context.has(VIRTIO_BLK_F_WRITE_ZEROES),
      config.maxWriteZeroesSectors,
      1,
    );
    context.start({
      queue: (index) => queues[index]?.handleInterrupt(),
      config: () => this.#readCapacity(),
    });
  }

  /** Sectors of 512 bytes; the device may change it. */
  get capacity(): number {
    return this.#capacity;
  }

  /** Requests that the device has. */
  get inFlight(): number {
    return this.#queues.reduce((sum, queue) => sum + queue.inFlight, 0);
  }

  /**
   * Gives requests to the device, with one kick for all. One that finds no room waits for those
   * before it. Those of one queue start in order, and end in any.
   * [linux v6.1 drivers/block/virtio_blk.c virtio_queue_rqs]
   */
  submit(commands: readonly BlkCommand[], options: SubmitOptions = {}): BlkRequest[] {
    const index = (options.queue ?? 0) % this.#queues.length;
    const queue = this.#queues[index] as BlkQueue;
    const requests = commands.map((command) => {
      const request = new RequestObject(command, index, options.onDone);
      this.#start(queue, request);
      return request;
    });
    queue.kick();
    return requests;
  }

  /** Waits for a request; if nothing happens any more, it is `hung` for now. */
  wait(request: BlkRequest): BlkOutcome {
    this.#context.waitUntil(() => request.outcome !== undefined);
    return request.outcome ?? { kind: 'hung' };
  }

  /** Reads into user memory; one outcome a request that it took. `offset` in bytes. */
  read(offset: number, runs: readonly Segment[]): BlkOutcome[] {
    return this.#transfer('read', offset, runs);
  }

  /** Writes from user memory. */
  write(offset: number, runs: readonly Segment[]): BlkOutcome[] {
    return this.#transfer('write', offset, runs);
  }

  /** Has completed writes made stable. */
  flush(): BlkOutcome {
    return this.#run({ op: 'flush' });
  }

  /** The disk's serial; empty when it cannot say. [linux v6.1 drivers/block/virtio_blk.c serial_show] */
  readSerial(): string {
    const { memory, pages } = this.#context.options;
    const gpa = pages.alloc(VIRTIO_BLK_ID_BYTES);
    if (gpa === undefined) return '';
    const bytes = new Uint8Array(VIRTIO_BLK_ID_BYTES);
    // The device may write less than it says.
    memory.write(gpa, bytes);
    const outcome = this.#run({ op: 'get-id', data: { gpa, length: VIRTIO_BLK_ID_BYTES } });
    // What hangs may be written yet.
    if (outcome.kind === 'hung') return '';
    memory.read(gpa, bytes);
    pages.free(gpa, VIRTIO_BLK_ID_BYTES);
    if (!isBlkSuccess(outcome)) return '';
    const end = bytes.indexOf(0);
    return String.fromCharCode(...bytes.subarray(0, end < 0 ? bytes.length : end));
  }

  /** Whether writes may stay in the disk's cache. [linux v6.1 drivers/block/virtio_blk.c virtblk_get_cache_mode] */
  get isWriteback(): boolean {
    if (!this.#context.has(VIRTIO_BLK_F_CONFIG_WCE)) return this.#context.has(VIRTIO_BLK_F_FLUSH);
    return readConfig(this.#context, fieldsOf(VIRTIO_BLK_F_CONFIG_WCE)).writeback !== 0;
  }

  /** Switches the disk's cache. False: the device does not let us. [linux v6.1 drivers/block/virtio_blk.c cache_type_store] */
  setWriteback(isOn: boolean): boolean {
    if (!this.#context.has(VIRTIO_BLK_F_CONFIG_WCE)) return false;
    this.#context.options.transport.writeConfig(
      VIRTIO_BLK_CONFIG_WRITEBACK,
      Uint8Array.of(isOn ? 1 : 0),
    );
    return this.isWriteback === isOn;
  }

  /** Resets the device; what it still had hangs. [linux v6.1 drivers/block/virtio_blk.c virtblk_remove] */
  remove(): void {
    this.#context.close((token, index) => this.#queues[index]?.forget(token as RequestObject));
  }

  #start(queue: BlkQueue, request: RequestObject): void {
    const { command } = request;
    const { memory, pages } = this.#context.options;
    const reason = this.#refusal(command);
    if (reason !== undefined || !request.prepare(memory, pages)) {
      const why = reason ?? 'no memory for the request';
      request.finish(pages, { kind: 'rejected', reason: why });
      return;
    }
    this.requests += 1;
    if (command.op === 'read' || command.op === 'write') this.dataSegments += command.data.length;
    queue.add(request);
  }

  // What the block layer never asks of such a device.
  #refusal(command: BlkCommand): string | undefined {
    if (command.op === 'flush') {
      return this.#context.has(VIRTIO_BLK_F_FLUSH) ? undefined : 'the device has no flush';
    }
    if (command.op === 'get-id') return undefined;
    if ('data' in command) return this.#refusalOfTransfer(command.sector, command.data);
    const limits = command.op === 'discard' ? this.discardLimits : this.writeZeroesLimits;
    if (limits.maxRanges === 0) return `the device has no ${command.op}`;
    const { ranges } = command;
    const isWithin =
      ranges.length > 0 &&
      ranges.length <= limits.maxRanges &&
      ranges.every(({ sectors }) => sectors <= limits.maxSectors);
    if (isWithin) return undefined;
    return `${command.op} takes 1 to ${limits.maxRanges} ranges of at most ${limits.maxSectors} sectors`;
  }

  /** [VIRTIO v1.2 §5.2.6.1 "Driver Requirements: Device Operation"] */
  #refusalOfTransfer(sector: number, data: readonly Segment[]): string | undefined {
    const bytes = data.reduce((sum, { length }) => sum + length, 0);
    if (bytes % VIRTIO_BLK_SECTOR_SIZE !== 0) return `${bytes} bytes are no whole sectors`;
    const end = sector + bytes / VIRTIO_BLK_SECTOR_SIZE;
    if (end <= this.#capacity) return undefined;
    return `sector ${end} is beyond the disk's ${this.#capacity} sectors`;
  }

  #run(command: BlkCommand): BlkOutcome {
    const [request] = this.submit([command]);
    return this.wait(request as BlkRequest);
  }

  #transfer(op: 'read' | 'write', offset: number, runs: readonly Segment[]): BlkOutcome[] {
    const { tracer } = this.#context;
    let at = offset;
    return splitTransfer(runs, this.limits).map((data) => {
      const length = data.reduce((sum, segment) => sum + segment.length, 0);
      const sector = at / VIRTIO_BLK_SECTOR_SIZE;
      if (tracer.on) {
        tracer.begin('guest', 'blk_request', { op, sector: BigInt(sector), length });
      }
      const outcome = this.#run({ op, sector, data });
      if (tracer.on) tracer.end('guest', 'blk_request');
      at += length;
      return outcome;
    });
  }

  /** [linux v6.1 drivers/block/virtio_blk.c virtblk_config_changed_work] */
  #readCapacity(): void {
    this.#capacity = readConfig(this.#context, CAPACITY).capacity;
  }
}

/** Whether a request was served without error. */
export function isBlkSuccess(outcome: BlkOutcome): boolean {
  return outcome.kind === 'done' && outcome.status === VIRTIO_BLK_S_OK;
}

/** Fields that are not read are 0. */
function readConfig(context: DriverContext, fields: readonly ConfigPart[]): BlkConfig {
  return decodeBlkConfig(context.readConfig(fields));
}

/** The one field that there always is, and the first. */
const CAPACITY = blkConfigParts(0n);

function fieldsOf(feature: number): readonly ConfigPart[] {
  return blkConfigParts(featureBit(feature)).slice(CAPACITY.length);
}

/**
 * What the probe reads once the queues are there: not the geometry, nor how write zeroes can be split.
 * [linux drivers/block/virtio_blk.c virtblk_probe], which in 6.1 reads the segment limit before the queues.
 */
function probedFields(features: bigint): readonly ConfigPart[] {
  const unread = featureBits(VIRTIO_BLK_F_GEOMETRY, VIRTIO_BLK_F_MQ);
  const [, ...split] = fieldsOf(VIRTIO_BLK_F_WRITE_ZEROES);
  return blkConfigParts(features & ~unread).filter(
    ({ offset }) => !split.some((field) => field.offset === offset),
  );
}

/** [linux v6.1 include/linux/blkdev.h blk_validate_block_size] */
function isBlockSize(size: number, { pages }: VirtioDriverOptions): boolean {
  return size >= 512 && size <= pages.pageSize && (size & (size - 1)) === 0;
}

/** [linux v6.1 drivers/block/virtio_blk.c virtblk_probe] */
function rangeLimits(isThere: boolean, maxSectors: number, maxRanges: number): RangeLimits {
  if (!isThere) return { maxRanges: 0, maxSectors: 0 };
  return {
    maxRanges: Math.min(maxRanges, MAX_DISCARD_SEGMENTS),
    maxSectors: maxSectors === 0 ? 2 ** 32 - 1 : maxSectors,
  };
}
