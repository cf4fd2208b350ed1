/** The device's side of QEMU's log: each request is taken, served and given back once. */
import type { TraceEvent } from '@pinhole/base';
import { MismatchLog } from './mismatch-log.js';

/** A request that a device took off a virtqueue. */
export interface TakenRequest {
  readonly line: number;
  readonly vq: string;
  readonly elem: string;
  /** Segments that the device may write, and those that it may only read. */
  readonly inNum: number;
  readonly outNum: number;
  /** Of virtio-blk: what it asks for, in sectors. */
  blk: { readonly isWrite: boolean; readonly sectors: number; isComplete: boolean } | undefined;
}

/** What follows requests. */
export interface RequestListener {
  taken?(request: TakenRequest): void;
  /** `length`: bytes that the device says it wrote. */
  given?(request: TakenRequest, length: number, line: number): void;
  /** A device was reset: its requests are gone. */
  reset?(vdev: string, line: number): void;
}

interface Queue {
  vdev: string | undefined;
  /** Which one of the device's. */
  number: number | undefined;
  /** Given back since the used index moved. */
  filled: number;
  /** The packed ring has no used index: QEMU logs no flush of it. */
  hasFlush: boolean;
}

/** Requests, queues and devices that are kept at one time; others pass unchecked. */
const MAX_IN_FLIGHT = 65_536;
const MAX_QUEUES = 4096;
const SECTOR = 512;
/** [virtio v1.2 §2.1 "Device Status Field"] */
const STATUS_BITS = 0xcf;
const FAILED = 0x80;
/** [virtio v1.2 §5.2.6 "Device Operation"] VIRTIO_BLK_S_UNSUPP is the largest. */
const MAX_STATUS = 2;

/**
 * Checks the `virtqueue_*` and `virtio_blk_*` events of QEMU's log against each other.
 * [qemu v7.2 hw/virtio/virtio.c virtqueue_split_pop, virtqueue_fill, virtqueue_flush]
 */
export class VirtqueueReplay {
  readonly mismatches: MismatchLog;
  requests = 0;
  readonly #listener: RequestListener;
  readonly #inFlight = new Map<string, TakenRequest>();
  readonly #queues = new Map<string, Queue>();
  /** The virtqueue, by device and number. */
  readonly #numbers = new Map<string, string>();
  /** By device. */
  readonly #statuses = new Map<string, number>();
  #hasBegun = false;
  #isWhole = false;
  /** Requests that the device answered with an error, and where first. */
  readonly failed: { count: number; line: number } = { count: 0, line: 0 };
  #allocated:
    | { readonly elem: string; readonly inNum: number; readonly outNum: number }
    | undefined;

  constructor(keep: number, listener: RequestListener = {}) {
    this.mismatches = new MismatchLog(keep);
    this.#listener = listener;
  }

  /** Takes the next event of the log; others are passed over. */
  event({ name, args }: TraceEvent, line: number): void {
    if (name === 'virtqueue_alloc_element') this.#alloc(args);
    else if (name === 'virtqueue_pop') this.#pop(args, line);
    else if (name === 'virtqueue_fill') this.#fill(args, line);
    else if (name === 'virtqueue_flush') this.#flush(args, line);
    else if (name === 'virtio_queue_notify') this.#notify(args, line);
    else if (name === 'virtio_notify') this.#interrupt(args, line);
    else if (name === 'virtio_blk_handle_read') this.#handle(args, line, false);
    else if (name === 'virtio_blk_handle_write') this.#handle(args, line, true);
    else if (name === 'virtio_blk_req_complete') this.#complete(args, line);
    else if (name === 'virtio_set_status') this.#status(args, line);
    this.#hasBegun = true;
  }

