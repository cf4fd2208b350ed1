/** Replays of machines without TCE windows: findings, what is not supported, hostile input. */
import { describe, expect, test } from 'vitest';
import { mismatchesOf } from '../src/index.js';
import { problemsOf, type ReplayedRun, replayRun } from './replay-run.js';

/** Events of the guest, a microsecond apart; 6.12 on x86. */
function trace(...events: readonly string[]): string[] {
  return ['tracing_mark_write: MARK INIT 6.12.94+deb13-amd64 base', ...events].map(
    (event, i) => `          dd-1       [000] d....     1.${String(i).padStart(6, '0')}: ${event}`,
  );
}

const DEVICE = '0000:00:01.0';
const RING =
  'dma_alloc: 0000:00:01.0 dir=BIDIRECTIONAL dma_addr=ffffe000 size=6726 virt_addr=ffffd27000071000 flags=GFP_KERNEL attrs=';
const map = (dma: string, phys: string, size = 4096, dir = 'FROM_DEVICE') =>
  `dma_map_page: ${DEVICE} dir=${dir} dma_addr=${dma} size=${size} phys_addr=${phys} attrs=`;
const unmap = (dma: string, size = 4096, dir = 'FROM_DEVICE') =>
  `dma_unmap_page: ${DEVICE} dir=${dir} dma_addr=${dma} size=${size} attrs=`;
const p64 = (address: number) => `0x${address.toString(16).padStart(16, '0')}`;
const iommuMap = (iova: number, paddr: number, size = 4096) =>
  `map: IOMMU: iova=${p64(iova)} - ${p64(iova + size)} paddr=${p64(paddr)} size=${size}`;
const iommuUnmap = (iova: number, size = 4096, unmapped = size) =>
  `unmap: IOMMU: iova=${p64(iova)} - ${p64(iova + size)} size=${size} unmapped_size=${unmapped}`;
const bounced = (phys: string, size = 4096) =>
  `swiotlb_bounced: dev_name: ${DEVICE} dma_mask=ffffffffffffffff dev_addr=${phys} size=${size} FORCE`;

/** A device takes one request with one writable segment, and gives it back. */
const request = (elem: string, length = 4096) => [
  `virtqueue_alloc_element elem ${elem} size 1 in_num 1 out_num 0`,
  `virtqueue_pop vq 0x2 elem ${elem} in_num 1 out_num 0`,
  `virtqueue_fill vq 0x2 elem ${elem} len ${length} idx 0`,
  'virtqueue_flush vq 0x2 count 1',
];
const access = (iova: string, entry: string) => [
  `vtd_iotlb_page_update IOTLB page update sid 0x8 iova ${iova} slpte ${entry} domain 0x3`,
  `vtd_dmar_translate dev 00:01.00 iova ${page(iova)} -> gpa ${page(entry)} mask 0xfff`,
];
const page = (address: string) => `0x${(BigInt(address) & ~0xfffn).toString(16)}`;

function replay(qemu: readonly string[], guest: readonly string[]): ReplayedRun {
  const bytes = (lines: readonly string[]): Uint8Array => Buffer.from(`${lines.join('\n')}\n`);
  return replayRun({ qemu: bytes(qemu), guest: bytes(guest) });
}

const codesOf = ({ report }: ReplayedRun): string[] => report.findings.map(({ code }) => code);

// One mapping of one page behind VT-d, at the top of 4 GiB below the ring.
const IOVA = 0xffff_d000;
const SETUP = [iommuMap(0xffff_e000, 0x7000), iommuMap(0xffff_f000, 0x9000), RING];
const MAPPED = [...SETUP, iommuMap(IOVA, 0x5000), map('ffffd000', '5000')];
const UNMAPPED = [iommuUnmap(IOVA), unmap('ffffd000')];

