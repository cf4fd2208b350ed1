/** What only the matrix's page needs: rules, and the code behind its filters. */
export const MATRIX_STYLE = `
.outcomes { list-style: none; padding: 0; max-width: none; }
.outcomes li { display: grid; grid-template-columns: 12rem 3rem 1fr; gap: 0 .8rem; }
.outcomes a { text-decoration: none; } .outcomes a:hover { text-decoration: underline; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap; }
table.grid { min-width: 0; } table.grid td, table.grid thead th { text-align: center; }
table.grid thead th { white-space: nowrap; } table.grid thead th:first-child { text-align: left; }
table.grid thead tr + tr th { position: static; font-weight: 400; padding-left: .4rem;
  padding-right: .4rem; } table.grid thead tr:first-child th { position: static; }
table.grid td { padding: 0; border-left: 1px solid var(--line); }
table.grid td a { display: block; padding: .375rem .3rem; min-width: 2.2rem; color: inherit;
  text-decoration: none; font-weight: 600; position: relative; }
table.grid td a:hover { text-decoration: underline; background: var(--soft); }
table.grid .good { color: var(--good); } table.grid .warn { color: var(--warn); }
table.grid .bad { color: var(--bad); } table.grid .info { color: var(--info); }
table.grid .more { position: absolute; top: -.1em; right: .35em; font-size: .8em; }
#filters { border: 1px solid var(--line); border-radius: .4rem; padding: .6rem .8rem; }
#filters .axes { display: flex; flex-wrap: wrap; gap: .5rem .9rem; margin: .2rem 0 .5rem; }
#filters label { font-size: .875rem; color: var(--dim); }
#filters select, #filters input { font: inherit; color: var(--fg); background: var(--bg);
  border: 1px solid var(--line); border-radius: .4rem; padding: .25rem .4rem; max-width: 14rem; }
#filters button[aria-pressed=false] { text-decoration: line-through; background: none;
  border-style: dashed; } #filters button[aria-pressed=false] .badge { color: var(--dim); }
#filters p { margin: 0; } .outcomes .n { text-align: right; }
details.group { border-top: 1px solid var(--line); } details.group > summary { padding: .5rem 0; }
table.cells { width: 100%; min-width: 52rem; table-layout: fixed; }
table.cells th:first-child { width: 24%; } table.cells th:nth-child(3) { width: 12rem; }
table.cells th:nth-child(4) { width: 5rem; }
@media (max-width: 40rem) { .outcomes li { grid-template-columns: 1fr 3rem; }
  .outcomes li > .dim { grid-column: 1 / 3; }
  table.cells { min-width: 34rem; } }
@media print { #filters { display: none; } }
`;

/** Filters: each row's id has its place on every axis; nothing else is looked up. */
export const MATRIX_SCRIPT = `'use strict';
const form = document.getElementById('filters');
const status = document.getElementById('shown');
const buttons = [...form.querySelectorAll('button[data-outcome]')];
const axes = [...form.querySelectorAll('select')];
const text = document.getElementById('text');
const groups = [...document.querySelectorAll('details.group')].map((fold) => ({
  fold,
  outcome: fold.dataset.outcome,
  count: fold.querySelector('.count'),
  rows: [...fold.querySelectorAll('tbody tr')].map((row) => ({
    row,
    parts: row.querySelector('code').textContent.split('/'),
    text: row.textContent.toLowerCase(),
  })),
}));
const all = groups.reduce((sum, { rows }) => sum + rows.length, 0);
const FEW = 60;
const apply = () => {
  const wanted = axes.map(({ value }) => value);
  const words = text.value.toLowerCase().split(/\\s+/).filter((word) => word !== '');
  const isWhole = wanted.every((value) => value === '') && words.length === 0;
  let shown = 0;
  for (const { fold, outcome, count, rows } of groups) {
    const isOn = buttons.some((button) => button.dataset.outcome === outcome &&
      button.getAttribute('aria-pressed') === 'true');
    let here = 0;
    for (const { row, parts, text } of rows) {
      const isShown = wanted.every((value, at) => value === '' || value === parts[at]) &&
        words.every((word) => text.includes(word));
      row.hidden = !isShown;
      if (isShown) here += 1;
    }
    count.textContent = here === rows.length ? String(here) : here + ' of ' + rows.length;
    fold.hidden = !isOn || here === 0;
    if (!fold.hidden) shown += here;
  }
  for (const { fold } of groups) if (!isWhole && shown <= FEW) fold.open = !fold.hidden;
  status.textContent = shown === all ? 'All ' + all + ' cells.' : shown + ' of ' + all + ' cells.';
};
let timer;
form.addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(apply, 80); });
const reset = () => {
  for (const button of buttons) button.setAttribute('aria-pressed', 'true');
  for (const { fold } of groups) fold.open = false;
  for (const axis of axes) axis.value = '';
  text.value = '';
};
document.getElementById('reset').addEventListener('click', () => { reset(); apply(); });
for (const button of buttons) {
  button.addEventListener('click', () => {
    const isPressed = button.getAttribute('aria-pressed') === 'true';
    button.setAttribute('aria-pressed', String(!isPressed));
    apply();
  });
}
for (const link of document.querySelectorAll('a[data-place]')) {
  link.addEventListener('click', (event) => {
    event.preventDefault();
    reset();
    link.dataset.place.split('/').forEach((value, at) => { axes[at].value = value; });
    apply();
    document.getElementById('cells').scrollIntoView();
    status.focus({ preventScroll: true });
  });
}
for (const link of document.querySelectorAll('a[href^="#outcome-"]:not([data-place])')) {
  link.addEventListener('click', () => {
    reset();
    apply();
    const summary = document.getElementById(link.getAttribute('href').slice(1));
    summary.parentElement.open = true;
    summary.focus();
  });
}
form.hidden = false;
apply();`;
