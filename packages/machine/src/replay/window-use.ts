import type { GuestWindow } from './guest-model.js';

/** A window and how much of it is in use. */
export interface WindowUse extends GuestWindow {
  /** The allocator's: the small ones, then the large one, `[start, end)` in entries. */
  readonly pools: readonly { readonly start: number; readonly end: number }[];
  /** TCEs at the end, and at most at one time. */
  readonly live: number;
  readonly peak: number;
}
