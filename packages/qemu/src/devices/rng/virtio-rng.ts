import type { DmaSpace } from '@pinhole/memory';
import {
  type DeviceQueue,
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_ID_RNG,
  type VirtioDeviceCore,
} from '@pinhole/virtio';
import { ElementBytes } from '../../element-bytes.js';
import { QemuError } from '../../errors.js';
import type { BufferMapper } from '../../qemu-mapper.js';
import { plugVirtioDevice, type VirtioDeviceSettings } from '../../virtio-device.js';
import type { RngBackend } from './rng-backend.js';

/** [qemu v7.2 hw/virtio/virtio-rng.c virtio_rng_device_realize] */
const QUEUE_SIZE = 8;
/** What is got from the backend at once. */
const COPY_SIZE = 4096;
const U32_MAX = 0xffff_ffff;

/** Options of {@link VirtioRng}. */
export interface VirtioRngOptions extends VirtioDeviceSettings {
  readonly backend: RngBackend;
  /** `max-bytes`: how many bytes the guest gets in one period. Default: as many as it wants. */
  readonly maxBytes?: number;
}

/**
 * virtio-rng, as QEMU does it. [qemu v7.2 hw/virtio/virtio-rng.c]
 *
 * Deviates: nothing here runs a clock. Who has one calls `startPeriod` every `period`; QEMU starts
 * one at the first request after the last has ended. The backend answers at once.
 */
export class VirtioRng {
  /** Where a driver meets the device. */
  readonly core: VirtioDeviceCore;
  /** The address space that the device works in, and why. */
  readonly space: DmaSpace;
  readonly spaceBecause: string;
  readonly mapper: BufferMapper;
  readonly #backend: RngBackend;
  readonly #bytes: ElementBytes;
  readonly #maxBytes: number;
  readonly #copy = new Uint8Array(COPY_SIZE);
  #quota: number;
  #isReady = false;

  /** @throws QemuError `E_DEVICE_OPTIONS` */
  constructor(options: VirtioRngOptions) {
    const { maxBytes = Number.MAX_SAFE_INTEGER } = options;
    if (!Number.isSafeInteger(maxBytes) || maxBytes < 0) {
      throw new QemuError(
        'E_DEVICE_OPTIONS',
        `virtio-rng: expected max-bytes to be an integer from 0, found ${maxBytes}`,
        { details: { maxBytes } },
      );
    }
    this.#backend = options.backend;
    this.#bytes = new ElementBytes(options.memory);
    this.#maxBytes = maxBytes;
    this.#quota = maxBytes;
    const plugged = plugVirtioDevice(options, {
      deviceId: VIRTIO_ID_RNG,
      defaultId: 'rng0',
      features: [],
      queues: [{ maxSize: QUEUE_SIZE, handleOutput: () => this.#process() }],
      usesEventFds: false,
      hooks: { setStatus: (status) => this.#setStatus(status) },
    });
    this.core = plugged.core;
    this.space = plugged.space;
    this.spaceBecause = plugged.spaceBecause;
    this.mapper = plugged.mapper;
  }

  /** Bytes that the guest may still get in this period. */
  get quota(): number {
    return this.#quota;
  }

  /** A new period: the guest may have `max-bytes` again. [qemu v7.2 hw/virtio/virtio-rng.c check_rate_limit] */
  startPeriod(): void {
    this.#quota = this.#maxBytes;
    this.#process();
  }

  /** [qemu v7.2 hw/virtio/virtio-rng.c virtio_rng_set_status] */
  #setStatus(status: number): void {
    this.#isReady = (status & VIRTIO_CONFIG_S_DRIVER_OK) !== 0;
    this.#process();
  }

  /** [qemu v7.2 hw/virtio/virtio-rng.c virtio_rng_process] */
  #process(): void {
    const queue = this.core.queues[0];
    if (queue === undefined || !this.#isReady || !queue.isConfigured) return;
    while (!this.core.isBroken && !queue.isEmpty()) {
      const wanted = Math.min(this.#quota, U32_MAX);
      const size = Math.min(queue.availBytes(wanted, 0).inBytes, wanted);
      if (size === 0) return;
      this.#quota -= size;
      this.#give(queue, size);
    }
  }

  /**
   * Fills the waiting buffers, the last one perhaps not to its end. A buffer that the device cannot
   * write goes back empty. [qemu v7.2 hw/virtio/virtio-rng.c chr_read]
   */
  #give(queue: DeviceQueue, size: number): void {
    for (let left = size; left > 0; ) {
      const element = queue.pop();
      if (element === undefined) break;
      const length = Math.min(element.inBytes, left);
      for (let done = 0; done < length; done += COPY_SIZE) {
        const part = this.#copy.subarray(0, Math.min(COPY_SIZE, length - done));
        this.#backend.fill(part);
        this.#bytes.writeIn(element, done, part);
      }
      left -= length;
      queue.push(element, length);
    }
    this.core.notifyDriver(0);
  }
}
