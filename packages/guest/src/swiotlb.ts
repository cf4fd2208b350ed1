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
  /**
   * Low address bits that the bounce address shares with the buffer's: NVMe asks for a page's, virtio
   * for none. [linux v6.1 include/linux/dma-mapping.h dma_get_min_align_mask]
   */
  readonly minAlignMask?: number;
  readonly onFull?: (message: string) => void;
  /** Told, in the kernel's words, of a copy that goes beyond its mapping. */
  readonly onOverflow?: (message: string) => void;
}

interface Area {
  index: number;
  used: number;
}

/**
 * Bounce buffers. [linux v6.1 kernel/dma/swiotlb.c swiotlb_do_find_slots, swiotlb_tbl_map_single]
 *
 * Deviates: the pool does not grow, as it can from 6.6 on. A search that 6.1 would never end (a full
 * area, and a device with alignment bits above a slot's) ends with "full".
 */
export class Swiotlb {
  readonly base: Gpa;
  readonly size: number;
  /** Bytes of one mapping at most: 256 KiB, less what alignment takes. */
  readonly maxMappingSize: number;
  /** Bytes copied into the pool and out of it. */
  bytesBounced = 0;
  readonly #options: SwiotlbOptions;
  readonly #slots: number;
  readonly #areas: Area[];
  readonly #areaSlots: number;
  /** Free slots from here to the end of the 128-slot segment; 0: in use. */
  readonly #list: Uint8Array;
  /** Of each slot in use: where its data really is, and how much of the mapping is left from there. */
  readonly #original: Float64Array;
  readonly #allocSize: Float64Array;
  readonly #slotOffsetMask: number;
  readonly #slotAlignMask: number;

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
    this.#allocSize = new Float64Array(this.#slots);
    const minAlignMask = options.minAlignMask ?? 0;
    this.#slotOffsetMask = minAlignMask & (IO_TLB_SIZE - 1);
    this.#slotAlignMask = minAlignMask & ~(IO_TLB_SIZE - 1);
    // [linux v6.1 kernel/dma/swiotlb.c swiotlb_max_mapping_size]
    const lost = Math.ceil(minAlignMask / IO_TLB_SIZE) * IO_TLB_SIZE;
    this.maxMappingSize = IO_TLB_SEGSIZE * IO_TLB_SIZE - lost;
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
    const offset = gpa & this.#slotOffsetMask;
    const slot = this.#findSlots(gpa, length + offset, cpu);
    if (slot < 0) {
      this.#options.onFull?.(
        `swiotlb buffer is full (sz: ${length} bytes), total ${this.#slots} (slots), used ${this.slotsUsed} (slots)`,
      );
      return -1;
    }
    for (let i = 0; i < slotsFor(length + offset); i += 1) {
      this.#original[slot + i] = gpa + i * IO_TLB_SIZE;
      this.#allocSize[slot + i] = length - i * IO_TLB_SIZE;
    }
    const bounce = this.base + slot * IO_TLB_SIZE + offset;
    this.#bounce(bounce, length, 'to-pool');
    return bounce;
  }

  /**
   * Copies back what the device may have written, and frees the slots.
   * [linux v6.1 kernel/dma/swiotlb.c swiotlb_tbl_unmap_single]
   */
  unmap(bounce: Gpa, length: number, direction: DmaDirection): void {
    if (direction !== DmaDirection.TO_DEVICE) this.#bounce(bounce, length, 'from-pool');
    const offset = (bounce - this.base) & this.#slotOffsetMask;
    const slot = Math.floor((bounce - this.base) / IO_TLB_SIZE);
    this.#freeSlots(slot, slotsFor(length + offset));
  }

  /**
   * Gives a part of a mapping, or all, back to the device.
   * [linux v6.1 kernel/dma/swiotlb.c swiotlb_sync_single_for_device]
   */
  syncForDevice(bounce: Gpa, length: number, direction: DmaDirection): void {
    if (direction !== DmaDirection.FROM_DEVICE) this.#bounce(bounce, length, 'to-pool');
  }

  /** Lets the CPU see what the device wrote. [linux v6.1 kernel/dma/swiotlb.c swiotlb_sync_single_for_cpu] */
  syncForCpu(bounce: Gpa, length: number, direction: DmaDirection): void {
    if (direction !== DmaDirection.TO_DEVICE) this.#bounce(bounce, length, 'from-pool');
  }

  /** Whether an address lies in the pool. */
  contains(gpa: Gpa): boolean {
    return gpa >= this.base && gpa < this.base + this.size;
  }

  // [linux v6.1 kernel/dma/swiotlb.c swiotlb_bounce]
  #bounce(bounce: Gpa, length: number, way: 'to-pool' | 'from-pool'): void {
    const slot = Math.floor((bounce - this.base) / IO_TLB_SIZE);
    const first = this.#original[slot] as number;
    const left = this.#allocSize[slot] as number;
    const inSlot = (bounce - this.base) % IO_TLB_SIZE;
    const start = first & this.#slotOffsetMask;
    if (inSlot < start) {
      this.#options.onOverflow?.(
        `Access before mapping start detected. orig offset ${start}, requested offset ${inSlot}.`,
      );
      return;
    }
    const skipped = inSlot - start;
    if (skipped > left) {
      this.#options.onOverflow?.(
        `Buffer overflow detected. Allocation size: ${left}. Mapping size: ${length}+${skipped}.`,
      );
      return;
    }
    const size = Math.min(length, left - skipped);
    if (size < length) {
      this.#options.onOverflow?.(
        `Buffer overflow detected. Allocation size: ${left - skipped}. Mapping size: ${length}.`,
      );
    }
    const original = first + skipped;
    if (way === 'to-pool') this.#copy(original, bounce, size);
    else this.#copy(bounce, original, size);
  }

  #findSlots(gpa: Gpa, length: number, cpu: number): number {
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
    // From a page on, only page-aligned slots are looked at.
    const alignMask = this.#slotAlignMask;
    let stride = (alignMask >> IO_TLB_SHIFT) + 1;
    if (length >= this.#options.pageSize) stride *= this.#options.pageSize >> IO_TLB_SHIFT;
    const slotBase = areaIndex * this.#areaSlots;
    const wrap = (index: number): number => (index >= this.#areaSlots ? 0 : index);
    const start = wrap(Math.ceil(area.index / stride) * stride);
    let index = start;
    let looked = 0;
    do {
      looked += 1;
      const address = this.base + (slotBase + index) * IO_TLB_SIZE;
      if ((address & alignMask) !== (gpa & alignMask)) {
        index = wrap(index + 1);
        continue;
      }
      if ((this.#list[slotBase + index] as number) >= count) {
        this.#takeSlots(slotBase + index, count);
        area.index = wrap(index + count);
        area.used += count;
        return slotBase + index;
      }
      index = wrap(index + stride);
    } while (index !== start && looked <= 2 * this.#areaSlots);
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
