import type { Gpa } from '@pinhole/base';
import { IOMMU_PAGE_SIZE, type IommuSpace } from '@pinhole/memory';

/**
 * A kernel's driver of an IOMMU, as the generic code uses it. In page frames of the bus.
 * [linux v6.1 include/linux/iommu.h iommu_domain_ops]
 */
export interface IommuDriver {
  readonly name: string;
  /** False: it cannot be mapped, and nothing is. */
  map(pfn: number, gpa: Gpa, count: number, perm: number): boolean;
  unmap(pfn: number, count: number): void;
  /** Makes an unmap hold, at once. */
  iotlbSync(pfn: number, count: number): void;
  /** Makes all unmaps hold. */
  flushIotlbAll(): void;
  readonly counts: IommuCounts;
  /** A flush of everything is as dear as the unmaps that it makes hold: `shadow_on_flush`. */
  readonly hasShadowOnFlush: boolean;
  /** Pages that are unmapped by requests which the device has not been told of yet. */
  readonly waitingPages: number;
}

/** What a driver did. */
export interface IommuCounts {
  /** Ranges that were mapped and unmapped. */
  readonly maps: number;
  readonly unmaps: number;
  /**
   * What it had the hypervisor do: invalidation commands, requests. Not the waits for them that go
   * with each.
   */
  readonly commands: number;
}

abstract class CountingDriver {
  readonly hasShadowOnFlush: boolean = false;
  readonly waitingPages: number = 0;
  readonly counts: { maps: number; unmaps: number; commands: number } = {
    maps: 0,
    unmaps: 0,
    commands: 0,
  };
  protected readonly hardware: IommuSpace;

  constructor(hardware: IommuSpace) {
    this.hardware = hardware;
  }
}

/** Options of {@link createIntelIommuDriver}. */
export interface IntelIommuOptions {
  readonly hardware: IommuSpace;
  /** The hypervisor asks to be told of new mappings, too: QEMU's `caching-mode=on`. Default: no. */
  readonly hasCachingMode?: boolean;
}

/**
 * VT-d: page tables that the hardware walks, so a map costs no command, and page-selective
 * invalidations. [linux v6.1 drivers/iommu/intel/iommu.c iommu_flush_iotlb_psi, intel_flush_iotlb_all,
 * __mapping_notify_one]
 */
export function createIntelIommuDriver(options: IntelIommuOptions): IommuDriver {
  return new IntelIommuDriver(options);
}

class IntelIommuDriver extends CountingDriver implements IommuDriver {
  readonly name = 'intel-iommu';
  readonly #hasCachingMode: boolean;

  constructor(options: IntelIommuOptions) {
    super(options.hardware);
    this.#hasCachingMode = options.hasCachingMode ?? false;
  }

  map(pfn: number, gpa: Gpa, count: number, perm: number): boolean {
    if (!this.hardware.map(pfn, gpa, count, perm)) return false;
    this.counts.maps += 1;
    if (this.#hasCachingMode) this.counts.commands += 1;
    return true;
  }

  unmap(pfn: number, count: number): void {
    this.counts.unmaps += 1;
    this.hardware.unmap(pfn, count);
  }

  iotlbSync(pfn: number, count: number): void {
    this.counts.commands += 1;
    // The command names a power of two of pages, aligned to it: more than asked for.
    let block = 2 ** Math.ceil(Math.log2(count));
    while (Math.floor(pfn / block) !== Math.floor((pfn + count - 1) / block)) block *= 2;
    this.hardware.invalidate(Math.floor(pfn / block) * block, block);
  }

  flushIotlbAll(): void {
    this.counts.commands += 1;
    this.hardware.invalidateAll();
  }
}

/**
 * SMMUv3 with range invalidation, as QEMU has it: page tables that the hardware walks; a range takes
 * a command for each five bits of its number of pages. [linux v6.1 drivers/iommu/arm/arm-smmu-v3/
 * arm-smmu-v3.c __arm_smmu_tlb_inv_range, arm_smmu_tlb_inv_context]
 */
export function createSmmuV3Driver(options: { readonly hardware: IommuSpace }): IommuDriver {
  return new SmmuV3Driver(options.hardware);
}

class SmmuV3Driver extends CountingDriver implements IommuDriver {
  readonly name = 'smmuv3';

  map(pfn: number, gpa: Gpa, count: number, perm: number): boolean {
    if (!this.hardware.map(pfn, gpa, count, perm)) return false;
    this.counts.maps += 1;
    return true;
  }

  unmap(pfn: number, count: number): void {
    this.counts.unmaps += 1;
    this.hardware.unmap(pfn, count);
  }

