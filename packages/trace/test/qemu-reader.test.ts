import { describe, expect, test } from 'vitest';
import { createQemuLogReader, formatEvent, readQemuLog } from '../src/index.js';

const PUT = 'spapr_iommu_pci_put liobn=0x80000000 ioba=0x1000 tce=0x7e374003 ret=0';
const XLATE = 'spapr_iommu_xlate liobn=0x80000001 0x727b002 -> 0x7000000 perm=3 mask=0xffffff';

describe('values', () => {
  test('64-bit arguments are bigint, narrow ones number, pointers text', () => {
    const { events } = readQemuLog(
      `${PUT}\n${XLATE}\nvirtio_set_status vdev 0x5610c5043950 val 15\n`,
    );
    expect(events).toEqual([
      {
        t: 1,
        actor: 'hypervisor',
        name: 'spapr_iommu_pci_put',
        args: { liobn: 0x8000_0000n, ioba: 0x1000n, tce: 0x7e37_4003n, ret: 0n },
      },
      {
        t: 2,
        actor: 'hypervisor',
        name: 'spapr_iommu_xlate',
        args: {
          liobn: 0x8000_0001n,
          ioba: 0x727_b002n,
          tce: 0x700_0000n,
          perm: 3,
          pgsize: 0xff_ffff,
        },
      },
      {
        t: 3,
        actor: 'device',
        name: 'virtio_set_status',
        args: { vdev: '0x5610c5043950', val: 15 },
      },
    ]);
  });

  test.each([
    ['0xffffffffffffffff', '0x800000000000000', -4n],
    ['0x0', '0x1', -9223372036854775808n],
    ['0x8000000000000000', '0x123456789abcdef', 9223372036854775807n],
  ])('tce=%s ioba=%s ret=%s', (tce, ioba, ret) => {
    const { events } = readQemuLog(
      `spapr_iommu_put liobn=0x0 ioba=${ioba} tce=${tce} ret=${ret}\n`,
    );
    expect(events[0]?.args).toEqual({ liobn: 0n, ioba: BigInt(ioba), tce: BigInt(tce), ret });
  });

  test('a sector can be any 64-bit number: a guest chooses it', () => {
    const { events } = readQemuLog(
      'virtio_blk_handle_read vdev 0x1 req (nil) sector 18446744073709551615 nsectors 8\n',
    );
    expect(events[0]?.args).toEqual({
      vdev: '0x1',
      req: '(nil)',
      sector: 0xffff_ffff_ffff_ffffn,
      nsectors: 8,
    });
  });
});

test('the model names what QEMU gives a pointer; its log reads as well', () => {
  const { events } = readQemuLog('virtio_queue_notify vdev vd0 n 0 vq vd0q0\n');
  expect(events[0]?.args).toEqual({ vdev: 'vd0', n: 0, vq: 'vd0q0' });
});

describe('line forms', () => {
  test('the prefix of -msg timestamp=on, CRLF, blank lines', () => {
    const { events, problems } = readQemuLog(`4711@1700000000.000123:${PUT}\r\n\r\n\n${XLATE}\r\n`);
    expect(problems).toEqual([]);
    expect(events.map(({ t, name }) => [t, name])).toEqual([
      [1, 'spapr_iommu_pci_put'],
      [4, 'spapr_iommu_xlate'],
    ]);
  });

  test.each([
    '4711@1700000000.000123:',
    '2026-11-24T12:00:00.123456Z ',
    '2026-11-24T12:00:00Z ',
    'Nov 24 12:00:00 host qemu-system-ppc64[123]: ',
    'Nov  4 12:00:00 host qemu: ',
    'Nov 24 12:00:00.123456 host qemu-system-ppc64[123]: ',
    'Nov 24 12:00:00 host qemu-system-ppc64[123]: 4711@1700000000.000123:',
    'Nov 24 12:00:00 host qemu-system-ppc64[123]: 2026-11-24T12:00:00.123456Z ',
  ])('the prefix "%s"', (prefix) => {
    const { events, problems } = readQemuLog(`${prefix}${PUT}\n`);
    expect(problems).toEqual([]);
    expect(events.map(formatEvent)).toEqual([PUT]);
  });

  test.each([
    '2026-11-24T12:00:00.123Z ',
    '2026-11-24T12:00:00.123456 ',
    '2026-11-24 12:00:00Z ',
    'Now 24 12:00:00 host qemu: ',
    'Nov 24 12:00 host qemu: ',
    'Nov 24 12:00:00 qemu: ',
    'Nov 24 12:00:00 host qemu ',
    'Nov 24 12:00:00 host : ',
    'Nov 24 12:00:00 host',
    'Nov 24 12:00:00 ',
    'Nov',
    ' ',
    '[  1.000000] ',
  ])('no prefix that we know: "%s"', (prefix) => {
    const { events, problems } = readQemuLog(`${prefix}${PUT}\n`);
    expect(events).toEqual([]);
    expect(problems).toMatchObject([{ kind: 'malformed' }]);
  });

  test('a last line without a newline may be cut: it is reported, not delivered', () => {
    expect(readQemuLog(`${PUT}\n${PUT}`)).toMatchObject({
      events: [{ t: 1 }],
      problems: [{ line: 2, kind: 'cut', text: PUT }],
    });
  });

  test.each([
    ['nothing', '', []],
    ['newlines', '\n\n\r\n', []],
  ])('%s is an empty log', (_, text, events) => {
    expect(readQemuLog(text)).toEqual({ events, problems: [] });
  });
});

