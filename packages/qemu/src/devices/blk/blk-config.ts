import {
  encodeBlkConfig,
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_GEOMETRY,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_TOPOLOGY,
  VIRTIO_BLK_F_WRITE_ZEROES,
} from '@pinhole/virtio';
import { type BlockBackend, SECTOR_SIZE } from './block-backend.js';

/**
 * The most sectors of one request: what fits a C `int` in bytes.
 * [qemu v7.2 include/block/block-common.h BDRV_REQUEST_MAX_SECTORS]
 */
export const BDRV_REQUEST_MAX_SECTORS: number = Math.floor((2 ** 31 - 1) / SECTOR_SIZE);

/**
 * Up to the end of `write_zeroes_may_unmap`, which the last offered feature brings.
 * [qemu v7.2 hw/block/virtio-blk-common.c virtio_blk_cfg_size_params]
 */
const CONFIG_SIZE = 57;

/** What the user chose. */
export interface BlkSettings {
  readonly queueSize: number;
  readonly numQueues: number;
  readonly maxDiscardSectors: number;
  readonly maxWriteZeroesSectors: number;
}

/**
 * The features of the type. FLUSH is the older WCE: there as long as the cache mode can be changed.
 * [qemu v7.2 hw/block/virtio-blk.c virtio_blk_get_features]
 */
export function blkFeatures(backend: BlockBackend, settings: BlkSettings): number[] {
  const bits = [
    VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_GEOMETRY,
    VIRTIO_BLK_F_BLK_SIZE,
    VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_TOPOLOGY,
    VIRTIO_BLK_F_CONFIG_WCE,
    VIRTIO_BLK_F_DISCARD,
    VIRTIO_BLK_F_WRITE_ZEROES,
  ];
  if (backend.isReadOnly === true) bits.push(VIRTIO_BLK_F_RO);
  if (settings.numQueues > 1) bits.push(VIRTIO_BLK_F_MQ);
  return bits;
}

/** [qemu v7.2 hw/block/virtio-blk.c virtio_blk_update_config] */
export function blkConfig(backend: BlockBackend, settings: BlkSettings): Uint8Array {
  return encodeBlkConfig(
    {
      capacity: backend.size / SECTOR_SIZE,
      segMax: settings.queueSize - 2,
      ...guessGeometry(backend),
      blkSize: SECTOR_SIZE,
      writeback: 1,
      numQueues: settings.numQueues,
      maxDiscardSectors: settings.maxDiscardSectors,
      maxDiscardSeg: 1,
      discardSectorAlignment: 1,
      maxWriteZeroesSectors: settings.maxWriteZeroesSectors,
      maxWriteZeroesSeg: 1,
      writeZeroesMayUnmap: 1,
    },
    CONFIG_SIZE,
  );
}

interface Geometry {
  readonly cylinders: number;
  readonly heads: number;
  readonly sectors: number;
}

/**
 * From the partition table, if it was made on a disk of at most 16 heads; else from the size.
 * [qemu v7.2 hw/block/hd-geometry.c hd_geometry_guess]
 */
function guessGeometry(backend: BlockBackend): Geometry {
  const sectors = backend.size / SECTOR_SIZE;
  const guess = guessFromPartitions(backend, sectors);
  if (guess !== undefined && guess.heads <= 16) return guess;
  const cylinders = Math.floor(sectors / (16 * 63));
  return { cylinders: Math.min(Math.max(cylinders, 2), 16_383), heads: 16, sectors: 63 };
}

/** A partition ends on a cylinder's boundary. [qemu v7.2 hw/block/hd-geometry.c guess_disk_lchs] */
function guessFromPartitions(backend: BlockBackend, total: number): Geometry | undefined {
  const table = new Uint8Array(SECTOR_SIZE);
  try {
    backend.read(0, table);
  } catch {
    return undefined;
  }
  if (table[510] !== 0x55 || table[511] !== 0xaa) return undefined;
  const view = new DataView(table.buffer);
  for (let at = 0x1be; at < 0x1fe; at += 16) {
    const endHead = view.getUint8(at + 5);
    const sectors = view.getUint8(at + 6) & 63;
    if (view.getUint32(at + 12, true) === 0 || endHead === 0 || sectors === 0) continue;
    const heads = endHead + 1;
    const cylinders = Math.floor(total / (heads * sectors));
    if (cylinders >= 1 && cylinders <= 16_383) return { cylinders, heads, sectors };
  }
  return undefined;
}
