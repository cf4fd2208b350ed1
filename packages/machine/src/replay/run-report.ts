/** What a replay has to say, as one object: the JSON of `pinhole replay`. */
import { hex } from '@pinhole/base';
import type { ConsoleDigest } from './console-digest.js';
import { liobnOf, routeFrom } from './device-route.js';
import { type Finding, finding } from './findings.js';
import { neverFits } from './forecast.js';
import type { GuestReplayResult } from './guest-replay.js';
import type { HypervisorReplayResult } from './hypervisor-replay.js';
import type { Inference } from './inference.js';
import type { RunReplay, WindowUse } from './run-replay.js';
import type { RunFacts } from './run-scout.js';
import type { TallyName } from './tce-ledger.js';

const NEARLY_FULL = 0.9;

/** What was inferred, in the form of the report. */
interface InferredReport {
  readonly kernel: string;
  readonly kernelFrom: string;
  readonly release: string | null;
  readonly guestPageSize: number;
  readonly cpus: number | null;
  readonly liobns: readonly string[];
  readonly ddw: string;
  readonly boots: number;
  readonly windows: readonly {
    readonly liobn: string;
    readonly busOffset: string;
    readonly tces: number;
    readonly live: number;
    readonly peak: number;
  }[];
  readonly devices: Readonly<Record<string, string>>;
}

/** A replay's result. */
export interface ReplayReport {
  readonly schemaVersion: 1;
  readonly inferred: InferredReport;
  readonly hypervisor: HypervisorReplayResult;
  readonly guest: GuestReplayResult | null;
  readonly findings: readonly Finding[];
}

/** Disagreements of model and files, in all. */
export function mismatchesOf({
  hypervisor,
  guest,
}: Pick<ReplayReport, 'hypervisor' | 'guest'>): number {
  const own =
    hypervisor.hcallMismatches + hypervisor.translationMismatches + hypervisor.rtasMismatches;
  if (guest === null) return own;
  return own + guest.dmaAddressMismatches + guest.hcallMismatches + guest.inconsistentAddresses;
}

/** Everything that a report is made of. */
export interface ReplayEvidence {
  readonly facts: RunFacts;
  readonly inference: Inference;
  readonly console: ConsoleDigest;
  readonly replay: RunReplay;
}

/** Makes the report, after both files have ended. */
export function reportRun(evidence: ReplayEvidence): ReplayReport {
  const { facts, inference, replay } = evidence;
  const { hypervisor, guest } = replay.result();
  const windows = replay.windows();
  return {
    schemaVersion: 1,
    inferred: {
      kernel: inference.kernel.id,
      kernelFrom: inference.kernelFrom,
      release: inference.release ?? null,
      guestPageSize: inference.guestPageSize,
      cpus: inference.cpus ?? null,
      liobns: hypervisor.liobns,
      ddw: inference.ddw,
      boots: facts.boots.length,
      windows: windows.map(({ liobn, busOffset, size, live, peak }) => ({
        liobn: hex(liobn),
        busOffset: hex(busOffset),
        tces: size,
        live,
        peak,
      })),
      devices: devicesOf(facts),
    },
    hypervisor,
    guest: guest ?? null,
    findings: findingsOf(evidence, windows),
  };
}

function devicesOf({ guest }: RunFacts): Record<string, string> {
  const devices: Record<string, string> = {};
  for (const [device, maps] of guest?.devices ?? []) {
    const { kind, offset } = routeFrom(maps, liobnOf(device));
    devices[device] = kind === 'window' ? 'window' : `physical address + ${hex(offset)}`;
  }
  return devices;
}

function findingsOf(evidence: ReplayEvidence, windows: readonly WindowUse[]): Finding[] {
  return [
    ...leaks(evidence),
    ...accesses(evidence),
    ...rooms(evidence, windows),
    ...ddwLost(evidence),
    ...notes(evidence),
  ];
}

function leaks({ replay, inference }: ReplayEvidence): Finding[] {
  const { count, tces, first } = replay.ledger.tallies.leak;
  if (count === 0) return [];
  const forecast = replay.forecast();
  const why = inference.leaksAfterLoss
    ? `creating the second window failed after ${inference.kernel.id} had set the limit for direct DMA, so it takes every unmap for a direct one`
    : 'the kernel took these unmaps for direct ones';
  const requests =
    forecast?.moreRequests === undefined ? '' : ` (about ${forecast.moreRequests} requests)`;
  const future =
    forecast === undefined
      ? ''
      : `; ${forecast.tcesInUse} of ${forecast.windowTces} TCEs are in use, and after ${forecast.moreMappings} more mappings like these${requests} one of ${forecast.failingTces} TCEs finds no room; full at ${forecast.tcesWhenFull}`;
  const isAll = replay.ledger.unmapsWithCall === 0;
  const what = isAll ? 'nothing is ever unmapped' : 'some mappings are never unmapped';
  return [
    finding(
      'E_TCE_LEAK',
      count,
      `${what}: ${tces} TCEs of ${count} mappings are left; ${why}${future}`,
      first,
      {
        ...(forecast === undefined ? {} : { forecast }),
        evidence: { tces, reason: why },
      },
    ),
  ];
}

