const VOID = new Set(['meta', 'br', 'wbr']);

/** What is wrong with the tags of a page: unclosed, misnested, or an attribute without quotes. */
export function faults(page: string): string[] {
  const open: string[] = [];
  const found: string[] = [];
  const body = page.replace(/^<!doctype html>/, '').replace(/(<style>).*?(<\/style>)/s, '$1$2');
  for (const [tag, close, name = '', attributes = '', self] of body.matchAll(
    /<(\/?)([a-z][a-z0-9]*)((?:"[^"]*"|[^">])*?)(\/?)>/g,
  )) {
    if (!/^(\s+[a-zA-Z][\w:-]*(="[^"<]*")?)*\s*$/.test(attributes)) found.push(tag);
    if (close === '/') {
      if (open.pop() !== name) found.push(`${tag} at ${open.join('>')}`);
    } else if (self !== '/' && !VOID.has(name)) open.push(name);
  }
  const text = body.replace(/<\/?[a-z](?:"[^"]*"|[^">])*>/g, '');
  if (/[<>]/.test(text) || /&(?!amp;|lt;|gt;|quot;|#39;|shy;)/.test(text)) found.push('raw text');
  return [...found, ...open];
}
