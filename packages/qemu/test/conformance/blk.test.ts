/** What the specification asks of a block device, where no other test shows it. */
import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import { createVirtioPci, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH } from '@pinhole/virtio';
import { expect, test } from 'vitest';
import { createMemoryBackend, VirtioBlk } from '../../src/index.js';

// VIRTIO v1.2 §4.1.4.10, the legacy structure, and §5.2.4, struct virtio_blk_config.
const GUEST_FEATURES = 4;
const STATUS = 18;
const WRITEBACK = 20 + 32;

test('through the legacy interface the cache mode changes at DRIVER_OK at the earliest [device-5.2.5.3-2, device-5.2.5.3-3]', () => {
  for (const hasConfigWce of [false, true]) {
    const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 20 }] });
    const blk = new VirtioBlk({
      backend: createMemoryBackend(new Uint8Array(4096)),
      memory,
      systemMemory: createSystemMemorySpace(memory),
      iommuPlatform: false,
    });
    const fn = createVirtioPci({ device: blk.core, mode: 'transitional' });
    fn.configWrite(4, 2, 7);
    const bar = fn.bar(0)!;
    const seen: number[] = [];
    const look = (): unknown => seen.push(bar.read(WRITEBACK, 1));
    for (const status of [0, 1, 3]) {
      bar.write(STATUS, 1, status);
      look();
    }
    // CONFIG_WCE without FLUSH, FLUSH without CONFIG_WCE, neither.
    for (const features of [2 ** VIRTIO_BLK_F_CONFIG_WCE, 2 ** VIRTIO_BLK_F_FLUSH, 0]) {
      bar.write(GUEST_FEATURES, 4, features);
      look();
    }
    bar.write(GUEST_FEATURES, 4, hasConfigWce ? 2 ** VIRTIO_BLK_F_CONFIG_WCE : 0);
    look();
    expect(seen).toEqual([1, 1, 1, 1, 1, 1, 1]);
    bar.write(STATUS, 1, 7);
    expect(bar.read(WRITEBACK, 1)).toBe(hasConfigWce ? 1 : 0);
  }
});
