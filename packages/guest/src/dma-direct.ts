import { addU64, distanceU64, type Gpa, type HiLo, hi32, joinU64, lo32 } from '@pinhole/base';
import type { DmaDirection, DmaOps, DmaRange, GuestMemory } from '@pinhole/memory';
import type { DmaDispatch } from './dma-dispatch.js';
import type { GuestPages } from './guest-pages.js';
import type { Swiotlb } from './swiotlb.js';

/** What a device can reach: `DmaDispatch` is one. */
export type DmaLimits = Pick<
  DmaDispatch,
  'streamingMask' | 'busDmaLimit' | 'dmaCapable' | 'dmaCoherentOk'
>;

/** Options of {@link createDirectDmaOps}. */
export interface DirectDmaOptions {
  readonly memory: GuestMemory;
  readonly pages: GuestPages;
  /** Where memory appears on the bus; memory in no range cannot be mapped. */
  readonly ranges: readonly DmaRange[];
  /** All buffers bounce through this pool. */
  readonly forceBounce?: Swiotlb;
  /**
   * Coherent memory, too, comes from the pool of `forceBounce`: a restricted-dma-pool.
   * [linux v6.1 kernel/dma/direct.c __dma_direct_alloc_pages is_swiotlb_for_alloc]
   */
  readonly isPoolForAlloc?: boolean;
  /** Buffers that the device cannot reach bounce through this pool. */
  readonly bounce?: Swiotlb;
  /** What the device can reach. Default: everything. */
  readonly limits?: DmaLimits;
  /** Told, in the kernel's words, of the first map that the device cannot reach. */
  readonly onOverflow?: (message: string) => void;
  /**
   * Makes coherent memory visible to the hypervisor, and private again before it is freed.
   * [linux v6.1 kernel/dma/direct.c dma_set_decrypted, dma_set_encrypted]
   */
  readonly setShared?: (gpa: Gpa, length: number, isShared: boolean) => void;
  readonly cpu: () => number;
}

/**
 * DMA without an IOMMU driver: a bus address is the physical address plus a constant of its range.
 * [linux v6.1 kernel/dma/direct.h dma_direct_map_page, include/linux/dma-direct.h phys_to_dma]
 */
export function createDirectDmaOps(options: DirectDmaOptions): DmaOps {
  return new DirectDmaOps(options);
}

class DirectDmaOps implements DmaOps {
  readonly name: string;
  readonly maxMappingSize: number;
  readonly #options: DirectDmaOptions;
  readonly #hasWarned = new Set<string>();
  readonly #ranges: readonly { cpuStart: Gpa; size: number; dmaStart: HiLo }[];

