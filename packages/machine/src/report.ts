import { formatSize } from '@pinhole/base';
import type { DeviceReach, PlatformCounters } from './architecture.js';
import type { RunEvidence } from './evidence.js';
import type { Outcome } from './outcome.js';
import type { VhostReport } from './vhost-report.js';
import type { WorkloadResult } from './workload.js';

/** What a run shows. Counters are counts of this run; sizes are bytes. */
export interface RunReport {
  readonly schemaVersion: 1;
  readonly title: string;
  readonly machine: {
    readonly arch: string;
    readonly memory: number;
    readonly qemu: string;
    readonly kernel: string;
    readonly policy: string;
    readonly secure: boolean;
    /** Who answers TCE hypercalls, on machines that have them. */
    readonly tceHandler: 'qemu' | 'kvm';
    /** `iommu_platform` of the device. */
    readonly flag: boolean;
    readonly diskSize: number;
  };
  /** `null`: the driver gave up, and `refusal` says why. */
  readonly negotiated: { readonly features: string; readonly names: readonly string[] } | null;
  readonly refusal: string | null;
  readonly decision: {
    /** Which DMA ops the guest's virtio used. */
    readonly dmaOps: string;
    /** Why, in one line. */
    readonly because: string;
    /** Which address space the device used, and why. */
    readonly device: string;
    readonly steps: readonly string[];
  };
  readonly warnings: readonly string[];
  /** The device's error messages. */
  readonly deviceErrors: readonly string[];
  readonly data: WorkloadResult;
  readonly counters: {
    /** Until the driver was up, and for the workload. */
    readonly setup: Pick<PlatformCounters, 'hcalls' | 'translations' | 'iommu'> & {
      /** TCEs that hypercalls wrote. */
      readonly tcesWritten: number;
    };
    readonly workload: Pick<
      PlatformCounters,
      'hcalls' | 'translations' | 'iommu' | 'bytesBounced'
    > & {
      /** TCEs that hypercalls wrote. */
      readonly tcesWritten: number;
      /** The driver's notifications, and the device's. */
      readonly kicks: number;
      readonly interrupts: number;
    };
    readonly dataSegments: number;
    readonly hcallsPerRequest: Readonly<Record<string, number>>;
    readonly hcallsPerRequestTotal: number;
    readonly translationsPerRequest: number;
    readonly tcesLive: number;
    readonly tcesPeak: number;
    readonly bytesShared: number;
    readonly ciphertextBytesRead: number;
    readonly privateBytesWriteRefused: number;
    /** Device accesses to guest memory that it was not given. */
    readonly strayBytesRead: number;
    readonly strayBytesWritten: number;
    /** Bytes of buffers that the device could not reach and silently dropped. */
    readonly bytesLost: number;
    /** Of the whole run; `null`: the data plane is QEMU's. */
    readonly vhost: VhostReport | null;
  };
  /** The most that the device could reach when it was kicked. */
  readonly reach: DeviceReach;
  /** Where what went wrong was first seen. */
  readonly evidence: RunEvidence;
  readonly verdict: { readonly outcome: Outcome; readonly text: string };
}

/** Everything of a report but the verdict. */
export type RunFacts = Omit<RunReport, 'verdict'>;

