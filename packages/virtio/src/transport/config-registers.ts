import type { VirtioDeviceCore } from '../device/device-core.js';
import type { RegisterWidth } from './registers.js';

const bytes = new Uint8Array(4);
const view = new DataView(bytes.buffer);

/** The low bytes of a value. */
export function truncate(value: number, width: RegisterWidth): number {
  if (width === 4) return value >>> 0;
  return width === 2 ? value & 0xffff : value & 0xff;
}

/** Reads `width` bytes of the device configuration, as a little-endian number; big-endian if so asked. */
export function readDeviceConfig(
  core: VirtioDeviceCore,
  offset: number,
  width: RegisterWidth,
  isBigEndian = false,
): number {
  core.readConfig(offset, bytes.subarray(0, width));
  if (width === 1) return bytes[0]!;
  return width === 2 ? view.getUint16(0, !isBigEndian) : view.getUint32(0, !isBigEndian);
}

/** Writes `width` bytes of the device configuration. */
export function writeDeviceConfig(
  core: VirtioDeviceCore,
  offset: number,
  width: RegisterWidth,
  value: number,
  isBigEndian = false,
): void {
  if (width === 1) view.setUint8(0, value);
  else if (width === 2) view.setUint16(0, value, !isBigEndian);
  else view.setUint32(0, value, !isBigEndian);
  core.writeConfig(offset, bytes.subarray(0, width));
}
