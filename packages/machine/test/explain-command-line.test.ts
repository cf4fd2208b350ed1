import { expect, test } from 'vitest';
import { PATHS } from '../src/explain/explanation.js';
import { parseQemuOpts } from '../src/explain/qemu-opts.js';
import { splitShellWords } from '../src/explain/shell-words.js';
import { ExplainError, type Explanation, explain } from '../src/index.js';

const words = (text: string): string[] => splitShellWords(text).words.map((word) => word.text);

const answerOf = (qemu: string, kernel = 'linux-6.12') => {
  const answer = explain({ qemu, kernels: [kernel] }).devices[0]?.answers[0];
  if (answer === undefined) throw new Error('no device');
  return answer;
};

const errorOf = (qemu: string): ExplainError => {
  try {
    explain({ qemu });
  } catch (error) {
    if (error instanceof ExplainError) return error;
  }
  throw new Error('expected an ExplainError');
};

const strange = (explanation: Explanation, effect: string): string[] =>
  explanation.notUnderstood.filter((word) => word.effect === effect).map(({ text }) => text);

const PSERIES = 'qemu-system-ppc64 -M pseries -m 2G,slots=2,maxmem=4G';
const MODERN = '-device virtio-blk-pci,drive=d0,disable-legacy=on,iommu_platform=on';

test('words are split as a shell does', () => {
  expect(words(`a 'b c' "d \\"e\\" $f" g\\ h i'j'"k" \\\n l # not this`)).toEqual([
    'a',
    'b c',
    'd "e" $f',
    'g h',
    'ijk',
    'l',
  ]);
  expect(words(`'' ""`)).toEqual(['', '']);
  expect(words('a > out 2>&1 b; c')).toEqual(['a', 'b']);
});

test.each([
  ['qemu-system-ppc64 -append "console=hvc0', 1, 27],
  ["qemu-system-ppc64 \\\n  -append 'x", 2, 11],
  ["a'", 1, 2],
])('a quote without its end is named with its place: %s', (text, line, column) => {
  const { message, code, details } = errorOf(text);
  expect(code).toBe('E_COMMAND_LINE');
  expect(message).toContain(`line ${line}, column ${column}`);
  expect(details).toMatchObject({ line, column });
});

test("options are read as QEMU's", () => {
  const pairs = (text: string, key?: string): [string, string][] =>
    parseQemuOpts(text, key).map((opt) => [opt.key, opt.value]);
  expect(pairs('virtio-blk-pci,drive=a,,b,iommu_platform,nodisable-modern', 'driver')).toEqual([
    ['driver', 'virtio-blk-pci'],
    ['drive', 'a,b'],
    ['iommu_platform', 'on'],
    ['disable-modern', 'off'],
  ]);
  expect(pairs('driver=x,bus=y', 'driver')).toEqual([
    ['driver', 'x'],
    ['bus', 'y'],
  ]);
  expect(pairs('{"driver":"x","iommu_platform":true,"a":{"b":1}}', 'driver')).toEqual([
    ['driver', 'x'],
    ['iommu_platform', 'on'],
    ['a.b', '1'],
  ]);
  expect(() => parseQemuOpts('{"driver":')).toThrow(ExplainError);
});

test.each([
  ['-m 2G', '2 GiB'],
  ['-m 2048', '2 GiB'],
  ['-m size=2048', '2 GiB'],
  ['-m 1.5G', '1.5 GiB'],
  ['-m 512 -m size=1G', '1 GiB'],
  ['', '512 MiB'],
])('memory: %s', (option, memory) => {
  const { facts } = explain({ qemu: `qemu-system-ppc64 -M pseries ${option} ${MODERN}` });
  expect(facts.find(({ what }) => what === 'memory')?.value).toBe(memory);
});

