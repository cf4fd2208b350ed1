import type { Gpa } from '@pinhole/base';

/** A run of guest-physical addresses that has memory behind it; between regions are holes. */
export interface MemoryRegion {
  readonly base: Gpa;
  /** In bytes. */
  readonly size: number;
}

/** Filled in by `GuestMemory.window`; the caller keeps and reuses one. */
export interface MemoryWindow {
  view: DataView;
  /** Where in the view the bytes begin that were asked for. */
  offset: number;
  /** All of [from, to) is memory, and in the view as well: at least what was asked for. */
  from: Gpa;
  to: Gpa;
  /** The view as 32-bit words: quicker. Where the host is little-endian, and memory has it. */
  words?: Uint32Array | undefined;
}

/**
 * Guest-physical memory, as its owner sees it. All lengths are bytes; every access is checked and
 * throws `MemoryError` `E_GPA_OUT_OF_RANGE` when any byte of it lies outside the regions, before
 * anything is read or written. Who handles addresses that a guest or device chose asks
 * `isBacked` first.
 */
export interface GuestMemory {
  /** Ascending, disjoint. */
  readonly regions: readonly MemoryRegion[];
  /** Whether all of [gpa, gpa + length) is memory. */
  isBacked(gpa: Gpa, length: number): boolean;
  /**
   * Shows where [gpa, gpa + length) lies, for as long as this memory lives: for what is accessed
   * again and again, such as a ring. False when it does not lie in one piece, or nothing was written
   * there yet; absent where every access must pass through this interface.
   */
  window?(gpa: Gpa, length: number, out: MemoryWindow): boolean;

  read(gpa: Gpa, into: Uint8Array): void;
  write(gpa: Gpa, from: Uint8Array): void;
  fill(gpa: Gpa, length: number, value: number): void;

  readU8(gpa: Gpa): number;
  readU16Le(gpa: Gpa): number;
  readU16Be(gpa: Gpa): number;
  readU32Le(gpa: Gpa): number;
  readU32Be(gpa: Gpa): number;
  readU64Le(gpa: Gpa): bigint;
  readU64Be(gpa: Gpa): bigint;

  writeU8(gpa: Gpa, value: number): void;
  writeU16Le(gpa: Gpa, value: number): void;
  writeU16Be(gpa: Gpa, value: number): void;
  writeU32Le(gpa: Gpa, value: number): void;
  writeU32Be(gpa: Gpa, value: number): void;
  writeU64Le(gpa: Gpa, value: bigint): void;
  writeU64Be(gpa: Gpa, value: bigint): void;
}
