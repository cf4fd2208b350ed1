import { hex, hi32, joinU64, lo32 } from '@pinhole/base';
import type { VirtioDeviceCore } from '../device/device-core.js';
import { PciCommonConfig as Common, VIRTIO_MSI_NO_VECTOR } from './pci-common-config.js';
import type { PciVectors } from './pci-vectors.js';
import type { QueueRegisterFile } from './queue-registers.js';

/** What has been saved of the registers that are no queue's. */
export interface SavedCommonRegisters {
  readonly deviceFeatureSelect: number;
  readonly driverFeatureSelect: number;
  /** `0x100000000`. */
  readonly driverFeatures: string;
}

/**
 * The common configuration structure, the device's side. A register is what is accessed at its own
 * offset, with any width; all other offsets read 0 and cannot be written.
 * [qemu v7.2 hw/virtio/virtio-pci.c virtio_pci_common_read, virtio_pci_common_write]
 */
export class PciCommonRegisters {
  readonly #core: VirtioDeviceCore;
  readonly #queues: QueueRegisterFile;
  readonly #vectors: PciVectors;
  readonly #reset: () => void;
  #deviceFeatureSelect = 0;
  #driverFeatureSelect = 0;
  // A reset leaves these, as QEMU's.
  #driverFeatures = 0n;

  constructor(
    core: VirtioDeviceCore,
    queues: QueueRegisterFile,
    vectors: PciVectors,
    reset: () => void,
  ) {
    this.#core = core;
    this.#queues = queues;
    this.#vectors = vectors;
    this.#reset = reset;
  }

  /** Reads a register; the caller takes as many bytes as it wants. */
  read(offset: number): number {
    const core = this.#core;
    const index = this.#queues.selected;
    switch (offset) {
      case Common.DEVICE_FEATURE_SELECT:
        return this.#deviceFeatureSelect;
      case Common.DEVICE_FEATURE:
        return half(core.modernFeatures, this.#deviceFeatureSelect);
      case Common.DRIVER_FEATURE_SELECT:
        return this.#driverFeatureSelect;
      case Common.DRIVER_FEATURE:
        return half(this.#driverFeatures, this.#driverFeatureSelect);
      case Common.CONFIG_MSIX_VECTOR:
        return this.#vectors.config;
      case Common.NUM_QUEUES:
        return core.queues.length;
      case Common.DEVICE_STATUS:
        return core.status;
      case Common.CONFIG_GENERATION:
        return core.generation;
      case Common.QUEUE_SELECT:
        return index;
      case Common.QUEUE_SIZE:
        return core.queueSize(index);
      case Common.QUEUE_MSIX_VECTOR:
        return this.#vectors.queue(index);
      case Common.QUEUE_ENABLE:
        return this.#queues.current.isEnabled ? 1 : 0;
      case Common.QUEUE_NOTIFY_OFF:
        return index;
      default:
        return this.#readAddress(offset);
    }
  }

  /** Writes a register. */
  write(offset: number, value: number): void {
    const core = this.#core;
    const index = this.#queues.selected;
    switch (offset) {
      case Common.DEVICE_FEATURE_SELECT:
        this.#deviceFeatureSelect = value;
        return;
      case Common.DRIVER_FEATURE_SELECT:
        this.#driverFeatureSelect = value;
        return;
      case Common.DRIVER_FEATURE:
        this.#acceptFeatures(value);
        return;
      case Common.CONFIG_MSIX_VECTOR:
        this.#vectors.config = value;
        return;
      case Common.DEVICE_STATUS:
        core.setStatus(value);
        if (core.status === 0) this.#reset();
        return;
      case Common.QUEUE_SELECT:
        this.#queues.select(value);
        return;
      case Common.QUEUE_SIZE:
        this.#queues.setSize(value);
        return;
      case Common.QUEUE_MSIX_VECTOR:
        this.#vectors.setQueue(index, value);
        return;
      case Common.QUEUE_ENABLE:
        if (value === 1) this.#queues.enable();
        else core.fail(`wrong value for queue_enable ${value.toString(16)}`);
        return;
      case Common.QUEUE_RESET:
        if (value === 1) this.#resetQueue(index);
        return;
      default:
        this.#writeAddress(offset, value);
    }
  }

  save(): SavedCommonRegisters {
    return {
      deviceFeatureSelect: this.#deviceFeatureSelect,
      driverFeatureSelect: this.#driverFeatureSelect,
      driverFeatures: hex(this.#driverFeatures),
    };
  }

  restore(state: SavedCommonRegisters): void {
    this.#deviceFeatureSelect = state.deviceFeatureSelect;
    this.#driverFeatureSelect = state.driverFeatureSelect;
    this.#driverFeatures = BigInt(state.driverFeatures);
  }

  #acceptFeatures(value: number): void {
    const old = this.#driverFeatures;
    if (this.#driverFeatureSelect === 0) this.#driverFeatures = joinU64(hi32(old), value);
    else if (this.#driverFeatureSelect === 1) this.#driverFeatures = joinU64(value, lo32(old));
    else return;
    this.#core.setFeatures(this.#driverFeatures);
  }

  // The reset is over when this returns: the driver never reads 1.
  #resetQueue(index: number): void {
    this.#core.resetQueue(index);
    this.#vectors.setQueue(index, VIRTIO_MSI_NO_VECTOR);
    this.#queues.current.isEnabled = false;
  }

  #readAddress(offset: number): number {
    const word = addressWord(offset);
    return word < 0 ? 0 : this.#queues.current.words[word]!;
  }

  #writeAddress(offset: number, value: number): void {
    const word = addressWord(offset);
    if (word >= 0) this.#queues.current.words[word] = value;
  }
}

/** Six dwords: descriptor area, driver area, device area, each the lower half first. */
function addressWord(offset: number): number {
  const isAddress = offset >= Common.QUEUE_DESC && offset < Common.QUEUE_DEVICE + 8;
  return isAddress && offset % 4 === 0 ? (offset - Common.QUEUE_DESC) / 4 : -1;
}

function half(features: bigint, select: number): number {
  if (select === 0) return lo32(features);
  return select === 1 ? hi32(features) : 0;
}
