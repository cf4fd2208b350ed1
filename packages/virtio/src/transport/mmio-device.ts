import { hex, hi32, joinU64, lo32 } from '@pinhole/base';
import type { VirtioDeviceCore } from '../device/device-core.js';
import type { SavedDevice } from '../device/device-state.js';
import {
  featureBits,
  hasFeature,
  VIRTIO_F_NOTIFICATION_DATA,
  VIRTIO_F_VERSION_1,
} from '../features.js';
import { VIRTIO_CONFIG_S_FEATURES_OK } from '../status.js';
import { readDeviceConfig, truncate, writeDeviceConfig } from './config-registers.js';
import { MMIO_MAGIC, MMIO_VERSION, Mmio } from './mmio-registers.js';
import {
  QUEUE_DESC,
  QUEUE_DEVICE,
  QUEUE_DRIVER,
  QueueRegisterFile,
  type SavedQueueRegisters,
  VIRTIO_QUEUE_MAX,
} from './queue-registers.js';
import type { MmioRegion, RegisterWidth } from './registers.js';

/** See `createVirtioMmio`. */
export interface VirtioMmioOptions {
  readonly device: VirtioDeviceCore;
}

/** A virtio device as a run of memory-mapped registers. */
export interface VirtioMmioDevice extends MmioRegion {
  /** Registers who hears of the interrupt line's changes, in place of whoever did before. */
  onInterrupt(handler: (isAsserted: boolean) => void): void;
  /** A reset of the whole machine: nothing of the driver's is left. */
  reset(): void;
  /** Registers and device at rest, as plain data. */
  save(): SavedVirtioMmio;
  /**
   * Goes on where such a device was saved.
   * @throws VirtioError `E_DEVICE_STATE`, `E_QUEUE_STATE`
   */
  restore(state: SavedVirtioMmio): void;
}

/** What has been saved of the registers and their device. [qemu v7.2 hw/virtio/virtio-mmio.c virtio_mmio_save_config] */
export interface SavedVirtioMmio {
  readonly deviceFeaturesSel: number;
  readonly driverFeaturesSel: number;
  /** `0x100000000`. */
  readonly driverFeatures: string;
  readonly queues: SavedQueueRegisters;
  readonly isLineHigh: boolean;
  readonly device: SavedDevice;
}

const SIZE = 0x200;
/** "QEMU". */
const VENDOR_ID = 0x554d_4551;
const ONES = 0xffff_ffff;

/**
 * Puts a device behind memory-mapped I/O, version 2. Registers are accessed with 4 bytes; other
 * accesses read 0 and write nothing. [qemu v7.2 hw/virtio/virtio-mmio.c]
 *
 * Deviates: has QueueReset, which QEMU 7.2 offers and lacks; a queue that the driver took QueueReady
 * from is reset, where QEMU's goes on.
 */
export function createVirtioMmio(options: VirtioMmioOptions): VirtioMmioDevice {
  options.device.plug({ added: featureBits(VIRTIO_F_VERSION_1) });
  return new VirtioMmio(options.device);
}

class VirtioMmio implements VirtioMmioDevice {
  readonly size: number = SIZE;
  readonly #core: VirtioDeviceCore;
  readonly #queues: QueueRegisterFile;
  #deviceFeaturesSel = 0;
  #driverFeaturesSel = 0;
  #driverFeatures = 0n;
  #isLineHigh = false;
  #interrupt: ((isAsserted: boolean) => void) | undefined;

