import type { VirtioTransport } from './transport.js';

/** Tries to read a configuration that changes all the time. */
const TRIES = 100;

/**
 * Reads consecutive fields of the device configuration, from its start, each at its own width, all
 * of one generation. A device that changes it without end gives what was read last.
 * [VIRTIO v1.2 §2.5.1 "Driver Requirements: Device Configuration Space"]
 * [linux v6.1 include/linux/virtio_config.h __virtio_cread_many]
 * @param widths - in bytes: 1, 2, 4 or 8; another width is an array of bytes.
 */
export function readConfigFields(
  transport: VirtioTransport,
  widths: readonly number[],
): Uint8Array {
  const bytes = new Uint8Array(widths.reduce((sum, width) => sum + width, 0));
  for (let tries = 0; tries < TRIES; tries += 1) {
    const before = transport.configGeneration();
    let at = 0;
    for (const width of widths) {
      transport.readConfig(at, bytes.subarray(at, at + width));
      at += width;
    }
    if (transport.configGeneration() === before) break;
  }
  return bytes;
}
