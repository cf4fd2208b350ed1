/** What a recorded run's replay takes and gives: what all kinds of machines have in common. */
import type { TraceEvent } from '@pinhole/base';
import type { ConsoleDigest } from './console-digest.js';
import type { Finding } from './findings.js';
import type { GuestReplayResult } from './guest-replay.js';
import type { HypervisorReplayResult, ReplayMismatch } from './hypervisor-replay.js';
import type { Inference } from './inference.js';
import type { IommuReplay } from './iommu-replay.js';
import type { RunObserver } from './run-observer.js';
import type { RunFacts } from './run-scout.js';
import type { VirtqueueReplay } from './virtqueue-replay.js';
import type { WindowUse } from './window-use.js';

/** Options of `createRunReplay`. */
export interface RunReplayOptions {
  readonly facts: RunFacts;
  readonly inference: Inference;
  /** As the machine had it, where the log does not tell. */
  readonly dmaWindowSize?: number;
  readonly pageSizes?: bigint;
  /** How many mismatches of each kind are kept. Default 10. */
  readonly keep?: number;
  /** Is told of everything, in one order. */
  readonly observer?: RunObserver;
}

/** What QEMU's log has of the devices' side. */
export interface DeviceSideResult {
  /** Requests that devices took off virtqueues. */
  readonly requests: number;
  readonly requestMismatches: number;
  /** What the guest told its emulated IOMMU: descriptors, commands or requests. */
  readonly invalidations: number;
  readonly invalidationMismatches: number;
}

/** What a replay found. */
export interface RunReplayResult {
  readonly hypervisor: HypervisorReplayResult & DeviceSideResult;
  readonly guest: GuestReplayResult | undefined;
}

/** What a run's findings are made of. */
export interface RunEvidence {
  readonly facts: RunFacts;
  readonly inference: Inference;
  readonly console: ConsoleDigest;
}

/** What was seen of bounce buffers, in the form of the report. */
export interface SwiotlbReport {
  readonly base: string;
  readonly bytes: number;
  readonly areas: number;
  readonly from: string;
  readonly isForced: boolean;
  readonly slots: number;
  /** Slots in use at most. */
  readonly peak: number;
}

/**
 * Takes the events of both files, each in its order; `wants` says of which it needs more. Keeps what
 * is mapped and a bounded look ahead, not the events.
 */
export interface RunReplay {
  /** Which file it needs more of; undefined: none. */
  readonly wants: 'qemu' | 'guest' | undefined;
  qemuEvent(event: TraceEvent, line: number): void;
  guestEvent(event: TraceEvent, line: number): void;
  endQemu(): void;
  endGuest(): void;
  /** After both have ended. */
  result(): RunReplayResult;
  /** TCE windows that the guest allocates from, and how full they are. */
  windows(): WindowUse[];
  /** The guest's bounce buffers; undefined: it used none. */
  swiotlb(): SwiotlbReport | undefined;
  /** How the two files were joined, or why not. */
  readonly join: string;
  findings(evidence: RunEvidence): Finding[];
}

/** The devices' side of a result, and the mismatches that there were. */
export function deviceSideOf(
  requests: VirtqueueReplay,
  iommu: IommuReplay | undefined,
): DeviceSideResult & { readonly kept: readonly ReplayMismatch[] } {
  return {
    requests: requests.requests,
    requestMismatches: requests.mismatches.count,
    invalidations: iommu?.invalidations ?? 0,
    invalidationMismatches: iommu?.invalidationMismatches.count ?? 0,
    kept: [
      ...(iommu?.translationMismatches.kept ?? []),
      ...(iommu?.invalidationMismatches.kept ?? []),
      ...requests.mismatches.kept,
    ],
  };
}
