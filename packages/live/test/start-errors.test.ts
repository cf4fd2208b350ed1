// What a user sees when the program is not there, is not QEMU, is too old, dies, or does not answer.
// The programs here are shell scripts.
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { LiveError, LiveQemu, type LiveQemuOptions } from '../src/index.js';
import { eventually, processesWith } from './support/processes.js';

const folder = mkdtempSync(join(tmpdir(), 'pinhole-fake-qemu-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let scripts = 0;
/** A program that is not QEMU, and acts as `script` says. */
function fake(script: string): string {
  scripts += 1;
  const path = join(folder, `fake-${scripts}`);
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
  return path;
}

function failure(options: LiveQemuOptions): LiveError {
  try {
    LiveQemu.start({ timeoutMs: 10_000, ...options }).close();
  } catch (error) {
    if (error instanceof LiveError) return error;
    throw error;
  }
  throw new Error('it started');
}

const greeting = (major: number, minor: number): string =>
  `printf '{"QMP": {"version": {"qemu": {"micro": 0, "minor": ${minor}, "major": ${major}}}}}\\n'
  read -r line; printf '{"return": {}, "id": 1}\\n'`;
/** Answers as a QEMU that would be right, when asked. */
const honest = `case "$*" in
  --version) echo 'QEMU emulator version 9.2.1'; exit;;
  '-machine help') echo 'pseries              pSeries Logical Partition'; exit;;
esac`;

describe('no such program', () => {
  test.each(['/nonexistent/qemu', 'pinhole-no-such-qemu', '/etc/passwd', '/'])('%s', (qemu) => {
    const error = failure({ qemu });
    expect(error.code).toBe('E_QEMU_MISSING');
    expect(error.message).toContain(`"${qemu}"`);
    expect(error.message).toContain('the package qemu-system-ppc');
  });
});

describe('another program', () => {
  test('one that only fails', () => {
    const error = failure({ qemu: '/bin/false' });
    expect(error.code).toBe('E_QEMU_NOT_PPC');
  });

  test('one that says something else', () => {
    const error = failure({ qemu: fake('echo hello; exit 1') });
    expect(error.code).toBe('E_QEMU_NOT_PPC');
    expect(error.message).toContain('says "hello"');
  });

  test('a QEMU for another processor', () => {
    const qemu = fake(`[ "$1" = --version ] && echo QEMU emulator version 8.0.2; exit 1`);
    const error = failure({ qemu });
    expect(error.code).toBe('E_QEMU_NOT_PPC');
    expect(error.message).toContain('without the pseries machine');
  });

  test('something that no shell can run', () => {
    const path = join(folder, 'garbage');
    writeFileSync(path, '\x7fELF garbage');
    chmodSync(path, 0o755);
    expect(failure({ qemu: path }).code).toBe('E_QEMU_NOT_PPC');
  });
});

describe('an old QEMU', () => {
  test('that refuses the options', () => {
    const qemu = fake(`[ "$1" = --version ] && echo 'QEMU emulator version 6.1.0 (Foo)'; exit 1`);
    const error = failure({ qemu });
    expect(error.code).toBe('E_QEMU_VERSION');
    expect(error.message).toContain('7.2 or newer');
    expect(error.message).toContain('is version 6.1.0');
  });

  test('that starts', async () => {
    const qemu = fake(`${greeting(7, 1)}; sleep 60`);
    expect(failure({ qemu }).code).toBe('E_QEMU_VERSION');
    await eventually(() => processesWith(qemu).length === 0);
  });
});

describe('a QEMU that ends', () => {
  test('with an exit code and a reason', () => {
    const qemu = fake(`${honest}\necho 'qemu: -foo: no such option' >&2; exit 3`);
    const error = failure({ qemu });
    expect(error.code).toBe('E_QEMU_EXITED');
    expect(error.message).toContain('with exit code 3; QEMU said:\nqemu: -foo: no such option');
    expect(error.details).toEqual({ exitCode: 3, stderr: ['qemu: -foo: no such option'] });
  });

  test('by a signal', () => {
    const error = failure({ qemu: fake(`${honest}\nkill -ABRT $$`) });
    expect(error.code).toBe('E_QEMU_EXITED');
    expect(error.message).toContain('by SIGABRT');
  });

  test('after it talked: only the last lines of it', () => {
    const qemu = fake(
      `${honest}\ni=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done`,
    );
    expect(failure({ qemu }).details.stderr).toEqual(
      Array.from({ length: 8 }, (_, i) => `line ${1992 + i}`),
    );
  });

  test('after its greeting', () => {
    const error = failure({ qemu: fake(`${honest}\n${greeting(9, 0)}; exit 1`) });
    expect(error.code).toBe('E_QEMU_EXITED');
  });
});

describe('a QEMU that does not answer is killed, with what it started', () => {
  test.each([
    ['from the first', 'sleep 61', "QEMU's QMP greeting"],
    ['after its greeting', `${greeting(10, 0)}; sleep 61`, 'the firmware to start'],
    ['deaf to signals', "trap '' TERM INT HUP; sleep 61; sleep 61", "QEMU's QMP greeting"],
    ['noisy', 'while :; do echo noise; sleep 0.01; done', "QEMU's QMP greeting"],
  ])('%s', async (_, script, awaited) => {
    const qemu = fake(`${script} # $*`);
    const start = performance.now();
    const error = failure({ qemu, timeoutMs: 300 });
    expect(error.code).toBe('E_QEMU_HANG');
    expect(error.message).toContain(`waited 300 ms for ${awaited}`);
    expect(performance.now() - start).toBeLessThan(3_000);
    await eventually(() => processesWith(qemu).length === 0);
  });

  test('even if there is no time at all', async () => {
    const qemu = fake('sleep 61');
    expect(failure({ qemu, timeoutMs: 1 }).code).toBe('E_QEMU_HANG');
    await eventually(() => processesWith(qemu).length === 0);
  });

  test('a child of a script that does not exec', async () => {
    const path = join(folder, 'sleeper');
    writeFileSync(path, '#!/bin/sh\nsleep 61\n');
    chmodSync(path, 0o755);
    expect(failure({ qemu: fake(`${path}; exit 0`), timeoutMs: 300 }).code).toBe('E_QEMU_HANG');
    await eventually(() => processesWith(path).length === 0);
  });
});

describe('options', () => {
  test.each([
    { memory: 0 },
    { memory: 1.5 },
    { memory: -1 },
    { timeoutMs: 0 },
    { timeoutMs: Number.NaN },
  ])('%o', (options) => {
    expect(failure(options).code).toBe('E_LIVE_USAGE');
  });
});

describe('too few file descriptors', () => {
  const qemu = fake(`${honest}\nsleep 5`);
  const script = `
    import { LiveQemu } from '@pinhole/live';
    try { LiveQemu.start({ qemu: process.argv[1], timeoutMs: 200 }); } catch (error) { console.log(error.code); }
  `;

  test.each([24, 26, 28, 30])('%d of them: an error with a code', (limit) => {
    const command = `ulimit -n ${limit}; exec "$0" --input-type=module -e "$1" "$2"`;
    const { status, stdout, stderr } = spawnSync(
      'sh',
      ['-c', command, process.execPath, script, qemu],
      {
        cwd: import.meta.dirname,
        encoding: 'utf8',
      },
    );
    // With too few of them Node itself does not start.
    if (status !== 0 && stdout === '' && !/at .*live/.test(stderr)) return;
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(/^E_[A-Z_]+\n$/);
  });
});
