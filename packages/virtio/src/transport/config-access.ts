import type { MmioRegion, RegisterWidth } from './registers.js';

/**
 * Reads the device configuration from `at` on. A field of 1, 2, 4 or 8 bytes is read at its width;
 * any other length is an array of bytes. "The driver MUST use 32-bit wide and aligned accesses for
 * 32-bit and 64-bit wide fields." [VIRTIO v1.2 §4.1.3.1 "Driver Requirements: PCI Device Layout"]
 */
export function readConfigField(region: MmioRegion, at: number, into: Uint8Array): void {
  const width = fieldWidth(at, into.length);
  for (let i = 0; i < into.length; i += width) {
    const value = region.read(at + i, width);
    for (let b = 0; b < width; b += 1) into[i + b] = value >>> (8 * b);
  }
}

/** Writes the device configuration in the same way. */
export function writeConfigField(region: MmioRegion, at: number, from: Uint8Array): void {
  const width = fieldWidth(at, from.length);
  for (let i = 0; i < from.length; i += width) {
    let value = 0;
    for (let b = width - 1; b >= 0; b -= 1) value = (value * 256 + from[i + b]!) >>> 0;
    region.write(at + i, width, value);
  }
}

function fieldWidth(offset: number, length: number): RegisterWidth {
  if ((length === 4 || length === 8) && offset % 4 === 0) return 4;
  return length === 2 && offset % 2 === 0 ? 2 : 1;
}
