import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';

/** The bytes of a recorded trace; not a `Buffer`, whose `slice` is not a copy. */
export function recordedBytes(url: URL): Uint8Array {
  return new Uint8Array(gunzipSync(readFileSync(url)));
}
