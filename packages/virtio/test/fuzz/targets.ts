import { DEVICE_WEIGHTS } from './device-op.js';
import { DeviceTarget } from './device-target.js';
import { DRIVER_WEIGHTS } from './driver-op.js';
import { DriverTarget } from './driver-target.js';
import type { FuzzTarget } from './fuzzer.js';
import type { Weights } from './program.js';

/** What can be fuzzed. */
export const TARGETS: Readonly<
  Record<string, { readonly weights: Weights; make(hits: Uint8Array): FuzzTarget }>
> = {
  'split-device': { weights: DEVICE_WEIGHTS, make: (hits) => new DeviceTarget(false, hits) },
  'packed-device': { weights: DEVICE_WEIGHTS, make: (hits) => new DeviceTarget(true, hits) },
  'split-driver': { weights: DRIVER_WEIGHTS, make: (hits) => new DriverTarget(false, hits) },
  'packed-driver': { weights: DRIVER_WEIGHTS, make: (hits) => new DriverTarget(true, hits) },
};
