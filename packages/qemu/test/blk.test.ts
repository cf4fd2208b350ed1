/** The device side: which address space, and requests that a guest gets wrong. */
import {
  createGuestMemory,
  createRangesSpace,
  createSystemMemorySpace,
  type DmaSpace,
  type GuestMemory,
} from '@pinhole/memory';
import {
  type BlkConfig,
  decodeBlkConfig,
  encodeBlkHeader,
  encodeBlkRange,
  negotiateFeatures,
  setDriverOk,
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_SCSI_CMD,
  VIRTIO_BLK_T_SECURE_ERASE,
  VIRTIO_BLK_T_WRITE_ZEROES,
  VIRTIO_CONFIG_S_FEATURES_OK,
  VIRTIO_CONFIG_S_NEEDS_RESET,
} from '@pinhole/virtio';
import { describe, expect, test } from 'vitest';
import { type BlockBackend, chooseDmaSpace, createMemoryBackend, VirtioBlk } from '../src/index.js';
import { direct } from './direct-transport.js';

const RING = 0x1_0000;
const HEADER = 0x2_0000;
const DATA = 0x3_0000;
const STATUS = 0x2_0100;
const UNTOUCHED = 0xee;

interface Bench {
  readonly memory: GuestMemory;
  readonly blk: VirtioBlk;
  readonly disk: Uint8Array;
  /** Puts a chain of [address, length, isWritable] into the ring and kicks. */
  submit(chain: readonly (readonly [number, number, boolean])[]): void;
  /** Used index, id and length of the last used element. */
  used(): { idx: number; len: number };
}

function bench(
  options: { space?: (memory: GuestMemory) => DmaSpace; backend?: BlockBackend } = {},
): Bench {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 20 }] });
  const disk = Uint8Array.from({ length: 8 * 512 }, (_, i) => (i >> 9) + 1);
  const systemMemory = createSystemMemorySpace(memory);
  const busSpace = options.space?.(memory);
  const blk = new VirtioBlk({
    backend: options.backend ?? createMemoryBackend(disk),
    memory,
    systemMemory,
    iommuPlatform: busSpace !== undefined,
    ...(busSpace === undefined ? {} : { busSpace }),
  });
  const { core } = blk;
  // Without INDIRECT and EVENT_IDX: the chain lies in the ring.
  const negotiated = negotiateFeatures(direct(core), { supported: (1n << 32n) | (1n << 33n) });
  expect(negotiated.ok).toBe(true);
  const avail = RING + 256 * 16;
  const used = RING + 0x2000;
  direct(core).setupQueue(0, {
    size: 256,
    desc: BigInt(RING),
    avail: BigInt(avail),
    used: BigInt(used),
  });
  setDriverOk(direct(core));
  memory.writeU8(STATUS, UNTOUCHED);
  let next = 0;
  return {
    memory,
    blk,
    disk,
    submit(chain) {
      chain.forEach(([address, length, isWritable], i) => {
        const at = RING + i * 16;
        memory.writeU64Le(at, BigInt(address));
        memory.writeU32Le(at + 8, length);
        memory.writeU16Le(at + 12, (isWritable ? 2 : 0) | (i + 1 < chain.length ? 1 : 0));
        memory.writeU16Le(at + 14, i + 1);
      });
      memory.writeU16Le(avail + 4 + 2 * (next % 256), 0);
      next += 1;
      memory.writeU16Le(avail + 2, next);
      core.notifyQueue(0);
    },
    used: () => ({
      idx: memory.readU16Le(used + 2),
      len: memory.readU32Le(used + 4 + 8 * ((next - 1) % 256) + 4),
    }),
  };
}

function header(memory: GuestMemory, type: number, sector: number): void {
  const view = new DataView(new ArrayBuffer(16));
  encodeBlkHeader(view, type, sector);
  memory.write(HEADER, new Uint8Array(view.buffer));
}

