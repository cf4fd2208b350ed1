/** Each finding of a replay, from a few lines of the two files. */
import { readFtrace, readQemuLog } from '@pinhole/trace';
import { describe, expect, test } from 'vitest';
import {
  ConsoleDigest,
  createRunReplay,
  inferRun,
  type ReplayReport,
  RunScout,
  reportRun,
} from '../src/index.js';

const LIOBN = 'liobn=0x80000000';
const NEW_TABLE = `spapr_iommu_new_table ${LIOBN} table=0x5562 fd=-1`;
// A kernel clears its window of 1 MiB.
const CLEAR = `spapr_iommu_pci_stuff ${LIOBN} ioba=0x100000 tcevalue=0x0 npages=256 ret=0`;
const put = (ioba: string, tce: string, ret = 0) =>
  `spapr_iommu_pci_put ${LIOBN} ioba=${ioba} tce=${tce} ret=${ret}`;
const stuff = (end: string, npages = 1) =>
  `spapr_iommu_pci_stuff ${LIOBN} ioba=${end} tcevalue=0x0 npages=${npages} ret=0`;
const xlate = (ioba: string, tce: string, perm: number) =>
  `spapr_iommu_xlate ${LIOBN} ${ioba} -> ${tce} perm=${perm} mask=0xfff`;

/** Events of the guest, a microsecond apart. */
function trace(...events: readonly string[]): string {
  const lines = events.map(
    (event, i) =>
      `          dd-1       [000] d....     1.${String(i).padStart(6, '0')}: ${event}\n`,
  );
  return lines.join('');
}
const call = (opcode: number) => [
  `hcall_entry: opcode=${opcode}`,
  `hcall_exit: opcode=${opcode} retval=0`,
];
const map = (dma: string, phys: string, dir = 'FROM_DEVICE', size = 4096) =>
  `dma_map_page: 0000:00:00.0 dir=${dir} dma_addr=${dma} size=${size} phys_addr=${phys} attrs=`;
const unmap = (dma: string, dir = 'FROM_DEVICE', size = 4096) =>
  `dma_unmap_page: 0000:00:00.0 dir=${dir} dma_addr=${dma} size=${size} attrs=`;
const MAPPED = [...call(32), map('1000', '5000')];

function replay(log: readonly string[], guest: string, kernel = 'linux-6.12'): ReplayReport {
  const scout = new RunScout();
  const qemu = readQemuLog(`${log.join('\n')}\n`).events;
  const guestEvents = readFtrace(guest).events;
  guestEvents.forEach((event, i) => {
    scout.guestEvent(event, i + 1);
  });
  qemu.forEach((event, i) => {
    scout.qemuEvent(event, i + 1);
  });
  const facts = scout.facts();
  const console = new ConsoleDigest();
  const inference = inferRun(facts, console, kernel);
  const run = createRunReplay({ facts, inference, dmaWindowSize: 2 ** 20 });
  qemu.forEach((event, i) => {
    run.qemuEvent(event, i + 1);
  });
  run.endQemu();
  guestEvents.forEach((event, i) => {
    run.guestEvent(event, i + 1);
  });
  run.endGuest();
  return reportRun({ facts, inference, console, replay: run });
}

const codes = ({ findings }: ReplayReport): string[] => findings.map(({ code }) => code);

describe('a healthy run', () => {
  const log = [NEW_TABLE, CLEAR, put('0x1000', '0x5003'), xlate('0x1000', '0x5000', 3)];
  const report = replay([...log, stuff('0x2000')], trace(...MAPPED, ...call(312), unmap('1000')));

  test('has no findings and no mismatches', () => {
    expect(codes(report)).toEqual([]);
    expect(report.guest).toMatchObject({
      maps: 1,
      unmaps: 1,
      hcallsPredicted: 2,
      hcallMismatches: 0,
      dmaAddressMismatches: 0,
    });
    expect(report.hypervisor).toMatchObject({ hcallMismatches: 0, translationMismatches: 0 });
  });

  test('its window was seen as the kernel cleared it', () => {
    expect(report.inferred.windows).toMatchObject([{ tces: 256, live: 0, peak: 1 }]);
  });
});

