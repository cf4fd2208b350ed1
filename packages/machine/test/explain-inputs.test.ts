import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { deviceTrees, findRecording } from '@pinhole/recordings';
import { readConsole } from '@pinhole/trace';
import { expect, test } from 'vitest';
import { type ExplainInput, explain, parseScenario } from '../src/index.js';

const DEVICE = '-device virtio-blk-pci,drive=d0,disable-legacy=on,iommu_platform=on';

function tree(name: string): Uint8Array {
  const found = deviceTrees.find((one) => one.name.includes(name));
  if (found === undefined) throw new Error(`no tree ${name}`);
  const bytes = readFileSync(found.url);
  return found.isGzipped ? gunzipSync(bytes) : bytes;
}

const codeOf = (input: ExplainInput): unknown => {
  try {
    explain(input);
  } catch (error) {
    return (error as { code?: unknown }).code;
  }
  return undefined;
};

test('a device tree does not say whether virtio bypasses: both answers', () => {
  const { devices, facts, notes } = explain({ dtb: tree('pseries-ddw') });
  expect(devices).toHaveLength(1);
  expect(devices[0]?.answers.map(({ assuming, path }) => [assuming, path.id])).toEqual([
    ['iommu_platform=off', 'physical'],
    ['iommu_platform=on', 'second-window'],
  ]);
  expect(facts).toContainEqual({
    what: 'highest address of memory',
    value: '0x100000000',
    from: '/rtas ibm,lrdr-capacity',
  });
  expect(notes.join()).toContain('does not say whether');
});

test('a tree without ddw and without maxmem; a transitional device has one answer', () => {
  const { devices, findings } = explain({ dtb: tree('pseries-noddw') });
  expect(devices.map(({ kind }) => kind)).toEqual(['disk', 'network']);
  expect(devices[0]?.answers.map(({ path }) => path.id)).toEqual(['physical', 'default-window']);
  expect(devices[1]?.answers.map(({ path }) => path.id)).toEqual(['physical']);
  expect(findings.map(({ id }) => id)).toContain('lrdr-zero');
});

test('an Arm tree: the SMMU is for PCI, not for virtio-mmio', () => {
  const { devices, platform, facts } = explain({ dtb: tree('virt') });
  expect(platform).toBe('arm64');
  expect(facts.map(({ value }) => value)).toContain('arm,smmu-v3');
  expect(devices.map(({ answers }) => answers.map(({ path }) => path.id))).toEqual([
    ['physical', 'viommu'],
    ['physical', 'no-iommu'],
  ]);
});

test('a log of a guest of Xen, and logs with the groups of an IOMMU', () => {
  const log = (...lines: string[]) => {
    const { platform, devices } = explain({ console: readConsole(`${lines.join('\n')}\n`) });
    const answers = devices[0]?.answers.map(({ assuming, path }) => [assuming, path.id]);
    return { platform, answers };
  };
  const device = 'pci 0000:00:04.0: [1af4:1042] type 00 class 0x010000';
  const group = 'virtio-pci 0000:00:04.0: Adding to iommu group 3';
  const open = ['iommu_platform=off', 'iommu_platform=on'];
  expect(log('Hypervisor detected: Xen HVM', device)).toEqual({
    platform: 'xen',
    answers: [
      [`${open[0]}, grants=off`, 'no-iommu'],
      [`${open[0]}, grants=on`, 'refused'],
      [`${open[1]}, grants=off`, 'no-iommu'],
      [`${open[1]}, grants=on`, 'grants'],
    ],
  });
  const required = 'virtio_blk virtio0: device must provide VIRTIO_F_ACCESS_PLATFORM';
  expect(log('Xen 4.17 support found', required).answers).toEqual([[null, 'refused']]);
  const kernel = 'Linux version 6.12.9-amd64 (b@h) (gcc) #1 SMP';
  const intel = 'Kernel command line: root=/dev/vda intel_iommu=on';
  expect(log(kernel, intel, device, group).answers?.[1]).toEqual([open[1], 'viommu']);
  // Whose groups these are is not known.
  expect(log(kernel, device, group).answers).toEqual([
    [open[0], 'physical'],
    [open[1], 'unknown'],
  ]);
});