const request = (length: number, isRead: boolean) =>
  [
    [HEADER, 16, false],
    [DATA, length, isRead],
    [STATUS, 1, true],
  ] as const;

describe('requests', () => {
  test('a read fills the data, the status and the used length', () => {
    const { memory, submit, used } = bench();
    header(memory, VIRTIO_BLK_T_IN, 2);
    submit(request(1024, true));
    expect([memory.readU8(DATA), memory.readU8(DATA + 1023)]).toEqual([3, 4]);
    expect(memory.readU8(STATUS)).toBe(VIRTIO_BLK_S_OK);
    expect(used()).toEqual({ idx: 1, len: 1025 });
  });

  test('a write changes the disk, and only it', () => {
    const { memory, disk, submit, used } = bench();
    header(memory, VIRTIO_BLK_T_OUT, 1);
    memory.fill(DATA, 512, 0x77);
    submit(request(512, false));
    expect([disk[511], disk[512], disk[1023], disk[1024]]).toEqual([1, 0x77, 0x77, 3]);
    expect(used()).toEqual({ idx: 1, len: 1 });
  });

  test.each([
    ['past the end', 8, 512],
    ['across the end', 7, 1024],
    ['far beyond', 2 ** 50, 512],
    ['half a sector', 0, 100],
  ])('%s: an I/O error, and no data', (_what, sector, length) => {
    const { memory, submit } = bench();
    header(memory, VIRTIO_BLK_T_IN, sector);
    submit(request(length, true));
    expect(memory.readU8(STATUS)).toBe(VIRTIO_BLK_S_IOERR);
    expect(memory.readU8(DATA)).toBe(0);
  });

  test.each([
    ['flush', VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_S_OK],
    ['get-id', VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_S_OK],
    ['get-id with the direction bit', VIRTIO_BLK_T_GET_ID | 1, VIRTIO_BLK_S_OK],
    ['a flush that is a barrier', (VIRTIO_BLK_T_FLUSH | 0x8000_0000) >>> 0, VIRTIO_BLK_S_OK],
    ['a SCSI command of too few parts', VIRTIO_BLK_T_SCSI_CMD, VIRTIO_BLK_S_IOERR],
    ['an unknown type', 99, VIRTIO_BLK_S_UNSUPP],
  ])('%s', (_what, type, status) => {
    const { memory, submit } = bench();
    header(memory, type, 0);
    submit(request(20, true));
    expect(memory.readU8(STATUS)).toBe(status);
  });

  test('a backend that fails is an I/O error to the guest', () => {
    const fail = (): never => {
      throw new Error('the disk is on fire');
    };
    const { memory, submit } = bench({
      backend: { size: 4096, read: fail, write: fail, flush: fail },
    });
    header(memory, VIRTIO_BLK_T_IN, 0);
    submit(request(512, true));
    expect(memory.readU8(STATUS)).toBe(VIRTIO_BLK_S_IOERR);
  });
});

