import type { DmaSpace } from '@pinhole/memory';
import {
  blkConfigParts,
  type DeviceQueue,
  hasFeature,
  VIRTIO_BLK_CONFIG_WRITEBACK,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_ID_BLOCK,
  VIRTQUEUE_MAX_SIZE,
  type VirtioDeviceCore,
  type VirtqueueElement,
} from '@pinhole/virtio';
import { QemuError } from '../../errors.js';
import type { BufferMapper } from '../../qemu-mapper.js';
import type { VhostDevice } from '../../vhost/vhost-device.js';
import { ALL_FEATURES, plugVirtioDevice, type VhostCapableSettings } from '../../virtio-device.js';
import {
  BDRV_REQUEST_MAX_SECTORS,
  type BlkSettings,
  blkConfig,
  blkFeatures,
} from './blk-config.js';
import { BlkRequestHandler } from './blk-request.js';
import { type BlockBackend, checkDiskSize } from './block-backend.js';

/** Default of the `queue-size` property. [qemu v7.2 hw/block/virtio-blk.c virtio_blk_properties] */
const QUEUE_SIZE = 256;
/** Size of QEMU's request structure, as the log shows it. */
const REQUEST_SIZE = 240;

/** Options of {@link VirtioBlk}; unless they say otherwise, QEMU's properties and their defaults. */
export interface VirtioBlkOptions extends VhostCapableSettings {
  readonly backend: BlockBackend;
  /** `queue-size`: a power of two from 4 to 1024; 256 by default. */
  readonly queueSize?: number;
  /** `num-queues`: 1 by default (on PCI, QEMU's default is one a virtual CPU). */
  readonly numQueues?: number;
  /** `serial`: the guest gets the first 20 characters. None by default. */
  readonly serial?: string;
  /** `max-discard-sectors`, `max-write-zeroes-sectors`: 4194303 by default, which is the most. */
  readonly maxDiscardSectors?: number;
  readonly maxWriteZeroesSectors?: number;
}

interface Done {
  readonly element: VirtqueueElement;
  readonly status: number;
}

/** virtio-blk over a backend, as QEMU does it. [qemu v7.2 hw/block/virtio-blk.c] */
export class VirtioBlk {
  /** Where a driver meets the device. */
  readonly core: VirtioDeviceCore;
  /** The address space that the device works in, and why. */
  readonly space: DmaSpace;
  readonly spaceBecause: string;
  readonly mapper: BufferMapper;
  /** With `vhost`: its two halves. */
  readonly vhost: VhostDevice | undefined;
  /** Requests completed, by status byte. */
  readonly completed: number[] = [0, 0, 0];
  readonly #config: Uint8Array;
  readonly #requests: BlkRequestHandler;
  // By queue: how often it was reset. What was popped before must not be completed after.
  readonly #resets: number[];

