import type { ConfigPart } from '../formats/config-layout.js';
import type { VirtioTransport } from './transport.js';

/** Reads of a configuration that changes all the time; the kernel has no such limit. */
const MAX_READS = 1000;

/**
 * Reads fields of the device configuration, each at its own width, all of one generation; what is
 * between them stays 0. [VIRTIO v1.2 §2.5.1 "Driver Requirements: Device Configuration Space"]
 * [linux v6.1 include/linux/virtio_config.h __virtio_cread_many]
 *
 * Deviates: a configuration that never stands still is read as it is, at some point.
 */
export function readConfigFields(
  transport: VirtioTransport,
  fields: readonly ConfigPart[],
): Uint8Array {
  const size = Math.max(0, ...fields.map(({ offset, length }) => offset + length));
  const bytes = new Uint8Array(size);
  for (let reads = 0; reads < MAX_READS; reads += 1) {
    const before = transport.configGeneration();
    for (const { offset, length } of fields) {
      transport.readConfig(offset, bytes.subarray(offset, offset + length));
    }
    if (transport.configGeneration() === before) break;
  }
  return bytes;
}
