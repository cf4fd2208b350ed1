import { formatSize } from '@pinhole/base';
import {
  type ComparedPath,
  dataText,
  decimals,
  HCALL_KINDS,
  negotiatedText,
  perRequest,
  summarize,
} from './compare-path.js';

const STYLE = `
:root { color-scheme: light dark; --bg: #fff; --fg: #1b1f24; --dim: #57606a; --line: #d0d7de;
  --works: #1a7f37; --works-slow: #9a6700; --bad: #cf222e; --c0: #0969da; --c1: #8250df; --c2: #bf8700; }
@media (prefers-color-scheme: dark) { :root { --bg: #0d1117; --fg: #e6edf3; --dim: #9198a1;
  --line: #3d444d; --works: #3fb950; --works-slow: #d29922; --bad: #f85149; --c0: #58a6ff;
  --c1: #bc8cff; --c2: #e3b341; } }
th[scope=row] { min-width: 12rem; font-weight: 500; }
body { margin: 0; background: var(--bg); color: var(--fg); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 92rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; width: 100%; }
caption { text-align: left; color: var(--dim); padding-bottom: .5rem; }
th, td { padding: .4rem .5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } td.n { white-space: nowrap; }
thead th { position: sticky; top: 0; background: var(--bg); }
.works { color: var(--works); } .works-slow { color: var(--works-slow); }
.fails, .wrong-data, .refused { color: var(--bad); font-weight: 600; }
article { border: 1px solid var(--line); border-radius: .5rem; padding: 0 1rem 1rem; margin: 1rem 0; }
article h3 { font-size: 1rem; margin-bottom: .25rem; } p { margin: .4rem 0; }
.dim { color: var(--dim); } code { overflow-wrap: anywhere; font-size: .85em; }
svg text { fill: var(--fg); font: 12px system-ui, sans-serif; }
.k0 { fill: var(--c0); } .k1 { fill: var(--c1); } .k2 { fill: var(--c2); } .axis { stroke: var(--line); }
`;

