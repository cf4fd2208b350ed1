/**
 * Every pseries recording, both files joined, inference included: the model predicts each DMA
 * address and each hypercall. What is expected is counted here with regular expressions, or is in
 * meta.json.
 */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { type Recording, recordings } from '@pinhole/recordings';
import { describe, expect, test } from 'vitest';
import { mismatchesOf } from '../src/index.js';
import { filesOf, problemsOf, replayRun } from './replay-run.js';

const pseries = recordings.filter(({ meta }) => meta.machine === 'pseries');

const count = ({ meta }: Recording, pattern: RegExp): number =>
  Object.entries(meta.guestEvents)
    .filter(([event]) => pattern.test(event))
    .reduce((sum, [, events]) => sum + events, 0);

/** H_PUT_TCE and H_PUT_TCE_INDIRECT, by number, in the guest's trace. */
function mappingCalls({ files }: Recording): number {
  const trace = gunzipSync(readFileSync(files.guestTrace)).toString('latin1');
  return [...trace.matchAll(/hcall_entry: opcode=(32|316)$/gm)].length;
}

test('all of them are here', () => {
  expect(pseries.length).toBeGreaterThanOrEqual(15);
});

describe.each(pseries.map((recording) => [recording.name, recording] as const))(
  '%s',
  (name, recording) => {
    const run = replayRun(filesOf(recording));
    const { guest, inferred, findings } = run.report;
    const hasDma = count(recording, /^dma_/) > 0;
    const hcalls = count(recording, /^hcall_entry$/);

    test('nothing disagrees, every line was read', () => {
      expect(guest?.mismatches).toEqual([]);
      expect(run.report.hypervisor.mismatches).toEqual([]);
      expect(mismatchesOf(run.report)).toBe(0);
      expect(problemsOf(run)).toBe(0);
      expect(run.isRefused).toBe(false);
    });

    test('every mapping and every hypercall of the guest was checked', () => {
      expect(guest).toMatchObject({
        maps: count(recording, /^dma_map_/),
        unmaps: count(recording, /^dma_unmap_/),
        allocs: count(recording, /^dma_alloc$/),
        frees: count(recording, /^dma_free$/),
        failedMaps: 0,
        hcallsPredicted: hasDma ? hcalls : 0,
        hcallsUntraced: 0,
        hcallsByKind: hasDma ? 0 : hcalls,
        inconsistentAddresses: 0,
      });
      if (hasDma || inferred.ddw === 'created') return;
      expect(guest?.consistentAddresses).toBe(mappingCalls(recording));
    });

    test('the kernel, its page size and its CPUs are known', () => {
      expect(inferred).toMatchObject({
        kernel: recording.kernel,
        guestPageSize: recording.guestPageSize,
        release: recording.meta.linux.split(' ')[0],
        cpus: recording.meta.smp,
        boots: recording.boots,
      });
    });

    test('the second window is what QEMU says that it was', () => {
      const { spapr_iommu_ddw_create: created = 0, spapr_iommu_ddw_query: asked = 0 } =
        recording.meta.qemuEvents;
      expect(inferred.ddw).toBe(created > 0 ? 'created' : asked > 0 ? 'lost' : 'not asked for');
    });

    test('findings are errors where nothing is ever unmapped, and only there', () => {
      const errors = findings.filter(({ severity }) => severity === 'error');
      expect(errors.map(({ code }) => code)).toEqual(
        name.startsWith('linux7.2') && inferred.ddw === 'lost' ? ['E_TCE_LEAK'] : [],
      );
    });
  },
);

test('linux7.2-ddw-lost: nothing is unmapped, why, and when the window is full', () => {
  const recording = pseries.find(({ name }) => name === 'linux7.2-ddw-lost') as Recording;
  const { findings } = replayRun(filesOf(recording)).report;
  const leak = findings.find(({ code }) => code === 'E_TCE_LEAK');
  // The real machine's window was full after 262,144 TCEs: less the first of the window and the
  // last of each of its five pools, which are never handed out.
  expect(leak?.forecast).toMatchObject({ windowTces: 262_144, tcesWhenFull: 262_144 - 1 - 5 });
  expect(leak?.summary).toMatch(/nothing is ever unmapped/);
  expect(leak?.summary).toMatch(/creating the second window failed/);
  expect(leak?.count).toBe(recording.meta.guestEvents.dma_unmap_phys);
  const lost = findings.find(({ code }) => code === 'W_DDW_LOST');
  expect(lost?.summary).toMatch(/returned -3.*ibm,lrdr-capacity/);
});
