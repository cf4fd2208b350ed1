import type { Gpa } from '@pinhole/base';
import type { DmaDirection } from '@pinhole/memory';
import { iommuMapping, iommuPagesTouched } from './dma-iommu.js';
import type { IommuTable } from './iommu-table.js';
import type { TceCalls } from './tce-calls.js';

/** What {@link iommuMapSg} works with. */
export interface MapSgOptions {
  readonly table: IommuTable;
  readonly tceCalls: TceCalls;
  /** Bytes of a guest page. */
  readonly guestPageSize: number;
  readonly cpu: number;
  /** The device's streaming mask. Default: any address. */
  readonly mask?: bigint;
  /** Bytes of a merged segment at most. Default: 64 KiB. [linux v6.1 include/linux/dma-mapping.h dma_get_max_seg_size] */
  readonly maxSegSize?: number;
  /** `iommu=novmerge`. */
  readonly novmerge?: boolean;
}

/** A piece of a scatter list. */
export interface SgElement {
  readonly gpa: Gpa;
  readonly length: number;
}

/** A segment as the device gets it. */
export interface SgSegment {
  readonly address: bigint;
  readonly length: number;
}

/**
 * Maps a scatter list: each element has its own entries and hypercalls, searched for from where the
 * one before ended; neighbours on the bus become one segment. virtio does not use it: it maps each
 * element by itself. [linux v6.1 arch/powerpc/kernel/iommu.c ppc_iommu_map_sg]
 * @returns `undefined`: no room, and what was mapped is undone.
 */
export function iommuMapSg(
  options: MapSgOptions,
  elements: readonly SgElement[],
  direction: DmaDirection,
): SgSegment[] | undefined {
  const { table, tceCalls, guestPageSize, cpu, mask, maxSegSize = 65_536 } = options;
  const segments: { address: bigint; length: number }[] = [];
  const pageSize = 2 ** table.pageShift;
  let handle: number | undefined;
  let next: bigint | undefined;
  for (const { gpa, length } of elements) {
    if (length === 0) {
      next = undefined;
      continue;
    }
    const { npages, alignOrder } = iommuMapping(gpa, length, guestPageSize, table.pageShift);
    const entry = table.alloc(npages, alignOrder, cpu, {
      ...(handle === undefined ? {} : { handle }),
      ...(mask === undefined ? {} : { mask }),
    });
    // A failed build leaves its own entries taken, as in the kernel: only segments are given back.
    if (entry < 0 || !tceCalls.build(table, entry, npages, gpa, direction)) {
      iommuUnmapSg(options, segments);
      return undefined;
    }
    handle = entry + npages;
    const address = table.busOffset + BigInt(entry * pageSize + (gpa % pageSize));
    const last = segments.at(-1);
    const canMerge =
      last !== undefined &&
      options.novmerge !== true &&
      address === next &&
      last.length + length <= maxSegSize;
    if (canMerge) last.length += length;
    else segments.push({ address, length });
    next = address + BigInt(length);
  }
  return segments;
}

/** Ends what {@link iommuMapSg} mapped. [linux v6.1 arch/powerpc/kernel/iommu.c ppc_iommu_unmap_sg] */
export function iommuUnmapSg(
  { table, tceCalls }: MapSgOptions,
  segments: readonly SgSegment[],
): void {
  for (const { address, length } of segments) {
    const offset = Number(address - table.busOffset);
    const npages = iommuPagesTouched(offset, length, table.pageShift);
    const entry = Math.floor(offset / 2 ** table.pageShift);
    tceCalls.free(table, entry, npages);
    table.free(entry, npages);
  }
}
