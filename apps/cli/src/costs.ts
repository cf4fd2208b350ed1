/** Which constants a command estimates times with, and estimates for people. */
import { formatSize } from '@pinhole/base';
import {
  COST_ITEMS,
  type Cost,
  type CostEstimate,
  type CostPart,
  type CostPreset,
  type CostRange,
  defaultCostPreset,
  findCostPreset,
  parseCosts,
} from '@pinhole/machine';
import { InputError } from './exit.js';
import { readWhole } from './files.js';

/** Options of commands that estimate times. */
export interface CostsOptions {
  /** A preset's name; `true`: the machine's default. */
  readonly costs?: string | true;
  readonly costsFile?: string;
}

/**
 * The constants asked for, for machines of an architecture; `undefined` when nothing was asked for.
 * @throws InputError, MachineError
 */
export function loadCosts(options: CostsOptions, arch: string): CostPreset | undefined {
  const { costs, costsFile } = options;
  if (costs === undefined && costsFile === undefined) return undefined;
  const base = typeof costs === 'string' ? findCostPreset(costs) : defaultCostPreset(arch);
  if (typeof costs === 'string' && base?.architectures.includes(arch) === false) {
    throw new InputError(
      `--costs: expected a preset for ${arch}, found ${costs}, which is for ${base.architectures.join(', ')}`,
    );
  }
  if (costsFile !== undefined) {
    return parseCosts(readWhole(costsFile, 'a costs file'), { file: costsFile, base });
  }
  if (base !== undefined) return base;
  throw new InputError(
    `--costs: no figures were found for ${arch}: give all constants that it needs with --costs-file`,
  );
}

/** Times in a unit that suits them: `12.3 us`. */
export function timeText(ns: number): string {
  if (ns < 1e3) return `${digits(ns)} ns`;
  if (ns < 1e6) return `${digits(ns / 1e3)} us`;
  if (ns < 1e9) return `${digits(ns / 1e6)} ms`;
  return `${digits(ns / 1e9)} s`;
}

/** `12 us (9.1 us to 20 us)`, or one figure where it is exact. */
export function timeRange({ low, mid, high }: CostRange): string {
  return low === high ? timeText(mid) : `${timeText(mid)} (${timeText(low)} to ${timeText(high)})`;
}

/** `0.31 (0.10 to 0.62)`, or `1` where nothing is added to the bypass. */
export function throughputText({ low, mid, high }: CostRange): string {
  if (low === 1) return '1';
  return `${ratioText(mid)} (${ratioText(low)} to ${ratioText(high)})`;
}

/** `0.10 to 0.62`: for where there is little room. */
export function throughputRange({ low, high }: CostRange): string {
  return low === 1 ? '1' : `${ratioText(low)} to ${ratioText(high)}`;
}

/** `27 %` */
export function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

/** An estimate as rows of a name and a text. */
export function costRows(estimate: CostEstimate): [string, string][] {
  const { preset, setup, perRequest, bypass, throughput, parts, dominates, assumedShare } =
    estimate;
  return [
    ...(setup.parts.length === 0
      ? []
      : [['set-up', `${timeRange(setup.ns)}, once`] as [string, string], ...partRows(setup.parts)]),
    ['time', `${timeRange(perRequest)} a request; an estimate, on ${preset}`],
    ...partRows(parts),
    ['bypass', `${timeRange(bypass)} a request`],
    ['throughput', `${throughputText(throughput)} of the bypass`],
    [
      'dominated by',
      `${COST_ITEMS[dominates].what}; ${percent(assumedShare)} of the time is assumed`,
    ],
  ];
}

/** Times of reads as sentences: one for each size, then what they rest on. */
export function readTimesText({ preset, rows }: NonNullable<Cost['times']>): string[] {
  const [first] = rows;
  if (first === undefined) return [];
  const guessed = rows.map(({ assumedShare }) => percent(assumedShare)).join(', ');
  return [
    ...rows.map(
      ({ size, ns, throughput, dominates }) =>
        `${formatSize(size)}: ${timeRange(ns)}, throughput ${throughputText(throughput)} of the bypass; most of it for ${dominates.what}`,
    ),
    `an estimate on ${preset}, of which ${guessed} is assumed`,
  ];
}

// What is free, or measured as a part of something else, says nothing.
function partRows(parts: readonly CostPart[]): [string, string][] {
  return parts
    .filter(({ ns }) => ns.high > 0)
    .map((part): [string, string] => ['', partText(part)]);
}

function partText({ what, count, ns, share, status, name }: CostPart): string {
  const amount =
    COST_ITEMS[name].unit === 'ns' ? `${digits(count)} x` : `${Math.round(count)} bytes,`;
  return `${percent(share).padStart(5)}  ${amount} ${what}: ${timeRange(ns)}, ${status}`;
}

function ratioText(value: number): string {
  return value >= 0.995 ? value.toFixed(3) : value.toPrecision(2);
}

// At most three.
function digits(value: number): string {
  if (value >= 100) return Math.round(value).toLocaleString('en');
  return String(Number(value.toPrecision(value >= 10 ? 3 : 2)));
}
