import { mismatchesOf, type ReplayFinding, type ReplayReport } from '@pinhole/machine';
import type { ReadProblem, ReadSummary } from '@pinhole/trace';
import { showsColor, terminalWidth } from './terminal.js';

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

/** For people. */
export function toText(outcome: ReplayOutcome): string {
  const { qemu, guest, report } = outcome;
  const lines = [
    fileLine(qemu),
    ...(guest === undefined ? [] : [fileLine(guest)]),
    ...inferredLines(report),
    '',
    'checked against the model',
    ...hypervisorLines(report),
    ...guestLines(report),
    ...mismatchLines(report),
    ...problemLines(qemu),
    ...(guest === undefined ? [] : problemLines(guest)),
    '',
    ...findingLines(report.findings),
    conclusion(outcome),
  ];
  return `${lines.join('\n')}\n`;
}

function fileLine({ path, summary }: FileReport): string {
  const { lines, events, problems } = summary;
  return `${path}: ${lines} lines, ${events} events, ${problems['unknown-event']} events of other kinds`;
}

function inferredLines({ inferred, guest }: ReplayReport): string[] {
  const { kernel, kernelFrom, guestPageSize, ddw, boots, windows, liobns } = inferred;
  const kernelLine = `  kernel   ${kernel} (${kernelFrom}), pages of ${guestPageSize} bytes`;
  if (inferred.iommu !== 'spapr-tce') {
    const { platform, iommu, swiotlb, joined, devices } = inferred;
    const names = Object.entries(devices).map(([device, route]) => `${device}: ${route}`);
    return [
      `  machine  ${platform}; IOMMU: ${iommu}; boots: ${boots}`,
      ...(names.length === 0 ? [] : [`  devices  ${names.join('; ')}`]),
      ...(swiotlb === null ? [] : [swiotlbLine(swiotlb)]),
      `  joined   ${joined}`,
      ...(guest === null ? [] : [kernelLine]),
    ];
  }
  const used = windows.map(
    ({ liobn, tces, live, peak }) =>
      `${liobn}: ${tces} TCEs, ${peak} in use at most, ${live} at the end`,
  );
  const named = liobns.join(', ') || 'none';
  return [
    `  windows  ${guest === null ? named : used.join('; ') || named}`,
    `  boots    ${boots}; second window: ${ddw}`,
    ...(guest === null ? [] : [kernelLine]),
  ];
}

function swiotlbLine({
  base,
  bytes,
  areas,
  from,
  slots,
  peak,
}: NonNullable<ReplayReport['inferred']['swiotlb']>): string {
  const size = `${bytes / 2 ** 20} MiB at ${base} (${from}), ${areas} area${areas === 1 ? '' : 's'}`;
  return `  bounce   ${size}; ${peak} of ${slots} slots in use at most`;
}

function row(what: string, count: number, wrong: number): string {
  return `  ${what.padEnd(19)} ${String(count).padStart(9)} ${String(wrong).padStart(9)} wrong`;
}

function hypervisorLines({ hypervisor, inferred }: ReplayReport): string[] {
  const { hcalls, hcallMismatches, translations, translationMismatches } = hypervisor;
  const requests = row('device requests', hypervisor.requests, hypervisor.requestMismatches);
  if (inferred.iommu === 'spapr-tce') {
    return [
      row('TCE hypercalls', hcalls, hcallMismatches),
      row('translations', translations, translationMismatches),
      row('RTAS window calls', hypervisor.rtasCalls, hypervisor.rtasMismatches),
      requests,
    ];
  }
  const { invalidations, invalidationMismatches } = hypervisor;
  return [
    requests,
    ...(translations + invalidations === 0
      ? []
      : [
          row('translations', translations, translationMismatches),
          row('invalidations', invalidations, invalidationMismatches),
        ]),
  ];
}

