/** The same machine twice: a real QEMU with the model's data plane behind it, and the model alone. */
import { spawn } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FdtNode } from '@pinhole/fdt';
import { type Hypercalls, SpaprMachine } from '@pinhole/hcall';
import { createGuestMemory, createSystemMemorySpace, type GuestMemory } from '@pinhole/memory';
import {
  createMemoryBackend,
  phbIommu,
  type VhostDevice,
  type VhostIotlbMessage,
  VirtioBlk,
} from '@pinhole/qemu';
import { createVirtioPci, type PciFunction } from '@pinhole/virtio';
import { diskContents } from '../../../../src/conform-virtio/contents.js';
import type { VirtioShape } from '../../../../src/conform-virtio/shapes.js';
import { LiveVirtioSide, MEMORY_SIZE } from '../../../../src/conform-virtio/sides.js';
import { LiveQemu, type VirtioSide } from '../../../../src/index.js';
import { waitUntil } from '../../../../src/wait.js';
import { QEMU } from '../live.js';
// @ts-expect-error a script without types
import { describe as describeMessage } from './protocol.mjs';

/** A machine with one disk that vhost serves. */
export interface VhostSetup {
  readonly iommuPlatform: boolean;
  /** Dynamic windows, which the bridge has unless told otherwise, and their page sizes as a mask. */
  readonly ddw?: boolean;
  readonly pageSizes?: number;
  readonly queues?: number;
  readonly packed?: boolean;
}

/** The one disk. */
export const shapeOf = ({ iommuPlatform, packed = false }: VhostSetup): VirtioShape => ({
  type: 'blk',
  slot: 1,
  bridge: 0,
  iommuPlatform,
  packed,
  indirect: true,
  eventIdx: true,
});

/** A machine that writes down what the halves of vhost say to each other. */
export interface VhostSide extends VirtioSide {
  /** One line for each IOTLB message so far. */
  messages(): string[];
  /** The features that the data plane was told at the last start. */
  backendFeatures(): bigint;
  /** Returns when the data plane has nothing left to do. */
  settle(): void;
}

const QUEUE_SIZE = 128;

/** The model with both of its halves. */
export function createModelVhost(setup: VhostSetup): VhostSide {
  return new ModelVhost(setup);
}

class ModelVhost implements VhostSide {
  readonly memory: GuestMemory;
  readonly hypercalls: Hypercalls;
  readonly #machine: SpaprMachine;
  readonly #disk = diskContents();
  readonly #function: PciFunction;
  readonly #messages: string[] = [];
  readonly #vhost: VhostDevice;

  constructor({ iommuPlatform, ddw = true, pageSizes, queues = 1, packed = false }: VhostSetup) {
    const memory = createGuestMemory({ regions: [{ base: 0, size: MEMORY_SIZE }] });
    this.memory = memory;
    const mask = pageSizes === undefined ? {} : { pageSizeMask: BigInt(pageSizes) };
    this.#machine = new SpaprMachine({ memory, phbs: [{ ddw, ...mask }] });
    this.hypercalls = this.#machine.hypercalls;
    const [phb] = this.#machine.iommu.phbs;
    if (phb === undefined) throw new Error('no host bridge');
    const blk = new VirtioBlk({
      backend: createMemoryBackend(this.#disk),
      memory,
      systemMemory: createSystemMemorySpace(memory),
      iommuPlatform,
      packed,
      queueSize: QUEUE_SIZE,
      numQueues: queues,
      vhost: { iommu: phbIommu(phb) },
    });
    this.#vhost = blk.vhost as VhostDevice;
    this.#listen(this.#vhost);
    this.#function = createVirtioPci({
      device: blk.core,
      mode: 'modern',
      name: '0000:00:01.0',
      isBigEndianGuest: true,
    });
  }

  deviceTree(): FdtNode {
    return this.#machine.deviceTree();
  }

  pciFunction(): PciFunction {
    return this.#function;
  }

  disk(): Uint8Array {
    return this.#disk;
  }

  messages(): string[] {
    return [...this.#messages];
  }

  backendFeatures(): bigint {
    return this.#vhost.backendFeatures;
  }

  settle(): void {}

  wait(isDone: () => boolean): boolean {
    return isDone();
  }

  reset(): void {
    this.#machine.reset();
  }

  close(): void {}

  // Between the halves, in both directions.
  #listen(vhost: VhostDevice): void {
    const note = (message: VhostIotlbMessage): void => {
      this.#messages.push(describeMessage(message));
    };
    const { backend } = vhost;
    const ask = vhost.handleIotlbMessage.bind(vhost);
    vhost.handleIotlbMessage = (message) => {
      note(message);
      return ask(message);
    };
    if (backend === undefined) return;
    const tell = backend.receive.bind(backend);
    backend.receive = (message) => {
      note(message);
      return tell(message);
    };
  }
}

