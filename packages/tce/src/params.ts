/** Numbers of the pseries machine's IOMMU, as QEMU sets them. */

/** The device may read the page. [linux v6.1 arch/powerpc/include/asm/tce.h TCE_PCI_READ] */
export const TCE_READ = 1;
/** The device may write the page. [linux v6.1 arch/powerpc/include/asm/tce.h TCE_PCI_WRITE] */
export const TCE_WRITE = 2;

/** A PCI host bridge has at most this many DMA windows. [qemu v7.2 include/hw/pci-host/spapr.h] */
export const SPAPR_PCI_DMA_MAX_WINDOWS = 2;

/** Defaults of a PCI host bridge's properties. [qemu v7.2 hw/ppc/spapr_pci.c spapr_phb_properties] */
export const SPAPR_PHB_DEFAULTS = {
  /** Where the default window starts on the bus. */
  dmaWindowAddress: 0n,
  /** Size of the default window in bytes: 1 GiB. */
  dmaWindowSize: 0x4000_0000,
  /** Where a second window starts on the bus: 2^59. */
  dma64WindowAddress: 0x0800_0000_0000_0000n,
  /** Page sizes that a window can have, as a set of shifts: 4 KiB, 64 KiB, 2 MiB, 16 MiB. */
  pageSizeMask: 0x121_1000n,
} as const;

/** Page shift of the default window. [qemu v7.2 include/hw/ppc/spapr.h SPAPR_TCE_PAGE_SHIFT] */
export const SPAPR_TCE_PAGE_SHIFT = 12;

/** The LIOBN of a host bridge's window. [qemu v7.2 include/hw/ppc/spapr.h SPAPR_PCI_LIOBN] */
export function spaprPciLiobn(phbIndex: number, window: number): number {
  return (0x8000_0000 | (phbIndex << 8) | window) >>> 0;
}

/** Whether a LIOBN names a PCI window (otherwise a VIO device's). [qemu v7.2 include/hw/ppc/spapr.h] */
export function isPciLiobn(liobn: number): boolean {
  return (liobn & 0x8000_0000) !== 0;
}

/** The bus unit id of a host bridge. [qemu v7.2 hw/ppc/spapr.c spapr_phb_placement] */
export function spaprPhbBuid(phbIndex: number): bigint {
  return 0x0800_0000_2000_0000n + BigInt(phbIndex);
}
