import { hex } from '@pinhole/base';
import type { DmaSpace, GuestMemory } from '@pinhole/memory';
import { VIRTQUEUE_MAX_SIZE } from '../params.js';
import { createDeviceQueue, type DeviceQueue, type QueueOwner } from '../ring/device-queue.js';
import type { DmaMapper } from '../ring/dma-mapper.js';
import type { QueueSetup } from '../transport/transport.js';
import type { SavedQueue } from './device-state.js';

/** What the queues of a device are made of. */
export interface DeviceQueuesOptions {
  readonly memory: GuestMemory;
  readonly space: DmaSpace;
  readonly mapper?: DmaMapper;
  readonly elementSize?: number;
  readonly queues: readonly { readonly maxSize: number }[];
}

/** What the driver chose for one queue. */
interface Chosen {
  size: number;
  setup: QueueSetup | undefined;
}

/**
 * The queues of a device, in the layout and byte order that a driver chose by its features. Those
 * that no driver ever chose are not made.
 */
export class DeviceQueues {
  readonly #owner: QueueOwner & { readonly id: string };
  readonly #options: DeviceQueuesOptions;
  readonly #made = new Map<number, readonly DeviceQueue[]>();
  readonly #chosen: readonly Chosen[];
  #selected = 0;
  #list: readonly DeviceQueue[];

  constructor(owner: QueueOwner & { readonly id: string }, options: DeviceQueuesOptions) {
    this.#owner = owner;
    this.#options = options;
    this.#chosen = options.queues.map(({ maxSize }) => ({ size: maxSize, setup: undefined }));
    this.#list = this.#make(false, false);
    this.#made.set(this.#selected, this.#list);
  }

  get list(): readonly DeviceQueue[] {
    return this.#list;
  }

  /** Entries of queue `index`; 0: there is no such queue. */
  size(index: number): number {
    return this.#chosen[index]?.size ?? 0;
  }

  /** What QEMU does not take leaves the old size. [qemu v7.2 hw/virtio/virtio.c virtio_queue_set_num] */
  setSize(index: number, size: number): void {
    const chosen = this.#chosen[index];
    if (chosen === undefined || size === 0 || size > this.largestSize(index)) return;
    chosen.size = size;
  }

  /** The largest size that is taken: QEMU takes 1024 whatever the queue's default is. */
  largestSize(index: number): number {
    return Math.max(this.#options.queues[index]?.maxSize ?? 0, VIRTQUEUE_MAX_SIZE);
  }

  /** Where the driver said that queue `index` lies, if it did. */
  setup(index: number): QueueSetup | undefined {
    return this.#chosen[index]?.setup;
  }

  /** [qemu v7.2 hw/virtio/virtio.c virtio_queue_set_rings] */
  setRings(index: number, rings: Omit<QueueSetup, 'size'>): void {
    const chosen = this.#chosen[index];
    if (chosen === undefined) return;
    chosen.setup = { ...rings, size: chosen.size };
    this.#list[index]!.configure(chosen.setup);
  }

  /** Queue `index` as at the start. */
  reset(index: number): void {
    this.#list[index]!.reset();
    const chosen = this.#chosen[index]!;
    chosen.size = this.#options.queues[index]!.maxSize;
    chosen.setup = undefined;
  }

  /** Goes over to queues of a layout and byte order. Those that are set up start again there. */
  select(isPacked: boolean, isBigEndian: boolean): void {
    const key = (isPacked ? 1 : 0) | (isBigEndian ? 2 : 0);
    if (key === this.#selected) return;
    for (const queue of this.#list) queue.reset();
    this.#selected = key;
    this.#list = this.#made.get(key) ?? this.#make(isPacked, isBigEndian);
    this.#made.set(key, this.#list);
    for (const [index, { setup }] of this.#chosen.entries()) {
      if (setup !== undefined) this.#list[index]!.configure(setup);
    }
  }

  save(): SavedQueue[] {
    return this.#chosen.map(({ size, setup }, index) => {
      const ring = this.#list[index]!.save();
      if (setup === undefined) return { size, ring };
      const { desc, avail, used } = setup;
      return { size, rings: { desc: hex(desc), avail: hex(avail), used: hex(used) }, ring };
    });
  }

  /** @throws VirtioError `E_QUEUE_STATE` */
  restore(state: readonly SavedQueue[]): void {
    for (const [index, { size, rings, ring }] of state.entries()) {
      const chosen = this.#chosen[index]!;
      chosen.size = size;
      chosen.setup = rings && {
        size: ring.size,
        desc: BigInt(rings.desc),
        avail: BigInt(rings.avail),
        used: BigInt(rings.used),
      };
      this.#list[index]!.restore(ring);
    }
  }

  #make(isPacked: boolean, isBigEndian: boolean): readonly DeviceQueue[] {
    const { memory, space, mapper, elementSize, queues } = this.#options;
    const owner = this.#owner;
    const extras = {
      ...(mapper === undefined ? {} : { mapper }),
      ...(elementSize === undefined ? {} : { elementSize }),
    };
    return queues.map(({ maxSize }, index) => {
      const id = `${owner.id}q${index}`;
      const options = { owner, id, maxSize, memory, space, isBigEndian, ...extras };
      return createDeviceQueue(isPacked, options);
    });
  }
}
