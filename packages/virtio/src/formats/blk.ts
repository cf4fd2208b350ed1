/** The block device's formats. [VIRTIO v1.2 §5.2 "Block Device"] */
import { hiOf, loOf } from '@pinhole/base';
import {
  type ConfigPart,
  type ConfigRow,
  configParts,
  decodeConfig,
  encodeConfig,
} from './config-layout.js';

/** Feature bits. [VIRTIO v1.2 §5.2.3 "Feature bits"] */
/** Legacy: request barriers. */
export const VIRTIO_BLK_F_BARRIER = 0;
/** `sizeMax` limits a segment. */
export const VIRTIO_BLK_F_SIZE_MAX = 1;
/** `segMax` limits the number of segments. */
export const VIRTIO_BLK_F_SEG_MAX = 2;
/** The geometry fields are valid. */
export const VIRTIO_BLK_F_GEOMETRY = 4;
/** The device is read-only. */
export const VIRTIO_BLK_F_RO = 5;
/** `blkSize` is valid. */
export const VIRTIO_BLK_F_BLK_SIZE = 6;
/** Legacy: SCSI packet commands. */
export const VIRTIO_BLK_F_SCSI = 7;
/** The flush command. */
export const VIRTIO_BLK_F_FLUSH = 9;
/** The topology fields are valid. */
export const VIRTIO_BLK_F_TOPOLOGY = 10;
/** `writeback` can be written. */
export const VIRTIO_BLK_F_CONFIG_WCE = 11;
/** More queues than one: `numQueues`. */
export const VIRTIO_BLK_F_MQ = 12;
/** The discard command. */
export const VIRTIO_BLK_F_DISCARD = 13;
/** The write zeroes command. */
export const VIRTIO_BLK_F_WRITE_ZEROES = 14;
/** The device tells of its wear. */
export const VIRTIO_BLK_F_LIFETIME = 15;
/** The secure erase command. */
export const VIRTIO_BLK_F_SECURE_ERASE = 16;

/** Request types. [VIRTIO v1.2 §5.2.6 "Device Operation"] */
export const VIRTIO_BLK_T_IN = 0;
/** Writes to the disk: out of memory. */
export const VIRTIO_BLK_T_OUT = 1;
/** Legacy: a SCSI command. [qemu v7.2 include/standard-headers/linux/virtio_blk.h] */
export const VIRTIO_BLK_T_SCSI_CMD = 2;
/** Makes completed writes stable. */
export const VIRTIO_BLK_T_FLUSH = 4;
/** Reads the device's serial, up to 20 characters. */
export const VIRTIO_BLK_T_GET_ID = 8;
/** Reads the wear. */
export const VIRTIO_BLK_T_GET_LIFETIME = 10;
/** Sectors whose contents matter no more. */
export const VIRTIO_BLK_T_DISCARD = 11;
/** Sectors that shall read as zero. */
export const VIRTIO_BLK_T_WRITE_ZEROES = 13;
/** Sectors to be gone for good. */
export const VIRTIO_BLK_T_SECURE_ERASE = 14;

/** Legacy, a flag: requests before this one come first. [qemu v7.2 include/standard-headers/linux/virtio_blk.h] */
export const VIRTIO_BLK_T_BARRIER = 0x8000_0000;

/** Values of the status byte. [VIRTIO v1.2 §5.2.6 "Device Operation"] */
export const VIRTIO_BLK_S_OK = 0;
/** The device or the driver is in error. */
export const VIRTIO_BLK_S_IOERR = 1;
/** The device does not know the request. */
export const VIRTIO_BLK_S_UNSUPP = 2;

/** Bytes of a sector, whatever the block size is. */
export const VIRTIO_BLK_SECTOR_SIZE = 512;
/** Bytes of the header that begins every request. */
export const VIRTIO_BLK_HEADER_SIZE = 16;
/** The length of a device's serial. */
export const VIRTIO_BLK_ID_BYTES = 20;

/** What begins a request: `struct virtio_blk_req` up to its data. */
export interface BlkHeader {
  type: number;
  /** Legacy: the priority; reserved since 1.0. */
  ioprio: number;
  /** The sector as two halves: the driver may ask for any. */
  sectorHi: number;
  sectorLo: number;
}

/** Writes a request header of 16 bytes. */
export function encodeBlkHeader(into: DataView, type: number, sector: number, ioprio = 0): void {
  into.setUint32(0, type, true);
  into.setUint32(4, ioprio, true);
  into.setUint32(8, loOf(sector), true);
  into.setUint32(12, hiOf(sector), true);
}

/** Reads a request header of 16 bytes; of a legacy driver in the guest's byte order. */
export function decodeBlkHeader(from: DataView, out: BlkHeader, isBigEndian = false): void {
  out.type = from.getUint32(0, !isBigEndian);
  out.ioprio = from.getUint32(4, !isBigEndian);
  out.sectorLo = from.getUint32(isBigEndian ? 12 : 8, !isBigEndian);
  out.sectorHi = from.getUint32(isBigEndian ? 8 : 12, !isBigEndian);
}

/** Of a write zeroes range: the device may unmap the sectors. [VIRTIO v1.2 §5.2.6 "Device Operation"] */
export const VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP = 1;
/** Bytes of one range of a discard, write zeroes or secure erase request. */
export const VIRTIO_BLK_RANGE_SIZE = 16;

/** `struct virtio_blk_discard_write_zeroes`. [VIRTIO v1.2 §5.2.6 "Device Operation"] */
export interface BlkRange {
  /** The first sector as two halves: the driver may ask for any. */
  sectorHi: number;
  sectorLo: number;
  numSectors: number;
  flags: number;
}

