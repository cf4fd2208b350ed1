import type { CellResult } from '@pinhole/machine';

type Costs = NonNullable<CellResult['costs']>;

/** What a cell would cost, in a sentence; nothing where there is no estimate. */
export function costSentence(costs: Costs | null): string | undefined {
  if (costs === null) return undefined;
  const { preset, dominates, assumedShare } = costs;
  if (dominates === null) return 'estimate: as fast as physical addresses';
  return `estimate: ${throughputText(costs)} of the throughput of physical addresses, mostly for ${dominates} (${preset}, ${percent(assumedShare)} assumed)`;
}

/** `0.50 (0.15 to 0.85)` */
export function throughputText({ throughput: { low, mid, high } }: Costs): string {
  return low === high ? ratio(mid) : `${ratio(mid)} (${ratio(low)} to ${ratio(high)})`;
}

/** A share of 1, in whole percent. */
export function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

function ratio(value: number): string {
  return value >= 0.995 ? '1' : value.toPrecision(2);
}
