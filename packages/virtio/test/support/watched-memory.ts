import { ByteMemory, type GuestMemory, type MemoryRegion } from '@pinhole/memory';

/** Remembers where it was written, in order. */
export class WatchedMemory extends ByteMemory {
  readonly regions: readonly MemoryRegion[];
  readonly writes: number[] = [];
  readonly #memory: GuestMemory;

  constructor(memory: GuestMemory) {
    super();
    this.regions = memory.regions;
    this.#memory = memory;
  }

  override isBacked(gpa: number, length: number): boolean {
    return this.#memory.isBacked(gpa, length);
  }

  override read(gpa: number, into: Uint8Array): void {
    this.#memory.read(gpa, into);
  }

  override write(gpa: number, from: Uint8Array): void {
    this.writes.push(gpa);
    this.#memory.write(gpa, from);
  }
}
