import { ModelError } from '@pinhole/base';

/**
 * - `E_DMA_WINDOW`: a window that cannot exist.
 * - `E_DUPLICATE_LIOBN`: two tables with one number.
 * - `E_MACHINE_TYPE`: no machine type of pseries.
 * - `E_NOTIFIER`: a notifier that nothing could ever notify, or whose range cuts a page.
 * - `E_SAVED_STATE`: what is to be restored does not fit the machine, or is damaged.
 */
export type TceErrorCode =
  | 'E_DMA_WINDOW'
  | 'E_DUPLICATE_LIOBN'
  | 'E_MACHINE_TYPE'
  | 'E_NOTIFIER'
  | 'E_SAVED_STATE';

/** A machine that cannot be built. */
export class TceError extends ModelError<TceErrorCode> {
  override name = 'TceError';
}
