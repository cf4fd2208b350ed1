/** A device that does whatever a test wants, and the driver's half of the machine around it. */
import { createRng, hiOf, loOf } from '@pinhole/base';
import {
  createGuestMemory,
  createSystemMemorySpace,
  type DmaOps,
  type SparseMemory,
} from '@pinhole/memory';
import {
  connectPciInterrupts,
  createPciTransport,
  createVirtioPci,
  type DeviceHooks,
  type DeviceQueue,
  featureBits,
  VIRTIO_F_VERSION_1,
  VirtioDeviceCore,
  type VirtioTransport,
  type VirtqueueElement,
} from '@pinhole/virtio';
import { GuestPages, type VirtioDriverOptions } from '../../src/index.js';

/** One buffer as the device got it: what it may read, and how much it may write. */
export interface Received {
  readonly queue: number;
  readonly out: Uint8Array;
  readonly inBytes: number;
  readonly outSegments: readonly number[];
  readonly inSegments: readonly number[];
}

/** What the device does with a buffer: the bytes that it writes and the length that it claims. */
export interface Answer {
  readonly bytes?: Uint8Array;
  readonly length?: number;
}

export interface FakeDeviceOptions {
  readonly deviceId: number;
  readonly features?: readonly number[];
  readonly config?: Uint8Array;
  readonly queues?: readonly number[];
  /** Undefined: it keeps the buffer. */
  readonly answer?: (received: Received) => Answer | undefined;
  readonly hooks?: DeviceHooks;
}

export interface FakeDevice {
  readonly memory: SparseMemory;
  readonly pages: GuestPages;
  readonly core: VirtioDeviceCore;
  readonly received: Received[];
  readonly options: VirtioDriverOptions;
  /** Buffers that the device kept, oldest first. */
  readonly kept: { readonly queue: DeviceQueue; readonly element: VirtqueueElement }[];
  /** Returns the oldest kept buffer of a queue. False: there is none. */
  give(queue: number, bytes: Uint8Array, length?: number): boolean;
  /** The same, without an interrupt yet. */
  hold(queue: number, bytes: Uint8Array, length?: number): boolean;
  /** Mappings of the driver that are live. */
  readonly live: () => number;
}

export function createFakeDevice(options: FakeDeviceOptions): FakeDevice {
  const memory = createGuestMemory({ regions: [{ base: 0, size: 2 ** 26 }] });
  const pages = new GuestPages({
    pageSize: 4096,
    kernel: { base: 2 ** 20, size: 2 ** 24 },
    user: { base: 2 ** 25, size: 2 ** 25 },
    rng: createRng(1),
  });
  const received: Received[] = [];
  const kept: { queue: DeviceQueue; element: VirtqueueElement }[] = [];
  const queues = options.queues ?? [16];
  const core: VirtioDeviceCore = new VirtioDeviceCore({
    deviceId: options.deviceId,
    features: featureBits(VIRTIO_F_VERSION_1, ...(options.features ?? [])),
    memory,
    space: createSystemMemorySpace(memory),
    usesEventFds: false,
    ...(options.config === undefined ? {} : { config: options.config }),
    ...(options.hooks === undefined ? {} : { hooks: options.hooks }),
    queues: queues.map((maxSize, index) => ({
      maxSize,
      handleOutput: (queue: DeviceQueue): void => {
        for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
          const one = describe(memory, index, element);
          received.push(one);
          const answer = options.answer?.(one);
          if (answer === undefined) kept.push({ queue, element });
          else finish(queue, index, element, answer);
        }
      },
    })),
  });
  let live = 0;
  const dma: DmaOps = {
    name: 'physical',
    maxMappingSize: Number.MAX_SAFE_INTEGER,
    map(gpa, _length, _direction, out): boolean {
      live += 1;
      out.hi = hiOf(gpa);
      out.lo = loOf(gpa);
      return true;
    },
    unmap(): void {
      live -= 1;
    },
    allocCoherent(length, out): number | undefined {
      const gpa = pages.allocPages(length);
      if (gpa === undefined) return undefined;
      out.hi = hiOf(gpa);
      out.lo = loOf(gpa);
      return gpa;
    },
    freeCoherent: (gpa, _hi, _lo, length) => pages.freePages(gpa, length),
  };

  function finish(
    queue: DeviceQueue,
    index: number,
    element: VirtqueueElement,
    { bytes = new Uint8Array(0), length = bytes.length }: Answer,
    isNotified = true,
  ): void {
    let done = 0;
    const end = element.outNum + element.inNum;
    for (let i = element.outNum; i < end && done < bytes.length; i += 1) {
      const part = bytes.subarray(done, done + (element.length[i] as number));
      memory.write(element.gpa[i] as number, part);
      done += part.length;
    }
    queue.push(element, length);
    if (isNotified) core.notifyDriver(index);
  }

  function giveBack(
    index: number,
    bytes: Uint8Array,
    length: number,
    isNotified: boolean,
  ): boolean {
    const at = kept.findIndex(({ queue }) => queue === core.queues[index]);
    const [one] = at < 0 ? [] : kept.splice(at, 1);
    if (one === undefined) return false;
    finish(one.queue, index, one.element, { bytes, length }, isNotified);
    return true;
  }

  return {
    memory,
    pages,
    core,
    received,
    kept,
    options: { transport: connect(core), memory, pages, smpCacheBytes: 128, chooseDma: () => dma },
    give: (index, bytes, length = bytes.length) => giveBack(index, bytes, length, true),
    hold: (index, bytes, length = bytes.length) => giveBack(index, bytes, length, false),
    live: () => live,
  };
}

/** Behind a PCI function, with interrupts. */
function connect(device: VirtioDeviceCore): VirtioTransport {
  const fn = createVirtioPci({ device, mode: 'modern' });
  const made = createPciTransport(fn, { interrupts: connectPciInterrupts(fn) });
  if (!made.ok) throw new Error(made.message);
  return made.transport;
}

function describe(memory: SparseMemory, queue: number, element: VirtqueueElement): Received {
  const lengths = [...element.length.subarray(0, element.outNum + element.inNum)];
  const parts = lengths.slice(0, element.outNum).map((length, i) => {
    const bytes = new Uint8Array(length);
    memory.read(element.gpa[i] as number, bytes);
    return bytes;
  });
  return {
    queue,
    out: Buffer.concat(parts),
    inBytes: element.inBytes,
    outSegments: lengths.slice(0, element.outNum),
    inSegments: lengths.slice(element.outNum),
  };
}
