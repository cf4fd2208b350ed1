import type { TraceEvent } from '@pinhole/base';
import { TraceError } from './errors.js';
import { argsToJson } from './ndjson.js';
import type { TraceWriter, WriteText } from './sinks.js';

const PID = 1;

/** One actor's row in the timeline. */
interface Track {
  readonly tid: number;
  /** Names of its open spans, outermost first. */
  readonly open: string[];
  /** Its latest time. */
  t: number;
}

/**
 * Writes the JSON of Chrome's trace viewer, which ui.perfetto.dev opens: one track an actor, spans
 * as B and E, points in time as i. One tick of the run's clock shows as one microsecond.
 * [Trace Event Format "Duration Events"]
 *
 * The output is valid JSON with balanced spans, whatever the input: an end closes the spans opened
 * after its begin, an end without a begin shows as a point, `close` ends what is open, and time
 * never runs backwards within a track.
 */
export function createChromeWriter(write: WriteText): TraceWriter {
  const tracks = new Map<string, Track>();
  let isEmpty = true;
  let isClosed = false;

  /** `name` is JSON text. */
  function record(track: Track, ph: string, name: string, more: string): void {
    write(isEmpty ? '{"displayTimeUnit":"ms","traceEvents":[\n' : ',\n');
    isEmpty = false;
    write(`{"ph":"${ph}","pid":${PID},"tid":${track.tid},"ts":${track.t},"name":${name}${more}}`);
  }

  function trackOf(actor: string): Track {
    const known = tracks.get(actor);
    if (known !== undefined) return known;
    const track: Track = { tid: tracks.size + 1, open: [], t: 0 };
    tracks.set(actor, track);
    if (track.tid === 1) record(track, 'M', '"process_name"', ',"args":{"name":"pinhole"}');
    record(track, 'M', '"thread_name"', `,"args":{"name":${JSON.stringify(actor)}}`);
    record(track, 'M', '"thread_sort_index"', `,"args":{"sort_index":${track.tid}}`);
    return track;
  }

  /** Ends the innermost spans until only `depth` are open; the outermost of them has `args`. */
  function endSpans(track: Track, depth: number, args = ''): void {
    while (track.open.length > depth) {
      const name = JSON.stringify(track.open.pop());
      record(track, 'E', name, track.open.length === depth ? args : '');
    }
  }

  function emit({ t, actor, name, phase, args }: TraceEvent): void {
    if (isClosed) {
      throw new TraceError('E_TRACE_CLOSED', `the event ${name} came after close()`, { name });
    }
    const track = trackOf(actor);
    if (t > track.t) track.t = t;
    const more = `,"args":${argsToJson(args)}`;
    const begun = phase === 'end' ? track.open.lastIndexOf(name) : -1;
    if (phase === 'begin') {
      track.open.push(name);
      record(track, 'B', JSON.stringify(name), more);
    } else if (begun >= 0) {
      endSpans(track, begun, more);
    } else {
      record(track, 'i', JSON.stringify(name), `,"s":"t"${more}`);
    }
  }

  return {
    emit,
    close() {
      if (isClosed) return;
      isClosed = true;
      for (const track of tracks.values()) endSpans(track, 0);
      write(isEmpty ? '{"displayTimeUnit":"ms","traceEvents":[]}\n' : '\n]}\n');
    },
  };
}
