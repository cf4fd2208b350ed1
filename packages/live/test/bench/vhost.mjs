// Reads of 64 KiB from a vhost-user disk of a real QEMU, served by the model's data plane, relative to
// the same without an IOMMU. Needs QEMU; the model's driver is the guest. Build first.
//   node packages/live/test/bench/vhost.mjs
//
// Machines one after the other, in several rounds: a noisy computer is noisy for all.
import { spawn } from 'node:child_process';
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseFdt } from '@pinhole/fdt';
import { isBlkSuccess, probeVirtioBlk } from '@pinhole/guest';
import { LiveQemu, SideGuest } from '@pinhole/live';

const ROUNDS = 3;
const WINDOW_MS = 2000;
const WARM_UP = 20;
const LENGTH = 65_536;
const WAYS = [
  ['no IOMMU', { flag: false }],
  ['second window, 16 MiB pages', { flag: true }],
  ['second window, 64 KiB pages', { flag: true, bridge: 'pgsz=0x11000' }],
  ['pinhole only', { flag: true, bridge: 'ddw=off' }],
];
const BACKEND = new URL('../live/support/vhost/backend.mjs', import.meta.url).pathname;

async function waitFor(file, line) {
  const end = performance.now() + 20_000;
  while (!readFileSync(file, 'utf8').includes(line)) {
    if (performance.now() > end) throw new Error(`the data plane never said ${line}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Reads a second. */
async function measure({ flag, bridge }) {
  const folder = mkdtempSync(join(tmpdir(), 'pinhole-vhost-'));
  const [socket, disk, out] = ['vhost.sock', 'disk.img', 'messages'].map((n) => join(folder, n));
  writeFileSync(disk, new Uint8Array(2 ** 20).fill(0x5a));
  const backend = spawn(process.execPath, [BACKEND, socket, disk, '1'], {
    stdio: ['pipe', openSync(out, 'a'), 'inherit'],
  });
  let qemu;
  try {
    await waitFor(out, '# ready');
    qemu = LiveQemu.start({
      args: [
        ...(bridge === undefined ? [] : ['-global', `spapr-pci-host-bridge.${bridge}`]),
        ...['-chardev', `socket,id=vu0,path=${socket}`, '-device'],
        `vhost-user-blk-pci,chardev=vu0,num-queues=1,disable-legacy=on,addr=1,iommu_platform=${flag ? 'on' : 'off'}`,
      ],
    });
    const side = {
      memory: qemu.memory,
      hypercalls: qemu,
      deviceTree: () => parseFdt(qemu.deviceTree()).root,
      pciFunction: () => qemu.pciFunction({ device: 1 }),
      wait: (isDone) => {
        const end = performance.now() + 10_000;
        while (!isDone()) if (performance.now() > end) return false;
        return true;
      },
    };
    const guest = new SideGuest(side, 1);
    const shape = { type: 'blk', slot: 1, bridge: 0, iommuPlatform: flag };
    const probed = probeVirtioBlk(guest.driverOptions(shape));
    if (!probed.ok) throw new Error(probed.message);
    backend.stdin.write('start\n');
    await waitFor(out, '# start,');
    const runs = [{ gpa: 2 ** 27, length: LENGTH }];
    let done = 0;
    let start = 0;
    for (let end = Number.POSITIVE_INFINITY; performance.now() < end; done += 1) {
      if (done === WARM_UP) {
        start = performance.now();
        end = start + WINDOW_MS;
      }
      if (!probed.driver.read(0, runs).every(isBlkSuccess)) throw new Error('a read failed');
    }
    return ((done - WARM_UP) * 1000) / (performance.now() - start);
  } finally {
    qemu?.close();
    backend.stdin.end();
    await new Promise((resolve) => backend.on('close', resolve));
    rmSync(folder, { recursive: true, force: true });
  }
}

const rates = WAYS.map(() => []);
for (let round = 0; round < ROUNDS; round += 1) {
  for (const [i, [, way]] of WAYS.entries()) rates[i].push(await measure(way));
}
const medians = rates.map((list) => list.sort((a, b) => a - b)[list.length >> 1]);
for (const [i, [name]] of WAYS.entries()) {
  const rate = Math.round(medians[i]).toLocaleString('en-US');
  const [low, high] = [rates[i][0], rates[i].at(-1)].map((rate) => Math.round(rate));
  const part = (medians[i] / medians[0]).toFixed(2);
  process.stdout.write(`${name}: ${rate} reads of 64 KiB a second (${low} to ${high}); ${part}\n`);
}
