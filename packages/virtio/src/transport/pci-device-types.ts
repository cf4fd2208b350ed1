import type { VirtioDeviceCore } from '../device/device-core.js';
import type { SavedDevice } from '../device/device-state.js';
import type { SavedMsix } from './msix.js';
import type { SavedCommonRegisters } from './pci-common-registers.js';
import type { SavedQueueRegisters } from './queue-registers.js';
import type { PciFunction } from './registers.js';

/** A change of a function's interrupt line, or a message that it writes to the bus. */
export type PciInterrupt =
  | { readonly kind: 'intx'; readonly asserted: boolean }
  | {
      readonly kind: 'msix';
      readonly vector: number;
      readonly address: bigint;
      readonly data: number;
    };

/** See `createVirtioPci`. */
export interface VirtioPciOptions {
  readonly device: VirtioDeviceCore;
  /**
   * `modern`: the structures of VIRTIO 1.0 and later only (QEMU's `disable-legacy=on`); `legacy`:
   * the I/O BAR only (`disable-modern=on`); `transitional`: both.
   */
  readonly mode: 'modern' | 'transitional' | 'legacy';
  /** For people. Default `0000:00:00.0`. */
  readonly name?: string;
  /** 0: no MSI-X. Default: as QEMU's device of the type. */
  readonly msixVectors?: number;
  /** The byte order of legacy drivers. Default false. */
  readonly isBigEndianGuest?: boolean;
}

/** A virtio device as a PCI function. */
export interface VirtioPciDevice extends PciFunction {
  /** Registers who hears of interrupts, in place of whoever did before. */
  onInterrupt(handler: (interrupt: PciInterrupt) => void): void;
  /** A reset of the function, as of the whole machine: nothing of the driver's is left. */
  reset(): void;
  /** Function and device at rest, as plain data. */
  save(): SavedVirtioPci;
  /**
   * Goes on where such a function was saved.
   * @throws VirtioError `E_DEVICE_STATE`, `E_QUEUE_STATE`
   */
  restore(state: SavedVirtioPci): void;
}

/** What has been saved of a function and its device. [qemu v7.2 hw/virtio/virtio-pci.c virtio_pci_save_config] */
export interface SavedVirtioPci {
  readonly config: readonly number[];
  readonly common: SavedCommonRegisters;
  readonly queues: SavedQueueRegisters;
  readonly configVector: number;
  readonly msix?: SavedMsix;
  readonly isLineHigh: boolean;
  readonly arePlaced: boolean;
  readonly device: SavedDevice;
}
