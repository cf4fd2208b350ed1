/**
 * Markup by template: what is put into an `html` template is text, and escaped, unless it is markup
 * itself. So nothing that comes from a file, a command line or a guest can become markup by mistake.
 */

/** A piece of markup. */
export class Html {
  readonly markup: string;

  /** Takes the markup as it is: everything in it must be escaped already. */
  constructor(markup: string) {
    this.markup = markup;
  }

  toString(): string {
    return this.markup;
  }
}

/** What a template takes: text, numbers, markup, several of them, or nothing. */
export type HtmlValue = string | number | bigint | Html | undefined | readonly HtmlValue[];

/** Markup of a template. Attributes stand in double quotes. */
export function html(parts: TemplateStringsArray, ...values: readonly HtmlValue[]): Html {
  return new Html(
    parts.map((part, at) => part + (at < values.length ? markupOf(values[at]) : '')).join(''),
  );
}

/**
 * Text as elements and quoted attributes show it, in HTML and in XML. Characters that XML forbids
 * (most control characters, halves of surrogate pairs) become U+FFFD.
 */
export function escapeHtml(text: string): string {
  return text
    .replace(/(?![\t\n\r])\p{Cc}|\p{Cs}|[\ufffe\uffff]/gu, '\ufffd')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;');
}

/** Text in which a long identifier may break after its underscores. */
export function breakable(text: string): Html {
  return new Html(escapeHtml(text).replaceAll('_', '_<wbr>'));
}

function markupOf(value: HtmlValue): string {
  if (value === undefined) return '';
  if (value instanceof Html) return value.markup;
  if (typeof value === 'object') return value.map(markupOf).join('');
  return escapeHtml(String(value));
}
