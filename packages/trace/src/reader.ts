import type { TraceEvent } from '@pinhole/base';
import { excerpt, isBinary, utf8Bytes } from './bytes.js';
import type { LineHandler } from './lines.js';

/**
 * Why a line gave no event.
 * - `unknown-event`: an event that the catalogue does not have. Not an error in the log.
 * - `malformed`: not a line that the source prints; `expected` says what should be there.
 * - `binary`: not text.
 * - `too-long`: longer than `maxLineBytes`.
 * - `lost`: the kernel says that its buffer was too small and events before this line are missing.
 * - `cut`: the input ends without a newline, so the end of its last line may be missing.
 */
export type ProblemKind = 'unknown-event' | 'malformed' | 'binary' | 'too-long' | 'lost' | 'cut';

/** A line that gave no event. */
export interface ReadProblem {
  /** From 1. */
  readonly line: number;
  readonly kind: ProblemKind;
  /** The start of the line, printable. */
  readonly text: string;
  /** What should be there, and in which column (from 1). */
  readonly expected?: string;
  /** The event's name, where the line has one. */
  readonly event?: string;
}

/** What a reader is given. */
export interface ReaderOptions {
  onEvent(event: TraceEvent, line: number): void;
  onProblem?(problem: ReadProblem): void;
  /** The longest line that is read, in bytes; longer ones are a problem. Default 16384. */
  readonly maxLineBytes?: number;
  /**
   * The names of the events to read; lines with others that the catalogue has are passed over,
   * unread and uncounted. Default: all.
   */
  readonly only?: readonly string[];
}

/** What was read in all. */
export interface ReadSummary {
  readonly lines: number;
  readonly events: number;
  readonly problems: Readonly<Record<ProblemKind, number>>;
}

/** A streaming reader: memory does not grow with the input, and no input makes it throw. */
export interface LogReader {
  push(chunk: Uint8Array): void;
  /** Says that nothing more comes. */
  end(): ReadSummary;
}

/** Counts and reports the lines that gave no event. */
export class ProblemLog {
  readonly counts: Record<ProblemKind, number> = {
    'unknown-event': 0,
    malformed: 0,
    binary: 0,
    'too-long': 0,
    lost: 0,
    cut: 0,
  };
  readonly #report: ((problem: ReadProblem) => void) | undefined;

  constructor(options: ReaderOptions) {
    this.#report = options.onProblem?.bind(options);
  }

  /** Reports a line. The text is only made when somebody listens. */
  add(
    kind: ProblemKind,
    bytes: Uint8Array,
    start: number,
    end: number,
    line: number,
    more: { expected?: string; event?: string } = {},
  ): void {
    this.counts[kind] += 1;
    this.#report?.({ line, kind, text: excerpt(bytes, start, end), ...more });
  }

  /** Reports a line that is not what was expected at `at`: binary when it is not even text. */
  unexpected(
    bytes: Uint8Array,
    start: number,
    end: number,
    line: number,
    at: number,
    expected: string,
    event?: string,
  ): void {
    const kind = isBinary(bytes, start, end) ? 'binary' : 'malformed';
    this.add(kind, bytes, start, end, line, {
      expected: `${expected} in column ${at - start + 1}`,
      ...(event === undefined ? {} : { event }),
    });
  }

  /** The handlers of lines that a splitter could not deliver whole. */
  handlers(): Pick<LineHandler, 'tooLong' | 'cut'> {
    return {
      tooLong: (bytes, start, end, line) => this.add('too-long', bytes, start, end, line),
      cut: (bytes, start, end, line) =>
        this.add('cut', bytes, start, end, line, { expected: 'a newline at the end' }),
    };
  }
}

/** Reads a whole text at once. */
export function readAll(
  createReader: (options: ReaderOptions) => LogReader,
  text: string,
): { events: TraceEvent[]; problems: ReadProblem[] } {
  const events: TraceEvent[] = [];
  const problems: ReadProblem[] = [];
  const reader = createReader({
    onEvent: (event) => events.push(event),
    onProblem: (problem) => problems.push(problem),
  });
  reader.push(utf8Bytes(text));
  reader.end();
  return { events, problems };
}
