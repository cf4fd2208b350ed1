import type { Weights } from './program.js';

/** Bits of the head's first byte. */
export const DRIVER_EVENT_IDX = 1;
export const DRIVER_IN_ORDER = 2;
export const DRIVER_INDIRECT = 4;
export const DRIVER_WINDOWS = 8;
export const DRIVER_BIG_ENDIAN = 16;
export const DRIVER_FAR = 32;
export const DRIVER_TRACED = 64;
export const DRIVER_KEEPS_SIZE = 128;

/** Operations of a driver's program. */
export const DriverOp = {
  ADD: 0,
  USE: 1,
  GET: 2,
  KICK: 3,
  KICK_PREPARE: 4,
  HAS_USED: 5,
  NOTE_INTERRUPT: 6,
  ENABLE: 7,
  DISABLE: 8,
  RESTART: 9,
  FREE: 10,
  USE_RAW: 11,
  MOVE_USED: 12,
  EVENT: 13,
  POKE: 14,
  FAIL_DMA: 15,
  FAIL_TABLE: 16,
  ROUND: 17,
} as const;

/** How many there are: other values begin again. */
export const DRIVER_OPERATIONS = 18;

export const DRIVER_WEIGHTS: Weights = [
  [DriverOp.ADD, 10],
  [DriverOp.USE, 6],
  [DriverOp.GET, 6],
  [DriverOp.KICK, 3],
  [DriverOp.KICK_PREPARE, 1],
  [DriverOp.HAS_USED, 1],
  [DriverOp.NOTE_INTERRUPT, 1],
  [DriverOp.ENABLE, 2],
  [DriverOp.DISABLE, 2],
  [DriverOp.RESTART, 1],
  [DriverOp.FREE, 1],
  [DriverOp.USE_RAW, 4],
  [DriverOp.MOVE_USED, 3],
  [DriverOp.EVENT, 2],
  [DriverOp.POKE, 4],
  [DriverOp.FAIL_DMA, 2],
  [DriverOp.FAIL_TABLE, 1],
  [DriverOp.ROUND, 2],
];
