/** Windows that QEMU never offers: a bridge made up here answers RTAS. */
import { createRng, NO_TRACE } from '@pinhole/base';
import { createGuestMemory } from '@pinhole/memory';
import { describe, expect, test } from 'vitest';
import {
  DmaDispatch,
  DynamicDmaWindows,
  dmaBitMask,
  findKernelProfile,
  formatStep,
  GuestPages,
  IommuTable,
  type KernelProfile,
  PseriesDma,
  TceCalls,
} from '../src/index.js';

const GIB = 2 ** 30;
const QUERY = 0x10;
const CREATE = 0x11;
const REMOVE = 0x12;
const RESET = 0x13;

interface Bridge {
  readonly kernel: string;
  /** Windows left, query by query; the last stays. */
  readonly available?: readonly number[];
  /** Entries of the largest block. */
  readonly block?: number;
  readonly pageSizes?: number;
  readonly createStatus?: number;
  readonly extensions?: readonly number[];
  readonly hasPersistentMemory?: boolean;
  readonly inUse?: number;
  readonly lrdr?: number;
}

function setUp(bridge: Bridge) {
  const kernel = findKernelProfile(bridge.kernel) as KernelProfile;
  const memory = createGuestMemory({ regions: [{ base: 0, size: GIB }] });
  const calls: string[] = [];
  const hcalls: string[] = [];
  let queries = 0;
  const rtas = {
    call(token: number, args: readonly number[], nret: number): number[] {
      calls.push([token, ...args].map((cell) => cell.toString(16)).join(' '));
      if (token === QUERY) {
        const available = bridge.available ?? [1];
        const left = available[Math.min(queries, available.length - 1)] ?? 0;
        queries += 1;
        const block = bridge.block ?? 2 ** 31 - 1;
        const sizes = bridge.pageSizes ?? 7;
        return nret === 6 ? [0, left, 0, block, sizes, 0] : [0, left, block, sizes, 0];
      }
      if (token === CREATE) return [bridge.createStatus ?? 0, 0x8000_0001, 0x0800_0000, 0];
      return [0];
    },
  };
  const tceCalls = new TceCalls({
    hypercalls: {
      call(opcode, args) {
        hcalls.push([opcode, ...args].map((arg) => arg.toString(16)).join(' '));
        return { ret: 0, out: [] };
      },
    },
    memory,
    listPage: 0,
    usePutIndirect: true,
    useStuff: true,
    tracer: NO_TRACE,
  });
  const defaultTable = new IommuTable({
    liobn: 0x8000_0000,
    busOffset: 0n,
    size: 262_144,
    pageShift: 12,
  });
  if (bridge.inUse !== undefined) defaultTable.alloc(bridge.inUse, 0, 0);
  const ddw = new DynamicDmaWindows({
    phb: {
      buid: 0x0800_0000_2000_0000n,
      path: '/pci@800000020000000',
      dmaWindow: { liobn: 0x8000_0000, busOffset: 0n, size: GIB },
      ddwApplicable: [QUERY, CREATE, REMOVE],
      ddwExtensions: bridge.extensions ?? [RESET, 1],
      lrdrMaxAddress: bridge.lrdr ?? GIB,
      hasPersistentMemory: bridge.hasPersistentMemory ?? false,
      mmio32: { start: 0x0800_0000_0800_0000n, end: 0x0800_0000_1000_0000n },
    },
    kernel,
    rtas,
    tceCalls,
    memory: memory.regions,
    defaultTable,
  });
  const messages: string[] = [];
  const device = (slot = 0) => ({
    dispatch: new DmaDispatch({ rule: kernel.dispatch, endOfMemory: GIB }),
    configAddr: slot << 11,
    table: defaultTable as IommuTable | undefined,
    print: (message: string) => messages.push(message),
  });
  return { ddw, device, calls, hcalls, messages, defaultTable };
}

const ALL = dmaBitMask(64);

