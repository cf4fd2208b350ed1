// Completions in real shells at a terminal; those that are not installed are skipped.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PROGRAM, scratchFolder } from '../pinhole.js';
import { isInstalled, TerminalSession } from '../terminal-session.js';

const folder = scratchFolder();
const bin = join(folder, 'bin');
const env = { PATH: `${bin}:${process.env.PATH}`, HOME: folder };

beforeAll(() => {
  mkdirSync(bin);
  writeFileSync(join(bin, 'pinhole'), `#!/bin/sh\nexec ${PROGRAM.join(' ')} "$@"\n`);
  chmodSync(join(bin, 'pinhole'), 0o755);
  writeFileSync(join(folder, 'mine.yaml'), '');
  writeFileSync(join(folder, 'mine $(touch evil).html'), '');
  writeFileSync(
    join(folder, 'bashrc'),
    // Ctrl-X d says what the line is now.
    `PS1='> '\nsource <(pinhole completion bash)\nbind -x '"\\C-xd": printf "<%s>\\n" "$READLINE_LINE"'\n`,
  );
  writeFileSync(
    join(folder, '.zshrc'),
    `PS1='> '\nautoload -U compinit; compinit -u -D\nsource <(pinhole completion zsh)\nfunction say { print -r -- "<$BUFFER>" }\nzle -N say; bindkey '^Xd' say; bindkey -e '^Xd' say\n`,
  );
});

const hasTerminals = process.platform === 'linux' && isInstalled('script');

describe.skipIf(!hasTerminals || !isInstalled('bash'))('in bash', () => {
  let session: TerminalSession;
  const line = async (keys: string): Promise<string> =>
    (await session.type(`${keys}\u0018d`, /<([^\n]*)>\r?\n/))[1] ?? '';
  const next = (keys: string): Promise<string> => line(`\u0015${keys}`);

  beforeAll(async () => {
    session = new TerminalSession(`bash --noprofile --rcfile bashrc -i`, folder, env);
    await session.type('', /> /);
  });
  afterAll(() => session.close());

  // ESC * puts all that fit into the line.
  test('pinhole r<TAB>', async () => {
    expect(await next('pinhole r\u001b*')).toMatch(/^pinhole replay run $/);
  });

  test('pinhole run <TAB>', async () => {
    const all = await next('pinhole run \u001b*');
    expect(all).toMatch(/^pinhole run 1-bypass 2-pinhole .*9-offset-flag $/);
    expect(await next('pinhole run 2\t')).toBe('pinhole run 2-pinhole ');
    expect(await next('pinhole run min\t')).toBe('pinhole run mine');
  });

  test('--format <TAB>', async () => {
    expect(await next('pinhole run 1-bypass --format \u001b*')).toMatch(/--format json table $/);
    expect(await next('pinhole run 1-bypass --format=j\t')).toMatch(/--format=json $/);
  });

  test('--set path=value, over the = that ends a word of bash', async () => {
    expect(await next('pinhole run --set machine.arc\tps\t')).toBe(
      'pinhole run --set machine.arch=pseries ',
    );
  });

  test('files, also those with odd names; nothing typed is evaluated', async () => {
    expect(await next('pinhole compare --html mine\\ \t')).toBe(
      String.raw`pinhole compare --html mine\ \$\(touch\ evil\).html `,
    );
    await next('pinhole run $(touch evil) `touch evil` > out --f\t');
    expect(existsSync(join(folder, 'evil'))).toBe(false);
    expect(existsSync(join(folder, 'out'))).toBe(false);
  });

  test('no files where none belong', async () => {
    expect(await next('pinhole list min\t')).toBe('pinhole list min');
  });
});

describe.skipIf(!hasTerminals || !isInstalled('zsh'))('in zsh', () => {
  let session: TerminalSession;
  const next = async (keys: string): Promise<string> =>
    (await session.type(`\u0015${keys}\u0018d`, /<([^\n]*)>\r?\n/))[1] ?? '';

  beforeAll(async () => {
    session = new TerminalSession('zsh -i', folder, { ...env, ZDOTDIR: folder });
    await session.type('', /> /);
  });
  afterAll(() => session.close());

  test('pinhole rep<TAB>, pinhole run 2<TAB>, --format j<TAB>', async () => {
    expect(await next('pinhole rep\t')).toBe('pinhole replay ');
    expect(await next('pinhole run 2\t')).toBe('pinhole run 2-pinhole ');
    expect(await next('pinhole run --format j\t')).toBe('pinhole run --format json ');
    expect(await next('pinhole run --set machine.arc\tps\t')).toBe(
      'pinhole run --set machine.arch=pseries ',
    );
  });

  test('files', async () => {
    expect(await next('pinhole run mine.y\t')).toBe('pinhole run mine.yaml ');
    expect(await next('pinhole list min\t')).toBe('pinhole list min');
  });
});

describe.skipIf(!isInstalled('fish'))('in fish', () => {
  const fish = (line: string): string =>
    spawnSync('fish', ['-c', `pinhole completion fish | source; complete -C '${line}'`], {
      cwd: folder,
      env: { ...process.env, ...env },
      encoding: 'utf8',
    }).stdout;

  test('pinhole r<TAB>, pinhole run <TAB>, --format <TAB>', () => {
    expect(fish('pinhole r')).toMatch(/^run\tone scenario/m);
    expect(fish('pinhole run ')).toMatch(/^2-pinhole\tpseries, flag on/m);
    expect(fish('pinhole run --format ').trim().split('\n').sort()).toEqual(['json', 'table']);
    expect(fish('pinhole run ./mi')).toContain('mine.yaml');
  });
});
