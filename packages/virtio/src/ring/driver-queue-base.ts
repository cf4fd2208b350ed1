import { type Gpa, type HiLo, NO_TRACE, type Tracer } from '@pinhole/base';
import { DmaDirection, type DmaOps } from '@pinhole/memory';
import { VirtioError } from '../errors.js';
import {
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_DESC_SIZE,
} from '../params.js';
import type { QueueSetup } from '../transport/transport.js';
import { DriverDescriptors } from './driver-descriptors.js';
import { DriverOrder } from './driver-order.js';
import type {
  AddResult,
  BadRing,
  DriverQueue,
  DriverQueueOptions,
  Segment,
  UsedBuffer,
} from './driver-types.js';

/**
 * What the driver's half of a queue is in either layout, mapping for mapping as Linux does it.
 * [linux v6.1 drivers/virtio/virtio_ring.c vring_virtqueue]
 *
 * The device can write the ring, or parts of it, and a careless device more: what the driver acts
 * upon (the addresses to unmap, the free list) is in its own memory. From the ring come only an id
 * and a length. Unlike Linux the end of a chain, too, is known without the ring.
 */
export abstract class DriverQueueBase<T> implements DriverQueue<T> {
  readonly id: string;
  readonly size: number;
  abstract readonly ringGpa: Gpa;
  abstract readonly setup: QueueSetup;
  abstract readonly notificationData: number;
  numFree: number;
  brokenBy: BadRing | undefined;
  isBroken = false;
  protected readonly descs: DriverDescriptors;
  /** Takes the bus address of a mapping. */
  protected readonly address: HiLo = { hi: 0, lo: 0 };
  /** The first free descriptor: of a packed ring, buffer ID. */
  protected freeHead = 0;
  /** What became available since the last look at whether to kick. */
  protected numAdded = 0;
  /** With EVENT_IDX: the device interrupted, and will not again before it is asked to. */
  protected wasEventTriggered = false;
  readonly #options: DriverQueueOptions;
  readonly #dma: DmaOps;
  readonly #tracer: Tracer;
  readonly #tokens: (T | undefined)[];
  readonly #used: { kind: 'used'; token: T; length: number };
  readonly #order: DriverOrder | undefined;
  // Of the buffer that is being added.
  #newHead = 0;
  #isFreed = false;

  constructor(options: DriverQueueOptions, size: number) {
    this.id = options.id ?? `vq${options.index ?? 0}`;
    this.size = size;
    this.#options = options;
    this.#dma = options.dma;
    this.#tracer = options.tracer ?? NO_TRACE;
    this.descs = new DriverDescriptors(options, size);
    this.#tokens = new Array<T | undefined>(size).fill(undefined);
    this.#used = { kind: 'used', token: undefined as T, length: 0 };
    this.#order = options.hasInOrder === true ? new DriverOrder(size) : undefined;
    this.numFree = size;
  }

