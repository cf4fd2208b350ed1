/**
 * The two views of an address on the bus: the device's (`DmaSpace`, what the hardware makes of
 * it) and the guest's (`DmaOps`, how the kernel obtained it). They meet nowhere in code: that they
 * agree is what a run shows.
 */
import type { Gpa, HiLo } from '@pinhole/base';

/** What a device wants to do with memory. */
export const DmaAccess = { READ: 1, WRITE: 2 } as const;
export type DmaAccess = (typeof DmaAccess)[keyof typeof DmaAccess];

/** How a translation ended. */
export const DmaStatus = {
  /** Memory, with the permission that was asked for. */
  OK: 0,
  /** Nothing answers at this bus address: no window, no memory. */
  NOTHING_THERE: 1,
  /** A window covers the address but holds no (sufficient) permission for this page. */
  NO_PERMISSION: 2,
  /** A window translated the address to a guest-physical address that is no memory. */
  NOT_MEMORY: 3,
  /** A write here is an interrupt (MSI), not data; nothing can be read. */
  INTERRUPT: 4,
} as const;
export type DmaStatus = (typeof DmaStatus)[keyof typeof DmaStatus];

/** Filled in by `DmaSpace.translate`; the caller keeps and reuses one. */
export interface Translation {
  /** The first byte, guest-physical. Meaningful only when the status is OK. */
  gpa: Gpa;
  /** How many bytes, at most the length asked for, follow contiguously in the same mapping. */
  length: number;
}

/** A device's view of memory. [qemu v7.2 softmmu/physmem.c flatview_translate] */
export interface DmaSpace {
  /** For people: `system memory`, `PCI bus 0x800000020000000`. */
  readonly name: string;
  /** True when an address here is a guest-physical address and nothing has to be looked up. */
  readonly isIdentity: boolean;
  /** Translates the bus address `hi`:`lo`. */
  translate(hi: number, lo: number, length: number, access: DmaAccess, out: Translation): DmaStatus;
  /** Whether any window or memory answers at all from here, whatever its entries hold. */
  covers(hi: number, lo: number, length: number): boolean;
  /**
   * For who translates the same page again and again, such as that of a ring: a number that is
   * another one as soon as any translation that succeeded might end differently. Absent, or
   * undefined for now, where each must be asked for: it has an effect that somebody sees.
   */
  readonly generation?: number | undefined;
  /** A translation was remembered and not asked for: for the statistics. There if `generation` is. */
  countRemembered?(): void;
}

/** The direction of a mapping, numbered as Linux numbers it. [linux v6.1 include/linux/dma-direction.h] */
export const DmaDirection = { BIDIRECTIONAL: 0, TO_DEVICE: 1, FROM_DEVICE: 2 } as const;
export type DmaDirection = (typeof DmaDirection)[keyof typeof DmaDirection];

/** How a guest kernel gives memory to a device. [linux v6.1 include/linux/dma-map-ops.h dma_map_ops] */
export interface DmaOps {
  /** As people speak of it: `dma-direct`, `dma-iommu`, `swiotlb`, `none (physical)`. */
  readonly name: string;
  /**
   * Makes `length` bytes at `gpa` visible to the device and puts the bus address into `out`.
   * False is Linux's DMA_MAPPING_ERROR: no room; nothing is mapped then.
   */
  map(gpa: Gpa, length: number, direction: DmaDirection, out: HiLo): boolean;
  /** Ends a mapping; `hi`:`lo` is the address that `map` gave. */
  unmap(hi: number, lo: number, length: number, direction: DmaDirection): void;
  /** Memory that both sides use at once (rings), zeroed. `undefined`: no room. */
  allocCoherent(length: number, out: HiLo): Gpa | undefined;
  freeCoherent(gpa: Gpa, hi: number, lo: number, length: number): void;
  /** The largest single mapping in bytes; drivers limit their segments to it. */
  readonly maxMappingSize: number;
}
