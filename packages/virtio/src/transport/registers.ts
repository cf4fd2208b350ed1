/**
 * A device's registers, as a driver reaches them: the seam between a modelled transport and a real
 * machine's configuration space and BARs. Values are what a little-endian bus carries, as PCI's.
 */

/** How many bytes one access moves. */
export type RegisterWidth = 1 | 2 | 4;

/** A run of registers: one BAR of a PCI function, or an MMIO device. */
export interface MmioRegion {
  /** In bytes. */
  readonly size: number;
  /** Reads an unsigned, little-endian value; `offset` is in bytes, a multiple of `width`. */
  read(offset: number, width: RegisterWidth): number;
  /** Writes the low bytes of `value`, little-endian. */
  write(offset: number, width: RegisterWidth, value: number): void;
}

/** A PCI function: its configuration space, and the BARs that firmware has placed. */
export interface PciFunction {
  /** For people: `0000:00:01.0`. */
  readonly name: string;
  /** Reads configuration space; nothing there reads as all ones. [PCI 3.0 §6.1] */
  configRead(offset: number, width: RegisterWidth): number;
  configWrite(offset: number, width: RegisterWidth, value: number): void;
  /** BAR `index` (0 to 5), of memory or I/O ports, or `undefined` where there is none. */
  bar(index: number): MmioRegion | undefined;
}
