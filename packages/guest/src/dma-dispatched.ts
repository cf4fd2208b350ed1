import { type Gpa, type HiLo, joinU64 } from '@pinhole/base';
import type { DmaDirection, DmaOps } from '@pinhole/memory';
import type { DmaDispatch } from './dma-dispatch.js';

/** Options of {@link createDispatchedDmaOps}. */
export interface DispatchedDmaOptions {
  readonly dispatch: DmaDispatch;
  readonly direct: DmaOps;
  /** The device's own operations. Absent: it has none. */
  readonly ops?: DmaOps;
  /** Where memory ends: decides the name. */
  readonly endOfMemory: number;
}

/**
 * The generic DMA calls of one device: each asks the dispatch which way it goes.
 * [linux v6.1 kernel/dma/mapping.c dma_map_page_attrs, dma_unmap_page_attrs, dma_alloc_attrs]
 */
export function createDispatchedDmaOps(options: DispatchedDmaOptions): DmaOps {
  const { dispatch, direct, ops = direct, endOfMemory } = options;
  // [linux v6.1 kernel/dma/mapping.c dma_max_mapping_size] asks by the masks alone.
  const maxMappingSize = dispatch.dmaGoDirect(dispatch.streamingMask)
    ? direct.maxMappingSize
    : ops.maxMappingSize;
  return {
    name: dispatch.mapsDirect(endOfMemory) ? direct.name : ops.name,
    maxMappingSize,
    map(gpa: Gpa, length: number, direction: DmaDirection, out: HiLo): boolean {
      const way = dispatch.mapsDirect(gpa + length) ? direct : ops;
      return way.map(gpa, length, direction, out);
    },
    unmap(hi: number, lo: number, length: number, direction: DmaDirection): void {
      const isDirect = dispatch.unmapsDirect(joinU64(hi, lo) + BigInt(length));
      (isDirect ? direct : ops).unmap(hi, lo, length, direction);
    },
    allocCoherent(length: number, out: HiLo): Gpa | undefined {
      return (dispatch.allocsDirect() ? direct : ops).allocCoherent(length, out);
    },
    freeCoherent(gpa: Gpa, hi: number, lo: number, length: number): void {
      const isDirect = dispatch.freesDirect(joinU64(hi, lo));
      (isDirect ? direct : ops).freeCoherent(gpa, hi, lo, length);
    },
  };
}