const SIMPLE: readonly (readonly [TallyName, Finding['code'], string])[] = [
  ['staleAccess', 'E_STALE_ACCESS', 'accesses'],
  ['outside', 'E_ACCESS_OUTSIDE', 'accesses'],
  ['fault', 'E_DMA_FAULT', 'accesses'],
  ['doubleMap', 'E_DOUBLE_MAP', 'entries'],
  ['wider', 'E_TCE_WIDER', 'hypercalls'],
  ['failedCall', 'E_HCALL_FAILED', 'hypercalls'],
];

function accesses({ replay }: ReplayEvidence): Finding[] {
  return SIMPLE.flatMap(([name, code, unit]) => {
    const { count, first } = replay.ledger.tallies[name];
    if (count === 0) return [];
    return [finding(code, count, `${count} ${unit}; first: ${first?.text}`, first)];
  });
}

function rooms({ replay, console }: ReplayEvidence, windows: readonly WindowUse[]): Finding[] {
  const found: Finding[] = [];
  const { count, first } = replay.ledger.tallies.failedMap;
  const firstFailure = replay.firstFailure;
  if (count > 0 && firstFailure !== undefined) {
    const { window, request, free } = firstFailure;
    const sizes = `${count} mappings failed; the first asked for ${request.npages} TCEs when ${free} of ${window.size} were free`;
    if (free < request.npages) found.push(finding('E_WINDOW_EXHAUSTED', count, sizes, first));
    else {
      const never = neverFits(window, request)
        ? ', and not even an empty window has so many in a row'
        : '';
      found.push(finding('E_WINDOW_FRAGMENTED', count, `${sizes}${never}`, first));
    }
  } else if (console.allocFailures > 0) {
    const { firstAllocFailure: fact, allocFailures } = console;
    const text = `console line ${fact?.line}: iommu_alloc failed, npages ${fact?.npages}`;
    found.push(
      finding(
        'W_GUEST_FAILED_MAPS',
        allocFailures,
        `${allocFailures} lines of "iommu_alloc failed"`,
        { text },
      ),
    );
  }
  for (const { liobn, size, peak } of windows) {
    if (peak < NEARLY_FULL * size || found.length > 0) continue;
    const detail = `${hex(liobn)}: ${peak} of ${size} TCEs at most`;
    found.push(finding('W_WINDOW_NEARLY_FULL', 1, detail, undefined));
  }
  return found;
}

function ddwLost({ inference, console }: ReplayEvidence): Finding[] {
  const { ddw, boot } = inference;
  if (ddw !== 'lost' || boot === undefined) return [];
  const failed = console.failedCreates[0];
  const first = { qemuLine: boot.queries[0] ?? 0, text: 'asked for, and no window was created' };
  if (failed === undefined) {
    const detail = "QEMU's log has the query and no window that was created";
    return [finding('W_DDW_LOST', 1, detail, first)];
  }
  const { pageShift, windowShift, status, line } = failed;
  const size =
    windowShift === 0
      ? ": the guest takes memory's maximum from ibm,lrdr-capacity alone, and it is 0"
      : '';
  const detail = `create(page shift ${pageShift}, window shift ${windowShift}) returned ${status}${size}`;
  return [
    finding('W_DDW_LOST', 1, detail, first, {
      evidence: { consoleLine: line, status, pageShift, windowShift },
    }),
  ];
}

function notes({ inference }: ReplayEvidence): Finding[] {
  const { boot, ddw } = inference;
  const found: Finding[] = [];
  if (boot !== undefined && boot.firmwareEntries > 0) {
    const [window] = boot.windows;
    const first = { qemuLine: window?.line ?? 0, text: 'the window was cleared' };
    found.push(
      finding('I_FIRMWARE_MAPPINGS', boot.firmwareEntries, `${boot.firmwareEntries} TCEs`, first),
    );
  }
  const created = boot?.created[0];
  if (ddw === 'created' && created !== undefined) {
    const detail = `${hex(created.liobn)} at ${hex(created.start)}`;
    found.push(
      finding('I_ALL_MEMORY_MAPPED', 1, detail, { qemuLine: created.line, text: 'created' }),
    );
  }
  return found;
}