// The right column is what qemu-system-ppc64 7.2 says.
test.each([
  [
    '-M pseries -device virtio-rng-pci,iommu_platform=on',
    'VIRTIO_F_IOMMU_PLATFORM was supported by neither legacy nor transitional device',
  ],
  [
    '-M pseries -device virtio-rng-pci-transitional,iommu_platform=on',
    'VIRTIO_F_IOMMU_PLATFORM was supported by neither legacy nor transitional device',
  ],
  [
    '-M pseries -device \'{"driver":"virtio-rng-pci","iommu_platform":true}\'',
    'VIRTIO_F_IOMMU_PLATFORM was supported by neither legacy nor transitional device',
  ],
  [
    '-M pseries -global virtio-device.iommu_platform=on -device virtio-rng-pci',
    'VIRTIO_F_IOMMU_PLATFORM was supported by neither legacy nor transitional device',
  ],
  [
    '-M pseries -device pci-bridge,id=b1,chassis_nr=1 -device virtio-rng-pci,bus=b1,iommu_platform=on',
    'VIRTIO_F_IOMMU_PLATFORM was supported by neither legacy nor transitional device',
  ],
  [
    '-M pseries-2.6 -device virtio-rng-pci,iommu_platform=on',
    'VIRTIO_F_IOMMU_PLATFORM was supported by neither legacy nor transitional device',
  ],
  [
    '-M pseries-2.6 -device virtio-rng-pci,iommu_platform=on,disable-legacy=on',
    'device cannot work as neither modern nor legacy mode is enabled',
  ],
  [
    '-M pseries -device virtio-rng-pci,disable-legacy=on,disable-modern=on',
    'device cannot work as neither modern nor legacy mode is enabled',
  ],
  ['-M pseries -device virtio-rng-pci,bus=nobus', "Bus 'nobus' not found"],
  [
    '-M pseries -device virtio-rng-pci,iommu_platform=maybe',
    "Parameter 'iommu_platform' expects 'on' or 'off'",
  ],
  ['-M pseries -m 300 -device virtio-rng-pci', 'Memory size 0x12c00000 is not aligned to 256 MiB'],
  [
    '-M pseries -m 2G,maxmem=1G -device virtio-rng-pci',
    'maximum memory size (0x40000000) must be at least the initial memory size (0x80000000)',
  ],
  [
    '-M pseries -device spapr-pci-host-bridge,id=x -device virtio-rng-pci',
    '"index" for PAPR PHB is mandatory',
  ],
])('QEMU does not start with %s', (line, message) => {
  const { path, steps } = answerOf(`qemu-system-ppc64 ${line}`);
  expect(path.id).toBe('qemu-refuses');
  expect(steps.map(({ text }) => text).join('\n')).toContain(message);
});

test.each([
  ['-M pseries -device virtio-rng-pci', 'physical'],
  ['-M pseries -device virtio-rng-pci,noiommu_platform', 'physical'],
  [
    '-M pseries -m 2G,maxmem=4G -global virtio-pci.disable-legacy=on -device virtio-rng-pci,iommu_platform=on',
    'second-window',
  ],
  [
    '-M pseries -m 2G,maxmem=4G -global driver=virtio-pci,property=disable-legacy,value=on -device virtio-rng-pci,iommu_platform=on',
    'second-window',
  ],
  [
    '-M pseries -m 2G,maxmem=4G -device virtio-rng-pci-non-transitional,iommu_platform=yes',
    'second-window',
  ],
  ['-M pseries -m 2G,maxmem=4G -device virtio-gpu-pci,iommu_platform=on', 'second-window'],
  [
    '--M pseries --m 2G,maxmem=4G -global spapr-pci-host-bridge.ddw=off -device virtio-rng-pci-non-transitional,iommu_platform=on',
    'default-window',
  ],
  [
    '-M pseries -m 2G,maxmem=4G -device spapr-pci-host-bridge,index=1,id=p1,ddw=off -device virtio-rng-pci,bus=p1.0,iommu_platform=on,disable-legacy=on',
    'default-window',
  ],
  [
    '-M pseries -m 2G,maxmem=4G -device spapr-pci-host-bridge,index=1,ddw=off -device virtio-rng-pci,bus=pci.1,iommu_platform=on,disable-legacy=on',
    'default-window',
  ],
  [
    '-M pseries-2.7 -m 2G,maxmem=4G -device virtio-rng-pci,iommu_platform=on,disable-legacy=on',
    'second-window',
  ],
])('QEMU starts with %s, and the path is %s', (line, path) => {
  expect(answerOf(`qemu-system-ppc64 ${line}`).path.id).toBe(path);
});

test.each([
  [
    '-M q35 -device pcie-root-port,id=rp,chassis=1 -device virtio-rng-pci,bus=rp,iommu_platform=on',
    'no-iommu',
  ],
  ['-M q35 -device virtio-rng-pci,iommu_platform=on', 'qemu-refuses'],
  [
    '-M q35 -device intel-iommu -device virtio-rng-pci,iommu_platform=on,disable-legacy=on',
    'viommu',
  ],
  [
    '-M q35,default_bus_bypass_iommu=on -device intel-iommu -device virtio-rng-pci,iommu_platform=on,disable-legacy=on',
    'no-iommu',
  ],
  [
    '-M q35 -device intel-iommu -append "iommu=pt" -device virtio-rng-pci,iommu_platform=on,disable-legacy=on',
    'no-iommu',
  ],
  ['-M q35 -device intel-iommu -device virtio-rng-pci', 'physical'],
  [
    '-M q35,confidential-guest-support=s0 -object sev-snp-guest,id=s0,cbitpos=51,reduced-phys-bits=1 -device virtio-net-pci',
    'bounced',
  ],
  [
    '-M q35,confidential-guest-support=s0 -object sev-guest,id=s0 -device virtio-net-pci,iommu_platform=off',
    'refused',
  ],
  [
    '-M q35 -append swiotlb=force -device virtio-blk-pci,iommu_platform=on,disable-legacy=on',
    'bounced',
  ],
])('x86: %s: %s', (line, path) => {
  expect(answerOf(`qemu-system-x86_64 ${line}`).path.id).toBe(path);
});

