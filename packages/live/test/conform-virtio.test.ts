/** The comparison of virtio devices, model against model: what is different is found, and said. */
import type { MmioRegion, PciFunction } from '@pinhole/virtio';
import { describe, expect, test } from 'vitest';
import {
  createModelVirtioSide,
  describeFault,
  FAULT_ROWS,
  shapeName,
  VIRTIO_SHAPES,
  VirtioCampaign,
  type VirtioCampaignResult,
  type VirtioShape,
  type VirtioSide,
} from '../src/index.js';

const named = (part: string): VirtioShape[] =>
  VIRTIO_SHAPES.filter((shape) => shapeName(shape).includes(part));

function compare(
  shapes: readonly VirtioShape[],
  change: (side: VirtioSide) => VirtioSide,
  count = 300,
): VirtioCampaignResult {
  const model = createModelVirtioSide(shapes);
  const reference = change(createModelVirtioSide(shapes));
  const campaign = new VirtioCampaign({ seed: 7, count, shapes, model, reference });
  const steps = campaign.run();
  while (steps.next().done !== true);
  return campaign.result;
}

/** A side one of whose parts is another's. */
function altered(side: VirtioSide, parts: Partial<VirtioSide>): VirtioSide {
  return new Proxy(side, {
    get: (target, key: keyof VirtioSide) => {
      const value = parts[key] ?? target[key];
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

test('a side agrees with its like, on every ring and path', () => {
  const { findings, requests, faults, coverage } = compare(named('blk'), (side) => side, 800);
  expect(findings).toEqual([]);
  expect(requests).toBeGreaterThanOrEqual(800);
  // Nine rows for each of eight rings; on the four packed ones two are left out.
  expect(faults).toHaveLength(64);
  expect(coverage.map(({ request }) => request)).toEqual(
    expect.arrayContaining(['read', 'write', 'flush', 'get id', 'discard', 'read, spoilt']),
  );
});

describe('the table of faults is what QEMU 7.2 showed', () => {
  const EXPECTED: Readonly<Record<string, string>> = {
    'nothing: all is mapped': 'used 4097, status 0, data as asked, device status 0x0f',
    'the data: no entry': 'used 4097, status 0, data unwritten, device status 0x0f',
    'the data: a read-only entry': 'used 4097, status 0, data unwritten, device status 0x0f',
    'the data: a physical address in place of a bus address':
      'used 4097, status 0, data unwritten, device status 0x0f',
    'the header': 'used 4097, status 0, data sector 0, device status 0x0f',
    'the status byte': 'used 4097, status byte unwritten, data as asked, device status 0x0f',
    'data and status byte': 'no answer, data unwritten, device status 0x4f',
    'header and data': 'no answer, data unwritten, device status 0x4f',
    'the ring': 'no answer, data unwritten, device status 0x0f',
  };
  const { faults } = compare(named('blk-split-indirect-eventidx-pinhole'), (side) => side, 1);
  test.each(FAULT_ROWS.map(({ what }) => what))('%s', (what) => {
    const found = faults.find(({ row }) => row.what === what);
    expect(found && describeFault(found.model)).toBe(EXPECTED[what]);
  });
});

describe('a device that differs is found', () => {
  const shapes = named('blk-packed-indirect-eventidx-bypass');

  test('in its data', () => {
    const { findings } = compare(shapes, (side) => {
      // One bit of every sector: some are written before they are read.
      const disk = side.disk(shapes[0] as VirtioShape);
      for (let at = 0; at < disk.length; at += 512) disk[at] = (disk[at] ?? 0) ^ 1;
      return side;
    });
    expect(findings[0]).toMatchObject({ device: shapeName(shapes[0] as VirtioShape), seed: 7 });
    expect(['outcome', 'disk']).toContain(findings[0]?.what);
  });

  test.each([
    ['features', 4, 4, 4],
    ['config', 0x2000, 4, 1],
    ['status', 20, 1, 0x80],
  ] as const)('in its %s', (what, from, length, bits) => {
    const { findings } = compare(shapes, (side) =>
      altered(side, {
        pciFunction: (shape) => flipped(side.pciFunction(shape), from, length, bits),
      }),
    );
    expect(findings[0]?.what).toBe(what);
    expect(findings[0]?.model).not.toBe(findings[0]?.reference);
  });
});

// Reads of some registers of the modern BAR have a bit that they should not have.
function flipped(fn: PciFunction, from: number, length: number, bits: number): PciFunction {
  return {
    name: fn.name,
    configRead: (offset, width) => fn.configRead(offset, width),
    configWrite: (offset, width, value) => fn.configWrite(offset, width, value),
    bar: (index): MmioRegion | undefined => {
      const bar = fn.bar(index);
      if (bar === undefined || index !== 4) return bar;
      return {
        size: bar.size,
        write: (offset, width, value) => bar.write(offset, width, value),
        read: (offset, width) => {
          const value = bar.read(offset, width);
          return offset >= from && offset < from + length ? value ^ bits : value;
        },
      };
    },
  };
}
