import { isSafeHi, joinNumber } from '@pinhole/base';
import type { GuestMemory } from '@pinhole/memory';
import {
  type BlkHeader,
  BOUNCED,
  decodeBlkHeader,
  decodeBlkRange,
  VIRTIO_BLK_HEADER_SIZE,
  VIRTIO_BLK_ID_BYTES,
  VIRTIO_BLK_RANGE_SIZE,
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_T_BARRIER,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_SCSI_CMD,
  VIRTIO_BLK_T_WRITE_ZEROES,
  VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
  type VirtioDeviceCore,
  type VirtqueueElement,
} from '@pinhole/virtio';
import { ElementBytes } from '../../element-bytes.js';
import { BDRV_REQUEST_MAX_SECTORS, type BlkSettings } from './blk-config.js';
import { type BlockBackend, SECTOR_SIZE } from './block-backend.js';

/** What is copied at once between the backend and guest memory. */
const COPY_SIZE = 2 ** 20;
/** `errors` of a SCSI request that failed. [qemu v7.2 hw/block/virtio-blk.c virtio_blk_handle_scsi_req] */
const SCSI_ERRORS = Uint8Array.of(255, 0, 0, 0);

/** How a request ended: its status, or what is so wrong with it that the device breaks. */
export type BlkResult =
  | { readonly kind: 'status'; readonly status: number; readonly isAsync: boolean }
  | { readonly kind: 'refused'; readonly message: string };

/** See {@link BlkRequestHandler}. */
export interface BlkRequestOptions {
  readonly backend: BlockBackend;
  readonly memory: GuestMemory;
  readonly settings: BlkSettings;
  /** `''`: none was given. */
  readonly serial: string;
  /** Whether the disk may cache writes. */
  readonly isWriteback: () => boolean;
}

/**
 * Executes requests on the backend. What QEMU gives to its block layer it completes later (`isAsync`);
 * what it refuses before is completed at once. [qemu v7.2 hw/block/virtio-blk.c
 * virtio_blk_handle_request]
 */
export class BlkRequestHandler {
  readonly #options: BlkRequestOptions;
  readonly #bytes: ElementBytes;
  readonly #serial: Uint8Array;
  readonly #header: BlkHeader = { type: 0, ioprio: 0, sectorHi: 0, sectorLo: 0 };
  readonly #headerBytes = new Uint8Array(VIRTIO_BLK_HEADER_SIZE);
  readonly #headerView = new DataView(this.#headerBytes.buffer);
  readonly #copy = new Uint8Array(COPY_SIZE);

  constructor(options: BlkRequestOptions) {
    this.#options = options;
    this.#bytes = new ElementBytes(options.memory);
    this.#serial = serialBytes(options.serial);
  }