test('other platforms', () => {
  const arm = 'qemu-system-aarch64 -M virt';
  expect(
    answerOf(`${arm},iommu=smmuv3 -device virtio-blk-pci,disable-legacy=on,iommu_platform=on`).path
      .id,
  ).toBe('viommu');
  expect(answerOf(`${arm} -device virtio-blk-device,iommu_platform=on`).path.id).toBe('no-iommu');
  const s390 = 'qemu-system-s390x -nodefaults';
  expect(answerOf(`${s390} -device virtio-blk-ccw,iommu_platform=on`).path.id).toBe('no-iommu');
  expect(
    answerOf(
      `${s390} -M s390-ccw-virtio,confidential-guest-support=pv0 -object s390-pv-guest,id=pv0 -device virtio-blk-ccw`,
    ).path.id,
  ).toBe('bounced');
});

test.each([
  [
    'qemu-system-x86_64 -M q35 -device amd-iommu -device virtio-blk-pci,disable-legacy=on,iommu_platform=on',
    'the model does not have amd-iommu',
  ],
  [
    'qemu-system-s390x -nodefaults -device virtio-blk-pci,disable-legacy=on,iommu_platform=on',
    "the model does not have s390x's PCI",
  ],
  [
    'qemu-system-ppc64 -M powernv -device virtio-blk-pci,disable-legacy=on,iommu_platform=on',
    'the model does not have powernv machines',
  ],
  [
    'qemu-system-x86_64 -M xenfv,confidential-guest-support=c -object sev-guest,id=c -device virtio-blk-pci',
    'the model does not have sev guests on xen',
  ],
])('what the model does not have is not known, and why: %s', (line, why) => {
  const { path, steps, cost, fixes } = answerOf(line);
  expect(path.id).toBe('unknown');
  expect(steps.at(-1)?.text).toContain(why);
  expect([cost, fixes]).toEqual([null, []]);
});

test('past an IOMMU that the model does not have, the path is known', () => {
  const line = 'qemu-system-x86_64 -M q35 -device amd-iommu -device virtio-blk-pci';
  expect(answerOf(line).path.id).toBe('physical');
});

test('a machine whose memory the model cannot have is counted with other memory, and said to be', () => {
  const notes = (memory: string): string =>
    answerOf(
      `qemu-system-x86_64 -M microvm -m ${memory} -device virtio-blk-device`,
    ).cost?.notes.join('; ') ?? '';
  expect(notes('128M')).toContain('counted with 256 MiB of memory');
  expect(notes('2T')).toContain('counted with 512 GiB of memory');
  const { reach } = answerOf('qemu-system-x86_64 -M q35 -m 2T -device virtio-blk-pci');
  expect(reach).toEqual({ bytes: 2 ** 41, text: 'all 2 TiB' });
  expect(notes('2G')).not.toContain('of memory');
  expect(notes('2G')).toContain('counted on q35 in place of microvm');
  expect(notes('2G')).toContain('in place of virtio-mmio');
});

test.each([
  ['-M xenfv -xen-domid 3 -xen-attach', ['grants=off', 'grants=on'], ['no-iommu', 'grants']],
  ['-M pc,accel=xen', ['grants=off', 'grants=on'], ['no-iommu', 'grants']],
  ['-M q35 -accel xen', ['grants=off', 'grants=on'], ['no-iommu', 'grants']],
  ['-M xenpv', [null], ['grants']],
])('a guest of Xen: %s', (machine, assuming, paths) => {
  const line = `qemu-system-x86_64 ${machine} -m 2G -device virtio-blk-pci,disable-legacy=on`;
  const { devices, notes, notUnderstood } = explain({ qemu: `${line},iommu_platform=on` });
  const answers = devices[0]?.answers ?? [];
  expect(answers.map((answer) => answer.assuming)).toEqual(assuming);
  expect(answers.map(({ path }) => path.id)).toEqual(paths);
  expect(notUnderstood).toEqual([]);
  expect(notes.join().includes('CONFIG_XEN_VIRTIO_FORCE_GRANT')).toBe(paths.length > 1);
  // Without bit 33, grants make the kernel refuse the device; the way out is tried.
  const without = explain({ qemu: line }).devices[0]?.answers.at(-1);
  expect(without?.path.id).toBe('refused');
  expect(without?.fixes[0]?.effect).toContain('grants of Xen');
});

