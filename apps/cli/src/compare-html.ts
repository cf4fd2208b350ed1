import { formatSize } from '@pinhole/base';
import { throughputCell } from './compare-columns.js';
import { pathCard } from './compare-html-card.js';
import {
  type ComparedPath,
  decimals,
  flagText,
  hcallKinds,
  perRequest,
  shortName,
  summarize,
  workloadText,
} from './compare-path.js';
import { timeText } from './costs.js';
import { barChart } from './report/chart-bars.js';
import { rangeChart } from './report/chart-ranges.js';
import { escapeHtml, Html, html } from './report/html.js';
import { OUTCOME_MARKS } from './report/marks.js';
import { page, type Section } from './report/page.js';
import { badge } from './report/parts.js';
import { type Chart, figure } from './report/svg.js';
import { type TableColumn, table } from './report/table.js';

/** What the page says besides the paths. */
export interface CompareHtmlOptions {
  readonly imageName: string;
  /** What made the page. */
  readonly command: string;
}

/** The comparison as one page. */
export function renderCompareHtml(
  paths: readonly ComparedPath[],
  { imageName, command }: CompareHtmlOptions,
): string {
  const title = `How virtio reaches guest memory, over ${paths.length} DMA path${paths.length === 1 ? '' : 's'}`;
  return page({
    title,
    intro: html`<p>${workloadText(paths, imageName)} Every byte was checked, every hypercall counted.</p>
<ul>${summarize(paths).map((sentence) => html`<li>${sentence}</li>`)}</ul>`,
    sections: [
      { id: 'figures', title: 'Figures', body: figures(paths) },
      { id: 'hypercalls', title: 'Hypercalls per request', body: figure(hypercalls(paths)) },
      {
        id: 'translations',
        title: 'Device translations per request',
        body: figure(translations(paths)),
      },
      ...timeSection(paths),
      { id: 'paths', title: 'The paths', body: html`${paths.map(pathCard)}` },
    ],
    command,
  });
}

function hypercalls(paths: readonly ComparedPath[]): Chart {
  const kinds = hcallKinds(paths);
  return barChart({
    id: 'hypercalls-chart',
    title: 'Hypercalls per request by kind, for each path',
    axis: 'hypercalls per request',
    rowAxis: 'path',
    parts: kinds,
    rows: rowsOf(paths, (path) => kinds.map((kind) => perRequest(path.report, kind))),
    format: decimals,
  });
}

function translations(paths: readonly ComparedPath[]): Chart {
  return barChart({
    id: 'translations-chart',
    title: 'Translations that the device asked an IOMMU for, per request, for each path',
    axis: 'translations per request',
    rowAxis: 'path',
    parts: ['translations'],
    rows: rowsOf(paths, ({ report }) => [report.counters.translationsPerRequest]),
    format: decimals,
  });
}

// Only where there is an estimate.
function timeSection(paths: readonly ComparedPath[]): Section[] {
  if (!paths.some(({ costs }) => costs !== undefined && costs !== null)) return [];
  const chart = rangeChart({
    id: 'time-chart',
    title: 'Time per request, for each path: an estimate, as a range',
    axis: 'time per request',
    parts: ['time'],
    groups: paths.map((path) => ({
      label: `${path.number} ${shortName(path)}`,
      values: [path.costs?.perRequest ?? null],
    })),
    format: timeText,
  });
  const caption =
    'Estimates, each on the machine that its path names: the bar is the middle one, the line goes from the least to the most.';
  return [{ id: 'time', title: 'Time per request', body: figure(chart, caption) }];
}

function rowsOf(
  paths: readonly ComparedPath[],
  values: (path: ComparedPath) => number[],
): { label: string; values: number[] }[] {
  return paths.map((path) => ({
    label: `${path.number} ${shortName(path)}`,
    values: values(path),
  }));
}

type Column = TableColumn<ComparedPath>;

function figures(paths: readonly ComparedPath[]): Html {
  const number = (head: Html | string, cell: Column['cell']): Column => ({
    head,
    isNumber: true,
    cell,
  });
  const columns: Column[] = [
    {
      head: html`<div class="wide">path</div>`,
      cell: ({ number: at, report }) => `${at}. ${report.title}`,
    },
    { head: 'flag', cell: ({ report }) => flagText(report) },
    { head: 'DMA ops', cell: ({ report }) => opsText(report.decision.dmaOps) },
    { head: 'verdict', cell: ({ report }) => badge(OUTCOME_MARKS[report.verdict.outcome]) },
    ...hcallKinds(paths).map((kind) =>
      number(breakingHead(kind), ({ report }) => decimals(perRequest(report, kind))),
    ),
    number(new Html('hyper&shy;calls'), ({ report }) =>
      decimals(report.counters.hcallsPerRequestTotal),
    ),
    number(
      'TCEs live / peak',
      ({ report: { counters } }) => `${counters.tcesLive} / ${counters.tcesPeak}`,
    ),
    number(new Html('trans&shy;lations'), ({ report }) =>
      decimals(report.counters.translationsPerRequest),
    ),
    number('bounced', ({ report }) => formatSize(report.counters.workload.bytesBounced)),
    number('device reaches', ({ report }) => formatSize(report.reach.addressable)),
    number('of it in clear', ({ report }) => formatSize(report.reach.plaintext)),
    ...(paths.some(({ costs }) => costs !== undefined)
      ? [number('throughput of bypass', throughputCell)]
      : []),
  ];
  return table({
    label: 'Table of figures',
    caption:
      'Flag: whether ACCESS_PLATFORM was negotiated. Hypercalls and translations are per request; set-up is not in them. Throughput is an estimate.',
    columns,
    rows: paths,
  });
}

// The longest name of the three in two lines.
function breakingHead(kind: string): Html {
  return new Html(escapeHtml(kind).replace('_INDIRECT', '<wbr>_INDIRECT'));
}

// `dma-direct + swiotlb` on two lines.
function opsText(dmaOps: string): Html {
  const [name = '', rest] = dmaOps.split(/ (?=[+(])/, 2);
  return html`<span class="nowrap">${name}${rest === undefined ? undefined : html`<br>${rest}`}</span>`;
}
