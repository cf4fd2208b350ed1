/**
 * The first requests of a disk behind an emulated IOMMU, in the guest's own trace and in a run of the model:
 * the same pages of the bus are mapped and unmapped, in the same order.
 */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { hex, type TraceEvent, Tracer } from '@pinhole/base';
import { findRecording, type RecordingName } from '@pinhole/recordings';
import { createMemorySink, readFtrace } from '@pinhole/trace';
import { expect, test } from 'vitest';
import { parseScenario, runScenario } from '../src/index.js';

const PAGE = 0x1000n;

/** virt's GICv2m, to which interrupts are written. [qemu v7.2 hw/arm/virt.c VIRT_GIC_V2M] */
const DOORBELL = '0x8020000';

/** `map` and `unmap` of each page; what a whole range has at once, its pages have one by one. */
function pagesOf(events: Iterable<TraceEvent>): string[] {
  const pages: string[] = [];
  for (const { name, args } of events) {
    if (name !== 'map' && name !== 'unmap') continue;
    const target = args.paddr === undefined ? '' : hex(args.paddr as bigint);
    const isDoorbell = target === DOORBELL;
    for (
      let iova = args.iova as bigint;
      iova < (args.iova as bigint) + BigInt(args.size as number);
      iova += PAGE
    ) {
      pages.push(`${name} ${hex(iova)}${isDoorbell ? ' the doorbell' : ''}`);
    }
  }
  return pages;
}

function recorded(name: RecordingName): string[] {
  const trace = gunzipSync(readFileSync(findRecording(name).files.guestTrace)).toString('utf8');
  return pagesOf(readFtrace(trace).events);
}

function modelled(kernel: string, machine: string, reads: number): string[] {
  const sink = createMemorySink();
  const scenario = parseScenario(`machine: { ${machine}, memory: 2GiB }
guest: { kernel: ${kernel} }
devices: [{ type: virtio-blk, iommuPlatform: true }]
workload: [{ read: { offset: 0, length: ${reads * 4}KiB, block: 4KiB } }]`);
  runScenario(scenario, { tracer: new Tracer(sink) });
  return pagesOf(sink.events);
}

/**
 * The eleventh header lies across two pages in one of Arm's recordings. On x86-64 unmaps are deferred, and
 * the timer gives their ranges back after three requests of that machine; no time passes in the model.
 */
test.each([
  ['linux6.1-arm64-smmuv3', 'linux-6.1', 'arch: arm64, iommu: smmuv3', 10],
  ['linux6.12-arm64-smmuv3', 'linux-6.12', 'arch: arm64, iommu: smmuv3', 10],
  ['linux6.12-arm64-virtio-iommu', 'linux-6.12', 'arch: arm64, iommu: virtio-iommu', 10],
  ['linux6.1-x86-intel-iommu', 'linux-6.1', 'arch: x86-64, iommu: intel-iommu', 3],
  ['linux6.12-x86-intel-iommu', 'linux-6.12', 'arch: x86-64, iommu: intel-iommu', 3],
  ['linux6.12-x86-virtio-iommu', 'linux-6.12', 'arch: x86-64, iommu: virtio-iommu', 3],
] as const)('%s', (name, kernel, machine, reads) => {
  const model = modelled(kernel, machine, reads);
  const doorbells = machine.includes('smmuv3') ? 1 : 0;
  // The ring's two pages; header, data, status and indirect table of each read.
  expect(model).toHaveLength(doorbells + 2 + reads * 8);
  expect(model).toEqual(recorded(name).slice(0, model.length));
});
