import { ModelError } from '@pinhole/base';

/**
 * - `E_QUEUE_SIZE`: a queue size that is no power of two from 1 to 32768.
 * - `E_QUEUE_INDEX`: a device has no queue of that number.
 * - `E_EMPTY_BUFFER`: a buffer without elements is added to a queue.
 */
export type VirtioErrorCode = 'E_QUEUE_SIZE' | 'E_QUEUE_INDEX' | 'E_EMPTY_BUFFER';

/** A mistake of the caller of a queue or device. What guests and devices do wrong is never thrown. */
export class VirtioError extends ModelError<VirtioErrorCode> {
  override name = 'VirtioError';
}
