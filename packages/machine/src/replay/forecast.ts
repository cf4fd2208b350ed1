/** How long a window lasts if the guest goes on as it did. */

import { IommuTable } from '@pinhole/guest';
import type { GuestWindow } from './guest-model.js';

/** What one mapping asked of the allocator. */
export interface MappingRequest {
  readonly npages: number;
  readonly alignOrder: number;
  readonly cpu: number;
}

/** When a window that is never given anything back is full. */
export interface ExhaustionForecast {
  /** TCEs of the window. */
  readonly windowTces: number;
  /** TCEs in use at the end of the trace. */
  readonly tcesInUse: number;
  /** Mappings like those of the trace until one finds no room. */
  readonly moreMappings: number;
  /** The same in requests of the device, if the log has any. */
  readonly moreRequests: number | undefined;
  /** TCEs in use when the first mapping fails. */
  readonly tcesAtFailure: number;
  /** How large the mapping is that fails first, in TCEs. */
  readonly failingTces: number;
  /** TCEs in use when not even one page finds room. */
  readonly tcesWhenFull: number;
}

/** A mapping that found no room. */
export interface FirstFailure {
  readonly window: GuestWindow;
  readonly request: MappingRequest;
  /** Entries. */
  readonly free: number;
}

/** Mappings kept: what the guest will go on with. */
export const FORECAST_SAMPLE = 4096;

/**
 * Lets the kernel's own allocator go on with the mappings of the trace, none given back, until one
 * fails; then with single pages until none fits.
 */
export function forecastExhaustion(
  table: IommuTable,
  requests: readonly MappingRequest[],
  mappingsPerRequest: number | undefined,
): ExhaustionForecast | undefined {
  if (requests.length === 0) return undefined;
  const future = table.clone();
  let moreMappings = 0;
  let failingTces = 0;
  while (failingTces === 0) {
    const { npages, alignOrder, cpu } = requests[moreMappings % requests.length] as MappingRequest;
    if (future.alloc(npages, alignOrder, cpu) < 0) failingTces = npages;
    else moreMappings += 1;
  }
  const tcesAtFailure = future.inUse;
  while (future.alloc(1, 0, 0) >= 0);
  return {
    windowTces: table.size,
    tcesInUse: table.inUse,
    moreMappings,
    moreRequests:
      mappingsPerRequest === undefined ? undefined : Math.floor(moreMappings / mappingsPerRequest),
    tcesAtFailure,
    failingTces,
    tcesWhenFull: future.inUse,
  };
}

/** Whether a mapping would not even fit an empty window: whoever asks again asks in vain. */
export function neverFits(
  window: GuestWindow,
  { npages, alignOrder, cpu }: MappingRequest,
): boolean {
  return new IommuTable(window).alloc(npages, alignOrder, cpu) < 0;
}
