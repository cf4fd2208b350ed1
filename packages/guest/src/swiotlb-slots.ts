import { type Gpa, invariant } from '@pinhole/base';
import type { SwiotlbProfile } from './kernel-profiles/types.js';
import { IO_TLB_SEGSIZE, IO_TLB_SHIFT, IO_TLB_SIZE } from './params.js';

/** Options of {@link SwiotlbSlots}. */
export interface SwiotlbSlotsOptions {
  /** Start of the pool: page-aligned memory that the device can reach. */
  readonly base: Gpa;
  /** Bytes: a multiple of 256 KiB. */
  readonly size: number;
  /** Bytes of a guest page. */
  readonly pageSize: number;
  /** One area a CPU, rounded up to a power of two. */
  readonly cpus: number;
  /**
   * Low address bits that the bounce address shares with the buffer's: NVMe asks for a page's, virtio
   * for none. [linux v6.1 include/linux/dma-mapping.h dma_get_min_align_mask]
   */
  readonly minAlignMask?: number;
  /** The kernel's search. Default: that of 6.1. */
  readonly search?: SwiotlbProfile['search'];
}

interface Area {
  index: number;
  used: number;
}

/**
 * The slots of a bounce pool: which are free, and which a mapping gets. No memory is touched.
 * [linux v6.1 kernel/dma/swiotlb.c swiotlb_do_find_slots, swiotlb_release_slots]
 * [linux v6.12 kernel/dma/swiotlb.c swiotlb_search_pool_area]
 *
 * Deviates: the pool does not grow, as it can from 6.6 on (CONFIG_SWIOTLB_DYNAMIC, which Debian does
 * not set). A search that 6.1 would never end (a full area, and a device with alignment bits above
 * a slot's) ends with "full".
 */
export class SwiotlbSlots {
  readonly base: Gpa;
  /** Bytes of the pool. */
  readonly size: number;
  /** Slots of the pool. */
  readonly slots: number;
  /** Bits of an address that a bounce buffer shares with its original, within a slot. */
  readonly offsetMask: number;
  readonly #areas: Area[];
  readonly #areaSlots: number;
  /** Free slots from here to the end of the 128-slot segment; 0: in use. */
  readonly #list: Uint8Array;
  /** Of the first slot of each mapping, how many it has. */
  readonly #taken: Uint8Array;
  readonly #alignMask: number;
  readonly #pageBytes: number;
  /** Slots from one that is looked at to the next: of less than a page, and of a page or more. */
  readonly #stride: number;
  readonly #pageStride: number;

  constructor(options: SwiotlbSlotsOptions) {
    const { base, size, pageSize, cpus, minAlignMask = 0, search = 'page-strides' } = options;
    const segment = IO_TLB_SEGSIZE * IO_TLB_SIZE;
    invariant(size > 0 && size % segment === 0, 'Swiotlb: the pool is a multiple of 256 KiB');
    this.base = base;
    this.size = size;
    this.slots = size / IO_TLB_SIZE;
    let areas = 2 ** Math.ceil(Math.log2(cpus));
    // An area holds whole segments. [linux v6.1 kernel/dma/swiotlb.c swiotlb_adjust_nareas]
    while (areas > 1 && this.slots / areas < IO_TLB_SEGSIZE) areas /= 2;
    this.#areas = Array.from({ length: areas }, () => ({ index: 0, used: 0 }));
    this.#areaSlots = this.slots / areas;
    this.#list = new Uint8Array(this.slots);
    for (let i = 0; i < this.slots; i += 1) this.#list[i] = IO_TLB_SEGSIZE - (i % IO_TLB_SEGSIZE);
    this.#taken = new Uint8Array(this.slots);
    this.offsetMask = minAlignMask & (IO_TLB_SIZE - 1);
    this.#alignMask = minAlignMask & ~(IO_TLB_SIZE - 1);
    this.#stride = (this.#alignMask >> IO_TLB_SHIFT) + 1;
    this.#pageBytes = pageSize;
    const slotsOfPage = pageSize >> IO_TLB_SHIFT;
    // From a page on, only page-aligned slots are looked at; in 6.12 not for a device that has
    // alignment bits of its own.
    if (search === 'page-strides') this.#pageStride = this.#stride * slotsOfPage;
    else this.#pageStride = minAlignMask === 0 ? slotsOfPage : this.#stride;
  }

