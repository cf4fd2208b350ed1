import { NO_TRACE, type Tracer } from '@pinhole/base';
import type { DmaOps, GuestMemory } from '@pinhole/memory';
import {
  type ConfigPart,
  createDriverQueue,
  type DriverQueue,
  featureBits,
  hasFeature,
  negotiateFeatures,
  readConfigFields,
  setDriverOk,
  VIRTIO_CONFIG_S_FAILED,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_NOTIFICATION_DATA,
  VIRTIO_F_ORDER_PLATFORM,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
  type VirtioTransport,
} from '@pinhole/virtio';
import type { GuestPages } from '../guest-pages.js';

/** The largest queue. [VIRTIO v1.2 §2.7 "Split Virtqueues"] */
const VIRTQUEUE_SPEC_MAX_SIZE = 32_768;

/**
 * Features of ring code and transport. [linux v6.1 drivers/virtio/virtio_ring.c vring_transport_features]
 *
 * Deviates: Linux 6.1 does not know IN_ORDER and NOTIFICATION_DATA.
 */
const RING_FEATURES = featureBits(
  VIRTIO_RING_F_INDIRECT_DESC,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_F_VERSION_1,
  VIRTIO_F_ACCESS_PLATFORM,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_ORDER_PLATFORM,
  VIRTIO_F_NOTIFICATION_DATA,
  VIRTIO_F_RING_RESET,
);

/** What every driver needs of the machine that it runs in. */
export interface VirtioDriverOptions {
  readonly transport: VirtioTransport;
  /** Guest memory as the guest sees it. */
  readonly memory: GuestMemory;
  readonly pages: GuestPages;
  /**
   * SMP_CACHE_BYTES of the guest's kernel: a modern PCI device's used ring lies at a multiple of it,
   * and rngs are asked for so much. {@link SMP_CACHE_BYTES} has that of each architecture.
   */
  readonly smpCacheBytes: number;
  /** The platform restricts what devices reach: see `negotiateFeatures`. */
  readonly hasRestrictedMemoryAccess?: () => boolean;
  /** Feature bits of rings and transport that this kernel does not know. Default: none. */
  readonly unknownFeatures?: readonly number[];
  /** Decides how buffers are mapped, once the features are known. */
  readonly chooseDma: (features: bigint) => DmaOps;
  /**
   * Lets time pass: runs the machine's pending work, or gives a real device some. False: nothing
   * more will ever happen, and a driver that waits gives up. Default: all happens at the kick.
   */
  readonly idle?: () => boolean;
  readonly tracer?: Tracer;
}

/** What a driver that starts is given, or why it cannot start. */
export type OpenResult =
  | { readonly ok: true; readonly context: DriverContext }
  | { readonly ok: false; readonly message: string };

/**
 * Finds the device and agrees on features: `supported` and those of the rings. [linux v6.1
 * drivers/virtio/virtio.c virtio_dev_probe]
 */
export function openDevice(options: VirtioDriverOptions, supported: bigint): OpenResult {
  const { hasRestrictedMemoryAccess, unknownFeatures = [] } = options;
  const negotiated = negotiateFeatures(options.transport, {
    supported: supported | (RING_FEATURES & ~featureBits(...unknownFeatures)),
    allowsLegacy: options.transport.isLegacy,
    ...(hasRestrictedMemoryAccess === undefined ? {} : { hasRestrictedMemoryAccess }),
  });
  if (!negotiated.ok) return { ok: false, message: negotiated.message };
  return { ok: true, context: new DriverContext(options, negotiated.features) };
}

/** Who hears of a device's interrupts. */
export interface InterruptListener {
  /** Queue `index` may have used buffers. */
  readonly queue: (index: number) => void;
  readonly config?: () => void;
}

/** What all virtio drivers do alike with their device. */
export class DriverContext {
  readonly options: VirtioDriverOptions;
  readonly features: bigint;
  readonly dma: DmaOps;
  readonly tracer: Tracer;
  readonly #queues: DriverQueue<unknown>[] = [];

  /** Use {@link openDevice}. */
  constructor(options: VirtioDriverOptions, features: bigint) {
    this.options = options;
    this.features = features;
    this.dma = options.chooseDma(features);
    this.tracer = options.tracer ?? NO_TRACE;
  }

  has(feature: number): boolean {
    return hasFeature(this.features, feature);
  }

