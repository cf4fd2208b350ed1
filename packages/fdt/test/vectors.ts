import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';

/** See vectors/README.md. */
export const VECTORS = ['pseries-ddw', 'pseries-noddw', 'virt-smmuv3'] as const;

export function loadVector(name: (typeof VECTORS)[number]): Uint8Array {
  const path = join(import.meta.dirname, 'vectors', `${name}.dtb.gz`);
  return new Uint8Array(gunzipSync(readFileSync(path)));
}
