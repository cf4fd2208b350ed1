import { formatSize } from '@pinhole/base';
import type { NamedPages, RunEvidence } from '../evidence.js';
import { paysForTranslations, type RunReport } from '../report.js';

/**
 * How a cell ended, the most severe first: of several, the first is the cell's.
 * - `isolation-broken`: the hypervisor side saw private pages of a secure guest, or was sent to them.
 * - `silently-wrong`: requests succeeded, and data is wrong.
 * - `contract-broken`: one side misread the other's addresses.
 * - `hangs`: a request never completed; the run ended there.
 * - `io-fails`: requests were refused or completed with an error, which the guest sees.
 * - `leaks`: mappings stay for ever, or vhost's copies of them: the device keeps its access.
 * - `refused`: the guest found no usable device and said so.
 * - `works-slow`: correct, and something is paid for every request.
 * - `works`: correct.
 * - `no-machine`: there is no such machine, or the model has none.
 */
export const CELL_OUTCOMES = [
  'isolation-broken',
  'silently-wrong',
  'contract-broken',
  'hangs',
  'io-fails',
  'leaks',
  'refused',
  'works-slow',
  'works',
  'no-machine',
] as const;
/** How a cell came out: see {@link CELL_OUTCOMES}. */
export type CellOutcome = (typeof CELL_OUTCOMES)[number];

/** One thing that was found in a run. */
export interface CellFinding {
  readonly outcome: CellOutcome;
  /** A sentence without its full stop. */
  readonly text: string;
}

type Misread = NonNullable<RunEvidence['misread']>;

/** Everything that a run shows, the most severe first; at least one. From facts of the run alone. */
export function classify(report: RunReport): readonly CellFinding[] {
  if (report.negotiated === null) {
    const text = `refused at probe: ${report.refusal ?? 'no reason given'}`;
    return [...isolation(report), { outcome: 'refused', text }];
  }
  const problems = [
    ...isolation(report),
    ...wrongData(report),
    ...contract(report),
    ...failures(report),
  ];
  const isServed = report.data.completed === report.data.requests;
  const isRight = report.data.bytesReadWrong + report.data.imageBytesWrong === 0;
  if (!isServed || !isRight) return problems;
  return [...problems, ...leaks(report), price(report)];
}

function isolation({ evidence, counters, data }: RunReport): CellFinding[] {
  const { privatePagesExposed: exposed, privatePagesTouched: touched } = evidence;
  const texts: string[] = [];
  if (exposed.count > 0) {
    texts.push(
      `the hypervisor side saw ${formatSize(data.privateBytesExposed)} of private buffers in clear, in ${pages(exposed)}`,
    );
  }
  if (touched.count > 0) {
    const how = [
      counters.ciphertextBytesRead > 0
        ? `${formatSize(counters.ciphertextBytesRead)} read as ciphertext`
        : undefined,
      counters.privateBytesWriteRefused > 0
        ? `${formatSize(counters.privateBytesWriteRefused)} of writes refused`
        : undefined,
    ].filter((text) => text !== undefined);
    texts.push(
      `the guest sent the hypervisor side to ${pages(touched, 'private ')}: ${how.join(', ')}, nothing seen in clear`,
    );
  }
  return texts.length === 0
    ? []
    : [{ outcome: 'isolation-broken', text: `isolation broken: ${texts.join('; ')}` }];
}

function pages({ count, first }: NamedPages, kind = ''): string {
  const more = count > first.length ? ', ...' : '';
  return `${count} ${kind}page${count === 1 ? '' : 's'} (${first.join(', ')}${more})`;
}

function wrongData({ data }: RunReport): CellFinding[] {
  const isAllServed = data.completed === data.requests;
  // Of a write that failed nobody says that it is in the image.
  const image = isAllServed ? data.imageBytesWrong : 0;
  const read = data.bytesReadWrongSilently;
  if (read + image === 0) return [];
  const what = [
    read > 0 ? `${formatSize(read)} read wrong` : undefined,
    image > 0 ? `${formatSize(image)} of the image wrong` : undefined,
  ].filter((text) => text !== undefined);
  const { firstWrong } = data;
  const first =
    firstWrong === undefined || read === 0
      ? ''
      : `, first at ${firstWrong.offset}: ${firstWrong.found} instead of ${firstWrong.expected}`;
  return [
    {
      outcome: 'silently-wrong',
      text: `silently wrong: the requests succeeded, ${what.join(', ')}${first}`,
    },
  ];
}

const ADDRESS = { physical: 'guest-physical address', bus: 'bus address' } as const;

