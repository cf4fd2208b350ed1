import { type Ioba, joinNumber, joinU64 } from '@pinhole/base';
import { decodeCells, type FdtNode, findProperty } from '@pinhole/fdt';

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

/**
 * Reads a host bridge's description out of a device tree: the only way a guest hears of it.
 * [linux v6.1 arch/powerpc/platforms/pseries/iommu.c pci_dma_find, ddw_memory_hotplug_max]
 * @param path - of the bridge's node; default: the first `/pci@...`.
 * @throws FdtError `E_FDT_VALUE` when a property has another form than PAPR gives it.
 * @returns undefined when there is no such node, or it has no window.
 */
export function readPhbDescription(root: FdtNode, path = '/pci'): PhbDescription | undefined {
  const node = root.children.find(
    ({ name }) => `/${name}` === path || `/${name}`.startsWith(`${path}@`),
  );
  if (node === undefined) return undefined;
  const cells = (name: string): number[] | undefined => {
    const property = findProperty(node, name);
    return property === undefined ? undefined : decodeCells(property.value);
  };
  const reg = cells('reg') ?? [];
  const window = cells('ibm,dma-window');
  if (window === undefined) return undefined;
  const [liobn = 0, busHi = 0, busLo = 0, sizeHi = 0, sizeLo = 0] = window;
  const applicable = cells('ibm,ddw-applicable');
  const extensions = cells('ibm,ddw-extensions');
  return {
    buid: joinU64(reg[0] ?? 0, reg[1] ?? 0),
    path: `/${node.name}`,
    dmaWindow: { liobn, busOffset: joinU64(busHi, busLo), size: joinNumber(sizeHi, sizeLo) },
    ...(applicable === undefined || applicable.length < 3
      ? {}
      : { ddwApplicable: [applicable[0]!, applicable[1]!, applicable[2]!] as const }),
    ...(extensions === undefined ? {} : { ddwExtensions: extensions.slice(1) }),
    lrdrMaxAddress: readLrdrMaxAddress(root),
  };
}

function readLrdrMaxAddress(root: FdtNode): number {
  const rtas = root.children.find(({ name }) => name === 'rtas');
  const capacity = rtas && findProperty(rtas, 'ibm,lrdr-capacity');
  const [hi = 0, lo = 0] = capacity === undefined ? [] : decodeCells(capacity.value);
  return joinNumber(hi, lo);
}
