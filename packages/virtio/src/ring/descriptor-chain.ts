import { hi32, lo32 } from '@pinhole/base';
import type { GuestMemory, MemoryWindow, Translation } from '@pinhole/memory';
import {
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_DESC_SIZE,
  VIRTQUEUE_MAX_SIZE,
} from '../params.js';
import type { VirtqueueElement } from './device-element.js';
import type { DeviceQueueOptions } from './device-types.js';
import { createSpaceMapper, type DmaMapper } from './dma-mapper.js';
import type { Descriptor, RegionCache } from './region-cache.js';

const TWO_32 = 0x1_0000_0000;
/** 32-bit words of a descriptor. */
const WORDS = 4;
const TOO_MANY = 'virtio: too many write descriptors in indirect table';
const BOGUS = 'virtio: bogus descriptor or out of resources';
const NO_VIEW = new DataView(new ArrayBuffer(0));

/**
 * Reads the chains of a queue and maps what they describe. Problems are values: what QEMU would
 * say of the driver. [VIRTIO v1.2 §2.7.5 "The Virtqueue Descriptor Table"]
 */
export class DescriptorChain {
  readonly #ring: RegionCache;
  readonly #indirect: RegionCache;
  readonly #mapper: DmaMapper;
  // Where a bus address is a place in memory, and there is no more to it.
  readonly #memory: GuestMemory | undefined;
  readonly #desc: Descriptor = { addrHi: 0, addrLo: 0, len: 0, flags: 0, next: 0 };
  readonly #piece: Translation = { gpa: 0, length: 0 };
  readonly #window: MemoryWindow = { view: NO_VIEW, offset: 0, from: 0, to: 0 };
  #tableEntries = 0;
  // As in QEMU, and more only where the ring itself holds more, which QEMU's never does.
  #mostSegments: number = VIRTQUEUE_MAX_SIZE;

  /** `indirect` is opened anew for every indirect table. */
  constructor(
    ring: RegionCache,
    indirect: RegionCache,
    { mapper, memory, space }: DeviceQueueOptions,
  ) {
    this.#ring = ring;
    this.#indirect = indirect;
    this.#mapper = mapper ?? createSpaceMapper(space);
    const isPlain = space.isIdentity && this.#mapper.takesMemoryAsIs === true;
    this.#memory = isPlain ? memory : undefined;
  }

  /**
   * Walks the chain that begins at `head` and maps each buffer into `element` before it reads the
   * next descriptor. Returns what is wrong with the chain, if anything is.
   * [qemu v7.2 hw/virtio/virtio.c virtqueue_split_pop]
   */
  map(head: number, queueSize: number, element: VirtqueueElement): string | undefined {
    if (this.#memory !== undefined && this.#mapQuickly(head, queueSize, element)) return undefined;
    element.begin(head);
    const desc = this.#desc;
    this.#mostSegments = Math.max(queueSize, VIRTQUEUE_MAX_SIZE);
    this.#ring.readDescriptor(VIRTQ_DESC_SIZE * head, desc);
    if ((desc.flags & VIRTQ_DESC_F_INDIRECT) === 0) {
      return this.#mapFrom(this.#ring, queueSize, element);
    }
    const problem = this.#openTable();
    if (problem !== undefined) return problem;
    const max = desc.len / VIRTQ_DESC_SIZE;
    this.#indirect.readDescriptor(0, desc);
    return this.#mapFrom(this.#indirect, max, element);
  }

  // From the descriptor just read on, in a table of `max`.
  #mapFrom(table: RegionCache, max: number, element: VirtqueueElement): string | undefined {
    const desc = this.#desc;
    for (let entries = 1; ; entries += 1) {
      const isWrite = (desc.flags & VIRTQ_DESC_F_WRITE) !== 0;
      if (!isWrite && element.inNum > 0) return 'Incorrect order for descriptors';
      const problem = this.#mapBuffer(element, isWrite);
      if (problem !== undefined) return problem;
      // More descriptors than there are: a loop.
      if (entries > max) return 'Looped descriptor';
      if ((desc.flags & VIRTQ_DESC_F_NEXT) === 0) return undefined;
      const { next } = desc;
      if (next >= max) return `Desc next is ${next}`;
      table.readDescriptor(VIRTQ_DESC_SIZE * next, desc);
    }
  }

