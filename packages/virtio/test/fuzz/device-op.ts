import type { Weights } from './program.js';

/** Bits of the head's first byte. */
export const DEVICE_EVENT_IDX = 1;
export const DEVICE_IN_ORDER = 2;
export const DEVICE_IOMMU = 4;
export const DEVICE_WINDOWS = 8;
export const DEVICE_PLAIN_MAPPER = 16;
export const TRACED = 32;
export const BIG_ENDIAN = 64;
export const NOTIFY_ON_EMPTY = 128;

/** Operations of a device's program. */
export const DeviceOp = {
  OFFER: 0,
  DRAIN: 1,
  POP: 2,
  PUSH: 3,
  FILL: 4,
  FLUSH: 5,
  UNPOP: 6,
  DETACH: 7,
  AVAIL_BYTES: 8,
  SET_NOTIFICATION: 9,
  SHOULD_NOTIFY: 10,
  IS_EMPTY: 11,
  SAVE: 12,
  RESET: 13,
  CONFIGURE: 14,
  WRITE_DESC: 15,
  EXPOSE: 16,
  SET_INDEX: 17,
  POKE_AVAIL: 18,
  POKE_USED: 19,
  POKE: 20,
  MAP: 21,
  ARM: 22,
  BATCH: 23,
} as const;

export const DEVICE_WEIGHTS: Weights = [
  [DeviceOp.OFFER, 6],
  [DeviceOp.DRAIN, 3],
  [DeviceOp.POP, 5],
  [DeviceOp.PUSH, 4],
  [DeviceOp.FILL, 2],
  [DeviceOp.FLUSH, 2],
  [DeviceOp.UNPOP, 2],
  [DeviceOp.DETACH, 1],
  [DeviceOp.AVAIL_BYTES, 3],
  [DeviceOp.SET_NOTIFICATION, 2],
  [DeviceOp.SHOULD_NOTIFY, 2],
  [DeviceOp.IS_EMPTY, 1],
  [DeviceOp.SAVE, 2],
  [DeviceOp.RESET, 1],
  [DeviceOp.CONFIGURE, 1],
  [DeviceOp.WRITE_DESC, 8],
  [DeviceOp.EXPOSE, 3],
  [DeviceOp.SET_INDEX, 2],
  [DeviceOp.POKE_AVAIL, 2],
  [DeviceOp.POKE_USED, 1],
  [DeviceOp.POKE, 2],
  [DeviceOp.MAP, 2],
  [DeviceOp.ARM, 3],
  [DeviceOp.BATCH, 1],
];
