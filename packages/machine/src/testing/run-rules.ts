import { type TraceEvent, Tracer } from '@pinhole/base';
import {
  type Architecture,
  type DiskSource,
  type PlatformVariant,
  parseScenario,
  type RunReport,
  runScenario,
  type Scenario,
} from '@pinhole/machine';
import type { Findings } from './check.js';
import { watchPlatform } from './watched-platform.js';

/** One machine and the device in it. */
export interface Case {
  readonly variant: PlatformVariant;
  readonly isSecure: boolean;
  readonly flag: boolean;
  readonly packed: boolean;
}

/** Bytes of disk that the workload needs: a small one is soon made. */
export const DISK_SIZE: number = 2 ** 20;
const KIB = 1024;
/** Reads after writes; single pages, and more than one bounce buffer can take (256 KiB). */
const WORKLOAD = [
  { write: { offset: 0, length: 96 * KIB, block: 32 * KIB } },
  { read: { offset: 0, length: 96 * KIB, block: 32 * KIB } },
  { write: { offset: 512 * KIB, length: 300 * KIB, block: 300 * KIB } },
  { read: { offset: 512 * KIB, length: 300 * KIB, block: 300 * KIB } },
  { read: { offset: 4 * KIB, length: 12 * KIB, block: 4 * KIB } },
];

/** The guest of a variant is secure by what the variant says; it has no other. */
export function isSecureByItself({ guest }: PlatformVariant): boolean {
  return guest?.secure === true;
}

/** Every case of a variant. */
export function casesOf(architecture: Architecture, variant: PlatformVariant): Case[] {
  const both = [false, true];
  const ordinary = architecture.secure === undefined ? [false] : both;
  const guests = isSecureByItself(variant) ? [true] : ordinary;
  return guests.flatMap((isSecure) =>
    both.flatMap((flag) => both.map((packed) => ({ variant, isSecure, flag, packed }))),
  );
}

/** For people: `secure, flag on, packed ring`. */
export function describeCase({ isSecure, flag, packed }: Case): string {
  return `${isSecure ? 'secure, ' : ''}flag ${flag ? 'on' : 'off'}, ${packed ? 'packed' : 'split'} ring`;
}

/**
 * The scenario of a case.
 * @throws MachineError when the variant is no machine that a scenario can name.
 */
export function scenarioOf(
  architecture: Architecture,
  { variant, isSecure, flag, packed }: Case,
  options: { readonly kernel?: string; readonly seed?: number },
): Scenario {
  const { kernel, seed = 1 } = options;
  const text = JSON.stringify({
    machine: { ...variant.machine, arch: architecture.id },
    guest: {
      ...(kernel === undefined ? {} : { kernel }),
      ...variant.guest,
      ...(isSecure ? { secure: true } : {}),
    },
    devices: [{ type: 'virtio-blk', iommuPlatform: flag, packed }],
    workload: WORKLOAD,
    seed,
  });
  return parseScenario(text, { architectures: [architecture] });
}

/** Runs a case over a disk of `DISK_SIZE` bytes, and holds its report against the rules. */
export function checkCase(
  architecture: Architecture,
  scenario: Scenario,
  one: Case,
  options: { readonly disk: DiskSource; readonly findings: Findings },
): void {
  const { disk, findings } = options;
  const where = describeCase(one);
  const run = (tracer?: Tracer): RunReport =>
    runScenario(scenario, {
      ...(tracer === undefined ? {} : { tracer }),
      disk,
      architectures: [
        {
          ...architecture,
          build: (options) => watchPlatform(architecture.build(options), { findings, where }),
        },
      ],
    });
  let report: RunReport;
  try {
    if (one.flag && !one.packed) checkRepeats(run, where, findings);
    report = run();
  } catch (error) {
    findings.hold('answers', false, () => `${where}: ${String(error)}`);
    return;
  }
  findings.hold('answers', true, () => '');
  checkReport(report, one, where, findings);
}

function checkReport(report: RunReport, one: Case, where: string, findings: Findings): void {
  const { counters, data, verdict } = report;
  const works = verdict.outcome === 'works' || verdict.outcome === 'works-slow';
  const said = (): string => `${where}: ${verdict.outcome}: ${verdict.text}`;
  // Without the flag a guest may insist on it.
  const isRefused = !one.flag && verdict.outcome === 'refused';
  if (!one.isSecure) findings.hold('works', works || isRefused, said);
  findings.hold('data', isRightOrShown(report), said);
  if (works) {
    const stray = counters.strayBytesRead + counters.strayBytesWritten + counters.bytesLost;
    findings.hold('stray', stray === 0, () => {
      return `${where}: the device read ${counters.strayBytesRead}, wrote ${counters.strayBytesWritten} and lost ${counters.bytesLost} bytes beyond what it was given`;
    });
  }
  if (one.isSecure) {
    const { privateBytesExposed } = data;
    findings.hold('private', privateBytesExposed === 0, () => {
      return `${where}: ${privateBytesExposed} bytes of private buffers seen in clear`;
    });
    const { plaintext } = report.reach;
    findings.hold('private', plaintext <= counters.bytesShared, () => {
      return `${where}: the device sees ${plaintext} bytes in clear, and ${counters.bytesShared} are shared`;
    });
  }
}

/** Whoever reads the report finds out why data is wrong or a request failed. */
function isRightOrShown({ counters, data, deviceErrors, refusal, verdict }: RunReport): boolean {
  switch (verdict.outcome) {
    case 'refused':
      return refusal !== null && refusal !== '';
    case 'fails':
      return deviceErrors.length > 0 || data.firstFailure !== undefined;
    case 'wrong-data':
      return (
        counters.strayBytesRead + counters.strayBytesWritten + counters.bytesLost > 0 ||
        counters.ciphertextBytesRead + counters.privateBytesWriteRefused > 0
      );
    default:
      return data.completed > 0 && data.bytesReadWrong + data.imageBytesWrong === 0;
  }
}

function checkRepeats(run: (tracer: Tracer) => RunReport, where: string, findings: Findings): void {
  const [first, second] = [record(run), record(run)];
  const at = first.findIndex((event, i) => event !== second[i]);
  findings.hold('repeats', at < 0 && first.length === second.length, () => {
    const i = at < 0 ? first.length : at;
    return `${where}: event ${i + 1} was ${first[i] ?? 'none'}, then ${second[i] ?? 'none'}`;
  });
}

function record(run: (tracer: Tracer) => RunReport): string[] {
  const events: string[] = [];
  const emit = (event: TraceEvent): void => {
    events.push(
      JSON.stringify(event, (_key, value: unknown) =>
        typeof value === 'bigint' ? `0x${value.toString(16)}` : value,
      ),
    );
  };
  const report = run(new Tracer({ emit }));
  events.push(JSON.stringify(report));
  return events;
}
