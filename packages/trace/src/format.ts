import type { TraceEvent, TraceValue } from '@pinhole/base';
import { TraceError } from './errors.js';
import { eventCatalogue } from './events.js';
import { parseTemplate, type Template } from './template.js';
import type { ArgFormat, EventArg } from './types.js';

const MAX_U64 = 0xffff_ffff_ffff_ffffn;
const MIN_S64 = -0x8000_0000_0000_0000n;
const MAX_S64 = 0x7fff_ffff_ffff_ffffn;
const MAX_SAFE = BigInt(Number.MAX_SAFE_INTEGER);

/** The values that a number format can hold, and how it prints them. */
const NUMBERS: Readonly<
  Record<
    Exclude<ArgFormat, 'ptr' | 'str' | 'arr'>,
    { min: bigint; max: bigint; print: (value: number | bigint) => string }
  >
> = {
  x64: { min: 0n, max: MAX_U64, print: (value) => `0x${value.toString(16)}` },
  h64: { min: 0n, max: MAX_U64, print: (value) => value.toString(16) },
  p64: {
    min: 0n,
    max: MAX_U64,
    print: (value) => `0x${value.toString(16).padStart(16, '0')}`,
  },
  u64: { min: 0n, max: MAX_U64, print: String },
  d64: { min: MIN_S64, max: MAX_S64, print: String },
  r64: { min: MIN_S64, max: MAX_S64, print: (value) => `${BigInt.asUintN(64, BigInt(value))}` },
  x32: { min: 0n, max: 0xffff_ffffn, print: (value) => `0x${value.toString(16)}` },
  u32: { min: 0n, max: 0xffff_ffffn, print: String },
  d32: { min: -0x8000_0000n, max: 0x7fff_ffffn, print: String },
  u53: { min: 0n, max: MAX_SAFE, print: String },
  d53: { min: -MAX_SAFE, max: MAX_SAFE, print: String },
};

/** How the events of QEMU and Linux print: the usual form, then the others. */
const TEMPLATES: ReadonlyMap<string, readonly Template[]> = new Map(
  eventCatalogue
    .filter((event) => event.source !== 'pinhole')
    .map((event) => [event.name, [event.template, ...event.variants].map(parseTemplate)]),
);

/** How the numbers of the model's own events print: `event.argument` to format. */
const OWN_FORMATS: ReadonlyMap<string, ArgFormat> = new Map(
  eventCatalogue
    .filter((event) => event.source === 'pinhole')
    .flatMap((event) => event.args.map((arg) => [`${event.name}.${arg.name}`, arg.format])),
);

/**
 * An event as a line of text without its time: exactly what QEMU prints for QEMU's events. Linux's
 * have their arguments as ftrace prints them, in the form of the kernel version that has them; any other event is `name key=value ...`, a span with
 * `begin` or `end` after its name.
 * @throws TraceError `E_TRACE_ARGS` when an argument is missing, or is not what the event has there.
 */
export function formatEvent(event: TraceEvent): string {
  const templates = event.phase === undefined ? TEMPLATES.get(event.name) : undefined;
  if (templates !== undefined) return fill(event, formOf(event, templates));
  let text = event.phase === undefined ? event.name : `${event.name} ${event.phase}`;
  for (const [name, value] of Object.entries(event.args)) {
    const format = OWN_FORMATS.get(`${event.name}.${name}`);
    const isNumber = format !== undefined && typeof value !== 'string';
    const printed = isNumber ? formatArg(value, format) : undefined;
    text += ` ${name}=${printed ?? formatValue(value)}`;
  }
  return text;
}

/** The form with the most arguments of those whose arguments are all there; else the usual one. */
function formOf({ args }: TraceEvent, templates: readonly Template[]): Template {
  let [best, ...others] = templates as readonly [Template, ...Template[]];
  if (others.length === 0) return best;
  const has = ({ fields }: Template): boolean =>
    fields.every(({ arg }) => args[arg.name] !== undefined);
  others = others.filter(has);
  if (!has(best)) best = others[0] ?? best;
  for (const other of others) if (other.fields.length > best.fields.length) best = other;
  return best;
}

function fill(event: TraceEvent, template: Template): string {
  let text = `${event.name} `;
  for (const { before, arg } of template.fields) {
    const value = event.args[arg.name];
    const printed = value === undefined ? undefined : formatArg(value, arg.format);
    if (printed === undefined) throw badArgument(event, arg);
    text += before + printed;
  }
  return text + template.tail;
}

/** `undefined` when the value is not of this format. Integers may come as `number` or `bigint`. */
function formatArg(value: TraceValue, format: ArgFormat): string | undefined {
  if (format === 'ptr' || format === 'str' || format === 'arr') {
    return typeof value === 'string' ? oneLine(value) : undefined;
  }
  if (typeof value !== 'bigint' && (typeof value !== 'number' || !Number.isSafeInteger(value))) {
    return undefined;
  }
  const { min, max, print } = NUMBERS[format];
  return value >= min && value <= max ? print(value) : undefined;
}

/** Addresses, and whatever else is 64 bits wide, in hex; text in quotes where it has spaces. */
function formatValue(value: TraceValue): string {
  if (typeof value === 'bigint') return value < 0n ? `${value}` : `0x${value.toString(16)}`;
  if (typeof value !== 'string') return String(value);
  return /^[\w.:,/+-]+$/.test(value) ? value : JSON.stringify(value);
}

/** An event is one line, whatever a guest may have put into its text. */
function oneLine(text: string): string {
  return text.replaceAll('\n', '\\n').replaceAll('\r', '\\r');
}

function badArgument(event: TraceEvent, arg: EventArg): TraceError {
  const found = event.args[arg.name];
  const shown = found === undefined ? 'nothing' : `${typeof found} ${formatValue(found)}`;
  return new TraceError(
    'E_TRACE_ARGS',
    `${event.name}: expected ${arg.name} as ${arg.type} (${arg.format}), found ${shown}`,
    { event: event.name, argument: arg.name },
  );
}
