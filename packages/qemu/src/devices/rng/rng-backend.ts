import type { Rng } from '@pinhole/base';

/** Where random bytes come from. */
export interface RngBackend {
  /** Fills all of `into`. */
  fill(into: Uint8Array): void;
}

/** Bytes that a seeded generator determines: the same each run, and no secret. */
export function createRngBackend(rng: Rng): RngBackend {
  return {
    fill(into) {
      for (let i = 0; i < into.length; i += 1) into[i] = rng.nextU32() & 0xff;
    },
  };
}
