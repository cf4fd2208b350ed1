import type { TraceEvent } from '@pinhole/base';
import { type EventLineOptions, EventLineParser } from './event-line.js';
import { LineSplitter } from './lines.js';
import { type LogReader, ProblemLog, type ReaderOptions } from './reader.js';

/** Reads one line, which is not blank: its event, or `undefined` after it told of a problem. */
export type ReadLine = (
  bytes: Uint8Array,
  start: number,
  end: number,
  line: number,
) => TraceEvent | undefined;

/** What all readers of logs share; `form` makes the part that knows how a line begins. */
export function createLogReader(
  options: ReaderOptions,
  format: EventLineOptions,
  form: (parser: EventLineParser, problems: ProblemLog) => ReadLine,
): LogReader {
  const problems = new ProblemLog(options);
  const readLine = form(new EventLineParser({ ...format, only: options.only }, problems), problems);
  let events = 0;

  function line(bytes: Uint8Array, start: number, end: number, number: number): void {
    if (start === end) return;
    const event = readLine(bytes, start, end, number);
    if (event === undefined) return;
    events += 1;
    options.onEvent(event, number);
  }

  const splitter = new LineSplitter({ line, ...problems.handlers() }, options.maxLineBytes);
  return {
    push: (chunk) => splitter.push(chunk),
    end() {
      splitter.end();
      return { lines: splitter.lines, events, problems: { ...problems.counts } };
    },
  };
}
