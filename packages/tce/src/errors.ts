import { ModelError } from '@pinhole/base';

/**
 * - `E_DMA_WINDOW`: a default window that cannot exist.
 * - `E_DUPLICATE_LIOBN`: two tables with one number.
 */
export type TceErrorCode = 'E_DMA_WINDOW' | 'E_DUPLICATE_LIOBN';

/** A machine that cannot be built. */
export class TceError extends ModelError<TceErrorCode> {
  override name = 'TceError';
}
