import type { TraceEvent } from '@pinhole/base';
import * as fc from 'fast-check';
import type { ArgFormat, EventSpec } from '../../src/index.js';
import { eventCatalogue } from '../../src/index.js';
import { parseTemplate } from '../../src/template.js';

const MAX_U64 = 0xffff_ffff_ffff_ffffn;
const u64 = (): fc.Arbitrary<bigint> => fc.bigInt({ min: 0n, max: MAX_U64 });
const s64 = (): fc.Arbitrary<bigint> => fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });

/** Every value that the source of an event can print in this format. */
const VALUES: Readonly<Record<ArgFormat, fc.Arbitrary<bigint | number | string>>> = {
  x64: u64(),
  h64: u64(),
  p64: u64(),
  u64: u64(),
  d64: s64(),
  r64: s64(),
  x32: fc.integer({ min: 0, max: 0xffff_ffff }),
  u32: fc.integer({ min: 0, max: 0xffff_ffff }),
  d32: fc.integer({ min: -0x8000_0000, max: 0x7fff_ffff }),
  u53: fc.maxSafeNat(),
  // Of the two zeros only one is printed by anybody.
  d53: fc.maxSafeInteger().map((value) => (value === 0 ? 0 : value)),
  ptr: fc.oneof(
    fc.constantFrom('(nil)', 'vd0', 'vd0q0e17'),
    u64().map((value) => `0x${value.toString(16)}`),
  ),
  // No bracket: one ends a text that is in brackets.
  str: fc.stringMatching(/^[!-Z^-~]{0,20}$/),
  arr: fc
    .tuple(fc.array(u64(), { maxLength: 5 }), fc.boolean())
    .map(([numbers, isKernel]) =>
      isKernel ? `{${numbers.map((n) => `0x${n.toString(16)}`).join()}}` : numbers.join(' '),
    ),
};

/** Any event of these rows that its source can print. */
export function arbitraryEvent(specs: readonly EventSpec[]): fc.Arbitrary<TraceEvent> {
  return fc
    .constantFrom(...specs)
    .chain((spec) =>
      fc.constantFrom(spec.template, ...spec.variants).map((form) => [spec, form] as const),
    )
    .chain(([spec, form]) =>
      fc.record(valuesOf(form)).map((args) => ({ t: 1, actor: spec.actor, name: spec.name, args })),
    );
}

/** A text ends where the template goes on: it has not the character that comes then. */
function valuesOf(form: string): Record<string, fc.Arbitrary<bigint | number | string>> {
  const { fields, tail } = parseTemplate(form);
  return Object.fromEntries(
    fields.map(({ arg }, i) => {
      const stop = (fields[i + 1]?.before ?? tail).charAt(0);
      const value = VALUES[arg.format];
      if (arg.format !== 'str' || stop === '') return [arg.name, value];
      return [arg.name, value.map((text) => String(text).replaceAll(stop, ''))];
    }),
  );
}

/** The rows of QEMU. */
export const QEMU_EVENTS: readonly EventSpec[] = eventCatalogue.filter(
  ({ source }) => source === 'qemu',
);

/** The rows of Linux. */
export const LINUX_EVENTS: readonly EventSpec[] = eventCatalogue.filter(
  ({ source }) => source === 'linux',
);
