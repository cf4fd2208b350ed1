import { formatSize } from '@pinhole/base';
import { COST_ITEMS, type CostEstimate, type RunReport } from '@pinhole/machine';
import { percent, throughputText, timeRange } from './costs.js';

/** One path of the comparison. */
export interface ComparedPath {
  readonly number: number;
  /** The scenario's name. */
  readonly id: string;
  readonly report: RunReport;
  /** Of the time, on the architecture's default machine; `null` where none can be made. */
  readonly costs?: CostEstimate | null;
}

/** The TCE hypercalls, in the order in which tables show them. */
const TCE_HCALLS = ['H_PUT_TCE', 'H_PUT_TCE_INDIRECT', 'H_STUFF_TCE'] as const;

/** The hypercalls to show: those on TCEs, and any other that a request made. */
export function hcallKinds(paths: readonly ComparedPath[]): string[] {
  const made = paths.flatMap(({ report }) => Object.keys(report.counters.hcallsPerRequest));
  return [...new Set<string>([...TCE_HCALLS, ...made.sort()])];
}

/** Hypercalls of one kind a request. */
export function perRequest({ counters }: RunReport, kind: string): number {
  return counters.hcallsPerRequest[kind] ?? 0;
}

/** `0` for nothing, else two decimals. */
export function decimals(value: number): string {
  return value === 0 ? '0' : value.toFixed(2);
}

/** The name without the number that stands before it anyway. */
export function shortName({ number, id }: ComparedPath): string {
  const prefix = `${number}-`;
  return id.startsWith(prefix) ? id.slice(prefix.length) : id;
}

/** `yes`, `no` or `refused`: whether ACCESS_PLATFORM was negotiated. */
export function flagText({ negotiated }: RunReport): string {
  if (negotiated === null) return 'refused';
  return negotiated.names.includes('VIRTIO_F_ACCESS_PLATFORM') ? 'yes' : 'no';
}

/** What was negotiated, and what of the usual is missing. */
export function negotiatedText(report: RunReport): string {
  const { negotiated, refusal } = report;
  if (negotiated === null) return `refused: ${refusal ?? 'no reason given'}`;
  const missing = ['INDIRECT_DESC', 'EVENT_IDX'].filter(
    (name) => !negotiated.names.includes(`VIRTIO_RING_F_${name}`),
  );
  const flag = flagText(report) === 'yes' ? 'ACCESS_PLATFORM' : 'no ACCESS_PLATFORM';
  return [flag, ...missing.map((name) => `no ${name}`), `features ${negotiated.features}`].join(
    ', ',
  );
}

/** Whether the data was right, and how much of it was not. */
export function dataText({ negotiated, data }: RunReport): string {
  if (negotiated === null) return 'no device, no I/O';
  const lost = (['hung', 'failed', 'rejected'] as const)
    .filter((how) => data[how] > 0)
    .map((how) => `${data[how]} of ${data.requests} requests ${how}`);
  const wrong = (bytes: number): string =>
    bytes === 0 ? '' : ` (${formatSize(bytes)} of it wrong)`;
  const moved =
    `read ${formatSize(data.bytesRead)}${wrong(data.bytesReadWrong)}, ` +
    `wrote ${formatSize(data.bytesWritten)}${wrong(data.imageBytesWrong)}`;
  const isRight = lost.length === 0 && data.bytesReadWrong + data.imageBytesWrong === 0;
  return [...lost, isRight ? `${moved}: every byte correct` : moved].join('; ');
}

/** The hypercalls that were made before the first request; empty when there were none. */
export function setupText({ counters }: RunReport): string {
  return Object.entries(counters.setup.hcalls)
    .map(([name, count]) => `${count} ${name}`)
    .join(', ');
}

/** The estimate in a line; empty where there is none. */
export function costText({ costs }: ComparedPath): string {
  if (costs === undefined || costs === null) return '';
  const { perRequest, setup, throughput, assumedShare, preset, dominates } = costs;
  return (
    `${timeRange(perRequest)} a request, throughput ${throughputText(throughput)} of the bypass: ` +
    `an estimate on ${preset}, ${percent(assumedShare)} of it assumed, most of it for ${COST_ITEMS[dominates].what}; ` +
    `set-up once ${timeRange(setup.ns)}`
  );
}

/** What was run over each path. */
export function workloadText(paths: readonly ComparedPath[], imageName: string): string {
  // One that hangs ends early: the most that a path was given.
  const requests = Math.max(0, ...paths.map(({ report }) => report.data.requests));
  return `The same ${requests} request${requests === 1 ? '' : 's'} over each path, on ${imageName}.`;
}

/** All of them in a few sentences, from their outcomes. */
export function summarize(paths: readonly ComparedPath[]): string[] {
  const groups: [string, (report: RunReport) => boolean][] = [
    ['Correct without a hypercall per request', (report) => isFree(report) && !isBounced(report)],
    [
      'Correct without a hypercall, every byte bounced',
      (report) => isFree(report) && isBounced(report),
    ],
    ['Correct, paid for with hypercalls', ({ verdict }) => verdict.outcome === 'works-slow'],
    ['I/O fails', ({ verdict }) => verdict.outcome === 'fails'],
    ['Data silently wrong', ({ verdict }) => verdict.outcome === 'wrong-data'],
    ['No device', ({ verdict }) => verdict.outcome === 'refused'],
  ];
  const sentences = groups.flatMap(([text, belongs]) => {
    const numbers = paths.filter(({ report }) => belongs(report)).map(({ number }) => number);
    return numbers.length === 0 ? [] : [`${text}: ${numbers.join(', ')}.`];
  });
  return sentences.length === 0 ? ['No path was run.'] : sentences;
}

function isFree({ verdict }: RunReport): boolean {
  return verdict.outcome === 'works';
}

function isBounced({ counters }: RunReport): boolean {
  return counters.workload.bytesBounced > 0;
}
