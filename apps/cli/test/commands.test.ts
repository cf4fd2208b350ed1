/** The other commands, and everything that a user can get wrong. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync, gzipSync } from 'node:zlib';
import { findRecording } from '@pinhole/recordings';
import { describe, expect, test } from 'vitest';
import { PROGRAM, pinhole, scratchFolder } from './pinhole.js';

const folder = scratchFolder();
const inFolder = (name: string): string => join(folder, name);
const LOG = fileURLToPath(findRecording('linux6.12-pinhole').files.qemuTrace);

function write(name: string, content: string | Uint8Array): string {
  writeFileSync(inFolder(name), content);
  return inFolder(name);
}

const scenario = (change: (text: string) => string = (text) => text): string =>
  change(`machine: { arch: pseries, memory: 2GiB, ddw: false }
devices:
  - { type: virtio-blk, iommuPlatform: true }
workload:
  - { read: { offset: 0, length: 16KiB, block: 4KiB } }
`);

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

describe('run', () => {
  const file = write('ok.yaml', scenario());

  test('shows verdict and counters', () => {
    const { code, stdout } = pinhole(['run', file]);
    expect(code).toBe(0);
    expect(stdout).toContain('8.00 a request: H_STUFF_TCE 4.00, H_PUT_TCE 4.00');
  });

  test('exits with 1 when the expectation is not met', () => {
    const { code, stderr } = pinhole(['run', file, '--set', 'expect=fails']);
    expect(code).toBe(1);
    expect(stderr).toContain('expected the outcome "fails", found "works-slow"');
  });

  test('takes a built-in scenario by number or name, and an image', () => {
    expect(pinhole(['run', '3']).stdout).toContain('works: correct');
    const image = write('sixteen.img', Buffer.alloc(16 * 2 ** 20, 7));
    expect(pinhole(['run', '1-bypass', '--image', image]).code).toBe(0);
  });

  test('an image is found next to its scenario', () => {
    write('beside.img', Buffer.alloc(2 ** 20));
    const own = write(
      'beside.yaml',
      scenario((t) => t.replace('true }', 'true, image: beside.img }')),
    );
    const { stdout } = pinhole(['run', own, '--format', 'json']);
    expect(JSON.parse(stdout)).toMatchObject({ machine: { diskSize: 2 ** 20 } });
  });

  test("writes a trace in QEMU's words that replay understands", () => {
    const log = inFolder('own.log');
    expect(pinhole(['run', '3', '--trace', 'spapr_iommu_*,virt*', '--trace-file', log]).code).toBe(
      0,
    );
    const { code, stdout } = pinhole(['replay', '--qemu-trace', log, '--format', 'json']);
    expect(code).toBe(0);
    const { hypervisor, log: read } = JSON.parse(stdout);
    expect(hypervisor).toMatchObject({ hcalls: 513, hcallMismatches: 0, translationMismatches: 0 });
    expect(read.problems.malformed).toBe(0);
  });

  test('writes a trace for Perfetto: one track an actor, spans properly nested', () => {
    const file = inFolder('trace.json');
    pinhole(['run', '2', '--trace-file', file, '--trace-format', 'chrome']);
    const { traceEvents } = JSON.parse(readFileSync(file, 'utf8')) as {
      traceEvents: { ph: string; tid: number; name: string; args?: { name?: string } }[];
    };
    const tracks = traceEvents.filter(({ name }) => name === 'thread_name');
    expect(tracks.map(({ args }) => args?.name).sort()).toEqual(['device', 'guest', 'hypervisor']);
    const open = new Map<number, string[]>();
    for (const { ph, tid, name } of traceEvents) {
      const stack = open.get(tid) ?? [];
      open.set(tid, stack);
      if (ph === 'B') stack.push(name);
      if (ph === 'E') expect(stack.pop()).toBe(name);
    }
    for (const stack of open.values()) expect(stack).toEqual([]);
  });

  test('the same seed gives the same bytes', () => {
    const small = write(
      'small.yaml',
      `machine: { arch: pseries, memory: 512MiB, ddw: false }
guest: { kernel: linux-6.12 }
devices: [{ type: virtio-blk, iommuPlatform: true }]
workload: [{ read: { offset: 0, length: 256KiB, block: 16KiB } }]
`,
    );
    const traceOf = (name: string, seed: string): string => {
      pinhole([
        'run',
        small,
        '--seed',
        seed,
        '--trace-file',
        inFolder(name),
        '--trace-format',
        'ndjson',
      ]);
      return readFileSync(inFolder(name), 'utf8');
    };
    const first = traceOf('a', '5');
    expect(traceOf('b', '5')).toBe(first);
    expect(traceOf('c', '6')).not.toBe(first);
  });

  test('--trace help lists the events', () => {
    expect(pinhole(['run', '1', '--trace', 'help']).stdout).toMatch(/^spapr_iommu_xlate +qemu /m);
  });
});

describe('replay', () => {
  const text = gunzipSync(readFileSync(LOG)).toString('utf8');
  const replay = (file: string) => pinhole(['replay', '--qemu-trace', file, '--format', 'json']);

  test('a recorded log, gzipped or plain, has no mismatch', () => {
    for (const file of [LOG, write('plain.log', text)]) {
      const { code, stdout } = replay(file);
      expect(code).toBe(0);
      expect(JSON.parse(stdout)).toMatchObject({
        schemaVersion: 1,
        inferred: { liobns: ['0x80000000'] },
        hypervisor: {
          hcalls: 2953,
          hcallMismatches: 0,
          translations: 4881,
          translationMismatches: 0,
        },
        guest: null,
      });
    }
  });

  test('a changed digit is found and shown with its line', () => {
    const changed = text.replace('0x30108 -> 0x7396000 perm=3', '0x30108 -> 0x7396000 perm=1');
    const line = text.slice(0, text.indexOf('0x30108 ->')).split('\n').length;
    const { code, stdout } = pinhole(['replay', '--qemu-trace', write('changed.log', changed)]);
    expect(code).toBe(1);
    expect(stdout).toContain(
      `line ${line}: spapr_iommu_xlate: perm: the log has 0x1, the model 0x3`,
    );
  });

  test('a log cut in the middle: what is there is checked, and the cut is said', () => {
    const cut = text.slice(0, text.indexOf('spapr_iommu_xlate') + 200);
    const { code, stdout } = replay(write('cut.log', cut));
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({
      log: { problems: { cut: 1 } },
      hypervisor: { hcallMismatches: 0 },
    });
    const zipped = readFileSync(LOG);
    const short = replay(write('cut.log.gz', zipped.subarray(0, zipped.length / 2)));
    expect(short.code).toBe(1);
    expect(JSON.parse(short.stdout).log.cutShort).toBe('the gzip file is cut short');
  });

  test('garbage lines are counted and named, the rest is checked', () => {
    const lines = text.split('\n');
    lines.splice(100, 0, 'spapr_iommu_pci_put liobn=0xZZ', '\u0000\u0001\u0002');
    const { code, stdout } = replay(write('garbage.log', lines.join('\n')));
    expect(code).toBe(1);
    const { log, hypervisor } = JSON.parse(stdout);
    expect(log.firstProblems.map(({ line }: { line: number }) => line)).toEqual([101, 102]);
    expect(hypervisor).toMatchObject({ hcalls: 2953, hcallMismatches: 0 });
  });

  test('a damaged gzip file is an error that says so', () => {
    const bytes = gzipSync(text);
    bytes.fill(0x55, 1000, 1100);
    const { code, stderr, stdout } = replay(write('damaged.gz', bytes));
    expect(code).not.toBe(0);
    expect(stderr + stdout).toMatch(/the gzip file is damaged/);
  });

  test('memory stays the same however long the log is', () => {
    // 40 times the recording: some 26 MB. The heap could not hold its events.
    const file = write('long.log', text.repeat(40));
    const [node = '', main = ''] = PROGRAM;
    const args = ['--max-old-space-size=40', main, 'replay', '--qemu-trace', file];
    const { status, stdout } = spawnSync(node, args, { encoding: 'utf8' });
    expect(status).toBe(0);
    expect(stdout).toMatch(/TCE hypercalls +118120 +0 wrong/);
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
