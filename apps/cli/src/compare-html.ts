import { formatSize } from '@pinhole/base';
import { card } from './compare-html-card.js';
import { chart } from './compare-html-chart.js';
import { STYLE } from './compare-html-style.js';
import { breakable, escapeHtml } from './compare-html-text.js';
import {
  type ComparedPath,
  decimals,
  flagText,
  hcallKinds,
  perRequest,
  summarize,
  workloadText,
} from './compare-path.js';

const POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/** The comparison as one page: no network, no script. */
export function renderCompareHtml(
  paths: readonly ComparedPath[],
  options: { readonly imageName: string },
): string {
  const intro =
    `${workloadText(paths, options.imageName)} ` +
    'Every byte was checked, every hypercall counted.';
  const kinds = hcallKinds(paths);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Pinhole: how virtio reaches guest memory</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>How virtio reaches guest memory, over ${paths.length} DMA path${paths.length === 1 ? '' : 's'}</h1>
<p>${escapeHtml(intro)}</p>
<ul>${summarize(paths)
    .map((sentence) => `<li>${escapeHtml(sentence)}</li>`)
    .join('')}</ul>
<h2>Figures</h2>
<div class="scroll" role="region" aria-label="Table of figures" tabindex="0">${table(paths, kinds)}</div>
<h2>Hypercalls per request</h2>
${chart(paths, {
  id: 'hypercalls',
  title: 'Hypercalls per request by kind, for each path',
  axis: 'hypercalls per request',
  series: kinds.map((kind) => ({ label: kind, value: ({ report }) => perRequest(report, kind) })),
})}
<h2>Device translations per request</h2>
${chart(paths, {
  id: 'translations',
  title: 'Translations that the device asked an IOMMU for, per request, for each path',
  axis: 'translations per request',
  series: [
    { label: 'translations', value: ({ report }) => report.counters.translationsPerRequest },
  ],
})}
<h2>The paths</h2>
${paths.map(card).join('\n')}
</main>
</body>
</html>
`;
}

function table(paths: readonly ComparedPath[], kinds: readonly string[]): string {
  const head = [
    ...['path', 'flag', 'DMA ops', 'verdict'].map((text) => `<th scope="col">${text}</th>`),
    ...[
      ...kinds.map((kind) => escapeHtml(kind).replace('_INDIRECT', '<wbr>_INDIRECT')),
      'hyper&shy;calls',
      'TCEs live / peak',
      'trans&shy;lations',
      'bounced',
      'device reaches',
      'of it in clear',
    ].map((html) => `<th scope="col" class="n">${html}</th>`),
  ];
  const rows = paths.map(
    (path) =>
      `<tr>${words(path).join('')}${figures(path, kinds)
        .map((text) => `<td class="n${/^0( B| \/ 0)?$/.test(text) ? ' zero' : ''}">${text}</td>`)
        .join('')}</tr>`,
  );
  return `<table><caption><span>Flag: whether ACCESS_PLATFORM was negotiated. Hypercalls and translations are per request; set-up is not in them.</span></caption>
<thead><tr>${head.join('')}</tr></thead>
<tbody>
${rows.join('\n')}
</tbody></table>`;
}

function words({ number, report }: ComparedPath): string[] {
  const { outcome } = report.verdict;
  return [
    `<th scope="row">${number}. ${breakable(report.title)}</th>`,
    `<td>${flagText(report)}</td>`,
    `<td class="ops">${escapeHtml(report.decision.dmaOps).replace(/ (?=[+(])/, '<br>')}</td>`,
    `<td><b class="${outcome}">${outcome}</b></td>`,
  ];
}

function figures({ report }: ComparedPath, kinds: readonly string[]): string[] {
  const { counters, reach } = report;
  return [
    ...kinds.map((kind) => decimals(perRequest(report, kind))),
    decimals(counters.hcallsPerRequestTotal),
    `${counters.tcesLive} / ${counters.tcesPeak}`,
    decimals(counters.translationsPerRequest),
    formatSize(counters.workload.bytesBounced),
    formatSize(reach.addressable),
    formatSize(reach.plaintext),
  ];
}
