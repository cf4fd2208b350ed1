import type { DmaSpace, GuestMemory } from '@pinhole/memory';
import { createDeviceQueue, type DeviceQueue, type QueueOwner } from '../ring/device-queue.js';
import type { DmaMapper } from '../ring/dma-mapper.js';

/** What the queues of a device are made of. */
export interface QueueVariantsOptions {
  readonly memory: GuestMemory;
  readonly space: DmaSpace;
  readonly mapper?: DmaMapper;
  readonly elementSize?: number;
  readonly queues: readonly { readonly maxSize: number }[];
}

/**
 * The queues of a device in each layout and byte order that a driver can choose by its features.
 * Those that no driver ever chose are not made.
 */
export class QueueVariants {
  readonly #owner: QueueOwner & { readonly id: string };
  readonly #options: QueueVariantsOptions;
  readonly #made = new Map<number, readonly DeviceQueue[]>();
  #selected = 0;
  #queues: readonly DeviceQueue[];

  constructor(owner: QueueOwner & { readonly id: string }, options: QueueVariantsOptions) {
    this.#owner = owner;
    this.#options = options;
    this.#queues = this.#make(false, false);
    this.#made.set(this.#selected, this.#queues);
  }

  get queues(): readonly DeviceQueue[] {
    return this.#queues;
  }

  /** Changes over to other queues, from their start, if these are others. */
  select(isPacked: boolean, isBigEndian: boolean): boolean {
    const key = (isPacked ? 1 : 0) | (isBigEndian ? 2 : 0);
    if (key === this.#selected) return false;
    for (const queue of this.#queues) queue.reset();
    this.#selected = key;
    this.#queues = this.#made.get(key) ?? this.#make(isPacked, isBigEndian);
    this.#made.set(key, this.#queues);
    return true;
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
