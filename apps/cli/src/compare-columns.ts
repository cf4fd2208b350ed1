import { formatSize } from '@pinhole/base';
import {
  type ComparedPath,
  decimals,
  flagText,
  hcallKinds,
  perRequest,
  shortName,
} from './compare-path.js';
import { throughputRange } from './costs.js';
import { OUTCOME_MARKS } from './report/marks.js';
import { markText } from './terminal-style.js';

/** A column of the table. */
export interface Column {
  readonly head: string;
  /** Names its figure outside the table; absent where the lines below say it anyway. */
  readonly label?: string;
  /** Where there is no room, the lowest ones leave the table, for the lines below it. */
  readonly rank: number;
  readonly isNumber: boolean;
  readonly isVerdict?: boolean;
  readonly cell: (path: ComparedPath) => string;
}

/** The columns for these paths, all of them. */
export function compareColumns(paths: readonly ComparedPath[]): Column[] {
  return [
    { head: 'path', rank: 7, isNumber: false, cell: shortName },
    { head: 'flag', rank: 8, isNumber: false, cell: ({ report }) => flagText(report) },
    {
      head: 'DMA ops',
      rank: 9,
      isNumber: false,
      cell: ({ report }) => report.decision.dmaOps.replace(/ (?=[+(])/, '\n'),
    },
    {
      head: 'verdict',
      rank: 9,
      isNumber: false,
      isVerdict: true,
      cell: ({ report }) => markText(OUTCOME_MARKS[report.verdict.outcome]),
    },
    ...hcallKinds(paths).map((kind) => ({
      head: kind.replace('_INDIRECT', '\n_INDIRECT'),
      label: kind,
      rank: 4,
      isNumber: true,
      cell: ({ report }: ComparedPath) => decimals(perRequest(report, kind)),
    })),
    number('hcalls\ntotal', 'hypercalls a request', 9, ({ report }) =>
      decimals(report.counters.hcallsPerRequestTotal),
    ),
    number('TCEs\nlive/peak', 'TCEs live/peak', 3, ({ report: { counters } }) =>
      [counters.tcesLive, counters.tcesPeak].join('/'),
    ),
    number('trans-\nlations', 'translations a request', 5, ({ report }) =>
      decimals(report.counters.translationsPerRequest),
    ),
    number('bounced', 'bounced', 2, ({ report }) =>
      formatSize(report.counters.workload.bytesBounced),
    ),
    number('device\nreaches', 'device reaches', 9, ({ report }) =>
      formatSize(report.reach.addressable),
    ),
    number('of it\nin clear', 'of it in clear', 6, ({ report }) =>
      formatSize(report.reach.plaintext),
    ),
    ...(paths.some(({ costs }) => costs !== undefined)
      ? [number('throughput\nof bypass', 'throughput of the bypass', 4, throughputCell)]
      : []),
  ];
}

/** An estimate, as a range. */
export function throughputCell({ costs }: ComparedPath): string {
  return costs === undefined || costs === null ? '-' : throughputRange(costs.throughput);
}

function number(head: string, label: string, rank: number, cell: Column['cell']): Column {
  return { head, label, rank, isNumber: true, cell };
}
