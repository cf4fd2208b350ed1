// The manual page in the package is the one of this command line, and real formatters take it.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { describe, expect, test } from 'vitest';
import { EXIT } from '../src/exit.js';
import { leavesOf, manualPage } from '../src/man.js';
import { createProgram } from '../src/program.js';
import { pinhole } from './pinhole.js';
import { isInstalled } from './terminal-session.js';

const path = join(import.meta.dirname, '../man/pinhole.1');
const page = manualPage(createProgram());

test('man/pinhole.1 is up to date', () => {
  expect(readFileSync(path, 'utf8') === page, 'stale: npm run docs:man').toBe(true);
});

test('pinhole man prints it', () => {
  expect(pinhole(['man']).stdout).toBe(page);
});

test('package.json names it, and packs it', () => {
  const manifest = JSON.parse(readFileSync(join(path, '../../package.json'), 'utf8'));
  // npm links a list alone.
  expect(manifest.man).toEqual(['./man/pinhole.1']);
  expect(manifest.files).toContain('man');
});

/** As it is read: without the signs for bold and for characters. */
const plain = page
  .replace(/\\f[BR]/g, '')
  .replace(/\\-/g, '-')
  .replace(/\\\(aq/g, "'");

test('every command and option is in it, and nothing hidden', () => {
  const commands = leavesOf(createProgram());
  expect(commands.length).toBeGreaterThan(9);
  for (const [name, command] of commands) {
    expect(plain).toContain(`.SS ${name} `);
    for (const { flags } of command.options) expect(plain).toContain(`.TP\n${flags}\n`);
  }
  expect(plain).not.toContain('.SS pinhole complete ');
});

test('so are the exit codes and the environment', () => {
  for (const code of Object.values(EXIT)) expect(plain).toContain(`.TP\n${code}\n`);
  for (const name of ['NO_COLOR', 'TERM', 'COLUMNS']) expect(plain).toContain(`.TP\n${name}\n`);
});

test('text that looks like a request, an escape or typography stays text', () => {
  const program = new Command('x').description(".so /etc/passwd \\n 'a' ~ ^ `b` --c");
  program.command('y').description("'y").option('--z <\\z>', '.z');
  const odd = manualPage(program);
  expect(odd).toContain('\n\\&.so /etc/passwd \\en \\(aqa\\(aq \\(ti \\(ha \\(gab\\(ga \\-\\-c\n');
  expect(odd).toContain('\n\\(aqy.\n');
  expect(odd).toContain('\n\\fB\\-\\-z <\\ez>\\fR\n\\&.z.\n');
});

describe('formatters', () => {
  const check = (program: string, ...args: string[]): string => {
    const { status, stdout, stderr } = spawnSync(program, [...args, path], {
      encoding: 'utf8',
      env: { ...process.env, LC_ALL: 'C.UTF-8' },
    });
    expect(status, stderr).not.toBe(null);
    return `${stdout}${stderr}`;
  };

  test.skipIf(!isInstalled('groff'))('groff has no warnings', () => {
    expect(check('groff', '-ww', '-man', '-Tutf8', '-z')).toBe('');
  });

  test.skipIf(!isInstalled('man'))('man has none, and shows the page', () => {
    const shown = check('man', '--warnings', '-E', 'UTF-8', '-l');
    expect(shown).toContain('pinhole run [options] <scenario>');
    expect(shown).toContain("--trace 'spapr_iommu_*'");
    expect(shown).not.toMatch(/warning|error:/);
  });

  // A date would make the page stale by itself.
  test.skipIf(spawnSync('mandoc').error !== undefined)('mandoc misses the date alone', () => {
    const said = check('mandoc', '-T', 'lint').trim().split('\n');
    expect(said).toEqual([expect.stringContaining('missing date')]);
  });
});
