const TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let rest = index;
  for (let bit = 0; bit < 8; bit += 1) rest = (rest >>> 1) ^ (rest & 1 ? 0xedb88320 : 0);
  return rest;
});

/**
 * CRC-32 of a text's UTF-8 bytes, as gzip has it: 8 hex digits. `before` is the checksum of what
 * comes before the text. [RFC 1952 §8 "Appendix: Sample CRC Code"]
 */
export function crc32(text: string, before = '00000000'): string {
  let rest = ~Number.parseInt(before, 16);
  const add = (byte: number): void => {
    rest = (rest >>> 8) ^ (TABLE[(rest ^ byte) & 0xff] as number);
  };
  for (const character of text) {
    const code = character.codePointAt(0) as number;
    if (code < 0x80) {
      add(code);
      continue;
    }
    const more = code < 0x800 ? 1 : code < 0x1_0000 ? 2 : 3;
    add(((0xf00 >> (more + 1)) & 0xff) | (code >> (6 * more)));
    for (let at = more - 1; at >= 0; at -= 1) add(0x80 | ((code >> (6 * at)) & 0x3f));
  }
  return (~rest >>> 0).toString(16).padStart(8, '0');
}
