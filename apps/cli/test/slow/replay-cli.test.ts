/** `pinhole replay` with files that are damaged, mixed up, endless or of something else. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { findRecording, type RecordingName } from '@pinhole/recordings';
import { describe, expect, test } from 'vitest';
import { PROGRAM, pinhole, scratchFolder } from '../pinhole.js';

const folder = scratchFolder();

function write(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

const pathOf = (name: RecordingName, file: 'qemuTrace' | 'guestTrace' | 'console'): string =>
  fileURLToPath(findRecording(name).files[file]);
const textOf = (path: string): string => gunzipSync(readFileSync(path)).toString('latin1');

const QEMU = pathOf('linux6.12-pinhole-rng', 'qemuTrace');
const GUEST = pathOf('linux6.12-pinhole-rng', 'guestTrace');
const CONSOLE = pathOf('linux6.12-pinhole-rng', 'console');

const replay = (qemu: string, guest: string, ...more: string[]) =>
  pinhole(['replay', '--qemu-trace', qemu, '--guest-trace', guest, '--format', 'json', ...more]);

describe('files that are something else: said, exit code 2, no output', () => {
  const noise = Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7919) % 256));
  const cases: [what: string, args: string[], message: RegExp][] = [
    ['the two traces swapped', [GUEST, QEMU], /--qemu-trace .*found an ftrace file.*--guest-trace/],
    ['a console as the trace', [QEMU, CONSOLE], /--guest-trace .*found a console/],
    ['noise as the log', [write('noise', noise), GUEST], /--qemu-trace .*found binary data/],
    ['noise as the trace', [QEMU, write('noise2', noise)], /--guest-trace .*found binary data/],
    ['an empty log', [write('empty', ''), GUEST], /--qemu-trace .*found nothing/],
    ['an empty trace', [QEMU, write('empty2', '')], /--guest-trace .*found nothing/],
    ['a folder', [QEMU, folder], /found a directory/],
    ['a trace that is not there', [QEMU, join(folder, 'none')], /does not exist/],
    ['a trace as the console', [QEMU, GUEST, '--console', QEMU], /--console .*QEMU's trace events/],
    [
      'the console of another kernel',
      [QEMU, GUEST, '--console', pathOf('linux7.2-ddw', 'console')],
      /--console is of Linux 7\.2\.13.*6\.12\.107.*not of one run/,
    ],
    ['an unknown kernel', [QEMU, GUEST, '--kernel', 'linux-9'], /--kernel: expected one of/],
    [
      'a trace without an event that is known',
      [
        QEMU,
        write(
          'other.ftrace',
          `# tracer: nop\n${' dd-1 [000] d.... 1.0: sched_switch: x\n'.repeat(9)}`,
        ),
      ],
      /found none that are known|not of one run/,
    ],
  ];
  test.each(cases)('%s', (_what, [qemu = '', guest = '', ...more], message) => {
    const { code, stdout, stderr } = replay(qemu, guest, ...more);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/internal error|\n {4}at /);
    expect(code).toBe(2);
    expect(stdout).toBe('');
  });
});

describe('the trace of one run and the log of another', () => {
  const pairs: [log: RecordingName, trace: RecordingName][] = [
    ['linux6.12-pinhole-rng', 'linux6.12-ddw'],
    ['linux6.12-ddw', 'linux6.12-pinhole-rng'],
    ['linux6.1-pinhole', 'linux7.2-ddw-lost'],
    ['linux7.2-ddw-lost', 'linux6.1-pinhole'],
  ];
  test.each(pairs)('%s with the trace of %s', (log, trace) => {
    const { code, stderr } = replay(pathOf(log, 'qemuTrace'), pathOf(trace, 'guestTrace'));
    expect(stderr).toMatch(/not of one run/);
    expect(code).toBe(2);
  });
});

describe('files that are damaged: what is there is checked', () => {
  test('a trace that is cut, as gzip and as text', () => {
    const zipped = readFileSync(GUEST);
    const short = replay(QEMU, write('cut.gz', zipped.subarray(0, zipped.length / 2)));
    expect(short.code).toBe(1);
    expect(JSON.parse(short.stdout).guestLog.cutShort).toBe('the gzip file is cut short');
    const text = textOf(GUEST);
    const { code, stdout } = replay(QEMU, write('cut.ftrace', text.slice(0, text.length / 2)));
    expect(code).toBe(1);
    const { guestLog, guest } = JSON.parse(stdout);
    expect(guestLog.problems.cut).toBe(1);
    expect(guest).toMatchObject({ dmaAddressMismatches: 0 });
    expect(guest.maps).toBeGreaterThan(100);
  });

  test('lines end with CR LF', () => {
    const dos = (path: string): string => textOf(path).replace(/\r?\n/g, '\r\n');
    const { code, stdout } = replay(write('dos.log', dos(QEMU)), write('dos.ftrace', dos(GUEST)));
    expect(code).toBe(0);
    expect(JSON.parse(stdout).guest).toMatchObject({
      maps: 415,
      hcallMismatches: 0,
      dmaAddressMismatches: 0,
    });
  });

  test('events that the kernel lost make a mismatch, not an internal error', () => {
    const lines = textOf(GUEST).split('\n');
    lines.splice(900, 300, 'CPU:0 [LOST 300 EVENTS]');
    const { code, stdout, stderr } = replay(QEMU, write('lost.ftrace', lines.join('\n')));
    expect(stderr).toBe('');
    expect(code).toBe(1);
    expect(JSON.parse(stdout).guest.hcallMismatches).toBeGreaterThan(0);
  });
});

test('a changed digit in the guest: exit code 1, both lines, both sides', () => {
  const text = textOf(GUEST);
  const changed = text.replace('dma_map_page: 0000:00:01.0 dir=FROM_DEVICE dma_addr=20510', (all) =>
    all.replace('20510', '30510'),
  );
  expect(changed).not.toBe(text);
  const file = write('changed.ftrace', changed);
  const { code, stdout } = pinhole(['replay', '--qemu-trace', QEMU, '--guest-trace', file]);
  expect(code).toBe(1);
  expect(stdout).toMatch(/guest line 26, QEMU line \d+: address: recorded 0x30510/);
  expect(stdout).toContain('do not agree');
});

test('a long run in constant memory', () => {
  // 60 times what happened after the first mapping: some 30 MB of log, 15 MB of trace.
  const log = textOf(QEMU).split('\n');
  const from = log.findIndex((line) => line.startsWith('spapr_iommu_xlate'));
  const [head, rest] = [log.slice(0, from).join('\n'), log.slice(from).join('\n')];
  const qemu = write('long.log', `${head}\n${rest.repeat(60)}`);
  const [node = '', main = ''] = PROGRAM;
  const args = ['--max-old-space-size=48', main, 'replay', '--qemu-trace', qemu, '--guest-trace'];
  const { status, stdout, stderr } = spawnSync(node, [...args, GUEST], { encoding: 'utf8' });
  expect(stderr).not.toMatch(/heap|internal error/);
  // The trace is of the first of them; the entries are mapped again over the old ones.
  expect(status).toBe(1);
  expect(stdout).toMatch(/^ {2}DMA addresses +832/m);
});

test('nobody reads the output', () => {
  const command = `'${PROGRAM.join("' '")}' replay --qemu-trace '${QEMU}' --guest-trace '${GUEST}' --format json | head -n 1; echo "\${PIPESTATUS[0]}"`;
  const { stdout, stderr } = spawnSync('bash', ['-c', command], { encoding: 'utf8' });
  expect(stdout).toBe('{\n0\n');
  expect(stderr).toBe('');
});
