/** Scatter lists, bounce buffers in detail, limits of direct DMA, secure guests. */
import { createRng, NO_TRACE } from '@pinhole/base';
import {
  createUltravisor,
  H_PUT_TCE,
  H_PUT_TCE_INDIRECT,
  type Hypercalls,
  SpaprMachine,
} from '@pinhole/hcall';
import { createGuestMemory, DmaDirection, HypervisorView, PageOwnership } from '@pinhole/memory';
import { describe, expect, test } from 'vitest';
import {
  createDirectDmaOps,
  DmaDispatch,
  dmaBitMask,
  findKernelProfile,
  GuestPages,
  IommuTable,
  iommuMapSg,
  iommuUnmapSg,
  type KernelProfile,
  PseriesDma,
  parseKernelCommandLine,
  Swiotlb,
  swiotlbPool,
  TceCalls,
} from '../src/index.js';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const memory = createGuestMemory({ regions: [{ base: 0, size: 2 * GIB }] });
const kernelOf = (id: string) => findKernelProfile(id) as KernelProfile;

describe('map_sg', () => {
  function setUp(size = 262_144, answer: Hypercalls['call'] = () => ({ ret: 0, out: [] })) {
    const calls: number[] = [];
    const tceCalls = new TceCalls({
      hypercalls: {
        call(opcode, args) {
          calls.push(opcode);
          return answer(opcode, args);
        },
      },
      memory,
      listPage: 0,
      usePutIndirect: true,
      useStuff: true,
      tracer: NO_TRACE,
    });
    const table = new IommuTable({ liobn: 1, busOffset: 0n, size, pageShift: 12 });
    return { table, tceCalls, guestPageSize: 4096, cpu: 0, calls };
  }
  const page = (n: number, pages = 1) => ({ gpa: n * 4096, length: pages * 4096 });
  const list = [page(100), page(300), page(200)];

  test('pages that lie apart in memory become one segment, with a hypercall for each', () => {
    const options = setUp();
    const segments = iommuMapSg(options, list, DmaDirection.FROM_DEVICE);
    expect(segments).toEqual([{ address: 0x1000n, length: 3 * 4096 }]);
    expect(options.calls).toEqual([H_PUT_TCE, H_PUT_TCE, H_PUT_TCE]);
    iommuUnmapSg(options, segments ?? []);
    expect(options.table.inUse).toBe(0);
    // One segment, one call to clear it.
    expect(options.calls).toHaveLength(4);
  });

  test('iommu=novmerge: each by itself, at the same addresses', () => {
    const segments = iommuMapSg({ ...setUp(), novmerge: true }, list, DmaDirection.FROM_DEVICE);
    expect(segments?.map(({ address }) => address)).toEqual([0x1000n, 0x2000n, 0x3000n]);
  });

  test('a segment ends at the largest size; an element that ends inside a page ends it too', () => {
    const options = { ...setUp(), maxSegSize: 8192 };
    expect(iommuMapSg(options, list, 2)?.map(({ length }) => length)).toEqual([8192, 4096]);
    const ragged = [{ gpa: 0x5000, length: 100 }, page(7)];
    expect(iommuMapSg(setUp(), ragged, 2)?.map(({ length }) => length)).toEqual([100, 4096]);
  });

  test('no room for the last: all is given back', () => {
    // 190 usable entries in the small pool, 63 in the large.
    const options = setUp(256);
    expect(iommuMapSg(options, [page(0, 15), page(50, 15), page(100, 300)], 2)).toBeUndefined();
    expect(options.table.inUse).toBe(0);
  });

  test('the hypervisor has no room for the last: its own entries stay taken, as in the kernel', () => {
    let left = 1;
    const options = setUp(262_144, (opcode) => {
      const fails = opcode === H_PUT_TCE && left-- <= 0;
      return { ret: fails ? -44 : 0, out: [] };
    });
    expect(iommuMapSg(options, [page(1), page(9)], 2)).toBeUndefined();
    expect(options.table.inUse).toBe(1);
  });
});

