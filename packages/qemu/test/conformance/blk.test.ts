/** What the specification asks of a block device, where no other test shows it. */
import { createGuestMemory, createSystemMemorySpace } from '@pinhole/memory';
import {
  createDriverQueue,
  createPciLegacyTransport,
  createVirtioPci,
  negotiateFeatures,
  setDriverOk,
  VIRTIO_BLK_F_CONFIG_WCE,
  VIRTIO_BLK_F_FLUSH,
} from '@pinhole/virtio';
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

test.each([
  ['little-endian', false],
  ['big-endian', true],
])(
  'through the legacy interface the fields of a request are in the byte order of a %s guest [device-5.2.6.3-1]',
  (_, isBigEndian) => {
    const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 22 }] });
    const disk = new Uint8Array(8 * 512);
    disk.fill(0xab, 5 * 512, 6 * 512);
    const blk = new VirtioBlk({
      backend: createMemoryBackend(disk),
      memory,
      systemMemory: createSystemMemorySpace(memory),
      iommuPlatform: false,
    });
    const fn = createVirtioPci({ device: blk.core, mode: 'legacy', isBigEndianGuest: isBigEndian });
    const result = createPciLegacyTransport(fn);
    if (!result.ok) throw new Error(result.message);
    const { transport } = result;
    negotiateFeatures(transport, { supported: 0n, allowsLegacy: true });
    let next = 0x10_0000;
    const allocate = (length: number): number => {
      const gpa = next;
      next += Math.ceil(length / 4096) * 4096;
      return gpa;
    };
    const queue = createDriverQueue<null>({
      memory,
      dma: {
        name: 'physical',
        maxMappingSize: Number.MAX_SAFE_INTEGER,
        map(gpa, _length, _direction, out): boolean {
          out.hi = 0;
          out.lo = gpa;
          return true;
        },
        unmap(): void {},
        allocCoherent(length, out): number {
          const gpa = allocate(length);
          out.hi = 0;
          out.lo = gpa;
          return gpa;
        },
        freeCoherent(): void {},
      },
      tables: { allocate, free: () => {} },
      size: transport.queueMaxSize(0),
      layoutAlign: 4096,
      mayReduceSize: false,
      hasIndirect: false,
      hasEventIdx: false,
      isBigEndian,
      notify: () => transport.notifyQueue(0),
    })!;
    transport.setupQueue(0, queue.setup);
    setDriverOk(transport);
    // struct virtio_blk_outhdr: type IN, ioprio, sector 5.
    const header = new DataView(new ArrayBuffer(16));
    header.setUint32(0, 0, !isBigEndian);
    header.setBigUint64(8, 5n, !isBigEndian);
    memory.write(0x1000, new Uint8Array(header.buffer));
    memory.fill(0x2000, 513, 0xff);
    const [head, data] = [
      { gpa: 0x1000, length: 16 },
      { gpa: 0x2000, length: 513 },
    ];
    expect(queue.add([head], [data], null)).toBe('ok');
    queue.kick();
    expect(queue.getUsed()).toMatchObject({ kind: 'used', length: 513 });
    const found = new Uint8Array(513);
    memory.read(0x2000, found);
    expect([found[0], found[511], found[512]]).toEqual([0xab, 0xab, 0]);
  },
);
