import type { Gpa } from '@pinhole/base';
import { ByteMemory } from './byte-memory.js';
import type { PageOwnership } from './ownership.js';
import { outOfRange } from './sparse-memory.js';
import type { GuestMemory, MemoryRegion } from './types.js';

/** Distinct pages are kept up to this many. */
const MOST_PAGES = 65_536;

/**
 * A secure guest's memory as the hypervisor and its devices see it: shared pages as they are,
 * private pages as ciphertext. A write to a private page does not reach the guest: the ultravisor
 * would refuse the page when the guest next needs it, so it is dropped and counted.
 * [linux v6.1 Documentation/powerpc/ultravisor.rst "Protected Execution Facility"]
 *
 * Deviates: the ciphertext is a fixed keystream, neither authenticated nor secret. It stands for
 * "not the data", and is the same in every run.
 */
export class HypervisorView extends ByteMemory {
  readonly regions: readonly MemoryRegion[];
  /** Bytes that the hypervisor read as ciphertext. */
  ciphertextBytesRead = 0;
  /** Bytes that the hypervisor tried to write to private pages. */
  privateBytesWriteRefused = 0;
  /** Where the private pages are that it touched; the first 65,536 of them. */
  readonly privatePagesTouched: Set<Gpa> = new Set();
  readonly #memory: GuestMemory;
  readonly #ownership: PageOwnership;

  constructor(memory: GuestMemory, ownership: PageOwnership) {
    super();
    this.regions = memory.regions;
    this.#memory = memory;
    this.#ownership = ownership;
  }

  override isBacked(gpa: Gpa, length: number): boolean {
    return this.#memory.isBacked(gpa, length);
  }

  override read(gpa: Gpa, into: Uint8Array): void {
    this.#memory.read(gpa, into);
    this.#forEachPart(gpa, into.length, (offset, length, isShared) => {
      if (isShared) return;
      this.#touch(gpa + offset);
      encrypt(gpa + offset, into.subarray(offset, offset + length));
      this.ciphertextBytesRead += length;
    });
  }

  override write(gpa: Gpa, from: Uint8Array): void {
    if (!this.#memory.isBacked(gpa, from.length)) throw outOfRange(gpa, from.length);
    this.#forEachPart(gpa, from.length, (offset, length, isShared) => {
      if (isShared) this.#memory.write(gpa + offset, from.subarray(offset, offset + length));
      else {
        this.#touch(gpa + offset);
        this.privateBytesWriteRefused += length;
      }
    });
  }

  #touch(gpa: Gpa): void {
    if (this.privatePagesTouched.size >= MOST_PAGES) return;
    this.privatePagesTouched.add(gpa - (gpa % this.#ownership.pageSize));
  }

  #forEachPart(
    gpa: Gpa,
    length: number,
    visit: (offset: number, length: number, isShared: boolean) => void,
  ): void {
    const { pageSize } = this.#ownership;
    for (let done = 0; done < length; ) {
      const part = Math.min(pageSize - ((gpa + done) % pageSize), length - done);
      visit(done, part, this.#ownership.isShared(gpa + done));
      done += part;
    }
  }
}

// Each 32-bit word of memory has its own key word: a mix of its address.
function encrypt(gpa: Gpa, bytes: Uint8Array): void {
  for (let i = 0; i < bytes.length; i += 1) {
    const at = gpa + i;
    let key = (Math.floor(at / 4) ^ 0x5ec_04e5) | 0;
    key = Math.imul(key ^ (key >>> 16), 0x45d9_f3b5);
    key = Math.imul(key ^ (key >>> 15), 0x2c1b_3c6d);
    key ^= key >>> 13;
    bytes[i] = (bytes[i] as number) ^ ((key >>> ((at & 3) * 8)) & 0xff);
  }
}
