import { lo32 } from '@pinhole/base';
import type { VirtioDeviceCore } from '../device/device-core.js';
import { hasFeature, VIRTIO_F_BAD_FEATURE } from '../features.js';
import { availRingSize, descTableSize } from '../ring/split-layout.js';
import { VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER } from '../status.js';
import { readDeviceConfig, writeDeviceConfig } from './config-registers.js';
import {
  PciLegacy as Legacy,
  legacyConfigOffset,
  VIRTIO_PCI_QUEUE_ADDR_SHIFT,
  VIRTIO_PCI_VRING_ALIGN,
} from './pci-legacy.js';
import type { PciVectors } from './pci-vectors.js';
import { type QueueRegisterFile, VIRTIO_QUEUE_MAX } from './queue-registers.js';
import type { RegisterWidth } from './registers.js';

/** What the legacy registers need of the function that they are in. */
export interface LegacyOwner {
  readonly isMsixEnabled: boolean;
  /** Reads the ISR status, which clears it and takes the interrupt back. */
  readIsr(): number;
  /** A driver that old does not enable bus mastering. */
  enableBusMaster(): void;
  reset(): void;
}

const ONES = 0xffff_ffff;

/**
 * The legacy interface, the device's side: little-endian registers, then the device configuration
 * in the guest's byte order. A register is what is accessed at its own offset; all others read as
 * ones. [qemu v7.2 hw/virtio/virtio-pci.c virtio_ioport_read, virtio_ioport_write]
 *
 * Deviates: a driver that accepts bit 30 gets no features at all, where QEMU's network device has
 * some that it takes as given.
 */
export class PciLegacyRegisters {
  readonly #core: VirtioDeviceCore;
  readonly #queues: QueueRegisterFile;
  readonly #vectors: PciVectors;
  readonly #owner: LegacyOwner;

  constructor(
    core: VirtioDeviceCore,
    queues: QueueRegisterFile,
    vectors: PciVectors,
    owner: LegacyOwner,
  ) {
    this.#core = core;
    this.#queues = queues;
    this.#vectors = vectors;
    this.#owner = owner;
  }

  read(offset: number, width: RegisterWidth): number {
    const config = legacyConfigOffset(this.#owner.isMsixEnabled);
    if (offset < config) return this.#readRegister(offset);
    return readDeviceConfig(this.#core, offset - config, width, this.#core.isBigEndian);
  }

  write(offset: number, width: RegisterWidth, value: number): void {
    const config = legacyConfigOffset(this.#owner.isMsixEnabled);
    if (offset < config) this.#writeRegister(offset, value);
    else writeDeviceConfig(this.#core, offset - config, width, value, this.#core.isBigEndian);
  }

  #readRegister(offset: number): number {
    const core = this.#core;
    const index = this.#queues.selected;
    switch (offset) {
      case Legacy.HOST_FEATURES:
        return lo32(core.offeredFeatures);
      case Legacy.GUEST_FEATURES:
        return lo32(core.features);
      case Legacy.QUEUE_PFN:
        return lo32((core.queueSetup(index)?.desc ?? 0n) >> BigInt(VIRTIO_PCI_QUEUE_ADDR_SHIFT));
      case Legacy.QUEUE_NUM:
        return core.queueSize(index);
      case Legacy.QUEUE_SEL:
        return index;
      case Legacy.STATUS:
        return core.status;
      case Legacy.ISR:
        return this.#owner.readIsr();
      case Legacy.CONFIG_VECTOR:
        return this.#vectors.config;
      case Legacy.QUEUE_VECTOR:
        return this.#vectors.queue(index);
      default:
        return ONES;
    }
  }

  #writeRegister(offset: number, value: number): void {
    const core = this.#core;
    const index = this.#queues.selected;
    switch (offset) {
      case Legacy.GUEST_FEATURES: {
        const bits = BigInt(value >>> 0);
        core.setFeatures(hasFeature(bits, VIRTIO_F_BAD_FEATURE) ? 0n : bits);
        return;
      }
      case Legacy.QUEUE_PFN:
        // 0 is what a driver writes that gives a queue up: all of the device is reset.
        if (value === 0) this.#owner.reset();
        else this.#placeQueue(index, BigInt(value >>> 0) << BigInt(VIRTIO_PCI_QUEUE_ADDR_SHIFT));
        return;
      case Legacy.QUEUE_SEL:
        this.#queues.select(value);
        return;
      case Legacy.QUEUE_NOTIFY:
        if (value < VIRTIO_QUEUE_MAX) core.notifyQueue(value);
        return;
      case Legacy.STATUS:
        this.#writeStatus(value);
        return;
      case Legacy.CONFIG_VECTOR:
        this.#vectors.config = value;
        return;
      case Legacy.QUEUE_VECTOR:
        this.#vectors.setQueue(index, value);
        return;
    }
  }

  #writeStatus(value: number): void {
    this.#core.setStatus(value);
    if (this.#core.status === 0) this.#owner.reset();
    // Linux before 2.6.34 never enables it.
    if (value === (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)) {
      this.#owner.enableBusMaster();
    }
  }

  /** All parts follow from the first. [qemu v7.2 hw/virtio/virtio.c virtio_queue_update_rings] */
  #placeQueue(index: number, desc: bigint): void {
    const size = this.#core.queueSize(index);
    if (size === 0) return;
    const avail = desc + BigInt(descTableSize(size));
    const align = BigInt(VIRTIO_PCI_VRING_ALIGN);
    const used = (avail + BigInt(availRingSize(size, false)) + align - 1n) & ~(align - 1n);
    this.#core.setQueueRings(index, { desc, avail, used });
  }
}
