// Which test shows which sentence of the specification: docs/VIRTIO-CONFORMANCE.md.
//   node test/conformance/conformance-table.mjs          prints it
//   node test/conformance/conformance-table.mjs --write  writes it, and takes those statements that
//                                                         a test now shows off the list of the open
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';

const ROOT = new URL('../../../../', import.meta.url);
const DATA = new URL('packages/virtio/conformance/', ROOT);
const NOT_SHOWN = new URL('not-shown.json', DATA);
const PAGE = new URL('docs/VIRTIO-CONFORMANCE.md', ROOT);
const OWN_TEST = 'packages/virtio/test/conformance/conformance-table.test.ts';

export const OPEN = 'not shown yet';
const KINDS = ['by construction', 'deviates', 'not applicable', OPEN];
const ID = '(?:driver|device)-[0-9.]+-[0-9]+';
const IDS = `\\[${ID}(?:, ?${ID})*\\]`;

/**
 * The claims of one test file: ids in square brackets at the end of a test's title, or at the end
 * of a row's name where `test.each` makes titles of rows.
 */
export function readClaims(source) {
  const claims = [];
  const mistakes = [];
  for (const match of source.matchAll(new RegExp(`(${IDS}(?: ?${IDS})*)(.)`, 'g'))) {
    const [text, ids, quote] = match;
    const line = source.lastIndexOf('\n', match.index) + 1;
    let start = source.lastIndexOf(quote, match.index - 1);
    while (source[start - 1] === '\\') start = source.lastIndexOf(quote, start - 1);
    const before = source.slice(0, Math.max(start, 0)).trimEnd();
    const isTitle = /(?:\b(?:test|it)|\))\($/.test(before);
    const isRow = /\[$/.test(before) && /\b(?:test|it)\.each\b/.test(source);
    if (!/['"`]/.test(quote) || start < line || !(isTitle || isRow)) {
      mistakes.push(`${text.slice(0, -1)} does not end the title of a test`);
    } else {
      const title = source
        .slice(start + 1, match.index)
        .trim()
        .replaceAll('\\', '');
      for (const [id] of ids.matchAll(new RegExp(ID, 'g'))) claims.push({ id, title });
    }
  }
  if (claims.length > 0 && /\b(?:test|it|describe)\.(?:skip|todo|fails)\b/.test(source)) {
    mistakes.push('claims stand in a file with tests that do not run');
  }
  return { claims, mistakes };
}

function testFiles() {
  const files = [];
  for (const { name } of readdirSync(new URL('packages/', ROOT), { withFileTypes: true })) {
    for (const folder of ['src', 'test']) {
      const url = new URL(`packages/${name}/${folder}/`, ROOT);
      let entries = [];
      try {
        entries = readdirSync(url, { recursive: true });
      } catch {
        continue;
      }
      for (const entry of entries) {
        if (entry.endsWith('.test.ts')) files.push(`packages/${name}/${folder}/${entry}`);
      }
    }
  }
  return files.filter((file) => file !== OWN_TEST).sort();
}

/** Statements, each with its tests or its reason, and everything that is wrong with the two. */
export function readConformance() {
  const { head, statements } = JSON.parse(readFileSync(new URL('statements.json', DATA), 'utf8'));
  const reasons = JSON.parse(readFileSync(NOT_SHOWN, 'utf8'));
  const rows = new Map(statements.map((statement) => [statement.id, { ...statement, tests: [] }]));
  const mistakes = [];
  for (const file of testFiles()) {
    const found = readClaims(readFileSync(new URL(file, ROOT), 'utf8'));
    mistakes.push(...found.mistakes.map((mistake) => `${file}: ${mistake}`));
    for (const { id, title } of found.claims) {
      const row = rows.get(id);
      if (row === undefined) mistakes.push(`${file}: there is no statement ${id}`);
      else row.tests.push({ file, title });
    }
  }
  for (const { kind, reason, ids } of reasons) {
    if (!KINDS.includes(kind)) mistakes.push(`not-shown.json: there is no kind "${kind}"`);
    for (const id of ids) {
      const row = rows.get(id);
      if (row === undefined) mistakes.push(`not-shown.json: there is no statement ${id}`);
      else if (row.kind !== undefined) mistakes.push(`not-shown.json: ${id} stands there twice`);
      else Object.assign(row, { kind, reason });
    }
  }
  for (const { id, tests, kind } of rows.values()) {
    if (tests.length === 0 && kind === undefined) mistakes.push(`${id}: no test, and no reason`);
    if (tests.length > 0 && kind !== undefined) {
      mistakes.push(`${id}: "${kind}", but a test shows it (${tests[0].file})`);
    }
  }
  return { head, rows: [...rows.values()], mistakes, reasons };
}

const chapterOf = ({ section }) =>
  section
    .split('.')
    .slice(0, section.startsWith('6') ? 1 : 2)
    .join('.');
const cell = (text) => text.replaceAll('|', '\\|').replaceAll('<', '&lt;');
const line = (cells) => `| ${cells.join(' | ')} |`;
const MOST_TESTS = 3;

function shownBy({ tests, kind, reason }) {
  if (tests.length === 0) return `*${kind}*: ${cell(reason)}`;
  const links = tests
    .slice(0, MOST_TESTS)
    .map(({ file, title }) => `[${cell(title).replaceAll(/[[\]]/g, '\\$&')}](../${file})`);
  const more = tests.length - MOST_TESTS;
  return links.join('; ') + (more > 0 ? `; and ${more} more` : '');
}

function counts(rows) {
  const of = (kind) => rows.filter((row) => row.kind === kind && row.tests.length === 0).length;
  return [rows.length, rows.filter(({ tests }) => tests.length > 0).length, ...KINDS.map(of)];
}

/** The page, whole. */
export function conformancePage() {
  const { head, rows } = readConformance();
  const total = (name, of) => line([name, ...counts(of)]);
  const summary = head.chapters.flatMap(({ number: chapter, title }) =>
    ['driver', 'device'].flatMap((side) => {
      const own = rows.filter((row) => row.side === side && chapterOf(row) === chapter);
      return own.length === 0 ? [] : [total(`${chapter} ${title}: ${side}`, own)];
    }),
  );
  const sides = ['driver', 'device'].map((side) =>
    total(
      `**${side}**`,
      rows.filter((row) => row.side === side),
    ),
  );
  const musts = rows.filter(({ sentence }) => /\bMUST\b/.test(sentence));
  const tables = head.chapters.map(({ number: chapter, title }) => {
    const parts = ['driver', 'device'].flatMap((side) => {
      const own = rows.filter((row) => row.side === side && chapterOf(row) === chapter);
      if (own.length === 0) return [];
      const body = own.map((row) => line([`\`${row.id}\``, cell(row.sentence), shownBy(row)]));
      return [
        `### ${chapter} ${side}`,
        '',
        line(['statement', 'sentence', 'shown by']),
        '| --- | --- | --- |',
        ...body,
        '',
      ];
    });
    return [`## ${chapter} ${title}`, '', ...parts].join('\n');
  });
  return `# Virtio: each sentence with MUST or SHOULD, and what shows it

The sentences are quoted from: ${head.source} (${head.revision}). [Its notice](#notice) stands at
the end of this page. A statement's id is the side it speaks to, its section, and its place there.

A test shows a statement when its title ends with the statement's id in square brackets, and it
would fail if the statement were violated. The others have a reason:

- **by construction**: the code that is named has no way to do otherwise.
- **deviates**: the model does otherwise, as the QEMU or Linux that is named does; its test says so.
- **not applicable**: a feature that is not offered, hardware that a model does not have, a demand
  on people.
- **not shown yet**: open.

This page is written by \`npm run docs:conformance\`; a test fails when it is out of date, when a
title names a statement that there is not, and when a statement has neither a test nor a reason, or
both.

${line(['', 'statements', 'shown by a test', ...KINDS])}
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
${[...summary, ...sides, total('**all**', rows), total('of these with MUST', musts)].join('\n')}

${tables.join('\n')}
## Notice

${head.notice.join('\n\n')}
`;
}

/** Takes statements that a test shows off the list of the open ones. */
function dropShown() {
  const { rows, reasons } = readConformance();
  const shown = new Set(rows.filter(({ tests }) => tests.length > 0).map(({ id }) => id));
  const left = reasons.map((group) =>
    group.kind === OPEN ? { ...group, ids: group.ids.filter((id) => !shown.has(id)) } : group,
  );
  const text = JSON.stringify(
    left.filter(({ ids }) => ids.length > 0),
    null,
    2,
  );
  // As Biome prints it: a list that fits its line stands on one.
  const short = text.replaceAll(/"ids": \[\n([^\]]*)\n {4}\]/g, (list, ids) => {
    const one = `"ids": [${ids.trim().replaceAll(/\n +/g, ' ')}]`;
    return `    ${one}`.length <= 100 ? one : list;
  });
  writeFileSync(NOT_SHOWN, `${short}\n`);
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  if (process.argv.includes('--write')) {
    dropShown();
    writeFileSync(PAGE, conformancePage());
    for (const mistake of readConformance().mistakes) process.stderr.write(`${mistake}\n`);
  } else {
    process.stdout.write(conformancePage());
  }
}
