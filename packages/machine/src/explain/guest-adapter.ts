/** The one place that knows how the guest package words what it decided. */
import { findKernelProfile, findPolicy } from '@pinhole/guest';
import type { ExplanationStep, PathId } from './explanation.js';
import type { ModelRun } from './model-run.js';

const guest = (step: Omit<ExplanationStep, 'side'>): ExplanationStep => ({
  side: 'guest',
  ...step,
});

/** What the guest's virtio does, and how its DMA ops came about. */
export function guestSteps(run: ModelRun): ExplanationStep[] {
  const { report, scenario } = run;
  // Any PCI device sets the DMA API up at its probe, whatever virtio does later.
  const dma = run.dma.steps.map(({ what, fact, source }) => {
    const isSize = what.includes('ddw_memory_hotplug_max');
    return guest({ text: what, fact: isSize ? `${fact}; ${lrdrFact(run)}` : fact, source });
  });
  if (report.negotiated === null) return [...dma, refusalStep(run)];
  const { flag } = report.machine;
  // Why virtio does or does not use the DMA API; then what that is here.
  const [because = '', ...api] = report.decision.because.split('; ');
  const vring = guest({
    text: `does virtio use the DMA API? ${because}`,
    fact: flag ? 'bit 33 was offered and accepted' : 'bit 33 was not offered',
    source: findPolicy(scenario.guest.policy)?.source ?? '',
  });
  const ops = guest({
    text: `what the DMA API is here: ${api.join('; ')}`,
    fact: `the DMA operations of this device: ${report.decision.dmaOps}`,
    source: '[linux v6.1 kernel/dma/mapping.c dma_map_page_attrs]',
  });
  return [acceptStep(run), ...dma, vring, ...(api.length > 0 ? [ops] : [])];
}

function refusalStep({ report, scenario }: ModelRun): ExplanationStep {
  return guest({
    text: `the driver gives up: ${report.refusal ?? ''}`,
    fact: `bit 33 is ${report.machine.flag ? '' : 'not '}offered`,
    source: restrictedSource(scenario.guest.kernel),
  });
}

function acceptStep({ isRestricted, scenario, report, secure }: ModelRun): ExplanationStep {
  return guest({
    text: isRestricted
      ? 'the driver accepts the device: it has bit 33, without which this kernel would refuse it'
      : 'the driver accepts the device: nothing in this kernel would refuse one without bit 33 here',
    fact:
      secure === '' ? report.machine.arch : `${report.machine.arch}, a secure guest (${secure})`,
    source: restrictedSource(scenario.guest.kernel),
  });
}

function restrictedSource(kernel: string): string {
  return findKernelProfile(kernel)?.restrictedAccess.source ?? '';
}

// What the second window's size comes from, in terms of QEMU's options.
function lrdrFact({ scenario: { machine } }: ModelRun): string {
  if (machine.maxMemory !== undefined && machine.maxMemory > machine.memory) {
    return 'ibm,lrdr-capacity says how far maxmem reaches';
  }
  return machine.qemu === '7.2'
    ? 'ibm,lrdr-capacity says 0: QEMU 7.2 without maxmem'
    : `ibm,lrdr-capacity says where memory ends: QEMU ${machine.qemu} without maxmem`;
}

/** Which path the run took: by its counts, and by the names of DMA operations. */
export function pathOf({ report, dma, rows }: ModelRun): PathId {
  const { decision, machine } = report;
  const isPhysical = decision.dmaOps.includes('physical');
  const [first] = rows;
  if (report.negotiated === null) return 'refused';
  if (first === undefined) {
    if (machine.secure) return 'unreachable';
    return !machine.flag && !isPhysical ? 'mismatched' : 'unknown';
  }
  if (isPhysical) return machine.secure ? 'unreachable' : 'physical';
  const isSecondWindow = /second window:/.test(decision.because);
  if (first.hcalls > 0) {
    if (/nothing is ever unmapped/.test(decision.because)) return 'default-window-leak';
    return isSecondWindow ? 'second-window-dynamic' : 'default-window';
  }
  if (first.iommu.maps > 0) return decision.dmaOps.includes('grant') ? 'grants' : 'viommu';
  if (first.bytesCopied > 0) return isSecondWindow ? 'second-window-bounced' : 'bounced';
  if (isSecondWindow) return 'second-window';
  return dma.hasBusOffset ? 'bus-offset' : 'no-iommu';
}

/** Entries of the default window that a read of 4 KiB takes for good, where it leaks. */
export function leakPerRead({ rows }: ModelRun): number {
  return rows[0]?.hcalls ?? 0;
}
