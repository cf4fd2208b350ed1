/**
 * Scenarios, architectures, whole runs, replay, costs.
 * @module machine
 */

export type {
  Architecture,
  DeviceReach,
  Platform,
  PlatformCounters,
  PlatformOptions,
  PlatformVariant,
} from './architecture.js';
export { defineArchitecture } from './architecture.js';
export { architectures } from './architectures/index.js';
export type { CostName, CostRole } from './costs/constants.js';
export { COST_ITEMS, COST_NAMES } from './costs/constants.js';
export type { ParseCostsOptions } from './costs/costs-file.js';
export { parseCosts } from './costs/costs-file.js';
export { estimateCosts } from './costs/estimate.js';
export { COST_PRESETS, defaultCostPreset, findCostPreset } from './costs/presets.js';
export type {
  CostConstant,
  CostEstimate,
  CostPart,
  CostPreset,
  CostRange,
  CostStatus,
} from './costs/types.js';
export type { DiskSource } from './disk.js';
export { CopyOnWriteDisk, createSeededDisk, DEFAULT_DISK_SIZE } from './disk.js';
export type { MachineErrorCode, ScenarioProblem } from './errors.js';
export { MachineError } from './errors.js';
export type { ExplainErrorCode } from './explain/errors.js';
export { ExplainError } from './explain/errors.js';
export type { ExplainInput } from './explain/explain.js';
export { explain } from './explain/explain.js';
export type {
  Answer,
  Contradiction,
  Cost,
  CostRow,
  CostTime,
  DeviceExplanation,
  Difference,
  Explanation,
  ExplanationStep,
  Finding as ExplainFinding,
  Fix,
  PathId,
  Reach,
  Risk,
} from './explain/explanation.js';
export type { Fact, NotUnderstood } from './explain/facts.js';
export type { HcallAnswer } from './hcall-session.js';
export { HcallSession, MAX_HCALL_LINE } from './hcall-session.js';
export type { MatrixCell, MatrixFilter, MatrixPlatform, MatrixRing } from './matrix/axes.js';
export {
  MATRIX_POLICIES,
  MATRIX_RINGS,
  matrixCells,
  matrixPlatforms,
  parseCellId,
  policyTitle,
} from './matrix/axes.js';
export { scenarioOfCell, scenarioTextOfCell } from './matrix/cell-scenario.js';
export type { CellFinding, CellOutcome } from './matrix/classify.js';
export { CELL_OUTCOMES, classify } from './matrix/classify.js';
export type { MatrixErrorCode } from './matrix/errors.js';
export { MatrixError } from './matrix/errors.js';
export type { CellCosts, CellCounters, CellResult } from './matrix/run-cell.js';
export { describeCell, matrixDisk, runCell } from './matrix/run-cell.js';
export type { Outcome } from './outcome.js';
export { OUTCOMES } from './outcome.js';
export { BusAddresses } from './replay/bus-addresses.js';
export { ConsoleDigest } from './replay/console-digest.js';
export type { Finding as ReplayFinding, FindingCode, Severity } from './replay/findings.js';
export { FINDINGS } from './replay/findings.js';
export type { GuestOperation } from './replay/guest-operations.js';
export type { Entries, GuestMismatch, GuestReplayResult } from './replay/guest-replay.js';
export type {
  HypervisorReplayOptions,
  HypervisorReplayResult,
  ReplayMismatch,
} from './replay/hypervisor-replay.js';
export { HypervisorReplay } from './replay/hypervisor-replay.js';
export type { Inference, RunProblem } from './replay/inference.js';
export { inferRun, problemOfRun } from './replay/inference.js';
export type { ObservedCall, RunObserver } from './replay/run-observer.js';
export type { DeviceUse, QueueUse } from './replay/run-profile.js';
export { RunProfile } from './replay/run-profile.js';
export { createRunReplay } from './replay/run-replay.js';
export type { ReplayReport } from './replay/run-report.js';
export { mismatchesOf, reportRun } from './replay/run-report.js';
export type { RunReplay, RunReplayOptions } from './replay/run-result.js';
export type { RunFacts } from './replay/run-scout.js';
export { RunScout } from './replay/run-scout.js';
export type { ProfiledWindow, WindowPicture } from './replay/window-profile.js';
export { Occupancy, WindowProfile, windowWithPools } from './replay/window-profile.js';
export type { WindowUse } from './replay/window-use.js';
export type { RunReport } from './report.js';
export type { RunOptions } from './run.js';
export { runScenario } from './run.js';
export type { ParseScenarioOptions } from './scenario.js';
export { parseMachine, parseScenario } from './scenario.js';
export type {
  DeviceConfig,
  GuestConfig,
  HostBridgeConfig,
  MachineConfig,
  Scenario,
  Transfer,
  WorkloadOperation,
} from './scenario-config.js';
export { scenarioJsonSchema } from './scenario-schema.js';
export type { MergedSweep, NamedSweep } from './sweep/merge.js';
export { mergeSweeps } from './sweep/merge.js';
export type { Shard, SweepPoint } from './sweep/plan.js';
export { countPoints, parseShard, planSweep } from './sweep/plan.js';
export type { SweepColumn, SweepRow, SweepValue } from './sweep/rows.js';
export { failedRow, SWEEP_COLUMNS, sweepColumns, sweepRow } from './sweep/rows.js';
export type { SweepFile, SweepHeader } from './sweep/sweep-file.js';
export {
  checkSameSweep,
  pointsOf,
  readSweepFile,
  sweepChecksum,
  sweepHeaderLine,
  sweepRowLine,
} from './sweep/sweep-file.js';
export type { SweepAxis } from './sweep/values.js';
export { isSize, parseSweepAxis, sweepNumber } from './sweep/values.js';
export type { WorkloadResult } from './workload.js';
export { fitWorkload } from './workload.js';