function contract({ evidence, counters }: RunReport): CellFinding[] {
  const { misread, firstStray } = evidence;
  const texts: string[] = [];
  if (misread !== null && !isMissing(misread)) {
    const taken =
      misread.guest === misread.device
        ? 'the device came out'
        : `the device took it for a ${ADDRESS[misread.device]}`;
    const end = misread.landed === null ? 'where nothing is' : `at ${misread.landed}`;
    texts.push(`${givenAddress(misread)}; ${taken}, ${end}`);
  }
  if (firstStray !== null) {
    const bytes = formatSize(counters.strayBytesRead + counters.strayBytesWritten);
    const { isWrite, length, gpa } = firstStray;
    const first = `${isWrite ? 'wrote' : 'read'} ${length} bytes at ${gpa}`;
    texts.push(`the device touched ${bytes} that it was not given, and first ${first}`);
  }
  if (texts.length === 0) return [];
  return [{ outcome: 'contract-broken', text: `contract broken: ${texts.join('; ')}` }];
}

// Both sides mean the same place, and nothing is mapped there.
function isMissing({ guest, device, address, meant, landed }: Misread): boolean {
  return landed === null && (guest === device || address === meant);
}

function givenAddress({ guest, address, meant }: Misread): string {
  const what = meant === null ? 'a bounce buffer' : `its memory at ${meant}`;
  return `the guest gave the ${ADDRESS[guest]} ${address} for ${what}`;
}

function failures({ data, deviceErrors, evidence, counters }: RunReport): CellFinding[] {
  const { misread } = evidence;
  const why = [
    data.firstFailure ?? 'no request was tried',
    ...(misread !== null && isMissing(misread)
      ? [`${givenAddress(misread)}, where nothing is mapped`]
      : []),
    ...(counters.vhost?.firstStall ? [counters.vhost.firstStall] : []),
    ...deviceErrors.slice(0, 1).map((error) => `the device: "${error}"`),
  ].join('; ');
  const findings: CellFinding[] = [];
  if (data.hung > 0) findings.push({ outcome: 'hangs', text: `hangs: ${why}` });
  const failed = data.failed + data.rejected;
  if (failed > 0) {
    const text = `I/O fails: ${failed} of ${data.requests} requests${data.hung > 0 ? '' : `; ${why}`}`;
    findings.push({ outcome: 'io-fails', text });
  }
  return findings;
}

function leaks(report: RunReport): CellFinding[] {
  const { entriesLeft } = report.evidence;
  const texts: string[] = [];
  if (entriesLeft > 0) {
    texts.push(
      `${entriesLeft} IOMMU entries of ${report.data.requests} completed requests stay mapped for ever; it works until the window is full, and the device keeps its access`,
    );
  }
  const { vhost } = report.counters;
  if (vhost !== null && vhost.misses > 0 && vhost.invalidates === 0 && hasUnmapped(report)) {
    texts.push(
      `vhost was told of no unmap and keeps ${vhost.updates - vhost.evictions} translations; an address that is used again would lead it to the old memory`,
    );
  }
  return texts.length === 0 ? [] : [{ outcome: 'leaks', text: `leaks: ${texts.join('; ')}` }];
}

// What says so may be deferred, but at the end it was said.
function hasUnmapped({ counters: { workload } }: RunReport): boolean {
  return (workload.hcalls.H_STUFF_TCE ?? 0) + workload.iommu.unmaps > 0;
}

/** At most two decimals. */
function round(value: number): string {
  return String(Number(value.toFixed(2)));
}

/** What every request costs, in words; empty when nothing. */
function prices({ counters, data }: RunReport): string[] {
  const { workload } = counters;
  const a = (count: number): string => round(count / data.requests);
  const prices: string[] = [];
  if (counters.hcallsPerRequestTotal > 0) {
    const hcalls = Object.values(workload.hcalls).reduce((sum, count) => sum + count, 0);
    prices.push(`${a(hcalls)} hypercalls a request`);
  }
  if (workload.bytesBounced > 0) prices.push(`${formatSize(workload.bytesBounced)} bounced`);
  const { maps, unmaps, commands } = workload.iommu;
  if (maps + unmaps > 0) prices.push(`${a(maps + unmaps)} IOMMU maps and unmaps a request`);
  if (commands > 0) prices.push(`${a(commands)} IOMMU commands a request`);
  const { vhost } = counters;
  if (vhost !== null && paysForTranslations(counters)) {
    const [misses, invalidates] = [vhost.missesPerRequest, vhost.invalidatesPerRequest];
    prices.push(`${round(misses)} IOTLB misses and ${round(invalidates)} invalidations a request`);
  }
  return prices;
}

function price(report: RunReport): CellFinding {
  const paid = prices(report);
  const { dmaOps } = report.decision;
  // Without the DMA API there are no operations.
  const way = dmaOps.startsWith('none') ? 'physical addresses' : dmaOps;
  const { entriesDeferred } = report.evidence;
  if (entriesDeferred > 0) {
    paid.push(
      `at the end the device still reached ${entriesDeferred} unmapped pages: the invalidation is deferred`,
    );
  }
  const misses = report.counters.vhost?.missesPerRequest ?? 0;
  const first = misses >= 1 ? ` but the first use of each page, ${round(misses)} IOTLB misses` : '';
  return paid.length === 0
    ? {
        outcome: 'works',
        text: `works: every byte correct, nothing to pay per request${first} (${way})`,
      }
    : { outcome: 'works-slow', text: `works, but slow: ${paid.join(', ')} (${way})` };
}