  iotlbSync(pfn: number, count: number): void {
    let at = pfn;
    for (let left = count; left > 0; ) {
      let scale = 1;
      while (left % (scale * 2) === 0) scale *= 2;
      const part = (Math.floor(left / scale) % 32) * scale;
      this.counts.commands += 1;
      this.hardware.invalidate(at, part);
      at += part;
      left -= part;
    }
  }

  flushIotlbAll(): void {
    this.counts.commands += 1;
    this.hardware.invalidateAll();
  }
}

/** QEMU's queue has 256 entries, two for a request. [qemu v7.2 hw/virtio/virtio-iommu.c] */
const REQUESTS_OF_QUEUE = 128;

/** Options of {@link createVirtioIommuDriver}. */
export interface VirtioIommuOptions {
  readonly hardware: IommuSpace;
  /**
   * UNMAP requests wait in the queue until something else is sent, or all is flushed. Only kernels
   * that defer do so. Default: no.
   */
  readonly isDeferred?: boolean;
}

/**
 * virtio-iommu: a request for each map and each unmap; there is no page table that the hypervisor
 * could walk. A mapping is cut where its page size changes, as QEMU offers all sizes from 4 KiB.
 * [linux v6.1 drivers/iommu/virtio-iommu.c viommu_map_pages, viommu_unmap_pages; drivers/iommu/iommu.c
 * iommu_pgsize]
 */
export function createVirtioIommuDriver(options: VirtioIommuOptions): IommuDriver {
  return new VirtioIommuDriver(options);
}

class VirtioIommuDriver extends CountingDriver implements IommuDriver {
  readonly name = 'virtio-iommu';
  override readonly hasShadowOnFlush = true;
  override waitingPages = 0;
  readonly #isDeferred: boolean;
  /** Pages of each MAP request, by its first page: an UNMAP cannot split one. */
  readonly #requests = new Map<number, number>();
  #waiting: { readonly pfn: number; readonly count: number }[] = [];

  constructor(options: VirtioIommuOptions) {
    super(options.hardware);
    this.#isDeferred = options.isDeferred ?? false;
  }

  map(pfn: number, gpa: Gpa, count: number, perm: number): boolean {
    this.#kick();
    const first = Math.floor(gpa / IOMMU_PAGE_SIZE);
    for (let done = 0; done < count; ) {
      const part = runOfOnePageSize(pfn + done, first + done, count - done);
      this.counts.commands += 1;
      const at = gpa + done * IOMMU_PAGE_SIZE;
      if (!this.hardware.map(pfn + done, at, part, perm)) {
        if (done > 0) this.#sendUnmaps(pfn, done);
        this.#kick();
        return false;
      }
      this.#requests.set(pfn + done, part);
      done += part;
    }
    this.counts.maps += 1;
    return true;
  }

  unmap(pfn: number, count: number): void {
    this.counts.unmaps += 1;
    this.#sendUnmaps(pfn, count);
    if (!this.#isDeferred) this.#kick();
  }

  iotlbSync(): void {
    this.#kick();
  }

  flushIotlbAll(): void {
    this.#kick();
  }

  #sendUnmaps(pfn: number, count: number): void {
    for (let done = 0; done < count; ) {
      const wanted = runOfOnePageSize(pfn + done, pfn + done, count - done);
      let part = 0;
      while (part < wanted) {
        const request = this.#requests.get(pfn + done + part);
        if (request === undefined) break;
        this.#requests.delete(pfn + done + part);
        part += request;
      }
      if (part === 0) return;
      this.counts.commands += 1;
      this.#waiting.push({ pfn: pfn + done, count: part });
      this.waitingPages += part;
      if (this.#waiting.length === REQUESTS_OF_QUEUE) this.#kick();
      done += part;
    }
  }

  #kick(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    this.waitingPages = 0;
    for (const { pfn, count } of waiting) this.hardware.unmap(pfn, count);
  }
}

/**
 * How many of `count` pages one call of the driver takes: those of one page size, the largest that
 * both addresses are aligned to. [linux v6.1 drivers/iommu/iommu.c iommu_pgsize]
 */
function runOfOnePageSize(iovaPage: number, page: number, count: number): number {
  let size = 1;
  const isAligned = (to: number): boolean => iovaPage % to === 0 && page % to === 0;
  while (size * 2 <= count && isAligned(size * 2)) size *= 2;
  const next = size * 2;
  // A larger size is no use where the two addresses lie differently in it.
  if (iovaPage % next !== page % next) return Math.floor(count / size) * size;
  const offset = next - (iovaPage % next);
  return offset + next <= count ? offset : Math.floor(count / size) * size;
}