  /**
   * Makes queue `index` and tells the device of it; queues are made in order. Or why it cannot be.
   * [linux v6.1 drivers/virtio/virtio_pci_modern.c setup_vq; virtio_pci_legacy.c setup_vq]
   */
  openQueue<T>(index: number): DriverQueue<T> | string {
    const { transport, memory, pages, smpCacheBytes } = this.options;
    const isPacked = this.has(VIRTIO_F_RING_PACKED);
    const hasData = this.has(VIRTIO_F_NOTIFICATION_DATA);
    const size = transport.queueMaxSize(index);
    if (size === 0) return `no queue ${index}`;
    if (!isPacked && (size & (size - 1)) !== 0) return `bad queue size ${size}`;
    const queue: DriverQueue<T> | undefined = createDriverQueue<T>({
      memory,
      dma: this.dma,
      tables: {
        allocate: (length) => pages.alloc(length),
        free: (gpa, length) => pages.free(gpa, length),
      },
      isPacked,
      size: Math.min(size, VIRTQUEUE_SPEC_MAX_SIZE),
      index,
      layoutAlign: transport.ringAlign ?? smpCacheBytes,
      mayReduceSize: !transport.isLegacy,
      hasIndirect: this.has(VIRTIO_RING_F_INDIRECT_DESC),
      hasEventIdx: this.has(VIRTIO_RING_F_EVENT_IDX),
      hasInOrder: this.has(VIRTIO_F_IN_ORDER),
      pageSize: pages.pageSize,
      notify: () => transport.notifyQueue(index, hasData ? queue?.notificationData : undefined),
      tracer: this.tracer,
    });
    if (queue === undefined) return 'no room for the ring';
    transport.setupQueue(index, queue.setup);
    this.#queues.push(queue);
    return queue;
  }

  /** The driver cannot go on: the device is told, and the rings given back. */
  abandon(message: string): { readonly ok: false; readonly message: string } {
    const { transport } = this.options;
    transport.writeStatus(transport.readStatus() | VIRTIO_CONFIG_S_FAILED);
    return { ok: false, message };
  }

  /** All is set up: from here on the device may interrupt. */
  start(listener: InterruptListener): void {
    const { transport } = this.options;
    transport.onInterrupt((cause, index) => {
      if (cause === 'config') listener.config?.();
      else if (index !== undefined) listener.queue(index);
      else for (let i = 0; i < this.#queues.length; i += 1) listener.queue(i);
    });
    setDriverOk(transport);
  }

  /**
   * Resets the device, after which it has no buffer any more, and gives the rings back. What was
   * still with the device, of each queue, goes to `forget`.
   * [linux v6.1 drivers/block/virtio_blk.c virtblk_remove]
   */
  close(forget: (token: unknown, index: number) => void): void {
    this.options.transport.writeStatus(0);
    this.#queues.forEach((queue, index) => {
      for (let left = queue.detachUnused(); left !== undefined; left = queue.detachUnused()) {
        forget(left.token, index);
      }
      queue.free();
    });
  }

  /**
   * Reads these parts of the configuration space, all of one generation, into zeros.
   * [linux v6.1 include/linux/virtio_config.h __virtio_cread_many]
   */
  readConfig(parts: readonly ConfigPart[]): Uint8Array {
    return readConfigFields(this.options.transport, parts);
  }

  /** Lets time pass until `isDone`. False: it never came to that. */
  waitUntil(isDone: () => boolean): boolean {
    const { transport, idle } = this.options;
    for (;;) {
      if (isDone()) return true;
      // Whether anything goes on is for `idle` to say: a device could interrupt for ever.
      transport.pollInterrupt();
      if (isDone()) return true;
      if (idle === undefined || !idle()) break;
    }
    transport.pollInterrupt();
    return isDone();
  }
}

/**
 * Runs the work of one queue's interrupts, one run at a time: an interrupt during the work, as a
 * device in the same process makes it at a kick, has it done once more.
 */
export class InterruptWork {
  readonly #work: () => void;
  #isRunning = false;
  #isDue = false;

  constructor(work: () => void) {
    this.#work = work;
  }

  run(): void {
    this.#isDue = true;
    if (this.#isRunning) return;
    this.#isRunning = true;
    try {
      while (this.#isDue) {
        this.#isDue = false;
        this.#work();
      }
    } finally {
      this.#isRunning = false;
    }
  }
}

/**
 * Takes all used buffers out of a queue, with interrupts off meanwhile. False: the queue is broken.
 * [linux v6.1 drivers/block/virtio_blk.c virtblk_done]
 */
export function takeUsed<T>(
  queue: DriverQueue<T>,
  take: (token: T, length: number) => void,
): boolean {
  do {
    queue.disableCallbacks();
    for (;;) {
      const used = queue.getUsed();
      if (used === undefined || used.kind === 'bad-ring') break;
      take(used.token, used.length);
    }
  } while (!queue.isBroken && !queue.enableCallbacks());
  return !queue.isBroken;
}