/** Judges a run by its counters alone. */
export function judge(facts: RunFacts): RunReport['verdict'] {
  const { data, counters, machine, reach } = facts;
  if (facts.negotiated === null) {
    return { outcome: 'refused', text: `no device: ${facts.refusal ?? 'unknown'}` };
  }
  const isolation = isolationText(facts);
  if (data.hung + data.failed + data.rejected > 0) {
    const stall = counters.vhost?.firstStall ?? null;
    const why = [
      stall === null ? undefined : `${stall}: the queue waits for ever`,
      facts.deviceErrors[0] === undefined ? undefined : `device: "${facts.deviceErrors[0]}"`,
      data.firstFailure,
      counters.ciphertextBytesRead > 0
        ? `it read ${formatSize(counters.ciphertextBytesRead)} of private memory as ciphertext`
        : undefined,
      strayText(facts),
    ].filter((text) => text !== undefined);
    return {
      outcome: 'fails',
      text: `I/O ${howItEnds(data)}: ${why.join('; ')}${isolation}`,
    };
  }
  if (data.bytesReadWrong + data.imageBytesWrong > 0) {
    const stray = strayText(facts);
    return {
      outcome: 'wrong-data',
      text:
        `silently wrong: every request succeeded, ${formatSize(data.bytesReadWrong)} read wrong, ` +
        `${formatSize(data.imageBytesWrong)} of the image wrong${stray === undefined ? '' : `; ${stray}`}${isolation}`,
    };
  }
  const perRequest = counters.hcallsPerRequestTotal;
  const commands = counters.workload.iommu.commands / Math.max(1, data.requests);
  const iotlb = iotlbCost(counters);
  if (perRequest > 0 || commands >= 1 || iotlb !== undefined) {
    const cost = [
      perRequest > 0 ? `${round(perRequest)} hypercalls` : undefined,
      commands >= 1 ? `${round(commands)} IOMMU commands` : undefined,
      iotlb,
    ];
    const costs = cost.filter((text) => text !== undefined).join(', ');
    return {
      outcome: 'works-slow',
      text: `correct, at ${costs} a request; the device reached at most ${formatSize(reach.addressable)}${isolation}`,
    };
  }
  const { maps } = counters.workload.iommu;
  const cost =
    counters.workload.bytesBounced > 0
      ? 'every byte bounced'
      : maps === 0
        ? 'no cost per request'
        : `${round(maps / Math.max(1, data.requests))} maps a request, without a command for each`;
  const openness = machine.secure ? '' : `; the device reaches ${formatSize(reach.addressable)}`;
  return { outcome: 'works', text: `correct, ${cost}${openness}${isolation}` };
}

/** A request that fails is over; after one that hangs there is no other. */
function howItEnds({ failed, rejected, hung }: WorkloadResult): string {
  if (hung === 0) return 'fails';
  return failed + rejected === 0 ? 'hangs' : 'fails, then hangs';
}

function iotlbCost(counters: RunFacts['counters']): string | undefined {
  const { vhost } = counters;
  if (vhost === null || !paysForTranslations(counters)) return undefined;
  const invalidations = round(vhost.invalidatesPerRequest);
  return `${round(vhost.missesPerRequest)} IOTLB misses and ${invalidations} invalidations`;
}

// Only a secure guest has something to isolate: what it did not share.
function isolationText({ machine, reach, data, evidence }: RunFacts): string {
  if (!machine.secure) return '';
  const exposed = data.privateBytesExposed;
  const sentTo = evidence.privatePagesTouched.count;
  return exposed === 0
    ? `; ${sentTo === 0 ? 'isolation holds' : 'sent to private pages, and saw none in clear'}: of ${formatSize(reach.addressable)} the device sees ${formatSize(reach.plaintext)} in clear, all of it shared`
    : `; isolation is broken: ${formatSize(exposed)} of private buffers seen in clear`;
}

function strayText({ counters }: RunFacts): string | undefined {
  const { strayBytesRead, strayBytesWritten } = counters;
  if (strayBytesRead + strayBytesWritten === 0) return undefined;
  return `the device read ${formatSize(strayBytesRead)} and wrote ${formatSize(strayBytesWritten)} that it was never given`;
}

/** At most two decimals. */
function round(value: number): number {
  return Math.round(value * 100) / 100;
}

/**
 * Whether requests pay for translations again and again: what vhost had is dropped, or each request maps
 * pages of its own. The first use of a page that stays mapped is no price of a request.
 */
export function paysForTranslations(counters: RunReport['counters']): boolean {
  const { vhost, workload } = counters;
  if (vhost === null) return false;
  const mapsAnew = counters.hcallsPerRequestTotal + workload.iommu.maps > 0;
  return vhost.evictions + vhost.invalidates > 0 || (mapsAnew && vhost.missesPerRequest >= 1);
}
