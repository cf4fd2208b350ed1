import { readSync, writeSync } from 'node:fs';
import { type Gpa, hex } from '@pinhole/base';
import { ByteMemory, MemoryError, type MemoryRegion } from '@pinhole/memory';
import { LiveError } from './errors.js';
import type { QemuProcess } from './qemu-process.js';

/** The memory of a live machine: the file that QEMU maps as its guest's RAM. */
export class LiveMemory extends ByteMemory {
  readonly regions: readonly MemoryRegion[];
  readonly #size: number;
  readonly #process: QemuProcess;

  constructor(process: QemuProcess, size: number) {
    super();
    this.regions = [{ base: 0, size }];
    this.#size = size;
    this.#process = process;
  }

  override isBacked(gpa: Gpa, length: number): boolean {
    return gpa >= 0 && length >= 0 && gpa + length <= this.#size;
  }

  override read(gpa: Gpa, into: Uint8Array): void {
    this.#check(gpa, into.length);
    const { ram } = this.#process;
    for (let done = 0; done < into.length; ) {
      done += readSync(ram, into, done, into.length - done, gpa + done);
    }
  }

  override write(gpa: Gpa, from: Uint8Array): void {
    this.#check(gpa, from.length);
    const { ram } = this.#process;
    try {
      for (let done = 0; done < from.length; ) {
        done += writeSync(ram, from, done, from.length - done, gpa + done);
      }
    } catch (cause) {
      // The file is sparse: it takes room only where it is written.
      throw new LiveError('E_HOST', 'expected room for the memory of the guest, found none left', {
        details: { gpa, length: from.length },
        cause,
      });
    }
  }

  #check(gpa: Gpa, length: number): void {
    this.#process.check();
    if (this.isBacked(gpa, length)) return;
    throw new MemoryError(
      'E_GPA_OUT_OF_RANGE',
      `expected ${length} bytes of guest memory at ${hex(gpa)}, found its end at ${hex(this.#size)}`,
      { details: { gpa, length } },
    );
  }
}
