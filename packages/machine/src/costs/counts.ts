/** What a run counts, apart: what was paid once, and what its requests go on paying. */
import { paysForTranslations, type RunReport } from '../report.js';

/** Counts of one part of a run. */
export interface CostCounts {
  readonly requests: number;
  readonly bytesMoved: number;
  readonly kicks: number;
  readonly interrupts: number;
  /** By who answers them; calls that share memory are apart. */
  readonly hcallsInQemu: number;
  readonly hcallsInKvm: number;
  readonly tcesInQemu: number;
  readonly tcesInKvm: number;
  readonly shareCalls: number;
  readonly iommuMaps: number;
  readonly iommuCommands: number;
  /** QEMU's own; what vhost asks for is in its misses. */
  readonly translations: number;
  readonly iotlbMisses: number;
  readonly iotlbInvalidations: number;
  readonly bytesBounced: number;
}

/**
 * What was paid once: until the driver was up, and for the first uses of pages that stay mapped. vhost
 * asks at the first use of such a page; nothing else that a run counts happens only at first.
 */
export function countsOnce(report: RunReport): CostCounts {
  const { counters, data } = report;
  const { setup, vhost } = counters;
  return {
    ...NOTHING,
    ...callCounts(report, setup.hcalls, setup.tcesWritten),
    ...iommuCounts(setup.iommu),
    translations: vhost === null ? setup.translations : 0,
    iotlbMisses: (vhost?.misses ?? 0) - missesPaid(report),
    iotlbInvalidations:
      (vhost?.invalidates ?? 0) - (vhost?.invalidatesPerRequest ?? 0) * data.requests,
  };
}

/**
 * What the requests pay again and again, in all of them. A run that pays for translations has its first
 * uses among them: each one is a mapping of its own, or dropped before it is used again.
 */
export function countsOfRequests(report: RunReport): CostCounts {
  const { counters, data } = report;
  const { workload, vhost } = counters;
  return {
    ...callCounts(report, workload.hcalls, workload.tcesWritten),
    ...iommuCounts(workload.iommu),
    requests: data.requests,
    bytesMoved: data.bytesRead + data.bytesWritten,
    kicks: workload.kicks,
    interrupts: workload.interrupts,
    translations: vhost === null ? workload.translations : 0,
    iotlbMisses: missesPaid(report),
    iotlbInvalidations: (vhost?.invalidatesPerRequest ?? 0) * data.requests,
    bytesBounced: workload.bytesBounced,
  };
}

const NOTHING = { requests: 0, bytesMoved: 0, kicks: 0, interrupts: 0, bytesBounced: 0 } as const;

/** What KVM can answer. [linux v6.1.192 arch/powerpc/kvm/book3s_64_vio.c] */
const TCE_HCALLS: readonly string[] = [
  'H_GET_TCE',
  'H_PUT_TCE',
  'H_PUT_TCE_INDIRECT',
  'H_STUFF_TCE',
];
/** By name: PEF's, Secure Execution's, pKVM's. */
const SHARE_CALL = /^UVC?_|_MEM_(UN)?SHARE_/;

function callCounts(
  { machine }: RunReport,
  hcalls: Readonly<Record<string, number>>,
  tces: number,
): Pick<CostCounts, 'hcallsInQemu' | 'hcallsInKvm' | 'tcesInQemu' | 'tcesInKvm' | 'shareCalls'> {
  const count = (is: (name: string) => boolean): number =>
    Object.entries(hcalls).reduce((sum, [name, made]) => sum + (is(name) ? made : 0), 0);
  const isKvm = machine.tceHandler === 'kvm';
  const shareCalls = count((name) => SHARE_CALL.test(name));
  const hcallsInKvm = isKvm ? count((name) => TCE_HCALLS.includes(name)) : 0;
  return {
    hcallsInQemu: count(() => true) - shareCalls - hcallsInKvm,
    hcallsInKvm,
    tcesInQemu: isKvm ? 0 : tces,
    tcesInKvm: isKvm ? tces : 0,
    shareCalls,
  };
}

function iommuCounts({
  maps,
  unmaps,
  commands,
}: RunReport['counters']['setup']['iommu']): Pick<CostCounts, 'iommuMaps' | 'iommuCommands'> {
  return { iommuMaps: maps + unmaps, iommuCommands: commands };
}

function missesPaid({ counters, data }: RunReport): number {
  if (counters.vhost === null || !paysForTranslations(counters)) return 0;
  return counters.vhost.missesPerRequest * data.requests;
}
