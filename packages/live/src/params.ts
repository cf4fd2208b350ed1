/** Numbers of the pseries machine that the model's packages have no use for. */

/** Cache-inhibited access to devices: hypercalls. [qemu v7.2 include/hw/ppc/spapr.h] */
export const H_LOGICAL_CI_LOAD = 0x3c;
export const H_LOGICAL_CI_STORE = 0x40;

/** Configuration space: RTAS tokens. [qemu v7.2 include/hw/ppc/spapr.h] */
export const RTAS_IBM_READ_PCI_CONFIG = 0x2016;
export const RTAS_IBM_WRITE_PCI_CONFIG = 0x2017;

/**
 * The bridge with index n has its 32-bit memory window at SPAPR_PCI_BASE + (n + 1) * 2 GiB; there
 * PCI addresses from 2 GiB to 4 GiB are found. So in machines from pseries-2.8 on.
 * [qemu v7.2 include/hw/pci-host/spapr.h, hw/ppc/spapr.c spapr_phb_placement]
 */
export const SPAPR_PCI_BASE = 0x2000_0000_0000n;
export const PCI_MEM32_BASE = 0x8000_0000;
export const PCI_MEM32_SIZE = 0x8000_0000;
/** Its I/O window is at SPAPR_PCI_BASE + n * 64 KiB. [qemu v7.2 include/hw/pci-host/spapr.h SPAPR_PCI_IO_WIN_SIZE] */
export const PCI_IO_SIZE = 0x1_0000;

/** The oldest QEMU that this is tested with: major, minor. */
export const QEMU_MIN: readonly [number, number] = [7, 2];
/** Guest memory where none is asked for, in bytes. */
export const DEFAULT_MEMORY: number = 256 * 2 ** 20;
/** Bound of each wait where none is given. */
export const DEFAULT_TIMEOUT_MS = 10_000;
/** How long QEMU may take to end by itself, with its disks in order. */
export const QUIT_MS = 2_000;
