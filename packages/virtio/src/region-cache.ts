import { hiOf, invariant, joinNumber, loOf } from '@pinhole/base';
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
 * What translates to nothing reads as zero and swallows writes.
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

  constructor(memory: GuestMemory, space: DmaSpace) {
    this.#memory = memory;
    this.#space = space;
  }

  /**
   * Opens the window. False when it begins in memory or in an IOMMU window and runs out of it.
   * One that begins where nothing is opens, strangely, well: QEMU finds the endless "unassigned"
   * section there, and the accesses fail one by one.
   */
  open(hi: number, lo: number, length: number): boolean {
    this.#hi = hi;
    this.#lo = lo;
    const isCovered = this.#space.covers(hi, lo, length);
    this.#isDirect = isCovered && this.#space.isIdentity;
    if (this.#isDirect) this.#gpa = joinNumber(hi, lo);
    return isCovered || !this.#space.covers(hi, lo, 1);
  }

  /**
   * One little-endian 16-bit load: one translation. One that straddles two mappings reads zero.
   * [qemu v7.2 softmmu/physmem.c address_space_translate_cached]
   */
  readU16(offset: number): number {
    if (this.#isDirect) return this.#memory.readU16Le(this.#gpa + offset);
    if (!this.#translate(offset, 2, DmaAccess.READ) || this.#at.length < 2) return 0;
    return this.#memory.readU16Le(this.#at.gpa);
  }

  /** One little-endian 16-bit store: one translation. One that straddles two mappings is lost. */
  writeU16(offset: number, value: number): void {
    if (this.#isDirect) {
      this.#memory.writeU16Le(this.#gpa + offset, value);
    } else if (this.#translate(offset, 2, DmaAccess.WRITE) && this.#at.length >= 2) {
      this.#memory.writeU16Le(this.#at.gpa, value);
    }
  }

  /** Reads a 16-byte descriptor at once. [VIRTIO v1.2 §2.7.5 "The Virtqueue Descriptor Table"] */
  readDescriptor(offset: number, out: Descriptor): void {
    const memory = this.#memory;
    let gpa: number;
    if (this.#isDirect) {
      gpa = this.#gpa + offset;
    } else {
      const isOk = this.#translate(offset, 16, DmaAccess.READ);
      if (!isOk || this.#at.length < 16) {
        this.#transfer(isOk, offset, 16, DmaAccess.READ);
        this.#unpackDescriptor(out);
        return;
      }
      gpa = this.#at.gpa;
    }
    out.addrLo = memory.readU32Le(gpa);
    out.addrHi = memory.readU32Le(gpa + 4);
    out.len = memory.readU32Le(gpa + 8);
    const flagsAndNext = memory.readU32Le(gpa + 12);
    out.flags = flagsAndNext & 0xffff;
    out.next = flagsAndNext >>> 16;
  }

  /** Writes two 32-bit values at once: an entry of the used ring. */
  writeU32Pair(offset: number, first: number, second: number): void {
    let gpa: number;
    if (this.#isDirect) {
      gpa = this.#gpa + offset;
    } else {
      const isOk = this.#translate(offset, 8, DmaAccess.WRITE);
      if (!isOk || this.#at.length < 8) {
        this.#view.setUint32(0, first, true);
        this.#view.setUint32(4, second, true);
        this.#transfer(isOk, offset, 8, DmaAccess.WRITE);
        return;
      }
      gpa = this.#at.gpa;
    }
    this.#memory.writeU32Le(gpa, first);
    this.#memory.writeU32Le(gpa + 4, second);
  }

  #translate(offset: number, length: number, access: DmaAccess): boolean {
    let hi = this.#hi;
    let lo = this.#lo + offset;
    if (lo >= TWO_32) {
      lo -= TWO_32;
      hi = (hi + 1) >>> 0;
    }
    return this.#space.translate(hi, lo, length, access, this.#at) === DmaStatus.OK;
  }

  /**
   * An access in pieces, the first of which was translated already. QEMU 7.2 looks up every
   * further piece at its offset within the window, as if the window began at bus address 0. So a
   * failed read of a descriptor may return 4 zero bytes and 12 bytes of something else.
   * [qemu v7.2 softmmu/physmem.c address_space_read_cached_slow, flatview_read_continue]
   */
  #transfer(isFirstOk: boolean, offset: number, length: number, access: DmaAccess): void {
    let isOk = isFirstOk;
    let address = loOf(this.#lo + offset);
    for (let done = 0; done < length; ) {
      const left = length - done;
      const piece = isOk ? Math.min(this.#at.length, left) : accessSize(address, left);
      invariant(piece > 0, 'RegionCache: a translation of no bytes');
      const bytes = this.#bytes.subarray(done, done + piece);
      if (isOk && access === DmaAccess.READ) this.#memory.read(this.#at.gpa, bytes);
      else if (isOk) this.#memory.write(this.#at.gpa, bytes);
      else if (access === DmaAccess.READ) bytes.fill(0);
      done += piece;
      if (done === length) break;
      address = offset + done;
      const status = this.#space.translate(
        hiOf(address),
        loOf(address),
        length - done,
        access,
        this.#at,
      );
      isOk = status === DmaStatus.OK;
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
