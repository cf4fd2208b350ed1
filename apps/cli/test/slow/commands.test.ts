/** The other commands, and everything that a user can get wrong. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findRecording } from '@pinhole/recordings';
import { describe, expect, test } from 'vitest';
import { PROGRAM, pinhole, scenario, scratchFolder } from '../pinhole.js';

const folder = scratchFolder();
const inFolder = (name: string): string => join(folder, name);
const _LOG = fileURLToPath(findRecording('linux6.12-pinhole').files.qemuTrace);

function write(name: string, content: string | Uint8Array): string {
  writeFileSync(inFolder(name), content);
  return inFolder(name);
}

describe('bad input: a clear error, exit code 2, nothing written', () => {
  mkdirSync(inFolder('folder.img'));
  const cases: [string, string[], RegExp][] = [
    [
      'no such image',
      ['compare', '--image', inFolder('none.img')],
      /none\.img: expected a raw disk image, but it does not exist/,
    ],
    [
      'a directory as image',
      ['compare', '--image', inFolder('folder.img')],
      /folder\.img: expected a raw disk image, found a directory/,
    ],
    [
      'an image of 700 bytes',
      ['compare', '--image', write('odd.img', Buffer.alloc(700))],
      /odd\.img: .*multiple of 512 bytes, found 700 bytes/,
    ],
    [
      'an empty image',
      ['compare', '--image', write('empty.img', '')],
      /empty\.img: .*found 0 bytes/,
    ],
    [
      'a cell and a filter',
      ['matrix', '--cell', 'linux-6.1/x86-64/flag/normal/qemu/split', '--arch', 'x86-64'],
      /--cell is one cell: leave out --arch/,
    ],
    [
      'an index that would fill all memory',
      ['run', '3-ddw', '--set', 'devices[4294967294].type=x'],
      /devices\[4294967294\]\.type: --set: expected an index from 0 to 9999/,
    ],
    [
      'a page in no folder',
      ['compare', '--html', inFolder('no/where/x.html')],
      /expected a file in a folder that exists/,
    ],
    [
      'a wrong key',
      [
        'run',
        write(
          'key.yaml',
          scenario((t) => t.replace('ddw', 'dww')),
        ),
      ],
      /key\.yaml:1:41: machine\.dww: expected one of the keys/,
    ],
    [
      'a wrong type',
      [
        'run',
        write(
          'type.yaml',
          scenario((t) => t.replace('false', '3')),
        ),
      ],
      /type\.yaml:1:46: machine\.ddw: expected boolean, found 3/,
    ],
    [
      'an impossible machine',
      [
        'run',
        write('machine.yaml', scenario()),
        '--set',
        'machine.ddw=true',
        '--set',
        'machine.dmaWindowSize=0x0900000000000000',
      ],
      /machine\.dmaWindowSize: expected a size/,
    ],
    [
      'a window over the second one',
      ['run', inFolder('machine.yaml'), '--set', 'machine.dmaWindowSize=1023'],
      /machine: expected a default DMA window of whole 4 KiB pages/,
    ],
    [
      'a read past the end',
      [
        'run',
        write(
          'end.yaml',
          scenario((t) => t.replace('offset: 0', 'offset: 16MiB')),
        ),
      ],
      /workload\[0\]\.read: .*past the end/,
    ],
    [
      'no such scenario',
      ['run', 'nothing'],
      /nothing: expected a scenario file, or one of: 1-bypass/,
    ],
    ['an unknown command', ['comapre'], /Did you mean compare/],
    ['an unknown option', ['compare', '--imgae', 'x'], /Did you mean --image/],
    ['an unknown format', ['compare', '--format', 'xml'], /Allowed choices are table, json/],
    ['a seed that is none', ['compare', '--seed', '-1'], /seed/],
    ['an unknown event', ['run', '2', '--trace', 'spapr_iomu_*'], /spapr_iomu/],
    ['no log', ['replay'], /--qemu-trace/],
    ['a missing log', ['replay', '--qemu-trace', inFolder('none.log')], /does not exist/],
    [
      'a log that is none',
      ['replay', '--qemu-trace', write('prose.log', 'Dear diary,\n'.repeat(9))],
      /expected a QEMU log with trace events .*found none in 9 lines/,
    ],
  ];
  test.each(cases)('%s', (_what, args, message) => {
    const before = readdirSync(folder).sort();
    const { code, stdout, stderr } = pinhole(args);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n {4}at /);
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(readdirSync(folder).sort()).toEqual(before);
  });

  test('a scenario that cannot run leaves no trace file', () => {
    const args = ['run', inFolder('end.yaml'), '--trace-file', inFolder('t.log')];
    expect(pinhole(args).code).toBe(2);
    expect(existsSync(inFolder('t.log'))).toBe(false);
  });
});

test('list names nine scenarios that exist', () => {
  const { stdout } = pinhole(['list', '--format', 'json']);
  const { scenarios } = JSON.parse(stdout) as { scenarios: { path: string }[] };
  expect(scenarios).toHaveLength(9);
  for (const { path } of scenarios) expect(existsSync(path)).toBe(true);
});

test('config schema is JSON Schema', () => {
  expect(JSON.parse(pinhole(['config', 'schema']).stdout)).toMatchObject({ type: 'object' });
});

test('help and version are no errors', () => {
  expect(pinhole(['--help']).code).toBe(0);
  expect(pinhole(['compare', '--help']).stdout).toContain('--image <file>');
  expect(pinhole(['--version']).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});

test('a closed pipe ends it quietly', () => {
  const command = `'${PROGRAM.join("' '")}' run 2 --format json | head -n 1; echo "\${PIPESTATUS[0]}"`;
  const { stdout, stderr } = spawnSync('bash', ['-c', command], { encoding: 'utf8' });
  expect(stdout).toBe('{\n0\n');
  expect(stderr).toBe('');
});

test('a trace on standard error may end in a closed pipe, and waits for a slow one', () => {
  const run = (rest: string): string => {
    const command = `'${PROGRAM.join("' '")}' run 2 --trace '*' 2>&1 >/dev/null | ${rest}; echo "\${PIPESTATUS[0]}"`;
    return spawnSync('bash', ['-c', command], { encoding: 'utf8' }).stdout;
  };
  expect(run('head -n 1')).toMatch(/^spapr_iommu_.*\n0\n$/);
  const trace = pinhole(['run', '2', '--trace', '*']).stderr;
  expect(run('(sleep 1; wc -l)').trim().split(/\s+/)).toEqual([
    String(trace.split('\n').length - 1),
    '0',
  ]);
});

test('what a message quotes of a file does not steer the terminal', () => {
  const file = join(scratchFolder(), 'steers.ndjson');
  writeFileSync(file, 'a\u009b31mb\u007f\n');
  const { code, stderr } = pinhole(['merge', file]);
  expect(code).toBe(2);
  expect(stderr).toContain('expected a line of JSON');
  expect(stderr.replaceAll('\n', '')).not.toMatch(/\p{Cc}/u);
});
