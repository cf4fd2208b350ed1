/**
 * Published holes of virtio-blk devices, met by ours. Each comment names the text that was read;
 * docs/VIRTIO-CVES.md has the table.
 */
import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import {
  encodeBlkHeader,
  negotiateFeatures,
  setDriverOk,
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
} from '@pinhole/virtio';
import { describe, expect, test } from 'vitest';
import { createMemoryBackend, VirtioBlk } from '../../src/index.js';
import { direct } from '../direct-transport.js';
import { createRawDriver, type RawDriver } from '../raw-driver.js';

const SECTORS = 8;

function bench(): { driver: RawDriver; blk: VirtioBlk; disk: Uint8Array } {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 24 }] });
  const disk = Uint8Array.from({ length: SECTORS * 512 }, (_, i) => (i >> 9) + 1);
  const blk = new VirtioBlk({
    backend: createMemoryBackend(disk),
    memory,
    systemMemory: createSystemMemorySpace(memory),
    iommuPlatform: false,
  });
  const result = negotiateFeatures(direct(blk.core), { supported: 1n << 32n });
  if (!result.ok) throw new Error(result.message);
  const driver = createRawDriver(memory, blk.core);
  setDriverOk(direct(blk.core));
  return { driver, blk, disk };
}

function header(type: number, sector: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(16));
  encodeBlkHeader(view, type, sector);
  return new Uint8Array(view.buffer);
}

// CVE-2011-1750, record of the CVE list: "Multiple heap-based buffer overflows in the virtio-blk driver
// [...] via a (1) write request [...] or (2) read request [...] that is not properly aligned."
describe('CVE-2011-1750', () => {
  const lengths = [1, 100, 511, 513, 1000, 4095];

  test.each(lengths)('CVE-2011-1750: a read of %i bytes is an I/O error, and no data', (length) => {
    const { driver, blk } = bench();
    driver.send(0, [16], [length, 1], header(VIRTIO_BLK_T_IN, 0));
    const answer = driver.readIn();
    expect(answer.at(-1)).toBe(VIRTIO_BLK_S_IOERR);
    expect(answer.subarray(0, length).every((byte) => byte === 0)).toBe(true);
    expect(blk.core.errors).toEqual([]);
  });

  test.each(lengths)('CVE-2011-1750: a write of %i bytes changes no sector', (length) => {
    const { driver, disk } = bench();
    const before = disk.slice();
    driver.send(0, [16, length], [1], header(VIRTIO_BLK_T_OUT, 7));
    expect(driver.readIn()[0]).toBe(VIRTIO_BLK_S_IOERR);
    expect(disk).toEqual(before);
  });

  test('CVE-2011-1750: whole sectors in odd pieces are no error', () => {
    const { driver } = bench();
    driver.send(0, [16], [100, 412, 1], header(VIRTIO_BLK_T_IN, 2));
    const answer = driver.readIn();
    expect(answer.at(-1)).toBe(VIRTIO_BLK_S_OK);
    expect(answer.subarray(0, 512).every((byte) => byte === 3)).toBe(true);
  });
});
