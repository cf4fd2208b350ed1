import { VIRTQ_DESC_F_AVAIL, VIRTQ_DESC_F_USED } from '../../src/index.js';
import type { Pair } from './pair.js';

/** A descriptor of a packed ring, as it is in memory. */
export interface PackedDesc {
  readonly addr: number;
  readonly len: number;
  readonly id: number;
  readonly flags: number;
}

export const AVAIL: number = VIRTQ_DESC_F_AVAIL;
export const USED: number = VIRTQ_DESC_F_USED;

/** What memory holds at this place of the descriptor ring, or of a table at `ring`. */
export function packedDesc(
  pair: Pair,
  index: number,
  ring: number = pair.driver.ringGpa,
): PackedDesc {
  const at = ring + 16 * index;
  const { memory } = pair;
  return {
    addr: Number(memory.readU64Le(at)),
    len: memory.readU32Le(at + 8),
    id: memory.readU16Le(at + 12),
    flags: memory.readU16Le(at + 14),
  };
}

/** Writes descriptors from `at` on. */
export function writePacked(
  pair: Pair,
  at: number,
  descs: readonly (readonly [addr: number | bigint, len: number, flags: number, id?: number])[],
): void {
  descs.forEach(([addr, len, flags, id = 0], i) => {
    pair.memory.writeU64Le(at + 16 * i, BigInt(addr));
    pair.memory.writeU32Le(at + 16 * i + 8, len);
    pair.memory.writeU16Le(at + 16 * i + 12, id);
    pair.memory.writeU16Le(at + 16 * i + 14, flags);
  });
}

/** All bytes of the descriptor ring. */
export function ringBytes(pair: Pair): Uint8Array {
  const bytes = new Uint8Array(16 * pair.driver.size);
  pair.memory.read(pair.driver.ringGpa, bytes);
  return bytes;
}
