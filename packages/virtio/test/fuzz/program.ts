/**
 * What the fuzzers of this folder feed on: a head of 8 bytes and then steps of 8 bytes each. Every
 * byte string is a program; what is beyond the last whole step is left out.
 */

/** Bytes of the head and of each step. */
export const STEP = 8;
/** The longest program, in steps. */
export const MAX_STEPS = 32;

/** How many different values a step's operation has: those above begin again. */
export const OPERATIONS = 32;

/** Guest memory of a run: 2 MiB with a hole. */
export const MEMORY_SIZE: number = 0x20_0000;
export const HOLE: number = 0x6_0000;
export const HOLE_END: number = 0x7_0000;
/** Bus addresses that the IOMMU has entries for. */
export const WINDOW_SIZE: number = 0x40_0000;
/** Indirect tables begin at the pages from here on; buffers at the pages after them. */
export const TABLES: number = 0x1_0000;
export const BUFFERS: number = 0x2_0000;

/** Lengths at which something changes; what is left of a byte is taken as it is. */
const LENGTHS = [
  1,
  16,
  4096,
  0,
  2,
  17,
  48,
  512,
  4095,
  4097,
  8192,
  9000,
  0x1_0000,
  0x2_0000,
  16 * 1024,
  16 * 1025,
  24,
  32,
  64,
  96,
  128,
  0x10_0000,
  0x7fff_ffff,
  0x8000_0000,
  0xffff_fff0,
  0xffff_ffff,
  0x10000,
  0xfff8,
  80,
  112,
  8,
  3,
];

/** The length that a byte stands for. */
export function lengthOf(byte: number): number {
  return LENGTHS[byte] ?? byte;
}

/** The byte for a length, or 1: one that is not there. */
export function byteOfLength(length: number): number {
  const index = LENGTHS.indexOf(length);
  if (index >= 0) return index;
  return length >= LENGTHS.length && length < 256 ? length : 1;
}

/** Offsets within a page that a byte stands for. */
const OFFSETS = [0, 0x10, 0xff0, 0xff8, 0xfff, 1, 8, 0x800];
/** Addresses without a page of their own: upper half, lower half. */
const FAR: readonly (readonly [hi: number, lo: number])[] = [
  [0, HOLE],
  [0, HOLE - 16],
  [0, MEMORY_SIZE - 16],
  [0, MEMORY_SIZE],
  [0, WINDOW_SIZE - 8],
  [0, 0xffff_fff0],
  [0, 0xffff_f000],
  [1, 0],
  [0x1_0000, 0],
  [0x1f_ffff, 0xffff_fff0],
  [0x20_0000, 0],
  [0x7fff_ffff, 0xffff_f000],
  [0xffff_ffff, 0xffff_f000],
  [0xffff_ffff, 0xffff_fff0],
  [0xffff_ffff, 0xffff_fff8],
  [0x1000_0000, 0],
];

/**
 * The address that two bytes stand for: pages 0 to 191 (buffers from `0x20` on), then the rings,
 * then what is far away.
 */
export function addressOf(
  page: number,
  offset: number,
  rings: readonly number[],
  out: { hi: number; lo: number },
): void {
  out.hi = 0;
  if (page < 192) {
    out.lo = page * 4096 + (OFFSETS[offset & 7] ?? 0);
  } else if (page < 240) {
    out.lo = (rings[page % 3] ?? 0) + 16 * (offset & 63);
  } else {
    const [hi, lo] = FAR[page - 240] ?? [0, 0];
    out.hi = hi;
    out.lo = lo;
  }
}

/** Bytes that mean something in some place: the fuzzers' dictionary. */
export const INTERESTING: readonly number[] = [
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 127, 128, 129, 191, 192, 193, 194,
  240, 241, 248, 253, 254, 255,
];

/** How often each operation of a target is to come up. */
export type Weights = readonly (readonly [operation: number, weight: number])[];
