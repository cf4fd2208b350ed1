import { CELL_OUTCOMES, type CellResult } from '@pinhole/machine';
import { percent, throughputText } from './matrix-costs.js';
import { CELL_MARKS } from './matrix-marks.js';
import { breakable, Html, html } from './report/html.js';
import { badge, scrollable, steps } from './report/parts.js';

/** What the parts of an id are called, in their order. */
const AXES = [
  ['policy', 'Policy'],
  ['platform', 'Machine'],
  ['flag', 'Flag'],
  ['guest', 'Guest'],
  ['plane', 'Data plane'],
  ['ring', 'Ring'],
] as const;

/** Choices by axis, outcome and text; they appear only where there is JavaScript to act on them. */
export function filterForm(results: readonly CellResult[]): Html {
  const parts = results.map(({ cell }) => cell.id.split('/'));
  const selects = AXES.map(([name, title], at) => {
    const values = [...new Set(parts.map((words) => words[at] ?? ''))];
    return html`<label>${title} <select id="${name}"><option value="">all</option>${values.map((value) => html`<option>${value}</option>`)}</select></label>`;
  });
  const buttons = CELL_OUTCOMES.filter((id) => results.some(({ outcome }) => outcome === id)).map(
    (id) =>
      html`<button type="button" data-outcome="${id}" aria-pressed="true">${badge(CELL_MARKS[id])}</button>`,
  );
  return html`<div id="filters" role="search" aria-label="Filter the cells" hidden="">
<div class="axes">${selects}<label>Text <input type="search" id="text" autocomplete="off" spellcheck="false"/></label></div>
<div class="axes" role="group" aria-label="Outcomes shown">${buttons}<button type="button" id="reset">Reset</button></div>
<p role="status" id="shown" tabindex="-1"></p>
</div>
`;
}

/** The cells, folded by outcome. */
export function cellGroups(
  results: readonly CellResult[],
  stepsOf: (result: CellResult) => number | undefined,
): Html {
  return html`${CELL_OUTCOMES.map((id) => {
    const cells = results.filter(({ outcome }) => outcome === id);
    if (cells.length === 0) return undefined;
    const mark = CELL_MARKS[id];
    return html`<details class="group" data-outcome="${id}"><summary id="outcome-${id}">${badge(mark)}: <span class="count">${cells.length}</span></summary>
${scrollable(`Cells: ${mark.word}`, groupTable(cells, stepsOf))}
</details>
`;
  })}`;
}

function groupTable(
  cells: readonly CellResult[],
  stepsOf: (result: CellResult) => number | undefined,
): Html {
  return html`<table class="cells"><thead><tr><th scope="col">Cell</th><th scope="col">What it shows</th><th scope="col">Throughput</th><th scope="col">Why</th></tr></thead>
<tbody>
${cells.map((result) => row(result, stepsOf(result)))}</tbody></table>`;
}

function row({ cell, text, costs }: CellResult, stepsAt: number | undefined): Html {
  const link =
    stepsAt === undefined ? html`` : html`<a href="#s${stepsAt}" title="Decision steps">steps</a>`;
  return html`<tr><th scope="row"><code>${slashes(cell.id)}</code></th><td>${text}</td><td>${costHtml(costs)}</td><td>${link}</td></tr>\n`;
}

// A long id may break after its slashes.
function slashes(id: string): Html {
  return new Html(breakable(id).markup.replaceAll('/', '/<wbr>'));
}

function costHtml(costs: CellResult['costs']): Html {
  if (costs === null) return html``;
  if (costs.dominates === null) return html`1`;
  return html`${throughputText(costs)} <span class="dim">${costs.dominates}, ${percent(costs.assumedShare)} assumed</span>`;
}

/** Decision steps, each kind once; and which ones a cell has. */
export function stepsSection(results: readonly CellResult[]): {
  readonly body: Html;
  readonly linkOf: (result: CellResult) => number | undefined;
} {
  const kinds = new Map<string, { readonly result: CellResult; count: number; at: number }>();
  for (const result of results) {
    if (result.decision === null) continue;
    const key = JSON.stringify(result.decision);
    const known = kinds.get(key);
    if (known === undefined) kinds.set(key, { result, count: 1, at: kinds.size + 1 });
    else known.count += 1;
  }
  const body = html`<p>How the guest came to the addresses that it gives, and the device to how it takes them; as many cells decide alike, each kind stands here once.</p>
${[...kinds.values()].map(kindHtml)}`;
  const linkOf = ({ decision }: CellResult): number | undefined =>
    kinds.get(JSON.stringify(decision))?.at;
  return { body, linkOf };
}

function kindHtml({
  result: { cell, decision },
  count,
  at,
}: {
  readonly result: CellResult;
  readonly count: number;
  readonly at: number;
}): Html {
  if (decision === null) return html``;
  const others = count === 1 ? '' : ` and ${count - 1} more`;
  return html`<details><summary>${at}. ${decision.dmaOps}: <code>${slashes(cell.id)}</code>${others}</summary>
<div id="s${at}"><p>The guest: ${breakable(decision.because)}.</p>
<p>The device: ${breakable(decision.device)}.</p>
${steps(decision.steps.map((text) => ({ text })))}</div>
</details>
`;
}
