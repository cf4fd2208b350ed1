/** What a run without TCE windows has to be told about. */
import { hex } from '@pinhole/base';
import type { BounceAddresses } from './bounce-addresses.js';
import type { DeviceAddresses } from './device-addresses.js';
import { type Finding, type FindingCode, finding } from './findings.js';
import type { GuestOperation } from './guest-operations.js';
import type { IommuRanges } from './iommu-ranges.js';
import type { RunEvidence } from './run-result.js';
import type { Evidence } from './tce-ledger.js';

const NEARLY_FULL = 0.9;

/** Something that happened, how often, and where first. */
export interface Happened {
  count: number;
  first: Evidence | undefined;
}

/** Everything that they are made of. */
interface DmaEvidence extends RunEvidence {
  readonly replay: {
    readonly addresses: DeviceAddresses | undefined;
    readonly ranges: IommuRanges | undefined;
    readonly bounce: BounceAddresses | undefined;
    readonly firstFailure: GuestOperation | undefined;
    readonly failed: { readonly count: number; readonly line: number };
    readonly stale: Happened;
    readonly outside: Happened;
    readonly denied: Happened;
    /** Unmappings that one invalidation or kick served, at most; and how many of these there were. */
    readonly lazy: { readonly most: number; readonly flushes: number };
  };
}

/** All findings about a run, after both files have ended. */
export function dmaFindings(evidence: DmaEvidence): Finding[] {
  return [
    ...leaks(evidence),
    ...accesses(evidence),
    ...bounceBuffers(evidence),
    ...failedRequests(evidence),
    ...notes(evidence),
  ];
}

function leaks({ replay }: DmaEvidence): Finding[] {
  const found: Finding[] = [];
  for (const { leaks: all } of replay.addresses?.iovas ?? []) {
    const { count, pages, first } = all;
    if (count === 0 || first === undefined) continue;
    const text = 'unmapped by the driver, still mapped by the IOMMU';
    const detail = `${count} mappings, ${pages} pages`;
    found.push(finding('E_IOMMU_LEAK', count, detail, { guestLine: first.line, text }));
  }
  const { ranges } = replay;
  if (ranges === undefined || ranges.doubleMaps === 0) return found;
  const { line = 0, iova = 0n } = ranges.firstDoubleMap ?? {};
  const first = { guestLine: line, text: `${hex(iova)} was mapped` };
  found.push(finding('E_DOUBLE_MAP', ranges.doubleMaps, `${ranges.doubleMaps} pages`, first));
  return found;
}

function accesses({ replay }: DmaEvidence): Finding[] {
  const kinds: [Happened, FindingCode][] = [
    [replay.stale, 'E_STALE_ACCESS'],
    [replay.outside, 'E_ACCESS_OUTSIDE'],
    [replay.denied, 'E_DMA_FAULT'],
  ];
  return kinds.flatMap(([{ count, first }, code]) => {
    if (count === 0) return [];
    return [finding(code, count, `${count} accesses; first: ${first?.text}`, first)];
  });
}

function bounceBuffers({ replay, inference }: DmaEvidence): Finding[] {
  const { bounce, firstFailure } = replay;
  if (bounce === undefined) return [];
  const { use, slots } = bounce;
  const { maps, bytes, peak, full } = use;
  const most = `${peak} of ${slots.slots} slots in use at most`;
  const found: Finding[] = [];
  if (full > 0) {
    const text = `${firstFailure?.device}: no bounce buffer for ${firstFailure?.size} bytes`;
    const first = { guestLine: firstFailure?.line ?? 0, text };
    found.push(finding('E_SWIOTLB_FULL', full, `${full} mappings failed; ${most}`, first));
  } else if (peak >= NEARLY_FULL * slots.slots) {
    found.push(finding('W_SWIOTLB_NEARLY_FULL', 1, most, undefined));
  }
  const why = inference.platform.isBounceForced
    ? 'because the guest bounces everything'
    : 'because the device does not reach all memory';
  const detail = `${maps} mappings of ${bytes} bytes, ${why}; ${most}`;
  found.push(finding('I_BOUNCED', maps, detail, undefined));
  return found;
}

function failedRequests({ replay }: DmaEvidence): Finding[] {
  const { count, line } = replay.failed;
  if (count === 0) return [];
  const first = { qemuLine: line, text: 'virtio_blk_req_complete with a status that is not 0' };
  return [finding('W_REQUEST_FAILED', count, `${count} requests`, first)];
}

function notes({ replay, inference, facts }: DmaEvidence): Finding[] {
  const { iommu } = inference.platform;
  const { most, flushes } = replay.lazy;
  if (iommu === 'none') {
    return facts.guest === undefined ? [] : [finding('I_NO_IOMMU', 1, '', undefined)];
  }
  if (inference.isStrict || flushes === 0 || most < 2) return [];
  const detail =
    iommu === 'virtio-iommu'
      ? `${flushes} times a virtio-iommu heard of several unmappings at once, of up to ${most}`
      : `${flushes} invalidations of everything, up to ${most} unmappings before one`;
  return [finding('I_DEFERRED_INVALIDATION', flushes, detail, undefined)];
}
