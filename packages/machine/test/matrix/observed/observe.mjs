#!/usr/bin/env node
// Runs cells of `pinhole matrix` for real: an unmodified Debian kernel on QEMU under TCG, once for each kernel
// and machine, with a disk for each flag and ring. Writes what was seen into observed.jsonl beside this file.
// usage: KERNELS=DIR [KEEP=DIR] node observe.mjs [PART OF A BOOT'S NAME]...
//   KERNELS: folders made by `dpkg -x` of Debian's packages linux-image-VERSION-{amd64,arm64,s390x,powerpc64le}
//   (found by their boot/vmlinu*-VERSION-FLAVOUR), busybox-{amd64,arm64,s390x,ppc64el} of busybox-static, and
//   coreutils-{the same} of both coreutils and libc6. KEEP: where the files of each boot are kept.
//   Needs qemu-system-{x86_64,aarch64,ppc64,s390x}, xz, and a built @pinhole/machine. A boot takes a minute or so.
import { execFileSync, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { encodeCells, findNode, parseFdt, writeFdt } from '@pinhole/fdt';
import * as model from '@pinhole/machine';
import { initramfs } from './initramfs.mjs';
import { diskOptions, KERNELS, QEMU_EVENTS } from './machines.mjs';
import { boots, planOf } from './plan.mjs';
import { readBoot } from './read-run.mjs';

const here = (name) => new URL(name, import.meta.url);
const FILE = here('observed.jsonl');
const TIMEOUT_MS = 900_000;
const MODULES = [
  ...['virtio/virtio', 'virtio/virtio_ring', 'virtio/virtio_pci_modern_dev'],
  ...['virtio/virtio_pci_legacy_dev', 'virtio/virtio_pci'],
];

function run({ name, platform, machine, cells }, kernel) {
  const dir = mkdtempSync(join(tmpdir(), 'pinhole-observe-'));
  const write = (file, content) => writeFileSync(join(dir, file), content);
  const read = (file) => readFileSync(join(dir, file));
  try {
    const plan = planOf(model.scenarioOfCell(cells[0].id).workload);
    write('vmlinuz', readFileSync(kernel.image));
    write('initrd', initramfs(filesOf(kernel, machine, plan)));
    write('events', QEMU_EVENTS.map((event) => `${event}\n`).join(''));
    for (const at of cells.keys()) write(`disk${at}.img`, plan.before);
    const [qemu, ...command] = commandOf(platform, machine, cells);
    if (machine.hasDmaRanges) {
      const [option, value] = machine.qemu.slice(1);
      execFileSync(qemu, [option, `${value},dumpdtb=virt.dtb`, ...command.slice(2)], { cwd: dir });
      write('machine.dtb', withDmaRanges(read('virt.dtb'), model.scenarioOfCell(cells[0].id)));
      command.push('-dtb', 'machine.dtb');
    }
    const options = { cwd: dir, input: '', timeout: TIMEOUT_MS, maxBuffer: 2 ** 28 };
    const { stdout, stderr } = spawnSync(qemu, command, options);
    process.stderr.write(
      stderr.toString().replace(/^.*(trace event|TCG doesn't support).*\n/gm, ''),
    );
    write('console', stdout);
    if (process.env.KEEP)
      cpSync(dir, join(process.env.KEEP, name.replace('/', '_')), { recursive: true });
    const seen = readBoot({
      console: stdout.toString('latin1'),
      log: read('qemu.trace').toString('latin1'),
      images: cells.map((_, at) => read(`disk${at}.img`)),
      plan,
      cells,
    });
    const version = execFileSync(qemu, ['--version']).toString();
    return {
      boot: name,
      qemu: /version (.*)/.exec(version)[1],
      command: [qemu, ...command].map(quoted).join(' '),
      ...seen,
    };
  } finally {
    rmSync(dir, { recursive: true });
  }
}

function commandOf(platform, machine, cells) {
  const append = ['panic=-1 quiet no_hash_pointers', `console=${machine.console}`, machine.append];
  return [
    ...machine.qemu,
    ...['-m', machine.memory ?? '2G', '-smp', '1', '-nodefaults', '-display', 'none'],
    ...['-kernel', 'vmlinuz', '-initrd', 'initrd', '-append', append.filter(Boolean).join(' ')],
    ...cells.flatMap((cell, at) => diskOptions(cell, at, platform)),
    ...['-trace', 'events=events,file=qemu.trace', '-no-reboot'],
  ];
}

// The bus of PCI devices, as the cell's machine has it. [Devicetree Specification v0.4 2.3.9 "dma-ranges"]
function withDmaRanges(blob, { machine: { dmaRanges } }) {
  const tree = parseFdt(blob);
  const halves = (value) => [Number(BigInt(value) >> 32n), Number(BigInt(value) & 0xffff_ffffn)];
  // Memory with 64-bit addresses on the bus; there, here, how much.
  const cells = dmaRanges.flatMap(({ cpu, bus, size }) => [
    ...[0x0300_0000, ...halves(bus), ...halves(cpu), ...halves(size)],
  ]);
  findNode(tree.root, '/pcie').properties.push({ name: 'dma-ranges', value: encodeCells(cells) });
  return writeFdt(tree);
}

function quoted(word) {
  return /^[\w.,=:/*-]+$/.test(word) ? word : `'${word}'`;
}

function filesOf(kernel, machine, plan) {
  const modules = [...MODULES, ...(machine.modules ?? [])].flatMap((path) =>
    moduleOf(kernel, path),
  );
  const order = modules.map(([name]) => name).join(' ');
  return [
    ...['bin', 'mod', 'data', 'dd'].map((path) => [path, undefined, 0o755]),
    ['init', readFileSync(here('guest-init')), 0o755],
    ['bin/busybox', readFileSync(kernel.busybox), 0o755],
    ...kernel.dd.map(([name, path]) => [`dd/${name}`, readFileSync(path), 0o755]),
    ['workload', Buffer.from(plan.script), 0o644],
    ['mod/order', Buffer.from(`${order}\n`), 0o644],
    ...[...modules, ...moduleOf(kernel, 'block/virtio_blk')].map(([name, content]) => [
      ...[`mod/${name}.ko`, content, 0o644],
    ]),
    ...plan.writes.map(([step, data]) => [`data/${step}`, data, 0o644]),
  ];
}

// None where the kernel has it built in.
function moduleOf({ modules }, path) {
  const file = ['.ko', '.ko.xz'].map((end) => join(modules, `${path}${end}`)).find(existsSync);
  if (file === undefined) return [];
  return [
    [basename(path), file.endsWith('.xz') ? execFileSync('xz', ['-dc', file]) : readFileSync(file)],
  ];
}

function findKernel(root, policy, debian) {
  const pattern = new RegExp(
    `^vmlinu[xz]-(${KERNELS[policy].replace('.', '\\.')}\\.\\S*-${debian})$`,
  );
  const port = debian === 'powerpc64le' ? 'ppc64el' : debian;
  for (const folder of readdirSync(root)) {
    const boot = join(root, folder, 'boot');
    const name = existsSync(boot) && readdirSync(boot).find((file) => pattern.test(file));
    if (!name) continue;
    const modules = ['lib', 'usr/lib']
      .map((lib) => join(root, folder, lib, 'modules', pattern.exec(name)[1], 'kernel/drivers'))
      .find(existsSync);
    const busybox = join(root, `busybox-${port}`, 'bin/busybox');
    return { image: join(boot, name), modules, busybox, dd: ddOf(join(root, `coreutils-${port}`)) };
  }
  return undefined;
}

// dd, the C library, and what loads it.
function ddOf(folder) {
  const name = readdirSync(join(folder, 'lib')).find((each) => each.endsWith('-linux-gnu'));
  const lib = join(folder, 'lib', name);
  const loader = readdirSync(lib).find((each) => /^ld(-linux[\w-]*|64)\.so/.test(each));
  return [
    ['dd', join(folder, 'bin/dd')],
    ['libc.so.6', join(lib, 'libc.so.6')],
    ['ld.so', join(lib, loader)],
  ];
}

// A boot a line.
function store(seen) {
  const known = existsSync(FILE) ? readFileSync(FILE, 'utf8').trimEnd().split('\n') : [];
  const lines = known.filter((line) => JSON.parse(line).boot !== seen.boot);
  writeFileSync(FILE, `${[...lines, JSON.stringify(seen)].sort().join('\n')}\n`);
}

const root = process.env.KERNELS;
if (root === undefined) throw new Error('expected KERNELS, the folder of unpacked kernels');
const wanted = process.argv.slice(2);
for (const boot of boots(model)) {
  if (wanted.length > 0 && !wanted.some((text) => boot.name.includes(text))) continue;
  const kernel = findKernel(root, boot.policy, boot.machine.debian);
  if (kernel === undefined) {
    process.stderr.write(`${boot.name}: no kernel\n`);
    continue;
  }
  const start = Date.now();
  try {
    store(run(boot, kernel));
    process.stderr.write(`${boot.name}: ${Math.round((Date.now() - start) / 1000)} s\n`);
  } catch (error) {
    process.stderr.write(`${boot.name}: ${error.message}\n`);
    process.exitCode = 1;
  }
}