  constructor(core: VirtioDeviceCore) {
    this.#core = core;
    this.#queues = new QueueRegisterFile(core);
    core.onInterrupt(() => this.#updateLine());
  }

  read(offset: number, width: RegisterWidth): number {
    if (offset < 0 || offset + width > SIZE || offset % width !== 0) return 0;
    if (offset >= Mmio.CONFIG) return readDeviceConfig(this.#core, offset - Mmio.CONFIG, width);
    return width === 4 ? this.#readRegister(offset) : 0;
  }

  write(offset: number, width: RegisterWidth, value: number): void {
    if (offset < 0 || offset + width > SIZE || offset % width !== 0) return;
    if (offset >= Mmio.CONFIG) {
      writeDeviceConfig(this.#core, offset - Mmio.CONFIG, width, value);
    } else if (width === 4) {
      this.#writeRegister(offset, truncate(value, 4));
    }
  }

  onInterrupt(handler: (isAsserted: boolean) => void): void {
    this.#interrupt = handler;
  }

  reset(): void {
    this.#softReset();
    this.#queues.reset();
    this.#deviceFeaturesSel = 0;
    this.#driverFeaturesSel = 0;
    this.#driverFeatures = 0n;
  }

  save(): SavedVirtioMmio {
    return {
      deviceFeaturesSel: this.#deviceFeaturesSel,
      driverFeaturesSel: this.#driverFeaturesSel,
      driverFeatures: hex(this.#driverFeatures),
      queues: this.#queues.save(),
      isLineHigh: this.#isLineHigh,
      device: this.#core.save(),
    };
  }

  restore(state: SavedVirtioMmio): void {
    this.#deviceFeaturesSel = state.deviceFeaturesSel;
    this.#driverFeaturesSel = state.driverFeaturesSel;
    this.#driverFeatures = BigInt(state.driverFeatures);
    this.#queues.restore(state.queues);
    this.#isLineHigh = state.isLineHigh;
    this.#core.restore(state.device);
  }

  /** [qemu v7.2 hw/virtio/virtio-mmio.c virtio_mmio_read] */
  #readRegister(offset: number): number {
    const core = this.#core;
    const index = this.#queues.selected;
    switch (offset) {
      case Mmio.MAGIC_VALUE:
        return MMIO_MAGIC;
      case Mmio.VERSION:
        return MMIO_VERSION;
      case Mmio.DEVICE_ID:
        return core.deviceId;
      case Mmio.VENDOR_ID:
        return VENDOR_ID;
      case Mmio.DEVICE_FEATURES: {
        const features = core.modernFeatures;
        return this.#deviceFeaturesSel === 0 ? lo32(features) : hi32(features);
      }
      case Mmio.QUEUE_NUM_MAX:
        // Any size that the device can do, even for a queue that has fewer by default.
        return core.queueSize(index) === 0 ? 0 : core.largestQueueSize(index);
      case Mmio.QUEUE_READY:
        return this.#queues.current.isEnabled ? 1 : 0;
      case Mmio.INTERRUPT_STATUS:
        return core.isr;
      case Mmio.STATUS:
        return core.status;
      case Mmio.CONFIG_GENERATION:
        return core.generation;
      // No shared memory.
      case Mmio.SHM_LEN_LOW:
      case Mmio.SHM_LEN_HIGH:
        return ONES;
      default:
        return 0;
    }
  }

  /** [qemu v7.2 hw/virtio/virtio-mmio.c virtio_mmio_write] */
  #writeRegister(offset: number, value: number): void {
    switch (offset) {
      case Mmio.DEVICE_FEATURES_SEL:
        this.#deviceFeaturesSel = value === 0 ? 0 : 1;
        return;
      case Mmio.DRIVER_FEATURES_SEL:
        this.#driverFeaturesSel = value === 0 ? 0 : 1;
        return;
      case Mmio.DRIVER_FEATURES:
        this.#setDriverFeatures(value);
        return;
      case Mmio.QUEUE_SEL:
        this.#queues.select(value);
        return;
      case Mmio.QUEUE_NUM:
        this.#queues.setSize(value);
        return;
      case Mmio.QUEUE_READY:
        if (value !== 0) this.#queues.enable();
        else if (this.#queues.current.isEnabled) this.#resetQueue();
        return;
      case Mmio.QUEUE_NOTIFY:
        this.#notify(value);
        return;
      case Mmio.INTERRUPT_ACK:
        this.#core.clearIsr(value);
        this.#updateLine();
        return;
      case Mmio.STATUS:
        this.#writeStatus(value);
        return;
      case Mmio.QUEUE_RESET:
        if (value === 1) this.#resetQueue();
        return;
      default:
        this.#writeAddress(offset, value);
    }
  }

  // They count when FEATURES_OK is written.
  #setDriverFeatures(value: number): void {
    const old = this.#driverFeatures;
    this.#driverFeatures =
      this.#driverFeaturesSel === 0 ? joinU64(hi32(old), value) : joinU64(value, lo32(old));
  }

  #writeStatus(value: number): void {
    if ((value & VIRTIO_CONFIG_S_FEATURES_OK) !== 0) this.#core.setFeatures(this.#driverFeatures);
    this.#core.setStatus(value);
    if (this.#core.status === 0) this.#softReset();
  }

  /** With NOTIFICATION_DATA the queue's number is the lower half. [VIRTIO v1.2 §4.2.3.3 "Available Buffer Notifications"] */
  #notify(value: number): void {
    if (hasFeature(this.#core.features, VIRTIO_F_NOTIFICATION_DATA)) {
      this.#core.notifyQueue(value & 0xffff, value);
    } else if (value < VIRTIO_QUEUE_MAX) {
      this.#core.notifyQueue(value);
    }
  }

  #resetQueue(): void {
    this.#core.resetQueue(this.#queues.selected);
    this.#queues.current.isEnabled = false;
  }

  #writeAddress(offset: number, value: number): void {
    const part = ADDRESSES[offset & ~0x4];
    if (part === undefined || offset % 4 !== 0) return;
    this.#queues.current.words[part + (offset % 8) / 4] = value;
  }

  /** Features and addresses stay. [qemu v7.2 hw/virtio/virtio-mmio.c virtio_mmio_soft_reset] */
  #softReset(): void {
    this.#core.reset();
    this.#queues.disableAll();
    this.#updateLine();
  }

  #updateLine(): void {
    const isHigh = this.#core.isr !== 0;
    if (isHigh === this.#isLineHigh) return;
    this.#isLineHigh = isHigh;
    this.#interrupt?.(isHigh);
  }
}

const ADDRESSES: Readonly<Record<number, number>> = {
  [Mmio.QUEUE_DESC]: QUEUE_DESC,
  [Mmio.QUEUE_DRIVER]: QUEUE_DRIVER,
  [Mmio.QUEUE_DEVICE]: QUEUE_DEVICE,
};
