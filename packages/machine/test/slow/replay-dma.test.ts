/**
 * Every recording of x86, arm64 and s390x, all files joined, inference included: nothing disagrees, and
 * nothing is passed over. What is expected is counted by meta.json.
 */
import { type Recording, recordings } from '@pinhole/recordings';
import { describe, expect, test } from 'vitest';
import { mismatchesOf } from '../../src/index.js';
import { filesOf, problemsOf, replayRun } from '../replay-run.js';

const PLATFORMS: Readonly<Record<string, string>> = {
  q35: 'x86-64',
  virt: 'arm64',
  's390-ccw-virtio': 's390x',
};
const others = recordings.filter(({ meta }) => meta.machine in PLATFORMS);

/** What stands between the devices and memory, by the command line. */
function iommuOf({ meta: { qemuCommand } }: Recording): string {
  return /intel-iommu|smmuv3|virtio-iommu/.exec(qemuCommand)?.[0] ?? 'none';
}

test('all of them are here', () => {
  expect(others.length).toBeGreaterThanOrEqual(13);
});

describe.each(others.map((recording) => [recording.name, recording] as const))(
  '%s',
  (_, recording) => {
    const run = replayRun(filesOf(recording));
    const { guest, hypervisor, inferred, findings } = run.report;
    const { qemuEvents: log, guestEvents: trace, machine, linux, smp } = recording.meta;
    const iommu = iommuOf(recording);

    test('nothing disagrees, every line was read', () => {
      expect(guest?.mismatches).toEqual([]);
      expect(hypervisor.mismatches).toEqual([]);
      expect([mismatchesOf(run.report), problemsOf(run), run.isRefused]).toEqual([0, 0, false]);
      expect(findings.filter(({ severity }) => severity !== 'info')).toEqual([]);
    });

    const hasDma = trace.dma_map_page !== undefined;

    test('the machine is known', () => {
      expect(inferred).toMatchObject({
        platform: PLATFORMS[machine],
        iommu,
        joined: hasDma ? 'by requests' : 'not joined: the trace has no mappings',
        kernel: recording.kernel,
        release: linux.split(' ')[0],
        cpus: smp,
        boots: recording.boots,
      });
    });

    test('every mapping of the guest and every access of the devices was checked', () => {
      const { map = 0, unmap = 0 } = trace;
      const paired = { 'virtio-iommu': map + unmap, smmuv3: unmap }[iommu] ?? 0;
      expect(guest).toMatchObject({
        maps: trace.dma_map_page ?? 0,
        unmaps: trace.dma_unmap_page ?? 0,
        allocs: trace.dma_alloc ?? 0,
        failedMaps: 0,
        consistentAddresses: hasDma ? 0 : map,
        rangesPaired: paired,
      });
      const accesses =
        (log.vtd_dmar_translate ?? 0) +
        (log.smmuv3_translate_success ?? 0) +
        (log.virtio_iommu_translate ?? 0);
      expect(hypervisor).toMatchObject({ requests: log.virtqueue_pop, translations: accesses });
    });

    test('each request of the disk is made of mappings of the trace', () => {
      if (!hasDma) return;
      const own = (log.virtio_blk_req_complete ?? 0) / recording.boots;
      // A PC's firmware reads one sector.
      expect(guest?.requestsJoined).toBe(own - (machine === 'q35' ? 1 : 0));
    });
  },
);
