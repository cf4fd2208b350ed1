import { PCI_CAP_ID_MSIX } from './pci-capabilities.js';
import type { PciConfigSpace } from './pci-config-space.js';
import type { MmioRegion, RegisterWidth } from './registers.js';

/** Table in the lower half, pending bits in the upper, as long as there is room. */
const BAR_SIZE_MIN = 4096;
const ENTRY_SIZE = 16;
const ENTRY_DATA = 8;
const ENTRY_CONTROL = 12;
const ENTRY_CONTROL_MASK = 0x1;
/** Message Control, in the capability. */
const FLAGS = 2;
const FLAGS_ENABLE = 0x8000;
const FLAGS_MASKALL = 0x4000;
/** What the 11 bits of the table's size can say. */
const VECTORS_MAX = 2048;

/** Writes an interrupt's message to the bus. */
export type MsixSender = (vector: number, address: bigint, data: number) => void;

/** Bytes of the table and of the pending bits. */
export interface SavedMsix {
  readonly table: readonly number[];
  readonly pending: readonly number[];
}

/**
 * MSI-X: a table of messages and the pending bits, in a BAR of their own.
 * [PCI 3.0 §6.8.2 "MSI-X Capability and Table Structure"] [qemu v7.2 hw/pci/msix.c msix_init_exclusive_bar]
 */
export class Msix {
  readonly vectors: number;
  readonly #space: PciConfigSpace;
  readonly #at: number;
  readonly #send: MsixSender;
  readonly #table: DataView;
  readonly #pending: Uint8Array;
  readonly #pendingAt: number;
  readonly #size: number;
  // How many users each vector has: one without is never sent.
  readonly #users: Uint32Array;
  #isFunctionMasked = true;

