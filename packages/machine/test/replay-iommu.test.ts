/** Replays of guests with an SMMUv3 or a virtio-iommu: mismatches, findings, hostile input. */
import { describe, expect, test } from 'vitest';
import { mismatchesOf } from '../src/index.js';
import { type ReplayedRun, replayRun } from './replay-run.js';

/** Events of the guest, a microsecond apart; 6.12 on arm64. */
function trace(...events: readonly string[]): string[] {
  return ['tracing_mark_write: MARK INIT 6.12.117+deb13-arm64 base', ...events].map(
    (event, i) => `          dd-1       [000] d....     1.${String(i).padStart(6, '0')}: ${event}`,
  );
}

const DEVICE = '0000:00:02.0';
const p64 = (address: number) => `0x${address.toString(16).padStart(16, '0')}`;
const iommuMap = (iova: number, paddr: number, size = 4096) =>
  `map: IOMMU: iova=${p64(iova)} - ${p64(iova + size)} paddr=${p64(paddr)} size=${size}`;
const iommuUnmap = (iova: number, size = 4096) =>
  `unmap: IOMMU: iova=${p64(iova)} - ${p64(iova + size)} size=${size} unmapped_size=${size}`;
const map = (dma: string, phys: string, dir = 'FROM_DEVICE') =>
  `dma_map_page: ${DEVICE} dir=${dir} dma_addr=${dma} size=4096 phys_addr=${phys} attrs=`;
const unmap = (dma: string) =>
  `dma_unmap_page: ${DEVICE} dir=FROM_DEVICE dma_addr=${dma} size=4096 attrs=`;
const ring = (dma: string) =>
  `dma_alloc: ${DEVICE} dir=BIDIRECTIONAL dma_addr=${dma} size=4096 virt_addr=ffff800080041000 flags=GFP_KERNEL attrs=`;

/** A device takes one request with one writable segment, and gives it back. */
const request = (elem = '0x1') => [
  `virtqueue_alloc_element elem ${elem} size 1 in_num 1 out_num 0`,
  `virtqueue_pop vq 0x2 elem ${elem} in_num 1 out_num 0`,
  `virtqueue_fill vq 0x2 elem ${elem} len 4096 idx 0`,
  'virtqueue_flush vq 0x2 count 1',
];

function replay(qemu: readonly string[], guest: readonly string[]): ReplayedRun {
  const bytes = (lines: readonly string[]): Uint8Array => Buffer.from(`${lines.join('\n')}\n`);
  return replayRun({ qemu: bytes(qemu), guest: bytes(guest) });
}

const codesOf = ({ report }: ReplayedRun): string[] => report.findings.map(({ code }) => code);
const problems = ({ report }: ReplayedRun): string[] =>
  [...report.hypervisor.mismatches, ...(report.guest?.mismatches ?? [])].map(({ what }) => what);

