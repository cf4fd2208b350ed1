import { parse, parseFragment, type DefaultTreeAdapterTypes as Tree } from 'parse5';

const VOID = new Set(['meta', 'br', 'wbr']);

/**
 * What is wrong with a page, or a part of one: unclosed, misnested, an attribute without quotes, or
 * anything that a browser would have to mend.
 */
export function faults(page: string): string[] {
  const open: string[] = [];
  const found: string[] = [];
  const shape: string[] = [];
  const body = page
    .replace(/^<!doctype html>/, '')
    .replace(/(<(style|script)>).*?(<\/\2>)/gs, '$1$3');
  for (const [tag, close, name = '', attributes = '', self] of body.matchAll(
    /<(\/?)([a-z][a-z0-9]*)((?:"[^"]*"|[^">])*?)(\/?)>/g,
  )) {
    if (!/^(\s+[a-zA-Z][\w:-]*(="[^"<]*")?)*\s*$/.test(attributes)) found.push(tag);
    if (close === '/') {
      if (open.pop() !== name) found.push(`${tag} at ${open.join('>')}`);
      continue;
    }
    shape.push(`${open.length} ${name}`);
    if (self !== '/' && !VOID.has(name)) open.push(name);
  }
  const text = body.replace(/<\/?[a-z](?:"[^"]*"|[^">])*>/g, '');
  if (/[<>]/.test(text) || /&(?!amp;|lt;|gt;|quot;|#39;|shy;)/.test(text)) found.push('raw text');
  return [...found, ...open, ...mended(page, shape)];
}

// Where the tree that a browser makes of a page differs from its tags.
function mended(page: string, shape: readonly string[]): string[] {
  const errors: string[] = [];
  const options = { onParseError: ({ code }: { code: string }) => errors.push(code) };
  const tree = page.startsWith('<!doctype') ? parse(page, options) : parseFragment(page, options);
  const made: string[] = [];
  const walk = (node: Tree.ParentNode, depth: number): void => {
    for (const child of node.childNodes) {
      if (!('tagName' in child)) continue;
      made.push(`${depth} ${child.tagName}`);
      walk(child, depth + 1);
    }
  };
  walk(tree, 0);
  const at = shape.findIndex((tag, index) => tag !== made[index]);
  if (at >= 0) errors.push(`${shape[at]} became ${made[at]}`);
  else if (made.length > shape.length) errors.push(`more elements: ${made[shape.length]}`);
  return errors;
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
