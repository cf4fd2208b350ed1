import { formatSize } from '@pinhole/base';
import type { RunReport } from '@pinhole/machine';
import { breakable, escapeHtml } from './compare-html-text.js';
import { type ComparedPath, dataText, negotiatedText, setupText } from './compare-path.js';

/** All about one path: verdict, why, warnings; the steps and every counter folded away. */
export function card({ number, report }: ComparedPath): string {
  const { decision, verdict, machine } = report;
  const setup = setupText(report);
  const facts: [string, string][] = [
    ['Negotiated', negotiatedText(report)],
    ['DMA ops', decision.dmaOps],
    ['Because', decision.because],
    ['Device', decision.device],
    ['Data', dataText(report)],
    ...(setup === '' ? [] : [['Set-up', setup] as [string, string]]),
    [
      'Machine',
      `${machine.arch}, ${formatSize(machine.memory)}${machine.secure ? ', secure guest' : ''}, ` +
        `QEMU ${machine.qemu}, ${machine.kernel}, policy ${machine.policy}`,
    ],
  ];
  return `<article class="${verdict.outcome}">
<h3>${number}. ${escapeHtml(report.title)}</h3>
<p><b class="${verdict.outcome}">${verdict.outcome}</b>: ${escapeHtml(verdict.text)}</p>
${notes(report)}
<dl>${facts.map(([key, text]) => `<dt>${key}</dt><dd>${breakable(text)}</dd>`).join('')}</dl>
<details><summary>Decision steps and counters of path ${number}</summary>
${steps(decision.steps)}
${report.negotiated === null ? '' : `<h4>Feature bits</h4><p><code>${escapeHtml(report.negotiated.names.join(' '))}</code></p>`}
<h4>Counters</h4>
<dl class="counters">${counters(report)}</dl>
</details>
</article>`;
}

function notes({ warnings, deviceErrors, data }: RunReport): string {
  const { firstWrong } = data;
  return [
    ...warnings.map((text) => `Warning: <code>${escapeHtml(text)}</code>`),
    ...deviceErrors.map((text) => `Device error: <code>${escapeHtml(text)}</code>`),
    ...(firstWrong === undefined
      ? []
      : [
          `First wrong byte: offset ${firstWrong.offset}, expected ` +
            `<code>${escapeHtml(firstWrong.expected)}</code>, found ` +
            `<code>${escapeHtml(firstWrong.found)}</code>`,
        ]),
  ]
    .map((html) => `<p class="note">${html}</p>`)
    .join('\n');
}

function steps(texts: readonly string[]): string {
  if (texts.length === 0) return '<p class="dim">No decision steps were recorded.</p>';
  const items = texts.map((text) => `<li><code>${escapeHtml(text)}</code></li>`);
  return `<h4>Decision steps</h4><ol>${items.join('')}</ol>`;
}

// Every number that the report has: a counter added to it shows up by itself.
function counters({ data, counters: counted, reach }: RunReport): string {
  return numbers({ ...data, ...counted, reach })
    .map(([name, value]) => {
      const size = value >= 1024 && /bytes|reach\./i.test(name) ? ` (${formatSize(value)})` : '';
      const figure = Number.isInteger(value) ? String(value) : value.toFixed(2);
      return `<div><dt>${breakable(name)}</dt><dd class="n">${figure}${size}</dd></div>`;
    })
    .join('');
}

function numbers(tree: object, prefix = ''): [name: string, value: number][] {
  return Object.entries(tree).flatMap(([key, value]): [string, number][] => {
    if (key === 'firstWrong') return [];
    if (typeof value === 'number') return [[prefix + key, value]];
    return typeof value === 'object' && value !== null ? numbers(value, `${prefix}${key}.`) : [];
  });
}
