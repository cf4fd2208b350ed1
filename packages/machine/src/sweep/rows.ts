/** What a sweep says of one point: one flat row, the same in every format. */
import type { CostName } from '../costs/constants.js';
import type { CostEstimate } from '../costs/types.js';
import type { RunReport } from '../report.js';
import type { SweepPoint } from './plan.js';
import type { SweepAxis } from './values.js';

/** What a cell of a row can hold; null where there is nothing to say. */
export type SweepValue = string | number | null;

/** Column names and values, in the order of {@link sweepColumns}. */
export type SweepRow = Readonly<Record<string, SweepValue>>;

/** A column that is not an axis. */
export interface SweepColumn {
  readonly name: string;
  readonly what: string;
  readonly type: 'text' | 'number';
  readonly of: (report: RunReport, costs: CostEstimate | undefined) => SweepValue;
}

const number = (name: string, what: string, of: SweepColumn['of']): SweepColumn => ({
  name,
  what,
  type: 'number',
  of,
});
const perRequest =
  (count: (report: RunReport) => number): SweepColumn['of'] =>
  (report) =>
    report.data.requests === 0 ? null : count(report) / report.data.requests;
const cost =
  (of: (costs: CostEstimate) => SweepValue): SweepColumn['of'] =>
  (_, costs) =>
    costs === undefined ? null : of(costs);

/** What is known of a point besides its values. */
export const SWEEP_COLUMNS: readonly SweepColumn[] = [
  { name: 'outcome', what: 'outcome', type: 'text', of: ({ verdict }) => verdict.outcome },
  number('requests', 'requests', ({ data }) => data.requests),
  number('hcallsPerRequest', 'hypercalls a request', ({ counters, data }) =>
    data.requests === 0 ? null : counters.hcallsPerRequestTotal,
  ),
  number(
    'tcesPerRequest',
    'TCEs written a request',
    perRequest(({ counters }) => counters.workload.tcesWritten),
  ),
  number('translationsPerRequest', 'translations a request', ({ counters, data }) =>
    data.requests === 0 ? null : counters.translationsPerRequest,
  ),
  number(
    'kicksPerRequest',
    'kicks a request',
    perRequest(({ counters }) => counters.workload.kicks),
  ),
  number(
    'interruptsPerRequest',
    'interrupts a request',
    perRequest(({ counters }) => counters.workload.interrupts),
  ),
  number(
    'iommuCommandsPerRequest',
    'IOMMU commands a request',
    perRequest(({ counters }) => counters.workload.iommu.commands),
  ),
  number('iotlbMissesPerRequest', 'IOTLB misses a request', ({ counters, data }) =>
    data.requests === 0 ? null : (counters.vhost?.missesPerRequest ?? 0),
  ),
  number('iotlbInvalidationsPerRequest', 'IOTLB invalidations a request', ({ counters, data }) =>
    data.requests === 0 ? null : (counters.vhost?.invalidatesPerRequest ?? 0),
  ),
  number(
    'bytesBouncedPerRequest',
    'bytes bounced a request',
    perRequest(({ counters }) => counters.workload.bytesBounced),
  ),
  number('hcallsAtSetup', 'hypercalls at set-up', ({ counters }) =>
    Object.values(counters.setup.hcalls).reduce((sum, count) => sum + count, 0),
  ),
  number('tcesPeak', 'TCEs at most', ({ counters }) => counters.tcesPeak),
  number('reachBytes', 'bytes that the device reaches', ({ reach }) => reach.addressable),
  number(
    'nsLow',
    'time of a request at least, ns',
    cost(({ perRequest: ns }) => ns.low),
  ),
  number(
    'nsMid',
    'time of a request, ns',
    cost(({ perRequest: ns }) => ns.mid),
  ),
  number(
    'nsHigh',
    'time of a request at most, ns',
    cost(({ perRequest: ns }) => ns.high),
  ),
  number(
    'throughputLow',
    'throughput at least, bypass = 1',
    cost((c) => c.throughput.low),
  ),
  number(
    'throughputMid',
    'throughput, bypass = 1',
    cost((c) => c.throughput.mid),
  ),
  number(
    'throughputHigh',
    'throughput at most, bypass = 1',
    cost((c) => c.throughput.high),
  ),
  {
    name: 'dominates',
    what: 'what costs most',
    type: 'text',
    of: cost(({ dominates }): CostName => dominates),
  },
  number(
    'assumedShare',
    'assumed share of the time',
    cost((c) => c.assumedShare),
  ),
];

/** Of a point that could not be run, why. */
const ERROR_COLUMN = 'error';

/** All column names of a sweep, in order: `point`, the axes, what was found, `error`. */
export function sweepColumns(axes: readonly SweepAxis[]): string[] {
  return [
    'point',
    ...axes.map(({ path }) => path),
    ...SWEEP_COLUMNS.map(({ name }) => name),
    ERROR_COLUMN,
  ];
}

/** The row of a point that was run. */
export function sweepRow(
  axes: readonly SweepAxis[],
  point: SweepPoint,
  report: RunReport,
  costs: CostEstimate | undefined,
): SweepRow {
  return rowOf(axes, point, ({ of }) => of(report, costs), null);
}

/** The row of a point that cannot be run: a machine that cannot exist. */
export function failedRow(axes: readonly SweepAxis[], point: SweepPoint, error: string): SweepRow {
  return rowOf(axes, point, () => null, error);
}

function rowOf(
  axes: readonly SweepAxis[],
  point: SweepPoint,
  value: (column: SweepColumn) => SweepValue,
  error: string | null,
): SweepRow {
  return Object.fromEntries([
    ['point', point.index],
    ...axes.map(({ path }, at) => [path, point.values[at] as string]),
    ...SWEEP_COLUMNS.map((column) => [column.name, value(column)]),
    [ERROR_COLUMN, error],
  ]);
}
