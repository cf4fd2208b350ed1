import type { TraceEvent } from '@pinhole/base';
import { describe, expect, test } from 'vitest';
import {
  createMemorySink,
  createNdjsonWriter,
  createQemuTextWriter,
  filterEvents,
  formatEvent,
} from '../src/index.js';

const event = (name: string, args: TraceEvent['args'], more: Partial<TraceEvent> = {}) =>
  ({ t: 0, actor: 'guest', name, args, ...more }) as TraceEvent;

describe('formatEvent', () => {
  test.each([
    [
      event('spapr_iommu_pci_put', { liobn: 0x8000_0000n, ioba: 0x1000n, tce: 3n, ret: -4n }),
      'spapr_iommu_pci_put liobn=0x80000000 ioba=0x1000 tce=0x3 ret=-4',
    ],
    // Integers may come as either type, arguments in any order and with others between them.
    [
      event('spapr_iommu_ddw_reset', { more: 1, addr: 0n, buid: 0x800_0000 }),
      'spapr_iommu_ddw_reset buid=0x8000000 addr=0x0',
    ],
    [
      event('hcall_exit', { opcode: 32, retval: -4n }),
      'hcall_exit opcode=32 retval=18446744073709551612',
    ],
    [event('hcall', { name: 'H_PUT_TCE' }, { phase: 'begin' }), 'hcall begin name=H_PUT_TCE'],
    [event('hcall', { ret: 0 }, { phase: 'end' }), 'hcall end ret=0'],
    [
      event('blk_request', { op: 'read', sector: 255n, length: 512 }, { phase: 'begin' }),
      'blk_request begin op=read sector=255 length=512',
    ],
    [event('uv_share_page', { gfn: 255n, count: 16n }), 'uv_share_page gfn=0xff count=16'],
    [
      event('guest_warn', { message: 'two words\nand "lines"', fatal: false }),
      'guest_warn message="two words\\nand \\"lines\\"" fatal=false',
    ],
    [event('a_new_event', { a: -1n, b: 0xffn, c: '' }), 'a_new_event a=-1 b=0xff c=""'],
    [event('tracing_mark_write', { message: 'a\nb' }), 'tracing_mark_write a\\nb'],
  ])('%#', (input, text) => {
    expect(formatEvent(input)).toBe(text);
  });

  test.each([
    ['expected vq as string (ptr), found nothing', {}],
    ['expected vq as string (ptr), found number 1', { vq: 1, count: 1 }],
    ['expected count as number (u32), found number -1', { vq: '0x1', count: -1 }],
    ['expected count as number (u32), found bigint 0x100000000', { vq: '0x1', count: 2n ** 32n }],
    ['expected count as number (u32), found number 1.5', { vq: '0x1', count: 1.5 }],
    ['expected count as number (u32), found boolean true', { vq: '0x1', count: true }],
  ])('what QEMU cannot print: %s', (message, args) => {
    expect(() => formatEvent(event('virtqueue_flush', args as TraceEvent['args']))).toThrow(
      expect.objectContaining({
        code: 'E_TRACE_ARGS',
        message: `virtqueue_flush: ${message}`,
      }),
    );
  });
});

test('NDJSON: one object a line, bigint as text that BigInt() reads', () => {
  let text = '';
  const writer = createNdjsonWriter((piece) => {
    text += piece;
  });
  writer.emit(event('hcall', { name: 'H_"\n' }, { t: 7, phase: 'begin' }));
  writer.emit(event('x', { a: 2n ** 64n - 1n, b: -4n, c: 1, d: true, 'e"': 0n }));
  writer.close();
  expect(text).toBe(
    '{"t":7,"actor":"guest","name":"hcall","phase":"begin","args":{"name":"H_\\"\\n"}}\n' +
      '{"t":0,"actor":"guest","name":"x","args":{"a":"0xffffffffffffffff","b":"-4","c":1,"d":true,"e\\"":"0x0"}}\n',
  );
  const [, second] = text.split('\n').map((line) => line && JSON.parse(line));
  expect(BigInt(second.args.a)).toBe(2n ** 64n - 1n);
  expect(BigInt(second.args.b)).toBe(-4n);
});

test('QEMU text: one line an event', () => {
  const lines: string[] = [];
  const writer = createQemuTextWriter((line) => lines.push(line));
  writer.emit(event('virtqueue_flush', { vq: '0x1', count: 1 }));
  writer.close();
  expect(lines).toEqual(['virtqueue_flush vq 0x1 count 1\n']);
});

test('a filter passes or stops a span as a pair', () => {
  const sink = createMemorySink();
  const filtered = filterEvents(sink, new Set(['hcall']));
  for (const name of ['rtas_call', 'hcall']) filtered.emit(event(name, {}, { phase: 'begin' }));
  filtered.emit(event('spapr_iommu_put', {}));
  for (const name of ['hcall', 'rtas_call']) filtered.emit(event(name, {}, { phase: 'end' }));
  expect(sink.events.map(({ name, phase }) => [name, phase])).toEqual([
    ['hcall', 'begin'],
    ['hcall', 'end'],
  ]);
});

describe('createMemorySink', () => {
  test.each([
    [{}, [0, 1, 2, 3, 4, 5, 6], 0],
    [{ limit: 3 }, [0, 1, 2], 4],
    [{ limit: 3, keep: 'last' as const }, [4, 5, 6], 4],
    [{ limit: 7, keep: 'last' as const }, [0, 1, 2, 3, 4, 5, 6], 0],
    [{ limit: 1, keep: 'last' as const }, [6], 6],
  ])('%j keeps %j', (options, times, dropped) => {
    const sink = createMemorySink(options);
    for (let t = 0; t < 7; t += 1) sink.emit(event('x', {}, { t }));
    expect(sink.events.map(({ t }) => t)).toEqual(times);
    expect(sink.dropped).toBe(dropped);
  });

  test.each([0, -1, 0.5, Number.NaN])('a limit of %d is refused', (limit) => {
    expect(() => createMemorySink({ limit })).toThrow(/limit: expected a positive integer/);
  });
});