describe('behind VT-d', () => {
  test('a mapping, its access, its unmapping: nothing to say', () => {
    const log = [...access('0xffffd000', '0x5003'), ...request('0x1')];
    const run = replay(log, trace(...MAPPED, ...UNMAPPED));
    expect(run.report.guest).toMatchObject({ maps: 1, unmaps: 1, requestsJoined: 1 });
    expect([mismatchesOf(run.report), codesOf(run)]).toEqual([0, []]);
  });

  test.each([
    [
      'the IOMMU still maps it',
      [...access('0xffffd000', '0x5003'), ...request('0x1')],
      [...MAPPED, unmap('ffffd000')],
      'E_IOMMU_LEAK',
    ],
    [
      'an access after its unmapping',
      [
        ...access('0xffffd000', '0x5003'),
        ...request('0x1'),
        ...access('0xffffd800', '0x5003').with(
          0,
          'vtd_iotlb_page_hit IOTLB page hit sid 0x8 iova 0xffffd800 slpte 0x5003 domain 0x3',
        ),
        ...access('0xffffc000', '0x6003'),
        ...request('0x1'),
      ],
      [...MAPPED, ...UNMAPPED, iommuMap(0xffff_c000, 0x6000), map('ffffc000', '6000')],
      'E_STALE_ACCESS',
    ],
    [
      'an access beside the buffer',
      [...access('0xffffd900', '0x5003'), ...request('0x1', 1)],
      [
        ...SETUP,
        iommuMap(IOVA, 0x5000),
        map('ffffd000', '5000', 512),
        ...UNMAPPED.with(1, unmap('ffffd000', 512)),
      ],
      'E_ACCESS_OUTSIDE',
    ],
    [
      'an access that nothing maps',
      [...access('0x1000', '0x5003'), ...request('0x1')],
      MAPPED,
      'E_DMA_FAULT',
    ],
    [
      'an access that QEMU denied',
      ['vtd_dmar_fault sid 0x8 fault 6 addr 0x2000 write 1', ...request('0x1')],
      MAPPED,
      'E_DMA_FAULT',
    ],
    [
      'a page that is mapped twice',
      request('0x1'),
      [...MAPPED, iommuMap(IOVA, 0x6000)],
      'E_DOUBLE_MAP',
    ],
  ])('%s', (_what, log, guest, code) => {
    expect(codesOf(replay(log, trace(...guest)))).toContain(code);
  });

  test.each([
    [
      'another IOVA than the allocator gives',
      [iommuMap(0xffff_a000, 0x5000), map('ffffa000', '5000')],
    ],
    ['another page than is mapped', [iommuMap(IOVA, 0x8000), map('ffffd000', '5000')]],
    ['another offset in the page', [iommuMap(IOVA, 0x5000), map('ffffd010', '5020', 16)]],
    ['more than the buffer', [iommuMap(IOVA - 4096, 0x5000, 8192), map('ffffc000', '5000')]],
    ['no map of the IOMMU', [map('ffffd000', '5000')]],
    ['an unmapping of nothing', [iommuUnmap(0x4000)]],
    [
      'an end that does not fit',
      [iommuMap(IOVA, 0x5000).replace('ffffe000 paddr', 'ffffd000 paddr')],
    ],
  ])('%s is a mismatch', (_what, events) => {
    const { report } = replay(request('0x1'), trace(...SETUP, ...events));
    expect(report.guest?.dmaAddressMismatches).toBeGreaterThan(0);
  });

  test('a device that writes where it may only read, by the entry of the table', () => {
    const log = [...access('0xffffd000', '0x5003'), ...request('0x1')].map((line) =>
      line.replace('in_num 1 out_num 0', 'in_num 0 out_num 1').replace('len 4096', 'len 0'),
    );
    const guest = [...SETUP, iommuMap(IOVA, 0x5000), map('ffffd000', '5000', 4096, 'TO_DEVICE')];
    const { mismatches } = replay(log, trace(...guest)).report.guest ?? {};
    expect(mismatches).toMatchObject([{ what: 'entry', recorded: '0x5003', model: '0x5001' }]);
  });
});

describe('bounce buffers', () => {
  const ring = RING.replace('ffffe000', '4000').replace('ffffd27000071000', 'ffff888000004000');
  const at = (slot: number) => (0x7000_0000 + slot * 2048).toString(16);

  test('the pool fills up: the failed mapping is predicted, and a finding', () => {
    const events: string[] = [ring];
    // 256 mappings of 128 slots are 64 MiB.
    for (let i = 0; i < 256; i += 1) {
      events.push(bounced('5000', 262_144), map(at(i * 128), '5000', 262_144));
    }
    events.push(bounced('5000'), map('ffffffffffffffff', '5000'));
    const run = replay([], trace(...events));
    expect(mismatchesOf(run.report)).toBe(0);
    expect(run.report.guest).toMatchObject({ maps: 257, failedMaps: 1 });
    expect(run.report.inferred.swiotlb).toMatchObject({ base: '0x70000000', peak: 32_768 });
    expect(codesOf(run)).toContain('E_SWIOTLB_FULL');
    expect(codesOf(replay([], trace(...events.slice(0, -2))))).toContain('W_SWIOTLB_NEARLY_FULL');
  });

  test.each([
    [
      'the next slot, although two are free in front',
      [bounced('6000', 1), map(at(2), '6000', 1), bounced('7000'), map(at(3), '7000')],
    ],
    ['a mapping that is not bounced', [map('6000', '6000')]],
    ['a buffer of another size', [bounced('6000', 8), map(at(2), '6000', 9)]],
    ['a slot that is in use', [bounced('6000'), map(at(0), '6000')]],
  ])('%s is a mismatch', (_what, events) => {
    const { report } = replay([], trace(ring, bounced('5000'), map(at(0), '5000'), ...events));
    expect(report.guest?.dmaAddressMismatches).toBeGreaterThan(0);
  });
});

