import { ModelError } from '@pinhole/base';

/**
 * - `E_TRACE_PATTERN`: a pattern that selects no event.
 * - `E_TRACE_ARGS`: an event without an argument that its printed form needs, or with a wrong one.
 * - `E_TRACE_OPTION`: an option out of range.
 * - `E_TRACE_CLOSED`: an event for a writer that was closed.
 */
export type TraceErrorCode =
  | 'E_TRACE_PATTERN'
  | 'E_TRACE_ARGS'
  | 'E_TRACE_OPTION'
  | 'E_TRACE_CLOSED';

/** A mistake of the caller of this package. What a log contains is never thrown: it is reported. */
export class TraceError extends ModelError<TraceErrorCode> {
  constructor(code: TraceErrorCode, message: string, details: Record<string, unknown> = {}) {
    super(code, message, { details });
    this.name = 'TraceError';
  }
}
