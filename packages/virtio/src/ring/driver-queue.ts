import type { DriverQueue, DriverQueueOptions } from './driver-types.js';
import { createPackedDriverQueue } from './packed-driver.js';
import { createSplitDriverQueue } from './split-driver.js';

export type { DriverQueue } from './driver-types.js';

/**
 * Allocates a ring of the layout that was negotiated and makes the driver's half of it.
 * `undefined`: no room, not even for a smaller one.
 * @throws VirtioError `E_QUEUE_SIZE`
 */
export function createDriverQueue<T>(options: DriverQueueOptions): DriverQueue<T> | undefined {
  return options.isPacked === true
    ? createPackedDriverQueue<T>(options)
    : createSplitDriverQueue<T>(options);
}
