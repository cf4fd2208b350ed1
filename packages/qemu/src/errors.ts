import { ModelError } from '@pinhole/base';

/**
 * - `E_BACKEND`: a disk image that cannot be a disk.
 * - `E_DEVICE_OPTIONS`: options that QEMU refuses.
 */
export type QemuErrorCode = 'E_BACKEND' | 'E_DEVICE_OPTIONS';

/** A device that cannot be built. */
export class QemuError extends ModelError<QemuErrorCode> {
  override name = 'QemuError';
}