test('E_DMA_FAULT: a translation that is denied, with what QEMU makes of it', () => {
  const log = [NEW_TABLE, CLEAR, put('0x1000', '0x5003'), xlate('0x7000', '0x0', 0)];
  const [found] = replay(log, trace(...MAPPED)).findings;
  expect(found).toMatchObject({ code: 'E_DMA_FAULT', severity: 'error', count: 1 });
  expect(found?.evidence.first).toMatchObject({ qemuLine: 4 });
  expect(found?.remedy).toMatch(/NEEDS_RESET/);
});

test('E_ACCESS_OUTSIDE: the page is mapped, the byte is of no buffer', () => {
  const guest = trace(...call(32), map('1100', '5100', 'FROM_DEVICE', 256));
  const withAccess = (ioba: string) =>
    replay([NEW_TABLE, CLEAR, put('0x1000', '0x5003'), xlate(ioba, '0x5000', 3)], guest);
  expect(codes(withAccess('0x1100'))).toEqual([]);
  expect(codes(withAccess('0x11ff'))).toEqual([]);
  expect(codes(withAccess('0x1200'))).toEqual(['E_ACCESS_OUTSIDE']);
  const [found] = withAccess('0x10ff').findings;
  expect(found).toMatchObject({ code: 'E_ACCESS_OUTSIDE', severity: 'error', count: 1 });
  expect(found?.evidence.first).toMatchObject({ qemuLine: 4, guestLine: 3 });
  expect(found?.summary).toContain('0x10ff');
});

test('a hypercall inside of a traced one is not in the trace, and not missed', () => {
  const log = [
    NEW_TABLE,
    CLEAR,
    put('0x1000', '0x5003'),
    stuff('0x2000'),
    put('0x10000', '0x6003'),
  ];
  const other = (text: string): string => text.replace(' d.... ', ' d.h.. ');
  const lines = trace(
    ...MAPPED,
    'hcall_entry: opcode=32',
    unmap('1000'),
    'hcall_exit: opcode=32 retval=0',
    map('10000', '6000'),
  ).split('\n');
  const inside = lines.map((text, i) => (i === 4 ? other(text) : text)).join('\n');
  expect(replay(log, inside).guest).toMatchObject({
    hcallsPredicted: 3,
    hcallsUntraced: 1,
    hcallMismatches: 0,
    dmaAddressMismatches: 0,
  });
  // A task's are missing.
  const [first, second, third, entry, nested, exit, ...rest] = lines;
  const after = [first, second, third, nested, entry, exit, ...rest].join('\n');
  const { guest } = replay(log, after);
  expect(guest?.hcallMismatches).toBe(1);
  expect(guest?.mismatches[0]).toMatchObject({ what: 'hypercall', recorded: 'none in the trace' });
});

test('E_TCE_WIDER: a buffer for the device to read is left writable', () => {
  const guest = trace(...call(32), map('1000', '5000', 'TO_DEVICE'));
  const report = replay([NEW_TABLE, CLEAR, put('0x1000', '0x5003')], guest);
  // The model says so, too: Linux maps it with 0x5001.
  expect(report.guest?.hcallMismatches).toBe(1);
  const right = replay([NEW_TABLE, CLEAR, put('0x1000', '0x5001')], guest);
  expect(codes(right)).toEqual([]);
  expect(right.guest?.hcallMismatches).toBe(0);
});

test('E_DOUBLE_MAP: an entry that is in use is mapped again', () => {
  const log = [NEW_TABLE, CLEAR, put('0x1000', '0x5003'), put('0x1000', '0x6003')];
  const report = replay(log, trace(...MAPPED));
  const found = report.findings.find(({ code }) => code === 'E_DOUBLE_MAP');
  expect(found).toMatchObject({ count: 1 });
  expect(found?.evidence.first).toMatchObject({ qemuLine: 4 });
  expect(found?.summary).toContain('line 3');
});

test('E_HCALL_FAILED: the guest goes on as if it had its mapping', () => {
  const log = [NEW_TABLE, CLEAR, put('0x1000', '0x5003', -4)];
  const guest = trace(
    'hcall_entry: opcode=32',
    `hcall_exit: opcode=32 retval=${2n ** 64n - 4n}`,
    map('1000', '5000'),
  );
  const report = replay(log, guest);
  expect(codes(report)).toContain('E_HCALL_FAILED');
});

