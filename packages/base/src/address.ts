/**
 * Addresses. A guest-physical address fits a double (a safe integer) and is a `number`; a bus
 * address, a TCE or a hypercall argument is a 64-bit register and is a `bigint` in the public API.
 * Hot paths carry the 64 bits as two unsigned 32-bit halves instead: several times faster.
 */

declare const flavor: unique symbol;
type Flavored<T, F extends string> = T & { readonly [flavor]?: F };

/** A guest-physical address in bytes: a safe, non-negative integer. */
export type Gpa = Flavored<number, 'Gpa'>;
/** A logical I/O bus number: 32 bits; names one TCE table to the hypervisor. */
export type Liobn = Flavored<number, 'Liobn'>;
/** An I/O bus address as a device puts it on the bus: 64 bits. */
export type Ioba = Flavored<bigint, 'Ioba'>;
/** A translation control entry: real page number and permission bits, 64 bits. */
export type Tce = Flavored<bigint, 'Tce'>;

/** A 64-bit value as two unsigned 32-bit halves; functions that yield one fill in the caller's. */
export interface HiLo {
  hi: number;
  lo: number;
}

const scratch = new BigUint64Array(1);
const halves = new Uint32Array(scratch.buffer);
// The order of the halves in the scratch is the machine's.
const LOW = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1 ? 0 : 1;
const HIGH = 1 - LOW;
const TWO_32 = 0x1_0000_0000;

/** The upper 32 bits of a 64-bit value (of its low 64 bits, if it is wider or negative). */
export function hi32(value: bigint): number {
  scratch[0] = value;
  return halves[HIGH] as number;
}

/** The lower 32 bits of a 64-bit value. */
export function lo32(value: bigint): number {
  scratch[0] = value;
  return halves[LOW] as number;
}

/** Splits a 64-bit value into `out`. */
export function splitU64(value: bigint, out: HiLo): void {
  scratch[0] = value;
  out.hi = halves[HIGH] as number;
  out.lo = halves[LOW] as number;
}

/** Joins two unsigned 32-bit halves to a `bigint`. */
export function joinU64(hi: number, lo: number): bigint {
  halves[HIGH] = hi;
  halves[LOW] = lo;
  return scratch[0] as bigint;
}

/**
 * Joins two halves to a double. Exact only below 2^53; the caller checks with `isSafeHi` first.
 */
export function joinNumber(hi: number, lo: number): number {
  return hi * TWO_32 + lo;
}

/** Whether a value with this upper half can be a guest-physical address (below 2^53). */
export function isSafeHi(hi: number): boolean {
  return hi <= 0x1f_ffff;
}

/** The upper half of a safe integer. */
export function hiOf(value: number): number {
  return Math.floor(value / TWO_32);
}

/** The lower half of a safe integer. */
export function loOf(value: number): number {
  return value >>> 0;
}

/** Adds a safe integer to a 64-bit base, modulo 2^64. */
export function addU64(base: HiLo, offset: number, out: HiLo): void {
  const low = base.lo + loOf(offset);
  out.hi = (base.hi + hiOf(offset) + (low >= TWO_32 ? 1 : 0)) >>> 0;
  out.lo = low >>> 0;
}

/** How far `hi`:`lo` lies above a 64-bit base, or -1 when it lies below it or 2^53 and more above. */
export function distanceU64(base: HiLo, hi: number, lo: number): number {
  const high = hi - base.hi - (lo < base.lo ? 1 : 0);
  return high < 0 || !isSafeHi(high) ? -1 : joinNumber(high, (lo - base.lo) >>> 0);
}

/** `0x` and 16 hexadecimal digits, as traces print addresses. */
export function hex64(value: bigint | number): string {
  return `0x${BigInt.asUintN(64, BigInt(value)).toString(16).padStart(16, '0')}`;
}

/** `0x` and as many digits as needed. */
export function hex(value: bigint | number): string {
  return `0x${(typeof value === 'number' ? value : BigInt.asUintN(64, value)).toString(16)}`;
}

/** Reduces to 16 bits: ring indices are free-running u16. [VIRTIO v1.2 §2.7.13 "idx"] */
export function u16(value: number): number {
  return value & 0xffff;
}
