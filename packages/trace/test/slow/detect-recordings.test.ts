/** The format of each recorded file, told by its first bytes. */
import { recordings } from '@pinhole/recordings';
import { describe, expect, test } from 'vitest';
import { detectFormat } from '../../src/index.js';
import { recordedBytes } from '../support/recorded.js';
import { toTraceCmd } from '../support/trace-cmd.js';

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

describe.each(recordings.map((recording) => [recording.name, recording] as const))(
  '%s',
  (_, { files }) => {
    const ftrace = recordedBytes(files.guestTrace);
    const text = Buffer.from(ftrace).toString('latin1');
    test.each([
      ['qemu-log', recordedBytes(files.qemuTrace)],
      ['ftrace', ftrace],
      ['console', recordedBytes(files.console)],
      ['trace-cmd', bytesOf(toTraceCmd(text, 'normal'))],
      ['trace-cmd', bytesOf(toTraceCmd(text, 'latency'))],
    ] as const)('%s', (format, bytes) => {
      for (const size of [bytes.length, 65_536, 4096, 2000]) {
        expect([size, detectFormat(bytes.subarray(0, size))]).toEqual([size, format]);
      }
    });
  },
);