/** The comparison as one page: no network, no script. */
export function renderCompareHtml(
  paths: readonly ComparedPath[],
  options: { readonly imageName: string },
): string {
  const requests = paths[0]?.report.data.requests ?? 0;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Pinhole: how virtio reaches guest memory</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>How virtio reaches guest memory, over ${paths.length} DMA paths</h1>
<p>The same ${requests} requests over each path, on ${escapeHtml(options.imageName)}. ${escapeHtml(summarize(paths))}</p>
<div class="scroll" role="region" aria-label="Figures" tabindex="0">${table(paths)}</div>
<h2>Hypercalls per request</h2>
${chart(
  paths,
  HCALL_KINDS.map((kind) => ({
    label: kind,
    value: ({ report }: ComparedPath) => report.counters.hcallsPerRequest[kind] ?? 0,
  })),
  'Hypercalls per request by kind, for each path',
)}
<h2>Device translations per request</h2>
${chart(
  paths,
  [
    {
      label: 'translations',
      value: ({ report }: ComparedPath) => report.counters.translationsPerRequest,
    },
  ],
  'Translations that the device asked an IOMMU for, per request, for each path',
)}
<h2>The paths</h2>
${paths.map(card).join('\n')}
</main>
</body>
</html>
`;
}

function table(paths: readonly ComparedPath[]): string {
  const heads: [string, boolean][] = [
    ['#', true],
    ['path', false],
    ['negotiated', false],
    ['DMA ops', false],
    ['data', false],
    ...HCALL_KINDS.map((kind): [string, boolean] => [kind.replaceAll('_', '_<wbr>'), true]),
    ['hypercalls', true],
    ['TCEs live / peak', true],
    ['translations', true],
    ['bounced', true],
    ['device reach', true],
    ['in clear', true],
  ];
  const head = heads.map(([text, n]) => `<th scope="col"${n ? ' class="n"' : ''}>${text}</th>`);
  const rows = paths.map(({ number, report }) => {
    const { counters, reach, verdict } = report;
    const numbers = [
      ...HCALL_KINDS.map((kind) => perRequest(report, kind)),
      decimals(counters.hcallsPerRequestTotal),
      `${counters.tcesLive} / ${counters.tcesPeak}`,
      decimals(counters.translationsPerRequest),
      formatSize(counters.workload.bytesBounced),
      formatSize(reach.addressable),
      formatSize(reach.plaintext),
    ];
    return (
      `<tr><td class="n">${number}</td><th scope="row">${escapeHtml(report.title)}</th>` +
      `<td>${escapeHtml(negotiatedText(report)).replaceAll('_', '_<wbr>')}</td><td>${escapeHtml(report.decision.dmaOps)}</td>` +
      `<td class="${verdict.outcome}">${dataText(report)}</td>` +
      `${numbers.map((text) => `<td class="n">${text}</td>`).join('')}</tr>`
    );
  });
  return `<table><caption>Hypercalls and translations are per request.</caption><thead><tr>${head.join('')}</tr></thead><tbody>
${rows.join('\n')}
</tbody></table>`;
}

interface Series {
  readonly label: string;
  readonly value: (path: ComparedPath) => number;
}

// Horizontal stacked bars; the figures stand beside them.
function chart(paths: readonly ComparedPath[], series: readonly Series[], title: string): string {
  const left = 150;
  const room = 520;
  const totals = paths.map((path) => series.reduce((sum, { value }) => sum + value(path), 0));
  const most = Math.max(...totals, 1);
  const bars = paths.map((path, row) => {
    let x = left;
    const y = 28 + row * 26;
    const parts = series.map(({ value }, i) => {
      const width = (value(path) / most) * room;
      const rect = `<rect class="k${i}" x="${x.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="18"/>`;
      x += width;
      return width > 0 ? rect : '';
    });
    return (
      `<text x="${left - 8}" y="${y + 13}" text-anchor="end">${escapeHtml(path.id)}</text>${parts.join('')}` +
      `<text x="${(x + 6).toFixed(1)}" y="${y + 13}">${decimals(totals[row] ?? 0)}</text>`
    );
  });
  const legend = series.map(
    ({ label }, i) =>
      `<rect class="k${i}" x="${left + i * 170}" y="4" width="12" height="12"/><text x="${left + 18 + i * 170}" y="14">${label}</text>`,
  );
  const height = 34 + paths.length * 26;
  return `<div class="scroll" role="region" aria-label="${escapeHtml(title)}" tabindex="0"><svg role="img" viewBox="0 0 760 ${height}" width="760" height="${height}" aria-label="${escapeHtml(title)}"><title>${escapeHtml(title)}</title>
${legend.join('')}<line class="axis" x1="${left}" y1="24" x2="${left}" y2="${height}"/>
${bars.join('\n')}
</svg></div>`;
}

function card({ number, report }: ComparedPath): string {
  const { decision, verdict, data, counters } = report;
  const steps = decision.steps.map((step) => `<li><code>${escapeHtml(step)}</code></li>`);
  const notes = [...report.warnings, ...report.deviceErrors].map(
    (text) => `<p class="fails"><code>${escapeHtml(text)}</code></p>`,
  );
  const wrong =
    data.firstWrong === undefined
      ? ''
      : `<p>First wrong byte: at ${data.firstWrong.offset}, expected <code>${escapeHtml(data.firstWrong.expected)}</code>, found <code>${escapeHtml(data.firstWrong.found)}</code>.</p>`;
  return `<article>
<h3>${number}. ${escapeHtml(report.title)}</h3>
<p class="${verdict.outcome}">${escapeHtml(verdict.text)}</p>
<p><b>Guest</b>: ${escapeHtml(decision.dmaOps)}: ${escapeHtml(decision.because)}. <b>Device</b>: ${escapeHtml(decision.device)}.</p>
${notes.join('\n')}${wrong}
<details><summary>Steps and counters</summary>
${steps.length > 0 ? `<ol>${steps.join('')}</ol>` : ''}
<p class="dim"><code>${escapeHtml(report.negotiated === null ? (report.refusal ?? '') : `${report.negotiated.features} ${report.negotiated.names.join(' ')}`)}</code></p>
<p class="dim"><code>${escapeHtml(JSON.stringify({ data, counters }))}</code></p>
</details>
</article>`;
}

function escapeHtml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;');
}