describe('swiotlb', () => {
  const base = GIB;
  const create = (options: Partial<ConstructorParameters<typeof Swiotlb>[0]> = {}) =>
    new Swiotlb({ memory, base, size: MIB, pageSize: 4096, cpus: 1, ...options });

  test('alignment bits come back in the bounce address, and take from the largest mapping', () => {
    const pool = create({ minAlignMask: 4095 });
    expect(pool.map(0x12345, 100, 0) % 4096).toBe(0x345);
    expect(pool.map(0x12a10, 100, 0) % 4096).toBe(0xa10);
    expect(pool.maxMappingSize).toBe(252 * 1024);
    expect(create().maxMappingSize).toBe(256 * 1024);
    expect(create().map(0x12345, 100, 0) % 2048).toBe(0);
  });

  test('a sync copies a part, in the direction that it is for', () => {
    const pool = create();
    memory.fill(0x8000, 8192, 1);
    const bounce = pool.map(0x8000, 8192, 0);
    memory.fill(bounce, 8192, 2);
    pool.syncForCpu(bounce + 4096, 512, DmaDirection.FROM_DEVICE);
    expect([memory.readU8(0x8000), memory.readU8(0x9000), memory.readU8(0x9200)]).toEqual([
      1, 2, 1,
    ]);
    memory.fill(0x8000, 8192, 3);
    pool.syncForDevice(bounce, 4, DmaDirection.FROM_DEVICE);
    expect(memory.readU8(bounce)).toBe(2);
    pool.syncForDevice(bounce, 4, DmaDirection.BIDIRECTIONAL);
    expect(memory.readU8(bounce)).toBe(3);
  });

  test("a copy beyond the mapping is cut, in the kernel's words", () => {
    const messages: string[] = [];
    const pool = create({ onOverflow: (message) => messages.push(message) });
    const bounce = pool.map(0x8000, 3000, 0);
    memory.fill(0x8000, 4096, 0);
    memory.fill(bounce, 4096, 5);
    pool.syncForCpu(bounce + 2048, 2048, DmaDirection.FROM_DEVICE);
    expect(messages).toEqual([
      'Buffer overflow detected. Allocation size: 952. Mapping size: 2048.',
    ]);
    expect([memory.readU8(0x8bb7), memory.readU8(0x8bb8)]).toEqual([5, 0]);
  });

  test('areas: a CPU begins in its own and goes on to the next', () => {
    const pool = create({ cpus: 3 });
    // Four areas of 128 slots.
    expect((pool.map(0, 256 * 1024, 1) - base) / (256 * 1024)).toBe(1);
    expect((pool.map(0, 2048, 1) - base) / (256 * 1024)).toBe(2);
    expect((pool.map(0, 2048, 3) - base) / (256 * 1024)).toBe(3);
  });

  test.each([
    ['', 1, 64 * MIB, 1],
    ['swiotlb=128', 4, MIB, 4],
    ['swiotlb=384', 1, MIB, 1],
    ['swiotlb=512,2', 1, MIB, 2],
  ])('%s on %i CPUs: %i bytes in %i areas', (line, cpus, bytes, areas) => {
    expect(swiotlbPool(parseKernelCommandLine(line).swiotlb, cpus)).toEqual({ bytes, areas });
  });
});

describe('dma-direct within limits', () => {
  const pages = new GuestPages({
    pageSize: 4096,
    kernel: { base: 0, size: 2 ** 28 },
    user: { base: GIB, size: GIB },
    rng: createRng(1),
  });
  const limits = () => {
    const dispatch = new DmaDispatch({
      rule: kernelOf('linux-6.1').dispatch,
      endOfMemory: 2 * GIB,
      hasOps: false,
    });
    dispatch.streamingMask = dmaBitMask(30);
    return dispatch;
  };
  const ranges = [{ cpuStart: 0, dmaStart: 0n, size: 2 * GIB }];

  test("beyond the mask without a pool: an error, said once, in the kernel's words", () => {
    const messages: string[] = [];
    const onOverflow = (message: string) => messages.push(message);
    const ops = createDirectDmaOps({
      memory,
      pages,
      ranges,
      limits: limits(),
      onOverflow,
      cpu: () => 0,
    });
    const out = { hi: 0, lo: 0 };
    expect(ops.map(GIB - 512, 512, 1, out)).toBe(true);
    expect(ops.map(GIB - 511, 512, 1, out)).toBe(false);
    expect(ops.map(GIB, 512, 1, out)).toBe(false);
    expect(messages).toEqual([
      'DMA addr 0x000000003ffffe01+512 overflow (mask 3fffffff, bus limit 0).',
    ]);
  });

  test('with a pool: it bounces, and only then', () => {
    const bounce = new Swiotlb({ memory, base: 2 ** 29, size: MIB, pageSize: 4096, cpus: 1 });
    const ops = createDirectDmaOps({
      memory,
      pages,
      ranges,
      limits: limits(),
      bounce,
      cpu: () => 0,
    });
    const out = { hi: 0, lo: 0 };
    expect(ops.map(GIB, 512, 1, out)).toBe(true);
    expect(bounce.contains(out.lo)).toBe(true);
    ops.unmap(out.hi, out.lo, 512, 1);
    expect(bounce.slotsUsed).toBe(0);
    ops.map(0x1000, 512, 1, out);
    expect(out.lo).toBe(0x1000);
  });
});

