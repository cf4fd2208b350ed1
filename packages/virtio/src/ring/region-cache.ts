import { hiOf, joinNumber, loOf } from '@pinhole/base';
import { DmaAccess, type DmaSpace, DmaStatus, type GuestMemory } from '@pinhole/memory';

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
  readonly #memory: GuestMemory;
  readonly #space: DmaSpace;
  readonly #at = { gpa: 0, length: 0 };
  readonly #bytes = new Uint8Array(16);
  readonly #view = new DataView(this.#bytes.buffer);
  #hi = 0;
  #lo = 0;
  #gpa = 0;
  #isDirect = false;
  #isOpen = false;

  constructor(memory: GuestMemory, space: DmaSpace) {
    this.#memory = memory;
    this.#space = space;
  }

  /**
   * Opens the window. False when it begins in memory or in an IOMMU window and runs out of it.
   * One that begins where nothing is opens well: QEMU finds its "unassigned" section there, which
   * reaches to the end of the 64 bits, and the accesses fail one by one.
   */
  open(hi: number, lo: number, length: number): boolean {
    this.#hi = hi;
    this.#lo = lo;
    this.#isOpen = true;
    const isCovered = this.#space.covers(hi, lo, length);
    this.#isDirect = isCovered && this.#space.isIdentity;
    if (this.#isDirect) this.#gpa = joinNumber(hi, lo);
    if (isCovered) return true;
    const isBeyond64 = hi === 0xffff_ffff && lo + length > TWO_32;
    return !isBeyond64 && !this.#space.covers(hi, lo, 1);
  }

  /** From here on reads give zero and writes do nothing, without a translation. */
  close(): void {
    this.#isOpen = false;
    this.#isDirect = false;
  }

  /**
   * One little-endian 16-bit load: one translation. One that straddles two mappings reads zero.
   * [qemu v7.2 softmmu/physmem.c address_space_translate_cached]
   */
  readU16(offset: number): number {
    const gpa = this.#isDirect ? this.#gpa + offset : this.#locate(offset, 2, DmaAccess.READ);
    return gpa < 0 ? 0 : this.#memory.readU16Le(gpa);
  }

  /** One little-endian 16-bit store: one translation. One that straddles two mappings is lost. */
  writeU16(offset: number, value: number): void {
    const gpa = this.#isDirect ? this.#gpa + offset : this.#locate(offset, 2, DmaAccess.WRITE);
    if (gpa >= 0) this.#memory.writeU16Le(gpa, value);
  }

  /** Reads a 16-byte descriptor at once. [VIRTIO v1.2 §2.7.5 "The Virtqueue Descriptor Table"] */
  readDescriptor(offset: number, out: Descriptor): void {
    const gpa = this.#isDirect ? this.#gpa + offset : this.#locate(offset, 16, DmaAccess.READ);
    if (gpa < 0) {
      this.#transferRest(offset, 16, DmaAccess.READ);
      this.#unpackDescriptor(out);
      return;
    }
    const memory = this.#memory;
    out.addrLo = memory.readU32Le(gpa);
    out.addrHi = memory.readU32Le(gpa + 4);
    out.len = memory.readU32Le(gpa + 8);
    const flagsAndNext = memory.readU32Le(gpa + 12);
    out.flags = flagsAndNext & 0xffff;
    out.next = flagsAndNext >>> 16;
  }

  /**
   * Reads a descriptor of the packed layout, whose `id` comes back as `next`: the flags first, then
   * the rest, field by field. [qemu v7.2 hw/virtio/virtio.c vring_packed_desc_read]
   */
  readPackedDescriptor(offset: number, out: Descriptor): void {
    const memory = this.#memory;
    out.flags = this.readU16(offset + 14);
    let gpa = this.#isDirect ? this.#gpa + offset : this.#locate(offset, 8, DmaAccess.READ);
    if (gpa >= 0) {
      out.addrLo = memory.readU32Le(gpa);
      out.addrHi = memory.readU32Le(gpa + 4);
    } else {
      this.#transferRest(offset, 8, DmaAccess.READ);
      out.addrLo = this.#view.getUint32(0, true);
      out.addrHi = this.#view.getUint32(4, true);
    }
    const id = offset + 12;
    gpa = this.#isDirect ? this.#gpa + id : this.#locate(id, 2, DmaAccess.READ);
    if (gpa >= 0) out.next = memory.readU16Le(gpa);
    else {
      this.#transferRest(id, 2, DmaAccess.READ);
      out.next = this.#view.getUint16(0, true);
    }
    const len = offset + 8;
    gpa = this.#isDirect ? this.#gpa + len : this.#locate(len, 4, DmaAccess.READ);
    if (gpa >= 0) out.len = memory.readU32Le(gpa);
    else {
      this.#transferRest(len, 4, DmaAccess.READ);
      out.len = this.#view.getUint32(0, true);
    }
  }

  /**
   * Writes a used descriptor of the packed layout: the flags last, for they hand it over.
   * [qemu v7.2 hw/virtio/virtio.c vring_packed_desc_write]
   */
  writePackedDescriptor(offset: number, id: number, length: number, flags: number): void {
    const at = offset + 12;
    let gpa = this.#isDirect ? this.#gpa + at : this.#locate(at, 2, DmaAccess.WRITE);
    if (gpa >= 0) this.#memory.writeU16Le(gpa, id);
    else {
      this.#view.setUint16(0, id, true);
      this.#transferRest(at, 2, DmaAccess.WRITE);
    }
    const len = offset + 8;
    gpa = this.#isDirect ? this.#gpa + len : this.#locate(len, 4, DmaAccess.WRITE);
    if (gpa >= 0) this.#memory.writeU32Le(gpa, length);
    else {
      this.#view.setUint32(0, length, true);
      this.#transferRest(len, 4, DmaAccess.WRITE);
    }
    this.writeU16(offset + 14, flags);
  }

  /** Writes two 32-bit values at once: an entry of the used ring. */
  writeU32Pair(offset: number, first: number, second: number): void {
    const gpa = this.#isDirect ? this.#gpa + offset : this.#locate(offset, 8, DmaAccess.WRITE);
    if (gpa < 0) {
      this.#view.setUint32(0, first, true);
      this.#view.setUint32(4, second, true);
      this.#transferRest(offset, 8, DmaAccess.WRITE);
      return;
    }
    this.#memory.writeU32Le(gpa, first);
    this.#memory.writeU32Le(gpa + 4, second);
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
    if (this.#space.translate(hi, lo, length, access, at) !== DmaStatus.OK) {
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

  #unpackDescriptor(out: Descriptor): void {
    const view = this.#view;
    out.addrLo = view.getUint32(0, true);
    out.addrHi = view.getUint32(4, true);
    out.len = view.getUint32(8, true);
    out.flags = view.getUint16(12, true);
    out.next = view.getUint16(14, true);
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
