/** What a run with TCE windows has to be told about. */
import { hex } from '@pinhole/base';
import { type Finding, finding } from './findings.js';
import { type ExhaustionForecast, type FirstFailure, neverFits } from './forecast.js';
import type { RunEvidence } from './run-result.js';
import type { TallyName, TceLedger } from './tce-ledger.js';
import type { WindowUse } from './window-use.js';

const NEARLY_FULL = 0.9;

/** Everything that they are made of. */
interface TceEvidence extends RunEvidence {
  readonly replay: {
    readonly ledger: TceLedger;
    readonly firstFailure: FirstFailure | undefined;
    forecast(): ExhaustionForecast | undefined;
    windows(): WindowUse[];
  };
}

/** All findings about a run, after both files have ended. */
export function tceFindings(evidence: TceEvidence): Finding[] {
  const windows = evidence.replay.windows();
  return [
    ...leaks(evidence),
    ...accesses(evidence),
    ...rooms(evidence, windows),
    ...ddwLost(evidence),
    ...notes(evidence),
  ];
}

function leaks({ replay, inference }: TceEvidence): Finding[] {
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

function accesses({ replay }: TceEvidence): Finding[] {
  return SIMPLE.flatMap(([name, code, unit]) => {
    const { count, first } = replay.ledger.tallies[name];
    if (count === 0) return [];
    return [finding(code, count, `${count} ${unit}; first: ${first?.text}`, first)];
  });
}

function rooms({ replay, console }: TceEvidence, windows: readonly WindowUse[]): Finding[] {
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

function ddwLost({ inference, console }: TceEvidence): Finding[] {
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

function notes({ inference }: TceEvidence): Finding[] {
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
