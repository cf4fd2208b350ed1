/** Configuration spaces as tables. [VIRTIO v1.2 §2.5 "Device Configuration Space"] */
import { hiOf, joinNumber, loOf } from '@pinhole/base';
import { hasFeature } from '../features.js';

/**
 * A field: where it stands, its width in bytes, and the features of which one must be negotiated for
 * it to exist; none: it always does.
 */
export type ConfigRow<K extends string> = readonly [
  name: K,
  offset: number,
  width: 1 | 2 | 4 | 8,
  ...features: number[],
];

/** A part of a configuration space. */
export interface ConfigPart {
  readonly offset: number;
  readonly length: number;
}

/** Writes the fields; those that are not given are 0, those beyond `size` are left out. */
export function encodeConfig<K extends string>(
  layout: readonly ConfigRow<K>[],
  config: Partial<Readonly<Record<K, number>>>,
  size: number,
): Uint8Array {
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  for (const [name, offset, width] of layout) {
    const value = config[name] ?? 0;
    if (offset + width > size) continue;
    if (width === 1) view.setUint8(offset, value);
    else if (width === 2) view.setUint16(offset, value, true);
    else view.setUint32(offset, loOf(value), true);
    if (width === 8) view.setUint32(offset + 4, hiOf(value), true);
  }
  return bytes;
}

/** Reads the fields; those beyond the end are 0. */
export function decodeConfig<K extends string>(
  layout: readonly ConfigRow<K>[],
  bytes: Uint8Array,
): Record<K, number> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const config: Partial<Record<K, number>> = {};
  for (const [name, offset, width] of layout) {
    config[name] = offset + width > bytes.length ? 0 : readField(view, offset, width);
  }
  return config as Record<K, number>;
}

/** Where the fields are that exist with these features: the driver reads no others. */
export function configParts<K extends string>(
  layout: readonly ConfigRow<K>[],
  features: bigint,
): ConfigPart[] {
  return layout
    .filter(
      ([, , , ...needs]) => needs.length === 0 || needs.some((bit) => hasFeature(features, bit)),
    )
    .map(([, offset, length]) => ({ offset, length }));
}

function readField(view: DataView, offset: number, width: 1 | 2 | 4 | 8): number {
  if (width === 1) return view.getUint8(offset);
  if (width === 2) return view.getUint16(offset, true);
  const low = view.getUint32(offset, true);
  return width === 4 ? low : joinNumber(view.getUint32(offset + 4, true), low);
}
