/**
 * Made-up runs of several CPUs: the kernel's own allocator with its steps interleaved at random.
 * Whatever the order was, the replay has to find one; and what no order explains, it has to say.
 */
import type { TraceEvent } from '@pinhole/base';
import { describe, expect, test } from 'vitest';
import {
  type ConcurrentRun,
  type ConcurrentRunOptions,
  makeConcurrentRun,
  replayConcurrentRun,
} from './concurrent-run.js';

type Case = [what: string, options: Omit<ConcurrentRunOptions, 'seed'>, seeds: number];

const CASES: Case[] = [
  ['one CPU, tasks only', { cpus: 1, entries: 256, operations: 1000 }, 3],
  ['one CPU, interrupts', { cpus: 1, entries: 256, operations: 1000, hasInterrupts: true }, 4],
  ['one CPU, preempted tasks', { cpus: 1, entries: 1024, operations: 500, isPreemptible: true }, 2],
  ['two CPUs that share one pool', { cpus: 2, entries: 256, operations: 1000 }, 4],
  [
    'two CPUs, interrupts, one pool',
    { cpus: 2, entries: 256, operations: 1000, hasInterrupts: true },
    4,
  ],
  ['two CPUs, few pages', { cpus: 2, entries: 512, operations: 1000, pages: 20 }, 3],
  [
    'two CPUs, lines in the wrong order',
    { cpus: 2, entries: 32_768, operations: 1000, hasInterrupts: true, hasSkew: true },
    3,
  ],
  ['four CPUs', { cpus: 4, entries: 1024, operations: 1000 }, 3],
  ['eight CPUs, four pools', { cpus: 8, entries: 262_144, operations: 1000 }, 2],
];

describe('every made-up run is explained', () => {
  test.each(CASES)('%s', (_what, options, seeds) => {
    for (let seed = 1; seed <= seeds; seed += 1) {
      const run = makeConcurrentRun({ ...options, seed });
      const result = replayConcurrentRun(run);
      expect(result.mismatches, `seed ${seed}`).toEqual([]);
      expect(result).toMatchObject({
        maps: run.maps,
        unmaps: run.unmaps,
        failedMaps: run.failedMaps,
        dmaAddressMismatches: 0,
        hcallsPredicted: run.calls.length,
        hcallMismatches: 0,
      });
    }
  });

  test('the window was full at times, and orders were searched for', () => {
    const failed = [1, 2, 3, 4, 5, 6].map((seed) => {
      const options = { cpus: 2, entries: 256, operations: 1000, fill: 0.95, maxPages: 24 };
      const run = makeConcurrentRun({ ...options, seed, hasInterrupts: true });
      const result = replayConcurrentRun(run);
      expect(result.mismatches, `seed ${seed}`).toEqual([]);
      expect(result.ordersFound).toBeGreaterThan(0);
      return run.failedMaps;
    });
    expect(Math.max(...failed)).toBeGreaterThan(0);
  });
});

describe('what no order explains shows', () => {
  const options = { cpus: 2, entries: 1024, operations: 300, hasInterrupts: true };
  const mismatches = (run: ConcurrentRun): number => {
    const { dmaAddressMismatches, hcallMismatches } = replayConcurrentRun(run);
    return dmaAddressMismatches + hcallMismatches;
  };
  const PAGE = 4096n;

  test.each([1, 2, 3, 4, 5, 6, 7, 8])('another address everywhere, seed %i', (seed) => {
    const run = makeConcurrentRun({ ...options, seed });
    const maps = run.guest.filter(({ name }) => name === 'dma_map_page');
    const { args } = maps[seed * 7] as TraceEvent;
    const address = args.dma_addr as bigint;
    // As if the allocator had given an entry far away: in both logs, map and unmap.
    const to = 767n * PAGE;
    const moved = (value: bigint): bigint => to + (value - (address & ~0xfffn));
    const last = address + (args.size as bigint) - 1n;
    const isHit = (value: bigint): boolean => value >= (address & ~0xfffn) && value <= last;
    const guest = run.guest.map((event) => {
      const value = event.args.dma_addr;
      return typeof value === 'bigint' && isHit(value)
        ? { ...event, args: { ...event.args, dma_addr: moved(value) } }
        : event;
    });
    const calls = run.calls.map((call) =>
      isHit(call.ioba) ? { ...call, ioba: moved(call.ioba) } : call,
    );
    expect(mismatches({ ...run, guest, calls })).toBeGreaterThan(0);
  });

  test('one address, in the guest alone or in the log alone', () => {
    const run = makeConcurrentRun({ ...options, seed: 11 });
    run.guest.forEach((event, i) => {
      const value = event.args.dma_addr;
      if (typeof value !== 'bigint' || i % 23 !== 0) return;
      const guest = [...run.guest];
      guest[i] = { ...event, args: { ...event.args, dma_addr: value ^ PAGE } };
      expect(mismatches({ ...run, guest }), `guest line ${i + 1}`).toBeGreaterThan(0);
    });
    run.calls.forEach((call, i) => {
      if (i % 23 !== 0) return;
      const calls = [...run.calls];
      calls[i] = { ...call, ioba: call.ioba ^ PAGE };
      expect(mismatches({ ...run, calls }), `line ${call.line} of the log`).toBeGreaterThan(0);
    });
  });

  test('a line that is missing or twice there', () => {
    const run = makeConcurrentRun({ ...options, seed: 12 });
    // Of what a thread did last, nobody knows whether the trace ended before it was done.
    const threads = ['cpu', 'context', 'pid'] as const;
    const threadOf = ({ args }: TraceEvent): string => threads.map((key) => args[key]).join();
    const last = new Map(run.guest.map((event, i) => [threadOf(event), i]));
    for (let i = 5; i < run.guest.length; i += 37) {
      const event = run.guest[i] as TraceEvent;
      if (last.get(threadOf(event)) === i) continue;
      const without = run.guest.filter((_, at) => at !== i);
      expect(mismatches({ ...run, guest: without }), `without line ${i + 1}`).toBeGreaterThan(0);
      // A second exit is of no hypercall: it changes nothing.
      if (event.name === 'hcall_exit') continue;
      const twice = [...run.guest.slice(0, i), event, ...run.guest.slice(i)];
      expect(mismatches({ ...run, guest: twice }), `line ${i + 1} twice`).toBeGreaterThan(0);
    }
    for (let i = 5; i < run.calls.length; i += 17) {
      const calls = run.calls.filter((_, at) => at !== i);
      expect(mismatches({ ...run, calls }), `without call ${i + 1}`).toBeGreaterThan(0);
    }
  });
});
