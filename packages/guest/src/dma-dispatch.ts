import type { DispatchRule } from './kernel-profiles/types.js';

/** A mask of `bits` ones. [linux v6.1 include/linux/dma-mapping.h DMA_BIT_MASK] */
export function dmaBitMask(bits: number): bigint {
  return (1n << BigInt(bits)) - 1n;
}

/** Options of {@link DmaDispatch}. */
export interface DmaDispatchOptions {
  readonly rule: DispatchRule;
  /** Where memory ends, in bytes: `max_pfn`. */
  readonly endOfMemory: number;
  /** The device has DMA operations of its own (an IOMMU's). Default: true. */
  readonly hasOps?: boolean;
  /** Bytes of a guest page. Default: 4096. */
  readonly pageSize?: number;
}

/**
 * One device's DMA state, and the questions that the generic DMA code asks of it at each call: does
 * this go direct (physical address plus an offset) or through the device's operations?
 * [linux v6.1 kernel/dma/mapping.c dma_go_direct, arch/powerpc/kernel/dma-iommu.c]
 */
export class DmaDispatch {
  /**
   * `dev->dma_ops_bypass`; before 5.9 `archdata.iommu_bypass`, before 5.1 that the operations are
   * `dma_nommu_ops`.
   */
  dmaOpsBypass = false;
  /** `dev->bus_dma_limit`: 0 means none. */
  busDmaLimit = 0n;
  /** `dev->archdata.dma_offset`. */
  dmaOffset = 0n;
  /** `*dev->dma_mask`; PCI devices start with 32 bits. */
  streamingMask: bigint = dmaBitMask(32);
  /** `dev->coherent_dma_mask`. */
  coherentMask: bigint = dmaBitMask(32);
  readonly hasOps: boolean;
  readonly #rule: DispatchRule;
  readonly #endOfMemory: bigint;
  readonly #pageSize: bigint;

  constructor(options: DmaDispatchOptions) {
    this.#rule = options.rule;
    this.#endOfMemory = BigInt(options.endOfMemory);
    this.#pageSize = BigInt(options.pageSize ?? 4096);
    this.hasOps = options.hasOps ?? true;
  }

  /** [linux v6.1 kernel/dma/direct.c dma_direct_get_required_mask] */
  get requiredMask(): bigint {
    return dmaBitMask((this.#endOfMemory - this.#pageSize + this.dmaOffset).toString(2).length);
  }

  /** `phys_to_dma`. [linux v6.1 arch/powerpc/include/asm/dma-direct.h] */
  physToDma(physical: number): bigint {
    return BigInt(physical) + this.dmaOffset;
  }

  /** [linux v6.1 kernel/dma/mapping.c dma_go_direct] */
  dmaGoDirect(mask: bigint): boolean {
    if (!this.hasOps) return true;
    if (!this.dmaOpsBypass) return false;
    return minNotZero(mask, this.busDmaLimit) >= this.requiredMask;
  }

  /**
   * Whether a map of a buffer that ends at `physicalEnd` goes direct.
   * [linux v6.1 kernel/dma/mapping.c dma_map_page_attrs, arch_dma_map_page_direct]
   */
  mapsDirect(physicalEnd: number): boolean {
    return this.#streamsDirect() || this.archDmaMapPageDirect(physicalEnd);
  }

  /**
   * Whether an unmap goes direct; direct unmaps touch no IOMMU.
   * @param handleEnd - bus address plus length, as the kernel passes it.
   * [linux v6.1 kernel/dma/mapping.c dma_unmap_page_attrs, arch_dma_unmap_page_direct]
   */
  unmapsDirect(handleEnd: bigint): boolean {
    return this.#streamsDirect() || this.archDmaUnmapPageDirect(handleEnd);
  }

  /** [linux v6.1 kernel/dma/mapping.c dma_alloc_attrs; from 7.0 arch_dma_alloc_direct] */
  allocsDirect(): boolean {
    return this.#coherentDirect() || this.archDmaAllocDirect();
  }

  /** @param handle - the bus address. [linux v6.1 kernel/dma/mapping.c dma_free_attrs] */
  freesDirect(handle: bigint): boolean {
    return this.#coherentDirect() || (this.archDmaAllocDirect() && handle >= this.dmaOffset);
  }

  /** [linux v6.1 arch/powerpc/kernel/dma-iommu.c arch_dma_map_page_direct] */
  archDmaMapPageDirect(physicalEnd: number): boolean {
    if (!this.#rule.hasArchDirect || this.busDmaLimit === 0n) return false;
    return this.busDmaLimit >= this.physToDma(physicalEnd);
  }

  /**
   * Looks at the offset only: with an offset of 0 and a limit, every unmap is taken for direct.
   * [linux v6.1 arch/powerpc/kernel/dma-iommu.c arch_dma_unmap_page_direct]
   */
  archDmaUnmapPageDirect(handleEnd: bigint): boolean {
    if (!this.#rule.hasArchDirect || this.busDmaLimit === 0n) return false;
    return handleEnd >= this.dmaOffset;
  }

  /**
   * [linux commit 1471c517cf7d arch/powerpc/kernel/dma-iommu.c arch_dma_alloc_direct], with the limit
   * asked for as in its fix.
   */
  archDmaAllocDirect(): boolean {
    return this.#rule.hasArchAllocDirect && this.dmaOpsBypass && this.busDmaLimit !== 0n;
  }

  /**
   * Whether the device can address this. [linux v6.1 include/linux/dma-direct.h dma_capable]
   * @param address - on the bus.
   */
  dmaCapable(address: bigint, length: number): boolean {
    const end = address + BigInt(length) - 1n;
    return end <= minNotZero(this.streamingMask, this.busDmaLimit);
  }

  /** [linux v6.1 kernel/dma/direct.c dma_coherent_ok] */
  dmaCoherentOk(address: bigint, length: number): boolean {
    const end = address + BigInt(length) - 1n;
    return end <= minNotZero(this.coherentMask, this.busDmaLimit);
  }

  /**
   * Mappings that are made and never taken down: maps of memory go through the operations, and their
   * unmaps do not.
   */
  get leaksMappings(): boolean {
    const end = Number(this.#endOfMemory);
    return !this.mapsDirect(end) && this.unmapsDirect(1n);
  }

  #streamsDirect(): boolean {
    // Before 5.9 the mask was not asked about again. [linux v5.4 dma_iommu_map_bypass]
    if (this.#rule.bypass !== 'dma-ops-bypass') return !this.hasOps || this.dmaOpsBypass;
    return this.dmaGoDirect(this.streamingMask);
  }

  #coherentDirect(): boolean {
    return this.dmaGoDirect(this.coherentMask);
  }
}

/** [linux v6.1 include/linux/minmax.h min_not_zero] */
function minNotZero(a: bigint, b: bigint): bigint {
  if (a === 0n) return b;
  if (b === 0n) return a;
  return a < b ? a : b;
}
