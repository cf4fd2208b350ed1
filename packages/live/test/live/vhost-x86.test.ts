/**
 * A disk with the flag on a machine without an IOMMU: the guest accepts ACCESS_PLATFORM, and QEMU hides it
 * from the data plane.
 */
import { createRng } from '@pinhole/base';
import {
  createPhysicalDmaOps,
  GuestPages,
  isBlkSuccess,
  probeVirtioBlk,
  SMP_CACHE_BYTES,
} from '@pinhole/guest';
import { createGuestMemory, createSystemMemorySpace, type GuestMemory } from '@pinhole/memory';
import { createMemoryBackend, VirtioBlk } from '@pinhole/qemu';
import {
  createPciModernTransport,
  createVirtioPci,
  type PciFunction,
  VIRTIO_F_ACCESS_PLATFORM,
} from '@pinhole/virtio';
import { describe, expect, test } from 'vitest';
import { diskContents } from '../../src/conform-virtio/contents.js';
import { hasX86, X86_QEMU, X86Machine } from './support/vhost/x86-machine.js';

if (!hasX86) {
  process.stderr.write(
    `${X86_QEMU} was not found: its tests of vhost are skipped (Debian's qemu-system-x86)\n`,
  );
}

/** Brings the disk up, reads 64 KiB, and says what was negotiated. */
function drive(fn: PciFunction, memory: GuestMemory, settle: () => void): bigint {
  const made = createPciModernTransport(fn);
  if (!made.ok) throw new Error(made.message);
  const { transport } = made;
  const notify = transport.notifyQueue.bind(transport);
  transport.notifyQueue = (index, data) => {
    notify(index, data);
    settle();
  };
  const pages = new GuestPages({
    pageSize: 4096,
    kernel: { base: 2 ** 24, size: 2 ** 24 },
    user: { base: 2 ** 25, size: 2 ** 24 },
    rng: createRng(1),
  });
  const end = performance.now() + 20_000;
  const probed = probeVirtioBlk({
    transport,
    memory,
    pages,
    smpCacheBytes: SMP_CACHE_BYTES['x86-64'],
    chooseDma: () => createPhysicalDmaOps({ memory, pages }),
    idle: () => performance.now() < end,
  });
  if (!probed.ok) throw new Error(probed.message);
  settle();
  const runs = pages.allocUser(65_536) ?? [];
  expect(probed.driver.read(0, runs).every(isBlkSuccess)).toBe(true);
  const disk = diskContents();
  let at = 0;
  for (const { gpa, length } of runs) {
    const found = new Uint8Array(length);
    memory.read(gpa, found);
    expect(Buffer.compare(found, disk.subarray(at, at + length))).toBe(0);
    at += length;
  }
  return probed.driver.features;
}

describe.skipIf(!hasX86)('no IOMMU, a real QEMU and the model', () => {
  test.each([true, false])('iommu_platform %s', (iommuPlatform) => {
    const flag = 1n << BigInt(VIRTIO_F_ACCESS_PLATFORM);
    const real = new X86Machine(iommuPlatform);
    let told: bigint;
    try {
      const accepted = drive(real, real.memory, () => real.backend.settle());
      expect((accepted & flag) !== 0n).toBe(iommuPlatform);
      told = real.backend.features();
      expect(told).toBe(accepted & ~flag);
      expect(real.backend.messages()).toEqual([]);
    } finally {
      real.close();
    }

    const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 28 }] });
    const blk = new VirtioBlk({
      backend: createMemoryBackend(diskContents()),
      memory,
      systemMemory: createSystemMemorySpace(memory),
      iommuPlatform,
      vhost: {},
    });
    drive(createVirtioPci({ device: blk.core, mode: 'modern' }), memory, () => {});
    expect(blk.vhost?.backendFeatures).toBe(told);
    expect(blk.vhost?.counters).toMatchObject({ misses: 0, updates: 0, invalidates: 0 });
  });
});