test('a request that failed is a finding', () => {
  const log = [
    'virtqueue_alloc_element elem 0x1 size 1 in_num 1 out_num 0',
    'virtqueue_pop vq 0x2 elem 0x1 in_num 1 out_num 0',
    'virtio_blk_req_complete vdev 0x9 req 0x1 status 1',
  ];
  expect(codesOf(replay(log, trace(map('5000', '5000'))))).toContain('W_REQUEST_FAILED');
});

describe('what cannot be told is said', () => {
  test('addresses of a machine that is not supported are refused', () => {
    expect(replay([], trace(RING, map('12000', '5000'))).isRefused).toBe(true);
  });

  test('several CPUs: addresses are predicted, requests not joined', () => {
    const ring = RING.replace('ffffe000', '4000').replace('ffffd27000071000', 'ffff888000004000');
    const guest = trace(ring, map('5000', '5000'), map('6000', '6000'));
    const other = guest.map((line, i) => (i === 3 ? line.replace('[000]', '[001]') : line));
    const { report } = replay(request('0x1'), other);
    expect(report.inferred.joined).toBe('not joined: several CPUs');
    expect(report.guest).toMatchObject({ maps: 2, requestsJoined: 0 });
    expect(mismatchesOf(report)).toBe(0);
  });

  test("files of two runs: the requests are not the trace's", () => {
    const log = request('0x1').map((line) =>
      line.replace('in_num 1 out_num 0', 'in_num 0 out_num 1'),
    );
    expect(replay(log, trace(...MAPPED)).isRefused).toBe(true);
  });
});

describe('hostile input', () => {
  test('any numbers, in any order: no exception, bounded time', () => {
    const numbers = ['0', 'ffffffffffffffff', '7fffffffffffffff', '1000', 'fffffffffffff000'];
    const guest: string[] = [RING];
    const log: string[] = [];
    for (const a of numbers) {
      for (const b of numbers) {
        guest.push(
          bounced(a, 9_007_199_254_740_991),
          map(a, b, 9_007_199_254_740_991),
          unmap(b, 9_007_199_254_740_991),
          `map: IOMMU: iova=0x${a.padStart(16, '0')} - 0x${b.padStart(16, '0')} paddr=0x${b.padStart(16, '0')} size=9007199254740991`,
          `unmap: IOMMU: iova=0x${a.padStart(16, '0')} - 0x${b.padStart(16, '0')} size=0 unmapped_size=4096`,
          map(a, b, 0),
        );
        log.push(
          `vtd_iotlb_page_update IOTLB page update sid 0xffff iova 0x${a} slpte 0x${b} domain 0xffff`,
          `vtd_dmar_translate dev ff:1f.07 iova 0x${a} -> gpa 0x${b} mask 0x${a}`,
          `vtd_inv_desc invalidate desc type iotlb high 0x${a} low 0x${b}`,
          `vtd_inv_desc_iotlb_pages iotlb invalidate domain 0xffff addr 0x${a} mask 0xff`,
          `virtqueue_pop vq 0x2 elem 0x${a === '0' ? '1' : a} in_num 4294967295 out_num 4294967295`,
          `virtqueue_fill vq 0x2 elem 0x${b === '0' ? '1' : b} len 4294967295 idx 4294967295`,
          'virtqueue_flush vq 0x2 count 4294967295',
        );
      }
    }
    const run = replay(log, trace(...guest));
    expect(mismatchesOf(run.report)).toBeGreaterThan(0);
    expect(run.report.guest?.mismatches).toHaveLength(10);
  }, 20_000);

  test('lines that are cut short are counted as such', () => {
    const guest = trace(...MAPPED);
    const run = replay(request('0x1'), [...guest.slice(0, -1), guest.at(-1)?.slice(0, -30) ?? '']);
    expect(problemsOf(run)).toBe(1);
  });

  test('200 000 mappings that are never given back', () => {
    const ring = RING.replace('ffffe000', '4000').replace('ffffd27000071000', 'ffff888000004000');
    const lines = trace(ring, map('5000', '5000'));
    const at = performance.now();
    for (let i = 0; i < 200_000; i += 1) {
      const address = (0x10_0000 + i * 4096).toString(16);
      lines.push(`          dd-1       [000] d....     2.000000: ${map(address, address)}`);
    }
    const { report } = replay([], lines);
    expect(report.guest?.maps).toBe(200_001);
    expect(mismatchesOf(report)).toBe(0);
    expect(performance.now() - at).toBeLessThan(60_000);
  }, 120_000);
});
