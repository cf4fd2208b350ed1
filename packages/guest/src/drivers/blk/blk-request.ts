import type { Gpa } from '@pinhole/base';
import { hiOf, loOf } from '@pinhole/base';
import type { GuestMemory } from '@pinhole/memory';
import {
  encodeBlkHeader,
  encodeBlkRange,
  type Segment,
  VIRTIO_BLK_HEADER_SIZE,
  VIRTIO_BLK_RANGE_SIZE,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
  VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
} from '@pinhole/virtio';
import type { GuestPages } from '../../guest-pages.js';

/** What the status byte holds before the device writes it; not a status. */
const STATUS_NOT_WRITTEN = 0xff;
/** Header, status byte and book-keeping lie in one object, as in `struct virtblk_req`. */
const REQUEST_OBJECT_SIZE = 64;

/** A run of sectors to discard, or to fill with zeros. */
export interface SectorRange {
  readonly sector: number;
  readonly sectors: number;
}

/** What the disk is to do. Sectors have 512 bytes. */
export type BlkCommand =
  | {
      readonly op: 'read' | 'write';
      readonly sector: number;
      readonly data: readonly Segment[];
    }
  | { readonly op: 'flush' }
  | { readonly op: 'discard'; readonly ranges: readonly SectorRange[] }
  | {
      readonly op: 'write-zeroes';
      readonly ranges: readonly SectorRange[];
      /** The sectors need not stay allocated. */
      readonly mayUnmap?: boolean;
    }
  /** Reads the serial: 20 bytes. */
  | { readonly op: 'get-id'; readonly data: Segment };

/** How a request ended. */
export type BlkOutcome =
  /**
   * The device completed it with this status byte (0xff: it never wrote one). `usedLength` is what
   * the device says that it wrote: it may say anything, and nothing depends on it.
   */
  | { readonly kind: 'done'; readonly status: number; readonly usedLength: number }
  /** It could not be given to the device: no room on the bus, or the queue is broken. */
  | { readonly kind: 'rejected'; readonly reason: string }
  /**
   * Whoever waits for it waits for ever: the device took it and never answered; or, with a reason, the
   * block layer tries it again and again.
   */
  | { readonly kind: 'hung'; readonly reason?: string };

/** A request on its way. */
export interface BlkRequest {
  readonly command: BlkCommand;
  /** The queue that it is in. */
  readonly queue: number;
  /** Absent while it is on its way. */
  readonly outcome: BlkOutcome | undefined;
}

const TYPES: Readonly<Record<BlkCommand['op'], number>> = {
  read: VIRTIO_BLK_T_IN,
  write: VIRTIO_BLK_T_OUT,
  flush: VIRTIO_BLK_T_FLUSH,
  discard: VIRTIO_BLK_T_DISCARD,
  'write-zeroes': VIRTIO_BLK_T_WRITE_ZEROES,
  'get-id': VIRTIO_BLK_T_GET_ID,
};

/**
 * A request with its memory: `struct virtblk_req`, and the ranges of a discard.
 * [linux v6.1 drivers/block/virtio_blk.c virtblk_setup_cmd]
 */
export class RequestObject implements BlkRequest {
  readonly command: BlkCommand;
  readonly queue: number;
  /** What the device reads, then what it writes. */
  out: readonly Segment[] = [];
  inn: readonly Segment[] = [];
  outcome: BlkOutcome | undefined;
  readonly #onDone: ((request: BlkRequest) => void) | undefined;
  readonly #objects: Segment[] = [];
  #status: Gpa = 0;

  constructor(command: BlkCommand, queue: number, onDone?: (request: BlkRequest) => void) {
    this.command = command;
    this.queue = queue;
    this.#onDone = onDone;
  }

  /** False: no memory. */
  prepare(memory: GuestMemory, pages: GuestPages): boolean {
    const { command } = this;
    const gpa = this.#alloc(pages, REQUEST_OBJECT_SIZE);
    if (gpa === undefined) return false;
    const sector = 'sector' in command ? command.sector : 0;
    const bytes = new Uint8Array(VIRTIO_BLK_HEADER_SIZE);
    encodeBlkHeader(new DataView(bytes.buffer), TYPES[command.op], sector);
    memory.write(gpa, bytes);
    this.#status = gpa + VIRTIO_BLK_HEADER_SIZE;
    memory.writeU8(this.#status, STATUS_NOT_WRITTEN);
    const header = { gpa, length: VIRTIO_BLK_HEADER_SIZE };
    const status = { gpa: this.#status, length: 1 };
    this.out = [header];
    this.inn = [status];
    if (command.op === 'read') this.inn = [...command.data, status];
    else if (command.op === 'write') this.out = [header, ...command.data];
    else if (command.op === 'get-id') this.inn = [command.data, status];
    else if ('ranges' in command) {
      const ranges = this.#writeRanges(memory, pages, command);
      if (ranges === undefined) return false;
      this.out = [header, ranges];
    }
    return true;
  }

  readStatus(memory: GuestMemory): number {
    return memory.readU8(this.#status);
  }

  /** It is over: the device has let go of it, or never had it. */
  finish(pages: GuestPages, outcome: BlkOutcome): void {
    for (const { gpa, length } of this.#objects.splice(0)) pages.free(gpa, length);
    this.outcome = outcome;
    this.#onDone?.(this);
  }

  /** [linux v6.1 drivers/block/virtio_blk.c virtblk_setup_discard_write_zeroes_erase] */
  #writeRanges(
    memory: GuestMemory,
    pages: GuestPages,
    command: Extract<BlkCommand, { readonly ranges: readonly SectorRange[] }>,
  ): Segment | undefined {
    const bytes = new Uint8Array(VIRTIO_BLK_RANGE_SIZE * command.ranges.length);
    const view = new DataView(bytes.buffer);
    const mayUnmap = command.op === 'write-zeroes' && (command.mayUnmap ?? false);
    const flags = mayUnmap ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
    command.ranges.forEach(({ sector, sectors }, i) => {
      const [sectorHi, sectorLo] = [hiOf(sector), loOf(sector)];
      encodeBlkRange(view, VIRTIO_BLK_RANGE_SIZE * i, {
        sectorHi,
        sectorLo,
        numSectors: sectors,
        flags,
      });
    });
    const gpa = this.#alloc(pages, bytes.length);
    if (gpa === undefined) return undefined;
    memory.write(gpa, bytes);
    return { gpa, length: bytes.length };
  }

  #alloc(pages: GuestPages, length: number): Gpa | undefined {
    const gpa = pages.alloc(length);
    if (gpa !== undefined) this.#objects.push({ gpa, length });
    return gpa;
  }
}
