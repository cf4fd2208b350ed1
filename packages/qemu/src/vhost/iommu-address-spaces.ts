import { hi32, lo32 } from '@pinhole/base';
import { type DmaSpace, DmaStatus, IOMMU_PAGE_SIZE, type IommuSpace } from '@pinhole/memory';
import type { SpaprPhb } from '@pinhole/tce';
import type { IommuAddressSpace } from './types.js';

/**
 * A pseries host bridge as vhost sees it. Each window has its notifier, from when it opens; the bridge
 * refuses DEVIOTLB_UNMAP, and vhost takes UNMAP. [qemu v7.2 hw/virtio/vhost.c vhost_iommu_region_add]
 */
export function phbIommu(phb: SpaprPhb): IommuAddressSpace {
  const out = { gpa: 0, length: 0 };
  return {
    name: phb.name,
    getIotlbEntry(iova, access) {
      const hi = hi32(iova);
      const lo = lo32(iova);
      if (phb.translate(hi, lo, 1, access, out) !== DmaStatus.OK) return undefined;
      const pageSize = phb.tableOf(hi, lo)?.pageSize ?? 1;
      // Both are cut at multiples of the page: off in a window that does not start at one, as in QEMU.
      const offset = iova % BigInt(pageSize);
      return { iova: iova - offset, gpa: out.gpa - (out.gpa % pageSize), size: BigInt(pageSize) };
    },
    addUnmapNotifier(notify) {
      const closers = phb.tables.map((table) => {
        let remove: (() => void) | undefined;
        const close = table.onOpen(() => {
          const { busOffset } = table;
          remove = table.addNotifier({
            types: ['UNMAP'],
            notify: ({ iova, addrMask }) => notify(busOffset + iova, addrMask + 1n),
          });
        });
        return () => {
          close();
          remove?.();
        };
      });
      return () => {
        for (const close of closers) close();
      };
    },
  };
}

/** QEMU's TARGET_PAGE_SIZE, for what is behind no IOMMU. */
const TARGET_PAGE_SIZE = 4096;

/**
 * A bus without an IOMMU that shows memory elsewhere, as vhost sees it. It is not system memory, which
 * is all that QEMU looks at: vhost gets an IOTLB, of 4 KiB pages that never change.
 * [qemu v7.2 hw/virtio/virtio-pci.c virtio_pci_iommu_enabled, softmmu/physmem.c flatview_do_translate]
 */
export function rangesIommu(bus: DmaSpace): IommuAddressSpace {
  const out = { gpa: 0, length: 0 };
  const size = BigInt(TARGET_PAGE_SIZE);
  return {
    name: bus.name,
    getIotlbEntry(iova, access) {
      if (bus.translate(hi32(iova), lo32(iova), 1, access, out) !== DmaStatus.OK) return undefined;
      return { iova: iova - (iova % size), gpa: out.gpa - (out.gpa % TARGET_PAGE_SIZE), size };
    },
    addUnmapNotifier: () => () => {},
  };
}

/** Any other emulated IOMMU as vhost sees it. */
export function spaceIommu(space: IommuSpace): IommuAddressSpace {
  const out = { gpa: 0, length: 0 };
  const size = BigInt(IOMMU_PAGE_SIZE);
  return {
    name: space.name,
    getIotlbEntry(iova, access) {
      if (space.translate(hi32(iova), lo32(iova), 1, access, out) !== DmaStatus.OK)
        return undefined;
      return { iova: iova - (iova % size), gpa: out.gpa - (out.gpa % IOMMU_PAGE_SIZE), size };
    },
    addUnmapNotifier: (notify) =>
      space.addNotifier({
        types: ['UNMAP'],
        notify: ({ iova, addrMask }) => notify(iova, addrMask + 1n),
      }),
  };
}
