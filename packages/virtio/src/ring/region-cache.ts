import { hiOf, joinNumber, loOf } from '@pinhole/base';
import {
  DmaAccess,
  type DmaSpace,
  DmaStatus,
  type GuestMemory,
  type MemoryWindow,
} from '@pinhole/memory';

const TWO_32 = 0x1_0000_0000;

/** One descriptor as the device read it. The driver wrote it: not to be trusted. */
export interface Descriptor {
  addrHi: number;
  addrLo: number;
  len: number;
  flags: number;
  next: number;
}

/**
 * A window of the device onto a run of bus addresses: a ring, or an indirect table. Without an
 * IOMMU it is a pointer into memory; behind one, every access is translated anew.
 * [qemu v7.2 softmmu/physmem.c address_space_cache_init]
 *
 * What translates to nothing reads as zero and swallows writes; so does all of a closed window.
 */
export class RegionCache {
  /** All of it, from `base` on, where it lies in one piece of memory and needs no IOMMU. */
  view: DataView | undefined;
  base = 0;
  /** The same in words, where it begins at one: for walks that read much. */
  words: Uint32Array | undefined;
  readonly isLittle: boolean;
  readonly #memory: GuestMemory;
  readonly #space: DmaSpace;
  readonly #at = { gpa: 0, length: 0 };
  readonly #bytes = new Uint8Array(16);
  readonly #scratch = new DataView(this.#bytes.buffer);
  // Where the last access was, and what of `near` is memory around it; `near` begins at `origin`.
  readonly #window: MemoryWindow = { view: this.#scratch, offset: 0, from: 0, to: 0 };
  #near: DataView = this.#scratch;
  #origin = 0;
  #low = 0;
  #high = 0;
  // Where a translation may be remembered: for reads and for writes the offsets [from, end) of this
  // window that one mapping covers, what to add for the place in `near`, and the space's generation.
  readonly #memo = new Int32Array(4 * 3);
  #hi = 0;
  #lo = 0;
  #gpa = 0;
  // Where the last access went that is not in `near`; -1: nowhere, or not in one piece.
  #found = -1;
  #length = 0;
  #isDirect = false;
  #isOpen = false;

  /** `isBigEndian`: the fields have the byte order of a legacy driver on a big-endian machine. */
  constructor(memory: GuestMemory, space: DmaSpace, isBigEndian = false) {
    this.#memory = memory;
    this.#space = space;
    this.isLittle = !isBigEndian;
  }

  /**
   * Opens the window. False when it begins in memory or in an IOMMU window and runs out of it.
   * One that begins where nothing is opens well: QEMU finds its "unassigned" section there, which
   * reaches to the end of the 64 bits, and the accesses fail one by one.
   */
  open(hi: number, lo: number, length: number): boolean {
    this.#hi = hi;
    this.#lo = lo;
    this.#length = length;
    this.#isOpen = true;
    this.view = undefined;
    this.words = undefined;
    this.#forget();
    const isCovered = this.#space.covers(hi, lo, length);
    this.#isDirect = isCovered && this.#space.isIdentity;
    if (this.#isDirect) {
      this.#gpa = joinNumber(hi, lo);
      this.#look(this.#gpa, length);
    }
    if (isCovered) return true;
    const isBeyond64 = hi === 0xffff_ffff && lo + length > TWO_32;
    return !isBeyond64 && !this.#space.covers(hi, lo, 1);
  }

  /** From here on reads give zero and writes do nothing, without a translation. */
  close(): void {
    this.#isOpen = false;
    this.#isDirect = false;
    this.view = undefined;
    this.words = undefined;
    this.#forget();
  }

  /**
   * One 16-bit load: one translation. One that straddles two mappings reads zero.
   * [qemu v7.2 softmmu/physmem.c address_space_translate_cached]
   */
  readU16(offset: number): number {
    if (this.view !== undefined) return this.view.getUint16(this.base + offset, this.isLittle);
    const at = this.#seek(offset, 2, DmaAccess.READ);
    if (at >= 0) return this.#near.getUint16(at, this.isLittle);
    const gpa = this.#found;
    if (gpa < 0) return 0;
    return this.isLittle ? this.#memory.readU16Le(gpa) : this.#memory.readU16Be(gpa);
  }

  /** One 16-bit store: one translation. One that straddles two mappings is lost. */
  writeU16(offset: number, value: number): void {
    if (this.view !== undefined) {
      this.view.setUint16(this.base + offset, value, this.isLittle);
      return;
    }
    const at = this.#seek(offset, 2, DmaAccess.WRITE);
    const gpa = this.#found;
    if (at >= 0) this.#near.setUint16(at, value, this.isLittle);
    else if (gpa < 0) return;
    else if (this.isLittle) this.#memory.writeU16Le(gpa, value);
    else this.#memory.writeU16Be(gpa, value);
  }