  /**
   * Offers a buffer: pieces that the device reads, then pieces that it writes. `token` comes back
   * with it. Maps the pieces in order, then the indirect table if there is one; when a mapping
   * fails, ends those before it, first to last.
   * [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_add]
   * @throws VirtioError `E_EMPTY_BUFFER` without any piece.
   */
  add(out: readonly Segment[], inn: readonly Segment[], token: T): AddResult {
    const total = out.length + inn.length;
    if (total === 0) {
      throw new VirtioError('E_EMPTY_BUFFER', 'expected at least one segment, found none');
    }
    if (this.isBroken) return 'broken';
    if (this.#options.hasIndirect && total > 1 && this.numFree > 0) {
      const tableLength = VIRTQ_DESC_SIZE * total;
      const table = this.#options.tables.allocate(tableLength);
      if (table !== undefined) {
        if (this.#addIndirect(table, out, inn)) return this.#added(1, inn, token);
        this.#options.tables.free(table, tableLength);
        if (!this.retriesDirect) return 'no-dma-space';
      }
    }
    if (this.numFree < total) {
      this.ringFull(out.length > 0);
      return 'ring-full';
    }
    return this.#addDirect(out, inn) ? this.#added(total, inn, token) : 'no-dma-space';
  }

  abstract kickPrepare(): boolean;

  /**
   * Kicks the device if it wants that, and says whether it did.
   * [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_kick]
   */
  kick(): boolean {
    if (!this.kickPrepare() || this.isBroken) return false;
    this.#options.notify?.();
    return true;
  }

  /** Whether buffers came back that `getUsed` did not give yet. */
  hasUsed(): boolean {
    return this.#order?.isInBatch === true || this.hasUsedEntry();
  }

  /**
   * The next buffer that the device returned, its mappings ended: the table's first, then the
   * pieces' in order. The object is the queue's own and good until the next call.
   * [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_get_buf_ctx]
   */
  getUsed(): UsedBuffer<T> | BadRing | undefined {
    if (this.isBroken || !this.hasUsed()) return undefined;
    const order = this.#order;
    let head = -1;
    let length = 0;
    if (order?.isInBatch !== true) {
      head = this.usedId();
      length = this.usedLength();
      if (head >= this.size) return this.#bad(head, `id ${head} out of range`);
      if (!this.descs.isHead(head)) return this.#bad(head, `id ${head} is not a head!`);
      if (order !== undefined) {
        if (order.before(head) >= this.usedCount()) {
          return this.#bad(head, `id ${head} is ahead of its turn`);
        }
        order.beginBatch(head, length);
      }
    }
    if (order !== undefined) {
      head = order.first;
      length = order.shift();
    }
    this.#used.token = this.#tokens[head] as T;
    this.#used.length = length;
    const count = this.descs.chainLength(head);
    this.#detach(head);
    this.advanceUsed(count);
    return this.#used;
  }

  /**
   * What the driver's interrupt handler begins with: false if it has nothing to do here.
   * [linux v6.1 drivers/virtio/virtio_ring.c vring_interrupt]
   */
  noteInterrupt(): boolean {
    if (!this.hasUsed()) return false;
    if (!this.isBroken && this.#options.hasEventIdx) this.wasEventTriggered = true;
    return true;
  }

  abstract disableCallbacks(): void;
  abstract enableCallbacks(): boolean;

  /**
   * Takes back a buffer that the device still holds; for a device or queue that was reset.
   * Undefined when all are back. [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_detach_unused_buf]
   */
  detachUnused(): { token: T } | undefined {
    for (let head = 0; head < this.size; head += 1) {
      if (!this.descs.isHead(head)) continue;
      const token = this.#tokens[head] as T;
      this.#detach(head);
      this.unexpose();
      return { token };
    }
    return undefined;
  }

  /**
   * Back to the start, in the same memory: for a queue that the device has reset, once
   * `detachUnused` found all buffers. [linux v6.1 drivers/virtio/virtio_ring.c virtqueue_reinit_split, virtqueue_reinit_packed]
   * @throws VirtioError `E_QUEUE_IN_USE`
   */
  reset(): void {
    if (this.numFree !== this.size) {
      throw new VirtioError(
        'E_QUEUE_IN_USE',
        `expected all ${this.size} descriptors of ${this.id} to be free, found ${this.numFree}`,
        { details: { size: this.size, numFree: this.numFree } },
      );
    }
    if (this.#isFreed) return;
    this.freeHead = 0;
    this.numAdded = 0;
    this.wasEventTriggered = false;
    this.isBroken = false;
    this.brokenBy = undefined;
    this.descs.reset();
    this.#order?.reset();
    this.restart();
  }

  /** Gives the ring's memory back; the queue is over. [linux v6.1 drivers/virtio/virtio_ring.c vring_free] */
  free(): void {
    if (this.#isFreed) return;
    this.#isFreed = true;
    this.isBroken = true;
    this.freeRing();
  }

  /** Whether a buffer whose table could not be mapped goes into the ring itself. */
  protected abstract readonly retriesDirect: boolean;
  /** There is no room; `hasOut` says whether the device would have something to read. */
  protected abstract ringFull(hasOut: boolean): void;
  /**
   * Writes a descriptor of the ring: the `n`th of the buffer `head`, noted as `index`. The device
   * must not see it before `expose`.
   */
  protected abstract writeRing(
    head: number,
    index: number,
    n: number,
    length: number,
    flags: number,
  ): void;
  /** Shows the device the buffer that was written. */
  protected abstract expose(head: number, ndescs: number): void;
  /** A buffer that was exposed is taken back. */
  protected abstract unexpose(): void;
  protected abstract hasUsedEntry(): boolean;
  /** Buffers that may have come back at most. */
  protected abstract usedCount(): number;
  protected abstract usedId(): number;
  protected abstract usedLength(): number;
  /** A buffer of so many descriptors came back. */
  protected abstract advanceUsed(ndescs: number): void;
  /** Clears the ring and its indices. */
  protected abstract restart(): void;
  protected abstract freeRing(): void;

  // Into the ring's own descriptors, from `freeHead` along the free list.
  #addDirect(out: readonly Segment[], inn: readonly Segment[]): boolean {
    const { descs, address } = this;
    const head = this.freeHead;
    const total = out.length + inn.length;
    let index = head;
    for (let n = 0; n < total; n += 1) {
      const isIn = n >= out.length;
      const { gpa, length } = isIn ? inn[n - out.length]! : out[n]!;
      if (!this.#dma.map(gpa, length, direction(isIn), address)) {
        this.#unmapDirect(head, n);
        return false;
      }
      const write = isIn ? VIRTQ_DESC_F_WRITE : 0;
      descs.note(index, address, length, write);
      this.writeRing(head, index, n, length, n < total - 1 ? write | VIRTQ_DESC_F_NEXT : write);
      index = descs.next[index]!;
    }
    descs.begin(head, total, 0);
    this.#newHead = head;
    this.freeHead = index;
    return true;
  }

  // Into a table, which is mapped once it is filled.
  #addIndirect(table: Gpa, out: readonly Segment[], inn: readonly Segment[]): boolean {
    const { descs, address } = this;
    const head = this.freeHead;
    const total = out.length + inn.length;
    descs.beginTable(head, table, total);
    for (let n = 0; n < total; n += 1) {
      const isIn = n >= out.length;
      const { gpa, length } = isIn ? inn[n - out.length]! : out[n]!;
      if (!this.#dma.map(gpa, length, direction(isIn), address)) {
        this.#unmapTable(head, n);
        return false;
      }
      descs.writeTable(head, n, n === total - 1, address, length, isIn ? VIRTQ_DESC_F_WRITE : 0);
    }
    const tableLength = VIRTQ_DESC_SIZE * total;
    if (!this.#dma.map(table, tableLength, DmaDirection.TO_DEVICE, address)) {
      this.#unmapTable(head, total);
      return false;
    }
    descs.note(head, address, tableLength, VIRTQ_DESC_F_INDIRECT);
    this.writeRing(head, head, 0, tableLength, VIRTQ_DESC_F_INDIRECT);
    descs.begin(head, 1, total);
    this.#newHead = head;
    this.freeHead = descs.next[head]!;
    return true;
  }

  // The buffer at `newHead` is written.
  #added(ndescs: number, inn: readonly Segment[], token: T): AddResult {
    const head = this.#newHead;
    this.numFree -= ndescs;
    this.#tokens[head] = token;
    if (this.#order !== undefined) this.#order.push(head, totalLength(inn));
    this.expose(head, ndescs);
    return 'ok';
  }

  // Ends the mappings of a buffer and frees its descriptors.
  #detach(head: number): void {
    const { descs } = this;
    const count = descs.chainLength(head);
    const tableEntries = descs.tableEntries(head);
    this.#tokens[head] = undefined;
    const last = this.#unmapDirect(head, count);
    // In order, descriptors come free as they were taken: the list goes round the ring for ever.
    if (this.#order === undefined) {
      descs.next[last] = this.freeHead;
      this.freeHead = head;
    }
    this.numFree += count;
    if (tableEntries > 0) {
      this.#unmapTable(head, tableEntries);
      this.#options.tables.free(descs.tableGpa(head), VIRTQ_DESC_SIZE * tableEntries);
    }
    descs.end(head);
  }

  // Unmaps `count` descriptors from `head` on, and returns the last one.
  #unmapDirect(head: number, count: number): number {
    const { descs } = this;
    let last = head;
    for (let n = 0, index = head; n < count; n += 1) {
      const isIn = (descs.flags[index]! & VIRTQ_DESC_F_WRITE) !== 0;
      this.#dma.unmap(descs.hi[index]!, descs.lo[index]!, descs.len[index]!, direction(isIn));
      last = index;
      index = descs.next[index]!;
    }
    return last;
  }

  #unmapTable(head: number, count: number): void {
    const words = this.descs.tableWords(head);
    for (let at = 0; at < 4 * count; at += 4) {
      const isIn = (words[at + 3]! & VIRTQ_DESC_F_WRITE) !== 0;
      this.#dma.unmap(words[at]!, words[at + 1]!, words[at + 2]!, direction(isIn));
    }
  }

  #bad(id: number, message: string): BadRing {
    this.isBroken = true;
    this.brokenBy = { kind: 'bad-ring', id, message };
    if (this.#tracer.on) {
      this.#tracer.event('guest', 'virtqueue_bad_ring', { vq: this.id, message });
    }
    return this.brokenBy;
  }
}

function direction(isIn: boolean): DmaDirection {
  return isIn ? DmaDirection.FROM_DEVICE : DmaDirection.TO_DEVICE;
}

function totalLength(segments: readonly Segment[]): number {
  let total = 0;
  for (const { length } of segments) total += length;
  return total;
}
