/** The style sheets: of charts, which stand alone as well, and of pages. */
import { DARK, declarations, LIGHT } from './tokens.js';

/** Of charts, within pages and in files of their own. */
export const CHART_STYLE = `
svg text { fill: var(--fg); font: 13px system-ui, sans-serif; font-variant-numeric: tabular-nums; }
svg .tick, svg .label { fill: var(--dim); font-size: 12px; }
svg .heading { font-size: 15px; font-weight: 600; }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--dim); }
svg .ground { fill: var(--bg); }
svg .bar { stroke: var(--bg); } svg .whisker { stroke: var(--fg); stroke-width: 1.5; fill: none; }
svg .trace { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .band { fill-opacity: .18; stroke: none; } svg .area { fill-opacity: .75; stroke: none; }
.k0 { fill: var(--c0); stroke: var(--c0); } .k1 { fill: var(--c1); stroke: var(--c1); }
.k2 { fill: var(--c2); stroke: var(--c2); } .k3 { fill: var(--c3); stroke: var(--c3); }
.k4 { fill: var(--c4); stroke: var(--c4); } .k5 { fill: var(--c5); stroke: var(--c5); }
`;

/** Of pages: light and dark, phone, paper. */
export const PAGE_STYLE: string = `
:root { color-scheme: light; ${declarations(LIGHT)} }
@media screen { :root[data-theme=dark] { color-scheme: dark; ${declarations(DARK)} } }
@media screen and (prefers-color-scheme: dark) {
  :root:not([data-theme=light]) { color-scheme: dark; ${declarations(DARK)} } }
* { box-sizing: border-box; }
html { scroll-padding-top: 3.5rem; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--bg); color: var(--fg);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
header, main, footer { padding: 0 max(1.5rem, (100vw - 84rem) / 2); }
main { padding-top: .5rem; padding-bottom: 2rem; }
a { color: var(--info); text-underline-offset: .15em; }
:focus-visible { outline: 2px solid var(--info); outline-offset: 2px; border-radius: 2px; }
.skip { position: absolute; left: -99rem; } .skip:focus { position: static; }
header { position: sticky; top: 0; z-index: 5; display: flex; align-items: center; gap: .3rem 1.5rem;
  min-height: 3rem; background: var(--bg); border-bottom: 1px solid var(--line); }
.brand { display: flex; align-items: center; gap: .5rem; font-weight: 650; letter-spacing: .01em; }
.brand svg { width: 1.25rem; height: 1.25rem; fill: var(--fg); }
nav { flex: 1; overflow-x: auto; scrollbar-width: none; }
nav ul { display: flex; gap: 0 1.1rem; margin: 0; padding: .7rem 2px; list-style: none; }
nav a { color: var(--dim); text-decoration: none; white-space: nowrap; font-size: .9rem; }
nav a:hover { color: var(--fg); text-decoration: underline; }
button { font: inherit; font-size: .9rem; color: var(--fg); background: var(--soft);
  border: 1px solid var(--line); border-radius: .4rem; padding: .25rem .7rem; cursor: pointer;
  white-space: nowrap; }
button:hover { border-color: var(--dim); }
footer { border-top: 1px solid var(--line); padding-top: 1rem; padding-bottom: 2rem;
  color: var(--dim); font-size: .85rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1.5rem 0 .8rem; text-wrap: balance; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .6rem; } h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
h4 { font-size: 1rem; margin: 1.2rem 0 .2rem; }
p, ul, ol { margin: .5rem 0; max-width: 60rem; } ul, ol { padding-left: 1.4rem; }
.dim, caption, figcaption { color: var(--dim); }
code, pre { font: .875em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
code { overflow-wrap: anywhere; } pre code { font: inherit; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: .4rem;
  padding: .6rem .8rem; margin: .6rem 0; max-width: 60rem; white-space: pre-wrap;
  overflow-wrap: anywhere; }
pre.command::before { content: '$ '; color: var(--dim); }
.scroll { overflow: auto; max-height: 90vh; margin: .6rem 0; }
table { border-collapse: separate; border-spacing: 0; font-size: .875rem;
  min-width: min(100%, 34rem); }
caption { text-align: left; padding-bottom: .5rem; }
caption span { position: sticky; left: 0; display: inline-block; max-width: calc(100vw - 3rem); }
th, td { padding: .375rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
thead th { position: sticky; top: 0; z-index: 1; background: var(--bg); vertical-align: bottom;
  line-height: 1.3; border-bottom-color: var(--dim); }
th[scope=row] { position: sticky; left: 0; min-width: 8.5rem; background: var(--bg);
  font-weight: 500; }
thead th:first-child { left: 0; z-index: 2; }
th:first-child, td:first-child { padding-left: 0; }
tbody tr:hover > * { background: var(--soft); }
.n { text-align: right; font-variant-numeric: tabular-nums; } td.n, .nowrap { white-space: nowrap; }
.wide { min-width: 11rem; }
.zero { color: var(--dim); }
.badge { font-weight: 600; } .badge.short { white-space: nowrap; }
.badge.good { color: var(--good); } .badge.warn { color: var(--warn); }
.badge.bad { color: var(--bad); } .badge.info { color: var(--info); }
.badge span { display: inline-block; min-width: 1.15em; text-align: center; margin-right: .2em; }
.card { border: 1px solid var(--line); border-left: 4px solid var(--line); border-radius: .4rem;
  padding: .7rem 1rem .8rem; margin: 1rem 0; }
.card.good { border-left-color: var(--good); } .card.warn { border-left-color: var(--warn); }
.card.bad { border-left-color: var(--bad); } .card.info { border-left-color: var(--info); }
.card > :is(h3, h4):first-child { margin-top: 0; }
.note { border-left: 3px solid var(--line); padding-left: .7rem; }
.note.good { border-color: var(--good); } .note.warn { border-color: var(--warn); }
.note.bad { border-color: var(--bad); } .note.info { border-color: var(--info); }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .2rem 1.2rem;
  margin: .6rem 0; max-width: 72rem; }
dt { color: var(--dim); } dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
dl.counters { grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr));
  gap: .1rem 2rem; font-size: .875rem; max-width: none; }
dl.counters div { display: flex; justify-content: space-between; gap: 1rem;
  border-bottom: 1px dotted var(--line); }
.steps li { margin: .35rem 0; } .steps li::marker { color: var(--dim);
  font-variant-numeric: tabular-nums; }
.steps .why { display: block; color: var(--dim); font-size: .9em; }
summary { cursor: pointer; padding: .25rem 0; } summary:hover { color: var(--info); }
details > :not(summary) { margin-left: 1.1rem; }
figure { margin: 1rem 0; } figcaption { font-size: .875rem; margin-bottom: .3rem; max-width: 60rem; }
svg { display: block; }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem;
  font-size: .875rem; }
.legend svg { display: inline-block; vertical-align: -2px; margin-right: .35rem; }
@media (max-width: 40rem) {
  header, main, footer { padding-left: 1rem; padding-right: 1rem; }
  header { position: static; flex-wrap: wrap; padding-top: .5rem; }
  .brand { flex: 1; } nav { order: 1; flex-basis: 100%; }
  html { scroll-padding-top: 1rem; } h1 { font-size: 1.4rem; margin-top: 1rem; }
  th[scope=row], thead th:first-child { max-width: 8.5rem; }
  .wide { min-width: 8.5rem; } thead th:first-child, th[scope=row] {
    border-right: 1px solid var(--line); padding-right: .5rem; }
  dl:not(.counters) { display: block; } dl:not(.counters) dd { margin-bottom: .5rem; }
  details > :not(summary) { margin-left: 0; }
}
@media print {
  @page { size: landscape; margin: 1.2cm; }
  body { font-size: 11pt; } header, main, footer { padding: 0; }
  header { position: static; border: 0; } nav, button, .skip { display: none; }
  .scroll { overflow: visible; max-height: none; } table { font-size: .7rem; }
  thead th, th[scope=row] { position: static; }
  .card, figure, tr, pre { break-inside: avoid; } h2, h3 { break-after: avoid; }
  svg { max-width: 100%; height: auto; print-color-adjust: exact;
    -webkit-print-color-adjust: exact; }
}
${CHART_STYLE}`;