test('a tree and a command line are held against each other', () => {
  const dtb = tree('pseries-noddw');
  const wrong = explain({
    dtb,
    qemu: `qemu-system-ppc64 -M pseries -m 8G -global spapr-pci-host-bridge.ddw=on ${DEVICE}`,
  });
  expect(wrong.contradictions.map(({ what }) => what)).toEqual([
    'memory',
    'virtio devices',
    'second window',
  ]);
  const x86 = explain({ dtb, qemu: 'qemu-system-x86_64 -device virtio-net-pci' });
  expect(x86.contradictions.map(({ what }) => what)).toEqual(['platform']);
});

test('a console that proves something else is a contradiction', () => {
  const url = findRecording('linux6.12-ddw-lost').files.console;
  const console = readConsole(gunzipSync(readFileSync(url)).toString('utf8'));
  const line = `qemu-system-ppc64 -M pseries -m 2G,slots=2,maxmem=4G ${DEVICE}`;
  expect(explain({ console, qemu: line }).contradictions.map(({ what }) => what)).toEqual([
    'path of virtio-blk-pci d0',
  ]);
  // It also settles what a tree leaves open.
  const { devices } = explain({ console, dtb: tree('pseries-noddw') });
  expect(devices[0]?.answers.map(({ assuming, path }) => [assuming, path.id])).toEqual([
    [null, 'default-window'],
  ]);
});

test('a scenario is explained; --set changes it', () => {
  const text =
    'machine: { arch: pseries, memory: 1GiB }\ndevices: [{ type: virtio-blk, iommuPlatform: true }]\nworkload: [{ read: { offset: 0, length: 4KiB, block: 4KiB } }]';
  const scenario = parseScenario(text);
  const pathWith = (set: string[]): string | undefined =>
    explain({ scenario, set }).devices[0]?.answers[0]?.path.id;
  expect(pathWith([])).toBe('default-window');
  expect(pathWith(['machine.qemu="10.0"'])).toBe('second-window');
});

test('a secure guest: bounced behind the second window, or unreachable, and the fix', () => {
  const pef =
    'qemu-system-ppc64 -M pseries,confidential-guest-support=pef0 -object pef-guest,id=pef0';
  const good = explain({ qemu: `${pef} -m 1G,maxmem=2G -device virtio-blk-pci,drive=d0` });
  expect(good.devices[0]?.answers[0]?.path.id).toBe('second-window-bounced');
  expect(good.devices[0]?.answers[0]?.cost?.rows[0]?.bytesCopied).toBeGreaterThan(8192);
  const bad = explain({
    qemu: `${pef} -m 1G,maxmem=2G -device virtio-blk-pci,drive=d0,iommu_platform=off`,
  }).devices[0]?.answers[0];
  expect(bad?.path.id).toBe('unreachable');
  expect(bad?.fixes[0]?.change).toContain('iommu_platform=on');
});

test.each<[string, ExplainInput, string]>([
  ['nothing', {}, 'E_NOTHING_GIVEN'],
  ['an empty command line', { qemu: '' }, 'E_COMMAND_LINE'],
  ['a truncated tree', { dtb: tree('pseries-ddw').subarray(0, 3000) }, 'E_DEVICE_TREE'],
  ['noise for a tree', { dtb: new Uint8Array(5000).fill(0xa5) }, 'E_DEVICE_TREE'],
  ['an empty tree', { dtb: new Uint8Array() }, 'E_DEVICE_TREE'],
  ['a console without facts', { console: readConsole('\u0001\u0002 noise\n') }, 'E_CONSOLE'],
  [
    'a kernel that is none',
    { qemu: `qemu-system-ppc64 ${DEVICE}`, kernels: ['linux-1'] },
    'E_KERNEL',
  ],
  [
    '--set that is none',
    { qemu: `qemu-system-ppc64 ${DEVICE}`, set: ['machine.nosuch=1'] },
    'E_SCENARIO',
  ],
])('%s is an error that says so', (_what, input, code) => {
  expect(codeOf(input)).toBe(code);
});
