/** Long runs of entries, as the second window is filled. */
import type { MemoryRegion } from '@pinhole/memory';
import { DmaDirection } from '@pinhole/memory';
import type { TceCalls, TceWindow } from './tce-calls.js';

/**
 * Maps a region 1:1 in whole pages; a last page that the region fills in part is left out.
 * [linux v6.1 arch/powerpc/platforms/pseries/iommu.c tce_setrange_multi_pSeriesLP]
 *
 * Deviates: a run of one entry is put by H_PUT_TCE here, by H_PUT_TCE_INDIRECT in the kernel.
 */
export function setTceRange(calls: TceCalls, window: TceWindow, region: MemoryRegion): boolean {
  const { first, npages, pageSize } = pagesOf(window, region);
  return calls.build(window, first, npages, first * pageSize, DmaDirection.BIDIRECTIONAL);
}

/** [linux v6.1 arch/powerpc/platforms/pseries/iommu.c tce_clearrange_multi_pSeriesLP] */
export function clearTceRange(calls: TceCalls, window: TceWindow, region: MemoryRegion): void {
  const { first, npages } = pagesOf(window, region);
  calls.free(window, first, npages);
}

function pagesOf(
  { pageShift }: TceWindow,
  { base, size }: MemoryRegion,
): { first: number; npages: number; pageSize: number } {
  const pageSize = 2 ** pageShift;
  const first = Math.floor(base / pageSize);
  return { first, npages: Math.floor((base + size) / pageSize) - first, pageSize };
}
