import { type Gpa, invariant } from '@pinhole/base';
import { DmaDirection, type GuestMemory } from '@pinhole/memory';
import { IO_TLB_SEGSIZE, IO_TLB_SHIFT, IO_TLB_SIZE } from './params.js';

/** Options of {@link Swiotlb}. */
export interface SwiotlbOptions {
  readonly memory: GuestMemory;
  /** Start of the pool: page-aligned memory that the device can reach. */
  readonly base: Gpa;
  /** Bytes: a multiple of 256 KiB. */
  readonly size: number;
  /** Bytes of a guest page. */
  readonly pageSize: number;
  /** One area a CPU, rounded up to a power of two. */
  readonly cpus: number;
  readonly onFull?: (message: string) => void;
}

interface Area {
  index: number;
  used: number;
}

/**
 * Bounce buffers. [linux v6.1 kernel/dma/swiotlb.c swiotlb_do_find_slots, swiotlb_tbl_map_single]
 *
 * Deviates: slots of a mapping are remembered by their first slot; the pool does not grow.
 */
export class Swiotlb {
  readonly base: Gpa;
  readonly size: number;
  /** Bytes copied into the pool and out of it. */
  bytesBounced = 0;
  readonly #options: SwiotlbOptions;
  readonly #slots: number;
  readonly #areas: Area[];
  readonly #areaSlots: number;
  /** Free slots from here to the end of the 128-slot segment; 0: in use. */
  readonly #list: Uint8Array;
  /** For the first slot of a mapping: where the data really is. */
  readonly #original: Float64Array;

  constructor(options: SwiotlbOptions) {
    const segment = IO_TLB_SEGSIZE * IO_TLB_SIZE;
    invariant(
      options.size > 0 && options.size % segment === 0,
      'Swiotlb: the pool is a multiple of 256 KiB',
    );
    this.base = options.base;
    this.size = options.size;
    this.#options = options;
    this.#slots = options.size / IO_TLB_SIZE;
    let areas = 2 ** Math.ceil(Math.log2(options.cpus));
    // An area holds whole segments. [linux v6.1 kernel/dma/swiotlb.c swiotlb_adjust_nareas]
    while (areas > 1 && this.#slots / areas < IO_TLB_SEGSIZE) areas /= 2;
    this.#areas = Array.from({ length: areas }, () => ({ index: 0, used: 0 }));
    this.#areaSlots = this.#slots / areas;
    this.#list = new Uint8Array(this.#slots);
    for (let i = 0; i < this.#slots; i += 1) this.#list[i] = IO_TLB_SEGSIZE - (i % IO_TLB_SEGSIZE);
    this.#original = new Float64Array(this.#slots);
  }

  /** Slots in use. */
  get slotsUsed(): number {
    return this.#areas.reduce((sum, area) => sum + area.used, 0);
  }

  /**
   * Copies `length` bytes into the pool and returns where. The copy is made for every direction:
   * a device that writes less than it may must not show old contents. -1: the pool is full.
   */
  map(gpa: Gpa, length: number, cpu: number): Gpa {
    const slot = this.#findSlots(length, cpu);
    if (slot < 0) {
      this.#options.onFull?.(
        `swiotlb buffer is full (sz: ${length} bytes), total ${this.#slots} (slots), used ${this.slotsUsed} (slots)`,
      );
      return -1;
    }
    this.#original[slot] = gpa;
    const bounce = this.base + slot * IO_TLB_SIZE;
    this.#copy(gpa, bounce, length);
    return bounce;
  }

  /** Copies back what the device may have written, and frees the slots. */
  unmap(bounce: Gpa, length: number, direction: DmaDirection): void {
    const slot = (bounce - this.base) / IO_TLB_SIZE;
    if (direction !== DmaDirection.TO_DEVICE) {
      this.#copy(bounce, this.#original[slot] as number, length);
    }
    this.#freeSlots(slot, slotsFor(length));
  }

  /** Whether an address lies in the pool. */
  contains(gpa: Gpa): boolean {
    return gpa >= this.base && gpa < this.base + this.size;
  }

  #findSlots(length: number, cpu: number): number {
    const count = slotsFor(length);
    if (count > IO_TLB_SEGSIZE) return -1;
    const first = cpu & (this.#areas.length - 1);
    for (let i = 0; i < this.#areas.length; i += 1) {
      const slot = this.#findInArea((first + i) & (this.#areas.length - 1), count, length);
      if (slot >= 0) return slot;
    }
    return -1;
  }

  #findInArea(areaIndex: number, count: number, length: number): number {
    const area = this.#areas[areaIndex] as Area;
    if (count > this.#areaSlots - area.used) return -1;
    // From a page on, only page-aligned slots are looked at.
    const stride = length >= this.#options.pageSize ? this.#options.pageSize >> IO_TLB_SHIFT : 1;
    const slotBase = areaIndex * this.#areaSlots;
    const wrap = (index: number): number => (index >= this.#areaSlots ? 0 : index);
    const start = wrap(Math.ceil(area.index / stride) * stride);
    let index = start;
    do {
      if ((this.#list[slotBase + index] as number) >= count) {
        this.#takeSlots(slotBase + index, count);
        area.index = wrap(index + count);
        area.used += count;
        return slotBase + index;
      }
      index = wrap(index + stride);
    } while (index !== start);
    return -1;
  }

  #takeSlots(slot: number, count: number): void {
    this.#list.fill(0, slot, slot + count);
    this.#recountBefore(slot, 0);
  }

  #freeSlots(slot: number, count: number): void {
    const end = slot + count;
    const isSegmentEnd = end % IO_TLB_SEGSIZE === 0;
    let free = isSegmentEnd ? 0 : (this.#list[end] as number);
    for (let i = end - 1; i >= slot; i -= 1) {
      free += 1;
      this.#list[i] = free;
    }
    this.#recountBefore(slot, free);
    const area = this.#areas[Math.floor(slot / this.#areaSlots)] as Area;
    area.used -= count;
  }

  // The free slots in front of `slot` in its segment see one longer (or shorter) run.
  #recountBefore(slot: number, freeFromHere: number): void {
    let free = freeFromHere;
    for (let i = slot - 1; i >= 0 && i % IO_TLB_SEGSIZE !== IO_TLB_SEGSIZE - 1; i -= 1) {
      if ((this.#list[i] as number) === 0) break;
      free += 1;
      this.#list[i] = free;
    }
  }

  #copy(from: Gpa, to: Gpa, length: number): void {
    const bytes = new Uint8Array(length);
    this.#options.memory.read(from, bytes);
    this.#options.memory.write(to, bytes);
    this.bytesBounced += length;
  }
}

/**
 * How large the pool becomes, in how many areas: each area holds a whole segment, and a pool cut
 * into areas has a power of two of slots.
 * [linux v6.1 kernel/dma/swiotlb.c swiotlb_adjust_nareas, round_up_default_nslabs]
 */
export function swiotlbPool(
  parameter: { readonly bytes: number; readonly areas?: number },
  cpus: number,
): { readonly bytes: number; readonly areas: number } {
  const areas = 2 ** Math.ceil(Math.log2(parameter.areas ?? cpus));
  const slots = Math.max(parameter.bytes / IO_TLB_SIZE, IO_TLB_SEGSIZE * areas);
  return { bytes: 2 ** Math.ceil(Math.log2(slots)) * IO_TLB_SIZE, areas };
}

function slotsFor(length: number): number {
  return Math.max(1, Math.ceil(length / IO_TLB_SIZE));
}
