// Looks for dead links, without a network: on the built site between pages, their anchors, pictures and
// scripts; in the repository's Markdown between files and headings. Addresses elsewhere are counted, and
// listed with --external.
//   node .ci/check-links.mjs          Markdown
//   node .ci/check-links.mjs site     the site in that folder, too
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parse } from 'parse5';

/** Where the address is. */
const ATTRIBUTES = { a: 'href', link: 'href', img: 'src', script: 'src', source: 'srcset' };

/** @returns `dead` links as texts, `external` addresses, and how many links were `checked`. */
export function checkSite(folder) {
  const names = readdirSync(folder, { recursive: true }).filter((name) => name.endsWith('.html'));
  const pages = new Map(names.map((name) => [resolve(folder, name), readPage(join(folder, name))]));
  if (pages.size === 0) throw new Error(`${folder}: expected a site, found no page`);
  const found = { dead: [], external: new Set(), checked: 0 };
  for (const [path, { links }] of pages) {
    for (const link of links) {
      const name = relative(folder, path);
      check(found, name, link, path, (target, anchor) => pages.get(target)?.anchors.has(anchor));
    }
  }
  return found;
}

function readPage(path) {
  const page = { links: [], anchors: new Set() };
  const visit = (node) => {
    const attributes = new Map(node.attrs?.map(({ name, value }) => [name, value]));
    const link = attributes.get(ATTRIBUTES[node.nodeName]);
    if (link !== undefined) {
      // `srcset` is a list of addresses with widths.
      page.links.push(...(node.nodeName === 'source' ? link.split(/\s*,\s*/).map(first) : [link]));
    }
    for (const name of ['id', 'name']) {
      if (attributes.has(name)) page.anchors.add(attributes.get(name));
    }
    for (const child of node.childNodes ?? []) visit(child);
  };
  visit(parse(readFileSync(path, 'utf8')));
  return page;
}

const first = (words) => words.trim().split(/\s+/)[0];

/** The same for Markdown files, as they are in the repository. */
export function checkMarkdown(paths) {
  const files = new Map(paths.map((path) => [resolve(path), readMarkdown(path)]));
  const found = { dead: [], external: new Set(), checked: 0 };
  for (const [path, { links }] of files) {
    for (const link of links) {
      const anchors = (target, anchor) =>
        !target.endsWith('.md') || (files.get(target) ?? readMarkdown(target)).anchors.has(anchor);
      check(found, relative('.', path), link, path, anchors);
    }
  }
  return found;
}

function readMarkdown(path) {
  const text = readFileSync(path, 'utf8').replace(/^(`{3,}).*?^\1$/gms, '');
  const prose = text.replace(/`[^`\n]*`/g, 'code');
  const inline = [...prose.matchAll(/\]\(<?([^)>\s]+)>?(?:\s+"[^"]*")?\)/g)];
  const reference = [...prose.matchAll(/^\[[^\]]+\]:\s+(\S+)/gm)];
  const html = [...prose.matchAll(/\b(?:href|src|srcset)="([^"]+)"/g)];
  const anchors = new Set();
  for (const [, heading] of text.matchAll(/^#{1,6}\s+(.+)$/gm)) addSlug(anchors, heading);
  return { links: [...inline, ...reference, ...html].map(([, link]) => link), anchors };
}

// As GitHub makes anchors of headings: a second one of the same name is name-1.
function addSlug(anchors, heading) {
  const slug = heading
    .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
    .trim()
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .replace(/\s/g, '-');
  let name = slug;
  for (let i = 1; anchors.has(name); i += 1) name = `${slug}-${i}`;
  anchors.add(name);
}

function check(found, from, link, path, hasAnchor) {
  if (/^[a-z][a-z0-9+.-]*:|^\/\//i.test(link)) {
    if (!link.startsWith('data:')) found.external.add(link);
    return;
  }
  found.checked += 1;
  const [address, anchor = ''] = link.split('#', 2);
  const target = address === '' ? path : resolve(dirname(path), decode(address.split('?', 1)[0]));
  if (!existsSync(target))
    found.dead.push(`${from}: ${link}: there is no ${relative('.', target)}`);
  else if (anchor !== '' && !statSync(target).isDirectory() && !hasAnchor(target, decode(anchor))) {
    found.dead.push(`${from}: ${link}: no such place in ${relative('.', target)}`);
  }
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function main([folder, option]) {
  const tracked = execFileSync('git', ['ls-files', '*.md'], { encoding: 'utf8' });
  // A test writes some pages of docs from what lies beside it.
  const isPart = (path) => /\/test\/.*(?<!README)\.md$/.test(path);
  const markdown = tracked.split('\n').filter((path) => existsSync(path) && !isPart(path));
  const results = [['Markdown', checkMarkdown(markdown)]];
  if (folder !== undefined) results.push([folder, checkSite(folder)]);
  for (const [what, { dead, external, checked }] of results) {
    console.log(
      `${what}: ${checked} links, ${dead.length} dead; ${external.size} addresses elsewhere, not checked`,
    );
    for (const problem of dead) console.error(problem);
    if (option === '--external') console.log([...external].sort().join('\n'));
    if (dead.length > 0) process.exitCode = 1;
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) main(process.argv.slice(2));
