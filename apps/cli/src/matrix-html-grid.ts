import { CELL_OUTCOMES, type CellResult, MATRIX_POLICIES, matrixPlatforms } from '@pinhole/machine';
import { CELL_MARKS } from './matrix-marks.js';
import { type Html, html } from './report/html.js';
import { scrollable } from './report/parts.js';

/** Machines by policies: the worst outcome of each, which leads to its cells. */
export function overview(results: readonly CellResult[]): Html {
  const policies = MATRIX_POLICIES.filter((id) => results.some(({ cell }) => cell.policy === id));
  const flags = [false, true].filter((flag) => results.some(({ cell }) => cell.flag === flag));
  if (results.length === 0) return html`<p class="dim">No cell was run.</p>`;
  const rows = new Map<string, CellResult[]>();
  for (const result of results) {
    const { platform, secure } = result.cell;
    const key = `${platform}/${secure ? 'secure' : 'normal'}`;
    rows.set(key, [...(rows.get(key) ?? []), result]);
  }
  const head = html`<tr><th scope="col" rowspan="2">machine</th>${policies.map(
    (id) => html`<th scope="colgroup" colspan="${flags.length}">${shortName(id)}</th>`,
  )}</tr>
<tr>${policies.map(() =>
    flags.map((flag) => html`<th scope="col">${flag ? 'flag' : 'no flag'}</th>`),
  )}</tr>`;
  const body = [...rows].map(([key, row]) => {
    const [platform = '', guest = ''] = key.split('/');
    return html`<tr><th scope="row"><span title="${titleOf(platform)}">${platform}</span>${guest === 'secure' ? ', secure' : ''}</th>${policies.map(
      (policy) =>
        flags.map((flag) =>
          square(
            row.filter(({ cell }) => cell.policy === policy && cell.flag === flag),
            [policy, platform, flag ? 'flag' : 'no-flag', guest],
          ),
        ),
    )}</tr>\n`;
  });
  return html`${scrollable(
    'Overview: machines by policies',
    html`<table class="grid"><caption><span>The worst of all rings, with vhost and without; a dot means that they differ. Each leads to its cells.</span></caption>
<thead>${head}</thead>
<tbody>
${body}</tbody></table>`,
  )}`;
}

function square(cells: readonly CellResult[], place: readonly string[]): Html {
  const all = CELL_OUTCOMES.filter((id) => cells.some(({ outcome }) => outcome === id));
  const real = all.filter((id) => id !== 'no-machine');
  const found = real.length === 0 ? all : real;
  const [worst] = found;
  if (worst === undefined) return html`<td></td>`;
  const { symbol, word, tone } = CELL_MARKS[worst];
  const differs = found.length > 1 ? html`<span class="more" aria-hidden="true">•</span>` : '';
  const spoken = `${word}${found.length > 1 ? ', and others' : ''}`;
  return html`<td class="${tone}"><a href="#outcome-${worst}" data-place="${place.join('/')}" title="${spoken}"><span aria-hidden="true">${symbol}</span>${differs}<span class="unseen">${spoken}</span></a></td>`;
}

function titleOf(platform: string): string {
  return matrixPlatforms().find(({ id }) => id === platform)?.title ?? platform;
}

function shortName(policy: string): string {
  return policy.replace(/^linux-/, '').replace('rfc-2018-direct-ops', 'rfc-2018 direct ops');
}
