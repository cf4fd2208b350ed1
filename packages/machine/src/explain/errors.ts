import { ModelError } from '@pinhole/base';

/**
 * - `E_COMMAND_LINE`: text that is no QEMU command line: an unbalanced quote, no QEMU in it, a machine
 *   that does not exist.
 * - `E_NOTHING_GIVEN`: nothing to explain.
 * - `E_DEVICE_TREE`: a device tree that is none.
 * - `E_KERNEL`: a kernel that there is no profile of.
 * - `E_CONSOLE`: a console log without a line of a kernel.
 * - `E_PLATFORM`: a scenario of an architecture that there are no rules for.
 */
export type ExplainErrorCode =
  | 'E_COMMAND_LINE'
  | 'E_NOTHING_GIVEN'
  | 'E_DEVICE_TREE'
  | 'E_KERNEL'
  | 'E_CONSOLE'
  | 'E_PLATFORM';

/** An input that nothing can be explained from. */
export class ExplainError extends ModelError<ExplainErrorCode> {
  override name = 'ExplainError';
}
