import type { Clock } from '@pinhole/base';
import type { NetBackend } from './net-backend.js';

/** The file's first word, in the writer's byte order: times have nanoseconds. [draft-ietf-opsawg-pcap "General File Structure"] */
const PCAP_MAGIC_NANOSECONDS = 0xa1b2_3c4d;
/** [draft-ietf-opsawg-pcaplinktype "LINKTYPE Registry"] */
const LINKTYPE_ETHERNET = 1;
const FILE_HEADER_SIZE = 24;
const RECORD_HEADER_SIZE = 16;
const NS = 1_000_000_000;

/** Options of {@link createPcapWriter}. */
export interface PcapWriterOptions {
  /** Takes the next bytes of the file. */
  readonly write: (bytes: Uint8Array) => void;
  /** The time in nanoseconds; in the file it counts from 1970. */
  readonly clock: Clock;
  /** Bytes of a frame that are kept. Default 262144, as tcpdump: all of any frame. */
  readonly snapLength?: number;
}

/** A capture file that is being written. */
export interface PcapWriter {
  frame(frame: Uint8Array): void;
}

/**
 * Writes frames as a classic capture file, which Wireshark and tcpdump open. The file's header is
 * written at once. [draft-ietf-opsawg-pcap "PCAP Capture File Format"]
 */
export function createPcapWriter(options: PcapWriterOptions): PcapWriter {
  const { write, clock, snapLength = 262_144 } = options;
  const header = new DataView(new ArrayBuffer(FILE_HEADER_SIZE));
  header.setUint32(0, PCAP_MAGIC_NANOSECONDS, true);
  header.setUint16(4, 2, true);
  header.setUint16(6, 4, true);
  header.setUint32(16, snapLength, true);
  header.setUint32(20, LINKTYPE_ETHERNET, true);
  write(new Uint8Array(header.buffer));
  return {
    frame(frame) {
      const now = clock.now();
      const kept = frame.subarray(0, snapLength);
      const record = new Uint8Array(RECORD_HEADER_SIZE + kept.length);
      const view = new DataView(record.buffer);
      view.setUint32(0, Math.floor(now / NS) >>> 0, true);
      view.setUint32(4, Math.floor(now % NS), true);
      view.setUint32(8, kept.length, true);
      view.setUint32(12, frame.length, true);
      record.set(kept, RECORD_HEADER_SIZE);
      write(record);
    },
  };
}

/** The backend with a capture of what passes, both ways. [qemu v7.2 net/dump.c] */
export function captureBackend(backend: NetBackend, pcap: PcapWriter): NetBackend {
  return {
    send(frame) {
      pcap.frame(frame);
      backend.send(frame);
    },
    onReceive(receive) {
      backend.onReceive((frame) => {
        pcap.frame(frame);
        receive(frame);
      });
    },
  };
}
