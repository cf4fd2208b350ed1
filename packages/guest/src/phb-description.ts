import type { Ioba } from '@pinhole/base';

/** What a guest reads in the device tree about one PCI host bridge's DMA. */
export interface PhbDescription {
  readonly buid: bigint;
  /** The node's path, for messages. */
  readonly path?: string;
  /** `ibm,dma-window`. */
  readonly dmaWindow: { readonly liobn: number; readonly busOffset: Ioba; readonly size: number };
  /** `ibm,ddw-applicable`: tokens of query, create, remove. Absent without dynamic windows. */
  readonly ddwApplicable?: readonly [number, number, number];
  /**
   * `ibm,ddw-extensions`, without its leading count: reset token, 1 if queries have 6 outputs, 1 for
   * limited-address mode.
   */
  readonly ddwExtensions?: readonly number[];
  /** The highest address that memory can have, from `ibm,lrdr-capacity`; 0 when it says so. */
  readonly lrdrMaxAddress: number;
  /** A node of type `ibm,pmemory` is in the tree. */
  readonly hasPersistentMemory?: boolean;
  /** Where 32-bit device memory is: kept free in a window that entries are allocated in. */
  readonly mmio32?: { readonly start: Ioba; readonly end: Ioba };
}
