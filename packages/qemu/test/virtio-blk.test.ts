/** The device side: which address space, and requests that a guest gets wrong. */
import {
  createGuestMemory,
  createRangesSpace,
  createSystemMemorySpace,
  type DmaSpace,
  type GuestMemory,
} from '@pinhole/memory';
import {
  encodeBlkHeader,
  negotiateFeatures,
  setDriverOk,
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_CONFIG_S_FEATURES_OK,
  VIRTIO_CONFIG_S_NEEDS_RESET,
} from '@pinhole/virtio';
import { describe, expect, test } from 'vitest';
import { type BlockBackend, chooseDmaSpace, createMemoryBackend, VirtioBlk } from '../src/index.js';

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
  const negotiated = negotiateFeatures(core, { supported: (1n << 32n) | (1n << 33n) });
  expect(negotiated.ok).toBe(true);
  const avail = RING + 256 * 16;
  const used = RING + 0x2000;
  core.setupQueue(0, { size: 256, desc: BigInt(RING), avail: BigInt(avail), used: BigInt(used) });
  setDriverOk(core);
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
    expect(blk.core.readStatus() & VIRTIO_CONFIG_S_NEEDS_RESET).toBe(VIRTIO_CONFIG_S_NEEDS_RESET);
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
    expect(blk.core.readStatus()).toBe(0x4f);
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
    const result = negotiateFeatures(blk.core, { supported: 1n << 32n });
    expect(result).toMatchObject({
      ok: false,
      message: expect.stringContaining('device refuses features'),
    });
    expect(blk.core.readStatus() & VIRTIO_CONFIG_S_FEATURES_OK).toBe(0);
  });

  test('it offers what QEMU 7.2 offers', () => {
    const { blk } = bench();
    expect(blk.core.readDeviceFeatures()).toBe(0x101_3000_6e54n);
    expect(
      bench({ space: (memory) => createSystemMemorySpace(memory) }).blk.core.readDeviceFeatures(),
    ).toBe(0x103_3000_6e54n);
  });
});

test.each([0, 511, 513])('a disk of %i bytes is refused', (size) => {
  expect(() => createMemoryBackend(new Uint8Array(size))).toThrow(/multiple of 512 bytes/);
});