  #alloc({ elem, in_num, out_num }: TraceEvent['args']): void {
    this.#allocated = { elem: String(elem), inNum: Number(in_num), outNum: Number(out_num) };
  }

  #pop(args: TraceEvent['args'], line: number): void {
    this.requests += 1;
    const [vq, elem] = [String(args.vq), String(args.elem)];
    const [inNum, outNum] = [Number(args.in_num), Number(args.out_num)];
    const made = this.#allocated;
    this.#allocated = undefined;
    // A log may be of fewer events.
    if (made !== undefined) {
      this.mismatches.compare(line, 'virtqueue_pop', [
        ['elem', elem, made.elem],
        ['in_num', inNum, made.inNum],
        ['out_num', outNum, made.outNum],
        ['elem', elem, this.#inFlight.has(elem) ? 'one that is not in use' : elem],
      ]);
    }
    if (this.#inFlight.size >= MAX_IN_FLIGHT) return;
    const request: TakenRequest = { line, vq, elem, inNum, outNum, blk: undefined };
    this.#inFlight.set(elem, request);
    this.#queue(vq);
    this.#listener.taken?.(request);
  }

  #fill(args: TraceEvent['args'], line: number): void {
    const [vq, elem, length] = [String(args.vq), String(args.elem), Number(args.len)];
    const queue = this.#queue(vq);
    const request = this.#inFlight.get(elem);
    // Requests from before the log began, or that passed unchecked.
    if (request === undefined && (this.requests === 0 || this.#inFlight.size >= MAX_IN_FLIGHT)) {
      return;
    }
    const { blk } = request ?? {};
    const done = blk === undefined ? length : lengthOf(blk);
    if (!queue.hasFlush && args.idx === 0) queue.filled = 0;
    this.mismatches.compare(line, 'virtqueue_fill', [
      ['elem', elem, request?.elem],
      ['vq', vq, request?.vq],
      ['idx', Number(args.idx), queue.filled],
      ['len', length, blk?.isComplete === false ? undefined : done],
    ]);
    queue.filled += 1;
    if (request === undefined) return;
    this.#inFlight.delete(elem);
    this.#listener.given?.(request, length, line);
  }

  #flush(args: TraceEvent['args'], line: number): void {
    const queue = this.#queue(String(args.vq));
    this.mismatches.compare(line, 'virtqueue_flush', [
      ['count', Number(args.count), this.requests === 0 ? Number(args.count) : queue.filled],
    ]);
    queue.filled = 0;
    queue.hasFlush = true;
  }

  #notify(args: TraceEvent['args'], line: number): void {
    const [vdev, vq, number] = [String(args.vdev), String(args.vq), Number(args.n)];
    const queue = this.#queue(vq);
    const known = this.#numbers.get(`${vdev} ${number}`) ?? vq;
    this.mismatches.compare(line, 'virtio_queue_notify', [
      ['vdev', vdev, queue.vdev ?? vdev],
      ['n', number, queue.number ?? number],
      ['vq', vq, known],
    ]);
    queue.vdev = vdev;
    queue.number = number;
    if (this.#numbers.size < MAX_QUEUES) this.#numbers.set(`${vdev} ${number}`, known);
  }

  // A device interrupts for a queue that was kicked.
  #interrupt(args: TraceEvent['args'], line: number): void {
    const [vdev, vq] = [String(args.vdev), String(args.vq)];
    const known = this.#queues.get(vq);
    if (!this.#isWhole || this.#queues.size >= MAX_QUEUES) return;
    this.mismatches.compare(line, 'virtio_notify', [
      ['vq', vq, known === undefined ? undefined : vq],
      ['vdev', vdev, known?.vdev ?? vdev],
    ]);
  }

  // A driver sets bits one after the other, and clears them only all at once.
  #status(args: TraceEvent['args'], line: number): void {
    const [vdev, value] = [String(args.vdev), Number(args.val)];
    // A log that begins with the power-on has each device's first reset.
    if (!this.#hasBegun) this.#isWhole = value === 0;
    const before = this.#statuses.get(vdev) ?? (this.#isWhole ? undefined : 0);
    this.mismatches.compare(line, 'virtio_set_status', [
      ['vdev', vdev, before === undefined && value !== 0 ? 'one that was reset' : vdev],
      // Firmware that gives a device up writes FAILED alone.
      ['val', value, value === 0 || value === FAILED ? value : value | (before ?? 0)],
      ['val', value & ~STATUS_BITS, 0],
    ]);
    if (this.#statuses.size < MAX_QUEUES) this.#statuses.set(vdev, value);
    if (value === 0) this.#reset(vdev, line);
  }

  #handle(args: TraceEvent['args'], line: number, isWrite: boolean): void {
    const request = this.#requestOf(args, line, isWrite ? 'handle_write' : 'handle_read');
    if (request === undefined) return;
    const name = `virtio_blk_handle_${isWrite ? 'write' : 'read'}`;
    this.mismatches.compare(line, name, [['req', request.blk === undefined, true]]);
    request.blk = { isWrite, sectors: Number(args.nsectors), isComplete: false };
  }

  #complete(args: TraceEvent['args'], line: number): void {
    const request = this.#requestOf(args, line, 'req_complete');
    const status = Number(args.status);
    const isStatus = status >= 0 && status <= MAX_STATUS;
    this.mismatches.compare(line, 'virtio_blk_req_complete', [
      ['status', status, isStatus ? status : 'at most 2'],
    ]);
    if (request?.blk !== undefined) request.blk.isComplete = true;
    if (status === 0) return;
    this.failed.count += 1;
    if (this.failed.line === 0) this.failed.line = line;
  }

  #requestOf(args: TraceEvent['args'], line: number, name: string): TakenRequest | undefined {
    const elem = String(args.req);
    const request = this.#inFlight.get(elem);
    if (this.requests === 0 || this.#inFlight.size >= MAX_IN_FLIGHT) return request;
    const vdev = String(args.vdev);
    const known = request === undefined ? undefined : this.#queue(request.vq).vdev;
    this.mismatches.compare(line, `virtio_blk_${name}`, [
      ['req', elem, request?.elem],
      ['vdev', vdev, known ?? vdev],
    ]);
    return request;
  }

  #reset(vdev: string, line: number): void {
    for (const [vq, queue] of this.#queues) {
      if (queue.vdev !== vdev) continue;
      this.#queues.delete(vq);
      this.#numbers.delete(`${vdev} ${queue.number}`);
      for (const [elem, request] of this.#inFlight)
        if (request.vq === vq) this.#inFlight.delete(elem);
    }
    this.#listener.reset?.(vdev, line);
  }

  #queue(vq: string): Queue {
    const known = this.#queues.get(vq);
    if (known !== undefined) return known;
    const queue: Queue = { vdev: undefined, number: undefined, filled: 0, hasFlush: false };
    if (this.#queues.size < MAX_QUEUES) this.#queues.set(vq, queue);
    return queue;
  }
}

// The status byte, and what was read.
function lengthOf({ isWrite, sectors }: NonNullable<TakenRequest['blk']>): number {
  return 1 + (isWrite ? 0 : sectors * SECTOR);
}
