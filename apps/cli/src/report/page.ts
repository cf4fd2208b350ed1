/**
 * A report as one page: no network, nothing stored, readable without JavaScript.
 *
 * ```ts
 * page({
 *   title: 'Replay of qemu.log',
 *   intro: html`<p>${conclusion}</p>`,
 *   sections: [{ id: 'findings', title: 'Findings', body: findings }],
 *   command: commandLine(),
 * });
 * ```
 *
 * Its parts: parts.ts (badges, cards, key-value lists, steps, folds, commands), table.ts, and
 * chart-bars.ts, chart-ranges.ts, chart-lines.ts. All take text, and escape it themselves.
 */
import { createHash } from 'node:crypto';
import { invariant } from '@pinhole/base';
import { VERSION } from '../version.js';
import { breakable, type Html, html } from './html.js';
import { commandBlock } from './parts.js';
import { PAGE_STYLE } from './style.js';

/** A part of a page that its navigation leads to. */
export interface Section {
  /** Unique in the page. */
  readonly id: string;
  readonly title: string;
  readonly body: Html;
}

export interface PageOptions {
  readonly title: string;
  /** Below the title: what the page is, and what came out. */
  readonly intro: Html;
  readonly sections: readonly Section[];
  /** What made the page, as a shell takes it. */
  readonly command: string;
  /** Rules that only this page needs. */
  readonly style?: string;
  /** Code that only this page needs, run once all is there. The page has to do without, too. */
  readonly script?: string;
}

// Printed is what is folded, too.
const SCRIPT = `'use strict';
const root = document.documentElement;
const button = document.getElementById('theme');
const system = matchMedia('(prefers-color-scheme: dark)');
const isDark = () => (root.dataset.theme ?? (system.matches ? 'dark' : 'light')) === 'dark';
const show = () => { button.textContent = isDark() ? 'Light theme' : 'Dark theme'; };
button.addEventListener('click', () => { root.dataset.theme = isDark() ? 'light' : 'dark'; show(); });
system.addEventListener('change', show);
show();
button.hidden = false;
let folded = [];
addEventListener('beforeprint', () => {
  folded = [...document.querySelectorAll('details:not([open])')];
  for (const fold of folded) fold.open = true;
});
addEventListener('afterprint', () => { for (const fold of folded) fold.open = false; });`;

const MARK = html`<svg aria-hidden="true" viewBox="0 0 16 16"><path fill-rule="evenodd" d="M8 0a8 8 0 1 0 0 16A8 8 0 0 0 8 0Zm0 6a2 2 0 1 1 0 4 2 2 0 0 1 0-4Z"/></svg>`;

/** The whole page; the same options give the same. @throws InternalError for an id used twice */
export function page(options: PageOptions): string {
  const { title, intro, sections, command, style = '', script } = options;
  // Each is a function, and does not see the other's names.
  const scripts = [SCRIPT, ...(script === undefined ? [] : [script])].map(
    (code) => `(() => {\n${code}\n})();`,
  );
  const body = html`<a class="skip" href="#main">To the content</a>
<header><span class="brand">${MARK}Pinhole</span>
<nav aria-label="Sections"><ul>${sections.map(({ id, title: name }) => html`<li><a href="#${id}">${name}</a></li>`)}</ul></nav>
<button type="button" id="theme" hidden="">Dark theme</button></header>
<main id="main">
<h1>${breakable(title)}</h1>
${intro}
${sections.map(sectionHtml)}
</main>
<footer><p>Made by pinhole ${VERSION}. To make it again:</p>
${commandBlock(command)}
</footer>`;
  checkIds(body.markup);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy(scripts)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
${html`<title>Pinhole: ${title}</title>`}
<style>${PAGE_STYLE}${style}</style>
</head>
<body>
${body}
${scripts.map((code) => `<script>${code}</script>`).join('\n')}
</body>
</html>
`;
}

function sectionHtml({ id, title, body }: Section): Html {
  return html`<section aria-labelledby="${id}">
<h2 id="${id}">${title}</h2>
${body}
</section>
`;
}

// Nothing is loaded and nothing is sent; no other code runs, whatever finds its way into a page.
function policy(scripts: readonly string[]): string {
  const hashes = scripts.map((code) => {
    invariant(!/<\/script|<!--/i.test(code), 'report: a script that would end early');
    return `'sha256-${createHash('sha256').update(code).digest('base64')}'`;
  });
  return [
    "default-src 'none'",
    `script-src ${hashes.join(' ')}`,
    "style-src 'unsafe-inline'",
    "base-uri 'none'",
    "form-action 'none'",
  ].join('; ');
}

// Text cannot be taken for an attribute: its quotes are escaped.
function checkIds(markup: string): void {
  const seen = new Set<string>();
  for (const [, id = ''] of markup.matchAll(/ id="([^"]*)"/g)) {
    invariant(!seen.has(id), `report: the id "${id}" is used twice`);
    seen.add(id);
  }
}
