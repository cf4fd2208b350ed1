import { createRng } from '@pinhole/base';
import { type FdtNode, parseFdt } from '@pinhole/fdt';
import {
  createPhysicalDmaOps,
  findKernelProfile,
  GuestPages,
  type KernelProfile,
  PseriesDma,
  readPhbDescription,
  SMP_CACHE_BYTES,
  type VirtioDriverOptions,
} from '@pinhole/guest';
import { H_GET_TCE, H_PUT_TCE, type Hypercalls } from '@pinhole/hcall';
import type { DmaOps, GuestMemory } from '@pinhole/memory';
import { spaprPhbBuid } from '@pinhole/tce';
import { createPciTransport, type PciFunction } from '@pinhole/virtio';
import type { LiveQemu } from '../live-qemu.js';
import { VirtioRig } from './rig.js';
import type { VirtioShape } from './shapes.js';

/** One of the two machines with the devices that are compared. */
export interface VirtioSide {
  readonly memory: GuestMemory;
  readonly hypercalls: Hypercalls;
  /** The root of the device tree. */
  deviceTree(): FdtNode;
  pciFunction(shape: VirtioShape): PciFunction;
  /** What the disk of a device holds now. */
  disk(shape: VirtioShape): Uint8Array;
  /**
   * Lets the device work until `isDone`. False: it does nothing more, or not in `timeoutMs`, which
   * the model does not need.
   */
  wait(isDone: () => boolean, timeoutMs: number): boolean;
  /** Devices and windows as at the start. */
  reset(): void;
  close(): void;
}

/** Guest memory of both sides in bytes, and where the guest of a rig has its own. */
export const MEMORY_SIZE = 0x1000_0000;
const KERNEL = { base: 2 ** 24, size: 7 * 2 ** 24 };
const USER = { base: 2 ** 27, size: 2 ** 26 };
/** How long a driver waits for a sign of life. */
const IDLE_MS = 5_000;
const PAGE = 4096n;
const ALL_FEATURES = 2n ** 64n - 1n;
/** In a TCE: the device may write. [qemu v7.2 include/exec/memory.h IOMMU_WO] */
const TCE_WRITE = 2n;
const KERNEL_RELEASE = 'linux-6.1';

/** The guest of one side, freshly booted: its memory, and DMA on both bridges. */
export class SideGuest {
  readonly side: VirtioSide;
  /** Its memory. */
  readonly pages: GuestPages;
  readonly #kernel: KernelProfile;
  readonly #bridges = new Map<number, PseriesDma>();
  readonly #root: FdtNode;

  constructor(side: VirtioSide, seed: number) {
    this.side = side;
    const kernel = findKernelProfile(KERNEL_RELEASE);
    if (kernel === undefined) throw new Error(`no kernel profile ${KERNEL_RELEASE}`);
    this.#kernel = kernel;
    this.pages = new GuestPages({
      pageSize: kernel.pageSize,
      kernel: KERNEL,
      user: USER,
      rng: createRng(seed),
    });
    // Before memory is written: QEMU leaves the tree in it.
    this.#root = side.deviceTree();
  }

  /**
   * What a driver of `@pinhole/guest` needs to run on this side: the same driver on the model and on
   * a real device. It hears of interrupts by looking: nobody delivers them to our firmware.
   * @throws Error what the kernel would say of a device that it cannot drive.
   */
  driverOptions(shape: VirtioShape): VirtioDriverOptions {
    const made = createPciTransport(this.side.pciFunction(shape));
    if (!made.ok) throw new Error(made.message);
    const { transport } = made;
    return {
      transport,
      memory: this.side.memory,
      pages: this.pages,
      smpCacheBytes: SMP_CACHE_BYTES.ppc64,
      chooseDma: () => this.#dmaOps(shape),
      idle: () => this.side.wait(() => transport.pollInterrupt(), IDLE_MS),
    };
  }

  /** Brings a device up as far as DRIVER_OK. @throws Error what the kernel would say. */
  start(shape: VirtioShape, accept: bigint = ALL_FEATURES): VirtioRig {
    const { memory, hypercalls } = this.side;
    const { pages } = this;
    const liobn = shape.bridge === 0 ? 0x8000_0000n : 0x8000_0100n;
    return new VirtioRig({
      fn: this.side.pciFunction(shape),
      memory,
      pages,
      dma: this.#dmaOps(shape),
      isLegacy: shape.isLegacy === true,
      spoil: ({ hi, lo }, length, how) => {
        const bus = (BigInt(hi) << 32n) | BigInt(lo);
        const last = bus + BigInt(length) - 1n;
        for (let page = bus / PAGE; page <= last / PAGE; page += 1n) {
          const ioba = page * PAGE;
          const [tce = 0n] = hypercalls.call(H_GET_TCE, [liobn, ioba]).out;
          hypercalls.call(H_PUT_TCE, [liobn, ioba, how === 'unmapped' ? 0n : tce & ~TCE_WRITE]);
        }
      },
      accept,
    });
  }

  #dmaOps(shape: VirtioShape): DmaOps {
    const { memory } = this.side;
    if (!shape.iommuPlatform) return createPhysicalDmaOps({ memory, pages: this.pages });
    const slot = this.side.pciFunction(shape).name;
    return this.#bridge(shape.bridge).probe({ slot }).ops;
  }

  #bridge(index: number): PseriesDma {
    const known = this.#bridges.get(index);
    if (known !== undefined) return known;
    const buid = spaprPhbBuid(index);
    const phb = readPhbDescription(this.#root, `/pci@${buid.toString(16)}`);
    if (phb === undefined) throw new Error(`no host bridge ${index} in the device tree`);
    const { memory, hypercalls } = this.side;
    const dma = new PseriesDma({
      kernel: this.#kernel,
      memory,
      pages: this.pages,
      hypercalls,
      phb,
      hasMultiTce: true,
      cpus: 1,
    });
    this.#bridges.set(index, dma);
    return dma;
  }
}

/** A real QEMU. */
export class LiveVirtioSide implements VirtioSide {
  readonly memory: GuestMemory;
  readonly hypercalls: Hypercalls;
  readonly #qemu: LiveQemu;
  readonly #readDisk: (shape: VirtioShape) => Uint8Array;
  readonly #onClose: () => void;

  constructor(
    qemu: LiveQemu,
    readDisk: (shape: VirtioShape) => Uint8Array,
    onClose: () => void = () => {},
  ) {
    this.#qemu = qemu;
    this.#onClose = onClose;
    this.#readDisk = readDisk;
    this.memory = qemu.memory;
    this.hypercalls = qemu;
  }

  deviceTree(): FdtNode {
    return parseFdt(this.#qemu.deviceTree()).root;
  }

  pciFunction({ bridge, slot }: VirtioShape): PciFunction {
    return this.#qemu.pciFunction({ phb: spaprPhbBuid(bridge), device: slot });
  }

  disk(shape: VirtioShape): Uint8Array {
    return this.#readDisk(shape);
  }

  wait(isDone: () => boolean, timeoutMs: number): boolean {
    const end = performance.now() + timeoutMs;
    while (!isDone()) {
      if (performance.now() > end) return false;
    }
    return true;
  }

  reset(): void {
    this.#qemu.reset();
  }

  get version(): string {
    return this.#qemu.version;
  }

  close(): void {
    this.#qemu.close();
    this.#onClose();
  }
}
