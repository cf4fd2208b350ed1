import type { TraceValue } from '@pinhole/base';

/**
 * How an argument is printed, and so which type it has. The C conversion is in the comment.
 */
export type ArgFormat =
  | 'x64' // 0x%llx      bigint
  | 'h64' // %llx        bigint (no prefix)
  | 'p64' // 0x%016llx   bigint (always 16 digits)
  | 'u64' // %llu        bigint
  | 'd64' // %lld        bigint
  | 'r64' // %lu         bigint: a signed return code that the source prints as unsigned
  | 'x32' // 0x%x        number
  | 'u32' // %u          number
  | 'd32' // %d          number
  | 'u53' // %zu         number: a count or size that is a safe integer
  | 'd53' // %zd         number: the same, printed as signed
  | 'ptr' // %p          string: an object's address, good only as an identity; the model has names
  | 'str' // %s          string
  | 'arr'; // __print_array  string: {0x1,0x2}, from trace-cmd 1 2

/** One argument of an event. */
export interface EventArg {
  readonly name: string;
  readonly format: ArgFormat;
  /** Its JavaScript type: addresses and 64-bit registers are `bigint`. */
  readonly type: 'bigint' | 'number' | 'string';
}

/** Who defines an event: its name, its arguments and how it is printed. */
export type EventSource = 'qemu' | 'linux' | 'pinhole';

/** One row of the catalogue. */
export interface EventSpec {
  readonly name: string;
  readonly source: EventSource;
  /** Who acts, where the event itself does not say: `guest`, `hypervisor`, `device`. */
  readonly actor: string;
  /** A span has a begin and an end; anything else is a point in time. */
  readonly span: boolean;
  /** In the order of the tracepoint's own arguments. */
  readonly args: readonly EventArg[];
  /** The printed form: `{name:format}` fields between literal text. */
  readonly template: string;
  /** How other versions of the source print it, perhaps with fewer arguments, or more. */
  readonly variants: readonly string[];
  readonly summary: string;
}

/** An event's arguments by name. */
export type EventArgs = Readonly<Record<string, TraceValue>>;
