/** `pinhole conform hcalls` against a real QEMU, as a user sees it. */
import { spawn, spawnSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { PROGRAM, pinhole } from '../pinhole.js';

const given = process.env.PINHOLE_QEMU;
const QEMU = given ?? 'qemu-system-ppc64';
// One that was asked for and is not there is a failure.
const isMissing = given === undefined && spawnSync(QEMU, ['--version']).status !== 0;
if (isMissing) {
  process.stderr.write(`${QEMU} was not found: the live suite is skipped (set PINHOLE_QEMU)\n`);
}

const conform = (...args: string[]) => pinhole(['conform', 'hcalls', '--qemu', QEMU, ...args]);

describe.skipIf(isMissing)('pinhole conform hcalls', () => {
  test('says what was compared, how often each return code came, and that they agree', () => {
    const { code, stdout } = conform('--count', '20000', '--seed', '3');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^QEMU \d+\.\d+\.\d+ \(.*\), seed 3\n/);
    expect(stdout).toMatch(/│ H_PUT_TCE_INDIRECT +│ +-4 │ +(\d+) │ +\1 │\n/);
    expect(stdout).toMatch(/Left out by name: window-of-2\^32-entries, /);
    expect(stdout).toMatch(/The model and this QEMU agree on every one\.\n$/);
  });

  test('fits a narrow terminal', () => {
    const args = ['conform', 'hcalls', '--qemu', QEMU, '--count', '2000'];
    const { stdout } = pinhole(args, { COLUMNS: '40' });
    expect(stdout).toMatch(/^H_PUT_TCE -4: (\d+), QEMU \1$/m);
    expect(stdout).not.toMatch(/│/);
  });

  test('is the same for the same seed', () => {
    const [one, other] = [1, 2].map(() => {
      const { stdout } = conform('--count', '20000', '--seed', '5', '--format', 'json');
      const { seconds, ...rest } = JSON.parse(stdout) as Record<string, unknown>;
      expect(seconds).toBeGreaterThan(0);
      return rest;
    });
    expect(other).toEqual(one);
    expect(one).toMatchObject({ schemaVersion: 1, seed: 5, count: 20_000, findings: [] });
  });

  test('exits with 1 when QEMU dies, and has the lines that show the same on the model', () => {
    const args = ['--include', 'window-of-2^32-entries', '--count', '3000', '--format', 'json'];
    const { code, stdout } = conform(...args);
    expect(code).toBe(1);
    const [finding] = JSON.parse(stdout).findings;
    expect(finding).toMatchObject({ kind: 'exit', isReproducible: true });
    expect(finding.requests).toHaveLength(2);
    expect(finding.qemu).toMatch(/SIGABRT/);
    const settings = finding.set.flatMap((setting: string) => ['--set', setting]);
    const [command = '', ...rest] = [...PROGRAM, 'hcall', '--memory', '256MiB', ...settings];
    const input = finding.requests.map((line: unknown) => `${JSON.stringify(line)}\n`).join('');
    const answers = spawnSync(command, rest, { input, encoding: 'utf8' }).stdout.split('\n');
    expect(answers[0]).toBe('{"rets":[-1,null,null,null]}');
    expect(answers[1]).toMatch(/^\{"rets":\[0,/);
  });

  test('Ctrl-C: what there is, what was found too, and 130', async () => {
    const args = ['conform', 'hcalls', '--qemu', QEMU, '--include', 'window-of-2^32-entries'];
    const [command = '', ...rest] = [...PROGRAM, ...args, '--count', '1000000000'];
    const child = spawn(command, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
    let [out, err] = ['', ''];
    child.stdout.on('data', (data) => {
      out += data;
    });
    child.stderr.on('data', (data) => {
      err += data;
    });
    // It is at work by then, and probably shrinking.
    setTimeout(() => child.kill('SIGINT'), 3000);
    const code = await new Promise((resolve) => child.on('close', resolve));
    expect(code).toBe(130);
    expect(err).toMatch(/interrupted after \d+ of 1000000000 hypercalls/);
    expect(out).toMatch(/hypercalls compared/);
    if (/QEMU died/.test(out)) expect(out).not.toMatch(/agree on every one/);
  });
});

describe.skipIf(isMissing)('pinhole conform virtio', () => {
  const virtio = (...args: string[]) => pinhole(['conform', 'virtio', '--qemu', QEMU, ...args]);

  test('says what was compared, how requests ended, and that they agree', () => {
    const { code, stdout } = virtio('--count', '200', '--seed', '3', '--device', 'pinhole');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^QEMU \d+\.\d+\.\d+ \(.*\), seed 3, /);
    expect(stdout).toMatch(
      /│ the data: no entry +│ used 4097, status 0, data unwritten, .*8 of 8 │/,
    );
    expect(stdout).toMatch(/│ read +│ VIRTIO_BLK_S_OK +│ +\d+ │\n/);
    expect(stdout).toMatch(/The model and this QEMU agree on every one\.\n$/);
  });

  test('fits a narrow terminal', () => {
    const args = ['conform', 'virtio', '--qemu', QEMU, '--count', '20', '--device', 'blk-split'];
    const { stdout } = pinhole(args, { COLUMNS: '40' });
    expect(stdout).toMatch(/^the header: used 4097, status 0, data sector 0/m);
    expect(stdout).not.toMatch(/│/);
  });

  test('exits with 1 when QEMU hangs, and has the request that did it', () => {
    const args = ['--include', 'packed-ring-error', '--device', 'blk-packed', '--seed', '3'];
    const { code, stdout } = virtio(...args, '--count', '2000', '--format', 'json');
    expect(code).toBe(1);
    const [finding] = JSON.parse(stdout).findings;
    expect(finding).toMatchObject({ what: 'hang', seed: 3, model: 'goes on' });
    expect(finding.requests).toHaveLength(1);
    expect(finding.qemu).toMatch(/bogus descriptor or out of resources/);
  });
});
