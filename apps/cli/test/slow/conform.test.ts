/** `pinhole conform`, as far as it goes without a QEMU: what a user can get wrong. */
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { pinhole, scratchFolder } from '../pinhole.js';

const folder = scratchFolder();

function script(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, `#!/bin/sh\n${text}\n`);
  chmodSync(path, 0o755);
  return path;
}

describe('pinhole conform hcalls: a clear error, exit code 2, nothing on stdout', () => {
  const cases: [string, string[], RegExp][] = [
    [
      'no such QEMU',
      ['--qemu', join(folder, 'none')],
      /none.*no executable file.*qemu-system-ppc/s,
    ],
    [
      'another program',
      ['--qemu', script('true', 'echo true 9.1')],
      /expected QEMU for ppc64.*true 9\.1/s,
    ],
    [
      'a QEMU that is too old',
      ['--qemu', script('old', 'echo "QEMU emulator version 2.11.1"')],
      /7\.2 or newer/,
    ],
    ['no hypercalls', ['--count', '0'], /--count .*whole number from 1/],
    ['a count that is none', ['--count', '1e6'], /--count .*whole number from 1/],
    ['a wrong seed', ['--seed', '-1'], /--seed .*whole number from 0/],
    ['an unknown accident', ['--include', 'fire'], /fire.*Allowed choices are window-of-2\^32/s],
    ['an unknown format', ['--format', 'xml'], /xml.*Allowed choices are table, json/s],
  ];

  test.each(cases)('%s', (_name, args, message) => {
    const { code, stdout, stderr } = pinhole(['conform', 'hcalls', ...args]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n {4}at /);
  });
});

describe('pinhole conform virtio: a clear error, exit code 2, nothing on stdout', () => {
  const cases: [string, string[], RegExp][] = [
    ['no such QEMU', ['--qemu', join(folder, 'none')], /none.*no executable file/s],
    ['no requests', ['--count', '0'], /--count .*whole number from 1/],
    ['no such device', ['--device', 'scsi'], /no device is named like "scsi".*blk-split-/s],
    ['an unknown accident', ['--include', 'fire'], /fire.*Allowed choice is packed-ring-error/s],
  ];

  test.each(cases)('%s', (_name, args, message) => {
    const { code, stdout, stderr } = pinhole(['conform', 'virtio', ...args]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n {4}at /);
  });
});
