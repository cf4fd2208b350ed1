// Every ```js block of every README runs as it stands, and prints the ```text block below it. One
// that is marked ```js live needs a real QEMU: the live suite runs it (packages/live/test/live).
import { execFile, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { leavesOf } from '../../src/man.js';
import { createProgram } from '../../src/program.js';
import { firstPage } from '../first-page/first-page.mjs';
import { PROGRAM } from '../pinhole.js';

interface Example {
  line: number;
  code: string;
  isLive: boolean;
  /** What it must print, where the README says so. */
  output: string | undefined;
}

const root = join(import.meta.dirname, '../../../..');
const packages = readdirSync(join(root, 'packages')).filter((name) =>
  existsSync(join(root, 'packages', name, 'package.json')),
);
const folders = [
  root,
  join(root, 'apps/cli'),
  ...packages.map((name) => join(root, 'packages', name)),
];

/** The fenced `js` blocks, each with the `text` block that directly follows it. */
function parseExamples(markdown: string): Example[] {
  const fence = /^```js( live)?\n(.*?)^```\n(?:\n?^```text\n(.*?)^```$)?/gms;
  return [...markdown.matchAll(fence)].map((match) => ({
    line: markdown.slice(0, match.index).split('\n').length,
    isLive: match[1] !== undefined,
    code: match[2] ?? '',
    output: match[3],
  }));
}

/** Runs the code from a file in `folder`, so that it imports packages by name as a user does. */
async function run(
  folder: string,
  { code, line }: Pick<Example, 'code' | 'line'>,
): Promise<string> {
  const file = join(folder, `.readme-example-${process.pid}-${line}.mjs`);
  writeFileSync(file, code);
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [file], { cwd: folder });
    return stdout;
  } finally {
    rmSync(file, { force: true });
  }
}

describe.each(folders.map((folder) => [relative(root, join(folder, 'README.md')), folder]))(
  '%s',
  (_, folder) => {
    const path = join(folder, 'README.md');
    const examples = existsSync(path) ? parseExamples(readFileSync(path, 'utf8')) : [];
    for (const example of examples.filter(({ isLive }) => !isLive)) {
      test(`the example on line ${example.line} runs`, async () => {
        const stdout = await run(folder, example);
        if (example.output !== undefined) expect(stdout).toBe(example.output);
      });
    }
  },
);

test.each(packages)('the README of %s has an example', (name) => {
  const examples = parseExamples(readFileSync(join(root, 'packages', name, 'README.md'), 'utf8'));
  expect(examples.length).toBeGreaterThan(0);
});

test("the program's README has every command", () => {
  const markdown = readFileSync(join(root, 'apps/cli/README.md'), 'utf8');
  const names = leavesOf(createProgram()).map(([name]) => name);
  expect(names.filter((name) => !markdown.includes(`| \`${name}`))).toEqual([]);
});

// The commands of the first page, word for word; what is shown is an excerpt.
describe('README.md', () => {
  const markdown = readFileSync(join(root, 'README.md'), 'utf8');
  const fence = /^```sh\n([^`]*)^```\n\n^```text\n(.*?)^```$/gms;
  const commands = [...markdown.matchAll(fence)].map(
    ({ index, 1: code = '', 2: excerpt = '' }) => ({
      line: markdown.slice(0, index).split('\n').length,
      code,
      excerpt,
    }),
  );

  test('shows what commands print', () => expect(commands).toHaveLength(3));

  test.each(commands)('the command on line $line', ({ code, excerpt }) => {
    const shell = `npx() { shift; ${PROGRAM.map((word) => `'${word}'`).join(' ')} "$@"; }\n${code}`;
    const { stdout } = spawnSync('bash', ['-c', shell], {
      cwd: root,
      encoding: 'utf8',
      env: { ...process.env, COLUMNS: '100' },
    });
    const lines = stdout.split('\n');
    const found = excerpt
      .trimEnd()
      .split('\n')
      .map((line) => lines.indexOf(line));
    expect(found, stdout).not.toContain(-1);
    expect(found).toEqual([...found].sort((a, b) => a - b));
  });

  test('its table and picture are up to date', () => {
    for (const [path, text] of firstPage()) {
      expect(readFileSync(path, 'utf8') === text, `${path}: npm run docs:readme`).toBe(true);
    }
  });
});

describe('parsing', () => {
  test('a block, and the output right below it', () => {
    const markdown =
      'a\n\n```js\nf();\n```\n\n```text\n1\n2\n```\n\n```js\ng();\n```\nb\n```text\n3\n```\n';
    expect(parseExamples(markdown)).toEqual([
      { line: 3, code: 'f();\n', isLive: false, output: '1\n2\n' },
      { line: 12, code: 'g();\n', isLive: false, output: undefined },
    ]);
  });

  test('a block that needs a real QEMU', () => {
    expect(parseExamples('```js live\nf();\n```\n\n```text\n1\n```\n')).toEqual([
      { line: 1, code: 'f();\n', isLive: true, output: '1\n' },
    ]);
  });

  test('other blocks are left alone', () => {
    expect(parseExamples('```ts\nf();\n```\n\n```jsonc\n{}\n```\n')).toEqual([]);
  });
});

test('code that throws fails', async () => {
  await expect(run(root, { line: 0, code: 'throw new Error("no")' })).rejects.toThrow();
});
