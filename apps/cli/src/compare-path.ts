import type { RunReport } from '@pinhole/machine';

/** One path of the comparison. */
export interface ComparedPath {
  readonly number: number;
  /** The scenario's name. */
  readonly id: string;
  readonly report: RunReport;
}

/** The TCE hypercalls, in the order in which tables show them. */
export const HCALL_KINDS = ['H_PUT_TCE', 'H_PUT_TCE_INDIRECT', 'H_STUFF_TCE'] as const;

/** Hypercalls of one kind a request; two decimals. */
export function perRequest(report: RunReport, kind: string): string {
  return decimals(report.counters.hcallsPerRequest[kind] ?? 0);
}

/** `0` for nothing, else two decimals. */
export function decimals(value: number): string {
  return value === 0 ? '0' : value.toFixed(2);
}

/** Whether the data was right, in a word or two. */
export function dataText({ negotiated, data }: RunReport): string {
  if (negotiated === null) return 'no device';
  if (data.hung + data.failed + data.rejected > 0) return 'I/O fails';
  return data.bytesReadWrong + data.imageBytesWrong > 0 ? 'WRONG' : 'correct';
}

/** What was negotiated, in short. */
export function negotiatedText({ negotiated }: RunReport): string {
  if (negotiated === null) return 'refused';
  const has = (name: string): boolean => negotiated.names.includes(name);
  const missing = ['INDIRECT_DESC', 'EVENT_IDX'].filter((name) => !has(`VIRTIO_RING_F_${name}`));
  const flag = has('VIRTIO_F_ACCESS_PLATFORM') ? 'ACCESS_PLATFORM' : 'no flag';
  return [flag, ...missing.map((name) => `no ${name}`)].join(', ');
}

/** One sentence about all of them, from their outcomes. */
export function summarize(paths: readonly ComparedPath[]): string {
  const groups = [
    ['works', 'Correct without a hypercall per request'],
    ['works-slow', 'Correct, paid for with hypercalls'],
    ['fails', 'I/O fails'],
    ['wrong-data', 'Data silently wrong'],
    ['refused', 'No device'],
  ] as const;
  return groups
    .map(([outcome, text]) => {
      const numbers = paths
        .filter(({ report }) => report.verdict.outcome === outcome)
        .map(({ number }) => number);
      return numbers.length === 0 ? '' : `${text}: ${numbers.join(', ')}`;
    })
    .filter((text) => text !== '')
    .join('. ')
    .concat('.');
}
