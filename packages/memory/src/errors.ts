import { ModelError } from '@pinhole/base';

/**
 * - `E_GPA_OUT_OF_RANGE`: an access leaves the memory regions.
 * - `E_MEMORY_LAYOUT`: regions overlap, are empty, or do not fit safe integers.
 */
export type MemoryErrorCode = 'E_GPA_OUT_OF_RANGE' | 'E_MEMORY_LAYOUT';

/** A mistake of the caller of guest memory. */
export class MemoryError extends ModelError<MemoryErrorCode> {
  override name = 'MemoryError';
}
