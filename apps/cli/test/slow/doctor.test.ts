// pinhole doctor with programs that are missing, old, strange or never end, and with a broken install.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type Check, systemChecks } from '../../src/doctor-checks.js';
import { toolChecks } from '../../src/doctor-tools.js';
import { pinhole, scratchFolder } from '../pinhole.js';

interface Report {
  schemaVersion: number;
  ok: boolean;
  checks: Check[];
}
const named = (checks: readonly Check[], name: string): Check | undefined =>
  checks.find((check) => check.name === name);
const checkOf = ({ checks }: Report, name: string): Check | undefined => named(checks, name);

const folder = scratchFolder();
let folders = 0;

/** A folder with these programs, as shell scripts. */
function bin(programs: Record<string, string>): string {
  folders += 1;
  const path = join(folder, `bin${folders}`);
  mkdirSync(path);
  for (const [name, script] of Object.entries(programs)) {
    writeFileSync(join(path, name), `#!/bin/sh\n${script}\n`);
    chmodSync(join(path, name), 0o755);
  }
  return path;
}

function doctor(env: NodeJS.ProcessEnv): { report: Report; code: number | null } {
  const { stdout, stderr, code } = pinhole(['doctor', '--format', 'json'], env);
  expect(stderr).toBe('');
  return { report: JSON.parse(stdout), code };
}

describe('with no optional program', () => {
  const { report, code } = doctor({ PATH: bin({}) });

  test('all that is required is there and works', () => {
    expect(code).toBe(0);
    expect(report.ok).toBe(true);
    const required = report.checks.filter(({ isRequired }) => isRequired);
    expect(required.map(({ name, status }) => `${name}: ${status}`)).toEqual([
      'Node.js: ok',
      'packages: ok',
      'worker threads: ok',
      'model: ok',
      'recorded run: ok',
    ]);
  });

  test('it runs the model, and compares it with a recorded run', () => {
    expect(checkOf(report, 'model')?.found).toMatch(/^155 requests .* 1658 hypercalls/);
    // As packages/recordings/data/linux6.12-pinhole-rng/meta.json counts them.
    expect(checkOf(report, 'recorded run')?.found).toMatch(/: 1344 hypercalls, 2299 translations/);
  });

  test.each(['qemu-system-ppc64', 'dtc', 'chromium'])('%s: what for, and where from', (name) => {
    const check = checkOf(report, name);
    expect(check).toMatchObject({ status: 'missing', found: 'not found in the PATH' });
    expect(check?.purpose.length).toBeGreaterThan(10);
    expect(check?.fix).toContain('apt-get install');
  });
});

test('versions', async () => {
  const checks = await toolChecks({
    PATH: bin({
      'qemu-system-ppc64': "echo 'QEMU emulator version 10.0.13 (Debian)'",
      dtc: "echo 'Version: DTC v1.7.2'",
      'google-chrome': "echo 'Google Chrome 140.0.1.2'",
    }),
  });
  expect(checks).toMatchObject([
    { name: 'qemu-system-ppc64', status: 'ok', found: '10.0.13' },
    { name: 'dtc', status: 'ok', found: '1.7.2' },
    { name: 'chromium', status: 'ok', found: '140.0.1.2' },
  ]);
});

test.each([
  ['QEMU emulator version 7.0.0', 'warning', /^7\.0\.0; the model follows 7\.2 and 10\.0/],
  ['QEMU emulator version 10.01.0', 'warning', /^10\.01\.0;/],
  ['hello', 'missing', /said "hello"$/],
  ['', 'missing', /said nothing$/],
])('a QEMU that says "%s"', async (says, status, found) => {
  const [check] = await toolChecks({ PATH: bin({ 'qemu-system-ppc64': `echo '${says}'` }) });
  expect(check?.status).toBe(status);
  expect(check?.found).toMatch(found);
});

test('programs that hang, talk for ever or cannot be run do not hold it up', async () => {
  const { PATH } = process.env;
  const path = bin({
    // What a program has started goes with it.
    'qemu-system-ppc64': `export PATH='${PATH}'; sleep 4321 & sleep 4321`,
    dtc: 'while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done',
    chromium: '',
  });
  chmodSync(join(path, 'chromium'), 0o644);
  const start = Date.now();
  const checks = await toolChecks({ PATH: path });
  expect(Date.now() - start).toBeLessThan(15_000);
  expect(named(checks, 'qemu-system-ppc64')?.found).toContain('no answer in 4 s');
  expect(named(checks, 'dtc')?.found).toContain('too long an answer');
  expect(named(checks, 'chromium')?.found).toContain('EACCES');
  if (process.platform === 'linux') {
    const running = readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(commandLine);
    expect(running.filter((line) => line.includes('sleep\u00004321'))).toEqual([]);
  }
});

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
}

describe('a broken install', () => {
  const cli = join(import.meta.dirname, '../..');
  const copy = join(folder, 'copy/pinhole');
  mkdirSync(copy, { recursive: true });
  for (const part of ['dist', 'scenarios'])
    cpSync(join(cli, part), join(copy, part), { recursive: true });
  symlinkSync(join(cli, 'node_modules'), join(copy, 'node_modules'));
  symlinkSync(join(cli, '../../node_modules'), join(folder, 'copy/node_modules'));
  const manifest = JSON.parse(readFileSync(join(cli, 'package.json'), 'utf8'));
  manifest.dependencies['@pinhole/machine'] = '9.9.9';
  manifest.dependencies['@pinhole/gone'] = '1.0.0';
  manifest.engines.node = '>=99.1';
  writeFileSync(join(copy, 'package.json'), JSON.stringify(manifest));
  const scenario = join(copy, 'scenarios/2-pinhole.yaml');
  writeFileSync(scenario, readFileSync(scenario, 'utf8').replace('arch: pseries', 'arch: pserie'));
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [join(copy, 'dist/main.js'), 'doctor', ...args], {
      encoding: 'utf8',
    });

  test('is found, and exits with 1', () => {
    const { status, stdout } = run('--format', 'json');
    const report: Report = JSON.parse(stdout);
    expect(status).toBe(1);
    expect(report.ok).toBe(false);
    expect(checkOf(report, 'Node.js')?.found).toContain('expected 99.1 or newer');
    expect(checkOf(report, 'packages')?.found).toMatch(/machine is .*, expected 9\.9\.9/);
    expect(checkOf(report, 'packages')?.found).toContain('@pinhole/gone 1.0.0 is not installed');
    expect(checkOf(report, 'model')?.found).toContain('"pserie"');
    expect(checkOf(report, 'recorded run')?.status).toBe('ok');
  });

  test('is said for people, too', () => {
    const { stdout } = run();
    expect(stdout).toMatch(/^FAILED +packages/m);
    expect(stdout).toMatch(/^ +-> npm install --global pinhole$/m);
    expect(stdout).toMatch(/missing or does not work\.\n$/);
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(160);
  });
});

test('no temporary folder', async () => {
  const { TMPDIR } = process.env;
  process.env.TMPDIR = join(folder, 'none');
  try {
    const check = named(await systemChecks(), 'temporary folder');
    expect(check).toMatchObject({ status: 'missing', isRequired: false });
    expect(check?.found).toContain('ENOENT');
  } finally {
    if (TMPDIR === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = TMPDIR;
  }
});
