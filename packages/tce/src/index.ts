export type { TceErrorCode } from './errors.js';
export { TceError } from './errors.js';
export {
  isPciLiobn,
  SPAPR_PCI_DMA_MAX_WINDOWS,
  SPAPR_PHB_DEFAULTS,
  SPAPR_TCE_PAGE_SHIFT,
  spaprPciLiobn,
  spaprPhbBuid,
  TCE_READ,
  TCE_WRITE,
} from './params.js';
export { SpaprIommu } from './spapr-iommu.js';
export type { SpaprPhbOptions } from './spapr-phb.js';
export { SpaprPhb } from './spapr-phb.js';
export type { TceEvent, TceLookup } from './tce-table.js';
export { TceTable } from './tce-table.js';
