import type { Segment } from '@pinhole/virtio';

/** Limits that a driver sets for its queue. */
export interface QueueLimits {
  readonly maxSegments: number;
  /** Bytes of one segment. */
  readonly maxSegmentSize: number;
  /** Bytes of one request. */
  readonly maxBytes: number;
}

/**
 * Cuts a transfer to or from user memory into requests that keep a queue's limits; each request's
 * segments follow one another on the disk. Runs that touch in memory become one segment.
 * [linux v6.1 block/blk-merge.c bio_split_rw]
 */
export function splitTransfer(runs: readonly Segment[], limits: QueueLimits): Segment[][] {
  const requests: Segment[][] = [];
  let current: { gpa: number; length: number }[] = [];
  let bytes = 0;
  for (const run of runs) {
    for (let done = 0; done < run.length; ) {
      const last = current.at(-1);
      const follows = last !== undefined && last.gpa + last.length === run.gpa + done;
      const room = follows ? limits.maxSegmentSize - last.length : 0;
      const isNew = room <= 0;
      if (bytes >= limits.maxBytes || (isNew && current.length >= limits.maxSegments)) {
        requests.push(current);
        current = [];
        bytes = 0;
        continue;
      }
      const most = Math.min(isNew ? limits.maxSegmentSize : room, limits.maxBytes - bytes);
      const length = Math.min(most, run.length - done);
      if (isNew) current.push({ gpa: run.gpa + done, length });
      else if (last !== undefined) last.length += length;
      bytes += length;
      done += length;
    }
  }
  if (current.length > 0) requests.push(current);
  return requests;
}