describe('behind an SMMUv3', () => {
  // The page for interrupts comes first, the ring below it, and then the buffer.
  const SETUP = [
    iommuMap(0xffff_f000, 0x802_0000),
    iommuMap(0xffff_e000, 0x7000),
    ring('ffffe000'),
  ];
  const MAPPED = [...SETUP, iommuMap(0xffff_d000, 0x5000), map('ffffd000', '5000')];
  const GUEST = trace(...MAPPED, iommuUnmap(0xffff_d000), unmap('ffffd000'));
  const lookup = (kind: string, addr: string, hit: number, miss: number) =>
    `smmu_iotlb_lookup_${kind} IOTLB cache ${kind.toUpperCase()} asid=1 addr=${addr} hit=${hit} miss=${miss} hit rate=${Math.floor((100 * hit) / (hit + miss))}`;
  const insert = (addr: string) => `smmu_iotlb_insert IOTLB ++ asid=1 addr=${addr} tg=1 level=3`;
  const success = (iova: string, to: string, perm = 3) =>
    `smmuv3_translate_success smmuv3-iommu-memory-region-16-1 sid=0x10 iova=${iova} translated=${to} perm=0x${perm}`;
  const BUFFER = [
    lookup('miss', '0xffffd000', 0, 1),
    insert('0xffffd000'),
    success('0xffffd010', '0x5010'),
  ];
  const INTERRUPT = [
    lookup('miss', '0xfffff000', 0, 2),
    insert('0xfffff000'),
    success('0xfffff040', '0x8020040'),
  ];
  const INVALIDATED =
    'smmuv3_s1_range_inval vmid=0 asid=1 addr=0xffffd000 tg=1 num_pages=0x1 ttl=3 leaf=1';
  const LOG = [...BUFFER, ...request(), ...INTERRUPT, INVALIDATED];
  const SECOND = [lookup('miss', '0xffffd000', 0, 3), ...BUFFER.slice(1), ...request()];
  const TWICE = [
    ...GUEST,
    ...trace(iommuMap(0xffff_d000, 0x5000), map('ffffd000', '5000')).slice(1),
  ];

  test('a buffer, an interrupt, an invalidation: nothing to say', () => {
    const run = replay([...LOG, ...SECOND], TWICE);
    expect(run.report.inferred).toMatchObject({ platform: 'arm64', iommu: 'smmuv3' });
    expect(run.report.guest).toMatchObject({ maps: 2, requestsJoined: 2, rangesPaired: 1 });
    expect([problems(run), codesOf(run)]).toEqual([[], []]);
  });

  test.each<[string, readonly string[], string]>([
    ['a hit that cannot be', LOG.with(0, lookup('hit', '0xffffd000', 1, 0)), 'event'],
    ['another page than is mapped', LOG.with(2, success('0xffffd010', '0x6010')), 'entry'],
    ['another offset in the page', LOG.with(2, success('0xffffd010', '0x5020')), 'translated'],
    ['a page that may only be read', LOG.with(2, success('0xffffd010', '0x5010', 1)), 'entry'],
    ['counts that do not go on', LOG.with(7, lookup('miss', '0xfffff000', 1, 2)), 'hit'],
    ['interrupts that go elsewhere', LOG.with(9, success('0xfffff040', '0x8030040')), 'entry'],
    [
      'an invalidation of another page',
      LOG.with(10, INVALIDATED.replace('d000', 'c000')),
      'command: address',
    ],
    [
      'no invalidation',
      [
        ...LOG.slice(0, -1),
        INVALIDATED.replace('d000', 'c000').replace('num_pages=0x1', 'num_pages=0x0'),
      ],
      'command: address',
    ],
    ['a full IOTLB that is not', [...LOG, 'smmu_iotlb_inv_all IOTLB invalidate all'], 'entries'],
    [
      'a command without its consequence',
      [...LOG, 'smmuv3_cmdq_tlbi_nh_asid asid=1', INVALIDATED],
      'event',
    ],
  ])('%s is a mismatch', (_what, log, what) => {
    expect(problems(replay([...log, ...SECOND], TWICE))).toContain(what);
  });

  test('another IOVA for the interrupts than the allocator gives is a mismatch', () => {
    const guest = GUEST.map((line) =>
      line.replaceAll('fffff000 - 0x0000000100000000', 'ffff0000 - 0x00000000ffff1000'),
    );
    expect(problems(replay(LOG, guest))).toContain('address');
  });

  test('strict: what is unmapped is given again at once', () => {
    const again = [iommuMap(0xffff_d000, 0x6000), map('ffffd000', '6000')];
    const guest = trace(...MAPPED, iommuUnmap(0xffff_d000), unmap('ffffd000'), ...again);
    expect(replay(LOG, guest).report.guest?.dmaAddressMismatches).toBe(0);
    const other = again.map((line) =>
      line.replaceAll('ffffd000', 'ffffc000').replace('ffffe000 p', 'ffffd000 p'),
    );
    const lazy = trace(...MAPPED, iommuUnmap(0xffff_d000), unmap('ffffd000'), ...other);
    expect(replay(LOG, lazy).report.guest?.dmaAddressMismatches).toBeGreaterThan(0);
  });

  test('E_DMA_FAULT: an access that fails', () => {
    const log = [lookup('miss', '0xffff1000', 0, 1), 'smmuv3_record_event F_TRANSLATION sid=0x10'];
    const [found] = replay([...log, ...request()], trace(...MAPPED)).report.findings;
    expect(found).toMatchObject({ code: 'E_DMA_FAULT', count: 1 });
    expect(found?.summary).toContain('0xffff1000');
  });
});

