/** Values of properties, to and from bytes. [Devicetree v0.4 §2.2.4.2 "Property Values"] */
import { isU32, isU64, latin1, readU32, readU64, writeU32, writeU64 } from './bytes.js';
import { FdtError } from './errors.js';
import { quote } from './names.js';

/**
 * `<u32>`s: the cells of a value, `<1 2 3>` in source.
 * @throws FdtError `E_FDT_VALUE` when the length is no multiple of 4
 */
export function decodeCells(value: Uint8Array): number[] {
  needMultiple(value, 4);
  return Array.from({ length: value.length / 4 }, (_, index) => readU32(value, index * 4));
}

/**
 * One `<u32>`.
 * @throws FdtError `E_FDT_VALUE` when it is not 4 bytes
 */
export function decodeU32(value: Uint8Array): number {
  if (value.length !== 4) failValue('4 bytes', `${value.length}`);
  return readU32(value, 0);
}

/**
 * One `<u64>`: two cells, the more significant one first.
 * @throws FdtError `E_FDT_VALUE` when it is not 8 bytes
 */
export function decodeU64(value: Uint8Array): bigint {
  if (value.length !== 8) failValue('8 bytes', `${value.length}`);
  return readU64(value, 0);
}

/**
 * One `<string>`, its NUL removed. Bytes beyond ASCII are read as UTF-8, as dtc's sources are.
 * @throws FdtError `E_FDT_VALUE` when it is not exactly one string
 */
export function decodeString(value: Uint8Array): string {
  const strings = decodeStrings(value);
  if (strings.length !== 1) failValue('one string', `${strings.length}`);
  return strings[0]!;
}

/**
 * A `<stringlist>`, as of `compatible`; an empty value is an empty list.
 * @throws FdtError `E_FDT_VALUE` when the last string has no NUL, or one is not UTF-8
 */
export function decodeStrings(value: Uint8Array): string[] {
  if (value.length === 0) return [];
  if (value.at(-1) !== 0) failValue('a NUL at the end', `0x${value.at(-1)!.toString(16)}`);
  return latin1(value.subarray(0, -1)).split('\0').map(fromUtf8);
}

/**
 * Cells: `encodeCells([1, 2])` is `<1 2>`.
 * @throws FdtError `E_FDT_VALUE` when one is not an unsigned 32-bit integer
 */
export function encodeCells(cells: readonly number[]): Uint8Array {
  const value = new Uint8Array(cells.length * 4);
  for (const [index, cell] of cells.entries()) {
    if (!isU32(cell)) failValue('unsigned 32-bit integers', String(cell));
    writeU32(value, index * 4, cell);
  }
  return value;
}

/**
 * 64-bit numbers, each two cells.
 * @throws FdtError `E_FDT_VALUE` when one is not an unsigned 64-bit integer
 */
export function encodeU64s(numbers: readonly bigint[]): Uint8Array {
  const value = new Uint8Array(numbers.length * 8);
  for (const [index, number] of numbers.entries()) {
    if (!isU64(number)) failValue('unsigned 64-bit integers', String(number));
    writeU64(value, index * 8, number);
  }
  return value;
}

/**
 * Strings, each with its NUL; one string is a list of one.
 * @throws FdtError `E_FDT_VALUE` when one contains a NUL or half a surrogate pair
 */
export function encodeStrings(strings: readonly string[]): Uint8Array {
  for (const text of strings) {
    if (text.includes('\0')) failValue('strings without NUL', quote(text));
  }
  return Uint8Array.from(strings.map((text) => `${toUtf8(text)}\0`).join(''), (c) =>
    c.charCodeAt(0),
  );
}

/** Bytes as characters -> text. */
function fromUtf8(bytes: string): string {
  if (/^[\0-\x7f]*$/.test(bytes)) return bytes;
  try {
    return decodeURIComponent(bytes.replace(/[%\x80-\xff]/g, escapeByte));
  } catch {
    return failValue('UTF-8', quote(bytes));
  }
}

/** Text -> bytes as characters. */
function toUtf8(text: string): string {
  if (/^[\0-\x7f]*$/.test(text)) return text;
  try {
    return encodeURIComponent(text).replace(/%(..)/g, (_, digits) =>
      String.fromCharCode(Number.parseInt(digits, 16)),
    );
  } catch {
    return failValue('well-formed text', quote(text));
  }
}

function escapeByte(byte: string): string {
  return `%${byte.charCodeAt(0).toString(16).padStart(2, '0')}`;
}

function needMultiple(value: Uint8Array, unit: number): void {
  if (value.length % unit !== 0) failValue(`a multiple of ${unit} bytes`, `${value.length}`);
}

function failValue(expected: string, found: string): never {
  throw new FdtError('E_FDT_VALUE', { what: 'value', expected, found });
}