  /** Number of areas. */
  get areas(): number {
    return this.#areas.length;
  }

  /** Slots in use. */
  get used(): number {
    return this.#areas.reduce((sum, area) => sum + area.used, 0);
  }

  /** Whether an address lies in the pool. */
  contains(gpa: Gpa): boolean {
    return gpa >= this.base && gpa < this.base + this.size;
  }

  /** Takes slots for a buffer of `length` bytes, and returns its bounce address; -1: there is no room. */
  alloc(gpa: Gpa, length: number, cpu: number): Gpa {
    const offset = gpa & this.offsetMask;
    const slot = this.#find(gpa, length + offset, cpu);
    return slot < 0 ? -1 : this.base + slot * IO_TLB_SIZE + offset;
  }

  /**
   * Takes the slots of a mapping that is known to be there, and goes on searching behind it, as the
   * kernel did.
   * @returns false where they are not free, or are none that a mapping can have.
   */
  observe(bounce: Gpa, length: number): boolean {
    if (!this.contains(bounce)) return false;
    const count = slotsFor(length + ((bounce - this.base) & this.offsetMask));
    const slot = this.#slotOf(bounce);
    if ((this.#list[slot] as number) < count) return false;
    this.#take(slot, count);
    const areaIndex = Math.floor(slot / this.#areaSlots);
    const area = this.#areas[areaIndex] as Area;
    area.index = this.#wrap(slot - areaIndex * this.#areaSlots + count);
    area.used += count;
    return true;
  }

  /**
   * Frees the slots of a mapping, as many as it took.
   * @returns false where no mapping begins.
   */
  free(bounce: Gpa): boolean {
    if (!this.contains(bounce)) return false;
    const slot = this.#slotOf(bounce);
    const count = this.#taken[slot] as number;
    if (count === 0) return false;
    this.#taken[slot] = 0;
    const end = slot + count;
    const isSegmentEnd = end % IO_TLB_SEGSIZE === 0;
    let free = isSegmentEnd ? 0 : (this.#list[end] as number);
    for (let i = end - 1; i >= slot; i -= 1) {
      free += 1;
      this.#list[i] = free;
    }
    this.#recountBefore(slot, free);
    (this.#areas[Math.floor(slot / this.#areaSlots)] as Area).used -= count;
    return true;
  }

  #slotOf(bounce: Gpa): number {
    return Math.floor((bounce - this.base) / IO_TLB_SIZE);
  }

  #find(gpa: Gpa, length: number, cpu: number): number {
    const count = slotsFor(length);
    if (count > IO_TLB_SEGSIZE) return -1;
    const first = cpu & (this.#areas.length - 1);
    for (let i = 0; i < this.#areas.length; i += 1) {
      const slot = this.#findInArea((first + i) & (this.#areas.length - 1), count, gpa, length);
      if (slot >= 0) return slot;
    }
    return -1;
  }

  #findInArea(areaIndex: number, count: number, gpa: Gpa, length: number): number {
    const area = this.#areas[areaIndex] as Area;
    if (count > this.#areaSlots - area.used) return -1;
    const alignMask = this.#alignMask;
    const stride = length >= this.#pageBytes ? this.#pageStride : this.#stride;
    const slotBase = areaIndex * this.#areaSlots;
    const start = this.#wrap(Math.ceil(area.index / stride) * stride);
    let index = start;
    let looked = 0;
    do {
      looked += 1;
      const address = this.base + (slotBase + index) * IO_TLB_SIZE;
      if ((address & alignMask) !== (gpa & alignMask)) {
        index = this.#wrap(index + 1);
        continue;
      }
      if ((this.#list[slotBase + index] as number) >= count) {
        this.#take(slotBase + index, count);
        area.index = this.#wrap(index + count);
        area.used += count;
        return slotBase + index;
      }
      index = this.#wrap(index + stride);
    } while (index !== start && looked <= 2 * this.#areaSlots);
    return -1;
  }

  #wrap(index: number): number {
    return index >= this.#areaSlots ? 0 : index;
  }

  #take(slot: number, count: number): void {
    this.#list.fill(0, slot, slot + count);
    this.#taken[slot] = count;
    this.#recountBefore(slot, 0);
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
}

/** Slots of a buffer of so many bytes. */
export function slotsFor(length: number): number {
  return Math.max(1, Math.ceil(length / IO_TLB_SIZE));
}
