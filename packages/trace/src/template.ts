import { invariant } from '@pinhole/base';
import type { ArgFormat, EventArg } from './types.js';

/** What each format yields and how a message names it. */
export const ARG_FORMATS: Readonly<Record<ArgFormat, { type: EventArg['type']; expects: string }>> =
  {
    x64: { type: 'bigint', expects: '0x and 1 to 16 lower-case hex digits' },
    h64: { type: 'bigint', expects: '1 to 16 lower-case hex digits' },
    p64: { type: 'bigint', expects: '0x and 16 lower-case hex digits' },
    u64: { type: 'bigint', expects: 'an unsigned 64-bit decimal' },
    d64: { type: 'bigint', expects: 'a signed 64-bit decimal' },
    r64: { type: 'bigint', expects: 'an unsigned 64-bit decimal' },
    x32: { type: 'number', expects: '0x and 1 to 8 lower-case hex digits' },
    u32: { type: 'number', expects: 'an unsigned 32-bit decimal' },
    d32: { type: 'number', expects: 'a signed 32-bit decimal' },
    u53: { type: 'number', expects: 'an unsigned decimal below 2^53' },
    d53: { type: 'number', expects: 'a signed decimal below 2^53' },
    ptr: { type: 'string', expects: '(nil), 0x and hex digits, or a name such as vd0q0' },
    str: { type: 'string', expects: 'text' },
    arr: { type: 'string', expects: 'numbers such as {0x1,0x2}' },
  };

/** A template taken apart: each field with the literal before it, and the literal at the end. */
export interface Template {
  readonly fields: readonly { readonly before: string; readonly arg: EventArg }[];
  readonly tail: string;
}

const FIELD = /\{(\w+):(\w+)\}/g;

/** Takes a template apart. Templates are our own: a bad one is a bug. */
export function parseTemplate(template: string): Template {
  const fields: { before: string; arg: EventArg }[] = [];
  let at = 0;
  for (const match of template.matchAll(FIELD)) {
    const [text, name, format] = match as unknown as [string, string, ArgFormat];
    const known = ARG_FORMATS[format];
    invariant(known !== undefined, `trace: template "${template}" has the format "${format}"`);
    fields.push({
      before: template.slice(at, match.index),
      arg: { name, format, type: known.type },
    });
    at = match.index + text.length;
  }
  return { fields, tail: template.slice(at) };
}