describe('a secure guest', () => {
  function boot(id: string, ddw: boolean) {
    const kernel = kernelOf(id);
    const guestMemory = createGuestMemory({ regions: [{ base: 0, size: 2 * GIB }] });
    const ownership = new PageOwnership({ pageSize: kernel.pageSize });
    const view = new HypervisorView(guestMemory, ownership);
    const machine = new SpaprMachine({ memory: view, phbs: [{ ddw }] });
    const dma = new PseriesDma({
      kernel,
      memory: guestMemory,
      pages: new GuestPages({
        pageSize: kernel.pageSize,
        kernel: { base: 2 ** 24, size: 2 ** 28 },
        user: { base: GIB, size: GIB },
        rng: createRng(1),
      }),
      hypercalls: machine.hypercalls,
      ultracalls: createUltravisor({ memory: guestMemory, ownership }),
      hasMultiTce: true,
      cpus: 2,
      phb: {
        buid: machine.iommu.phbs[0]?.buid ?? 0n,
        dmaWindow: { liobn: 0x8000_0000, busOffset: 0n, size: GIB },
        ...(ddw
          ? { ddwApplicable: [0x2026, 0x2027, 0x2028] as const, ddwExtensions: [0x2029, 1] }
          : {}),
        lrdrMaxAddress: 0,
      },
    });
    const device = dma.probe();
    return { dma, device, machine, view, guestMemory, ownership };
  }

  test('the second window is filled by single PUTs: 128 for 2 GiB in pages of 16 MiB', () => {
    const { machine, device } = boot('linux-6.1', true);
    expect(machine.hypercalls.counts.get(H_PUT_TCE)).toBe(128);
    expect(machine.hypercalls.counts.get(H_PUT_TCE_INDIRECT)).toBeUndefined();
    expect(device.isBounced).toBe(true);
  });

  test('the hypervisor sees the bounce pool and no buffer', () => {
    const { device, view, guestMemory, dma, ownership } = boot('linux-6.1', true);
    guestMemory.fill(GIB, 512, 0x5a);
    const out = { hi: 0, lo: 0 };
    expect(device.ops.map(GIB, 512, DmaDirection.TO_DEVICE, out)).toBe(true);
    expect(dma.swiotlb?.contains(out.lo)).toBe(true);
    expect(view.readU8(out.lo)).toBe(0x5a);
    expect(view.readU8(GIB)).not.toBe(0x5a);
    // The pool and the RTAS buffer.
    expect(ownership.sharedBytes).toBe(64 * MIB + 65536);
    const ring = device.ops.allocCoherent(8192, out) ?? -1;
    expect(ownership.sharedBytesWithin(ring, 65536)).toBe(65536);
  });

  test('without a second window it is broken: entries map private pages [DERIVED]', () => {
    const { device, view, guestMemory, machine } = boot('linux-6.1', false);
    guestMemory.fill(GIB, 512, 0x5a);
    const out = { hi: 0, lo: 0 };
    expect(device.ops.map(GIB, 512, DmaDirection.TO_DEVICE, out)).toBe(true);
    expect(device.isBounced).toBe(false);
    // The entry is there, and leads to what the hypervisor cannot read.
    expect(machine.iommu.phbs[0]?.tables[0]?.live).toBe(1);
    expect(view.readU8(GIB)).not.toBe(0x5a);
  });

  test('5.4 leaves PCI devices without DMA operations: bounced, at physical addresses', () => {
    const { device, dma } = boot('linux-5.4', true);
    const out = { hi: 0, lo: 0 };
    expect(device.ops.map(GIB, 512, DmaDirection.TO_DEVICE, out)).toBe(true);
    expect(out.hi).toBe(0);
    expect(dma.swiotlb?.contains(out.lo)).toBe(true);
    expect(device.because).toContain('which no window maps');
  });
});
