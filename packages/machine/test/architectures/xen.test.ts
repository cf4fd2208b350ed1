/** Guests of Xen: the DMA API whatever the flag says, and grants as bus addresses. */
import { createRng, type HiLo, joinU64 } from '@pinhole/base';
import { GuestPages } from '@pinhole/guest';
import {
  createGuestMemory,
  DmaAccess,
  DmaDirection,
  type DmaOps,
  DmaStatus,
  type SparseMemory,
} from '@pinhole/memory';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createGrantDmaOps } from '../../src/architectures/xen-grant-dma.js';
import { GrantTable } from '../../src/architectures/xen-grant-table.js';
import { MachineError } from '../../src/errors.js';
import type { RunReport } from '../../src/report.js';
import { run } from './runs.js';

const xen = (
  flag: boolean,
  settings: Readonly<Record<string, unknown>> = {},
  guest: Readonly<Record<string, unknown>> = {},
): RunReport =>
  run({
    machine: { arch: 'xen', memory: '1GiB', settings },
    guest,
    device: { iommuPlatform: flag },
  });

describe('the backend maps guest memory', () => {
  test('the DMA API with the flag and without it: Xen alone decides', () => {
    for (const flag of [false, true]) {
      const report = xen(flag);
      expect(report.verdict.outcome).toBe('works');
      expect(report.decision.dmaOps).toBe('dma-direct');
    }
    expect(xen(false).decision.because).toMatch(/the guest runs on Xen: the DMA API/);
  });
});

describe('the backend maps grants', () => {
  const grants = { grants: true };

  test('without the flag the probe is refused', () => {
    const report = xen(false, grants);
    expect(report.refusal).toBe('device must provide VIRTIO_F_ACCESS_PLATFORM');
    expect(report.verdict.outcome).toBe('refused');
  });

  test('with it each page is granted once a request, and ended; nothing else is reached', () => {
    const report = xen(true, grants);
    expect(report.verdict.outcome).toBe('works');
    expect(report.decision).toMatchObject({
      dmaOps: 'xen-grant-dma',
      device: 'iommu_platform=on: grants of Xen',
    });
    const { iommu, translations } = report.counters.workload;
    expect(iommu.maps).toBe(iommu.unmaps);
    // Twelve requests of 16 pages, with header, status and table.
    expect(iommu.maps).toBeGreaterThanOrEqual(12 * (16 + 3));
    expect(translations).toBeGreaterThan(iommu.maps);
    // The ring's pages, and those of one request.
    expect(report.reach.addressable).toBeLessThan(32 * 4096);
    // The ring stays granted: 4096 + 518, then 2054 bytes, on 2 pages.
    expect(report.counters.tcesLive).toBe(2);
  });

  test('a kernel that knows no grants as bus addresses: the backend finds nothing there', () => {
    const report = xen(true, grants, { kernel: 'linux-5.10' });
    expect(report.decision.because).toMatch(/knows no grants/);
    expect(report.verdict.outcome).toBe('fails');
    expect(report.reach.addressable).toBe(0);
  });

  test('and without the flag nothing either: it has no right to map what was not granted', () => {
    const report = xen(false, grants, { kernel: 'linux-5.10' });
    expect(report.refusal).toBe(null);
    expect(report.verdict.text).toMatch(/^I\/O hangs: /);
    expect([report.reach.addressable, report.counters.tcesPeak]).toEqual([0, 0]);
    expect(report.counters.strayBytesRead + report.counters.strayBytesWritten).toBe(0);
  });

  test('a backend that keeps what it mapped: the guest gives it nothing more, for good', () => {
    const report = xen(true, { grants: true, backendHolds: true });
    expect(report.verdict.text).toMatch(/^I\/O hangs: .*-ENOMEM, requeued 100 times/);
    expect(report.data).toMatchObject({ requests: 2, completed: 1, hung: 1 });
    // What it holds stays granted; it is never used for something else.
    expect(report.counters.tcesLive).toBeGreaterThan(2);
  });

  test.each([
    ['machine.settings.grants', { grants: 'yes' }],
    ['machine.settings.backendHolds', { grants: true, backendHolds: 1 }],
    ['machine.settings.backendHolds', { backendHolds: true }],
  ])('%s says where', (path, settings) => {
    expect(() => xen(true, settings)).toThrow(MachineError);
    expect(() => xen(true, settings)).toThrow(new RegExp(`^${path.replaceAll('.', '\\.')}: `));
  });
});

interface Bench {
  readonly memory: SparseMemory;
  readonly table: GrantTable;
  readonly ops: DmaOps;
  readonly warnings: string[];
}

function bench(backendHolds = false, size = 64): Bench {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 24 }] });
  const table = new GrantTable({ memory, size, backendHolds });
  const pages = new GuestPages({
    pageSize: 4096,
    kernel: { base: 2 ** 20, size: 2 ** 22 },
    user: { base: 2 ** 23, size: 2 ** 23 },
    rng: createRng(1),
  });
  const warnings: string[] = [];
  const onBroken = (message: string): void => {
    warnings.push(message);
  };
  return { memory, table, ops: createGrantDmaOps({ table, memory, pages, onBroken }), warnings };
}

function map(ops: DmaOps, gpa: number, length: number, direction: DmaDirection): HiLo | undefined {
  const out: HiLo = { hi: 0, lo: 0 };
  return ops.map(gpa, length, direction, out) ? out : undefined;
}

