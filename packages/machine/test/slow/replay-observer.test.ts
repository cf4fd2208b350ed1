/** What an observer of a replay is told, and in which order. */
import type { RecordingName } from '@pinhole/recordings';
import { findRecording } from '@pinhole/recordings';
import { describe, expect, test } from 'vitest';
import { BusAddresses, type GuestOperation, type RunObserver } from '../../src/index.js';
import { filesOf, replayRun } from '../replay-run.js';

const total = (counts: Readonly<Record<string, number>>): number =>
  Object.values(counts).reduce((sum, count) => sum + count, 0);

const NAMES: readonly RecordingName[] = [
  'linux6.12-pinhole-smp2',
  'linux6.12-ddw',
  'linux7.2-ddw-lost',
  'linux6.1-pinhole',
];

describe.each(NAMES)('%s', (name) => {
  const { meta } = findRecording(name);
  const lines: number[] = [];
  const told: GuestOperation[] = [];
  const faults: string[] = [];
  const addresses = new BusAddresses();
  const live = new Set<bigint>();
  let accesses = 0;
  const given: GuestOperation[] = [];
  let now = 0;
  const observer: RunObserver = {
    qemuEvent(event, line, call) {
      now = line;
      lines.push(line);
      const operation = call?.operation;
      if (operation !== undefined && !told.slice(-8).includes(operation)) {
        faults.push(`line ${line}: a hypercall before its operation`);
      }
      if (live.delete(addresses.event(event) ?? -1n)) accesses += 1;
    },
    operation(operation, _entries, qemuLine) {
      if (qemuLine !== now) faults.push(`guest line ${operation.line}: told at ${qemuLine}`);
      told.push(operation);
      if (operation.kind === 'map') live.add(operation.dmaAddr);
      else if (operation.kind === 'unmap') live.delete(operation.dmaAddr);
    },
    givenUp(operation) {
      if (told.at(-1) !== operation) faults.push(`guest line ${operation.line}: not told before`);
      given.push(operation);
    },
  };
  const { report } = replayRun(filesOf(findRecording(name)), observer);

  test("QEMU's events come once each, in the order of the log", () => {
    expect(lines).toHaveLength(total(meta.qemuEvents));
    expect(lines.every((line, i) => i === 0 || line > (lines[i - 1] as number))).toBe(true);
  });

  test('operations come once each, each before its hypercalls', () => {
    const { maps = 0, unmaps = 0, allocs = 0, frees = 0 } = report.guest ?? {};
    expect(faults).toEqual([]);
    expect(told).toHaveLength(maps + unmaps + allocs + frees);
    expect(new Set(told).size).toBe(told.length);
  });

  test('devices access what is mapped then', () => {
    expect(accesses).toBe(report.guest?.maps);
  });

  test('it changes nothing, and hears of every leak', () => {
    expect(replayRun(filesOf(findRecording(name))).report).toEqual(report);
    const leak = report.findings.find(({ code }) => code === 'E_TCE_LEAK');
    expect(given.length).toBe(leak?.count ?? 0);
  });
});
