import { ModelError } from '@pinhole/base';

/**
 * - `E_QUEUE_SIZE`: a queue size that is not from 1 to 32768, or for a split ring no power of two.
 * - `E_QUEUE_INDEX`: a device has no queue of that number.
 * - `E_LEGACY_PLATFORM`: a device with VIRTIO_F_ACCESS_PLATFORM is given a legacy interface.
 * - `E_LEGACY_QUEUE`: a queue lies where the legacy interface cannot say, or has another size.
 * - `E_EMPTY_BUFFER`: a buffer without elements is added to a queue.
 * - `E_QUEUE_IN_USE`: a driver's queue is started anew while buffers are with the device.
 * - `E_DEVICE_STATE`: a device or transport is to go on from the state of another one.
 * - `E_QUEUE_STATE`: a queue is to go on from a state that it cannot be in.
 */
export type VirtioErrorCode =
  | 'E_QUEUE_SIZE'
  | 'E_QUEUE_INDEX'
  | 'E_LEGACY_PLATFORM'
  | 'E_LEGACY_QUEUE'
  | 'E_EMPTY_BUFFER'
  | 'E_QUEUE_IN_USE'
  | 'E_DEVICE_STATE'
  | 'E_QUEUE_STATE';

/** A mistake of the caller of a queue or device. What guests and devices do wrong is never thrown. */
export class VirtioError extends ModelError<VirtioErrorCode> {
  override name = 'VirtioError';
}
