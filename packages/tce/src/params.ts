/** Numbers of the pseries machine's IOMMU, as QEMU sets them. */
import { TceError } from './errors.js';

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

/** Where a device writes to interrupt: a page of the bus of each bridge. [qemu v7.2 include/hw/pci-host/spapr.h SPAPR_PCI_MSI_WINDOW] */
export const SPAPR_PCI_MSI_WINDOW = 0x400_0000_0000n;
/** Bytes of that page without KVM. [qemu v7.2 hw/ppc/spapr_pci.c spapr_phb_realize] */
export const SPAPR_PCI_MSI_WINDOW_SIZE = 4096;

/** A VIO device's window: 256 MiB of 4 KiB pages at 0. [qemu v7.2 hw/net/spapr_llan.c, hw/scsi/spapr_vscsi.c rtce_window_size] */
export const SPAPR_VIO_WINDOW_SIZE = 0x1000_0000;

/**
 * Where the second window starts in the limited-address mode of LoPAR 2.13: 4 GiB, for devices that
 * cannot put 2^59 on the bus. [linux v6.15 arch/powerpc/platforms/pseries/iommu.c limited_dma_window]
 */
export const LIMITED_ADDRESS_WINDOW = 0x1_0000_0000n;

/** What the type of the machine decides for its host bridges. */
export interface SpaprPhbDefaults {
  readonly ddw: boolean;
  /** As a set of shifts. */
  readonly pageSizeMask: bigint;
}

/**
 * The host bridges of a machine type: `pseries`, or `pseries-2.1` and later by version. Up to 2.6
 * there are no dynamic windows, up to 4.1 no 2 MiB and 16 MiB pages.
 * [qemu v7.2 hw/ppc/spapr.c spapr_machine_2_6_class_options, spapr_machine_4_1_class_options]
 * @throws TceError `E_MACHINE_TYPE`.
 */
export function spaprMachineDefaults(machineType: string): SpaprPhbDefaults {
  const version = /^pseries(?:-(\d{1,3})\.(\d{1,3}))?$/.exec(
    machineType === 'pseries-2.12-sxxm' ? 'pseries-2.12' : machineType,
  );
  const [, major, minor] = version ?? [];
  const isUpTo = (limit: number): boolean =>
    major !== undefined && Number(major) * 1000 + Number(minor) <= limit;
  if (version === null || isUpTo(2000)) {
    throw new TceError(
      'E_MACHINE_TYPE',
      `expected a machine type such as pseries, pseries-7.2 or pseries-2.6, found "${machineType}"`,
    );
  }
  return {
    ddw: !isUpTo(2006),
    pageSizeMask: isUpTo(4001) ? 0x1_1000n : SPAPR_PHB_DEFAULTS.pageSizeMask,
  };
}

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
