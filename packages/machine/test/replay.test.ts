/** Recorded logs of a real QEMU against the model; and logs with something wrong in them. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { recordings } from '@pinhole/recordings';
import { createQemuLogReader } from '@pinhole/trace';
import { describe, expect, test } from 'vitest';
import { HypervisorReplay, type HypervisorReplayResult } from '../src/index.js';

function replay(log: Uint8Array | string): HypervisorReplayResult {
  const model = new HypervisorReplay();
  const reader = createQemuLogReader({ onEvent: (event, line) => model.event(event, line) });
  reader.push(typeof log === 'string' ? new TextEncoder().encode(log) : log);
  reader.end();
  return model.end();
}

const pseries = recordings.filter(({ meta }) => meta.machine === 'pseries');

test('there are fifteen pseries recordings', () => {
  expect(pseries).toHaveLength(15);
});

describe.each(pseries.map((recording) => [recording.name, recording] as const))(
  '%s',
  (_name, { meta, files }) => {
    test('every return code and every translation is what the model says', () => {
      const result = replay(gunzipSync(readFileSync(files.qemuTrace)));
      const count = (pattern: RegExp): number =>
        Object.entries(meta.qemuEvents)
          .filter(([event]) => pattern.test(event))
          .reduce((sum, [, events]) => sum + events, 0);
      expect(result.mismatches).toEqual([]);
      expect(result.hcalls).toBe(count(/^spapr_iommu_(pci_)?(put|get|stuff|indirect)$/));
      expect(result.translations).toBe(count(/^spapr_iommu_xlate$/));
      expect(result.rtasCalls).toBe(count(/^spapr_iommu_ddw_/));
    });
  },
);

const NEW_TABLE = 'spapr_iommu_new_table liobn=0x80000000 table=0x5612137782d0 fd=-1\n';
const PUT = 'spapr_iommu_pci_put liobn=0x80000000 ioba=0x1000 tce=0x7396001 ret=0\n';
const XLATE = 'spapr_iommu_xlate liobn=0x80000000 0x10f8 -> 0x7396000 perm=1 mask=0xfff\n';

describe('a single changed digit shows', () => {
  test('unchanged, the log is right', () => {
    expect(replay(NEW_TABLE + PUT + XLATE).mismatches).toEqual([]);
  });

  test.each([
    ['the return code', PUT, 'ret=0', 'ret=-4', 'ret'],
    ['the LIOBN of a hypercall', PUT, '0x80000000', '0x80000002', 'liobn'],
    ['the low bits of a put', PUT, 'ioba=0x1000', 'ioba=0x1001', 'ioba'],
    ['the entry of a put', PUT, '0x7396001', '0x7397001', 'address'],
    ['the permission of a put', PUT, '0x7396001', '0x7396003', 'perm'],
    ['the page of a put', PUT, 'ioba=0x1000', 'ioba=0x2000', 'address'],
    ['the address of a translation', XLATE, '0x10f8', '0x20f8', 'address'],
    ['what it leads to', XLATE, '0x7396000', '0x7396001', 'address'],
    ['its permission', XLATE, 'perm=1', 'perm=3', 'perm'],
    ['its mask', XLATE, '0xfff', '0xffff', 'mask'],
    ['its LIOBN', XLATE, '0x80000000', '0x80000001', 'liobn'],
  ])('%s', (_what, line, from, to, found) => {
    const log = (NEW_TABLE + PUT + XLATE).replace(line, line.replace(from, to));
    const { mismatches } = replay(log);
    expect(mismatches.length).toBeGreaterThan(0);
    expect(mismatches[0]?.what).toBe(found);
  });

  test('the mismatch says where, and what both sides have', () => {
    const log = NEW_TABLE + PUT + XLATE.replace('perm=1', 'perm=3');
    expect(replay(log).mismatches[0]).toEqual({
      line: 3,
      event: 'spapr_iommu_xlate',
      what: 'perm',
      logged: '0x3',
      model: '0x1',
    });
  });
});

test('a window is created, removed and reset as in the log', () => {
  const buid = 'buid=0x800000020000000 addr=0x0';
  const log = [
    NEW_TABLE.trimEnd(),
    `spapr_iommu_ddw_query ${buid}, 1 windows available, max window size=0x80000000, mask=0x107`,
    'spapr_iommu_new_table liobn=0x80000001 table=0x7f17b83ddc00 fd=-1',
    `spapr_iommu_ddw_create ${buid}, page size=0x1000000, requested=0x100000000, start addr=0x800000000000000, liobn=0x80000001`,
    `spapr_iommu_ddw_query ${buid}, 0 windows available, max window size=0x80000000, mask=0x107`,
    'spapr_iommu_ddw_remove liobn=0x80000001',
    'spapr_iommu_new_table liobn=0x80000000 table=0x5612137782d0 fd=-1',
    `spapr_iommu_ddw_reset ${buid}`,
    `spapr_iommu_ddw_query ${buid}, 1 windows available, max window size=0x80000000, mask=0x107`,
  ];
  expect(replay(`${log.join('\n')}\n`)).toMatchObject({ rtasCalls: 6, mismatches: [] });
  const wrong = replay(`${log.join('\n').replace('0 windows', '2 windows')}\n`);
  expect(wrong.mismatches).toMatchObject([{ line: 5, what: 'wa' }]);
});

test('hostile events: any numbers, any order, no exception, bounded time', () => {
  const numbers = ['0x0', '0xffffffffffffffff', '0x8000000000000000', '0x80000000', '0x1000'];
  const lines: string[] = [];
  for (const a of numbers) {
    for (const b of numbers) {
      lines.push(
        `spapr_iommu_new_table liobn=${a} table=0x1 fd=-1`,
        `spapr_iommu_pci_put liobn=${a} ioba=${b} tce=${a} ret=0`,
        `spapr_iommu_pci_stuff liobn=${a} ioba=${b} tcevalue=${b} npages=9223372036854775807 ret=0`,
        `spapr_iommu_pci_stuff liobn=${a} ioba=${b} tcevalue=${b} npages=-1 ret=-4`,
        `spapr_iommu_pci_indirect liobn=${a} ioba=${b} tcelist=${a} iobaN=${b} tceN=${a} ret=0`,
        `spapr_iommu_xlate liobn=${a} ${b} -> ${a} perm=3 mask=0xfff`,
        `spapr_iommu_ddw_create buid=${a} addr=0x0, page size=${a}, requested=${b}, start addr=${b}, liobn=0x1`,
        `spapr_iommu_ddw_remove liobn=0x80000000`,
        `spapr_iommu_ddw_reset buid=${a} addr=0x0`,
      );
    }
  }
  const result = replay(`${lines.join('\n')}\n`);
  expect(result.hcalls).toBe(25 * 4);
  expect(result.translations).toBe(25);
  expect(result.mismatches).toHaveLength(10);
});
