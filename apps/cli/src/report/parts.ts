/** The small parts of pages. Texts are escaped here; what is `Html` is put in as it is. */
import { breakable, type Html, html } from './html.js';
import type { Mark, Tone } from './marks.js';

/** An outcome or a severity: symbol and word, in its colour. */
export function badge({ symbol, word, tone }: Mark): Html {
  const short = word.length > 24 ? '' : ' short';
  return html`<b class="badge ${tone}${short}"><span aria-hidden="true">${symbol}</span>${word}</b>`;
}

/** One thing of many, framed: a path, a device, a finding. */
export function card(title: Html | string, tone: Tone, ...body: readonly Html[]): Html {
  return html`<article class="card ${tone}">
<h3>${title}</h3>
${body}
</article>
`;
}

/** A paragraph that must not be missed. */
export function note(tone: Tone, text: Html | string): Html {
  return html`<p class="note ${tone}">${text}</p>
`;
}

/** Keys and what they stand for; nothing when there are none. */
export function facts(rows: readonly (readonly [key: string, value: Html | string])[]): Html {
  if (rows.length === 0) return html``;
  return html`<dl>${rows.map(
    ([key, value]) =>
      html`<dt>${breakable(key)}</dt><dd>${typeof value === 'string' ? breakable(value) : value}</dd>`,
  )}</dl>
`;
}

/** Many names with a figure each, in columns. */
export function counters(rows: readonly (readonly [name: string, figure: string])[]): Html {
  return html`<dl class="counters">${rows.map(
    ([name, figure]) => html`<div><dt>${breakable(name)}</dt><dd class="n">${figure}</dd></div>`,
  )}</dl>
`;
}

/** One step of a decision. */
export interface Step {
  readonly text: string;
  /** What it rests on: a fact, a function of the kernel or of QEMU. */
  readonly because?: string;
}

/** How something was decided, in order. */
export function steps(all: readonly Step[]): Html {
  if (all.length === 0)
    return html`<p class="dim">No steps were recorded.</p>
`;
  return html`<ol class="steps">${all.map(
    ({ text, because = '' }) =>
      html`<li>${breakable(text)}${because === '' ? '' : html` <span class="why">${breakable(because)}</span>`}</li>`,
  )}</ol>
`;
}

/** What is there for those who ask. */
export function fold(summary: Html | string, ...body: readonly Html[]): Html {
  return html`<details><summary>${summary}</summary>
${body}
</details>
`;
}

/** A command to run, as a shell takes it. */
export function commandBlock(command: string): Html {
  return html`<pre class="command"><code>${command}</code></pre>
`;
}

/** Something wide: it scrolls by itself, by keyboard too, and has a name for it. */
export function scrollable(label: string, content: Html): Html {
  return html`<div class="scroll" role="region" aria-label="${label}" tabindex="0">${content}</div>
`;
}
