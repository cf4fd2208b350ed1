export type { BlockBackend } from './devices/blk/block-backend.js';
export { checkDiskSize, createMemoryBackend, SECTOR_SIZE } from './devices/blk/block-backend.js';
export type { VirtioBlkOptions } from './devices/blk/virtio-blk.js';
export { VirtioBlk } from './devices/blk/virtio-blk.js';
export type { ConsoleBackend, ConsolePort } from './devices/console/console-backend.js';
export { ConsoleLog } from './devices/console/console-backend.js';
export type { ConsolePortOptions, VirtioConsoleOptions } from './devices/console/virtio-console.js';
export { VirtioConsole } from './devices/console/virtio-console.js';
export type { NetBackend } from './devices/net/net-backend.js';
export type { PcapWriter, PcapWriterOptions } from './devices/net/pcap.js';
export { captureBackend, createPcapWriter } from './devices/net/pcap.js';
export type { VirtioNetOptions } from './devices/net/virtio-net.js';
export { VirtioNet } from './devices/net/virtio-net.js';
export type { VirtualSwitch, VirtualSwitchOptions } from './devices/net/virtual-switch.js';
export { createVirtualSwitch } from './devices/net/virtual-switch.js';
export type { RngBackend } from './devices/rng/rng-backend.js';
export { createRngBackend } from './devices/rng/rng-backend.js';
export type { VirtioRngOptions } from './devices/rng/virtio-rng.js';
export { VirtioRng } from './devices/rng/virtio-rng.js';
export { ElementBytes } from './element-bytes.js';
export type { QemuErrorCode } from './errors.js';
export { QemuError } from './errors.js';
export type { BufferMapper, GlobalBounce } from './qemu-mapper.js';
export { QemuMapper } from './qemu-mapper.js';
export { phbIommu, rangesIommu, spaceIommu } from './vhost/iommu-address-spaces.js';
export type {
  IommuAddressSpace,
  IommuTlbEntry,
  VhostCounters,
  VhostIotlbMessage,
} from './vhost/types.js';
export type { VhostBackend } from './vhost/vhost-backend.js';
export type { VhostDevice, VhostSettings } from './vhost/vhost-device.js';
export { VHOST_MAX_IOTLB_ENTRIES } from './vhost/vhost-iotlb.js';
export type { BusPlugOptions } from './virtio-bus.js';
export { chooseDmaSpace } from './virtio-bus.js';
export type { PluggedDevice, VirtioDeviceSettings, VirtioDeviceType } from './virtio-device.js';
export { plugVirtioDevice } from './virtio-device.js';
