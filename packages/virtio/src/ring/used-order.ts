import type { VirtqueueElement } from './device-element.js';
import type { OrderedBuffer } from './device-queue-state.js';

/**
 * The buffers in flight in the order in which they were taken, for a device that promised to return
 * them so (VIRTIO_F_IN_ORDER): what is finished early waits here.
 * [qemu v9.2 hw/virtio/virtio.c virtqueue_ordered_fill]
 */
export class UsedOrder {
  readonly size: number;
  // By slot.
  readonly #head: Uint16Array;
  readonly #written: Uint32Array;
  readonly #ndescs: Uint16Array;
  readonly #isFinished: Uint8Array;
  #first = 0;
  #count = 0;

  /** At most `size` buffers are in flight at once. */
  constructor(size: number) {
    this.size = size;
    this.#head = new Uint16Array(size);
    this.#written = new Uint32Array(size);
    this.#ndescs = new Uint16Array(size);
    this.#isFinished = new Uint8Array(size);
  }

  /** Buffers in the row. */
  get count(): number {
    return this.#count;
  }

  /** Whether there is no room for another buffer. */
  get isFull(): boolean {
    return this.#count === this.size;
  }

  /** The buffer is the last in the row; it must not be full. */
  take(element: VirtqueueElement): void {
    const slot = (this.#first + this.#count) % this.size;
    this.#count += 1;
    this.#head[slot] = element.head;
    this.#ndescs[slot] = element.ndescs;
    this.#isFinished[slot] = 0;
    element.slot = slot;
  }

  /** The buffer taken last was not taken after all. */
  untake(slot: number): void {
    if (slot === (this.#first + this.#count - 1) % this.size) this.#count -= 1;
  }

  finish(slot: number, written: number): void {
    this.#written[slot] = written;
    this.#isFinished[slot] = 1;
  }

  /** How many buffers were taken before the one in this slot and are still here. */
  placeOf(slot: number): number {
    return (slot - this.#first + this.size) % this.size;
  }

  save(): OrderedBuffer[] {
    return Array.from({ length: this.#count }, (_, place) => {
      const slot = (this.#first + place) % this.size;
      const buffer = { head: this.head(slot), ndescs: this.ndescs(slot) };
      return this.#isFinished[slot] === 1 ? { ...buffer, written: this.written(slot) } : buffer;
    });
  }

  /** The other way round: places are slots then. */
  restore(row: readonly OrderedBuffer[]): void {
    this.#first = 0;
    this.#count = row.length;
    row.forEach(({ head, ndescs, written }, slot) => {
      this.#head[slot] = head;
      this.#ndescs[slot] = ndescs;
      this.#isFinished[slot] = written === undefined ? 0 : 1;
      this.#written[slot] = written ?? 0;
    });
  }

  /** Slot of the first buffer, if it is finished; otherwise -1. */
  get ready(): number {
    return this.#count > 0 && this.#isFinished[this.#first] === 1 ? this.#first : -1;
  }

  /** The first buffer goes back to the driver. */
  shift(): void {
    this.#first = (this.#first + 1) % this.size;
    this.#count -= 1;
  }

  head(slot: number): number {
    return this.#head[slot]!;
  }

  written(slot: number): number {
    return this.#written[slot]!;
  }

  ndescs(slot: number): number {
    return this.#ndescs[slot]!;
  }
}
