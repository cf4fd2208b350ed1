import type { Gpa } from '@pinhole/base';
import { DmaDirection, type GuestMemory } from '@pinhole/memory';
import { IO_TLB_SEGSIZE, IO_TLB_SIZE } from './params.js';
import { SwiotlbSlots, type SwiotlbSlotsOptions, slotsFor } from './swiotlb-slots.js';

/** Options of {@link Swiotlb}. */
export interface SwiotlbOptions extends SwiotlbSlotsOptions {
  readonly memory: GuestMemory;
  readonly onFull?: (message: string) => void;
  /** Told, in the kernel's words, of a copy that goes beyond its mapping. */
  readonly onOverflow?: (message: string) => void;
}

/** Bounce buffers. [linux v6.1 kernel/dma/swiotlb.c swiotlb_tbl_map_single] */
export class Swiotlb {
  readonly base: Gpa;
  readonly size: number;
  /** Bytes of one mapping at most: 256 KiB, less what alignment takes. */
  readonly maxMappingSize: number;
  /** Bytes copied into the pool and out of it. */
  bytesBounced = 0;
  readonly #options: SwiotlbOptions;
  readonly #slots: SwiotlbSlots;
  /** Of each slot in use: where its data really is, and how much of the mapping is left from there. */
  readonly #original: Float64Array;
  readonly #allocSize: Float64Array;

  constructor(options: SwiotlbOptions) {
    this.#options = options;
    this.#slots = new SwiotlbSlots(options);
    this.base = options.base;
    this.size = options.size;
    this.#original = new Float64Array(this.#slots.slots);
    this.#allocSize = new Float64Array(this.#slots.slots);
    // [linux v6.1 kernel/dma/swiotlb.c swiotlb_max_mapping_size]
    const lost = Math.ceil((options.minAlignMask ?? 0) / IO_TLB_SIZE) * IO_TLB_SIZE;
    this.maxMappingSize = IO_TLB_SEGSIZE * IO_TLB_SIZE - lost;
  }

  /** Slots in use. */
  get slotsUsed(): number {
    return this.#slots.used;
  }

  /**
   * Copies `length` bytes into the pool and returns where. The copy is made for every direction:
   * a device that writes less than it may must not show old contents. -1: the pool is full.
   */
  map(gpa: Gpa, length: number, cpu: number): Gpa {
    const bounce = this.#slots.alloc(gpa, length, cpu);
    if (bounce < 0) {
      this.#options.onFull?.(
        `swiotlb buffer is full (sz: ${length} bytes), total ${this.#slots.slots} (slots), used ${this.slotsUsed} (slots)`,
      );
      return -1;
    }
    const slot = this.#slotOf(bounce);
    for (let i = 0; i < slotsFor(length + (gpa & this.#slots.offsetMask)); i += 1) {
      this.#original[slot + i] = gpa + i * IO_TLB_SIZE;
      this.#allocSize[slot + i] = length - i * IO_TLB_SIZE;
    }
    this.#bounce(bounce, length, 'to-pool');
    return bounce;
  }

  /**
   * Copies back what the device may have written, and frees the slots.
   * [linux v6.1 kernel/dma/swiotlb.c swiotlb_tbl_unmap_single]
   */
  unmap(bounce: Gpa, length: number, direction: DmaDirection): void {
    if (direction !== DmaDirection.TO_DEVICE) this.#bounce(bounce, length, 'from-pool');
    this.#slots.free(bounce);
  }

  /**
   * Room for what guest and device use at once, of a pool that is for such memory: nothing is copied.
   * -1: there is none. [linux v6.1 kernel/dma/swiotlb.c swiotlb_alloc]
   */
  alloc(length: number, cpu: number): Gpa {
    return this.#slots.alloc(0, length, cpu);
  }

  /** Gives back what `alloc` gave. [linux v6.1 kernel/dma/swiotlb.c swiotlb_free] */
  free(gpa: Gpa): void {
    this.#slots.free(gpa);
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
    return this.#slots.contains(gpa);
  }

  // [linux v6.1 kernel/dma/swiotlb.c swiotlb_bounce]
  #bounce(bounce: Gpa, length: number, way: 'to-pool' | 'from-pool'): void {
    const slot = this.#slotOf(bounce);
    const first = this.#original[slot] as number;
    const left = this.#allocSize[slot] as number;
    const inSlot = (bounce - this.base) % IO_TLB_SIZE;
    const start = first & this.#slots.offsetMask;
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

  #slotOf(bounce: Gpa): number {
    return Math.floor((bounce - this.base) / IO_TLB_SIZE);
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
