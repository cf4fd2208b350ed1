import { STYLE } from './compare-html-style.js';

/** The style of all pages, and what the report of a replay has besides. */
export const REPLAY_STYLE: string = `${STYLE}
article.error { border-left-color: var(--bad); } article.warning { border-left-color: var(--works-slow); }
article.info { border-left-color: var(--c0); }
.severity { font-size: .85rem; font-weight: 400; color: var(--dim); }
p.verdict { font-weight: 600; } p.verdict.good { color: var(--works); } p.verdict.bad { color: var(--bad); }
svg path { stroke: none; } path.live { fill: var(--c0); fill-opacity: .75; } path.given { fill: var(--bad); }
svg line.edge { stroke: var(--bg); stroke-width: 3; }
svg.picture rect, .legend rect { stroke: none; }
.pool0 { fill: var(--c0); fill-opacity: .1; } .pool1 { fill: var(--c2); fill-opacity: .12; }
.poolL { fill: var(--c1); fill-opacity: .14; }
.used0 { fill: var(--c0); } .used1 { fill: var(--c2); } .usedL { fill: var(--c1); } .gone { fill: var(--bad); }
.f1 { fill-opacity: .4; } .f2 { fill-opacity: .6; } .f3 { fill-opacity: .8; } .f4 { fill-opacity: 1; }
svg.picture rect.mark, .legend rect.mark { fill: none; stroke: var(--fg); stroke-width: 1.2; }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .85rem; }
.legend svg { display: inline-block; vertical-align: -2px; margin-right: .35rem; }
table { width: auto; min-width: min(100%, 34rem); } .scroll { margin: .6rem 0; }
`;