function guestLines({ guest, inferred }: ReplayReport): string[] {
  if (guest === null) return [];
  const { maps, unmaps, allocs, frees, dmaAddressMismatches, ordersFound } = guest;
  const checked = maps + unmaps + allocs + frees;
  const { hcallsByKind, consistentAddresses, inconsistentAddresses } = guest;
  return [
    ...(checked > 0 || hcallsByKind === 0
      ? [
          row('DMA addresses', checked, dmaAddressMismatches),
          ...(guest.hcallsPredicted + guest.hcallMismatches > 0 || inferred.iommu === 'spapr-tce'
            ? [row('guest hypercalls', guest.hcallsPredicted, guest.hcallMismatches)]
            : []),
        ]
      : []),
    ...(guest.requestsJoined + guest.requestMismatches > 0
      ? [row('requests, joined', guest.requestsJoined, guest.requestMismatches)]
      : []),
    ...(guest.hcallsUntraced > 0
      ? [`  ${guest.hcallsUntraced} of them were made inside another one, where Linux traces none`]
      : []),
    ...(hcallsByKind > 0
      ? [
          row('hypercalls by kind', hcallsByKind, guest.hcallMismatches),
          row(
            'their addresses',
            consistentAddresses + inconsistentAddresses,
            inconsistentAddresses,
          ),
        ]
      : []),
    ...(ordersFound > 0
      ? [`  ${ordersFound} times the order of several CPUs had to be searched for, and was found`]
      : []),
  ];
}

function mismatchLines({ hypervisor, guest }: ReplayReport): string[] {
  const own = hypervisor.mismatches.map(
    ({ line, event, what, logged, model }) =>
      `  line ${line}: ${event}: ${what}: the log has ${logged}, the model ${model}`,
  );
  const others = (guest?.mismatches ?? []).map(({ guestLine, qemuLine, what, recorded, model }) => {
    const places = [
      ...(guestLine === undefined ? [] : [`guest line ${guestLine}`]),
      ...(qemuLine === undefined ? [] : [`QEMU line ${qemuLine}`]),
    ];
    return `  ${places.join(', ')}: ${what}: recorded ${recorded}, the model has ${model}`;
  });
  return [...own, ...others];
}

function problemLines({ path, summary, problems, cutShort }: FileReport): string[] {
  const bad = Object.entries(summary.problems)
    .filter(([kind, count]) => count > 0 && kind !== 'unknown-event')
    .map(([kind, count]) => `${count} ${kind}`);
  return [
    ...(bad.length > 0 ? [`  ${path}: lines that could not be read: ${bad.join(', ')}`] : []),
    ...problems.map(
      ({ line, kind, text, expected }) =>
        `  line ${line}: ${kind}${expected === undefined ? '' : `: expected ${expected}`}: ${text}`,
    ),
    ...(cutShort === undefined ? [] : [`  ${path}: incomplete: ${cutShort}`]),
  ];
}

const COLORS: Readonly<Record<string, string>> = { error: '31', warning: '33', info: '36' };

function findingLines(findings: readonly ReplayFinding[]): string[] {
  if (findings.length === 0) return ['no findings'];
  return findings.flatMap(({ code, severity, summary, evidence, remedy }) => {
    const head = showsColor() ? `\u001b[${COLORS[severity]}m${code}\u001b[0m` : code;
    const { first } = evidence;
    const places = [
      ...(first?.guestLine === undefined ? [] : [`guest line ${first.guestLine}`]),
      ...(first?.qemuLine === undefined ? [] : [`QEMU line ${first.qemuLine}`]),
    ];
    return [
      `${head} (${severity})`,
      ...wrap(summary, '  '),
      ...(places.length === 0 ? [] : [`  first: ${places.join(', ')}`]),
      ...wrap(remedy, '  -> '),
      '',
    ];
  });
}

// Words in lines that fit the terminal; what goes on is indented.
function wrap(text: string, indent: string): string[] {
  const width = Math.min(terminalWidth(), 100) - indent.length;
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  lines.push(line);
  return lines.map((part, i) => (i === 0 ? indent : ' '.repeat(indent.length)) + part);
}

export function conclusion(outcome: ReplayOutcome): string {
  if (mismatchesOf(outcome.report) > 0) return 'The model and these files do not agree.';
  const isRead = isWhole(outcome.qemu) && (outcome.guest === undefined || isWhole(outcome.guest));
  return isRead
    ? 'The model agrees with every line.'
    : 'The model agrees with all that could be read.';
}
