export type { LiveErrorCode } from './errors.js';
export { LiveError } from './errors.js';
export { RESERVED_MEMORY } from './layout.js';
export { LiveQemu } from './live-qemu.js';
export type { HcallBatches } from './mailbox.js';
export type { HostBridgeOptions, LiveQemuOptions } from './options.js';
export type { PciAddress } from './pci.js';
