/** The one place that knows how the guest package words what it decided. */
import { createRng, NO_TRACE } from '@pinhole/base';
import { findKernelProfile, findPolicy } from '@pinhole/guest';
import { architectures } from '../architectures/index.js';
import type { Scenario } from '../scenario-config.js';
import type { ExplanationStep, PathId } from './explanation.js';
import type { ModelRun } from './model-run.js';

/** What the guest's virtio does, and how its DMA ops came about. */
export function guestSteps({ scenario, report }: ModelRun): ExplanationStep[] {
  const { flag, secure } = report.machine;
  const kernel = findKernelProfile(scenario.guest.kernel);
  if (report.negotiated === null) {
    return [
      {
        side: 'guest',
        text: `the driver gives up: ${report.refusal ?? ''}`,
        fact: `bit 33 is ${flag ? '' : 'not '}offered`,
        source: '[linux v6.1 drivers/virtio/virtio.c virtio_features_ok]',
      },
    ];
  }
  const accepts: ExplanationStep = {
    side: 'guest',
    text: 'the driver accepts the device: powerpc has no check that refuses one without bit 33',
    fact: secure ? 'pseries, even in a secure guest' : 'pseries',
    source: kernel?.restrictedAccess.source ?? '',
  };
  const [because = ''] = report.decision.because.split('; ');
  const vring: ExplanationStep = {
    side: 'guest',
    text: `does virtio use the DMA API? ${because}`,
    fact: flag ? 'bit 33 was offered and accepted' : 'bit 33 was not offered',
    source: findPolicy(scenario.guest.policy)?.source ?? '',
  };
  return [accepts, ...dmaSteps(scenario), vring];
}

// Any PCI device that asks for 64-bit DMA sets the windows up, whatever virtio does later.
function dmaSteps(scenario: Scenario): ExplanationStep[] {
  const { machine, guest, seed } = scenario;
  const kernel = findKernelProfile(guest.kernel);
  const pseries = architectures.find(({ id }) => id === 'pseries');
  if (kernel === undefined || pseries === undefined) return [];
  const rng = createRng(seed);
  const { dma } = pseries.build({ machine, guest, kernel, rng, tracer: NO_TRACE });
  return dma.steps.map(({ what, fact, source }): ExplanationStep => {
    const isSize = what.includes('ddw_memory_hotplug_max');
    return {
      side: 'guest',
      text: what,
      fact: isSize ? `${fact}; ${lrdrFact(scenario)}` : fact,
      source,
    };
  });
}

// What the second window's size comes from, in terms of QEMU's options.
function lrdrFact({ machine }: Scenario): string {
  if (machine.maxMemory !== undefined && machine.maxMemory > machine.memory) {
    return 'ibm,lrdr-capacity says how far maxmem reaches';
  }
  return machine.qemu === '7.2'
    ? 'ibm,lrdr-capacity says 0: QEMU 7.2 without maxmem'
    : `ibm,lrdr-capacity says where memory ends: QEMU ${machine.qemu} without maxmem`;
}

/** Which path the run took. */
export function pathOf({ report, rows }: ModelRun): PathId {
  const { decision, counters, machine } = report;
  if (report.negotiated === null) return 'refused';
  if (rows.length === 0 && machine.secure) return 'unreachable';
  const isPhysicalDevice = !machine.flag && !decision.dmaOps.includes('physical');
  if (rows.length === 0) return isPhysicalDevice ? 'mismatched' : 'unknown';
  if (decision.dmaOps.includes('physical')) return machine.secure ? 'unreachable' : 'physical';
  const isSecondWindow = /second window:/.test(decision.because);
  if (counters.hcallsPerRequestTotal > 0) {
    if (/nothing is ever unmapped/.test(decision.because)) return 'default-window-leak';
    return isSecondWindow ? 'second-window-dynamic' : 'default-window';
  }
  if (counters.workload.bytesBounced > 0) {
    return isSecondWindow ? 'second-window-bounced' : 'bounced';
  }
  return 'second-window';
}

/** Entries of the default window that a read of 4 KiB takes for good, where it leaks. */
export function leakPerRead({ rows }: ModelRun): number {
  return rows[0]?.hcalls ?? 0;
}
