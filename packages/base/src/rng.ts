/** A source of numbers that a seed determines. */
export interface Rng {
  /** The next 32 random bits as an unsigned integer. */
  nextU32(): number;
  /** An integer in [0, bound), `bound` from 1 to 2^32. */
  below(bound: number): number;
}

/**
 * A seeded generator: the 32-bit "SFC" (small fast counting) generator by Chris Doty-Humphrey,
 * in PractRand. Not for secrets.
 */
export function createRng(seed: number): Rng {
  let a = seed >>> 0;
  let b = Math.floor(seed / 0x1_0000_0000) >>> 0;
  let c = 0x9e37_79b9;
  let counter = 1;
  function nextU32(): number {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum;
    return sum >>> 0;
  }
  // The first outputs still show the seed.
  for (let i = 0; i < 12; i += 1) nextU32();
  return {
    nextU32,
    below: (bound) => Math.floor((nextU32() / 0x1_0000_0000) * bound),
  };
}