describe('discard and write zeroes', () => {
  const ranged = (memory: GuestMemory, type: number, range: readonly number[], length = 16) => {
    header(memory, type, 0);
    const [sectorLo = 0, numSectors = 0, flags = 0, sectorHi = 0] = range;
    const view = new DataView(new ArrayBuffer(16));
    encodeBlkRange(view, 0, { sectorHi, sectorLo, numSectors, flags });
    memory.write(DATA, new Uint8Array(view.buffer));
    return [
      [HEADER, 16, false],
      [DATA, length, false],
      [STATUS, 1, true],
    ] as const;
  };

  test.each([
    ['all of the disk', [0, 8], VIRTIO_BLK_S_OK],
    ['nothing', [3, 0], VIRTIO_BLK_S_OK],
    ['past the end', [8, 1], VIRTIO_BLK_S_IOERR],
    ['across the end', [7, 2], VIRTIO_BLK_S_IOERR],
    ['far beyond', [0, 1, 0, 0xffff_ffff], VIRTIO_BLK_S_IOERR],
    ['more than max_write_zeroes_sectors', [0, 0x0040_0000], VIRTIO_BLK_S_IOERR],
    ['may unmap', [0, 1, 1], VIRTIO_BLK_S_OK],
  ])('write zeroes: %s', (_what, range, status) => {
    const { memory, submit } = bench();
    submit(ranged(memory, VIRTIO_BLK_T_WRITE_ZEROES, range));
    expect(memory.readU8(STATUS)).toBe(status);
  });

  test('UNSUPP for discard, secure erase and write zeroes commands if any unknown flag is set [device-5.2.6.2-2]', () => {
    const types = [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_SECURE_ERASE];
    for (const type of types) {
      for (const flags of [2, 0x8000_0000, 3]) {
        const { memory, disk, submit } = bench();
        submit(ranged(memory, type, [0, 1, flags]));
        expect(memory.readU8(STATUS)).toBe(VIRTIO_BLK_S_UNSUPP);
        expect(disk[0]).toBe(1);
      }
    }
  });

  test('UNSUPP for discard commands if the unmap flag is set [device-5.2.6.2-3]', () => {
    const { memory, submit } = bench();
    submit(ranged(memory, VIRTIO_BLK_T_DISCARD, [0, 1, 1]));
    expect(memory.readU8(STATUS)).toBe(VIRTIO_BLK_S_UNSUPP);
  });

  test('more ranges than one, or a type without the direction bit: unsupported', () => {
    const { memory, submit } = bench();
    submit(ranged(memory, VIRTIO_BLK_T_DISCARD, [0, 1], 32));
    expect(memory.readU8(STATUS)).toBe(VIRTIO_BLK_S_UNSUPP);
    memory.writeU8(STATUS, UNTOUCHED);
    submit(ranged(memory, VIRTIO_BLK_T_DISCARD & ~1, [0, 1]));
    expect(memory.readU8(STATUS)).toBe(VIRTIO_BLK_S_UNSUPP);
  });

  test('half a range breaks the device', () => {
    const { memory, blk, submit, used } = bench();
    submit(ranged(memory, VIRTIO_BLK_T_WRITE_ZEROES, [0, 1], 15));
    expect(blk.core.errors).toEqual(['virtio-blk discard/write_zeroes header too short']);
    expect(used().idx).toBe(0);
  });
});

