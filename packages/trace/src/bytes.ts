/** Text as bytes and back. The language itself has neither `TextEncoder` nor `TextDecoder`. */

const MAX_SHOWN = 160;

/** The bytes of an ASCII text. */
export function asciiBytes(text: string): Uint8Array {
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}

/** A text as UTF-8; a lone surrogate becomes three bytes that are not UTF-8. */
export function utf8Bytes(text: string): Uint8Array {
  const bytes: number[] = [];
  for (const char of text) {
    const code = char.codePointAt(0) as number;
    if (code < 0x80) {
      bytes.push(code);
      continue;
    }
    // The length is in the first byte; every other byte has six bits.
    const more = code < 0x800 ? 1 : code < 0x1_0000 ? 2 : 3;
    bytes.push(((0xff00 >> (more + 1)) & 0xff) | (code >> (6 * more)));
    for (let i = more - 1; i >= 0; i -= 1) bytes.push(0x80 | ((code >> (6 * i)) & 0x3f));
  }
  return Uint8Array.from(bytes);
}

/** A short run of bytes as text, one character a byte. */
export function latin1(bytes: Uint8Array, start: number, end: number): string {
  return String.fromCharCode.apply(null, bytes.subarray(start, end) as unknown as number[]);
}

/** UTF-8 as text; bytes that are not UTF-8 come out as `\xNN`. */
export function utf8(bytes: Uint8Array, start: number, end: number): string {
  let ascii = true;
  for (let i = start; i < end; i += 1) ascii &&= bytes[i]! < 0x80;
  if (ascii) return latin1(bytes, start, end);
  let encoded = '';
  for (let i = start; i < end; i += 1) encoded += `%${bytes[i]!.toString(16).padStart(2, '0')}`;
  try {
    return decodeURIComponent(encoded);
  } catch {
    return escaped(bytes, start, end);
  }
}

/** The start of a line for a message: printable ASCII, the rest as `\xNN`, bounded. */
export function excerpt(bytes: Uint8Array, start: number, end: number): string {
  if (end - start <= MAX_SHOWN) return escaped(bytes, start, end);
  return `${escaped(bytes, start, start + MAX_SHOWN)}...`;
}

/** Whether a byte is a control character other than a tab. */
export function isControl(byte: number): boolean {
  return byte === 0x7f || (byte < 0x20 && byte !== 0x09);
}

/** Whether a line has bytes that no text has: control characters or anything beyond ASCII. */
export function isBinary(bytes: Uint8Array, start: number, end: number): boolean {
  for (let i = start; i < end; i += 1) {
    const byte = bytes[i]!;
    if (byte > 0x7e || isControl(byte)) return true;
  }
  return false;
}

function escaped(bytes: Uint8Array, start: number, end: number): string {
  let text = '';
  for (let i = start; i < end; i += 1) {
    const byte = bytes[i]!;
    text +=
      byte >= 0x20 && byte < 0x7f
        ? String.fromCharCode(byte)
        : `\\x${byte.toString(16).padStart(2, '0')}`;
  }
  return text;
}
