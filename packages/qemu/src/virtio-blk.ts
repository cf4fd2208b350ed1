import { isSafeHi, joinNumber, type Tracer } from '@pinhole/base';
import type { DmaSpace, GuestMemory } from '@pinhole/memory';
import {
  type BlkHeader,
  BOUNCED,
  type DeviceQueue,
  decodeBlkHeader,
  encodeBlkConfig,
  featureBits,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_GEOMETRY,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_TOPOLOGY,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_HEADER_SIZE,
  VIRTIO_BLK_ID_BYTES,
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_ID_BLOCK,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
  VirtioDeviceCore,
  type VirtqueueElement,
} from '@pinhole/virtio';
import { type BlockBackend, checkDiskSize, SECTOR_SIZE } from './block-backend.js';
import { type GlobalBounce, QemuMapper } from './qemu-mapper.js';
import { chooseDmaSpace } from './virtio-bus.js';

/** Default of the `queue-size` property. [qemu v7.2 hw/block/virtio-blk.c virtio_blk_properties] */
const QUEUE_SIZE = 256;
/** Legacy: a barrier may be asked for; ignored. [qemu v7.2 include/standard-headers/linux/virtio_blk.h] */
const VIRTIO_BLK_T_BARRIER = 0x8000_0000;
/** Size of QEMU's request structure, as the log shows it. */
const REQUEST_SIZE = 240;
/** What is copied at once between the backend and guest memory. */
const COPY_SIZE = 2 ** 20;
/** Where a segment of the request's data is: its index in the element and what of it is data. */
interface DataRange {
  readonly first: number;
  readonly end: number;
  readonly skip: number;
  readonly bytes: number;
}

/** Options of {@link VirtioBlk}. */
export interface VirtioBlkOptions {
  /** Names the device in traces. */
  readonly id?: string;
  readonly backend: BlockBackend;
  /** Guest memory as QEMU sees it. */
  readonly memory: GuestMemory;
  readonly systemMemory: DmaSpace;
  /** The bus-master space of the PCI function. */
  readonly busSpace?: DmaSpace;
  /** `iommu_platform=on`. */
  readonly iommuPlatform: boolean;
  /** `indirect_desc`, `event_idx`: on by default. */
  readonly indirect?: boolean;
  readonly eventIdx?: boolean;
  /** QEMU's bounce buffer, one a process. */
  readonly bounce?: GlobalBounce;
  /** Called before each kick is served, with the space that the device works in. */
  readonly onKick?: (space: DmaSpace) => void;
  readonly tracer?: Tracer;
}

/** virtio-blk over a backend, as QEMU does it. [qemu v7.2 hw/block/virtio-blk.c] */
export class VirtioBlk {
  /** Where a driver meets the device. */
  readonly core: VirtioDeviceCore;
  /** The address space that the device works in, and why. */
  readonly space: DmaSpace;
  readonly spaceBecause: string;
  readonly mapper: QemuMapper;
  /** Requests completed, by status byte. */
  readonly completed: number[] = [0, 0, 0];
  readonly #backend: BlockBackend;
  readonly #memory: GuestMemory;
  readonly #onKick: ((space: DmaSpace) => void) | undefined;
  readonly #header: BlkHeader = { type: 0, ioprio: 0, sectorHi: 0, sectorLo: 0 };
  readonly #headerBytes = new Uint8Array(VIRTIO_BLK_HEADER_SIZE);
  readonly #copy = new Uint8Array(COPY_SIZE);
  // Requests done and not yet told: completion comes after the queue was emptied.
  readonly #done: { element: VirtqueueElement; status: number }[] = [];

