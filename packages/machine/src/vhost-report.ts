import type { VhostCounters, VhostDevice } from '@pinhole/qemu';

/** What vhost did in a run. */
export interface VhostReport extends VhostCounters {
  /** During the workload. */
  readonly missesPerRequest: number;
  readonly invalidatesPerRequest: number;
  /** What a queue stopped at first; `null`: none did. */
  readonly firstStall: string | null;
}

/** @param setup - the counters when the driver was up. */
export function describeVhost(
  device: VhostDevice | undefined,
  setup: VhostCounters | undefined,
  requests: number,
): VhostReport | null {
  if (device === undefined) return null;
  const { counters, firstStall } = device;
  return {
    ...counters,
    missesPerRequest: (counters.misses - (setup?.misses ?? 0)) / requests,
    invalidatesPerRequest: (counters.invalidates - (setup?.invalidates ?? 0)) / requests,
    firstStall: firstStall?.message ?? null,
  };
}
