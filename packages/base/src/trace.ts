/** What an event can carry. 64-bit values are `bigint`. */
export type TraceValue = number | bigint | string | boolean;

/**
 * One observable act of a run: the model's own, or one that a real QEMU or Linux logged. Names and
 * argument order are those of QEMU's or Linux's tracepoint where one exists.
 */
export interface TraceEvent {
  /** Time in ticks of the run's clock: an order, not a duration. */
  readonly t: number;
  /** Who acts: `guest`, `hypervisor`, `device`; one track each in a timeline. */
  readonly actor: string;
  readonly name: string;
  /** Absent: a point in time. Otherwise the start or the end of a span of the same name. */
  readonly phase?: 'begin' | 'end';
  readonly args: Readonly<Record<string, TraceValue>>;
}

/** Where events go. */
export interface TraceSink {
  emit(event: TraceEvent): void;
}

/** Time. Below the command line nobody reads the machine's clock: one is passed in. */
export interface Clock {
  now(): number;
}

/** A clock that advances by one at each reading: the order of events, byte-identical each run. */
export function createTickClock(): Clock {
  let ticks = 0;
  return { now: () => ticks++ };
}

/**
 * What the parts of a machine hold to report what they do. When `on` is false, a caller skips
 * building the arguments: tracing costs nothing when nobody listens.
 */
export class Tracer {
  readonly on: boolean;
  readonly #sink: TraceSink | undefined;
  readonly #clock: Clock;

  constructor(sink?: TraceSink, clock: Clock = createTickClock()) {
    this.on = sink !== undefined;
    this.#sink = sink;
    this.#clock = clock;
  }

  /** Reports a point in time. */
  event(actor: string, name: string, args: Record<string, TraceValue>): void {
    this.#sink?.emit({ t: this.#clock.now(), actor, name, args });
  }

  /** Opens a span. Spans of one actor nest: the last opened is the first closed. */
  begin(actor: string, name: string, args: Record<string, TraceValue>): void {
    this.#sink?.emit({ t: this.#clock.now(), actor, name, phase: 'begin', args });
  }

  /** Closes the span that `begin` opened with the same actor and name. */
  end(actor: string, name: string, args: Record<string, TraceValue> = {}): void {
    this.#sink?.emit({ t: this.#clock.now(), actor, name, phase: 'end', args });
  }
}

/** The tracer that nobody listens to. */
export const NO_TRACE: Tracer = new Tracer();
