export type { DdwDevice, DdwResult, DynamicDmaWindowsOptions } from './ddw.js';
export { DynamicDmaWindows } from './ddw.js';
export type { DecisionStep } from './decision-step.js';
export { formatStep } from './decision-step.js';
export type { DirectDmaOptions, DmaLimits } from './dma-direct.js';
export { createDirectDmaOps } from './dma-direct.js';
export type { DmaDispatchOptions } from './dma-dispatch.js';
export { DmaDispatch, dmaBitMask } from './dma-dispatch.js';
export type { DispatchedDmaOptions } from './dma-dispatched.js';
export { createDispatchedDmaOps } from './dma-dispatched.js';
export type { IommuDmaOptions, IommuMapping } from './dma-iommu.js';
export {
  createIommuDmaOps,
  iommuCoherent,
  iommuMapping,
  iommuPagesTouched,
} from './dma-iommu.js';
export type { MapSgOptions, SgElement, SgSegment } from './dma-map-sg.js';
export { iommuMapSg, iommuUnmapSg } from './dma-map-sg.js';
export { createPhysicalDmaOps } from './dma-none.js';
export type { BlkCommand, BlkOutcome, BlkRequest, SectorRange } from './drivers/blk/blk-request.js';
export type { QueueLimits } from './drivers/blk/block-layer.js';
export { splitTransfer } from './drivers/blk/block-layer.js';
export type {
  ProbeResult,
  RangeLimits,
  SubmitOptions,
  VirtioBlkDriverOptions,
} from './drivers/blk/virtio-blk-driver.js';
export { isBlkSuccess, probeVirtioBlk, VirtioBlkDriver } from './drivers/blk/virtio-blk-driver.js';
export type { GuestPort } from './drivers/console/guest-port.js';
export type {
  ConsoleProbeResult,
  VirtioConsoleDriverOptions,
} from './drivers/console/virtio-console-driver.js';
export {
  probeVirtioConsole,
  VirtioConsoleDriver,
} from './drivers/console/virtio-console-driver.js';
export type {
  InterruptListener,
  OpenResult,
  VirtioDriverOptions,
} from './drivers/driver-context.js';
export { DriverContext, InterruptWork, openDevice, takeUsed } from './drivers/driver-context.js';
export type { NetProbeResult, VirtioNetDriverOptions } from './drivers/net/virtio-net-driver.js';
export { probeVirtioNet, VirtioNetDriver } from './drivers/net/virtio-net-driver.js';
export type { RngProbeResult } from './drivers/rng/virtio-rng-driver.js';
export { probeVirtioRng, VirtioRngDriver } from './drivers/rng/virtio-rng-driver.js';
export type { GuestPagesOptions, GuestRun } from './guest-pages.js';
export { GuestPages } from './guest-pages.js';
export type { IommuCommandLine } from './iommu-command-line.js';
export { parseIommuCommandLine } from './iommu-command-line.js';
export type {
  IntelIommuOptions,
  IommuCounts,
  IommuDriver,
  VirtioIommuOptions,
} from './iommu-driver.js';
export {
  createIntelIommuDriver,
  createSmmuV3Driver,
  createVirtioIommuDriver,
} from './iommu-driver.js';
export type { IommuAllocOptions, IommuTableOptions } from './iommu-table.js';
export { IommuTable } from './iommu-table.js';
export type { IovaDmaOptions } from './iova-dma.js';
export { IovaDma } from './iova-dma.js';
export type { IovaDomainOptions } from './iova-domain.js';
export { IovaDomain } from './iova-domain.js';
export type { IovaFlushQueueOptions } from './iova-flush-queue.js';
export { IOVA_FQ_SIZE, IOVA_SINGLE_FQ_SIZE, IovaFlushQueue } from './iova-flush-queue.js';
export { IovaRcache } from './iova-rcache.js';
export type { KernelCommandLine, SwiotlbParameter } from './kernel-command-line.js';
export { parseKernelCommandLine } from './kernel-command-line.js';
export {
  findKernelProfile,
  KERNEL_PROFILES,
  kernelProfileForRelease,
} from './kernel-profiles/find.js';
export type {
  AllocatorProfile,
  DdwProfile,
  DispatchRule,
  IommuDmaProfile,
  KernelProfile,
  MapErrorRule,
  RestrictedAccessRule,
  SwiotlbProfile,
  TceProfile,
  TraceProfile,
  VringRule,
} from './kernel-profiles/types.js';
export { SMP_CACHE_BYTES } from './params.js';
export type { PhbDescription } from './phb-description.js';
export { readPhbDescription } from './phb-description.js';
export type { DeviceDma, ProbeRequest, PseriesDmaOptions } from './pseries-dma.js';
export { PseriesDma, VIRTIO_PCI_MASKS } from './pseries-dma.js';
export type { ProtectedPlatform } from './restricted-access.js';
export { hasRestrictedVirtioAccess } from './restricted-access.js';
export { Rtas } from './rtas.js';
export type { SwiotlbOptions } from './swiotlb.js';
export { Swiotlb, swiotlbPool } from './swiotlb.js';
export type { SwiotlbSlotsOptions } from './swiotlb-slots.js';
export { SwiotlbSlots } from './swiotlb-slots.js';
export type { TceCallsOptions, TceWindow } from './tce-calls.js';
export { TceCalls } from './tce-calls.js';
export type { VirtioDmaPolicy, VringDmaDecision, VringDmaQuestion } from './vring-dma.js';
export { findPolicy, VIRTIO_DMA_POLICIES } from './vring-dma.js';
