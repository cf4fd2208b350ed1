/** Buffers behind an IOMMU that the kernel's generic code drives: each has an IOVA. */
import { hex } from '@pinhole/base';
import { type AddressModel, type Disagreement, differs, kernelAddress } from './address-model.js';
import { DMA_MAPPING_ERROR, type GuestOperation } from './guest-operations.js';
import type { IommuRanges, MappedRange } from './iommu-ranges.js';
import type { IovaForecast } from './iova-forecast.js';

const PAGE = 4096n;

/** Options of {@link IovaAddresses}. */
export interface IovaAddressesOptions {
  /** What the guest's trace says of its IOMMU; undefined: it has no `map` and `unmap`. */
  readonly ranges: IommuRanges | undefined;
  /** Predicts IOVAs; undefined: they are only checked against each other. */
  readonly forecast: IovaForecast | undefined;
  /** The kernel's lowest address. */
  readonly kernelBegins: bigint;
}

/**
 * dma-iommu: an IOVA keeps the offset in the page, and the pages behind it are mapped as long as the
 * buffer is. [linux v6.12 drivers/iommu/dma-iommu.c __iommu_dma_map, __iommu_dma_unmap]
 */
export class IovaAddresses implements AddressModel {
  readonly #options: IovaAddressesOptions;
  /** Unmappings after which the IOMMU still mapped the pages. */
  readonly leaks: { count: number; pages: number; first: GuestOperation | undefined } = {
    count: 0,
    pages: 0,
    first: undefined,
  };

  #hasBegun = false;
  /** Of coherent memory: physical addresses of its pages. */
  readonly #pages = new WeakMap<GuestOperation, readonly bigint[]>();

  constructor(options: IovaAddressesOptions) {
    this.#options = options;
  }

  begin(operation: GuestOperation): Disagreement | undefined {
    const { kind, gpa, dmaAddr, virtAddr } = operation;
    if (dmaAddr === DMA_MAPPING_ERROR) return undefined;
    const offset = kind === 'alloc' ? 0n : BigInt(gpa ?? 0) % PAGE;
    const wrong =
      (kind === 'map' && gpa === undefined
        ? undefined
        : differs('offset in the page', hex(dmaAddr % PAGE), hex(offset))) ??
      (virtAddr === undefined ? undefined : kernelAddress(virtAddr, this.#options.kernelBegins)) ??
      this.#covered(operation);
    return wrong ?? this.#doorbells() ?? this.#options.forecast?.begin(operation);
  }

  end(operation: GuestOperation): Disagreement | undefined {
    const { ranges, forecast } = this.#options;
    const { dmaAddr, size, isContinued } = operation;
    // The event of a list's unmapping comes before the IOMMU's.
    const end = isContinued === undefined ? dmaAddr + BigInt(size) : dmaAddr;
    let pages = 0;
    for (let at = dmaAddr - (dmaAddr % PAGE); at < end; ) {
      const range = ranges?.at(at);
      if (range === undefined) break;
      range.isOwned = false;
      pages += range.pages;
      at = endOf(range);
    }
    if (pages > 0) {
      this.leaks.count += 1;
      this.leaks.pages += pages;
      this.leaks.first ??= operation;
    }
    return forecast?.end(operation);
  }

  /** Physical addresses of the pages of coherent memory, if the trace has them. */
  pagesOf(operation: GuestOperation): readonly bigint[] | undefined {
    return this.#pages.get(operation);
  }

  // What was mapped before the device's first buffer, and is none: where its interrupts go, in the
  // kernel's order. [linux drivers/iommu/dma-iommu.c iommu_dma_get_msi_page]
  #doorbells(): Disagreement | undefined {
    if (this.#hasBegun) return undefined;
    this.#hasBegun = true;
    const { ranges, forecast } = this.#options;
    for (const { iova, pages } of ranges?.unowned() ?? []) {
      const size = pages * Number(PAGE);
      const wrong = forecast?.begin({ dmaAddr: iova, size });
      if (wrong !== undefined) return wrong;
    }
    return undefined;
  }

  // The IOMMU's ranges lie one behind the other under a buffer, and have its pages.
  #covered(operation: GuestOperation): Disagreement | undefined {
    const { ranges } = this.#options;
    if (ranges === undefined || ranges.isOverfull) return undefined;
    const { kind, dmaAddr, size, gpa, isMerged, isContinued } = operation;
    const start = dmaAddr - (dmaAddr % PAGE);
    const end = dmaAddr + BigInt(size);
    let at = start;
    while (at < end) {
      const range = ranges.at(at);
      if (range === undefined) {
        return { what: 'mapped pages', recorded: 'none', model: `a map of ${hex(at)}` };
      }
      if (range.isOwned && isContinued !== true) {
        return { what: 'address', recorded: hex(at), model: 'one that no other mapping has' };
      }
      if (gpa !== undefined && kind === 'map' && isMerged !== true) {
        const page = BigInt(gpa) - BigInt(gpa % Number(PAGE)) + (at - start);
        const behind = range.gpa + (at - range.iova);
        if (behind !== page) {
          return { what: 'map: paddr', recorded: hex(behind), model: hex(page) };
        }
      }
      at = endOf(range);
    }
    // Elements of a list may share a range.
    if (at - end >= PAGE && isContinued === undefined) {
      return {
        what: 'map: end',
        recorded: hex(at),
        model: hex(end + ((PAGE - (end % PAGE)) % PAGE)),
      };
    }
    const pages: bigint[] = [];
    for (let page = start; page < end; page += PAGE) {
      const range = ranges.at(page) as MappedRange;
      range.isOwned = true;
      if (kind === 'alloc') pages.push(range.gpa + (page - range.iova));
    }
    if (kind === 'alloc') this.#pages.set(operation, pages);
    return undefined;
  }
}

function endOf({ iova, pages }: MappedRange): bigint {
  return iova + BigInt(pages) * PAGE;
}
