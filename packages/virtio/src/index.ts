export { VirtioDeviceCore } from './device/device-core.js';
export type {
  DeviceHooks,
  DeviceQueueModel,
  PlugOptions,
  VirtioDeviceOptions,
} from './device/device-options.js';
export type { SavedDevice, SavedQueue } from './device/device-state.js';
export type { VirtioErrorCode } from './errors.js';
export { VirtioError } from './errors.js';
export { featureNames } from './feature-names.js';
export {
  featureBit,
  featureBits,
  hasFeature,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_ANY_LAYOUT,
  VIRTIO_F_BAD_FEATURE,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_IOMMU_PLATFORM,
  VIRTIO_F_NOTIF_CONFIG_DATA,
  VIRTIO_F_NOTIFICATION_DATA,
  VIRTIO_F_NOTIFY_ON_EMPTY,
  VIRTIO_F_ORDER_PLATFORM,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_SR_IOV,
  VIRTIO_F_VERSION_1,
  VIRTIO_ID_BLOCK,
  VIRTIO_ID_CONSOLE,
  VIRTIO_ID_NET,
  VIRTIO_ID_RNG,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from './features.js';
export type { BlkConfig, BlkHeader, BlkRange } from './formats/blk.js';
export {
  blkConfigParts,
  decodeBlkConfig,
  decodeBlkHeader,
  decodeBlkRange,
  encodeBlkConfig,
  encodeBlkHeader,
  encodeBlkRange,
  VIRTIO_BLK_CONFIG_SIZE,
  VIRTIO_BLK_CONFIG_WRITEBACK,
  VIRTIO_BLK_F_BARRIER,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_GEOMETRY,
  VIRTIO_BLK_F_LIFETIME,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_SCSI,
  VIRTIO_BLK_F_SECURE_ERASE,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_SIZE_MAX,
  VIRTIO_BLK_F_TOPOLOGY,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_HEADER_SIZE,
  VIRTIO_BLK_ID_BYTES,
  VIRTIO_BLK_RANGE_SIZE,
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_SECTOR_SIZE,
  VIRTIO_BLK_T_BARRIER,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_GET_LIFETIME,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_SCSI_CMD,
  VIRTIO_BLK_T_SECURE_ERASE,
  VIRTIO_BLK_T_WRITE_ZEROES,
  VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
} from './formats/blk.js';
export type { ConfigPart, ConfigRow } from './formats/config-layout.js';
export { configParts, decodeConfig, encodeConfig } from './formats/config-layout.js';
export type { ConsoleConfig, ConsoleControl } from './formats/console.js';
export {
  consoleConfigParts,
  consoleRxQueue,
  decodeConsoleConfig,
  decodeConsoleControl,
  encodeConsoleConfig,
  encodeConsoleControl,
  VIRTIO_CONSOLE_CONFIG_EMERG_WR,
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_CONTROL_RX,
  VIRTIO_CONSOLE_CONTROL_SIZE,
  VIRTIO_CONSOLE_CONTROL_TX,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_F_EMERG_WRITE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
  VIRTIO_CONSOLE_PORT_ADD,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
  VIRTIO_CONSOLE_PORT_REMOVE,
  VIRTIO_CONSOLE_RESIZE,
} from './formats/console.js';
export type { NetConfig, NetHeader } from './formats/net.js';
export {
  decodeNetConfig,
  decodeNetHeader,
  ETH_ALEN,
  encodeNetConfig,
  encodeNetHeader,
  netConfigParts,
  VIRTIO_NET_CTRL_ANNOUNCE,
  VIRTIO_NET_CTRL_ANNOUNCE_ACK,
  VIRTIO_NET_CTRL_HDR_SIZE,
  VIRTIO_NET_CTRL_MAC,
  VIRTIO_NET_CTRL_MAC_ADDR_SET,
  VIRTIO_NET_CTRL_MAC_TABLE_SET,
  VIRTIO_NET_CTRL_RX,
  VIRTIO_NET_CTRL_RX_ALLMULTI,
  VIRTIO_NET_CTRL_RX_ALLUNI,
  VIRTIO_NET_CTRL_RX_NOBCAST,
  VIRTIO_NET_CTRL_RX_NOMULTI,
  VIRTIO_NET_CTRL_RX_NOUNI,
  VIRTIO_NET_CTRL_RX_PROMISC,
  VIRTIO_NET_CTRL_VLAN,
  VIRTIO_NET_CTRL_VLAN_ADD,
  VIRTIO_NET_CTRL_VLAN_DEL,
  VIRTIO_NET_ERR,
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_RX_EXTRA,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_GSO,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_SPEED_DUPLEX,
  VIRTIO_NET_F_STATUS,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_SIZE,
  VIRTIO_NET_LEGACY_HDR_SIZE,
  VIRTIO_NET_OK,
  VIRTIO_NET_S_ANNOUNCE,
  VIRTIO_NET_S_LINK_UP,
} from './formats/net.js';
export {
  RING_EVENT_FLAGS_DESC,
  RING_EVENT_FLAGS_DISABLE,
  RING_EVENT_FLAGS_ENABLE,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_USED,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_DESC_SIZE,
  VIRTQ_USED_ELEM_SIZE,
  VIRTQ_USED_F_NO_NOTIFY,
  VIRTQUEUE_MAX_SIZE,
} from './params.js';
export type { AvailBytes } from './ring/avail-bytes.js';
export { VirtqueueElement } from './ring/device-element.js';
export type { DeviceQueue, DeviceQueueOptions, QueueOwner } from './ring/device-queue.js';
export { createDeviceQueue } from './ring/device-queue.js';
export type {
  DeviceQueueState,
  ElementState,
  OrderedBuffer,
  SavedSegment,
} from './ring/device-queue-state.js';
export type { DmaMapper } from './ring/dma-mapper.js';
export { BOUNCED, createSpaceMapper } from './ring/dma-mapper.js';
export type { DriverQueue } from './ring/driver-queue.js';
export { createDriverQueue } from './ring/driver-queue.js';
export type {
  AddResult,
  BadRing,
  DriverQueueOptions,
  Segment,
  TableAllocator,
  UsedBuffer,
} from './ring/driver-types.js';
export { ADD_ERRNO } from './ring/driver-types.js';
export type { SplitRingLayout } from './ring/split-layout.js';
export { splitRingLayout } from './ring/split-layout.js';
export { vringNeedEvent } from './ring/vring-need-event.js';
export {
  VIRTIO_CONFIG_S_ACKNOWLEDGE,
  VIRTIO_CONFIG_S_DRIVER,
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_CONFIG_S_FAILED,
  VIRTIO_CONFIG_S_FEATURES_OK,
  VIRTIO_CONFIG_S_NEEDS_RESET,
} from './status.js';
export type { ChannelCommand, ChannelDevice, ChannelStatus } from './transport/ccw-commands.js';
export { CCW_CU_TYPE, Ccw } from './transport/ccw-commands.js';
export type { SavedVirtioCcw, VirtioCcwDevice, VirtioCcwOptions } from './transport/ccw-device.js';
export { createVirtioCcw } from './transport/ccw-device.js';
export type { CcwTransportOptions, CcwTransportResult } from './transport/ccw-driver.js';
export { CCW_AREA_SIZE, createCcwTransport } from './transport/ccw-driver.js';
export { readConfigFields } from './transport/config-fields.js';
export type {
  NegotiationFailure,
  NegotiationOptions,
  NegotiationResult,
} from './transport/driver-init.js';
export { negotiateFeatures, setDriverOk } from './transport/driver-init.js';
export type {
  SavedVirtioMmio,
  VirtioMmioDevice,
  VirtioMmioOptions,
} from './transport/mmio-device.js';
export { createVirtioMmio } from './transport/mmio-device.js';
export type { MmioTransportOptions, MmioTransportResult } from './transport/mmio-driver.js';
export { createMmioTransport } from './transport/mmio-driver.js';
export { createVirtioPci } from './transport/pci-device.js';
export type {
  PciInterrupt,
  SavedVirtioPci,
  VirtioPciDevice,
  VirtioPciOptions,
} from './transport/pci-device-types.js';
export { createPciTransport } from './transport/pci-driver.js';
export type { MsiMessage, PciInterrupts } from './transport/pci-interrupts.js';
export { createPciLegacyTransport } from './transport/pci-legacy-driver.js';
export type { PciTransportOptions, PciTransportResult } from './transport/pci-modern-driver.js';
export { createPciModernTransport } from './transport/pci-modern-driver.js';
export {
  connectCcwInterrupts,
  connectMmioInterrupts,
  connectPciInterrupts,
} from './transport/platform-interrupts.js';
export type { MmioRegion, PciFunction, RegisterWidth } from './transport/registers.js';
export type { InterruptCause, QueueSetup, VirtioTransport } from './transport/transport.js';
