import type { Tracer } from '@pinhole/base';
import type { Architecture, DeviceReach } from '../architecture.js';
import { estimateCosts } from '../costs/estimate.js';
import { defaultCostPreset } from '../costs/presets.js';
import type { CostEstimate, CostPreset, CostRange } from '../costs/types.js';
import { createSeededDisk, type DiskSource } from '../disk.js';
import { MachineError } from '../errors.js';
import type { RunReport } from '../report.js';
import { runScenario } from '../run.js';
import { type MatrixCell, parseCellId } from './axes.js';
import { MATRIX_DISK_SIZE, scenarioOfCell } from './cell-scenario.js';
import { type CellFinding, type CellOutcome, classify } from './classify.js';

/** What a cell shows: plain data. Sizes are bytes. */
export interface CellResult {
  readonly cell: MatrixCell;
  /** The most severe of `findings`. */
  readonly outcome: CellOutcome;
  /** The others. */
  readonly also: readonly CellOutcome[];
  /** All findings in words. */
  readonly text: string;
  readonly findings: readonly CellFinding[];
  /** How the guest and the device came to use the addresses that they use; `null`: no machine. */
  readonly decision: RunReport['decision'] | null;
  readonly warnings: readonly string[];
  readonly counters: CellCounters | null;
  /** `null`: not every request was served, or there are no constants for it. */
  readonly costs: CellCosts | null;
}

/** What a cell's requests would cost on its machine: an estimate on exact counts. */
export interface CellCosts {
  /** Whose constants these are. */
  readonly preset: string;
  /** Nanoseconds, once: until the driver was up, and first uses of pages that stay mapped. */
  readonly setup: CostRange;
  /** Nanoseconds a request, one at a time, first uses apart. */
  readonly perRequest: CostRange;
  /** Requests a second, compared with physical addresses: 1 is as fast. */
  readonly throughput: CostRange;
  /** Of what the path adds, the most expensive, in words; `null`: it adds nothing. */
  readonly dominates: string | null;
  /** How much of the middle estimate is guessed, 0 to 1. */
  readonly assumedShare: number;
}

/** Of a cell's run, for the workload. */
export interface CellCounters {
  readonly requests: number;
  readonly hcallsPerRequest: number;
  readonly translationsPerRequest: number;
  readonly bytesBounced: number;
  readonly iommu: { readonly maps: number; readonly unmaps: number; readonly commands: number };
  readonly tcesPeak: number;
  /** `null`: the data plane is QEMU's. */
  readonly vhost: {
    readonly missesPerRequest: number;
    readonly invalidatesPerRequest: number;
  } | null;
  /** The most that the device could reach. */
  readonly reach: DeviceReach;
}

/** Options of {@link runCell}. */
export interface RunCellOptions {
  readonly tracer?: Tracer;
  readonly architectures?: readonly Architecture[];
  /** What {@link matrixDisk} made, where many cells are run. */
  readonly disk?: DiskSource;
}

/** The disk of all cells. */
export function matrixDisk(): DiskSource {
  return createSeededDisk(1, MATRIX_DISK_SIZE);
}

/**
 * Runs one cell.
 * @returns what it shows, and the report of its run; none where there can be no such machine.
 * @throws MatrixError `E_MATRIX_CELL`
 */
export function runCell(
  id: string,
  options: RunCellOptions = {},
): { readonly result: CellResult; readonly report: RunReport | undefined } {
  const { architectures, tracer } = options;
  const cell = parseCellId(id, architectures);
  const disk = options.disk ?? matrixDisk();
  try {
    const report = runScenario(scenarioOfCell(id, architectures), {
      disk,
      ...(tracer === undefined ? {} : { tracer }),
      ...(architectures === undefined ? {} : { architectures }),
    });
    return { result: describeCell(cell, report), report };
  } catch (error) {
    if (!(error instanceof MachineError)) throw error;
    const text = `no machine: ${error.message}`;
    const findings: CellFinding[] = [{ outcome: 'no-machine', text }];
    const none = { decision: null, warnings: [], counters: null, costs: null };
    return { result: { cell, ...summarize(findings), ...none }, report: undefined };
  }
}

/** What the report of a cell's run shows. */
export function describeCell(cell: MatrixCell, report: RunReport): CellResult {
  const { counters, data, reach } = report;
  const { vhost } = counters;
  return {
    cell,
    ...summarize(classify(report)),
    decision: report.decision,
    warnings: report.warnings,
    counters: {
      requests: data.requests,
      hcallsPerRequest: counters.hcallsPerRequestTotal,
      translationsPerRequest: counters.translationsPerRequest,
      bytesBounced: counters.workload.bytesBounced,
      iommu: counters.workload.iommu,
      tcesPeak: counters.tcesPeak,
      vhost:
        vhost === null
          ? null
          : {
              missesPerRequest: vhost.missesPerRequest,
              invalidatesPerRequest: vhost.invalidatesPerRequest,
            },
      reach,
    },
    costs: costsOf(report),
  };
}

function costsOf(report: RunReport): CellCosts | null {
  const preset = defaultCostPreset(report.machine.arch);
  const estimate = preset === undefined ? undefined : estimateOrNone(report, preset);
  if (estimate === undefined) return null;
  const { setup, perRequest, throughput, assumedShare, parts } = estimate;
  const dominates = parts.find(({ role }) => role === 'path')?.what ?? null;
  const { ns } = setup;
  return { preset: estimate.preset, setup: ns, perRequest, throughput, dominates, assumedShare };
}

// A machine may count what no preset of it has a constant for.
function estimateOrNone(report: RunReport, preset: CostPreset): CostEstimate | undefined {
  try {
    return estimateCosts(report, preset);
  } catch (error) {
    if (error instanceof MachineError && error.code === 'E_COSTS') return undefined;
    throw error;
  }
}

function summarize(
  findings: readonly CellFinding[],
): Pick<CellResult, 'outcome' | 'also' | 'text' | 'findings'> {
  const outcomes = findings.map(({ outcome }) => outcome);
  return {
    outcome: outcomes[0] ?? 'no-machine',
    also: outcomes.slice(1),
    text: findings.map(({ text }) => text).join('; '),
    findings,
  };
}
