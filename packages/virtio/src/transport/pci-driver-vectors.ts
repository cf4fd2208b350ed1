import { hi32, lo32 } from '@pinhole/base';
import { findPciCapabilities, PCI_CAP_ID_MSIX } from './pci-capabilities.js';
import { VIRTIO_MSI_NO_VECTOR } from './pci-common-config.js';
import type { PciInterrupts } from './pci-interrupts.js';
import type { MmioRegion, PciFunction } from './registers.js';
import type { InterruptHandler } from './transport.js';

const MSIX_ENTRY_SIZE = 16;
const MSIX_FLAGS_ENABLE = 0x8000;

/** Who hears of what, and how the device is told. */
export interface DriverVectorsOptions {
  readonly fn: PciFunction;
  readonly interrupts: PciInterrupts | undefined;
  readonly numQueues: number;
  readonly onInterrupt: InterruptHandler;
  /** Gives the configuration this vector; returns what the device made of it. */
  readonly setConfigVector: (vector: number) => number;
}

/**
 * A driver's MSI-X vectors: one for the configuration and one a queue, else one for all queues,
 * else none: the line. [linux v6.1 drivers/virtio/virtio_pci_common.c vp_find_vqs]
 *
 * Deviates: a device that refuses a vector gets none, where Linux tries fewer first.
 */
export class PciDriverVectors {
  readonly #options: DriverVectorsOptions;
  // Vectors in use: 0 is the configuration's; queues have one each, or share 1. 0: the line.
  #count = 0;
  #table: MsixTable | undefined;
  #areKnown = false;

  constructor(options: DriverVectorsOptions) {
    this.#options = options;
  }

  get isEnabled(): boolean {
    return this.#count > 0;
  }

  /** Before the first queue is set up. */
  prepare(): void {
    if (this.#areKnown) return;
    this.#areKnown = true;
    const { fn, numQueues, setConfigVector } = this.#options;
    const table = findMsixTable(fn);
    if (table === undefined) return;
    if (this.#count === 0) {
      const counts = [numQueues + 1, 2].filter((count) => count <= table.size);
      this.#count = counts.find((count) => this.#enable(table, count)) ?? 0;
    }
    this.#table = table;
    if (this.#count > 0 && setConfigVector(0) === VIRTIO_MSI_NO_VECTOR) this.#disable();
  }

  /** The device was reset: it forgot its vectors. */
  forget(): void {
    this.#areKnown = false;
  }

  /**
   * Gives queue `index` its vector; `setVector` returns what the device made of it. "The driver MUST
   * verify success": a device that has no room for it is driven by its line, all of it.
   */
  mapQueue(index: number, setVector: (vector: number) => number): void {
    if (this.#count === 0) return;
    const vector = Math.min(index + 1, this.#count - 1);
    if (setVector(vector) === VIRTIO_MSI_NO_VECTOR) this.#disable();
  }

  #enable(table: MsixTable, count: number): boolean {
    const { fn, interrupts } = this.#options;
    const messages = interrupts?.allocateVectors?.(count, (vector) => this.#onVector(vector));
    if (messages === undefined) return false;
    setMsixEnable(fn, table.at, true);
    for (const [i, { address, data }] of messages.entries()) {
      const at = table.offset + MSIX_ENTRY_SIZE * i;
      const { region } = table;
      region.write(at, 4, lo32(address));
      region.write(at + 4, 4, hi32(address));
      region.write(at + 8, 4, data);
      // Unmasked.
      region.write(at + 12, 4, 0);
    }
    return true;
  }

  #disable(): void {
    this.#count = 0;
    if (this.#table !== undefined) setMsixEnable(this.#options.fn, this.#table.at, false);
  }

  #onVector(vector: number): void {
    const { onInterrupt, numQueues } = this.#options;
    if (vector === 0) onInterrupt('config');
    else if (this.#count === numQueues + 1) onInterrupt('queue', vector - 1);
    else onInterrupt('queue');
  }
}

interface MsixTable {
  /** Of the capability. */
  readonly at: number;
  /** Vectors. */
  readonly size: number;
  readonly region: MmioRegion;
  readonly offset: number;
}

/** [PCI 3.0 §6.8.2 "MSI-X Capability and Table Structure"] */
function findMsixTable(fn: PciFunction): MsixTable | undefined {
  const at = findPciCapabilities(fn, PCI_CAP_ID_MSIX)[0];
  if (at === undefined) return undefined;
  const size = (fn.configRead(at + 2, 2) & 0x7ff) + 1;
  const where = fn.configRead(at + 4, 4);
  const region = fn.bar(where & 7);
  const offset = where - (where & 7);
  if (region === undefined || offset + size * MSIX_ENTRY_SIZE > region.size) return undefined;
  return { at, size, region, offset };
}

function setMsixEnable(fn: PciFunction, at: number, isOn: boolean): void {
  const control = fn.configRead(at + 2, 2) & ~MSIX_FLAGS_ENABLE;
  fn.configWrite(at + 2, 2, isOn ? control | MSIX_FLAGS_ENABLE : control);
}
