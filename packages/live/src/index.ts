export type { Accident } from './conform/accidents.js';
export { ACCIDENTS } from './conform/accidents.js';
export type { CampaignOptions, CampaignResult } from './conform/campaign.js';
export { HcallCampaign } from './conform/campaign.js';
export type { CoverageRow } from './conform/coverage.js';
export type { Finding } from './conform/finding.js';
export type { Shape } from './conform/shapes.js';
export { startShape } from './conform/shapes.js';
export type { Side } from './conform/sides.js';
export { LiveSide } from './conform/sides.js';
export type {
  VirtioCampaignOptions,
  VirtioCampaignResult,
  VirtioCoverageRow,
  VirtioFinding,
} from './conform-virtio/campaign.js';
export { PACKED_ERROR, VirtioCampaign } from './conform-virtio/campaign.js';
export type { FaultComparison, FaultOutcome, FaultRow } from './conform-virtio/faults.js';
export { describeFault, FAULT_ROWS } from './conform-virtio/faults.js';
export { startVirtioMachine } from './conform-virtio/live-machine.js';
export { createModelVirtioSide } from './conform-virtio/model-side.js';
export type { VirtioShape } from './conform-virtio/shapes.js';
export { shapeName, VIRTIO_SHAPES } from './conform-virtio/shapes.js';
export type { VirtioSide } from './conform-virtio/sides.js';
export { SideGuest } from './conform-virtio/sides.js';
export type { LiveErrorCode } from './errors.js';
export { LiveError } from './errors.js';
export { RESERVED_MEMORY } from './layout.js';
export { LiveQemu } from './live-qemu.js';
export type { HcallBatches } from './mailbox.js';
export type { HostBridgeOptions, LiveQemuOptions } from './options.js';
export type { PciAddress } from './pci.js';
