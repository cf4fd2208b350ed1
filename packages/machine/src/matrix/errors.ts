import { ModelError } from '@pinhole/base';

/**
 * - `E_MATRIX_CELL`: text that is no cell's id.
 * - `E_MATRIX_AXIS`: a name that is not on its axis.
 */
export type MatrixErrorCode = 'E_MATRIX_CELL' | 'E_MATRIX_AXIS';

/** A part of the matrix that does not exist. */
export class MatrixError extends ModelError<MatrixErrorCode> {
  override name = 'MatrixError';
}