  constructor(options: DirectDmaOptions) {
    this.#options = options;
    this.#ranges = options.ranges.map(({ cpuStart, size, dmaStart }) => {
      return { cpuStart, size, dmaStart: { hi: hi32(dmaStart), lo: lo32(dmaStart) } };
    });
    this.name = options.forceBounce === undefined ? 'dma-direct' : 'dma-direct + swiotlb';
    // [linux v6.1 kernel/dma/direct.c dma_direct_max_mapping_size]
    this.maxMappingSize = options.forceBounce?.maxMappingSize ?? Number.POSITIVE_INFINITY;
  }

  map(gpa: Gpa, length: number, direction: DmaDirection, out: HiLo): boolean {
    const { forceBounce } = this.#options;
    if (forceBounce !== undefined) return this.#bounce(forceBounce, gpa, length, direction, out);
    const { bounce, limits } = this.#options;
    const isOnBus = this.#toBus(gpa, length, out);
    if (isOnBus && limits?.dmaCapable(joinU64(out.hi, out.lo), length) !== false) return true;
    if (bounce !== undefined) return this.#bounce(bounce, gpa, length, direction, out);
    this.#warnOverflow(isOnBus ? out : { hi: 0xffff_ffff, lo: 0xffff_ffff }, length);
    return false;
  }

  // [linux v6.1 kernel/dma/swiotlb.c swiotlb_map]
  #bounce(pool: Swiotlb, gpa: Gpa, length: number, direction: DmaDirection, out: HiLo): boolean {
    const slot = pool.map(gpa, length, this.#options.cpu());
    if (slot < 0) return false;
    const isOnBus = this.#toBus(slot, length, out);
    if (isOnBus && this.#options.limits?.dmaCapable(joinU64(out.hi, out.lo), length) !== false) {
      return true;
    }
    pool.unmap(slot, length, direction);
    this.#warnOverflow(isOnBus ? out : { hi: 0xffff_ffff, lo: 0xffff_ffff }, length, 'swiotlb');
    return false;
  }

  // Once a place in the kernel: dev_WARN_ONCE.
  #warnOverflow(address: HiLo, length: number, from: 'direct' | 'swiotlb' = 'direct'): void {
    if (this.#hasWarned.has(from)) return;
    this.#hasWarned.add(from);
    const { limits, onOverflow } = this.#options;
    const hex = (value: bigint): string => value.toString(16);
    const at = `0x${hex(joinU64(address.hi, address.lo)).padStart(16, '0')}`;
    const mask = hex(limits?.streamingMask ?? 2n ** 64n - 1n);
    const limit = hex(limits?.busDmaLimit ?? 0n);
    onOverflow?.(
      `${from === 'direct' ? 'DMA' : 'swiotlb'} addr ${at}+${length} overflow (mask ${mask}, bus limit ${limit}).`,
    );
  }

  unmap(hi: number, lo: number, length: number, direction: DmaDirection): void {
    const pool = this.#options.forceBounce ?? this.#options.bounce;
    const gpa = this.#toPhysical(hi, lo);
    if (gpa !== undefined && pool?.contains(gpa)) pool.unmap(gpa, length, direction);
  }

  allocCoherent(length: number, out: HiLo): Gpa | undefined {
    const { memory, setShared } = this.#options;
    const bytes = this.#wholePages(length);
    const gpa = this.#takePages(bytes);
    if (gpa === undefined) return undefined;
    const { limits } = this.#options;
    const isOnBus = this.#toBus(gpa, bytes, out);
    if (!isOnBus || limits?.dmaCoherentOk(joinU64(out.hi, out.lo), bytes) === false) {
      this.#givePages(gpa, bytes);
      return undefined;
    }
    setShared?.(gpa, bytes, true);
    memory.fill(gpa, bytes, 0);
    return gpa;
  }

  freeCoherent(gpa: Gpa, _hi: number, _lo: number, length: number): void {
    const bytes = this.#wholePages(length);
    this.#options.setShared?.(gpa, bytes, false);
    this.#givePages(gpa, bytes);
  }

  #takePages(bytes: number): Gpa | undefined {
    const { pages, cpu } = this.#options;
    if (this.#allocPool === undefined) return pages.allocPages(bytes);
    const gpa = this.#allocPool.alloc(bytes, cpu());
    return gpa < 0 ? undefined : gpa;
  }

  #givePages(gpa: Gpa, bytes: number): void {
    if (this.#allocPool === undefined) this.#options.pages.freePages(gpa, bytes);
    else this.#allocPool.free(gpa);
  }

  get #allocPool(): Swiotlb | undefined {
    return this.#options.isPoolForAlloc === true ? this.#options.forceBounce : undefined;
  }

  #wholePages(length: number): number {
    const { pageSize } = this.#options.pages;
    return Math.ceil(length / pageSize) * pageSize;
  }

  #toBus(gpa: Gpa, length: number, out: HiLo): boolean {
    for (const { cpuStart, size, dmaStart } of this.#ranges) {
      if (gpa < cpuStart || gpa + length > cpuStart + size) continue;
      addU64(dmaStart, gpa - cpuStart, out);
      return true;
    }
    return false;
  }

  #toPhysical(hi: number, lo: number): Gpa | undefined {
    for (const { cpuStart, size, dmaStart } of this.#ranges) {
      const offset = distanceU64(dmaStart, hi, lo);
      if (offset >= 0 && offset < size) return cpuStart + offset;
    }
    return undefined;
  }
}
