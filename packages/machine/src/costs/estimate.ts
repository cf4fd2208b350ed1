import { MachineError } from '../errors.js';
import type { RunReport } from '../report.js';
import {
  COST_ITEMS,
  COST_NAMES,
  type CostItem,
  type CostName,
  type CostRole,
} from './constants.js';
import type { CostConstant, CostEstimate, CostPart, CostPreset, CostRange } from './types.js';

const NS_PER_SECOND = 1e9;

/**
 * What a request of a run costs on a machine: the run's counts times the machine's constants, one
 * request at a time, nothing in parallel.
 *
 * The throughput compared with the bypass is `base / (base + path)`. No constant is in both, so it
 * is lowest where base is low and path high, and highest the other way round: no interval is wider
 * than it must be.
 * @returns `undefined` when not every request was served: such a run has no time of a request.
 * @throws MachineError `E_COSTS` when the run counts something that the preset has no constant for.
 */
export function estimateCosts(report: RunReport, preset: CostPreset): CostEstimate | undefined {
  const { requests, completed } = report.data;
  if (requests === 0 || completed !== requests) return undefined;
  const priced = COST_NAMES.flatMap((name) => {
    const count = COST_ITEMS[name].count(report) / requests;
    return count === 0 ? [] : [{ name, count, constant: constantOf(preset, name, count) }];
  });
  const ns = priced.map(({ name, count, constant }) => nsOf(COST_ITEMS[name], count, constant));
  const perRequest = sum(ns);
  const parts = priced.map(({ name, count, constant }, i): CostPart => {
    const { what, role } = COST_ITEMS[name];
    const range = ns[i] as CostRange;
    const share = perRequest.mid === 0 ? 0 : range.mid / perRequest.mid;
    return { name, what, role, count, ns: range, share, status: constant.status };
  });
  parts.sort((a, b) => b.ns.mid - a.ns.mid);
  const base = sum(ofRole(parts, 'base'));
  const path = sum(ofRole(parts, 'path'));
  return {
    preset: preset.id,
    perRequest,
    bypass: base,
    throughput: {
      low: ratio(base.low, path.high),
      mid: ratio(base.mid, path.mid),
      high: ratio(base.high, path.low),
    },
    parts,
    // A request is there, and so is its part.
    dominates: (parts[0] as CostPart).name,
    assumedShare: parts
      .filter(({ status }) => status === 'assumed')
      .reduce((total, { share }) => total + share, 0),
  };
}

function constantOf(preset: CostPreset, name: CostName, count: number): CostConstant {
  const constant = preset.constants[name];
  if (constant !== undefined) return constant;
  throw new MachineError('E_COSTS', [
    {
      path: `constants.${name}`,
      message: `expected a constant for ${COST_ITEMS[name].what} (${round(count)} a request), found none in ${preset.id}: choose another preset, or give it in a costs file`,
    },
  ]);
}

function nsOf({ unit }: CostItem, count: number, { low, mid, high }: CostConstant): CostRange {
  if (unit === 'ns') return { low: count * low, mid: count * mid, high: count * high };
  // Of a rate, the high end takes the least time.
  const time = (rate: number): number => (count / rate) * NS_PER_SECOND;
  return { low: time(high), mid: time(mid), high: time(low) };
}

function ofRole(parts: readonly CostPart[], wanted: CostRole): CostRange[] {
  return parts.filter(({ role }) => role === wanted).map(({ ns }) => ns);
}

function sum(ranges: readonly CostRange[]): CostRange {
  const total = { low: 0, mid: 0, high: 0 };
  for (const { low, mid, high } of ranges) {
    total.low += low;
    total.mid += mid;
    total.high += high;
  }
  return total;
}

// A path that adds nothing is as fast, also where all costs nothing.
function ratio(base: number, path: number): number {
  return path === 0 ? 1 : base / (base + path);
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