describe('a bus address', () => {
  test('is bit 63, the first reference of a row, and the offset in the page', () => {
    const { ops, table } = bench();
    const out = map(ops, 0x80_0ffe, 4096, DmaDirection.BIDIRECTIONAL);
    // Eight references are kept.
    expect(joinU64(out!.hi, out!.lo)).toBe((1n << 63n) | (8n << 12n) | 0xffen);
    expect(table.live).toBe(2);
    const next = map(ops, 0x80_0000, 1, DmaDirection.BIDIRECTIONAL);
    expect(joinU64(next!.hi, next!.lo)).toBe((1n << 63n) | (10n << 12n));
  });

  test('leads to the page that was granted, with its permission, and nowhere after the end', () => {
    const { ops, table } = bench();
    const { hi, lo } = map(ops, 0x80_0010, 8192, DmaDirection.TO_DEVICE)!;
    const at = { gpa: 0, length: 0 };
    const translate = (offset: number, access: DmaAccess): DmaStatus =>
      table.translate(hi, lo + offset, 100_000, access, at);
    expect(translate(0, DmaAccess.READ)).toBe(DmaStatus.OK);
    expect(at).toEqual({ gpa: 0x80_0010, length: 4080 });
    expect(translate(4080, DmaAccess.READ)).toBe(DmaStatus.OK);
    expect(at).toEqual({ gpa: 0x80_1000, length: 4096 });
    // To the device: granted for reading only.
    expect(translate(0, DmaAccess.WRITE)).toBe(DmaStatus.NO_PERMISSION);
    expect(translate(3 * 4096, DmaAccess.READ)).toBe(DmaStatus.NO_PERMISSION);
    expect(table.translate(0, 0x80_0010, 1, DmaAccess.READ, at)).toBe(DmaStatus.NOTHING_THERE);
    expect(table.translate(hi + 1, lo, 1, DmaAccess.READ, at)).toBe(DmaStatus.NOTHING_THERE);
    ops.unmap(hi, lo, 8192, DmaDirection.TO_DEVICE);
    expect(translate(0, DmaAccess.READ)).toBe(DmaStatus.NO_PERMISSION);
    expect(table.live).toBe(0);
  });

  test('is not to be had when no row of references is long enough', () => {
    const { ops, table } = bench(false, 16);
    expect(map(ops, 0x80_0000, 9 * 4096, DmaDirection.TO_DEVICE)).toBe(undefined);
    expect(map(ops, 0x80_0000, 8 * 4096, DmaDirection.TO_DEVICE)).not.toBe(undefined);
    expect(map(ops, 0x90_0000, 1, DmaDirection.TO_DEVICE)).toBe(undefined);
    expect(table.live).toBe(8);
  });
});

test('a page that the backend holds: one warning, no map, no unmap, no memory given back', () => {
  const { ops, table, warnings } = bench(true);
  const out: HiLo = { hi: 0, lo: 0 };
  const ring = ops.allocCoherent(4096, out);
  const held = map(ops, 0x80_0000, 4096, DmaDirection.FROM_DEVICE)!;
  const at = { gpa: 0, length: 0 };
  expect(table.translate(held.hi, held.lo, 1, DmaAccess.WRITE, at)).toBe(DmaStatus.OK);
  ops.unmap(held.hi, held.lo, 4096, DmaDirection.FROM_DEVICE);
  expect(warnings).toEqual(['Grant still in use by backend domain, disabled for further use']);
  expect(map(ops, 0x90_0000, 1, DmaDirection.TO_DEVICE)).toBe(undefined);
  expect(ops.allocCoherent(4096, { hi: 0, lo: 0 })).toBe(undefined);
  ops.freeCoherent(ring!, out.hi, out.lo, 4096);
  expect([table.live, warnings.length]).toEqual([2, 1]);
});

test('whatever is mapped and unmapped in whatever order: rows are disjoint, all come back', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(20), fc.integer({ min: 1, max: 5 * 4096 })), { maxLength: 120 }),
      (steps) => {
        const { ops, table } = bench();
        const live: { hi: number; lo: number; gpa: number; length: number }[] = [];
        for (const [choice, length] of steps) {
          const gpa = 0x80_0000 + choice * 5000;
          const old = choice % 2 === 0 ? live.splice(choice % (live.length || 1), 1)[0] : undefined;
          if (old !== undefined) ops.unmap(old.hi, old.lo, old.length, DmaDirection.TO_DEVICE);
          const out = map(ops, gpa, length, DmaDirection.TO_DEVICE);
          if (out !== undefined) live.push({ ...out, gpa, length });
          const at = { gpa: 0, length: 0 };
          for (const one of live) {
            for (let done = 0; done < one.length; done += at.length) {
              const status = table.translate(one.hi, one.lo + done, 1e6, DmaAccess.READ, at);
              expect([status, at.gpa]).toEqual([DmaStatus.OK, one.gpa + done]);
            }
          }
        }
        for (const one of live) ops.unmap(one.hi, one.lo, one.length, DmaDirection.TO_DEVICE);
        expect(table.live).toBe(0);
        // One run again: all but the eight that are kept.
        expect(map(ops, 0, 56 * 4096, DmaDirection.TO_DEVICE)).not.toBe(undefined);
      },
    ),
    { numRuns: 200 },
  );
});
