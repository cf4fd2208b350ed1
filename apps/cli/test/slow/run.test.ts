/** `pinhole run` and `pinhole replay`, as a user calls them. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync, gzipSync } from 'node:zlib';
import { findRecording } from '@pinhole/recordings';
import { describe, expect, test } from 'vitest';
import { PROGRAM, pinhole, scenario, scratchFolder } from '../pinhole.js';

const folder = scratchFolder();
const inFolder = (name: string): string => join(folder, name);
const LOG = fileURLToPath(findRecording('linux6.12-pinhole').files.qemuTrace);

function write(name: string, content: string | Uint8Array): string {
  writeFileSync(inFolder(name), content);
  return inFolder(name);
}

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
      `QEMU line ${line}: spapr_iommu_xlate: perm: recorded 0x1, the model has 0x3`,
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
