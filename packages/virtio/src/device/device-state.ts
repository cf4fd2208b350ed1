import { VirtioError } from '../errors.js';
import type { DeviceQueueState } from '../ring/device-queue-state.js';

/** What has been saved of one queue. Addresses are hexadecimal: `0x10000`. */
export interface SavedQueue {
  /** As the driver chose it, enabled or not. */
  readonly size: number;
  readonly rings?: { readonly desc: string; readonly avail: string; readonly used: string };
  readonly ring: DeviceQueueState;
}

/**
 * What has been saved of a device, as plain data; requests in flight are the model's own business.
 * [qemu v7.2 hw/virtio/virtio.c virtio_save]
 */
export interface SavedDevice {
  readonly deviceId: number;
  readonly status: number;
  /** Those that were accepted: `0x100000000`. */
  readonly features: string;
  readonly isr: number;
  readonly generation: number;
  readonly isBroken: boolean;
  readonly isDisabled: boolean;
  readonly hasStarted: boolean;
  readonly config: readonly number[];
  readonly queues: readonly SavedQueue[];
}

/** @throws VirtioError `E_DEVICE_STATE` */
export function checkState(isGood: boolean, what: string, expected: unknown, found: unknown): void {
  if (isGood) return;
  throw new VirtioError('E_DEVICE_STATE', `${what}: expected ${expected}, found ${found}`, {
    details: { expected, found },
  });
}
