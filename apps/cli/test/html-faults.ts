const VOID = new Set(['meta', 'br', 'wbr']);

/** What is wrong with the tags of a page: unclosed, misnested, or an attribute without quotes. */
export function faults(page: string): string[] {
  const open: string[] = [];
  const found: string[] = [];
  const body = page
    .replace(/^<!doctype html>/, '')
    .replace(/(<(style|script)>).*?(<\/\2>)/gs, '$1$3');
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

/** What a page would load, send or run besides its own scripts; empty for a report. */
export function references(page: string): string[] {
  const scripts = [...page.matchAll(/<script>(.*?)<\/script>/gs)].map(([, code = '']) => code);
  const styles = [...page.matchAll(/<style>(.*?)<\/style>/gs)].map(([, css = '']) => css);
  const tags = [
    ...page
      .replace(/(<(style|script)>).*?(<\/\2>)/gs, '$1$3')
      .matchAll(/<([a-z][a-z0-9]*)((?:"[^"]*"|[^">])*)>/g),
  ];
  return [
    ...tags.flatMap(([tag, name = '', rest = '']) => {
      const attributes = [...rest.matchAll(/\s([^\s="]+)(?:="([^"]*)"|=\S*)?/g)];
      const isBad = attributes.some(
        ([, key = '', value = '']) =>
          /^(src|srcset|action|data|style|on\w+)$/.test(key) ||
          (/^(xlink:)?href$/.test(key) && !value.startsWith('#')),
      );
      const isForeign = /^(link|iframe|img|object|embed|base|form|use|image)$/.test(name);
      return isBad || isForeign || (name === 'script' && rest !== '') ? [tag] : [];
    }),
    ...styles.flatMap((css) => css.match(/url\(|@import/g) ?? []),
    ...scripts.flatMap((code) => code.match(/fetch|XMLHttp|import\(|localStorage|cookie/g) ?? []),
  ];
}
