import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { checkMarkdown, checkSite } from './check-links.mjs';

const folder = mkdtempSync(join(tmpdir(), 'pinhole-links-'));
after(() => rmSync(folder, { recursive: true }));

function write(files) {
  return Object.entries(files).map(([name, text]) => {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
    return path;
  });
}

test('a site: pages, anchors, pictures, scripts', () => {
  write({
    'good/index.html': `<h1 id="top">a</h1><a href="sub/b.html#p">b</a><a href="#top">a</a>
      <img src="x.svg"><picture><source srcset="x.svg 1x, x.svg 2x"></picture><script src="s.js"></script>
      <a href="https://example.org/x#y">e</a><a href="mailto:a@b">m</a><!-- <a href="no"> -->
      <script>"<a href='no.html'>"</script><pre>&lt;a href="no"&gt;</pre>`,
    'good/sub/b.html': '<p id="p"><a name="old"></a><a href="../index.html?q=1#top">a</a>',
    'good/x.svg': '<svg/>',
    'good/s.js': '',
  });
  const { dead, external, checked } = checkSite(join(folder, 'good'));
  assert.deepEqual(dead, []);
  assert.deepEqual([...external], ['https://example.org/x#y', 'mailto:a@b']);
  assert.equal(checked, 7);
});

test('a site: what is dead, and where', () => {
  write({
    'bad/index.html':
      '<a href="gone.html">1</a><a href="#none">2</a><img src="y.svg"><a href="b.html#P">3</a><a href="%zz">4</a><source srcset="ok.svg, no.svg 2x">',
    'bad/b.html': '<p id="p">',
    'bad/ok.svg': '',
  });
  const { dead } = checkSite(join(folder, 'bad'));
  const links = dead.map((text) => text.split(': ').slice(0, 2).join(': '));
  assert.deepEqual(links.sort(), [
    'index.html: #none',
    'index.html: %zz',
    'index.html: b.html#P',
    'index.html: gone.html',
    'index.html: no.svg',
    'index.html: y.svg',
  ]);
});

test('an empty folder is no site', () => {
  mkdirSync(join(folder, 'empty'));
  assert.throws(() => checkSite(join(folder, 'empty')), /expected a site/);
});

test('Markdown: files and headings', () => {
  const paths = write({
    'md/a.md': `# The \`x --y\`: [a](b.md) & more
## Twice
## Twice
[1](b.md#part-1-what) [2](#twice-1) [3](#the-x---y-a--more) ![4](c.svg) [5](b.md "title") [6](<b.md>)
\`[no](no.md)\`
~~~
\`\`\`md
[no](no.md)
\`\`\`
[7]: b.md
<img src="c.svg"> [8](https://example.org) [9](.)
`,
    'md/b.md': '### Part 1: what?\n',
    'md/bad.md': '[a](gone.md) [b](b.md#none) [c](#none) <img src="d.svg">\n',
  });
  write({ 'md/c.svg': '' });
  const good = checkMarkdown(paths.slice(0, 2));
  assert.deepEqual(good.dead, []);
  assert.equal(good.checked, 10);
  const { dead } = checkMarkdown(paths.slice(1));
  assert.equal(dead.length, 4);
});