describe('a window smaller than memory', () => {
  // 64 KiB pages and 4,096 of them: 256 MiB for 1 GiB.
  const small = { pageSizes: 3, block: 4096 };

  test('6.1 allocates in it, and keeps 32-bit device memory free', () => {
    const { ddw, device, hcalls } = setUp({ kernel: 'linux-6.1', ...small });
    const first = device();
    const { isDirect, steps } = ddw.enable(first, ALL);
    expect(isDirect).toBe(false);
    expect(steps.map(formatStep).join('\n')).toContain('no: 2^28 bytes of 2^30');
    expect(first.table).toMatchObject({ liobn: 0x8000_0001, size: 4096, pageShift: 16 });
    expect(first.dispatch.dmaOffset).toBe(0x0800_0000_0000_0000n);
    // Eight calls clear it.
    expect(hcalls).toHaveLength(8);
    const table = first.table as IommuTable;
    const given = new Set<number>();
    for (let at = table.alloc(1, 0, 0); at >= 0; at = table.alloc(1, 0, 0)) given.add(at);
    for (let at = 0x800; at < 0x1000; at += 1) expect(given.has(at)).toBe(false);
    expect(given.size).toBeGreaterThan(2000);
  });

  test('the second device finds it and stays in the default window', () => {
    const { ddw, device, defaultTable } = setUp({ kernel: 'linux-6.1', ...small });
    ddw.enable(device(), ALL);
    const second = device(1);
    expect(ddw.enable(second, ALL).isDirect).toBe(false);
    expect(second.table).toBe(defaultTable);
  });

  test('5.10 does without, and does not ask again', () => {
    const { ddw, device, calls } = setUp({ kernel: 'linux-5.10', ...small });
    expect(ddw.enable(device(), ALL).isDirect).toBe(false);
    expect(ddw.enable(device(), ALL).isDirect).toBe(false);
    expect(calls).toEqual(['10 0 8000000 20000000']);
  });

  test('6.1 takes a found window of the size of memory for direct, even one it allocates in; 6.12 kept the answer', () => {
    // A window as large as memory, made after the default one was removed, with persistent memory.
    const bridge = { available: [0, 1], hasPersistentMemory: true, pageSizes: 2, block: 2 ** 14 };
    const old = setUp({ kernel: 'linux-6.1', ...bridge });
    expect(old.ddw.enable(old.device(), ALL).isDirect).toBe(false);
    expect(old.ddw.enable(old.device(1), ALL).isDirect).toBe(true);
    const later = setUp({ kernel: 'linux-6.12', ...bridge });
    expect(later.ddw.enable(later.device(), ALL).isDirect).toBe(false);
    expect(later.ddw.enable(later.device(1), ALL).isDirect).toBe(false);
  });
});

describe('no window left', () => {
  const full = { available: [0, 1], pageSizes: 4 };

  test('the default window makes room', () => {
    const { ddw, device, calls, messages } = setUp({ kernel: 'linux-6.1', ...full });
    const first = device();
    expect(ddw.enable(first, ALL).isDirect).toBe(true);
    expect(calls.map((call) => call.split(' ')[0])).toEqual(['10', '12', '10', '11']);
    expect(calls[1]).toBe('12 80000000');
    expect(messages.at(-1)).toBe('Removed default DMA window for /pci@800000020000000');
    expect(first.table).toBeUndefined();
    expect(ddw.isDefaultRemoved).toBe(true);
  });

  test('not while it is in use', () => {
    const { ddw, device, calls, messages } = setUp({ kernel: 'linux-6.1', ...full, inUse: 1 });
    expect(ddw.enable(device(), ALL).isDirect).toBe(false);
    expect(messages).toContain("current IOMMU table in use, can't be replaced.");
    expect(calls).toHaveLength(1);
  });

  test('what fails afterwards brings it back', () => {
    const { ddw, device, calls } = setUp({ kernel: 'linux-6.12', ...full, createStatus: -1 });
    const { steps } = ddw.enable(device(), ALL);
    expect(calls.at(-1)).toBe('13 0 8000000 20000000');
    expect(steps.map(formatStep).join('\n')).toContain('bring the default window back');
    expect(ddw.isDefaultRemoved).toBe(false);
  });

  test('4.18 does not try', () => {
    const { ddw, device, calls } = setUp({ kernel: 'linux-4.18', ...full });
    expect(ddw.enable(device(), ALL).isDirect).toBe(false);
    expect(calls).toHaveLength(1);
  });
});

