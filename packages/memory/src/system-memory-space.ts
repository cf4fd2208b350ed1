import { type Gpa, isSafeHi, joinNumber } from '@pinhole/base';
import { type DmaAccess, type DmaSpace, DmaStatus, type Translation } from './dma.js';
import { bytesToHole } from './regions.js';
import type { GuestMemory } from './types.js';

/**
 * The space of a device that bypasses every IOMMU: a bus address is a guest-physical address.
 * [qemu v7.2 hw/virtio/virtio-bus.c virtio_bus_device_plugged]
 */
export function createSystemMemorySpace(memory: GuestMemory): DmaSpace {
  return new SystemMemorySpace(memory);
}

class SystemMemorySpace implements DmaSpace {
  readonly name = 'system memory';
  readonly isIdentity = true;
  readonly #memory: GuestMemory;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  translate(
    hi: number,
    lo: number,
    length: number,
    _access: DmaAccess,
    out: Translation,
  ): DmaStatus {
    if (!isSafeHi(hi)) return DmaStatus.NOTHING_THERE;
    const gpa: Gpa = joinNumber(hi, lo);
    const inMemory = this.#memory.isBacked(gpa, length) ? length : bytesToHole(this.#memory, gpa);
    if (inMemory === 0) return DmaStatus.NOTHING_THERE;
    out.gpa = gpa;
    out.length = inMemory;
    return DmaStatus.OK;
  }

  covers(hi: number, lo: number, length: number): boolean {
    return isSafeHi(hi) && this.#memory.isBacked(joinNumber(hi, lo), length);
  }
}