  /** @throws QemuError `E_BACKEND`, `E_DEVICE_OPTIONS` */
  constructor(options: VirtioBlkOptions) {
    const { backend, memory, serial = '' } = options;
    checkDiskSize(backend.size, 'virtio-blk');
    const settings = checkSettings(options);
    this.#config = blkConfig(backend, settings);
    this.#resets = Array.from({ length: settings.numQueues }, () => 0);
    this.#requests = new BlkRequestHandler({
      backend,
      memory,
      settings,
      serial,
      isWriteback: () => this.isWriteback,
    });
    const queue = {
      maxSize: settings.queueSize,
      handleOutput: (vq: DeviceQueue, index: number): void => this.#handleOutput(vq, index),
    };
    const plugged = plugVirtioDevice(options, {
      deviceId: VIRTIO_ID_BLOCK,
      defaultId: 'vd0',
      features: blkFeatures(backend, settings),
      config: this.#config,
      configFields: blkConfigParts(ALL_FEATURES),
      queues: Array.from({ length: settings.numQueues }, () => queue),
      elementSize: REQUEST_SIZE,
      hooks: {
        setStatus: (status) => this.#setStatus(status),
        setConfig: (config) => this.#setWriteback(config[VIRTIO_BLK_CONFIG_WRITEBACK] !== 0),
        resetQueue: (index) => {
          this.#resets[index] = (this.#resets[index] ?? 0) + 1;
        },
        reset: () => this.#reset(),
      },
    });
    this.core = plugged.core;
    this.space = plugged.space;
    this.spaceBecause = plugged.spaceBecause;
    this.mapper = plugged.mapper;
    this.vhost = plugged.vhost;
  }

  /** Whether writes may stay in a cache until a flush. */
  get isWriteback(): boolean {
    return this.#config[VIRTIO_BLK_CONFIG_WRITEBACK] !== 0;
  }

  /** [qemu v7.2 hw/block/virtio-blk.c virtio_blk_handle_vq] */
  #handleOutput(queue: DeviceQueue, index: number): void {
    const { tracer } = this.core;
    if (tracer.on) tracer.begin('device', 'blk_io', { vdev: this.core.id, n: index });
    // What the block layer completes; it comes after the queue was emptied.
    const done: Done[] = [];
    const resets = this.#resets[index];
    const suppress = queue.isNotificationOn;
    // At most a ring full of requests a round, and a driver cannot add while we run.
    let isWork: boolean;
    do {
      isWork = false;
      if (suppress) queue.setNotification(false);
      for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
        isWork = true;
        if (!this.#handleRequest(queue, index, element, done)) break;
      }
      if (suppress) queue.setNotification(true);
    } while (!queue.isEmpty() && isWork);
    for (const { element, status } of done) {
      // Whoever is interrupted may reset the queue.
      if (this.#resets[index] !== resets) break;
      this.#complete(queue, index, element, status);
    }
    if (tracer.on) tracer.end('device', 'blk_io');
  }

  // False: the request cannot even be answered, and the device is broken.
  #handleRequest(
    queue: DeviceQueue,
    index: number,
    element: VirtqueueElement,
    done: Done[],
  ): boolean {
    const result = this.#requests.handle(this.core, element);
    if (result.kind === 'refused') {
      this.core.fail(result.message);
      queue.detach(element);
      return false;
    }
    const { status, isAsync } = result;
    if (isAsync) done.push({ element, status });
    else this.#complete(queue, index, element, status);
    return true;
  }

  /** [qemu v7.2 hw/block/virtio-blk.c virtio_blk_req_complete] */
  #complete(queue: DeviceQueue, index: number, element: VirtqueueElement, status: number): void {
    const { tracer } = this.core;
    this.completed[status] = (this.completed[status] ?? 0) + 1;
    if (tracer.on) {
      const args = { vdev: this.core.id, req: element.id, status };
      tracer.event('device', 'virtio_blk_req_complete', args);
    }
    this.#requests.writeStatus(element, status);
    // All that could be written, whatever was: also for a request that failed.
    queue.push(element, element.inBytes);
    this.core.notifyDriver(index);
  }

  /** A driver that cannot choose the cache mode has the one that its features imply. [qemu v7.2 hw/block/virtio-blk.c virtio_blk_set_status] */
  #setStatus(status: number): void {
    if ((status & VIRTIO_CONFIG_S_DRIVER_OK) === 0) return;
    const { features } = this.core;
    if (hasFeature(features, VIRTIO_BLK_F_CONFIG_WCE)) return;
    this.#setWriteback(hasFeature(features, VIRTIO_BLK_F_FLUSH));
  }

  #setWriteback(isOn: boolean): void {
    this.#config[VIRTIO_BLK_CONFIG_WRITEBACK] = isOn ? 1 : 0;
  }

  /** [qemu v7.2 hw/block/virtio-blk.c virtio_blk_reset] */
  #reset(): void {
    this.#resets.forEach((count, index) => {
      this.#resets[index] = count + 1;
    });
    this.#setWriteback(true);
  }
}

/** [qemu v7.2 hw/block/virtio-blk.c virtio_blk_device_realize] */
function checkSettings(options: VirtioBlkOptions): BlkSettings {
  const {
    queueSize = QUEUE_SIZE,
    numQueues = 1,
    maxDiscardSectors = BDRV_REQUEST_MAX_SECTORS,
    maxWriteZeroesSectors = BDRV_REQUEST_MAX_SECTORS,
  } = options;
  const isPower = Number.isInteger(Math.log2(queueSize));
  check(
    'queue-size',
    queueSize,
    isPower && queueSize > 2 && queueSize <= VIRTQUEUE_MAX_SIZE,
    `a power of 2 from 4 to ${VIRTQUEUE_MAX_SIZE}`,
  );
  check('num-queues', numQueues, isWithin(numQueues, VIRTQUEUE_MAX_SIZE), 'from 1 to 1024');
  const most = BDRV_REQUEST_MAX_SECTORS;
  const range = `from 1 to ${most}`;
  check('max-discard-sectors', maxDiscardSectors, isWithin(maxDiscardSectors, most), range);
  const isMost = isWithin(maxWriteZeroesSectors, most);
  check('max-write-zeroes-sectors', maxWriteZeroesSectors, isMost, range);
  return { queueSize, numQueues, maxDiscardSectors, maxWriteZeroesSectors };
}

function isWithin(value: number, most: number): boolean {
  return Number.isInteger(value) && value >= 1 && value <= most;
}

function check(property: string, value: number, isValid: boolean, expected: string): void {
  if (isValid) return;
  throw new QemuError(
    'E_DEVICE_OPTIONS',
    `virtio-blk: expected ${property} to be ${expected}, found ${value}`,
    { details: { property, value } },
  );
}
