/** Pages, and the parts that they are made of. */
import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { commandLine } from '../../src/command-line.js';
import { breakable, escapeHtml, type Html, html } from '../../src/report/html.js';
import { OUTCOME_MARKS, SEVERITY_MARKS } from '../../src/report/marks.js';
import { type PageOptions, page } from '../../src/report/page.js';
import {
  badge,
  card,
  counters,
  facts,
  fold,
  note,
  scrollable,
  steps,
} from '../../src/report/parts.js';
import { table } from '../../src/report/table.js';
import { HOSTILE } from '../compare-samples.js';
import { faults, references } from '../html-faults.js';

const made = (options: Partial<PageOptions> = {}): string =>
  page({ title: 'T', intro: html`<p>i</p>`, sections: [], command: 'pinhole x', ...options });

const section = (body: Html) => [{ id: 's', title: 'S', body }];

describe('templates', () => {
  test('escape text, and leave markup', () => {
    expect(html`<p title="${'"'}">${'<&>'}${html`<b>${"'"}</b>`}${3}${4n}</p>`.markup).toBe(
      '<p title="&quot;">&lt;&amp;&gt;<b>&#39;</b>34</p>',
    );
  });

  test('take nothing and many', () => {
    expect(html`${undefined}${['<', html`<i>`, ['>']]}`.markup).toBe('&lt;<i>&gt;');
  });

  test('let nothing through that XML forbids', () => {
    expect(escapeHtml('a\u0000\u001b\u0085\ud800\uffff\t\n😀')).toBe(
      'a\ufffd\ufffd\ufffd\ufffd\ufffd\t\n😀',
    );
  });

  test('break long names after their underscores', () => {
    expect(breakable('H_<').markup).toBe('H_<wbr>&lt;');
  });
});

describe('a page', () => {
  test('is well formed and asks nobody for anything', () => {
    const text = made({ sections: section(html`<p>x</p>`), script: 'let a = 1 < 2;' });
    expect(faults(text)).toEqual([]);
    expect(references(text)).toEqual([]);
  });

  test('runs its own scripts and no other', () => {
    const text = made({ script: 'let mine;' });
    const [, policy = ''] = /Content-Security-Policy" content="([^"]*)"/.exec(text) ?? [];
    const hashes = [...text.matchAll(/<script>(.*?)<\/script>/gs)].map(
      ([, code = '']) => `'sha256-${createHash('sha256').update(code).digest('base64')}'`,
    );
    expect(hashes).toHaveLength(2);
    expect(policy).toBe(
      `default-src 'none'; script-src ${hashes.join(' ')}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'`,
    );
  });

  test('leads to each of its sections', () => {
    const text = made({
      sections: ['a', 'b'].map((id) => ({ id, title: id, body: html`<p>x</p>` })),
    });
    expect([...text.matchAll(/<li><a href="#(\w+)">/g)].map(([, id]) => id)).toEqual(['a', 'b']);
    expect([...text.matchAll(/<h2 id="(\w+)">/g)].map(([, id]) => id)).toEqual(['a', 'b']);
  });

  test('says what made it', () => {
    expect(made({ command: "pinhole run 'a<b'" })).toMatch(
      /Made by pinhole \d+\.\d+\.\d+.*<code>pinhole run &#39;a&lt;b&#39;<\/code>/s,
    );
  });

  test('without JavaScript shows no button that would do nothing', () => {
    expect(made()).toContain('<button type="button" id="theme" hidden="">');
  });

  test('has each id once', () => {
    expect(() => made({ sections: section(html`<p id="s"></p>`) })).toThrow('the id "s"');
    expect(() => made({ sections: section(html`<p>${' id="s"'}</p>`) })).not.toThrow();
  });

  test('takes no script that would end early', () => {
    expect(() => made({ script: '"</SCRIPT>"' })).toThrow('end early');
  });
});

test('every part escapes its text', () => {
  const body = html`${[
    badge({ symbol: HOSTILE, word: HOSTILE, tone: 'good' }),
    card(HOSTILE, 'bad', note('warn', HOSTILE)),
    facts([[HOSTILE, HOSTILE]]),
    counters([[HOSTILE, HOSTILE]]),
    steps([{ text: HOSTILE, because: HOSTILE }]),
    fold(HOSTILE, html`<p>x</p>`),
    scrollable(HOSTILE, html`<p>x</p>`),
    table({
      label: HOSTILE,
      caption: HOSTILE,
      columns: [{ head: HOSTILE, cell: () => HOSTILE }],
      rows: [1],
      attributes: () => ({ 'data-x': HOSTILE }),
    }),
  ]}`;
  const text = made({ title: HOSTILE, command: HOSTILE, sections: section(body) });
  expect(faults(text)).toEqual([]);
  expect(references(text)).toEqual([]);
  expect(text).not.toContain(HOSTILE);
  // Each of the above, the title twice, and the command.
  expect(text.split('&lt;script&gt;').length - 1).toBe(20);
});

describe('tables', () => {
  const text = table({
    label: 'L',
    caption: 'C',
    columns: [
      { head: 'name', cell: (n: number) => `row ${n}` },
      { head: 'n', isNumber: true, cell: (n) => String(n) },
      { head: 'of', cell: (n) => String(n) },
    ],
    rows: [0, 10],
    attributes: (n) => ({ id: `r${n}` }),
  }).markup;

  test('name themselves, their columns and their rows', () => {
    expect(text).toContain('role="region" aria-label="L" tabindex="0"');
    expect(text).toContain('<caption><span>C</span></caption>');
    expect(text.match(/<th scope="col"/g)).toHaveLength(3);
    expect(text).toContain('<tr id="r10"><th scope="row">row 10</th>');
  });

  test('mark numbers, and zeros among them', () => {
    expect(text).toContain('<td class="n zero">0</td><td>0</td>');
    expect(text).toContain('<td class="n">10</td><td>10</td>');
  });

  test('without rows say so', () => {
    expect(table({ label: 'L', columns: [], rows: [] }).markup).toContain('L: none.');
  });
});

test('marks are told apart without colour', () => {
  for (const marks of [OUTCOME_MARKS, SEVERITY_MARKS]) {
    const words = Object.values(marks).map(({ word }) => word);
    expect(new Set(words).size).toBe(words.length);
    for (const { symbol } of Object.values(marks)) expect([...symbol]).toHaveLength(1);
  }
});

test('a command is as a shell takes it', () => {
  expect(commandLine(['run', 'a.yaml', '--set', 'a=1', "it's $x", ''])).toBe(
    `pinhole run a.yaml --set a=1 'it'\\''s $x' ''`,
  );
});