describe('the configuration space', () => {
  function read(blk: VirtioBlk): BlkConfig {
    const bytes = new Uint8Array(57);
    blk.core.readConfig(0, bytes);
    return decodeBlkConfig(bytes);
  }

  test("is QEMU's: 57 bytes, the geometry guessed", () => {
    const { blk } = bench();
    expect(read(blk)).toMatchObject({
      capacity: 8,
      segMax: 254,
      cylinders: 2,
      heads: 16,
      sectors: 63,
      blkSize: 512,
      // The driver took neither FLUSH nor CONFIG_WCE.
      writeback: 0,
      numQueues: 1,
      maxDiscardSectors: 4_194_303,
      maxDiscardSeg: 1,
      discardSectorAlignment: 1,
      maxWriteZeroesSectors: 4_194_303,
      maxWriteZeroesSeg: 1,
      writeZeroesMayUnmap: 1,
    });
    const beyond = new Uint8Array(4);
    blk.core.readConfig(56, beyond);
    expect([...beyond]).toEqual([0xff, 0xff, 0xff, 0xff]);
  });

  test.each([
    ['of 4 heads, 32 sectors', 3, 32, { cylinders: 64, heads: 4, sectors: 32 }],
    ['of more than 16 heads', 254, 63, { cylinders: 8, heads: 16, sectors: 63 }],
    ['without sectors', 3, 0, { cylinders: 8, heads: 16, sectors: 63 }],
  ])('a partition table %s decides the geometry', (_what, endHead, endSector, expected) => {
    const disk = new Uint8Array(64 * 4 * 32 * 512);
    disk.set([0x55, 0xaa], 510);
    disk.set([0, 0, 0, 0, 0, endHead, endSector, 0, 0, 0, 0, 0, 1, 0, 0, 0], 0x1be);
    expect(read(bench({ backend: createMemoryBackend(disk) }).blk)).toMatchObject(expected);
  });

  test('Devices SHOULD always offer VIRTIO_BLK_F_FLUSH, and MUST offer it if they offer VIRTIO_BLK_F_CONFIG_WCE [device-5.2.5.2-1]', () => {
    const features = bench().blk.core.modernFeatures;
    expect((features >> 9n) & 1n).toBe(1n);
    expect((features >> 11n) & 1n).toBe(1n);
  });

  test('The device MUST initialize padding bytes unused0 and unused1 to 0 [device-5.2.5.2-3]', () => {
    const { blk } = bench();
    const bytes = new Uint8Array(57);
    blk.core.readConfig(0, bytes);
    // unused1 lies beyond the end, where QEMU has none.
    expect(bytes[33]).toBe(0);
  });

  test('the driver may write the cache mode, and nothing else', () => {
    const { blk } = bench();
    const before = read(blk);
    blk.core.writeConfig(0, new Uint8Array(32).fill(0x55));
    blk.core.writeConfig(33, new Uint8Array(24).fill(0x55));
    expect(read(blk)).toEqual(before);
    blk.core.writeConfig(32, Uint8Array.of(7));
    expect(read(blk)).toEqual({ ...before, writeback: 1 });
    blk.core.writeConfig(32, Uint8Array.of(0));
    expect(read(blk)).toEqual({ ...before, writeback: 0 });
  });

  test('a driver that takes FLUSH alone has a write cache, one that takes neither has none', () => {
    const { blk } = bench();
    expect(blk.isWriteback).toBe(false);
    negotiateFeatures(direct(blk.core), { supported: (1n << 32n) | (1n << 9n) });
    expect(blk.isWriteback).toBe(true);
    setDriverOk(direct(blk.core));
    expect(blk.isWriteback).toBe(true);
  });
});

test.each([
  ['queueSize', 2],
  ['queueSize', 2048],
  ['queueSize', 48],
  ['numQueues', 0],
  ['maxDiscardSectors', 0],
  ['maxWriteZeroesSectors', 4_194_304],
] as const)('%s of %i is refused, as QEMU does', (property, value) => {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 20 }] });
  const systemMemory = createSystemMemorySpace(memory);
  const backend = createMemoryBackend(new Uint8Array(512));
  const make = () =>
    new VirtioBlk({ backend, memory, systemMemory, iommuPlatform: false, [property]: value });
  expect(make).toThrow(/virtio-blk: expected .*, found/);
});

describe('a hostile driver breaks its own device, with the message that QEMU has', () => {
  test.each([
    ['no writable part', [[HEADER, 16, false]], 'virtio-blk missing headers'],
    ['no readable part', [[STATUS, 1, true]], 'virtio-blk missing headers'],
    [
      'a short header',
      [
        [HEADER, 15, false],
        [STATUS, 1, true],
      ],
      'virtio-blk request outhdr too short',
    ],
    [
      'a buffer outside memory, of two pages',
      [
        [HEADER, 16, false],
        [2 ** 30, 8192, true],
        [STATUS, 1, true],
      ],
      'virtio: bogus descriptor or out of resources',
    ],
  ] as const)('%s', (_what, chain, message) => {
    const { memory, blk, submit, used } = bench();
    header(memory, VIRTIO_BLK_T_IN, 0);
    submit(chain);
    expect(blk.core.errors).toEqual([message]);
    expect(blk.core.status & VIRTIO_CONFIG_S_NEEDS_RESET).toBe(VIRTIO_CONFIG_S_NEEDS_RESET);
    expect(used().idx).toBe(0);
    submit(request(512, true));
    expect(used().idx).toBe(0);
  });
});

