/** Buffers without an IOMMU: at their physical address, or in a bounce buffer. */
import { hex } from '@pinhole/base';
import { type AddressModel, type Disagreement, kernelAddress } from './address-model.js';
import type { BounceAddresses } from './bounce-addresses.js';
import { DMA_MAPPING_ERROR, type GuestOperation } from './guest-operations.js';

/** Options of {@link DirectAddresses}. */
export interface DirectAddressesOptions {
  readonly pageSize: number;
  /** Undefined: the trace has no bounced buffer. */
  readonly bounce: BounceAddresses | undefined;
  /** The guest bounces everything. */
  readonly isForced: boolean;
  /** The kernel's lowest address. */
  readonly kernelBegins: bigint;
  /**
   * log2 of what the kernel's linear map is aligned to: 30 on x86-64 and on arm64 with pages of 4 KiB,
   * where KASLR moves it by entries of 1 GiB. [linux v6.12 arch/x86/mm/kaslr.c
   * kernel_randomize_memory] [linux arch/arm64/mm/init.c arm64_memblock_init: ARM64_MEMSTART_ALIGN]
   */
  readonly linearMapShift: number;
}

/**
 * dma-direct: a bus address is the physical one, but for what the device cannot reach, or what the
 * guest never shows to it. [linux v6.12 kernel/dma/direct.h dma_direct_map_page]
 */
export class DirectAddresses implements AddressModel {
  readonly #options: DirectAddressesOptions;
  /** Where the kernel's linear map begins, as the first allocation tells. */
  #linearMap: bigint | undefined;

  constructor(options: DirectAddressesOptions) {
    this.#options = options;
  }

  begin(operation: GuestOperation): Disagreement | undefined {
    const { bounce, isForced } = this.#options;
    const { kind, bounced = [], gpa, dmaAddr } = operation;
    const [buffer, ...others] = bounced;
    if (kind === 'alloc') return this.#alloc(operation);
    if (buffer !== undefined && bounce !== undefined) {
      const wrong = bounce.begin(operation, buffer);
      if (wrong !== undefined || others.length === 0) return wrong;
      return {
        what: 'swiotlb_bounced',
        recorded: `${bounced.length} before one mapping`,
        model: '1',
      };
    }
    if (isForced) {
      return { what: 'bounce buffer', recorded: 'none', model: 'the guest bounces everything' };
    }
    if (gpa === undefined || dmaAddr === BigInt(gpa)) return undefined;
    const recorded = dmaAddr === DMA_MAPPING_ERROR ? 'no room' : hex(dmaAddr);
    return { what: 'address', recorded, model: hex(gpa) };
  }

  end(operation: GuestOperation): Disagreement | undefined {
    const { bounce } = this.#options;
    const [buffer] = operation.bounced ?? [];
    if (bounce?.contains(operation.dmaAddr) === true) bounce.end(operation);
    if (buffer === undefined) return undefined;
    return {
      what: 'swiotlb_bounced',
      recorded: `line ${buffer.line}`,
      model: 'no mapping after it',
    };
  }

  // Coherent memory is never bounced: it is allocated where the device reaches it.
  #alloc({ dmaAddr, virtAddr }: GuestOperation): Disagreement | undefined {
    const { pageSize, linearMapShift, kernelBegins } = this.#options;
    const page = BigInt(pageSize);
    if (dmaAddr % page !== 0n) {
      return { what: 'offset in the page', recorded: hex(dmaAddr % page), model: '0x0' };
    }
    if (virtAddr === undefined) return undefined;
    const kernel = kernelAddress(virtAddr, kernelBegins);
    if (kernel !== undefined) return kernel;
    const mask = (1n << BigInt(linearMapShift)) - 1n;
    const linearMap = BigInt.asUintN(64, virtAddr - dmaAddr);
    this.#linearMap ??= linearMap & ~mask;
    const model = BigInt.asUintN(64, virtAddr - this.#linearMap);
    return linearMap === this.#linearMap
      ? undefined
      : { what: 'address', recorded: hex(dmaAddr), model: hex(model) };
  }
}
