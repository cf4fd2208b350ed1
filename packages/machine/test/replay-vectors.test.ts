/** Runs of several CPUs, of a small window, of two host bridges: test/vectors/README.md. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { mismatchesOf } from '../src/index.js';
import { problemsOf, replayRun } from './replay-run.js';

interface Meta {
  readonly smp: number;
  readonly guestEvents: Readonly<Record<string, number>>;
}

const RUNS: [name: string, liobns: number, tces: number, isSearched: boolean][] = [
  ['linux6.12-smp4', 1, 0x4_0000, true],
  ['linux6.12-smp2-small', 1, 0x1000, true],
  ['linux6.12-two-bridges', 2, 0x4_0000, false],
];

describe.each(RUNS)('%s', (name, liobns, tces, isSearched) => {
  const read = (file: string): Uint8Array =>
    readFileSync(new URL(`vectors/${name}/${file}`, import.meta.url));
  const { smp, guestEvents } = JSON.parse(Buffer.from(read('meta.json')).toString()) as Meta;
  const run = replayRun({
    qemu: gunzipSync(read('qemu.trace.gz')),
    guest: gunzipSync(read('guest.ftrace.gz')),
    console: gunzipSync(read('console.log.gz')),
  });
  const { guest, inferred, findings } = run.report;

  test('an order is found in which every address and hypercall is the recorded one', () => {
    expect(guest?.mismatches).toEqual([]);
    expect(mismatchesOf(run.report)).toBe(0);
    expect(problemsOf(run)).toBe(0);
    expect(guest).toMatchObject({
      maps: guestEvents.dma_map_page,
      unmaps: guestEvents.dma_unmap_page,
      allocs: guestEvents.dma_alloc,
      hcallsPredicted: guestEvents.hcall_entry,
      hcallsByKind: 0,
    });
    expect((guest?.ordersFound ?? 0) > 0).toBe(isSearched);
  });

  test('its windows and CPUs are known, and it is healthy', () => {
    expect(inferred.cpus).toBe(smp);
    expect(inferred.windows.map((window) => window.tces)).toEqual(Array(liobns).fill(tces));
    expect(findings.filter(({ severity }) => severity === 'error')).toEqual([]);
  });
});