describe('what real QEMU does when a buffer is not mapped', () => {
  test('the data buffer alone: success is reported and nothing is written', () => {
    const { memory, blk, submit, used } = bench();
    header(memory, VIRTIO_BLK_T_IN, 0);
    submit([
      [HEADER, 16, false],
      [2 ** 30, 4096, true],
      [STATUS, 1, true],
    ]);
    expect(memory.readU8(STATUS)).toBe(VIRTIO_BLK_S_OK);
    expect(used()).toEqual({ idx: 1, len: 4097 });
    expect(blk.mapper.bytesLost).toBe(4096);
    expect(blk.core.errors).toEqual([]);
  });

  test('the header alone: it reads as zeros, so sector 0 is returned', () => {
    const { memory, submit } = bench();
    submit([
      [2 ** 30, 16, false],
      [DATA, 512, true],
      [STATUS, 1, true],
    ]);
    expect(memory.readU8(DATA)).toBe(1);
    expect(memory.readU8(STATUS)).toBe(VIRTIO_BLK_S_OK);
  });

  test('the status byte alone: the data is right, the status keeps its old value', () => {
    const { memory, submit, used } = bench();
    header(memory, VIRTIO_BLK_T_IN, 1);
    submit([
      [HEADER, 16, false],
      [DATA, 512, true],
      [2 ** 30, 1, true],
    ]);
    expect(memory.readU8(DATA)).toBe(2);
    expect(memory.readU8(STATUS)).toBe(UNTOUCHED);
    expect(used().idx).toBe(1);
  });

  test('data and status both: the device breaks', () => {
    const { memory, blk, submit, used } = bench();
    header(memory, VIRTIO_BLK_T_IN, 0);
    submit([
      [HEADER, 16, false],
      [2 ** 30, 4096, true],
      [2 ** 29, 1, true],
    ]);
    expect(blk.core.errors).toEqual(['virtio: bogus descriptor or out of resources']);
    expect(blk.core.status).toBe(0x4f);
    expect(used().idx).toBe(0);
  });
});

describe('the address space', () => {
  const offset = (memory: GuestMemory) =>
    createRangesSpace(memory, [{ cpuStart: 0, dmaStart: 0x8000_0000n, size: 2 ** 20 }]);

  test('flag off: system memory, whatever the bus has', () => {
    const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 20 }] });
    const systemMemory = createSystemMemorySpace(memory);
    const transportSpace = offset(memory);
    expect(chooseDmaSpace({ iommuPlatform: false, systemMemory, transportSpace }).space).toBe(
      systemMemory,
    );
    expect(chooseDmaSpace({ iommuPlatform: true, systemMemory, transportSpace }).space).toBe(
      transportSpace,
    );
    expect(chooseDmaSpace({ iommuPlatform: true, systemMemory }).space).toBe(systemMemory);
  });

  test('flag on: a driver that does not take it is refused', () => {
    const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 20 }] });
    const systemMemory = createSystemMemorySpace(memory);
    const backend = createMemoryBackend(new Uint8Array(512));
    const blk = new VirtioBlk({
      backend,
      memory,
      systemMemory,
      busSpace: offset(memory),
      iommuPlatform: true,
    });
    const result = negotiateFeatures(direct(blk.core), { supported: 1n << 32n });
    expect(result).toMatchObject({
      ok: false,
      message: expect.stringContaining('device refuses features'),
    });
    expect(blk.core.status & VIRTIO_CONFIG_S_FEATURES_OK).toBe(0);
  });

  test('it offers what QEMU 7.2 offers [device-6.2-2]', () => {
    const { blk } = bench();
    expect(blk.core.modernFeatures).toBe(0x101_3000_6e54n);
    expect(
      bench({ space: (memory) => createSystemMemorySpace(memory) }).blk.core.modernFeatures,
    ).toBe(0x103_3000_6e54n);
  });
});

test.each([0, 511, 513])('a disk of %i bytes is refused', (size) => {
  expect(() => createMemoryBackend(new Uint8Array(size))).toThrow(/multiple of 512 bytes/);
});
