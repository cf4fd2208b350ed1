import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { deviceTrees, findRecording } from '@pinhole/recordings';
import { expect, test } from 'vitest';
import { pinhole, scratchFolder } from '../pinhole.js';

const QEMU =
  'qemu-system-ppc64 -M pseries -m 2G -drive if=none,id=d0,file=x -device virtio-blk-pci,drive=d0,disable-legacy=on,iommu_platform=on';
const folder = scratchFolder();
const consoleOf = (name: 'linux7.2-ddw-lost' | 'linux6.12-ddw'): string =>
  fileURLToPath(findRecording(name).files.console);

test('a command line is explained: path, steps, cost, the fix', () => {
  const { code, stdout, stderr } = pinhole(['explain', '--qemu', QEMU]);
  expect([code, stderr]).toEqual([0, '']);
  for (const words of [
    'default window: a hypercall per map and unmap',
    'because iommu_platform=on [qemu v7.2 hw/virtio/virtio-bus.c virtio_bus_device_plugged]',
    'cost: of one read, counted in a run of the model',
    'fix: -m 2G,slots=2,maxmem=4G: second window (DDW), permanently mapped; 0 hypercalls',
  ]) {
    expect(stdout).toContain(words);
  }
  // A pipe gets no colour.
  expect(stdout).not.toContain('\u001b');
});

test.each([40, 80])('nothing is wider than a terminal of %d columns', (width) => {
  const args = ['explain', '--qemu', QEMU, '--kernel', 'linux-6.1', '--kernel', 'linux-7.2'];
  const { code, stdout } = pinhole(args, { COLUMNS: String(width) });
  // The newer kernel leaks.
  expect(code).toBe(1);
  expect(Math.max(...stdout.split('\n').map((line) => line.length))).toBeLessThanOrEqual(width);
  expect(stdout).toContain('From linux-6.1 to linux-7.2');
});

test('JSON has what the table has', () => {
  const { code, stdout } = pinhole(['explain', '--format', 'json', '--qemu', `${QEMU} -bogus`]);
  const report = JSON.parse(stdout);
  expect(code).toBe(0);
  expect(report).toMatchObject({
    schemaVersion: 1,
    platform: 'pseries',
    kernels: ['linux-6.12'],
    devices: [{ name: 'virtio-blk-pci d0', answers: [{ path: { id: 'default-window' } }] }],
    notUnderstood: [{ text: '-bogus', effect: 'may-matter' }],
  });
});

test('the counts are those of pinhole run, and what a width has no room for is below', () => {
  const line =
    'qemu-system-aarch64 -M virt,iommu=smmuv3 -nodefaults -m 1G -device virtio-blk-pci,disable-legacy=on,iommu_platform=on';
  const { stdout } = pinhole(['explain', '--format', 'json', '--qemu', line]);
  const [row] = JSON.parse(stdout).devices[0].answers[0].cost.rows;
  const path = join(folder, 'smmu.yaml');
  // The second of two reads is the one that explain counts.
  const countsOf = (reads: number) => {
    writeFileSync(
      path,
      `machine: { arch: arm64, memory: 1GiB, iommu: smmuv3 }
devices: [{ type: virtio-blk, iommuPlatform: true }]
workload: [{ read: { offset: 0, length: ${reads * 4096}, block: 4096 } }]`,
    );
    const run = pinhole(['run', '--format', 'json', path]);
    return JSON.parse(run.stdout).counters.workload;
  };
  const [one, two] = [countsOf(1), countsOf(2)];
  expect(row.iommu).toEqual({
    maps: two.iommu.maps - one.iommu.maps,
    unmaps: two.iommu.unmaps - one.iommu.unmaps,
    commands: two.iommu.commands - one.iommu.commands,
  });
  expect(row.iommu.commands).toBe(4);
  expect(row.translations).toBe(two.translations - one.translations);
  const narrow = pinhole(['explain', '--qemu', line], { COLUMNS: '40' }).stdout;
  expect(Math.max(...narrow.split('\n').map((text) => text.length))).toBeLessThanOrEqual(40);
  expect(narrow).toMatch(/read {2}maps {2}commands {2}translations\n/);
  expect(narrow).toContain('copied: 0 B, 0 B, 0 B');
  expect(narrow).toMatch(/segments: 1, /);
});

