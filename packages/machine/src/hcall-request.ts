/** Reading what a line of `pinhole hcall` asks for. Each function throws ModelError `E_REQUEST`. */
import { ModelError } from '@pinhole/base';
import { HCALL_NAMES, RTAS_TOKENS } from '@pinhole/hcall';

/** An object of JSON. */
export type Json = Readonly<Record<string, unknown>>;

export const U32: bigint = 2n ** 32n - 1n;
const U53 = 2n ** 53n - 1n;
export const U64: bigint = 2n ** 64n - 1n;

/** Hypercalls by name. */
export const OPCODES: ReadonlyMap<string, number> = new Map(
  [...HCALL_NAMES].map(([opcode, name]) => [name, opcode]),
);
/** RTAS calls by name. */
export const TOKENS: ReadonlyMap<string, number> = new Map<string, number>(
  Object.entries(RTAS_TOKENS),
);
/** Each kind of request: the key that says so, and the others it may have. */
const REQUESTS: Readonly<Record<string, readonly string[]>> = {
  op: ['args'],
  rtas: ['args', 'nret'],
  write: [],
  read: [],
  reset: [],
  save: [],
  restore: [],
};
const KINDS = Object.keys(REQUESTS);
/** JSON's numbers are exact below 2^53 only. */
export const GRAMMAR = 'a safe whole number, or text, "0x..." or decimal';
/** Bytes that are turned into text at once. */
const HEX_PIECE = 4096;
const HEX_DIGITS = Array.from('0123456789abcdef', (digit) => digit.charCodeAt(0));

/** The error: where, what was expected, what was found. */
export function expected(path: string, what: string, found: unknown): ModelError<'E_REQUEST'> {
  const where = path === '' ? '' : `${path}: `;
  return new ModelError('E_REQUEST', `${where}expected ${what}, found ${shown(found)}`);
}

// Never looks deeper than one level: a value may be nested deeper than the stack is.
function shown(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (typeof value === 'string') return excerpt(value);
  if (Array.isArray(value)) return `a list of ${value.length}`;
  return typeof value === 'object' && value !== null ? 'an object' : String(value);
}

/** The beginning of a text, quoted. */
export function excerpt(text: string): string {
  return text.length > 40 ? `${JSON.stringify(text.slice(0, 37))}...` : JSON.stringify(text);
}

/** What kind of request it is; it has no keys but those of its kind. */
export function readKind(value: unknown): { readonly kind: string; readonly request: Json } {
  const oneOf = `an object with exactly one of the keys ${KINDS.join(', ')}`;
  if (!isObject(value)) throw expected('', oneOf, value);
  const found = KINDS.filter((kind) => Object.hasOwn(value, kind));
  const [kind] = found;
  if (kind === undefined || found.length > 1) {
    const keys = Object.keys(value).slice(0, 8).map(excerpt).join(', ');
    const what = keys === '' ? 'no key' : `the keys ${keys}`;
    throw new ModelError('E_REQUEST', `expected ${oneOf}, found ${what}`);
  }
  return { kind, request: fields(value, '', [kind, ...(REQUESTS[kind] as readonly string[])]) };
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** An object, once it is known to have no keys but `keys`. */
export function fields(value: unknown, path: string, keys: readonly string[]): Json {
  if (!isObject(value)) throw expected(path, `an object with ${keys.join(' and ')}`, value);
  for (const key in value) {
    if (!keys.includes(key)) throw expected(path, `no key but ${keys.join(', ')}`, key);
  }
  return value;
}

/** A list, or nothing, which is an empty one. */
export function readList(value: unknown, max: number): readonly unknown[] {
  if (value === undefined) return [];
  if (Array.isArray(value) && value.length <= max) return value;
  throw expected('args', `a list of at most ${max}`, value);
}

function toInteger(value: unknown, max: bigint): bigint | undefined {
  const isNumber = typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
  // No text of a number that fits is longer; a long one would take long to read.
  const isText =
    typeof value === 'string' && value.length <= 20 && /^(0x[0-9a-f]{1,16}|\d+)$/i.test(value);
  if (!isNumber && !isText) return undefined;
  const number = BigInt(value as number | string);
  return number <= max ? number : undefined;
}

/** A whole number from 0 to `max`. */
export function readInteger(value: unknown, path: string, max: bigint, what: string): bigint {
  const number = toInteger(value, max);
  if (number === undefined) throw expected(path, what, value);
  return number;
}

/** The same for small numbers. */
export function readCount(value: unknown, path: string, max: number): number {
  return Number(readInteger(value, path, BigInt(max), `a whole number from 0 to ${max}`));
}

/** A guest-physical address. */
export function readGpa(value: unknown, path: string): number {
  return Number(readInteger(value, path, U53, `an address below 2^53: ${GRAMMAR}`));
}

/** A number, or a name that stands for one. */
export function readNamed(
  value: unknown,
  path: string,
  names: ReadonlyMap<string, number>,
  max: bigint,
): number | bigint {
  const number = typeof value === 'string' ? names.get(value) : undefined;
  if (number !== undefined) return number;
  const bits = max === U64 ? 64 : 32;
  return readInteger(
    value,
    path,
    max,
    `one of ${[...names.keys()].join(', ')}, or a number of ${bits} bits`,
  );
}

/** Bytes from pairs of hexadecimal digits. */
export function bytesOf(value: unknown, path: string): Uint8Array {
  // A pattern that repeats a group would overflow the stack on megabytes.
  if (typeof value !== 'string' || value.length % 2 !== 0 || !/^[0-9a-f]*$/i.test(value)) {
    throw expected(path, 'pairs of hexadecimal digits', value);
  }
  const bytes = new Uint8Array(value.length / 2);
  for (let i = 0; i < bytes.length; i += 1) {
    bytes[i] = digitAt(value, i * 2) * 16 + digitAt(value, i * 2 + 1);
  }
  return bytes;
}

// Of what is known to be one. The low four bits of 'A' and 'a' are 1.
function digitAt(text: string, index: number): number {
  const code = text.charCodeAt(index);
  return code < 0x40 ? code & 0xf : (code & 0xf) + 9;
}

/** Bytes to hexadecimal digits. A string for each byte would take twenty times as long. */
export function toHex(bytes: Uint8Array): string {
  let text = '';
  for (let start = 0; start < bytes.length; start += HEX_PIECE) {
    const piece = bytes.subarray(start, start + HEX_PIECE);
    const codes: number[] = new Array(piece.length * 2);
    for (let i = 0; i < piece.length; i += 1) {
      const byte = piece[i] as number;
      codes[i * 2] = HEX_DIGITS[byte >> 4] as number;
      codes[i * 2 + 1] = HEX_DIGITS[byte & 0xf] as number;
    }
    text += String.fromCharCode(...codes);
  }
  return text;
}
