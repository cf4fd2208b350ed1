import type { VhostCounters, VhostDevice } from '@pinhole/qemu';
import type { RunReport } from './report.js';

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