  constructor(options: VirtioBlkOptions) {
    const { backend, memory, tracer, busSpace } = options;
    checkDiskSize(backend.size, 'virtio-blk');
    this.#backend = backend;
    this.#memory = memory;
    this.#onKick = options.onKick;
    const { space, because } = chooseDmaSpace({
      iommuPlatform: options.iommuPlatform,
      systemMemory: options.systemMemory,
      ...(busSpace === undefined ? {} : { transportSpace: busSpace }),
    });
    this.space = space;
    this.spaceBecause = because;
    this.mapper = new QemuMapper(space, options.bounce ?? { isInUse: false });
    this.core = new VirtioDeviceCore({
      deviceId: VIRTIO_ID_BLOCK,
      id: options.id ?? 'vd0',
      features: offeredFeatures(options),
      config: encodeBlkConfig({
        capacity: backend.size / SECTOR_SIZE,
        segMax: QUEUE_SIZE - 2,
        blkSize: SECTOR_SIZE,
        writeback: 1,
        numQueues: 1,
      }),
      memory,
      space,
      mapper: this.mapper,
      queues: [{ maxSize: QUEUE_SIZE, handleOutput: (queue) => this.#handleOutput(queue) }],
      elementSize: REQUEST_SIZE,
      hooks: { reset: () => this.#done.splice(0) },
      ...(tracer === undefined ? {} : { tracer }),
    });
  }

  /** [qemu v7.2 hw/block/virtio-blk.c virtio_blk_handle_vq] */
  #handleOutput(queue: DeviceQueue): void {
    this.#onKick?.(this.space);
    const { tracer } = this.core;
    if (tracer.on) tracer.begin('device', 'blk_io', { vdev: this.core.id, n: 0 });
    const suppress = queue.isNotificationOn;
    // At most a ring full of requests a round, and a driver cannot add while we run.
    do {
      if (suppress) queue.setNotification(false);
      for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
        if (!this.#handleRequest(element)) {
          queue.detach(element);
          break;
        }
      }
      if (suppress) queue.setNotification(true);
    } while (!queue.isEmpty());
    for (const { element, status } of this.#done.splice(0)) {
      this.#complete(queue, element, status);
    }
    if (tracer.on) tracer.end('device', 'blk_io');
  }

  // False: the request cannot even be answered, and the device is broken.
  #handleRequest(element: VirtqueueElement): boolean {
    const { outNum, inNum } = element;
    if (outNum < 1 || inNum < 1) return this.#refuse('virtio-blk missing headers');
    if (element.outBytes < VIRTIO_BLK_HEADER_SIZE) {
      return this.#refuse('virtio-blk request outhdr too short');
    }
    // The status byte is the last writable byte; a segment has at least one.
    this.#gather(element, { first: 0, end: outNum, skip: 0, bytes: VIRTIO_BLK_HEADER_SIZE });
    this.#headerBytes.set(this.#copy.subarray(0, VIRTIO_BLK_HEADER_SIZE));
    decodeBlkHeader(new DataView(this.#headerBytes.buffer), this.#header);
    this.#done.push({ element, status: this.#execute(element) });
    return true;
  }

  #execute(element: VirtqueueElement): number {
    const type = (this.#header.type & ~VIRTIO_BLK_T_BARRIER) >>> 0;
    if (type === VIRTIO_BLK_T_IN || type === VIRTIO_BLK_T_OUT) {
      return this.#readWrite(element, type === VIRTIO_BLK_T_OUT);
    }
    if (type === VIRTIO_BLK_T_FLUSH) return this.#attempt(() => this.#backend.flush());
    if (type === VIRTIO_BLK_T_GET_ID) {
      // No serial was given: an empty string.
      const bytes = Math.min(1, VIRTIO_BLK_ID_BYTES, element.inBytes - 1);
      this.#copy.fill(0, 0, bytes);
      this.#scatter(element, this.#dataIn(element), 0, bytes);
      return VIRTIO_BLK_S_OK;
    }
    return VIRTIO_BLK_S_UNSUPP;
  }

  #readWrite(element: VirtqueueElement, isWrite: boolean): number {
    const range = isWrite ? this.#dataOut(element) : this.#dataIn(element);
    const { sectorHi, sectorLo } = this.#header;
    const { tracer } = this.core;
    if (tracer.on) {
      const sector = (BigInt(sectorHi) << 32n) | BigInt(sectorLo);
      const name = isWrite ? 'virtio_blk_handle_write' : 'virtio_blk_handle_read';
      const nsectors = Math.floor(range.bytes / SECTOR_SIZE);
      tracer.event('device', name, { vdev: this.core.id, req: element.id, sector, nsectors });
    }
    // [qemu v7.2 hw/block/virtio-blk.c virtio_blk_sect_range_ok]
    if (!isSafeHi(sectorHi) || range.bytes % SECTOR_SIZE !== 0) return VIRTIO_BLK_S_IOERR;
    const offset = joinNumber(sectorHi, sectorLo) * SECTOR_SIZE;
    if (offset + range.bytes > this.#backend.size) return VIRTIO_BLK_S_IOERR;
    return this.#transfer(element, range, offset, isWrite);
  }

  #transfer(element: VirtqueueElement, range: DataRange, offset: number, isWrite: boolean): number {
    for (let done = 0; done < range.bytes; done += COPY_SIZE) {
      const bytes = Math.min(COPY_SIZE, range.bytes - done);
      const part = this.#copy.subarray(0, bytes);
      if (isWrite) this.#gather(element, { ...range, skip: range.skip + done, bytes });
      const status = this.#attempt(() => {
        if (isWrite) this.#backend.write(offset + done, part);
        else this.#backend.read(offset + done, part);
      });
      if (status !== VIRTIO_BLK_S_OK) return status;
      if (!isWrite) this.#scatter(element, range, done, bytes);
    }
    return VIRTIO_BLK_S_OK;
  }

  // A backend that fails is an I/O error to the guest; nothing else that fails may look like one.
  #attempt(action: () => void): number {
    try {
      action();
      return VIRTIO_BLK_S_OK;
    } catch {
      return VIRTIO_BLK_S_IOERR;
    }
  }

  /** [qemu v7.2 hw/block/virtio-blk.c virtio_blk_req_complete] */
  #complete(queue: DeviceQueue, element: VirtqueueElement, status: number): void {
    const { tracer } = this.core;
    this.completed[status] = (this.completed[status] ?? 0) + 1;
    if (tracer.on) {
      const args = { vdev: this.core.id, req: element.id, status };
      tracer.event('device', 'virtio_blk_req_complete', args);
    }
    const last = element.outNum + element.inNum - 1;
    const gpa = element.gpa[last] as number;
    const length = element.length[last] as number;
    if (gpa !== BOUNCED) this.#memory.writeU8(gpa + length - 1, status);
    queue.push(element, element.inBytes);
    this.core.notifyDriver(0);
  }

  #dataOut(element: VirtqueueElement): DataRange {
    const bytes = element.outBytes - VIRTIO_BLK_HEADER_SIZE;
    return { first: 0, end: element.outNum, skip: VIRTIO_BLK_HEADER_SIZE, bytes };
  }

  #dataIn(element: VirtqueueElement): DataRange {
    const end = element.outNum + element.inNum;
    return { first: element.outNum, end, skip: 0, bytes: element.inBytes - 1 };
  }

  // Copies out of the element into the front of #copy. What was bounced reads as zeros.
  #gather(element: VirtqueueElement, range: DataRange): void {
    this.#visit(element, range, (gpa, at, bytes) => {
      const part = this.#copy.subarray(at, at + bytes);
      if (gpa === BOUNCED) part.fill(0);
      else this.#memory.read(gpa, part);
    });
  }

  // Copies the front of #copy to the element, from `done` on. What is bounced is lost.
  #scatter(element: VirtqueueElement, range: DataRange, done: number, bytes: number): void {
    this.#visit(element, { ...range, skip: range.skip + done, bytes }, (gpa, at, length) => {
      if (gpa !== BOUNCED) this.#memory.write(gpa, this.#copy.subarray(at, at + length));
    });
  }

  #visit(
    element: VirtqueueElement,
    { first, end, skip, bytes }: DataRange,
    visit: (gpa: number, at: number, bytes: number) => void,
  ): void {
    let toSkip = skip;
    let done = 0;
    for (let i = first; i < end && done < bytes; i += 1) {
      const length = element.length[i] as number;
      if (toSkip >= length) {
        toSkip -= length;
        continue;
      }
      const part = Math.min(length - toSkip, bytes - done);
      const gpa = element.gpa[i] as number;
      visit(gpa === BOUNCED ? BOUNCED : gpa + toSkip, done, part);
      toSkip = 0;
      done += part;
    }
  }

  #refuse(message: string): false {
    this.core.fail(message);
    return false;
  }
}

/** What QEMU 7.2 offers on a modern-only PCI function. [qemu v7.2 hw/block/virtio-blk.c virtio_blk_get_features] */
function offeredFeatures(options: VirtioBlkOptions): bigint {
  const bits = [
    VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_GEOMETRY,
    VIRTIO_BLK_F_BLK_SIZE,
    VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_TOPOLOGY,
    VIRTIO_BLK_F_CONFIG_WCE,
    VIRTIO_BLK_F_DISCARD,
    VIRTIO_BLK_F_WRITE_ZEROES,
    VIRTIO_F_VERSION_1,
    VIRTIO_F_RING_RESET,
  ];
  if (options.indirect ?? true) bits.push(VIRTIO_RING_F_INDIRECT_DESC);
  if (options.eventIdx ?? true) bits.push(VIRTIO_RING_F_EVENT_IDX);
  if (options.iommuPlatform) bits.push(VIRTIO_F_ACCESS_PLATFORM);
  return featureBits(...bits);
}
