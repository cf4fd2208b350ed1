import type { DeviceQueue, DeviceQueueOptions } from './device-types.js';
import { PackedDeviceQueue } from './packed-device.js';
import { SplitDeviceQueue } from './split-device.js';

export type { DeviceQueue, DeviceQueueOptions, QueueOwner } from './device-types.js';

/** The device's half of a queue in the layout that was negotiated. */
export function createDeviceQueue(isPacked: boolean, options: DeviceQueueOptions): DeviceQueue {
  return isPacked ? new PackedDeviceQueue(options) : new SplitDeviceQueue(options);
}
