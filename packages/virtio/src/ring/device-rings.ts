import { hi32, lo32 } from '@pinhole/base';
import type { DmaSpace, GuestMemory } from '@pinhole/memory';
import type { QueueSetup } from '../transport/transport.js';
import { RegionCache } from './region-cache.js';
import { descTableSize } from './split-layout.js';

/** Bytes of the driver's and of the device's part, which depend on layout and features. */
export interface PartSizes {
  readonly avail: number;
  readonly used: number;
}

/**
 * The three parts of a virtqueue as the device reaches them: descriptors, driver area, device area. Before `open`, and after it
 * failed, reads give 0 and writes do nothing.
 */
export class DeviceRings {
  readonly desc: RegionCache;
  readonly avail: RegionCache;
  readonly used: RegionCache;
  #isOpen = false;

  constructor(memory: GuestMemory, space: DmaSpace, isBigEndian: boolean) {
    this.desc = new RegionCache(memory, space, isBigEndian);
    this.avail = new RegionCache(memory, space, isBigEndian);
    this.used = new RegionCache(memory, space, isBigEndian);
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /**
   * Opens the parts in QEMU's order, and says which one failed.
   * [qemu v7.2 hw/virtio/virtio.c virtio_init_region_cache]
   */
  open(setup: QueueSetup, sizes: PartSizes): 'desc' | 'used' | 'avail' | undefined {
    const failed = this.#openParts(setup, sizes);
    if (failed === undefined) this.#isOpen = true;
    else this.close();
    return failed;
  }

  close(): void {
    this.#isOpen = false;
    this.desc.close();
    this.avail.close();
    this.used.close();
  }

  #openParts(setup: QueueSetup, sizes: PartSizes): 'desc' | 'used' | 'avail' | undefined {
    if (!openAt(this.desc, setup.desc, descTableSize(setup.size))) return 'desc';
    if (!openAt(this.used, setup.used, sizes.used)) return 'used';
    if (!openAt(this.avail, setup.avail, sizes.avail)) return 'avail';
    return undefined;
  }
}

function openAt(cache: RegionCache, address: bigint, length: number): boolean {
  return cache.open(hi32(address), lo32(address), length);
}