describe('behind a virtio-iommu', () => {
  const SETUP = [iommuMap(0xffff_f000, 0x7000), ring('fffff000')];
  const MAPPED = [...SETUP, iommuMap(0xffff_e000, 0x5000), map('ffffe000', '5000')];
  const GUEST = trace(...MAPPED, iommuUnmap(0xffff_e000), unmap('ffffe000'));
  const ask = (event: string) => [
    'virtqueue_alloc_element elem 0x9 size 56 in_num 1 out_num 1',
    'virtqueue_pop vq 0x3 elem 0x9 in_num 1 out_num 1',
    event,
    'virtqueue_fill vq 0x3 elem 0x9 len 4 idx 0',
    'virtqueue_flush vq 0x3 count 1',
  ];
  const ATTACH = ask('virtio_iommu_attach domain=1 endpoint=16');
  const mapping = (start: string, phys: string, flags: number) =>
    ask(
      `virtio_iommu_map domain=1 virt_start=0x${start}000 virt_end=0x${start}fff phys_start=0x${phys} flags=${flags}`,
    );
  const RING = mapping('fffff', '7000', 3);
  const BUFFER = mapping('ffffe', '5000', 2);
  const access = (addr: string, to: string, flag: number) => [
    `virtio_iommu_translate mr=virtio-iommu-memory-region-2-16 rid=16 addr=0x${addr} flag=${flag}`,
    `virtio_iommu_translate_out 0x${addr} -> 0x${to} for sid=16`,
  ];
  const RANGE = 'domain=1 virt_start=0xffffe000 virt_end=0xffffefff';
  const GONE = ask(`virtio_iommu_unmap ${RANGE}`).toSpliced(
    3,
    0,
    `virtio_iommu_unmap_done ${RANGE}`,
  );
  const before = [...ATTACH, ...RING, ...BUFFER];
  const LOG = [...before, ...access('ffffe010', '5010', 2), ...request(), ...GONE];
  const at = (index: number): number => before.length + index;

  test('a buffer, an access, an unmapping: nothing to say', () => {
    const run = replay(LOG, GUEST);
    expect(run.report.inferred).toMatchObject({ platform: 'arm64', iommu: 'virtio-iommu' });
    expect(run.report.inferred.joined).toBe('by requests');
    expect(run.report.guest).toMatchObject({ requestsJoined: 1, rangesPaired: 3 });
    expect(run.report.hypervisor).toMatchObject({ translations: 1, invalidations: 4, requests: 5 });
    expect([problems(run), codesOf(run)]).toEqual([[], []]);
  });

  test.each<[string, readonly string[], string]>([
    ['another page', LOG.with(at(1), access('ffffe010', '6010', 2)[1] ?? ''), 'phys_addr'],
    [
      'a read of what may be written',
      [...before, ...access('ffffe010', '5010', 1), ...request(), ...GONE],
      'flag',
    ],
    ['an access without a translation', LOG.toSpliced(at(1), 1), 'event'],
    [
      'a mapping for reading, where the guest lets it write',
      LOG.map((line) => line.replace('0x5000 flags=2', '0x5000 flags=3')),
      'entry',
    ],
    [
      'another physical address',
      LOG.map((line) => line.replace('phys_start=0x5000', 'phys_start=0x6000')),
      'command: paddr',
    ],
    ['a mapping that is there', [...before, ...BUFFER, ...LOG.slice(before.length)], 'virt_start'],
    ['an unmapping of what is not there', [...LOG, ...GONE], 'virt_start'],
    [
      'an unmapping that does not happen',
      LOG.filter((line) => !line.includes('unmap_done')),
      'event',
    ],
    ['a longer answer', LOG.map((line) => line.replace('len 4 ', 'len 5 ')), 'len'],
    [
      'requests that the guest did not make',
      LOG.filter((line) => !/unmap/.test(line)).concat(mapping('ffffd', '9000', 2)),
      'command',
    ],
  ])('%s is a mismatch', (_what, log, what) => {
    expect(problems(replay(log, GUEST))).toContain(what);
  });

  test('addresses that are reserved go past the mappings', () => {
    const resv = ask(
      'virtio_iommu_fill_resv_property dev= 16, type=1 start=0x8020000 end=0x8020fff',
    ).with(3, 'virtqueue_fill vq 0x3 elem 0x9 len 516 idx 0');
    const [interrupt = ''] = access('8020040', '0', 2);
    expect(problems(replay([...resv, ...LOG, interrupt], GUEST))).toEqual([]);
    const [other = ''] = access('8030040', '0', 2);
    expect(problems(replay([...resv, ...LOG, other], GUEST))).toEqual(['event']);
  });

  test('E_DMA_FAULT: an access that is denied', () => {
    const [asked = ''] = access('ffff1000', '0', 2);
    const fault =
      'virtio_iommu_report_fault FAULT reason=2 flags=258 endpoint=16 address =0xffff1000';
    const run = replay([...before, asked, fault, ...request()], trace(...MAPPED));
    expect(codesOf(run)).toContain('E_DMA_FAULT');
    expect(problems(run)).toEqual([]);
  });
});

