import type { Msix } from './msix.js';
import { VIRTIO_MSI_NO_VECTOR } from './pci-common-config.js';
import type { QueueRegisterFile } from './queue-registers.js';

/**
 * Which vectors the events of a function are mapped to. A vector that is not there reads back as
 * "no vector". [VIRTIO v1.2 §4.1.5.1.2 "MSI-X Vector Configuration"]
 */
export class PciVectors {
  readonly #msix: Msix | undefined;
  readonly #queues: QueueRegisterFile;
  #config = VIRTIO_MSI_NO_VECTOR;

  constructor(msix: Msix | undefined, queues: QueueRegisterFile) {
    this.#msix = msix;
    this.#queues = queues;
  }

  get config(): number {
    return this.#config;
  }

  set config(vector: number) {
    this.#config = this.#change(this.#config, vector);
  }

  queue(index: number): number {
    return this.#queues.get(index).vector;
  }

  setQueue(index: number, vector: number): void {
    const file = this.#queues.get(index);
    file.vector = this.#change(file.vector, vector);
  }

  /** Before the registers of the queues are reset. */
  reset(): void {
    this.#config = VIRTIO_MSI_NO_VECTOR;
    this.#msix?.unuseAll();
  }

  /** After the registers of the queues are restored. */
  restore(config: number, queues: readonly { readonly vector: number }[]): void {
    this.#config = this.#change(VIRTIO_MSI_NO_VECTOR, config);
    for (const { vector } of queues) this.#change(VIRTIO_MSI_NO_VECTOR, vector);
  }

  /** [qemu v7.2 hw/virtio/virtio-pci.c virtio_pci_common_write VIRTIO_PCI_COMMON_MSIX] */
  #change(from: number, to: number): number {
    if (from !== VIRTIO_MSI_NO_VECTOR) this.#msix?.unuse(from);
    if (this.#msix === undefined || to >= this.#msix.vectors) return VIRTIO_MSI_NO_VECTOR;
    this.#msix.use(to);
    return to;
  }
}