describe('7.2 with its second window lost', () => {
  const QUERY =
    'spapr_iommu_ddw_query buid=0x800000020000000 addr=0x0, 1 windows available, max window size=0x80000000, mask=0x107';
  const events = [
    ...MAPPED.map((event) => event.replace('dma_map_page', 'dma_map_phys')),
    unmap('1000').replace('dma_unmap_page', 'dma_unmap_phys'),
    ...call(32),
    map('10000', '6000').replace('dma_map_page', 'dma_map_phys'),
  ];
  const log = [
    NEW_TABLE,
    CLEAR,
    QUERY,
    QUERY,
    put('0x1000', '0x5003'),
    xlate('0x1000', '0x5000', 3),
  ];
  const second = put('0x10000', '0x6003');

  test('E_TCE_LEAK with a forecast, and W_DDW_LOST', () => {
    const report = replay([...log, second], trace(...events), 'linux-7.2');
    expect(codes(report)).toEqual(['E_TCE_LEAK', 'W_DDW_LOST']);
    const [leak] = report.findings;
    expect(leak?.evidence.first).toMatchObject({ qemuLine: 5, guestLine: 4 });
    // 256 entries; entry 0 and the last of each of the two pools are never handed out.
    expect(leak?.forecast).toMatchObject({ windowTces: 256, tcesInUse: 2, tcesWhenFull: 253 });
  });

  test('E_STALE_ACCESS: the device goes on with a buffer that its driver has back', () => {
    const stale = xlate('0x1000', '0x5000', 3);
    const report = replay([...log, second, stale], trace(...events), 'linux-7.2');
    const found = report.findings.find(({ code }) => code === 'E_STALE_ACCESS');
    expect(found).toMatchObject({ severity: 'error', count: 1 });
    expect(found?.evidence.first).toMatchObject({ qemuLine: 8, guestLine: 4 });
  });

  test('a kernel that unmaps would have made another hypercall: that is a mismatch', () => {
    const report = replay([...log, second], trace(...events), 'linux-6.12');
    expect(report.guest?.hcallMismatches).toBeGreaterThan(0);
  });
});

describe('a window that is too small', () => {
  const FAILED = 'ffffffffffffffff';
  const big = (phys: string) => map(FAILED, phys, 'FROM_DEVICE', 192 * 4096);

  test('E_WINDOW_FRAGMENTED: what not even an empty window can hold is asked for in vain', () => {
    const report = replay(
      [NEW_TABLE, CLEAR, put('0x1000', '0x5003')],
      trace(...MAPPED, big('100000')),
    );
    const [found] = report.findings;
    expect(found).toMatchObject({ code: 'E_WINDOW_FRAGMENTED', count: 1 });
    expect(found?.summary).toContain('not even an empty window');
    // The model's allocator fails there, too.
    expect(report.guest).toMatchObject({ failedMaps: 1, dmaAddressMismatches: 0 });
  });

  test('a failure where there is room is a mismatch', () => {
    const report = replay(
      [NEW_TABLE, CLEAR, put('0x1000', '0x5003')],
      trace(...MAPPED, map(FAILED, '9000')),
    );
    expect(report.guest?.dmaAddressMismatches).toBe(1);
  });
});

test('I_FIRMWARE_MAPPINGS: what firmware left when the kernel cleared the window', () => {
  const log = [NEW_TABLE, put('0x3000', '0x7003'), CLEAR, put('0x1000', '0x5003')];
  const [found] = replay(log, trace(...MAPPED)).findings;
  expect(found).toMatchObject({ code: 'I_FIRMWARE_MAPPINGS', severity: 'info', count: 1 });
});

test('what a kernel asks for belongs to the boot that it is asked in', () => {
  const query =
    'spapr_iommu_ddw_query buid=0x800000020000000 addr=0x0, 1 windows available, max window size=0x80000000, mask=0x107';
  const scout = new RunScout();
  const log = [NEW_TABLE, CLEAR, query, NEW_TABLE, CLEAR, query, query];
  readQemuLog(`${log.join('\n')}\n`).events.forEach((event, i) => {
    scout.qemuEvent(event, i + 1);
  });
  expect(scout.facts().boots.map(({ queries }) => queries)).toEqual([[3], [6, 7]]);
});
