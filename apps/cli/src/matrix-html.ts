import {
  CELL_OUTCOMES,
  type CellOutcome,
  type CellResult,
  MATRIX_POLICIES,
  policyTitle,
} from '@pinhole/machine';
import { cellGroups, filterForm, stepsSection } from './matrix-html-cells.js';
import { overview } from './matrix-html-grid.js';
import { MATRIX_SCRIPT, MATRIX_STYLE } from './matrix-html-script.js';
import { CELL_MARKS, CELL_MEANINGS } from './matrix-marks.js';
import { barChart } from './report/chart-bars.js';
import { type Html, html } from './report/html.js';
import { page } from './report/page.js';
import { badge } from './report/parts.js';
import { figure } from './report/svg.js';

/** What the page says besides the cells. */
export interface MatrixHtmlOptions {
  /** How many cells there would have been. */
  readonly planned: number;
  /** What made the page. */
  readonly command: string;
}

/** The matrix as one page. */
export function renderMatrixHtml(
  results: readonly CellResult[],
  options: MatrixHtmlOptions,
): string {
  const steps = stepsSection(results);
  return page({
    title: 'Virtio and the DMA API: every policy on every machine',
    intro: intro(results, options.planned),
    sections: [
      { id: 'overview', title: 'Overview', body: overview(results) },
      { id: 'policies', title: 'By policy', body: policies(results) },
      {
        id: 'cells',
        title: 'Cells',
        body: html`${filterForm(results)}${cellGroups(results, steps.linkOf)}`,
      },
      { id: 'decisions', title: 'Decision steps', body: steps.body },
    ],
    command: options.command,
    style: MATRIX_STYLE,
    script: MATRIX_SCRIPT,
  });
}

function intro(results: readonly CellResult[], planned: number): Html {
  const some = planned > results.length ? ` of ${planned}` : '';
  const rows = CELL_OUTCOMES.flatMap((id) => {
    const count = results.filter(({ outcome }) => outcome === id).length;
    return count === 0 ? [] : [{ id, count }];
  });
  return html`<p>${results.length}${some} cells. Each is a run of its own: a guest boots on a machine, its virtio-blk driver reads and writes, and every byte is checked. What a cell shows is judged by facts of its run (data, addresses, pages touched, hypercalls), never by its name.</p>
<ul class="outcomes">${rows.map(
    ({ id, count }) =>
      html`<li><a href="#outcome-${id}">${badge(CELL_MARKS[id])}</a> <span class="n">${count}</span> <span class="dim">${CELL_MEANINGS[id]}</span></li>`,
  )}</ul>
<p>A cell alone, with its decision steps and its report: <code>pinhole matrix --cell ID</code>. Its trace: <code>pinhole matrix --cell ID --trace '*' --trace-file cell.log</code>.</p>
<p>Throughput is an estimate on exact counts, compared with physical addresses (1 is as fast), one request at a time: the middle, the lowest and highest, what costs most, and how much of it is assumed.</p>
`;
}

/** Outcomes taken together, for a chart. */
const GROUPS: readonly (readonly [name: string, outcomes: readonly CellOutcome[]])[] = [
  ['works', ['works']],
  ['works, but slow', ['works-slow']],
  ['leaks', ['leaks']],
  ['refused at probe', ['refused']],
  ['broken', ['isolation-broken', 'silently-wrong', 'contract-broken', 'hangs', 'io-fails']],
];

function policies(results: readonly CellResult[]): Html {
  const groups = GROUPS.filter(([, ids]) => results.some(({ outcome }) => ids.includes(outcome)));
  const rows = MATRIX_POLICIES.flatMap((policy) => {
    const cells = results.filter(({ cell }) => cell.policy === policy);
    if (cells.length === 0) return [];
    const count = (ids: readonly CellOutcome[]): number =>
      cells.filter(({ outcome }) => ids.includes(outcome)).length;
    return [{ label: policy, values: groups.map(([, ids]) => count(ids)) }];
  });
  const chart = barChart({
    id: 'policies-chart',
    title: 'Outcomes of all cells, by policy',
    axis: 'cells',
    parts: groups.map(([name]) => name),
    rows,
    format: String,
  });
  return html`${figure(chart)}
<dl>${rows.map(({ label }) => html`<dt>${label}</dt><dd>${policyTitle(label)}</dd>`)}</dl>
`;
}
