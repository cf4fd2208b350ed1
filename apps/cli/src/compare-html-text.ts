/** Text as HTML shows it, in elements and in quoted attributes. */
export function escapeHtml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;');
}

/** The same, and a long identifier may break after its underscores. */
export function breakable(text: string): string {
  return escapeHtml(text).replaceAll('_', '_<wbr>');
}
