import { MachineError } from '../errors.js';
import type { RunReport } from '../report.js';
import {
  COST_ITEMS,
  COST_NAMES,
  type CostItem,
  type CostName,
  type CostRole,
} from './constants.js';
import { type CostCounts, countsOfRequests, countsOnce } from './counts.js';
import type { CostConstant, CostEstimate, CostPart, CostPreset, CostRange } from './types.js';

const NS_PER_SECOND = 1e9;

/**
 * What a run costs on a machine: its counts times the machine's constants, one request at a time, nothing
 * in parallel. What was paid once is apart, so that a request's time and throughput are those of the
 * steady state, however short the run.
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
  const each = priced(countsOfRequests(report), preset, requests);
  const { parts } = each;
  const base = sum(ofRole(parts, 'base'));
  const path = sum(ofRole(parts, 'path'));
  return {
    preset: preset.id,
    setup: priced(countsOnce(report), preset),
    perRequest: each.ns,
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

/** What of the counts costs something: in all, or for each of so many requests. */
function priced(
  counts: CostCounts,
  preset: CostPreset,
  requests?: number,
): { readonly ns: CostRange; readonly parts: readonly CostPart[] } {
  const counted = COST_NAMES.flatMap((name) => {
    const count = COST_ITEMS[name].count(counts) / (requests ?? 1);
    if (count === 0) return [];
    const amount = `${round(count)} ${requests === undefined ? 'at set-up' : 'a request'}`;
    return [{ name, count, constant: constantOf(preset, name, amount) }];
  });
  const ns = counted.map(({ name, count, constant }) => nsOf(COST_ITEMS[name], count, constant));
  const total = sum(ns);
  const parts = counted.map(({ name, count, constant }, i): CostPart => {
    const { what, role } = COST_ITEMS[name];
    const range = ns[i] as CostRange;
    const share = total.mid === 0 ? 0 : range.mid / total.mid;
    return { name, what, role, count, ns: range, share, status: constant.status };
  });
  return { ns: total, parts: parts.sort((a, b) => b.ns.mid - a.ns.mid) };
}

function constantOf(preset: CostPreset, name: CostName, amount: string): CostConstant {
  const constant = preset.constants[name];
  if (constant !== undefined) return constant;
  throw new MachineError('E_COSTS', [
    {
      path: `constants.${name}`,
      message: `expected a constant for ${COST_ITEMS[name].what} (${amount}), found none in ${preset.id}: choose another preset, or give it in a costs file`,
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