/** Writes one range of 16 bytes at `at`. */
export function encodeBlkRange(into: DataView, at: number, range: BlkRange): void {
  into.setUint32(at, range.sectorLo, true);
  into.setUint32(at + 4, range.sectorHi, true);
  into.setUint32(at + 8, range.numSectors, true);
  into.setUint32(at + 12, range.flags, true);
}

/** Reads one range of 16 bytes at `at`; of a legacy driver in the guest's byte order. */
export function decodeBlkRange(from: DataView, at: number, isBigEndian = false): BlkRange {
  return {
    sectorLo: from.getUint32(isBigEndian ? at + 4 : at, !isBigEndian),
    sectorHi: from.getUint32(isBigEndian ? at : at + 4, !isBigEndian),
    numSectors: from.getUint32(at + 8, !isBigEndian),
    flags: from.getUint32(at + 12, !isBigEndian),
  };
}

/** Bytes of the whole configuration space; devices may have less, or padding after it. */
export const VIRTIO_BLK_CONFIG_SIZE = 72;
/** Where `writeback` stands in it: what a driver may write. */
export const VIRTIO_BLK_CONFIG_WRITEBACK = 32;

/** The configuration space. Fields that were not offered are 0. [VIRTIO v1.2 §5.2.4 "Device configuration layout"] */
export interface BlkConfig {
  /** In sectors of 512 bytes. */
  readonly capacity: number;
  readonly sizeMax: number;
  readonly segMax: number;
  readonly cylinders: number;
  readonly heads: number;
  readonly sectors: number;
  readonly blkSize: number;
  /** Logical blocks per physical block, as a power of two. */
  readonly physicalBlockExp: number;
  readonly alignmentOffset: number;
  readonly minIoSize: number;
  readonly optIoSize: number;
  /** 0: writethrough; 1: writeback. QEMU calls it `wce`. */
  readonly writeback: number;
  readonly numQueues: number;
  readonly maxDiscardSectors: number;
  readonly maxDiscardSeg: number;
  readonly discardSectorAlignment: number;
  readonly maxWriteZeroesSectors: number;
  readonly maxWriteZeroesSeg: number;
  readonly writeZeroesMayUnmap: number;
  readonly maxSecureEraseSectors: number;
  readonly maxSecureEraseSeg: number;
  readonly secureEraseSectorAlignment: number;
}

/** `struct virtio_blk_config`, a field a row. [VIRTIO v1.2 §5.2.4 "Device configuration layout"] */
const LAYOUT: readonly ConfigRow<keyof BlkConfig>[] = [
  ['capacity', 0, 8],
  ['sizeMax', 8, 4, VIRTIO_BLK_F_SIZE_MAX],
  ['segMax', 12, 4, VIRTIO_BLK_F_SEG_MAX],
  ['cylinders', 16, 2, VIRTIO_BLK_F_GEOMETRY],
  ['heads', 18, 1, VIRTIO_BLK_F_GEOMETRY],
  ['sectors', 19, 1, VIRTIO_BLK_F_GEOMETRY],
  ['blkSize', 20, 4, VIRTIO_BLK_F_BLK_SIZE],
  ['physicalBlockExp', 24, 1, VIRTIO_BLK_F_TOPOLOGY],
  ['alignmentOffset', 25, 1, VIRTIO_BLK_F_TOPOLOGY],
  ['minIoSize', 26, 2, VIRTIO_BLK_F_TOPOLOGY],
  ['optIoSize', 28, 4, VIRTIO_BLK_F_TOPOLOGY],
  ['writeback', VIRTIO_BLK_CONFIG_WRITEBACK, 1, VIRTIO_BLK_F_CONFIG_WCE],
  ['numQueues', 34, 2, VIRTIO_BLK_F_MQ],
  ['maxDiscardSectors', 36, 4, VIRTIO_BLK_F_DISCARD],
  ['maxDiscardSeg', 40, 4, VIRTIO_BLK_F_DISCARD],
  ['discardSectorAlignment', 44, 4, VIRTIO_BLK_F_DISCARD],
  ['maxWriteZeroesSectors', 48, 4, VIRTIO_BLK_F_WRITE_ZEROES],
  ['maxWriteZeroesSeg', 52, 4, VIRTIO_BLK_F_WRITE_ZEROES],
  ['writeZeroesMayUnmap', 56, 1, VIRTIO_BLK_F_WRITE_ZEROES],
  ['maxSecureEraseSectors', 60, 4, VIRTIO_BLK_F_SECURE_ERASE],
  ['maxSecureEraseSeg', 64, 4, VIRTIO_BLK_F_SECURE_ERASE],
  ['secureEraseSectorAlignment', 68, 4, VIRTIO_BLK_F_SECURE_ERASE],
];

/** Writes the configuration space; fields that are not given are 0, those beyond `size` are left out. */
export function encodeBlkConfig(
  config: Partial<BlkConfig>,
  size: number = VIRTIO_BLK_CONFIG_SIZE,
): Uint8Array {
  return encodeConfig(LAYOUT, config, size);
}

/**
 * Reads the configuration space; what lies beyond its end is 0. The driver must look only at what
 * was negotiated. [VIRTIO v1.2 §2.5.1 "Driver Requirements: Device Configuration Space"]
 */
export function decodeBlkConfig(bytes: Uint8Array): BlkConfig {
  return decodeConfig(LAYOUT, bytes);
}

/** Where the fields are that exist with these features. */
export function blkConfigParts(features: bigint): ConfigPart[] {
  return configParts(LAYOUT, features);
}