  /** Reads a 16-byte descriptor at once. [VIRTIO v1.2 §2.7.5 "The Virtqueue Descriptor Table"] */
  readDescriptor(offset: number, out: Descriptor): void {
    const at = this.#read(offset, 16);
    const view = this.#near;
    const { isLittle } = this;
    out.addrLo = view.getUint32(isLittle ? at : at + 4, isLittle);
    out.addrHi = view.getUint32(isLittle ? at + 4 : at, isLittle);
    out.len = view.getUint32(at + 8, isLittle);
    out.flags = view.getUint16(at + 12, isLittle);
    out.next = view.getUint16(at + 14, isLittle);
  }

  /**
   * Reads a descriptor of the packed layout, whose `id` comes back as `next`: the flags first, then
   * the rest, field by field. [qemu v7.2 hw/virtio/virtio.c vring_packed_desc_read]
   */
  readPackedDescriptor(offset: number, out: Descriptor): void {
    out.flags = this.readU16(offset + 14);
    let at = this.#read(offset, 8);
    out.addrLo = this.#near.getUint32(at, true);
    out.addrHi = this.#near.getUint32(at + 4, true);
    at = this.#read(offset + 12, 2);
    out.next = this.#near.getUint16(at, true);
    at = this.#read(offset + 8, 4);
    out.len = this.#near.getUint32(at, true);
  }

  /**
   * Writes a used descriptor of the packed layout: the flags last, for they hand it over.
   * [qemu v7.2 hw/virtio/virtio.c vring_packed_desc_write]
   */
  writePackedDescriptor(offset: number, id: number, length: number, flags: number): void {
    const { view } = this;
    if (view !== undefined) {
      const at = this.base + offset;
      view.setUint16(at + 12, id, true);
      view.setUint32(at + 8, length, true);
      view.setUint16(at + 14, flags, true);
      return;
    }
    this.#scratch.setUint16(0, id, true);
    this.#write(offset + 12, 2);
    this.#scratch.setUint32(0, length, true);
    this.#write(offset + 8, 4);
    this.writeU16(offset + 14, flags);
  }

  /** Writes two 32-bit values at once, at a multiple of 4: an entry of the used ring. */
  writeU32Pair(offset: number, first: number, second: number): void {
    const { view, words, isLittle } = this;
    if (words !== undefined && isLittle) {
      const at = (this.base + offset) >>> 2;
      words[at] = first;
      words[at + 1] = second;
      return;
    }
    if (view !== undefined) {
      view.setUint32(this.base + offset, first, isLittle);
      view.setUint32(this.base + offset + 4, second, isLittle);
      return;
    }
    this.#scratch.setUint32(0, first, isLittle);
    this.#scratch.setUint32(4, second, isLittle);
    this.#write(offset, 8);
  }

