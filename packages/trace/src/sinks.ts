import type { TraceEvent, TraceSink } from '@pinhole/base';
import { TraceError } from './errors.js';

/** A sink with an end: what it writes may only be complete after `close`. */
export interface TraceWriter extends TraceSink {
  /** Completes the output. A second call does nothing. */
  close(): void;
}

/** Takes text; `write` is called with pieces that are put one after the other. */
export type WriteText = (text: string) => void;

/**
 * Passes on the events of these names. A span's begin and end have one name: they pass or stay
 * together.
 */
export function filterEvents(sink: TraceSink, names: ReadonlySet<string>): TraceSink {
  return {
    emit(event) {
      if (names.has(event.name)) sink.emit(event);
    },
  };
}

/** Events kept in memory. */
export interface MemorySink extends TraceSink {
  /** In order; a copy. */
  readonly events: readonly TraceEvent[];
  /** How many did not fit. */
  readonly dropped: number;
}

/**
 * Keeps events in memory: all, or at most `limit`, the first or the last ones.
 * @throws TraceError `E_TRACE_OPTION` when `limit` is not a positive integer.
 */
export function createMemorySink(
  options: { limit?: number; keep?: 'first' | 'last' } = {},
): MemorySink {
  const { limit = Number.POSITIVE_INFINITY, keep = 'first' } = options;
  if (limit !== Number.POSITIVE_INFINITY && !(Number.isSafeInteger(limit) && limit > 0)) {
    throw new TraceError('E_TRACE_OPTION', `limit: expected a positive integer, found ${limit}`);
  }
  const kept: TraceEvent[] = [];
  let total = 0;
  return {
    emit(event) {
      if (kept.length < limit) kept.push(event);
      else if (keep === 'last') kept[total % limit] = event;
      total += 1;
    },
    get events() {
      // Kept as a ring: the oldest is where the next one would go.
      const oldest = keep === 'last' && total > limit ? total % limit : 0;
      return [...kept.slice(oldest), ...kept.slice(0, oldest)];
    },
    get dropped() {
      return total - kept.length;
    },
  };
}
