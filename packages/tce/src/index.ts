export type { TceErrorCode } from './errors.js';
export { TceError } from './errors.js';
export type { TceEvent, TceNotifier } from './notifiers.js';
export type { SpaprPhbDefaults } from './params.js';
export {
  isPciLiobn,
  LIMITED_ADDRESS_WINDOW,
  SPAPR_PCI_DMA_MAX_WINDOWS,
  SPAPR_PCI_MSI_WINDOW,
  SPAPR_PCI_MSI_WINDOW_SIZE,
  SPAPR_PHB_DEFAULTS,
  SPAPR_TCE_PAGE_SHIFT,
  SPAPR_VIO_WINDOW_SIZE,
  spaprMachineDefaults,
  spaprPciLiobn,
  spaprPhbBuid,
  TCE_READ,
  TCE_WRITE,
} from './params.js';
export type {
  SavedEntries,
  SavedIommu,
  SavedPhb,
  SavedTable,
  SavedVioDevice,
} from './saved-state.js';
export type { SpaprIommuOptions } from './spapr-iommu.js';
export { SpaprIommu } from './spapr-iommu.js';
export type { SpaprPhbOptions } from './spapr-phb.js';
export { SpaprPhb } from './spapr-phb.js';
export type { SpaprVioDeviceOptions } from './spapr-vio-device.js';
export { SpaprVioDevice } from './spapr-vio-device.js';
export type { TceLookup } from './tce-table.js';
export { TceTable } from './tce-table.js';
