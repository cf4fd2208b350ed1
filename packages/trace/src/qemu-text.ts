import { formatEvent } from './format.js';
import type { TraceWriter, WriteText } from './sinks.js';

/**
 * Writes events as QEMU's "log" trace backend does, one a line: QEMU's own byte for byte.
 * [qemu v7.2 scripts/tracetool/backend/log.py generate_h]
 */
export function createQemuTextWriter(write: WriteText): TraceWriter {
  return {
    emit: (event) => write(`${formatEvent(event)}\n`),
    close() {},
  };
}