describe('persistent memory', () => {
  test('6.1 limits direct DMA to memory when the window cannot hold both', () => {
    const { ddw, device, messages } = setUp({
      kernel: 'linux-6.1',
      hasPersistentMemory: true,
      pageSizes: 4,
      block: 1024,
    });
    const first = device();
    expect(ddw.enable(first, ALL).isDirect).toBe(true);
    expect(messages).toContain('Skipping ibm,pmemory');
    expect(first.dispatch.busDmaLimit).toBe(0x0800_0000_4000_0000n);
    expect(first.dispatch.mapsDirect(GIB)).toBe(true);
    expect(first.dispatch.mapsDirect(GIB + 1)).toBe(false);
  });

  test('6.12 splits one large window: memory for good, the rest as needed', () => {
    const { ddw, device } = setUp({
      kernel: 'linux-6.12',
      hasPersistentMemory: true,
      available: [0, 1],
      pageSizes: 4,
      block: 2 ** 12,
    });
    const first = device();
    expect(ddw.enable(first, ALL).isDirect).toBe(true);
    expect(first.table).toMatchObject({ busOffset: 0x0800_0000_4000_0000n, size: 4096 - 64 });
    expect(first.dispatch.busDmaLimit).toBe(0x0800_0000_4000_0000n);
  });
});

describe('limited-address mode', () => {
  test('a mask of 40 bits puts the bridge into it, and caps the window', () => {
    const bridge = { kernel: 'linux-6.12', extensions: [RESET, 1, 1], pageSizes: 4 };
    const { ddw, device, calls, messages } = setUp(bridge);
    expect(ddw.enable(device(), dmaBitMask(40)).isDirect).toBe(true);
    expect(calls[1]).toBe('13 0 8000000 20000000 1');
    expect(messages.at(-1)).toBe('lsa_required: 1, lsa_enabled: 1, direct mapping: 1');
  });

  test('memory of 2^41 bytes does not fit below a mask of 40', () => {
    const { ddw, device, calls } = setUp({
      kernel: 'linux-6.12',
      extensions: [RESET, 1, 1],
      pageSizes: 4,
      lrdr: 2 ** 41,
    });
    expect(ddw.enable(device(), dmaBitMask(40)).isDirect).toBe(false);
    expect(calls.at(-1)).toBe('11 0 8000000 20000000 18 28');
  });

  test('a bridge that has it switched off says so with another error', () => {
    const { ddw, device, messages } = setUp({ kernel: 'linux-6.12', extensions: [RESET, 1, 0] });
    ddw.enable(device(), dmaBitMask(40));
    expect(messages).toContain('Limited Address Space for DDW not Supported, err: -71');
  });
});

test('the largest page that the kernel knows: 4.18 knows no 2 MiB', () => {
  const created = (kernel: string) => {
    const { ddw, device, calls } = setUp({ kernel, pageSizes: 0x103 });
    ddw.enable(device(), ALL);
    return calls.at(-1);
  };
  expect(created('linux-6.1')).toContain(' 15 1e');
  expect(created('linux-4.18')).toContain(' 10 1e');
});

test('a slot with bus and function is in the calls', () => {
  const kernel = findKernelProfile('linux-6.1') as KernelProfile;
  const memory = createGuestMemory({ regions: [{ base: 0, size: GIB }] });
  const dma = new PseriesDma({
    kernel,
    memory,
    pages: new GuestPages({
      pageSize: 65536,
      kernel: { base: 2 ** 24, size: 2 ** 28 },
      user: { base: GIB / 2, size: GIB / 2 },
      rng: createRng(1),
    }),
    hypercalls: { call: () => ({ ret: 0, out: [] }) },
    hasMultiTce: true,
    cpus: 1,
    phb: {
      buid: 0x0800_0000_2000_0000n,
      dmaWindow: { liobn: 1, busOffset: 0n, size: GIB },
      ddwApplicable: [QUERY, CREATE, REMOVE],
      lrdrMaxAddress: 0,
    },
  });
  dma.probe({ slot: '0000:01:03.2' });
  expect(dma.log.join('\n')).toContain('0000:01:03.2: ibm,query-pe-dma-windows(10) 11a00 8000000');
});
