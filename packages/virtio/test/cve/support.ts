import { createPair, type Pair, type PairOptions } from '../support/pair.js';

/** One descriptor, as a driver writes it into memory. */
export type Desc = readonly [addr: number | bigint, len: number, flags: number, next?: number];

/** Writes descriptors at `at`, one after the other. */
export function writeDescs(pair: Pair, at: number, descs: readonly Desc[]): void {
  descs.forEach(([addr, len, flags, next = 0], i) => {
    pair.memory.writeU64Le(at + 16 * i, BigInt(addr));
    pair.memory.writeU32Le(at + 16 * i + 8, len);
    pair.memory.writeU16Le(at + 16 * i + 12, flags);
    pair.memory.writeU16Le(at + 16 * i + 14, next);
  });
}

/** Offers `head` as the next buffer: the ring's entry, then the index. */
export function offer(pair: Pair, head: number): void {
  const avail = pair.driver.ringGpa + pair.driver.layout.avail;
  const idx = pair.memory.readU16Le(avail + 2);
  pair.memory.writeU16Le(avail + 4 + 2 * (idx % pair.driver.size), head);
  pair.memory.writeU16Le(avail + 2, (idx + 1) & 0xffff);
}

/** A device that faces these descriptors of a split ring, the first of them offered. */
export function faced(ring: readonly Desc[], options: PairOptions = {}): Pair {
  const pair = createPair(options);
  writeDescs(pair, pair.driver.ringGpa, ring);
  offer(pair, 0);
  return pair;
}

/** These bytes of guest memory, as they are now. */
export function bytesAt(pair: Pair, from: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  pair.memory.read(from, bytes);
  return bytes;
}
