import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  type BlkHeader,
  decodeBlkConfig,
  decodeBlkHeader,
  encodeBlkConfig,
  encodeBlkHeader,
  featureBit,
  featureNames,
  hasFeature,
  VIRTIO_BLK_CONFIG_SIZE,
  VIRTIO_BLK_T_OUT,
  VIRTIO_ID_BLOCK,
  VIRTIO_ID_NET,
} from '../src/index.js';

test('what a Linux guest accepted from QEMU 7.2 has these names', () => {
  // The string of /sys/bus/virtio/devices/virtio0/features in the recording linux6.12-pinhole.
  const sysfs = '0010101001110110000000000000110011000000100000000000000000000000';
  let bits = 0n;
  [...sysfs].forEach((digit, bit) => {
    if (digit === '1') bits |= featureBit(bit);
  });
  expect(bits).toBe(0x103_3000_6e54n);
  expect(featureNames(bits, VIRTIO_ID_BLOCK)).toEqual([
    'VIRTIO_BLK_F_SEG_MAX',
    'VIRTIO_BLK_F_GEOMETRY',
    'VIRTIO_BLK_F_BLK_SIZE',
    'VIRTIO_BLK_F_FLUSH',
    'VIRTIO_BLK_F_TOPOLOGY',
    'VIRTIO_BLK_F_CONFIG_WCE',
    'VIRTIO_BLK_F_DISCARD',
    'VIRTIO_BLK_F_WRITE_ZEROES',
    'VIRTIO_RING_F_INDIRECT_DESC',
    'VIRTIO_RING_F_EVENT_IDX',
    'VIRTIO_F_VERSION_1',
    'VIRTIO_F_ACCESS_PLATFORM',
    'VIRTIO_F_RING_RESET',
  ]);
});

test('bits that mean something else, or nothing, for another device', () => {
  expect(featureNames(0b10_0001n, VIRTIO_ID_NET)).toEqual([
    'VIRTIO_NET_F_CSUM',
    'VIRTIO_NET_F_MAC',
  ]);
  expect(featureNames(featureBit(3) | featureBit(63), 99)).toEqual(['bit 3', 'bit 63']);
  expect([hasFeature(featureBit(63), 63), hasFeature(featureBit(63), 62)]).toEqual([true, false]);
});

test('a block request header is 16 bytes, little-endian', () => {
  const bytes = new Uint8Array(16);
  encodeBlkHeader(new DataView(bytes.buffer), VIRTIO_BLK_T_OUT, 0x12_3456_789a);
  expect([...bytes]).toEqual([1, 0, 0, 0, 0, 0, 0, 0, 0x9a, 0x78, 0x56, 0x34, 0x12, 0, 0, 0]);
  const header: BlkHeader = { type: 0, ioprio: 0, sectorHi: 0, sectorLo: 0 };
  decodeBlkHeader(new DataView(bytes.buffer), header);
  expect(header).toEqual({ type: 1, ioprio: 0, sectorHi: 0x12, sectorLo: 0x3456_789a });
});

test('the configuration of a 16 MiB disk, as QEMU 7.2 lays it out', () => {
  const config = {
    capacity: 32_768,
    segMax: 254,
    cylinders: 32,
    heads: 16,
    sectors: 63,
    blkSize: 512,
    writeback: 1,
    numQueues: 1,
    maxDiscardSectors: 0x3f_ffff,
    maxDiscardSeg: 1,
    discardSectorAlignment: 1,
    maxWriteZeroesSectors: 0x3f_ffff,
    maxWriteZeroesSeg: 1,
    writeZeroesMayUnmap: 1,
  };
  const bytes = encodeBlkConfig(config, 60);
  expect(bytes.length).toBe(60);
  expect([...bytes.subarray(0, 24)]).toEqual([
    0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 254, 0, 0, 0, 32, 0, 16, 63, 0, 2, 0, 0,
  ]);
  expect(bytes[56]).toBe(1);
  expect(decodeBlkConfig(bytes)).toMatchObject({ ...config, maxSecureEraseSeg: 0 });
});

test('encode and decode are each other’s inverse, and short ones read as zero', () => {
  const zero = decodeBlkConfig(new Uint8Array(0));
  const widths: Partial<Record<string, number>> = {
    capacity: 2 ** 53 - 1,
    cylinders: 0xffff,
    minIoSize: 0xffff,
    numQueues: 0xffff,
    heads: 0xff,
    sectors: 0xff,
    physicalBlockExp: 0xff,
    alignmentOffset: 0xff,
    writeback: 0xff,
    writeZeroesMayUnmap: 0xff,
  };
  const arbitrary = fc.record(
    Object.fromEntries(
      Object.keys(zero).map((name) => [name, fc.nat(widths[name] ?? 0xffff_ffff)]),
    ),
  );
  fc.assert(
    fc.property(arbitrary, fc.nat(80), (config, size) => {
      expect(decodeBlkConfig(encodeBlkConfig(config))).toEqual(config);
      const short = decodeBlkConfig(encodeBlkConfig(config, size));
      for (const [name, value] of Object.entries(short)) expect([0, config[name]]).toContain(value);
      expect(encodeBlkConfig(config).length).toBe(VIRTIO_BLK_CONFIG_SIZE);
    }),
  );
});