describe('problems', () => {
  test.each([
    ['kvm_vm_ioctl type 0xae03, arg 0x0', 'unknown-event', undefined],
    ['vtd_reset', 'unknown-event', undefined],
    ['1@2.000003:vtd_reset', 'unknown-event', undefined],
    ["qemu-system-ppc64: warning: TCG doesn't support", 'malformed', 'the name of an event'],
    ['hello world', 'malformed', 'the name of an event in column 1'],
    ['1@2.03:virtio_notify vdev 0x1 vq 0x2', 'malformed', 'the name of an event in column 1'],
    ['virtio_notify', 'malformed', 'a space in column 14'],
    ['virtio_notify\tvdev 0x1 vq 0x2', 'malformed', 'a space in column 14'],
    ['virtio_notify vdev', 'malformed', '"vdev " in column 15'],
    ['virtio_notify vdev 0x1 vq 1', 'malformed', 'vq as (nil), 0x and hex digits, or a name'],
    ['virtio_notify vdev 0x1 vq 0x1 ', 'malformed', 'the end of the line in column 30'],
    ['virtio_notify  vdev 0x1 vq 0x1', 'malformed', '"vdev " in column 15'],
    ['virtqueue_flush vq 0x1 count -1', 'malformed', 'count as an unsigned 32-bit decimal'],
    ['virtqueue_flush vq 0x1 count 4294967296', 'malformed', 'count as an unsigned 32-bit decimal'],
    ['virtqueue_flush vq 0x1 count 01', 'malformed', 'count as'],
    ['virtqueue_flush vq 0x01 count 1', 'malformed', 'vq as'],
    ['virtqueue_flush vq 0xA count 1', 'malformed', 'vq as'],
    ['spapr_iommu_ddw_remove liobn=0x100000000', 'malformed', 'liobn as 0x and 1 to 8'],
    ['virtio_blk_req_complete vdev 0x1 req 0x1 status -2147483649', 'malformed', 'status as'],
    [PUT.replace('ret=0', 'ret=-0'), 'malformed', 'ret as a signed 64-bit decimal in column 69'],
    [PUT.replace('ret=0', 'ret=9223372036854775808'), 'malformed', 'ret as'],
    [PUT.replace('0x1000', '0x11112222333344445'), 'malformed', 'ioba as'],
    ['\u0000\u0001\u0002', 'binary', 'the name of an event in column 1'],
    [`${PUT}\u0000`, 'binary', 'the end of the line in column 70'],
    ['spapr_ïommu_put', 'binary', 'the name of an event in column 1'],
  ])('%j is %s', (line, kind, expected) => {
    const { events, problems } = readQemuLog(`${line}\n`);
    expect(events).toEqual([]);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatchObject({ line: 1, kind });
    if (expected === undefined) expect(problems[0]?.expected).toBeUndefined();
    else expect(problems[0]?.expected).toContain(expected);
  });

  test('a problem names the event where the line has one', () => {
    expect(readQemuLog('vtd_reset\nvirtio_notify x\n').problems.map(({ event }) => event)).toEqual([
      'vtd_reset',
      'virtio_notify',
    ]);
  });

  test('problems are counted even when nobody listens', () => {
    const reader = createQemuLogReader({ onEvent() {} });
    reader.push(new TextEncoder().encode(`vtd_reset\nvtd_reset\nx\n\u0000\n${PUT}\n${PUT}`));
    expect(reader.end()).toEqual({
      lines: 6,
      events: 1,
      problems: { 'unknown-event': 2, malformed: 1, binary: 1, 'too-long': 0, lost: 0, cut: 1 },
    });
  });

  test.each([0, -1, 1.5, Number.NaN])('maxLineBytes %d is refused', (maxLineBytes) => {
    expect(() => createQemuLogReader({ onEvent() {}, maxLineBytes })).toThrow(
      expect.objectContaining({ code: 'E_TRACE_OPTION' }),
    );
  });
});
