/** The one place that knows how the guest package words what it decided. */

import { findKernelProfile, findPolicy } from '@pinhole/guest';
import type { RunReport } from '../report.js';
import type { Scenario } from '../scenario-schema.js';
import type { ExplanationStep, PathId } from './explanation.js';
import type { ModelRun } from './model-run.js';

const IOMMU = 'arch/powerpc/platforms/pseries/iommu.c';

/** Which function of the kernel a step belongs to. */
const SOURCES: readonly { readonly pattern: RegExp; readonly function: string }[] = [
  { pattern: /query-pe-dma-window/, function: 'query_ddw' },
  { pattern: /create-pe-dma-window/, function: 'create_ddw' },
  { pattern: /mapped 1:1/, function: 'tce_setrange_multi_pSeriesLP' },
  { pattern: /exists already/, function: 'find_existing_ddw' },
  { pattern: /./, function: 'enable_ddw' },
];

/** What the guest's virtio does, and how its DMA ops came about. */
export function guestSteps({ scenario, report }: ModelRun): ExplanationStep[] {
  const flag = report.machine.flag;
  const vring: ExplanationStep = {
    side: 'guest',
    text: report.decision.because.split(';')[0] ?? '',
    fact: flag ? 'bit 33 was offered and accepted' : 'bit 33 was not offered',
    source: findPolicy(scenario.guest.policy)?.source ?? '',
  };
  const restricted: ExplanationStep = {
    side: 'guest',
    text: 'the driver accepts what is offered: powerpc has no check that refuses a device without bit 33',
    fact: `pseries${report.machine.secure ? ', secure guest' : ''}`,
    source: '[linux v6.1 drivers/virtio/virtio.c virtio_features_ok]',
  };
  if (report.negotiated === null) {
    return [{ ...restricted, text: `the driver gives up: ${report.refusal ?? ''}` }];
  }
  return [restricted, ...ddwSteps(scenario, report), vring];
}

function ddwSteps(scenario: Scenario, report: RunReport): ExplanationStep[] {
  const steps = report.decision.steps.map((step) =>
    step.replace(/^(streaming|coherent) mask: /, ''),
  );
  const result: ExplanationStep[] = [];
  for (const text of steps) {
    if (/create-pe-dma-window/.test(text)) result.push(sizeStep(scenario));
    const name = SOURCES.find(({ pattern }) => pattern.test(text))?.function ?? 'enable_ddw';
    const source = `[linux v6.1 ${IOMMU} ${name}]`;
    result.push({ side: 'guest', text, fact: 'virtio-pci asks for 64-bit DMA', source });
  }
  return result;
}

// What the second window's size comes from.
function sizeStep({ machine, guest }: Scenario): ExplanationStep {
  const profile = findKernelProfile(guest.kernel);
  const isLrdrOnly = profile?.ddw.maxMemoryFrom === 'lrdr-only';
  const lrdr =
    machine.maxMemory === undefined
      ? machine.qemu === '7.2'
        ? 'ibm,lrdr-capacity says 0: QEMU 7.2 without maxmem'
        : `ibm,lrdr-capacity says where memory ends: QEMU ${machine.qemu} without maxmem`
      : 'ibm,lrdr-capacity says how far maxmem reaches';
  return {
    side: 'guest',
    text: isLrdrOnly
      ? 'the window is made as large as ibm,lrdr-capacity says that memory can become'
      : 'the window is made as large as memory is or can become, whichever is more',
    fact: lrdr,
    source: profile?.ddw.source ?? '',
  };
}

/** Which path the run took. */
export function pathOf({ report, rows }: ModelRun): PathId {
  const { decision, counters, machine } = report;
  if (report.negotiated === null) return 'refused';
  if (rows.length === 0) return machine.secure ? 'unreachable' : 'unknown';
  const isPhysical = decision.dmaOps.includes('physical');
  if (isPhysical) return machine.secure ? 'unreachable' : 'physical';
  const isSecondWindow = /second window/.test(decision.because);
  if (counters.hcallsPerRequestTotal > 0) {
    if (isSecondWindow && !/default window/.test(decision.because)) return 'second-window-dynamic';
    return isLeaking(report) ? 'default-window-leak' : 'default-window';
  }
  if (counters.workload.bytesBounced > 0) {
    return isSecondWindow ? 'second-window-bounced' : 'bounced';
  }
  return 'second-window';
}

// Rings stay mapped: a few entries. Of a leak every buffer does, and one read was of 1 MiB.
function isLeaking({ counters }: RunReport): boolean {
  return counters.tcesLive >= 256 && counters.tcesLive === counters.tcesPeak;
}

/** Entries of the default window that a read of 4 KiB takes for good, where it leaks. */
export function leakPerRead({ rows }: ModelRun): number {
  return rows[0]?.hcalls ?? 0;
}
