import { describe, expect, test } from 'vitest';
import { arrayValues, formatEvent, readFtrace } from '../src/index.js';

const MAP =
  'dma_map_page: 0000:00:00.0 dir=TO_DEVICE dma_addr=8000000072ec0f8 size=16 phys_addr=72ec0f8 attrs=';

test('a mapping', () => {
  const { events } = readFtrace(`          insmod-135     [000] d....     4.124845: ${MAP}\n`);
  expect(events).toEqual([
    {
      t: 4_124_845,
      actor: 'guest',
      name: 'dma_map_page',
      args: {
        device: '0000:00:00.0',
        dir: 'TO_DEVICE',
        dma_addr: 0x800_0000_072e_c0f8n,
        size: 16,
        phys_addr: 0x72e_c0f8n,
        attrs: '',
        cpu: 0,
        pid: 135,
        task: 'insmod',
        context: 'task',
      },
    },
  ]);
});

test('a return code that the kernel prints as unsigned is signed', () => {
  const { events } = readFtrace(
    '  x-1 [001] d.h2. 1.000000: hcall_exit: opcode=32 retval=18446744073709551612\n',
  );
  expect(events[0]?.args).toMatchObject({ opcode: 32, retval: -4n });
});

describe('heads', () => {
  test.each([
    [
      'a kernel thread',
      '    kworker/0:0H-10      [003] db.2.     3.261647: ',
      'kworker/0:0H',
      10,
      3,
    ],
    ['the idle task', '          <idle>-0       [000] d..2. 12345.000001: ', '<idle>', 0, 0],
    ['no flags', '  init-1 [127]     3.261647: ', 'init', 1, 127],
    ['a thread group', '  init-1       (      1) [000] .....     3.261647: ', 'init', 1, 0],
    ['no thread group', '  init-1       (-------) [000] .....     3.261647: ', 'init', 1, 0],
    [
      'brackets and minus in a name',
      '  a [0] b-c-7 [010] .....     3.261647: ',
      'a [0] b-c',
      7,
      10,
    ],
    ['a name beyond ASCII', '  größe-7 [010] .....     3.261647: ', 'größe', 7, 10],
  ])('%s', (_, head, task, pid, cpu) => {
    const { events, problems } = readFtrace(`${head}tracing_mark_write: hi there\r\n`);
    expect(problems).toEqual([]);
    expect(events[0]?.args).toEqual({
      message: 'hi there',
      task,
      pid,
      cpu,
      context: 'task',
    });
  });
});

test.each([
  ['', 'task'],
  ['..... ', 'task'],
  ['dNs3. ', 'softirq'],
  ['d.h1. ', 'hardirq'],
  ['dNH2. ', 'hardirq'],
  ['d.z1 ', 'nmi'],
  ['d.Z1. ', 'nmi'],
])('with the flags "%s" it ran in the context %s', (flags, context) => {
  const { events } = readFtrace(`  x-1 [000] ${flags}1.000000: hcall_entry: opcode=32\n`);
  expect(events[0]?.args.context).toBe(context);
});

describe('forms of several kernel versions', () => {
  const read = (body: string) => readFtrace(`  x-1 [000] ..... 1.000000: ${body}\n`);

  test.each([
    [
      'dma_map_sg: sdhci dir=NONE dma_addrs={0x1000,0x3000} sizes={0x200,0x8} phys_addrs={0x1,0x2} attrs=',
      { dma_addrs: '{0x1000,0x3000}', sizes: '{0x200,0x8}', phys_addrs: '{0x1,0x2}' },
    ],
    [
      'dma_map_sg: a dir=NONE nents=2/2 ents=1/1 dma_addrs={0x1000} sizes={0x208} phys_addrs={0x1,0x2} attrs=',
      { nents: 2, ents: 1, dma_addrs: '{0x1000}' },
    ],
    [
      'dma_map_sg: a dir=NONE nents=128/300 ents=1/1 [TRUNCATED] dma_addrs={} sizes={} phys_addrs={} attrs=',
      { traced_nents: 128, nents: 300, truncated: 'TRUNCATED', dma_addrs: '{}' },
    ],
    ['dma_unmap_sg: a dir=TO_DEVICE phys_addrs=4096 8192 attrs=', { phys_addrs: '4096 8192' }],
    [
      'dma_map_sg_err: a dir=TO_DEVICE dma_addrs={0x0} err=-12 attrs=NO_WARN',
      { phys_addrs: '{0x0}', err: -12 },
    ],
    [
      'dma_alloc: a dma_addr=0 size=8 virt_addr=0000000000000000 flags=GFP_KERNEL attrs=',
      { device: 'a', dma_addr: 0n },
    ],
    [
      'dma_map_phys: a dir=TO_DEVICE dma_addr=ffffffffffffffff size=8 phys_addr=0 attrs=',
      { dma_addr: 2n ** 64n - 1n },
    ],
    [
      'map: IOMMU: iova=0x00000000ffffe000 - 0x00000000fffff000 paddr=0x0000000003f08000 size=4096',
      { iova: 0xffff_e000n, end: 0xffff_f000n, size: 4096 },
    ],
    [
      'unmap: IOMMU: iova=0x00000000ffffe000 size=4096 unmapped_size=0',
      { iova: 0xffff_e000n, unmapped_size: 0 },
    ],
  ])('%s', (body, args) => {
    const { events, problems } = read(body);
    expect(problems).toEqual([]);
    expect(events[0]?.args).toMatchObject(args);
    expect(formatEvent(events[0]!)).toBe(body.replace(':', ''));
  });

  test.each([
    ['dma_alloc: a dix=NONE dma_addr=0 size=8 virt_addr=0 flags= attrs=', '" dir="'],
    ['dma_unmap_sg: a dir=NONE phys_addrs={0x1,} attrs=', 'phys_addrs as numbers'],
    ['dma_unmap_sg: a dir=NONE phys_addrs={0x1 attrs=', 'phys_addrs as numbers'],
    ['dma_unmap_sg: a dir=NONE phys_addrs={0x01} attrs=', 'phys_addrs as numbers'],
    ['dma_unmap_sg: a dir=NONE phys_addrs={1} attrs=', 'phys_addrs as numbers'],
    ['dma_unmap_sg: a dir=NONE phys_addrs=1  2 attrs=', '" attrs="'],
    ['dma_unmap_sg: a dir=NONE phys_addrs=01 attrs=', '" attrs="'],
    ['map: IOMMU: iova=0x1000 paddr=0x0000000003f08000 size=4096', 'iova as 0x and 16'],
  ])('%s', (body, expected) => {
    const { events, problems } = read(body);
    expect(events).toEqual([]);
    expect(problems[0]?.expected).toContain(expected);
  });
});

