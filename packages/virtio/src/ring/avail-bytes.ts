import { u16 } from '@pinhole/base';
import {
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_DESC_SIZE,
  VIRTQUEUE_MAX_SIZE,
} from '../params.js';
import type { DeviceRings } from './device-rings.js';
import { isDescAvail } from './packed-layout.js';
import type { Descriptor, RegionCache } from './region-cache.js';
import { availEntryOffset } from './split-layout.js';

/** What the buffers that wait in a queue hold, in bytes. */
export interface AvailBytes {
  /** For the device to write. */
  readonly inBytes: number;
  /** For the device to read. */
  readonly outBytes: number;
}

/** What `measureAvailBytes` looks at. */
export interface AvailBytesInput {
  readonly rings: DeviceRings;
  /** For indirect tables: opened here. */
  readonly table: RegionCache;
  readonly size: number;
  readonly lastAvailIdx: number;
  readonly readAvailIdx: () => number;
  readonly fail: (message: string) => void;
  readonly maxIn: number;
  readonly maxOut: number;
}

/** Nothing waits. */
export const NO_AVAIL_BYTES: AvailBytes = { inBytes: 0, outBytes: 0 };

/**
 * Walks the chains that wait without taking them: for devices that must know whether the next
 * packet fits. The byte counts are 32-bit and wrap. [qemu v7.2 hw/virtio/virtio.c
 * virtqueue_split_get_avail_bytes]
 *
 * Deviates: a chain of more than 1024 descriptors is refused at once; QEMU counts it to its end,
 * up to 2^28 descriptors, and refuses it when it is popped.
 */
export function measureAvailBytes(input: AvailBytesInput): AvailBytes {
  const { rings, table, size, fail } = input;
  const desc: Descriptor = { addrHi: 0, addrLo: 0, len: 0, flags: 0, next: 0 };
  // The limit on descriptors; an indirect table's own, then, for all chains after it as well.
  let max = size;
  let totalBuffers = 0;
  let inBytes = 0;
  let outBytes = 0;
  for (let idx = input.lastAvailIdx; ; idx += 1) {
    const availIdx = input.readAvailIdx();
    const heads = u16(availIdx - idx);
    if (heads > size) {
      fail(`Guest moved used index from ${idx} to ${availIdx}`);
      return NO_AVAIL_BYTES;
    }
    if (heads === 0) return { inBytes, outBytes };
    const head = rings.avail.readU16(availEntryOffset(idx % size));
    if (head >= size) {
      fail(`Guest says index ${head} is available`);
      return NO_AVAIL_BYTES;
    }
    let buffers = totalBuffers;
    rings.desc.readDescriptor(VIRTQ_DESC_SIZE * head, desc);
    const isIndirect = (desc.flags & VIRTQ_DESC_F_INDIRECT) !== 0;
    if (isIndirect) {
      const problem = openTable(table, desc, buffers >= max);
      if (problem !== undefined) {
        fail(problem);
        return NO_AVAIL_BYTES;
      }
      max = desc.len / VIRTQ_DESC_SIZE;
      buffers = 0;
      table.readDescriptor(0, desc);
    }
    for (;;) {
      buffers += 1;
      if (buffers > max || buffers > VIRTQUEUE_MAX_SIZE) {
        fail('Looped descriptor');
        return NO_AVAIL_BYTES;
      }
      if ((desc.flags & VIRTQ_DESC_F_WRITE) !== 0) inBytes = (inBytes + desc.len) >>> 0;
      else outBytes = (outBytes + desc.len) >>> 0;
      if (inBytes >= input.maxIn && outBytes >= input.maxOut) return { inBytes, outBytes };
      if ((desc.flags & VIRTQ_DESC_F_NEXT) === 0) break;
      // A table of before may have been longer than the ring.
      if (desc.next >= (isIndirect ? max : Math.min(max, size))) {
        fail(`Desc next is ${desc.next}`);
        return NO_AVAIL_BYTES;
      }
      (isIndirect ? table : rings.desc).readDescriptor(VIRTQ_DESC_SIZE * desc.next, desc);
    }
    totalBuffers = isIndirect ? totalBuffers + 1 : buffers;
  }
}

/** What `measurePackedAvailBytes` looks at. */
export interface PackedAvailBytesInput {
  readonly ring: RegionCache;
  /** For indirect tables: opened here. */
  readonly table: RegionCache;
  readonly size: number;
  readonly maxIn: number;
  readonly maxOut: number;
}

/**
 * The same for a packed ring, from `at` on, which is left where nothing waits any more; `isAll` says
 * that it got there before the limits stopped it. A string is what is wrong with a chain.
 * [qemu v7.2 hw/virtio/virtio.c virtqueue_packed_get_avail_bytes]
 *
 * Deviates: a table of more than 1024 descriptors is refused, and its length does not limit the
 * chains after it: in QEMU that may lead out of the ring.
 */
export function measurePackedAvailBytes(
  input: PackedAvailBytesInput,
  at: { idx: number; wrap: number },
): (AvailBytes & { readonly isAll: boolean }) | string {
  const { ring, size } = input;
  const desc: Descriptor = { addrHi: 0, addrLo: 0, len: 0, flags: 0, next: 0 };
  let total = 0;
  let inBytes = 0;
  let outBytes = 0;
  for (;;) {
    ring.readPackedDescriptor(VIRTQ_DESC_SIZE * at.idx, desc);
    if (!isDescAvail(desc.flags, at.wrap)) return { inBytes, outBytes, isAll: true };
    const isIndirect = (desc.flags & VIRTQ_DESC_F_INDIRECT) !== 0;
    const from = isIndirect ? input.table : ring;
    let entries = size - total;
    let index = at.idx;
    if (isIndirect) {
      const problem = openTable(from, desc, entries === 0);
      if (problem !== undefined) return problem;
      entries = Math.min(desc.len / VIRTQ_DESC_SIZE, VIRTQUEUE_MAX_SIZE + 1);
      index = 0;
      from.readPackedDescriptor(0, desc);
    }
    let count = 0;
    for (;;) {
      count += 1;
      if (count > (isIndirect ? VIRTQUEUE_MAX_SIZE : entries)) return 'Looped descriptor';
      if ((desc.flags & VIRTQ_DESC_F_WRITE) !== 0) inBytes = (inBytes + desc.len) >>> 0;
      else outBytes = (outBytes + desc.len) >>> 0;
      if (inBytes >= input.maxIn && outBytes >= input.maxOut) {
        return { inBytes, outBytes, isAll: false };
      }
      // A table is all one chain, whatever its flags say.
      if (isIndirect ? count === entries : (desc.flags & VIRTQ_DESC_F_NEXT) === 0) break;
      index = !isIndirect && index + 1 === size ? 0 : index + 1;
      from.readPackedDescriptor(VIRTQ_DESC_SIZE * index, desc);
    }
    const ndescs = isIndirect ? 1 : count;
    total += ndescs;
    at.idx += ndescs;
    if (at.idx >= size) {
      at.idx -= size;
      at.wrap ^= VIRTQ_DESC_F_AVAIL;
    }
  }
}

function openTable(table: RegionCache, desc: Descriptor, isTooMany: boolean): string | undefined {
  if (desc.len === 0 || desc.len % VIRTQ_DESC_SIZE !== 0) {
    return 'Invalid size for indirect buffer table';
  }
  if (isTooMany) return 'Looped descriptor';
  if (!table.open(desc.addrHi, desc.addrLo, desc.len)) return 'Cannot map indirect buffer';
  return undefined;
}
