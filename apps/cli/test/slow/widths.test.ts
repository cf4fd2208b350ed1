/** What commands print fits the terminal, however narrow it is. */
import { afterEach, expect, test, vi } from 'vitest';
import { createProgram } from '../../src/program.js';
import { pinhole } from '../pinhole.js';

afterEach(() => vi.unstubAllEnvs());

const twoAxes = [
  'sweep',
  '2-pinhole',
  '--set',
  'machine.memory=2GiB,3',
  '--set',
  'devices[0].iommuPlatform=true,false',
  '--costs',
];

const commands: readonly (readonly string[])[] = [
  ['list'],
  ['run', '2-pinhole', '--costs'],
  ['run', '2-pinhole', '--trace', 'help'],
  ['matrix', '--arch', 'arm64-offset', '--policy', 'linux-6.1', '--ring', 'split-noindirect'],
  ['matrix', '--arch', 'arm64-offset'],
  twoAxes,
  ['doctor'],
];

const cases = commands.flatMap((args) =>
  [40, 60, 80].map((width) => [args.join(' '), width, args] as const),
);

test.each(cases)('%s at %i columns', (_, width, args) => {
  const { stdout } = pinhole(args, { COLUMNS: String(width) });
  expect(stdout).not.toBe('');
  expect(stdout.split('\n').filter((line) => [...line].length > width)).toEqual([]);
});

test('figures of a sweep that find no room for a table stand below one another', () => {
  const narrow = pinhole(twoAxes, { COLUMNS: '40' }).stdout;
  expect(narrow).toMatch(
    /^point 1\n {2}machine\.memory: 2GiB\n {2}devices\[0\]\.iommuPlatform: false$/m,
  );
  expect(narrow).toMatch(/^point 3: machine\.memory: expected a$/m);
  const wide = pinhole(twoAxes, { COLUMNS: '80' }).stdout;
  expect(wide).toMatch(/^│ memory +│ iommuPlatform +│/m);
  // An error is as long as it is: it stands below the table, by its point.
  expect(wide).toContain('│ no run ');
});

/** Examples are there to be copied: they are in one piece. */
const examples = /^( {2,6}[{]|(?:bash|zsh|fish|PowerShell): )/;

test.each([60, 80, 120])('the help of every command at %i columns', (width) => {
  vi.stubEnv('COLUMNS', String(width));
  let text = '';
  const writeOut = (more: string): void => {
    text += more;
  };
  for (const command of createProgram().commands) {
    text = '';
    command.configureOutput({ writeOut }).outputHelp();
    const lines = text.split('\n').filter((line) => !examples.test(line));
    expect(text, command.name()).toMatch(/^Usage: /);
    expect(lines.filter((line) => line.length > width)).toEqual([]);
  }
});
