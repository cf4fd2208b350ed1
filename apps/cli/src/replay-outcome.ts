import { mismatchesOf, type ReplayReport } from '@pinhole/machine';
import type { ReadProblem, ReadSummary } from '@pinhole/trace';

/** What was read of one file. */
export interface FileReport {
  readonly path: string;
  readonly summary: ReadSummary;
  readonly problems: readonly ReadProblem[];
  /** Why the input ended early. */
  readonly cutShort: string | undefined;
}

/** All that `pinhole replay` has to say. */
export interface ReplayOutcome {
  readonly qemu: FileReport;
  readonly guest: FileReport | undefined;
  readonly report: ReplayReport;
}

/** Whether model and files agree, all lines were read, and nothing is wrong with the run. */
export function isClean(outcome: ReplayOutcome): boolean {
  const isRead = isWhole(outcome.qemu) && (outcome.guest === undefined || isWhole(outcome.guest));
  const hasErrors = outcome.report.findings.some(({ severity }) => severity === 'error');
  return isRead && !hasErrors && mismatchesOf(outcome.report) === 0;
}

function isWhole({ summary, cutShort }: FileReport): boolean {
  const { malformed, binary, cut } = summary.problems;
  return malformed + binary + cut + summary.problems['too-long'] === 0 && cutShort === undefined;
}

/** The JSON of docs/JSON.md. */
export function toJson({ qemu, guest, report }: ReplayOutcome): string {
  const file = ({ summary, problems, cutShort }: FileReport): object => ({
    ...summary,
    cutShort: cutShort ?? null,
    firstProblems: problems,
  });
  const { mismatches, liobns: _, ...hypervisor } = report.hypervisor;
  const json = {
    schemaVersion: report.schemaVersion,
    inferred: report.inferred,
    log: file(qemu),
    guestLog: guest === undefined ? null : file(guest),
    hypervisor: { ...hypervisor, firstMismatches: mismatches },
    guest: report.guest === null ? null : withFirst(report.guest),
    findings: report.findings,
  };
  return `${JSON.stringify(json, null, 2)}\n`;
}

function withFirst(guest: NonNullable<ReplayReport['guest']>): object {
  const { mismatches, ...counts } = guest;
  return { ...counts, firstMismatches: mismatches };
}

/** The one sentence. */
export function conclusion(outcome: ReplayOutcome): string {
  if (mismatchesOf(outcome.report) > 0) return 'The model and these files do not agree.';
  const isRead = isWhole(outcome.qemu) && (outcome.guest === undefined || isWhole(outcome.guest));
  return isRead
    ? 'The model agrees with every line.'
    : 'The model agrees with all that could be read.';
}
