import { joinU64 } from '@pinhole/base';
import type { VirtioDeviceCore } from '../device/device-core.js';
import { VIRTIO_MSI_NO_VECTOR } from './pci-common-config.js';

/** Queues that can be selected. [qemu v7.2 include/hw/virtio/virtio.h VIRTIO_QUEUE_MAX] */
export const VIRTIO_QUEUE_MAX = 1024;

/** The lower halves of the addresses of a queue's parts in `QueueRegisters`; the upper follow. */
export const QUEUE_DESC = 0;
export const QUEUE_DRIVER = 2;
export const QUEUE_DEVICE = 4;

/** What a transport keeps of one queue. [qemu v7.2 include/hw/virtio/virtio-pci.h VirtIOPCIQueue] */
export interface QueueRegisters {
  /** As the driver wrote it, whether the device takes it or not. */
  size: number;
  isEnabled: boolean;
  vector: number;
  /** Address halves: see `QUEUE_DESC`. */
  readonly words: Uint32Array;
}

/** What has been saved of one queue's registers. */
interface SavedQueueFile {
  readonly index: number;
  readonly size: number;
  readonly isEnabled: boolean;
  readonly vector: number;
  readonly words: readonly number[];
}

/** The registers of those queues that the driver ever looked at. */
export interface SavedQueueRegisters {
  readonly selected: number;
  readonly queues: readonly SavedQueueFile[];
}

/**
 * The registers of all queues, and which of them the driver selected. There are registers for
 * queues that are not there, too.
 */
export class QueueRegisterFile {
  readonly #core: VirtioDeviceCore;
  readonly #files = new Map<number, QueueRegisters>();
  #selected = 0;

  constructor(core: VirtioDeviceCore) {
    this.#core = core;
  }

  /** The queue that the registers show. */
  get selected(): number {
    return this.#selected;
  }

  /** A number that no queue can have is not heard. */
  select(index: number): void {
    if (index < VIRTIO_QUEUE_MAX) this.#selected = index;
  }

  /** The registers of the selected queue. */
  get current(): QueueRegisters {
    return this.get(this.#selected);
  }

  get(index: number): QueueRegisters {
    let file = this.#files.get(index);
    if (file === undefined) {
      file = {
        size: 0,
        isEnabled: false,
        vector: VIRTIO_MSI_NO_VECTOR,
        words: new Uint32Array(6),
      };
      this.#files.set(index, file);
    }
    return file;
  }

  /** The driver chooses a size for the selected queue. */
  setSize(size: number): void {
    this.current.size = size & 0xffff;
    this.#core.setQueueSize(this.#selected, this.current.size);
  }

  /** The selected queue goes live with what is in its registers. */
  enable(): void {
    const { size, words } = this.current;
    this.#core.setQueueSize(this.#selected, size);
    this.#core.setQueueRings(this.#selected, {
      desc: address(words, QUEUE_DESC),
      avail: address(words, QUEUE_DRIVER),
      used: address(words, QUEUE_DEVICE),
    });
    this.current.isEnabled = true;
  }

  /** The registers of all queues as at the start; those of PCI forget the addresses as well. */
  reset(): void {
    this.#files.clear();
    this.#selected = 0;
  }

  /** A reset that leaves sizes and addresses. [qemu v7.2 hw/virtio/virtio-mmio.c virtio_mmio_soft_reset] */
  disableAll(): void {
    for (const file of this.#files.values()) file.isEnabled = false;
    this.#selected = 0;
  }

  save(): SavedQueueRegisters {
    const queues = [...this.#files].map(([index, { words, ...rest }]) => {
      return { index, ...rest, words: [...words] };
    });
    return { selected: this.#selected, queues };
  }

  restore(state: SavedQueueRegisters): void {
    this.reset();
    this.select(state.selected);
    for (const { index, size, isEnabled, vector, words } of state.queues) {
      this.#files.set(index, { size, isEnabled, vector, words: Uint32Array.from(words) });
    }
  }
}

function address(words: Uint32Array, at: number): bigint {
  return joinU64(words[at + 1]!, words[at]!);
}
