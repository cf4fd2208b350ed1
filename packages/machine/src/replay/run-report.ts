/** What a replay has to say, as one object: the JSON of `pinhole replay`. */
import { hex } from '@pinhole/base';
import type { ConsoleDigest } from './console-digest.js';
import { liobnOf, routeFrom } from './device-route.js';
import type { Finding } from './findings.js';
import type { GuestReplayResult } from './guest-replay.js';
import type { HypervisorReplayResult } from './hypervisor-replay.js';
import type { Inference } from './inference.js';
import type { DeviceSideResult, RunReplay, SwiotlbReport } from './run-result.js';
import type { RunFacts } from './run-scout.js';

/** What was inferred, in the form of the report. */
interface InferredReport {
  /** The machine, and what stands between its devices and memory. */
  readonly platform: string;
  readonly iommu: string;
  readonly swiotlb: SwiotlbReport | null;
  /** How requests of QEMU's log and mappings of the guest's trace were joined. */
  readonly joined: string;
  readonly kernel: string;
  readonly kernelFrom: string;
  readonly release: string | null;
  readonly guestPageSize: number;
  readonly cpus: number | null;
  readonly liobns: readonly string[];
  readonly ddw: string;
  readonly boots: number;
  readonly windows: readonly {
    readonly liobn: string;
    readonly busOffset: string;
    readonly tces: number;
    readonly live: number;
    readonly peak: number;
  }[];
  readonly devices: Readonly<Record<string, string>>;
}

/** A replay's result. */
export interface ReplayReport {
  readonly schemaVersion: 1;
  readonly inferred: InferredReport;
  readonly hypervisor: HypervisorReplayResult & DeviceSideResult;
  readonly guest: GuestReplayResult | null;
  readonly findings: readonly Finding[];
}

/** Disagreements of model and files, in all. */
export function mismatchesOf({
  hypervisor,
  guest,
}: Pick<ReplayReport, 'hypervisor' | 'guest'>): number {
  const own =
    hypervisor.hcallMismatches +
    hypervisor.translationMismatches +
    hypervisor.rtasMismatches +
    hypervisor.requestMismatches +
    hypervisor.invalidationMismatches;
  if (guest === null) return own;
  return (
    own +
    guest.dmaAddressMismatches +
    guest.hcallMismatches +
    guest.inconsistentAddresses +
    guest.requestMismatches +
    guest.rangeMismatches
  );
}

/** Everything that a report is made of. */
export interface ReplayEvidence {
  readonly facts: RunFacts;
  readonly inference: Inference;
  readonly console: ConsoleDigest;
  readonly replay: RunReplay;
}

/** Makes the report, after both files have ended. */
export function reportRun(evidence: ReplayEvidence): ReplayReport {
  const { facts, inference, replay } = evidence;
  const { hypervisor, guest } = replay.result();
  const windows = replay.windows();
  return {
    schemaVersion: 1,
    inferred: {
      platform: inference.platform.machine,
      iommu: inference.platform.iommu,
      swiotlb: replay.swiotlb() ?? null,
      joined: replay.join,
      kernel: inference.kernel.id,
      kernelFrom: inference.kernelFrom,
      release: inference.release ?? null,
      guestPageSize: inference.guestPageSize,
      cpus: inference.cpus ?? null,
      liobns: hypervisor.liobns,
      ddw: inference.ddw,
      boots: Math.max(facts.boots.length, facts.requests.boots),
      windows: windows.map(({ liobn, busOffset, size, live, peak }) => ({
        liobn: hex(liobn),
        busOffset: hex(busOffset),
        tces: size,
        live,
        peak,
      })),
      devices: devicesOf(facts, inference),
    },
    hypervisor,
    guest: guest ?? null,
    findings: replay.findings(evidence),
  };
}

function devicesOf({ guest }: RunFacts, { platform, pool }: Inference): Record<string, string> {
  const indirect =
    platform.iommu === 'spapr-tce' ? 'window' : pool === undefined ? 'IOVA' : 'bounce buffer';
  const devices: Record<string, string> = {};
  for (const [device, maps] of guest?.devices ?? []) {
    const { kind, offset } = routeFrom(maps, liobnOf(device));
    devices[device] = kind === 'window' ? indirect : `physical address + ${hex(offset)}`;
  }
  return devices;
}