test('--kernel is what the heading names', () => {
  const { stdout } = pinhole(['explain', '2-pinhole', '--kernel', 'linux-6.1']);
  expect(stdout).toContain('pseries, linux-6.1\n');
  expect(stdout).toContain('kernel: linux-6.1 (--kernel; the scenario has linux-6.12)');
  const set = pinhole(['explain', '--qemu', QEMU, '--set', 'guest.kernel=linux-6.1']);
  expect([set.code, set.stdout]).toEqual([2, '']);
  expect(set.stderr).toContain('expected the kernel as --kernel linux-6.1');
});

test('a version of QEMU is text, though it looks like a number', () => {
  const { code, stdout } = pinhole(['explain', '2-pinhole', '--set', 'machine.qemu=10.0']);
  expect(code).toBe(0);
  expect(stdout).toContain('pseries, linux-6.12');
});

test('a console of a guest that leaks is an error finding', () => {
  const { code, stdout } = pinhole(['explain', '--console', consoleOf('linux7.2-ddw-lost')]);
  expect(code).toBe(1);
  expect(stdout).toContain('nothing is ever unmapped');
  expect(stdout).toContain('console line 256');
});

test('a console without the end of its last line, and a command line that says otherwise', () => {
  const path = join(folder, 'dmesg.txt');
  writeFileSync(
    path,
    '[    1.000000] virtio_blk virtio0: device must provide VIRTIO_F_ACCESS_PLATFORM',
  );
  expect(pinhole(['explain', '--console', path]).stdout).toContain('probe refused');
  const both = pinhole(['explain', '--console', consoleOf('linux6.12-ddw'), '--qemu', QEMU]);
  expect(both.code).toBe(1);
  expect(both.stdout).toContain('The inputs do not agree');
});

test('a device tree, plain or gzipped', () => {
  const [tree] = deviceTrees;
  const bytes = readFileSync(tree?.url ?? '');
  const path = join(folder, 'tree.dtb.gz');
  writeFileSync(path, gzipSync(bytes));
  const { code, stdout } = pinhole(['explain', '--dtb', path]);
  expect(code).toBe(0);
  expect(stdout).toContain('if iommu_platform=off');
  expect(stdout).toContain('if iommu_platform=on');
});

test('bad input is named, with exit code 2', () => {
  const noise = join(folder, 'noise');
  writeFileSync(noise, Buffer.alloc(50_000, 0xa5));
  const cut = join(folder, 'cut.gz');
  writeFileSync(cut, readFileSync(consoleOf('linux6.12-ddw')).subarray(0, 2000));
  const short = join(folder, 'short.dtb');
  writeFileSync(short, readFileSync(deviceTrees[0]?.url ?? '').subarray(0, 3000));
  const cases: [args: string[], words: string][] = [
    [[], 'expected something to explain'],
    [['--qemu', ''], 'found nothing'],
    [['--qemu', "qemu-system-ppc64 -append 'x"], 'line 1, column 27'],
    [['--qemu', 'qemu-system-ppc64 -M nosuch'], 'found another machine'],
    [['--qemu', QEMU, '--kernel', 'linux-99'], 'expected one of linux-'],
    [['--qemu', QEMU, '--set', 'machine.nosuch=1'], 'machine.nosuch'],
    [['--dtb', '/nosuch'], '/nosuch: expected a flattened device tree'],
    [['--dtb', short], `${short}: expected a flattened device tree`],
    [['--dtb', noise], 'magic'],
    [['--console', noise], 'expected the console log of a Linux guest'],
    [['--console', cut], 'cut short'],
    [['--console', folder], 'found a directory'],
    [['nosuch'], 'expected a scenario file'],
  ];
  for (const [args, words] of cases) {
    const { code, stdout, stderr } = pinhole(['explain', ...args]);
    expect([args, code, stdout]).toEqual([args, 2, '']);
    expect(stderr).toContain(words);
  }
}, 60_000);
