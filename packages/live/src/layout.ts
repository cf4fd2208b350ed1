import type { Gpa } from '@pinhole/base';
import type { MemoryRegion } from '@pinhole/memory';

/**
 * The guest memory that is not the user's: the firmware and its mailbox. Whatever else QEMU writes
 * at a reset (the device tree, below the top of memory) is free to be overwritten.
 */
export const RESERVED_MEMORY: MemoryRegion = { base: 0, size: 0x3_0000 };

/** Where the CPU starts. [qemu v7.2 hw/ppc/spapr.c SPAPR_ENTRY_POINT] */
export const ENTRY_POINT: Gpa = 0x100;

/** The mailbox, above the interrupt vectors. */
export const MAILBOX: Gpa = 0x4000;
/** In the mailbox, big-endian doubleword: how many records to carry out. The firmware clears it. */
export const DOORBELL = 0;
/** In the mailbox, big-endian doubleword: how many times the firmware has started. */
export const STARTS = 8;
/** In the mailbox, big-endian doubleword: the same number, when the firmware heeds the doorbell. */
export const READY = 16;
/** In the mailbox, big-endian doubleword: r3 at the start, the address of the device tree. */
export const DEVICE_TREE = 24;

/** The argument buffer of RTAS calls: big-endian cells token, nargs, nret, args, rets. */
export const RTAS_BUFFER: Gpa = 0x4100;
/** How many cells it has. */
export const RTAS_CELLS = 64;

/** The records of a batch, one after the other. */
export const RECORDS: Gpa = 0x5000;
/** How many registers a record has, r3 to r10, each a little-endian doubleword: in and out. */
export const RECORD_REGISTERS = 8;
export const RECORD_BYTES: number = RECORD_REGISTERS * 8;
/** How many records there are. */
export const RECORDS_MAX = 2048;
