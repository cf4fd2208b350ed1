import type { TraceEvent } from '@pinhole/base';
import { TraceError } from './errors.js';
import { argsToJson } from './ndjson.js';
import type { TraceWriter, WriteText } from './sinks.js';

const PID = 1;
/** A flow is told from others by its id, and by name and category. */
const FLOW = '"flow"';

/** One end, or a step between, of an arrow that links events. */
export interface FlowPoint {
  /** Free for another flow once this one has ended. */
  readonly id: number;
  readonly phase: 'start' | 'step' | 'end';
}

/** A writer that can link events, on one track or on several, by arrows. */
export interface ChromeWriter extends TraceWriter {
  /**
   * Writes an event, and that these flows start at it, go through it, or end at it. A step or an end
   * of a flow that has not started is left out; a second start is a step.
   */
  emit(event: TraceEvent, flows?: readonly FlowPoint[]): void;
}

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
 * [Trace Event Format "Duration Events"] [Trace Event Format "Flow Events"]
 *
 * The output is valid JSON with balanced spans, whatever the input: an end closes the spans opened
 * after its begin, an end without a begin shows as a point, `close` ends what is open, and time
 * never runs backwards within a track.
 */
export function createChromeWriter(write: WriteText): ChromeWriter {
  const tracks = new Map<string, Track>();
  const openFlows = new Set<number>();
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

  /** Binds flows to the innermost open span. */
  function recordFlows(track: Track, flows: readonly FlowPoint[]): void {
    for (const { id, phase } of flows) {
      const isOpen = openFlows.has(id);
      if (phase === 'start') openFlows.add(id);
      else if (!isOpen) continue;
      const more = `,"cat":${FLOW},"id":${JSON.stringify(id)}`;
      if (phase === 'end') {
        openFlows.delete(id);
        // Without bp a viewer binds an end to the next span.
        record(track, 'f', FLOW, `${more},"bp":"e"`);
      } else {
        record(track, isOpen ? 't' : 's', FLOW, more);
      }
    }
  }

  function emit(
    { t, actor, name, phase, args }: TraceEvent,
    flows: readonly FlowPoint[] = [],
  ): void {
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
      recordFlows(track, flows);
    } else if (begun >= 0) {
      endSpans(track, begun + 1);
      recordFlows(track, flows);
      endSpans(track, begun, more);
    } else if (flows.length > 0) {
      // A flow binds to a span: this point becomes one that takes no time.
      record(track, 'B', JSON.stringify(name), more);
      recordFlows(track, flows);
      record(track, 'E', JSON.stringify(name), '');
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
