import { hi32, lo32 } from '@pinhole/base';
import type { DmaSpace, GuestMemory } from '@pinhole/memory';
import { VIRTQ_DESC_SIZE } from './params.js';
import { type Descriptor, RegionCache } from './region-cache.js';
import {
  availEntryOffset,
  availRingSize,
  descTableSize,
  RING_FLAGS,
  RING_IDX,
  usedEntryOffset,
  usedRingSize,
} from './split-layout.js';
import type { QueueSetup } from './transport.js';

/**
 * The three parts of a split virtqueue as the device accesses them. Each method is one access, and
 * so at most one translation, except where it says otherwise. Before `configure`, and after it
 * failed, reads give 0 and writes do nothing.
 */
export class DeviceRings {
  readonly #desc: RegionCache;
  readonly #avail: RegionCache;
  readonly #used: RegionCache;
  #isMapped = false;

  constructor(memory: GuestMemory, space: DmaSpace) {
    this.#desc = new RegionCache(memory, space);
    this.#avail = new RegionCache(memory, space);
    this.#used = new RegionCache(memory, space);
  }

  get isMapped(): boolean {
    return this.#isMapped;
  }

  /**
   * Opens the parts in QEMU's order, and says which one failed.
   * [qemu v7.2 hw/virtio/virtio.c virtio_init_region_cache]
   */
  configure(setup: QueueSetup, hasEventIdx: boolean): 'desc' | 'used' | 'avail' | undefined {
    const { size } = setup;
    this.#isMapped = false;
    if (!openAt(this.#desc, setup.desc, descTableSize(size))) return 'desc';
    if (!openAt(this.#used, setup.used, usedRingSize(size, hasEventIdx))) return 'used';
    if (!openAt(this.#avail, setup.avail, availRingSize(size, hasEventIdx))) return 'avail';
    this.#isMapped = true;
    return undefined;
  }

  reset(): void {
    this.#isMapped = false;
  }

  readDescriptor(index: number, out: Descriptor): void {
    this.#desc.readDescriptor(VIRTQ_DESC_SIZE * index, out);
  }

  availFlags(): number {
    return this.#isMapped ? this.#avail.readU16(RING_FLAGS) : 0;
  }

  availIdx(): number {
    return this.#isMapped ? this.#avail.readU16(RING_IDX) : 0;
  }

  /** `avail.ring[i]`; with `i` the queue size, `used_event`. */
  availEntry(i: number): number {
    return this.#isMapped ? this.#avail.readU16(availEntryOffset(i)) : 0;
  }

  writeUsedEntry(i: number, id: number, len: number): void {
    if (this.#isMapped) this.#used.writeU32Pair(usedEntryOffset(i), id, len);
  }

  writeUsedIdx(value: number): void {
    if (this.#isMapped) this.#used.writeU16(RING_IDX, value);
  }

  /** `avail_event`, after the last entry of the used ring. */
  writeAvailEvent(size: number, value: number): void {
    if (this.#isMapped) this.#used.writeU16(usedEntryOffset(size), value);
  }

  /** Sets or clears bits of `used.flags`: a read and a write. */
  changeUsedFlags(mask: number, isSet: boolean): void {
    if (!this.#isMapped) return;
    const flags = this.#used.readU16(RING_FLAGS);
    this.#used.writeU16(RING_FLAGS, isSet ? flags | mask : flags & ~mask);
  }
}

function openAt(cache: RegionCache, address: bigint, length: number): boolean {
  return cache.open(hi32(address), lo32(address), length);
}
