import type { TraceEvent, TraceValue } from '@pinhole/base';
import type { TraceWriter, WriteText } from './sinks.js';

/**
 * Writes one JSON object a line: `{"t":0,"actor":"guest","name":"...","args":{...}}`, with `phase`
 * for the ends of spans. A `bigint` is a string that `BigInt()` reads: `"0x1000"`, or `"-4"`.
 */
export function createNdjsonWriter(write: WriteText): TraceWriter {
  return {
    emit: (event) => write(`${toJson(event)}\n`),
    close() {},
  };
}

function toJson({ t, actor, name, phase, args }: TraceEvent): string {
  const head = phase === undefined ? { t, actor, name } : { t, actor, name, phase };
  return `${JSON.stringify(head).slice(0, -1)},"args":${argsToJson(args)}}`;
}

/** The arguments as a JSON object. */
export function argsToJson(args: Readonly<Record<string, TraceValue>>): string {
  const members = Object.entries(args).map(
    ([name, value]) => `${JSON.stringify(name)}:${valueToJson(value)}`,
  );
  return `{${members.join(',')}}`;
}

function valueToJson(value: TraceValue): string {
  if (typeof value !== 'bigint') return JSON.stringify(value);
  return value < 0n ? `"${value}"` : `"0x${value.toString(16)}"`;
}