describe('without DMA events: Linux 6.1', () => {
  // A ring of two pages, of which each is mapped for itself, and two buffers.
  const RING = [iommuMap(0xffff_e000, 0x7000), iommuMap(0xffff_f000, 0x9000)];
  const BUFFERS = [iommuMap(0xffff_d000, 0x5000), iommuMap(0xffff_c000, 0x6000)];
  const guestOf = (...events: readonly string[]) =>
    trace(...events).map((line) => line.replace('6.12.117+deb13', '6.1.0-50'));
  const addresses = (...events: readonly string[]) =>
    replay(request(), guestOf(...events)).report.guest;

  test('each map is where the allocator puts it', () => {
    expect(addresses(...RING, ...BUFFERS)).toMatchObject({
      consistentAddresses: 4,
      dmaAddressMismatches: 0,
    });
  });

  test('what is unmapped is given again', () => {
    const again = [iommuUnmap(0xffff_d000), iommuMap(0xffff_d000, 0x8000)];
    expect(addresses(...RING, ...BUFFERS, ...again)).toMatchObject({
      consistentAddresses: 5,
      dmaAddressMismatches: 0,
    });
  });

  test.each<[string, readonly string[]]>([
    ['a map elsewhere', [iommuMap(0xffff_9000, 0x5000)]],
    [
      'a map elsewhere, at the end of others',
      [...BUFFERS, iommuMap(0xffff_a000, 0x5000), iommuMap(0xffff_9000, 0x5000)],
    ],
    [
      'two pages that are not aligned',
      [iommuMap(0xffff_b000, 0x5000), iommuMap(0xffff_c000, 0x6000)],
    ],
  ])('%s is a mismatch', (_what, events) => {
    expect(addresses(...RING, ...events)?.dmaAddressMismatches).toBeGreaterThan(0);
  });

  test('a trace that begins later says nothing of addresses', () => {
    expect(addresses(iommuMap(0xfff0_0000, 0x5000), ...BUFFERS)).toMatchObject({
      consistentAddresses: 0,
      dmaAddressMismatches: 0,
    });
  });
});

test('any numbers, in any order: no exception, bounded time', () => {
  const numbers = ['0', '1', '1000', '7fffffffffffffff', 'ffffffffffffffff', 'fffffffffffff000'];
  const small = [-2_147_483_648, -1, 0, 1, 12, 2_147_483_647];
  const guest: string[] = [ring('fffff000')];
  const log: string[] = [];
  numbers.forEach((a, i) => {
    numbers.forEach((b, j) => {
      const [m, n] = [small[i] as number, small[j] as number];
      guest.push(
        map(a, b),
        unmap(b),
        `map: IOMMU: iova=0x${a.padStart(16, '0')} - 0x${b.padStart(16, '0')} paddr=0x${b.padStart(16, '0')} size=9007199254740991`,
        `unmap: IOMMU: iova=0x${a.padStart(16, '0')} - 0x${b.padStart(16, '0')} size=4096 unmapped_size=0`,
      );
      log.push(
        `smmu_iotlb_lookup_miss IOTLB cache MISS asid=${m} addr=0x${a} hit=${n} miss=${m} hit rate=${n}`,
        `smmu_iotlb_insert IOTLB ++ asid=${m} addr=0x${b} tg=${n} level=${n}`,
        `smmuv3_translate_success x-255-1 sid=0xffffffff iova=0x${a} translated=0x${b} perm=0xffffffff`,
        `smmuv3_s1_range_inval vmid=${m} asid=${n} addr=0x${a} tg=${m} num_pages=0x${b} ttl=${n} leaf=${m}`,
        `smmuv3_cmdq_tlbi_nh_asid asid=${m}`,
        `smmu_iotlb_inv_asid IOTLB invalidate asid=${n}`,
        `virtqueue_pop vq 0x3 elem 0x9 in_num 1 out_num 1`,
        `virtio_iommu_attach domain=${m} endpoint=${n}`,
        `virtio_iommu_map domain=${m} virt_start=0x${a} virt_end=0x${b} phys_start=0x${b} flags=${n}`,
        `virtio_iommu_translate mr=x rid=${n} addr=0x${a} flag=${m}`,
        `virtio_iommu_translate_out 0x${a} -> 0x${b} for sid=${m}`,
        `virtio_iommu_unmap domain=${n} virt_start=0x${b} virt_end=0x${a}`,
        `virtio_iommu_unmap_done domain=${m} virt_start=0x${a} virt_end=0x${b}`,
        `virtio_iommu_detach domain=${n} endpoint=${m}`,
      );
    });
  });
  for (const only of [/^smmu|^virtqueue/, /^virt/]) {
    const run = replay(
      log.filter((line) => only.test(line)),
      trace(...guest),
    );
    expect(mismatchesOf(run.report)).toBeGreaterThan(0);
  }
});
