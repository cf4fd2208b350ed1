/** The nodes of a pseries machine's device tree that tell a guest about DMA. */
import { createNode, type FdtNode, type FdtValue } from '@pinhole/fdt';
import type { SpaprIommu, SpaprPhb, SpaprVioDevice } from '@pinhole/tce';
import { RTAS_TOKENS } from './params.js';

/** What the IOMMU does not know of its machine. */
export interface DmaDeviceTreeOptions {
  readonly machineType: string;
  readonly cpus: number;
  /** Where memory that is added could end, in bytes. */
  readonly lrdrMaxAddress: number;
}

/** Memory is added in blocks of this many bytes. [qemu v7.2 include/hw/ppc/spapr.h SPAPR_MEMORY_BLOCK_SIZE] */
const MEMORY_BLOCK_SIZE = 0x1000_0000n;

/** Sets of hypercalls that QEMU offers under TCG, in its order. [qemu v7.2 hw/ppc/spapr.c spapr_dt_rtas] */
const HYPERTAS_FUNCTIONS = [
  'hcall-pft',
  'hcall-term',
  'hcall-dabr',
  'hcall-interrupt',
  'hcall-tce',
  'hcall-vio',
  'hcall-splpar',
  'hcall-join',
  'hcall-bulk',
  'hcall-set-mode',
  'hcall-sprg0',
  'hcall-copy',
  'hcall-debug',
  'hcall-vphn',
  'hcall-multi-tce',
  'hcall-hpt-resize',
  'hcall-watchdog',
];

/** Makes the tree. */
export function createDmaDeviceTree(iommu: SpaprIommu, options: DmaDeviceTreeOptions): FdtNode {
  return createNode('', {}, [
    createRtasNode(options),
    ...iommu.phbs.map(createPhbNode),
    createVdeviceNode(iommu.vio),
  ]);
}

function createRtasNode({ machineType, cpus, lrdrMaxAddress }: DmaDeviceTreeOptions): FdtNode {
  const hasHptResize = !/^pseries-2\.[0-9]$/.test(machineType);
  return createLibfdtNode('rtas', {
    'ibm,hypertas-functions': HYPERTAS_FUNCTIONS.filter(
      (name) => name !== 'hcall-hpt-resize' || hasHptResize,
    ),
    'ibm,lrdr-capacity': [...u64(BigInt(lrdrMaxAddress)), ...u64(MEMORY_BLOCK_SIZE), cpus],
    ...RTAS_TOKENS,
  });
}

// [qemu v7.2 hw/ppc/spapr_pci.c spapr_dt_phb]
function createPhbNode(phb: SpaprPhb): FdtNode {
  const ddw: Record<string, FdtValue> = {
    'ibm,ddw-applicable': [
      RTAS_TOKENS['ibm,query-pe-dma-window'],
      RTAS_TOKENS['ibm,create-pe-dma-window'],
      RTAS_TOKENS['ibm,remove-pe-dma-window'],
    ],
    // How many follow; the reset call; 1: a query can have 6 outputs; 1: the limited-address mode.
    'ibm,ddw-extensions': phb.hasLimitedAddressMode
      ? [3, RTAS_TOKENS['ibm,reset-pe-dma-window'], 1, 1]
      : [2, RTAS_TOKENS['ibm,reset-pe-dma-window'], 1],
  };
  const [table] = phb.tables;
  const { liobn = 0, busOffset = 0n, nbTable = 0, pageSize = 0 } = table ?? {};
  return createLibfdtNode(`pci@${phb.buid.toString(16)}`, {
    reg: [...u64(phb.buid), 0, 0],
    ...(phb.hasDdw ? ddw : {}),
    ...dmaWindow('ibm,dma-window', liobn, busOffset, nbTable * pageSize),
  });
}

// By address, whatever the order on the command line.
// [qemu v7.2 hw/ppc/spapr_vio.c spapr_dt_vdevice, vio_make_devnode]
function createVdeviceNode(devices: readonly SpaprVioDevice[]): FdtNode {
  const ascending = [...devices].sort((a, b) => a.reg - b.reg);
  const nodes = ascending.map(({ name, reg, table }) =>
    createLibfdtNode(name, {
      reg: [reg],
      ...(table === undefined
        ? {}
        : dmaWindow('ibm,my-dma-window', table.liobn, 0n, table.nbTable * table.pageSize)),
    }),
  );
  return createLibfdtNode('vdevice', { '#address-cells': 1, '#size-cells': 0 }, nodes);
}

/**
 * A node whose properties are given in the order in which QEMU sets them: libfdt puts each new one
 * before those that are there, as the trees in test/vectors show.
 */
function createLibfdtNode(
  name: string,
  properties: Readonly<Record<string, FdtValue>>,
  children: FdtNode[] = [],
): FdtNode {
  const node = createNode(name, properties, children);
  return { ...node, properties: node.properties.reverse() };
}

// The size is cut to 32 bits, as QEMU does. [qemu v7.2 hw/ppc/spapr_iommu.c spapr_dma_dt]
function dmaWindow(
  name: string,
  liobn: number,
  busOffset: bigint,
  size: number,
): Record<string, FdtValue> {
  return {
    'ibm,#dma-address-cells': 2,
    'ibm,#dma-size-cells': 2,
    [name]: [liobn, ...u64(busOffset), 0, size % 2 ** 32],
  };
}

function u64(value: bigint): [hi: number, lo: number] {
  return [Number(value >> 32n), Number(value & 0xffff_ffffn)];
}