  // Reads at most 16 bytes, and says where in `near` they are.
  #read(offset: number, length: number): number {
    const at = this.#seek(offset, length, DmaAccess.READ);
    return at < 0 ? this.#readPieces(offset, length) : at;
  }

  // What is not in one piece: the scratch bytes stand for it.
  #readPieces(offset: number, length: number): number {
    this.#near = this.#scratch;
    this.#high = 0;
    this.#forget();
    if (this.#found >= 0) this.#memory.read(this.#found, this.#bytes.subarray(0, length));
    else this.#transferRest(offset, length, DmaAccess.READ);
    return 0;
  }

  // Writes the first 2, 4 or 8 scratch bytes.
  #write(offset: number, length: number): void {
    const at = this.#seek(offset, length, DmaAccess.WRITE);
    if (at >= 0) this.#writeNear(at, length);
    else if (this.#found < 0) this.#transferRest(offset, length, DmaAccess.WRITE);
    else this.#memory.write(this.#found, this.#bytes.subarray(0, length));
  }

  #writeNear(at: number, length: number): void {
    if (length === 2) this.#near.setUint16(at, this.#scratch.getUint16(0));
    else this.#near.setUint32(at, this.#scratch.getUint32(0));
    if (length === 8) this.#near.setUint32(at + 4, this.#scratch.getUint32(4));
  }

  // Where in `near` an access goes; -1 if it is not there: `found` says more.
  #seek(offset: number, length: number, access: DmaAccess): number {
    const memo = this.#memo;
    const slot = 4 * access;
    if (offset >= memo[slot]! && offset + length <= memo[slot + 1]!) {
      const space = this.#space;
      const { generation } = space;
      if (generation !== undefined && (generation | 0) === memo[slot + 3]) {
        space.countRemembered!();
        return offset + memo[slot + 2]!;
      }
    }
    const gpa = this.#isDirect ? this.#gpa + offset : this.#locate(offset, length, access);
    this.#found = gpa;
    if (gpa < 0) return -1;
    const at = this.#place(gpa, length);
    if (at >= 0 && !this.#isDirect) this.#remember(offset, at, slot);
    return at;
  }

  // What was translated just now, as far as the mapping and `near` reach.
  #remember(offset: number, at: number, slot: number): void {
    const { generation } = this.#space;
    if (generation === undefined) return;
    const memo = this.#memo;
    memo[slot] = offset;
    memo[slot + 1] = offset + Math.min(this.#at.length, this.#high - at);
    memo[slot + 2] = at - offset;
    memo[slot + 3] = generation;
  }

  #forget(): void {
    this.#memo[4 * DmaAccess.READ + 1] = 0;
    this.#memo[4 * DmaAccess.WRITE + 1] = 0;
  }

  // Where in `near` the bytes at `gpa` are; -1 if memory does not show them in one piece.
  #place(gpa: number, length: number): number {
    const at = gpa - this.#origin;
    return at >= this.#low && at + length <= this.#high ? at : this.#look(gpa, length);
  }

  #look(gpa: number, length: number): number {
    const window = this.#window;
    window.from = gpa;
    window.to = gpa + length;
    window.words = undefined;
    if (this.#memory.window?.(gpa, length, window) !== true) return -1;
    this.#forget();
    this.#near = window.view;
    this.#origin = gpa - window.offset;
    this.#low = window.from - this.#origin;
    this.#high = window.to - this.#origin;
    if (this.#isDirect && this.#gpa >= window.from && this.#gpa + this.#length <= window.to) {
      this.view = window.view;
      this.base = this.#gpa - this.#origin;
      this.words = this.base % 4 === 0 ? window.words : undefined;
    }
    return window.offset;
  }

  // Translates; -1 if not all of the access lies in one mapping, or in none.
  #locate(offset: number, length: number, access: DmaAccess): number {
    if (!this.#isOpen) return -1;
    let hi = this.#hi;
    let lo = this.#lo + offset;
    if (lo >= TWO_32) {
      lo -= TWO_32;
      hi = (hi + 1) >>> 0;
    }
    const at = this.#at;
    // What may be remembered is asked for as far as it goes.
    const wanted = this.#space.generation === undefined ? length : this.#length - offset;
    if (this.#space.translate(hi, lo, wanted, access, at) !== DmaStatus.OK) {
      at.length = 0;
      return -1;
    }
    return at.length < length ? -1 : at.gpa;
  }

  /**
   * An access in pieces, after `locate` said no: what it found (0 bytes for nothing) is the first.
   * QEMU 7.2 looks up every further piece at its offset within the window, as if the window began
   * at bus address 0. So a failed read of a descriptor may return 4 zero bytes and 12 bytes of
   * something else. [qemu v7.2 softmmu/physmem.c address_space_read_cached_slow, flatview_read_continue]
   */
  #transferRest(offset: number, length: number, access: DmaAccess): void {
    if (!this.#isOpen) {
      this.#bytes.fill(0);
      return;
    }
    const at = this.#at;
    let address = loOf(this.#lo + offset);
    for (let done = 0; ; ) {
      const left = length - done;
      const piece = at.length > 0 ? Math.min(at.length, left) : accessSize(address, left);
      const bytes = this.#bytes.subarray(done, done + piece);
      if (at.length > 0 && access === DmaAccess.READ) this.#memory.read(at.gpa, bytes);
      else if (at.length > 0) this.#memory.write(at.gpa, bytes);
      else if (access === DmaAccess.READ) bytes.fill(0);
      done += piece;
      if (done === length) return;
      address = offset + done;
      const status = this.#space.translate(hiOf(address), loOf(address), length - done, access, at);
      if (status !== DmaStatus.OK) at.length = 0;
    }
  }
}

/**
 * How much of an access to nothing is done at once: at most 4 bytes, aligned.
 * [qemu v7.2 softmmu/physmem.c memory_access_size]
 */
function accessSize(address: number, length: number): number {
  const alignment = address & -address & 7;
  const most = Math.min(alignment === 0 ? 4 : alignment, 4, length);
  return most === 3 ? 2 : most;
}