test.each([
  [
    'qemu-system-aarch64 -M virt,iommu=smmuv3 -nodefaults -m 2G -device virtio-blk-pci,disable-legacy=on,iommu_platform=on',
    [
      'iommu.strict=0 on the kernel command line',
      'iommu.passthrough=1 on the kernel command line',
      'iommu_platform=off',
    ],
    ['viommu', 'no-iommu', 'physical'],
  ],
  [
    'qemu-system-x86_64 -M q35,confidential-guest-support=c -object sev-guest,id=c -m 2G -device virtio-blk-pci,iommu_platform=off',
    ['disable-legacy=on,iommu_platform=on'],
    ['bounced'],
  ],
  [
    'qemu-system-s390x -nodefaults -m 2G -M s390-ccw-virtio,confidential-guest-support=c -object s390-pv-guest,id=c -device virtio-blk-ccw,iommu_platform=off',
    ['iommu_platform=on'],
    ['bounced'],
  ],
  [
    'qemu-system-x86_64 -M q35 -m 2G -device virtio-blk-pci,iommu_platform=on',
    [
      'disable-legacy=on',
      'bus=ID of a pcie-root-port (disable-legacy is on there by itself)',
      'iommu_platform=off',
    ],
    ['no-iommu', 'no-iommu', 'physical'],
  ],
])('fixes are tried: %s', (line, changes, paths) => {
  const { fixes } = answerOf(line);
  expect(fixes.map(({ change }) => change)).toEqual(changes);
  expect(fixes.every(({ isVerified }) => isVerified)).toBe(true);
  for (const [at, id] of paths.entries()) {
    expect(fixes[at]?.effect).toContain(PATHS[id as keyof typeof PATHS]);
  }
});

test('what makes a virtio device without -device is found', () => {
  const names = (qemu: string): string[] => explain({ qemu }).devices.map(({ driver }) => driver);
  expect(names(`${PSERIES} -drive if=virtio,file=x`)).toEqual(['virtio-blk']);
  expect(names(`${PSERIES} -nic user,model=virtio-net-pci -vga virtio`)).toEqual([
    'virtio-net-pci',
    'virtio-vga',
  ]);
  expect(names('qemu-system-aarch64 -M virt')).toEqual(['virtio-net']);
  expect(names('qemu-system-aarch64 -M virt -nodefaults')).toEqual([]);
  expect(names('qemu-system-s390x -nodefaults -drive file=x')).toEqual(['virtio-blk']);
});

test('what is not understood is named, with what it can do', () => {
  const explanation = explain({
    qemu: `sudo FOO=1 ${PSERIES} ${MODERN},nosuch=1,addr=3 -bogus value -display none -name x -readconfig f -M cap-htm=off -global e1000.mac=1 stray.img -device e1000`,
  });
  expect(strange(explanation, 'may-matter')).toEqual([
    '-bogus value',
    '-readconfig f',
    'virtio-blk-pci: nosuch=1',
  ]);
  expect(strange(explanation, 'none')).toEqual([
    'stray.img',
    '-M cap-htm=off',
    '-device e1000',
    '-global e1000.mac=1',
  ]);
});

test('kernel parameters that lost their quotes are taken as such', () => {
  const explanation = explain({ qemu: `${PSERIES} ${MODERN} -append console=hvc0 disable_ddw` });
  expect(explanation.devices[0]?.answers[0]?.path.id).toBe('default-window');
  expect(strange(explanation, 'may-matter')).toEqual(['disable_ddw']);
});

test.each([
  ['', 'found nothing'],
  ['   ', 'found nothing'],
  ['ls -l', 'found none of qemu-system-*'],
  ['<domain type="kvm">', 'libvirt XML is not read'],
  ['qemu-system-ppc64 -M pseris', 'found another machine'],
  ['qemu-system-ppc64 -M mac99', 'found another machine'],
  ['qemu-system-aarch64', 'found none'],
  ['qemu-system-ppc64 -M', 'expected a value after -M'],
  ['qemu-system-ppc64 -device {"driver":', 'expected an option in JSON'],
])('a line that is none is refused: %j', (line, message) => {
  expect(errorOf(line).message).toContain(message);
});

test('a machine that the model cannot build is said to be one', () => {
  const { path, steps } = answerOf(`qemu-system-ppc64 -M pseries -m 128T,maxmem=256T ${MODERN}`);
  expect(path.id).toBe('unknown');
  expect(steps.at(-1)?.text).toContain('expected a multiple of 16 MiB from 256 MiB to 64 TiB');
});
