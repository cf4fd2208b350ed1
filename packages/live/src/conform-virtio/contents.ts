import { DISK_SIZE } from './shapes.js';

/** What each disk holds at first: every sector is different. */
export function diskContents(): Uint8Array {
  const bytes = new Uint8Array(DISK_SIZE);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = i * 7 + (i >>> 9) * 31;
  return bytes;
}

/** What the entropy devices give out, from its start and over and over: known bytes. */
export function entropyContents(): Uint8Array {
  const bytes = new Uint8Array(DISK_SIZE);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = (i * 2_654_435_761) >>> 24;
  return bytes;
}
