import { ModelError } from './errors.js';

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 2 ** 10,
  kib: 2 ** 10,
  m: 2 ** 20,
  mib: 2 ** 20,
  g: 2 ** 30,
  gib: 2 ** 30,
  t: 2 ** 40,
  tib: 2 ** 40,
};

/**
 * Reads a size in bytes: `4096`, `64KiB`, `2G`, `0x1000`. Units are powers of 1024, as in QEMU.
 * @throws ModelError `E_SIZE` when the text is not a size or is not a safe integer.
 */
export function parseSize(text: string | number): number {
  if (typeof text === 'number') {
    if (Number.isSafeInteger(text) && text >= 0) return text;
    throw badSize(String(text));
  }
  const match = /^(0x[0-9a-f]+|\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim());
  if (match === null) throw badSize(text);
  const unit = UNITS[(match[2] as string).toLowerCase()];
  const bytes = Number(match[1]) * (unit ?? Number.NaN);
  if (!Number.isSafeInteger(bytes)) throw badSize(text);
  return bytes;
}

function badSize(text: string): ModelError<'E_SIZE'> {
  return new ModelError(
    'E_SIZE',
    `expected a size such as 4096, 64KiB or 2GiB (a whole number of bytes below 2^53), found "${text}"`,
  );
}

/** `1536` → `1.5 KiB`; at most one decimal, exact for whole units. */
export function formatSize(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let index = 0;
  // What one decimal would round up to 1024 is 1 of the next unit.
  while (value >= (index === 0 ? 1024 : 1023.95) && index < units.length - 1) {
    value /= 1024;
    index += 1;
  }
  const isWhole = Number.isInteger(value) || (index > 0 && value < 1);
  const digits = isWhole ? value.toFixed(0) : value.toFixed(1);
  return `${digits} ${units[index] as string}`;
}