  constructor(space: PciConfigSpace, vectors: number, barIndex: number, send: MsixSender) {
    this.vectors = Math.min(vectors, VECTORS_MAX);
    this.#space = space;
    this.#send = send;
    this.#table = new DataView(new ArrayBuffer(ENTRY_SIZE * this.vectors));
    this.#pending = new Uint8Array(Math.ceil(this.vectors / 64) * 8);
    this.#users = new Uint32Array(this.vectors);
    this.#pendingAt = Math.max(this.#table.byteLength, BAR_SIZE_MIN / 2);
    const end = this.#pendingAt + this.#pending.length;
    this.#size = Math.max(2 ** Math.ceil(Math.log2(end)), BAR_SIZE_MIN);
    const body = new DataView(new ArrayBuffer(10));
    body.setUint16(0, this.vectors - 1, true);
    body.setUint32(2, barIndex, true);
    body.setUint32(6, this.#pendingAt | barIndex, true);
    this.#at = space.addCapability(PCI_CAP_ID_MSIX, new Uint8Array(body.buffer));
    space.allowWrites(this.#at + FLAGS, 2, FLAGS_ENABLE | FLAGS_MASKALL);
    this.#maskAll();
  }

  get isEnabled(): boolean {
    return (this.#space.read(this.#at + FLAGS, 2) & FLAGS_ENABLE) !== 0;
  }

  /** The BAR. Accesses are of 4 bytes; others read 0 and write nothing. */
  get region(): MmioRegion {
    return {
      size: this.#size,
      read: (offset, width) => this.#read(offset, width),
      write: (offset, width, value) => this.#write(offset, width, value),
    };
  }

  /**
   * Configuration space was written: true if that was Message Control, and MSI-X is on.
   * [qemu v7.2 hw/pci/msix.c msix_write_config]
   */
  noteConfigWrite(offset: number, width: number): boolean {
    const flags = this.#at + FLAGS + 1;
    if (offset > flags || offset + width <= flags) return false;
    const wasMasked = this.#isFunctionMasked;
    this.#updateFunctionMask();
    if (!this.isEnabled) return false;
    if (this.#isFunctionMasked !== wasMasked) {
      for (let vector = 0; vector < this.vectors; vector += 1) {
        this.#noteMaskChange(vector, wasMasked || this.#isEntryMasked(vector));
      }
    }
    return true;
  }

  /** Something sends this vector from now on. [qemu v7.2 hw/pci/msix.c msix_vector_use] */
  use(vector: number): void {
    this.#users[vector] = this.#users[vector]! + 1;
  }

  /** The last one takes what is pending along. [qemu v7.2 hw/pci/msix.c msix_vector_unuse] */
  unuse(vector: number): void {
    if (this.#users[vector] === 0) return;
    this.#users[vector] = this.#users[vector]! - 1;
    if (this.#users[vector] === 0) this.#setPending(vector, false);
  }

  /** [qemu v7.2 hw/pci/msix.c msix_unuse_all_vectors] */
  unuseAll(): void {
    this.#users.fill(0);
    this.#pending.fill(0);
  }

  /** Sends a vector's message, or remembers it while it is masked. [qemu v7.2 hw/pci/msix.c msix_notify] */
  notify(vector: number): void {
    if (vector >= this.vectors || this.#users[vector] === 0) return;
    if (this.#isMasked(vector)) {
      this.#setPending(vector, true);
      return;
    }
    const at = ENTRY_SIZE * vector;
    const address = this.#table.getBigUint64(at, true);
    this.#send(vector, address, this.#table.getUint32(at + ENTRY_DATA, true));
  }

  /** [qemu v7.2 hw/pci/msix.c msix_reset] */
  reset(): void {
    this.unuseAll();
    this.#space.set(this.#at + FLAGS, 2, this.vectors - 1);
    new Uint8Array(this.#table.buffer).fill(0);
    this.#isFunctionMasked = true;
    this.#maskAll();
  }

  save(): SavedMsix {
    return { table: [...new Uint8Array(this.#table.buffer)], pending: [...this.#pending] };
  }

  /** After the configuration space; users come back one by one. [qemu v7.2 hw/pci/msix.c msix_load] */
  restore(state: SavedMsix): void {
    this.unuseAll();
    new Uint8Array(this.#table.buffer).set(state.table.slice(0, this.#table.byteLength));
    this.#pending.set(state.pending.slice(0, this.#pending.length));
    this.#updateFunctionMask();
  }

  #read(offset: number, width: RegisterWidth): number {
    if (width !== 4 || offset < 0 || offset % 4 !== 0) return 0;
    if (offset < this.#table.byteLength) return this.#table.getUint32(offset, true);
    const at = offset - this.#pendingAt;
    if (at < 0 || at + 4 > this.#pending.length) return 0;
    return new DataView(this.#pending.buffer).getUint32(at, true);
  }

  #write(offset: number, width: RegisterWidth, value: number): void {
    if (width !== 4 || offset < 0 || offset % 4 !== 0 || offset >= this.#table.byteLength) return;
    const vector = Math.floor(offset / ENTRY_SIZE);
    const wasMasked = this.#isMasked(vector);
    this.#table.setUint32(offset, value, true);
    this.#noteMaskChange(vector, wasMasked);
  }

  #updateFunctionMask(): void {
    const flags = this.#space.read(this.#at + FLAGS, 2);
    this.#isFunctionMasked = (flags & FLAGS_ENABLE) === 0 || (flags & FLAGS_MASKALL) !== 0;
  }

  #isMasked(vector: number): boolean {
    return this.#isFunctionMasked || this.#isEntryMasked(vector);
  }

  #isEntryMasked(vector: number): boolean {
    const control = this.#table.getUint32(ENTRY_SIZE * vector + ENTRY_CONTROL, true);
    return (control & ENTRY_CONTROL_MASK) !== 0;
  }

  #noteMaskChange(vector: number, wasMasked: boolean): void {
    if (!wasMasked || this.#isMasked(vector) || !this.#isPending(vector)) return;
    this.#setPending(vector, false);
    this.notify(vector);
  }

  #maskAll(): void {
    for (let vector = 0; vector < this.vectors; vector += 1) {
      this.#table.setUint32(ENTRY_SIZE * vector + ENTRY_CONTROL, ENTRY_CONTROL_MASK, true);
    }
  }

  #isPending(vector: number): boolean {
    return (this.#pending[vector >> 3]! & (1 << (vector & 7))) !== 0;
  }

  #setPending(vector: number, isPending: boolean): void {
    const bit = 1 << (vector & 7);
    const byte = this.#pending[vector >> 3]!;
    this.#pending[vector >> 3] = isPending ? byte | bit : byte & ~bit;
  }
}