  // Opens the table of the descriptor just read.
  #openTable(): string | undefined {
    const { addrHi, addrLo, len } = this.#desc;
    if (len === 0 || len % VIRTQ_DESC_SIZE !== 0) return 'Invalid size for indirect buffer table';
    return this.#indirect.open(addrHi, addrLo, len) ? undefined : 'Cannot map indirect buffer';
  }

  /**
   * The same for the chain at place `at` of a packed ring: the next descriptor is the next place. A
   * table is all one chain: its flags, but for WRITE, are not looked at.
   * [qemu v7.2 hw/virtio/virtio.c virtqueue_packed_pop, virtqueue_packed_read_next_desc]
   *
   * Deviates: a table of length 0 is an error; QEMU 7.2 ends there (an assertion).
   */
  mapPacked(at: number, queueSize: number, element: VirtqueueElement): string | undefined {
    const isPlain = this.#memory !== undefined;
    if (isPlain && this.#mapPackedQuickly(at, queueSize, element)) return undefined;
    element.begin(0);
    const desc = this.#desc;
    let from = this.#ring;
    let max = queueSize;
    this.#mostSegments = Math.max(queueSize, VIRTQUEUE_MAX_SIZE);
    let index = at;
    from.readPackedDescriptor(VIRTQ_DESC_SIZE * index, desc);
    const isIndirect = (desc.flags & VIRTQ_DESC_F_INDIRECT) !== 0;
    element.head = desc.next;
    if (isIndirect) {
      const problem = this.#openTable();
      if (problem !== undefined) return problem;
      max = desc.len / VIRTQ_DESC_SIZE;
      from = this.#indirect;
      index = 0;
      from.readPackedDescriptor(0, desc);
    }
    for (let entries = 1; ; entries += 1) {
      const isWrite = (desc.flags & VIRTQ_DESC_F_WRITE) !== 0;
      if (!isWrite && element.inNum > 0) return 'Incorrect order for descriptors';
      const problem = this.#mapBuffer(element, isWrite);
      if (problem !== undefined) return problem;
      if (entries > max) return 'Looped descriptor';
      if (isIndirect) {
        if (entries === max) return undefined;
      } else if ((desc.flags & VIRTQ_DESC_F_NEXT) === 0) {
        element.head = desc.next;
        element.ndescs = entries;
        return undefined;
      }
      index += 1;
      if (index === max) index = 0;
      from.readPackedDescriptor(VIRTQ_DESC_SIZE * index, desc);
    }
  }

  /** Maps a segment again that was mapped before, whole. [qemu v7.2 hw/virtio/virtio.c virtqueue_map_iovec] */
  remap(element: VirtqueueElement, address: bigint, length: number, isWrite: boolean): boolean {
    const piece = this.#piece;
    const hi = hi32(address);
    const lo = lo32(address);
    if (!this.#mapper.map(hi, lo, length, isWrite, piece)) return false;
    element.append(hi, lo, piece.gpa, piece.length, isWrite);
    return piece.length === length;
  }

  /** Ends the mappings of an element into which `written` bytes went. [qemu v7.2 hw/virtio/virtio.c virtqueue_unmap_sg] */
  unmap(element: VirtqueueElement, written: number): void {
    const mapper = this.#mapper;
    if (mapper.unmap === undefined) return;
    const { gpa, length, outNum, inNum } = element;
    let offset = 0;
    for (let i = outNum; i < outNum + inNum; i += 1) {
      const accessed = Math.min(written - offset, length[i]!);
      mapper.unmap(gpa[i]!, length[i]!, true, accessed);
      offset += accessed;
    }
    for (let i = 0; i < outNum; i += 1) mapper.unmap(gpa[i]!, length[i]!, false, length[i]!);
  }

  /** Ends the mappings of a chain that turned out bad. [qemu v7.2 hw/virtio/virtio.c virtqueue_undo_map_desc] */
  undoMap(element: VirtqueueElement): void {
    const mapper = this.#mapper;
    if (mapper.unmap === undefined) return;
    for (let i = 0; i < element.outNum + element.inNum; i += 1) {
      mapper.unmap(element.gpa[i]!, element.length[i]!, i >= element.outNum, 0);
    }
  }

  // The same as `map` for good chains, where rings, tables and buffers are memory without an IOMMU.
  // False, and nothing is decided: for all others.
  #mapQuickly(head: number, queueSize: number, element: VirtqueueElement): boolean {
    const ring = this.#ring;
    const memory = this.#memory;
    let { words } = ring;
    if (words === undefined || memory === undefined || !ring.isLittle) return false;
    let first = ring.base >>> 2;
    let max = queueSize;
    let index = head;
    const headAt = first + WORDS * head;
    if ((words[headAt + 3]! & VIRTQ_DESC_F_INDIRECT) !== 0) {
      const table = this.#lookAtTable(memory, words, headAt);
      if (table === undefined) return false;
      words = table;
      first = this.#window.offset >>> 2;
      max = this.#tableEntries;
      index = 0;
    }
    const { gpa: gpas, length: lengths, bus } = element;
    const room = Math.min(lengths.length, max);
    let outNum = 0;
    for (let n = 0; n < room; n += 1) {
      const at = first + WORDS * index;
      const flagsAndNext = words[at + 3]!;
      const hi = words[at + 1]!;
      const lo = words[at]!;
      const length = words[at + 2]!;
      if ((flagsAndNext & VIRTQ_DESC_F_WRITE) === 0) {
        if (outNum < n) return false;
        outNum = n + 1;
      }
      const gpa = hi * TWO_32 + lo;
      if (length === 0 || !memory.isBacked(gpa, length)) return false;
      gpas[n] = gpa;
      lengths[n] = length;
      bus[2 * n] = hi;
      bus[2 * n + 1] = lo;
      if ((flagsAndNext & VIRTQ_DESC_F_NEXT) === 0) {
        element.outNum = outNum;
        element.inNum = n + 1 - outNum;
        return true;
      }
      index = flagsAndNext >>> 16;
      if (index >= max) return false;
    }
    return false;
  }

  // The same for the packed layout.
  #mapPackedQuickly(place: number, queueSize: number, element: VirtqueueElement): boolean {
    const ring = this.#ring;
    const memory = this.#memory;
    let { words } = ring;
    if (words === undefined || memory === undefined) return false;
    const start = ring.base >>> 2;
    let at = start + WORDS * place;
    let end = start + WORDS * queueSize;
    const headIdAndFlags = words[at + 3]!;
    const isIndirect = (headIdAndFlags & (VIRTQ_DESC_F_INDIRECT << 16)) !== 0;
    const { gpa: gpas, length: lengths, bus } = element;
    let room = Math.min(lengths.length, queueSize);
    if (isIndirect) {
      const table = this.#lookAtTable(memory, words, at);
      if (table === undefined) return false;
      words = table;
      at = this.#window.offset >>> 2;
      end = at + WORDS * this.#tableEntries;
      room = lengths.length;
    }
    let outNum = 0;
    for (let n = 0; n < room; n += 1) {
      const idAndFlags = words[at + 3]!;
      const hi = words[at + 1]!;
      const lo = words[at]!;
      const length = words[at + 2]!;
      if ((idAndFlags & (VIRTQ_DESC_F_WRITE << 16)) === 0) {
        if (outNum < n) return false;
        outNum = n + 1;
      }
      const gpa = hi * TWO_32 + lo;
      if (length === 0 || !memory.isBacked(gpa, length)) return false;
      gpas[n] = gpa;
      lengths[n] = length;
      bus[2 * n] = hi;
      bus[2 * n + 1] = lo;
      at += WORDS;
      if (isIndirect ? at === end : (idAndFlags & (VIRTQ_DESC_F_NEXT << 16)) === 0) {
        element.head = (isIndirect ? headIdAndFlags : idAndFlags) & 0xffff;
        element.ndescs = isIndirect ? 1 : n + 1;
        element.outNum = outNum;
        element.inNum = n + 1 - outNum;
        return true;
      }
      if (at === end) at = start;
    }
    return false;
  }

  // The table that the descriptor at `at` refers to, if it lies in one piece: from `window.offset` on.
  #lookAtTable(memory: GuestMemory, words: Uint32Array, at: number): Uint32Array | undefined {
    const length = words[at + 2]!;
    if (length === 0 || length % VIRTQ_DESC_SIZE !== 0) return undefined;
    const window = this.#window;
    window.words = undefined;
    const gpa = words[at + 1]! * TWO_32 + words[at]!;
    if (memory.window?.(gpa, length, window) !== true || window.offset % 4 !== 0) return undefined;
    this.#tableEntries = length / VIRTQ_DESC_SIZE;
    return window.words;
  }

  // Maps the buffer of the descriptor just read. [qemu v7.2 hw/virtio/virtio.c virtqueue_map_desc]
  #mapBuffer(element: VirtqueueElement, isWrite: boolean): string | undefined {
    const { addrHi: hi, addrLo: lo, len } = this.#desc;
    const piece = this.#piece;
    if (len === 0) return 'virtio: zero sized buffers are not allowed';
    if (element.outNum + element.inNum === this.#mostSegments) return TOO_MANY;
    if (!this.#mapper.map(hi, lo, len, isWrite, piece)) return BOGUS;
    element.append(hi, lo, piece.gpa, piece.length, isWrite);
    return piece.length === len ? undefined : this.#mapRest(element, isWrite);
  }

  // The mapper did not map it all at once.
  #mapRest(element: VirtqueueElement, isWrite: boolean): string | undefined {
    const desc = this.#desc;
    const piece = this.#piece;
    let hi = desc.addrHi;
    let lo = desc.addrLo;
    let left = desc.len;
    for (;;) {
      left -= piece.length;
      if (left <= 0) return undefined;
      lo += piece.length;
      if (lo >= TWO_32) {
        lo -= TWO_32;
        hi = (hi + 1) >>> 0;
      }
      if (element.outNum + element.inNum === this.#mostSegments) return TOO_MANY;
      if (!this.#mapper.map(hi, lo, left, isWrite, piece)) return BOGUS;
      element.append(hi, lo, piece.gpa, piece.length, isWrite);
    }
  }
}