/** A bound for what takes milliseconds. */
const BACKEND_MS = 20_000;

/** The process of the data plane. Its output goes to files, which are read without an event loop. */
export class Backend {
  readonly socket: string;
  readonly #child: ReturnType<typeof spawn>;
  readonly #out: string;
  readonly #err: string;
  #syncs = 0;

  constructor(folder: string, disk: string, queues: number) {
    this.socket = join(folder, 'vhost.sock');
    this.#out = join(folder, 'messages');
    this.#err = join(folder, 'errors');
    const files = [openSync(this.#out, 'a'), openSync(this.#err, 'a')];
    const script = new URL('backend.mjs', import.meta.url).pathname;
    this.#child = spawn(process.execPath, [script, this.socket, disk, String(queues)], {
      stdio: ['pipe', ...files],
    });
    for (const fd of files) closeSync(fd);
    this.#child.on('error', () => {});
    this.#child.stdin?.on('error', () => {});
    this.#child.unref();
    this.waitForLine('# ready');
  }

  lines(): string[] {
    return readFileSync(this.#out, 'utf8').split('\n').slice(0, -1);
  }

  messages(): string[] {
    return this.lines().filter((line) => !line.startsWith('#'));
  }

  /** What the last start was told; vhost-user's own bit left out: there are protocol features. */
  features(): bigint {
    const lines = this.lines().filter((line) => line.startsWith('# features'));
    return BigInt(lines.at(-1)?.split(' ')[2] ?? 0) & ~(1n << 30n);
  }

  settle(): void {
    this.#syncs += 1;
    this.#child.stdin?.write(`sync ${this.#syncs}\n`);
    this.waitForLine(`# sync ${this.#syncs}`);
  }

  waitForLine(line: string): void {
    const isThere = (): boolean => this.lines().includes(line);
    const check = (): void => {
      if (statSync(this.#err).size === 0) return;
      throw new Error(`the data plane failed:\n${readFileSync(this.#err, 'utf8')}`);
    };
    if (!waitUntil(isThere, BACKEND_MS, check))
      throw new Error(`the data plane never said: ${line}`);
  }

  /** Waits for it to end by itself. */
  close(): void {
    const ended = (): boolean => this.lines().some((line) => line.startsWith('# end'));
    const isDone = waitUntil(ended, BACKEND_MS);
    this.#child.stdin?.destroy();
    if (isDone) return;
    this.#child.kill('SIGKILL');
    throw new Error('the data plane did not end with QEMU');
  }
}

class LiveVhost extends LiveVirtioSide implements VhostSide {
  readonly qemu: LiveQemu;
  readonly backend: Backend;

  constructor(qemu: LiveQemu, backend: Backend, disk: string, onClose: () => void) {
    super(qemu, () => readFileSync(disk), onClose);
    this.qemu = qemu;
    this.backend = backend;
  }

  messages(): string[] {
    return this.backend.messages();
  }

  backendFeatures(): bigint {
    return this.backend.features();
  }

  settle(): void {
    this.backend.settle();
  }

  override close(): void {
    try {
      this.qemu.close();
      this.backend.close();
    } finally {
      super.close();
    }
  }
}

/** A real QEMU whose disk the model's data plane serves. */
export function startLiveVhost(setup: VhostSetup): LiveVhost {
  const { iommuPlatform, ddw = true, pageSizes, queues = 1, packed = false } = setup;
  const folder = mkdtempSync(join(tmpdir(), 'pinhole-vhost-'));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  const onOff = (is: boolean): string => (is ? 'on' : 'off');
  try {
    const disk = join(folder, 'disk.img');
    writeFileSync(disk, diskContents());
    const backend = new Backend(folder, disk, queues);
    const bridge = [`ddw=${onOff(ddw)}`, ...(pageSizes === undefined ? [] : [`pgsz=${pageSizes}`])];
    const qemu = LiveQemu.start({
      qemu: QEMU,
      memory: MEMORY_SIZE,
      args: [
        ...bridge.flatMap((property) => ['-global', `spapr-pci-host-bridge.${property}`]),
        ...['-chardev', `socket,id=vu0,path=${backend.socket}`],
        '-device',
        `vhost-user-blk-pci,chardev=vu0,num-queues=${queues},queue-size=${QUEUE_SIZE},disable-legacy=on,addr=1,iommu_platform=${onOff(iommuPlatform)},packed=${onOff(packed)}`,
      ],
    });
    return new LiveVhost(qemu, backend, disk, remove);
  } catch (error) {
    remove();
    throw error;
  }
}
