import type { FdtNode } from '@pinhole/fdt';
import type { Hypercalls } from '@pinhole/hcall';
import { SpaprMachine } from '@pinhole/hcall';
import {
  createGuestMemory,
  createSystemMemorySpace,
  type DmaSpace,
  type GuestMemory,
} from '@pinhole/memory';
import {
  createMemoryBackend,
  type GlobalBounce,
  type NetBackend,
  type RngBackend,
  VirtioBlk,
  VirtioNet,
  VirtioRng,
} from '@pinhole/qemu';
import { createVirtioPci, type PciFunction, type VirtioDeviceCore } from '@pinhole/virtio';
import { LiveError } from '../errors.js';
import { diskContents, entropyContents } from './contents.js';
import { macBytes } from './frames.js';
import { hubOf, macOf, SERIAL, SPAPR_OPTIONS, shapeName, type VirtioShape } from './shapes.js';
import { MEMORY_SIZE, type VirtioSide } from './sides.js';

/** The model's machine with its devices: the other side of `startVirtioMachine`. */
export function createModelVirtioSide(shapes: readonly VirtioShape[]): VirtioSide {
  return new ModelVirtioSide(shapes);
}

class ModelVirtioSide implements VirtioSide {
  readonly memory: GuestMemory;
  readonly hypercalls: Hypercalls;
  readonly #machine: SpaprMachine;
  readonly #functions = new Map<string, PciFunction>();
  readonly #hubs = new Map<number, Hub>();
  readonly #disks = new Map<string, Uint8Array>();
  /** QEMU has one bounce buffer for all its devices. */
  readonly #bounce: GlobalBounce = { isInUse: false };
  readonly #systemMemory: DmaSpace;

  constructor(shapes: readonly VirtioShape[]) {
    const memory = createGuestMemory({ regions: [{ base: 0, size: MEMORY_SIZE }] });
    this.memory = memory;
    this.#machine = new SpaprMachine({ ...SPAPR_OPTIONS, memory });
    this.hypercalls = this.#machine.hypercalls;
    this.#systemMemory = createSystemMemorySpace(memory);
    for (const shape of shapes) {
      const device = this.#createDevice(shape);
      this.#functions.set(
        shapeName(shape),
        createVirtioPci({
          device,
          mode: shape.isLegacy === true ? 'transitional' : 'modern',
          name: functionName(shape),
          isBigEndianGuest: true,
        }),
      );
    }
  }

  deviceTree(): FdtNode {
    return this.#machine.deviceTree();
  }

  pciFunction(shape: VirtioShape): PciFunction {
    const fn = this.#functions.get(shapeName(shape));
    if (fn !== undefined) return fn;
    throw new LiveError(
      'E_LIVE_USAGE',
      `expected a device of this side, found ${shapeName(shape)}`,
    );
  }

  disk(shape: VirtioShape): Uint8Array {
    return this.#disks.get(shapeName(shape)) ?? new Uint8Array(0);
  }

  /** The model works inside of a kick: what is not done then is never done. */
  wait(isDone: () => boolean): boolean {
    return isDone();
  }

  reset(): void {
    this.#machine.reset();
  }

  close(): void {}

  #createDevice(shape: VirtioShape): VirtioDeviceCore {
    const { iommuPlatform, indirect, eventIdx, packed, bridge } = shape;
    const busSpace = this.#machine.iommu.phbs[bridge];
    const settings = {
      id: shapeName(shape),
      memory: this.memory,
      systemMemory: this.#systemMemory,
      ...(busSpace === undefined ? {} : { busSpace }),
      bounce: this.#bounce,
      iommuPlatform,
      indirect,
      eventIdx,
      packed,
    };
    if (shape.type === 'rng') {
      return new VirtioRng({ ...settings, backend: new RepeatedBytes(entropyContents()) }).core;
    }
    if (shape.type === 'net') {
      const hub = this.#hubs.get(hubOf(shape)) ?? new Hub();
      this.#hubs.set(hubOf(shape), hub);
      const mac = macBytes(macOf(shape));
      return new VirtioNet({ ...settings, backend: hub.port(), mac }).core;
    }
    const disk = diskContents();
    this.#disks.set(shapeName(shape), disk);
    return new VirtioBlk({ ...settings, backend: createMemoryBackend(disk), serial: SERIAL }).core;
  }
}

/** The file that QEMU's entropy backend reads, from its start. */
class RepeatedBytes implements RngBackend {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  fill(into: Uint8Array): void {
    for (let i = 0; i < into.length; i += 1) {
      into[i] = this.#bytes[this.#at % this.#bytes.length] ?? 0;
      this.#at += 1;
    }
  }
}

/** What one port sends all others get. [qemu v7.2 net/hub.c net_hub_receive] */
class Hub {
  readonly #ports: ((frame: Uint8Array) => void)[] = [];

  port(): NetBackend {
    const index = this.#ports.length;
    this.#ports.push(() => {});
    return {
      send: (frame) => {
        for (const [i, receive] of this.#ports.entries()) if (i !== index) receive(frame);
      },
      onReceive: (receive) => {
        this.#ports[index] = receive;
      },
    };
  }
}

function functionName({ bridge, slot }: VirtioShape): string {
  return `000${bridge}:00:${slot.toString(16).padStart(2, '0')}.0`;
}