test.each([
  ['{0x1000,0xffffffffffffffff}', [4096n, 2n ** 64n - 1n]],
  ['{}', []],
  ['', []],
  ['4096 0', [4096n, 0n]],
  ['{0x1,}', undefined],
  ['{1}', undefined],
  ['1  2', undefined],
  ['0x1', undefined],
])('the numbers of the array "%s"', (text, values) => {
  expect(arrayValues(text)).toEqual(values);
});

test('a marker may have any text', () => {
  const { events } = readFtrace('  x-1 [000] ..... 1.000000: tracing_mark_write: grüße €😀: a=b\n');
  expect(events[0]?.args.message).toBe('grüße €😀: a=b');
});

describe('problems', () => {
  test.each([
    ['  x-1 [000] ..... 1.000000: irq_handler_entry: irq=0', 'unknown-event', undefined],
    ['  x-1 [000] ..... 1.000000: irq_handler_entry:', 'malformed', 'the name of an event'],
    ['hello', 'malformed', 'a task and a CPU such as [000] in column 1'],
    ['  [000] ..... 1.000000: a: b', 'malformed', 'a task such as init-1'],
    ['  x-1 [000] ..... 1.0: a: b', 'malformed', 'a time as seconds.microseconds'],
    ['  x-1 [000] ..x.. 1.000000: a: b', 'malformed', 'flags such as d.h1. in column 13'],
    ['  x-1 [000] .. 1.000000: a: b', 'malformed', 'flags such as d.h1.'],
    ['  x-1 [000] ..... 104242: a: b', 'malformed', 'a time as seconds.microseconds'],
    ['  x-1 [000] ..... 1.000000: dma_map_page x', 'malformed', '": " in column 41'],
    ['  x-1 [000] ..... 1.000000: hcall_entry: opcode=0x20', 'malformed', 'the end of the line'],
    ['CPU:2 [LOST 17 EVENTS]', 'lost', undefined],
    ['CPU:2 [LOST EVENTS]', 'lost', undefined],
    ['# entries-in-buffer/entries-written: 100/2000   #P:2', 'lost', undefined],
    ['  sixteen-letters-name-1 [000] ..... 1.000000: a: b', 'malformed', 'a task such as init-1'],
    ['\u0001\u0002', 'binary', 'a task and a CPU'],
    ['  x\u0000-1 [000] ..... 1.000000: a: b', 'binary', 'a task such as init-1'],
    ['  x-1 [000] ..... 1.0: tracing_mark_write: a\u0000b', 'binary', 'a time as'],
    ['  x-1 [000] ..... 1.000000: tracing_mark_write: a\u0000b', 'binary', 'message as text'],
  ])('%j is %s', (line, kind, expected) => {
    const { events, problems } = readFtrace(`${line}\n`);
    expect(events).toEqual([]);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatchObject({ line: 1, kind });
    if (expected !== undefined) expect(problems[0]?.expected).toContain(expected);
  });

  test('comments are no problem when nothing was lost', () => {
    const header = '# tracer: nop\n#\n# entries-in-buffer/entries-written: 5/5   #P:1\n';
    expect(readFtrace(`${header}##### CPU 1 buffer started ####\n`)).toEqual({
      events: [],
      problems: [],
    });
  });
});
