/** The page's style sheet: light and dark, phone, paper. */
export const STYLE = `
:root { color-scheme: light dark; --bg: #fff; --soft: #f6f8fa; --fg: #1b1f24; --dim: #57606a;
  --line: #d0d7de; --works: #1a7f37; --works-slow: #8a5a00; --bad: #c01c28;
  --c0: #0969da; --c1: #b06f00; --c2: #8250df; --c3: #1a7f37; --c4: #c01c28; }
@media (prefers-color-scheme: dark) { :root { --bg: #0d1117; --soft: #161b22; --fg: #e6edf3;
  --dim: #9198a1; --line: #3d444d; --works: #3fb950; --works-slow: #d29922; --bad: #ff7b72;
  --c0: #58a6ff; --c1: #e3b341; --c2: #bc8cff; --c3: #3fb950; --c4: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--fg); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 84rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
p { margin: .4rem 0; max-width: 60rem; } ul { margin: .4rem 0; padding-left: 1.25rem; }
.dim, caption, figcaption { color: var(--dim); }
:focus-visible { outline: 2px solid var(--c0); outline-offset: 2px; }
.scroll { overflow: auto; max-height: 90vh; }
table { border-collapse: separate; border-spacing: 0; font-size: .85rem; width: 100%; }
caption { text-align: left; padding-bottom: .5rem; }
caption span { position: sticky; left: 0; display: inline-block; max-width: calc(100vw - 3rem); }
th, td { padding: .4rem .45rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
thead th { position: sticky; top: 0; z-index: 1; background: var(--bg); vertical-align: bottom;
  line-height: 1.3; }
th[scope=row], thead th:first-child { position: sticky; left: 0; background: var(--bg); }
thead th:first-child { z-index: 2; }
th[scope=row] { min-width: 11rem; font-weight: 500; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n, td.ops { white-space: nowrap; }
.zero { color: var(--dim); }
b.works { color: var(--works); } b.works-slow { color: var(--works-slow); }
b.fails, b.wrong-data, b.refused { color: var(--bad); }
b.works, b.works-slow, b.fails, b.wrong-data, b.refused { white-space: nowrap; font-weight: 600; }
figure { margin: 1rem 0; }
svg { display: block; }
svg text { fill: var(--fg); font: 13px system-ui, sans-serif; font-variant-numeric: tabular-nums; }
svg text.tick, svg text.label { fill: var(--dim); font-size: 12px; }
svg line { stroke: var(--line); } svg line.axis { stroke: var(--dim); }
svg rect { stroke: var(--bg); }
.k0 { fill: var(--c0); } .k1 { fill: var(--c1); } .k2 { fill: var(--c2); } .k3 { fill: var(--c3); }
.k4 { fill: var(--c4); }
article { border: 1px solid var(--line); border-left-width: 4px; border-radius: .4rem;
  padding: .6rem 1rem .8rem; margin: 1rem 0; }
article.works { border-left-color: var(--works); }
article.works-slow { border-left-color: var(--works-slow); }
article.fails, article.wrong-data, article.refused { border-left-color: var(--bad); }
h3 { font-size: 1rem; margin: .2rem 0; }
code { font: .85em ui-monospace, monospace; overflow-wrap: anywhere; }
.note { border-left: 3px solid var(--bad); padding-left: .6rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .6rem 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
dl.counters { grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); font-size: .85rem; }
dl.counters div { display: flex; justify-content: space-between; gap: 1rem;
  border-bottom: 1px dotted var(--line); }
summary { cursor: pointer; padding: .2rem 0; }
h4 { font-size: .9rem; margin: .8rem 0 .2rem; } ol { margin: .3rem 0; padding-left: 1.5rem; }
@media (max-width: 40rem) {
  main { padding: 1rem; } h1 { font-size: 1.35rem; }
  th[scope=row], thead th:first-child { min-width: 8.5rem; max-width: 8.5rem;
    border-right: 1px solid var(--line); overflow-wrap: anywhere; }
  article dl:not(.counters) { display: block; } dd { margin-bottom: .4rem; }
  dl.counters { grid-template-columns: 1fr; }
}
@media print {
  @page { size: landscape; margin: 1.2cm; }
  main { max-width: none; padding: 0; } .scroll { overflow: visible; max-height: none; }
  table { font-size: .7rem; } thead th, th[scope=row] { position: static; }
  article, figure, tr { break-inside: avoid; }
  svg { max-width: 100%; height: auto; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
`;