  /** Executes the request and leaves it to the caller to complete it. */
  handle(core: VirtioDeviceCore, element: VirtqueueElement): BlkResult {
    if (element.outNum < 1 || element.inNum < 1) return refused('virtio-blk missing headers');
    if (this.#bytes.readOut(element, 0, this.#headerBytes) < VIRTIO_BLK_HEADER_SIZE) {
      return refused('virtio-blk request outhdr too short');
    }
    decodeBlkHeader(this.#headerView, this.#header, core.isBigEndian);
    const { type } = this.#header;
    // OUT gives the direction and is no part of the command; anyone may set BARRIER.
    switch ((type & ~(VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_BARRIER)) >>> 0) {
      case VIRTIO_BLK_T_IN:
        return this.#readWrite(core, element, (type & VIRTIO_BLK_T_OUT) !== 0);
      case VIRTIO_BLK_T_FLUSH:
        return later(attempt(() => this.#options.backend.flush()));
      case VIRTIO_BLK_T_SCSI_CMD:
        return this.#scsi(element);
      case VIRTIO_BLK_T_GET_ID:
        return this.#getId(element);
      case VIRTIO_BLK_T_DISCARD & ~VIRTIO_BLK_T_OUT:
      case VIRTIO_BLK_T_WRITE_ZEROES & ~VIRTIO_BLK_T_OUT:
        return this.#discardOrWriteZeroes(element, core.isBigEndian);
      default:
        return now(VIRTIO_BLK_S_UNSUPP);
    }
  }

  /** The status is the last writable byte, wherever it is. */
  writeStatus(element: VirtqueueElement, status: number): void {
    const last = element.outNum + element.inNum - 1;
    const gpa = element.gpa[last] as number;
    const length = element.length[last] as number;
    if (gpa !== BOUNCED) this.#options.memory.writeU8(gpa + length - 1, status);
  }

  #readWrite(core: VirtioDeviceCore, element: VirtqueueElement, isWrite: boolean): BlkResult {
    const bytes = isWrite ? element.outBytes - VIRTIO_BLK_HEADER_SIZE : element.inBytes - 1;
    const { sectorHi, sectorLo } = this.#header;
    const { tracer } = core;
    if (tracer.on) {
      const sector = (BigInt(sectorHi) << 32n) | BigInt(sectorLo);
      const name = isWrite ? 'virtio_blk_handle_write' : 'virtio_blk_handle_read';
      const nsectors = Math.floor(bytes / SECTOR_SIZE);
      tracer.event('device', name, { vdev: core.id, req: element.id, sector, nsectors });
    }
    const offset = this.#offset(sectorHi, sectorLo, bytes);
    if (offset === undefined) return now(VIRTIO_BLK_S_IOERR);
    return later(
      isWrite ? this.#write(element, offset, bytes) : this.#read(element, offset, bytes),
    );
  }

  #read(element: VirtqueueElement, offset: number, bytes: number): number {
    const { backend } = this.#options;
    for (let done = 0; done < bytes; done += COPY_SIZE) {
      const part = this.#copy.subarray(0, Math.min(COPY_SIZE, bytes - done));
      const status = attempt(() => backend.read(offset + done, part));
      if (status !== VIRTIO_BLK_S_OK) return status;
      this.#bytes.writeIn(element, done, part);
    }
    return VIRTIO_BLK_S_OK;
  }

  #write(element: VirtqueueElement, offset: number, bytes: number): number {
    return this.#change((backend) => {
      for (let done = 0; done < bytes; done += COPY_SIZE) {
        const part = this.#copy.subarray(0, Math.min(COPY_SIZE, bytes - done));
        this.#bytes.readOut(element, VIRTIO_BLK_HEADER_SIZE + done, part);
        backend.write(offset + done, part);
      }
    });
  }

  // Without the write cache each change is stable before it completes.
  // [qemu v7.2 block/block-backend.c blk_co_do_pwritev_part]
  #change(action: (backend: BlockBackend) => void): number {
    const { backend, isWriteback } = this.#options;
    if (backend.isReadOnly === true) return VIRTIO_BLK_S_IOERR;
    return attempt(() => {
      action(backend);
      if (!isWriteback()) backend.flush();
    });
  }

  /** The string ends with a zero if there is room for one. */
  #getId(element: VirtqueueElement): BlkResult {
    const size = Math.min(this.#serial.length, VIRTIO_BLK_ID_BYTES, element.inBytes - 1);
    this.#bytes.writeIn(element, 0, this.#serial.subarray(0, size));
    return now(VIRTIO_BLK_S_OK);
  }

  /** The feature is never offered. [qemu v7.2 hw/block/virtio-blk.c virtio_blk_handle_scsi_req] */
  #scsi(element: VirtqueueElement): BlkResult {
    const { outNum, inNum } = element;
    if (outNum < 2 || inNum < 3) return now(VIRTIO_BLK_S_IOERR);
    const at = outNum + inNum - 2;
    const gpa = element.gpa[at] as number;
    // QEMU writes 4 bytes, however short the segment; here no more than there is.
    const size = Math.min(SCSI_ERRORS.length, element.length[at] as number);
    if (gpa !== BOUNCED) this.#options.memory.write(gpa, SCSI_ERRORS.subarray(0, size));
    return now(VIRTIO_BLK_S_UNSUPP);
  }

  /** One range a request. [qemu v7.2 hw/block/virtio-blk.c virtio_blk_handle_discard_write_zeroes] */
  #discardOrWriteZeroes(element: VirtqueueElement, isBigEndian: boolean): BlkResult {
    const type = (this.#header.type & ~VIRTIO_BLK_T_BARRIER) >>> 0;
    const bytes = element.outBytes - VIRTIO_BLK_HEADER_SIZE;
    if ((type & VIRTIO_BLK_T_OUT) === 0 || bytes > VIRTIO_BLK_RANGE_SIZE) {
      return now(VIRTIO_BLK_S_UNSUPP);
    }
    if (bytes < VIRTIO_BLK_RANGE_SIZE) {
      return refused('virtio-blk discard/write_zeroes header too short');
    }
    const view = this.#headerView;
    this.#bytes.readOut(element, VIRTIO_BLK_HEADER_SIZE, this.#headerBytes);
    const { sectorHi, sectorLo, numSectors, flags } = decodeBlkRange(view, 0, isBigEndian);
    const isWriteZeroes = type === VIRTIO_BLK_T_WRITE_ZEROES;
    const { settings, backend } = this.#options;
    const most = isWriteZeroes ? settings.maxWriteZeroesSectors : settings.maxDiscardSectors;
    if (numSectors > most) return now(VIRTIO_BLK_S_IOERR);
    const length = numSectors * SECTOR_SIZE;
    const offset = this.#offset(sectorHi, sectorLo, length);
    if (offset === undefined) return now(VIRTIO_BLK_S_IOERR);
    const known = isWriteZeroes ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
    if ((flags & ~known) !== 0) return now(VIRTIO_BLK_S_UNSUPP);
    if (isWriteZeroes) return later(this.#writeZeroes(offset, length, flags !== 0));
    // A disk that ignores discards succeeds, even if it is read-only.
    if (backend.discard === undefined) return later(VIRTIO_BLK_S_OK);
    if (backend.isReadOnly === true) return later(VIRTIO_BLK_S_IOERR);
    return later(attempt(() => backend.discard?.(offset, length)));
  }

  #writeZeroes(offset: number, length: number, mayUnmap: boolean): number {
    return this.#change((backend) => {
      if (backend.writeZeroes !== undefined) {
        backend.writeZeroes(offset, length, mayUnmap);
        return;
      }
      this.#copy.fill(0);
      for (let done = 0; done < length; done += COPY_SIZE) {
        backend.write(offset + done, this.#copy.subarray(0, Math.min(COPY_SIZE, length - done)));
      }
    });
  }

  /** The byte offset of a range that is on the disk. [qemu v7.2 hw/block/virtio-blk.c virtio_blk_sect_range_ok] */
  #offset(sectorHi: number, sectorLo: number, bytes: number): number | undefined {
    if (bytes % SECTOR_SIZE !== 0 || bytes / SECTOR_SIZE > BDRV_REQUEST_MAX_SECTORS) {
      return undefined;
    }
    if (!isSafeHi(sectorHi)) return undefined;
    const offset = joinNumber(sectorHi, sectorLo) * SECTOR_SIZE;
    return offset + bytes > this.#options.backend.size ? undefined : offset;
  }
}

const STATUSES = [VIRTIO_BLK_S_OK, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP];
const NOW = STATUSES.map((status): BlkResult => ({ kind: 'status', status, isAsync: false }));
const LATER = STATUSES.map((status): BlkResult => ({ kind: 'status', status, isAsync: true }));

function now(status: number): BlkResult {
  return NOW[status] as BlkResult;
}

function later(status: number): BlkResult {
  return LATER[status] as BlkResult;
}

function refused(message: string): BlkResult {
  return { kind: 'refused', message };
}

// A backend that fails is an I/O error to the guest; nothing else that fails may look like one.
function attempt(action: () => void): number {
  try {
    action();
    return VIRTIO_BLK_S_OK;
  } catch {
    return VIRTIO_BLK_S_IOERR;
  }
}

// With its zero at the end.
function serialBytes(serial: string): Uint8Array {
  return Uint8Array.from([...serial, '\0'], (char) => char.charCodeAt(0));
}
