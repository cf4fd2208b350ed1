import type { DmaOps } from '@pinhole/memory';
import type { DriverQueue, Segment } from '@pinhole/virtio';
import {
  type DriverContext,
  InterruptWork,
  openDevice,
  takeUsed,
  type VirtioDriverOptions,
} from '../driver-context.js';

/** A driver, or why there is none. */
export type RngProbeResult =
  | { readonly ok: true; readonly driver: VirtioRngDriver }
  | { readonly ok: false; readonly message: string };

/** Finds the device and brings it up. [linux v6.1 drivers/char/hw_random/virtio-rng.c probe_common] */
export function probeVirtioRng(options: VirtioDriverOptions): RngProbeResult {
  const opened = openDevice(options, 0n);
  if (!opened.ok) return opened;
  const { context } = opened;
  const queue = context.openQueue<Segment>(0);
  if (typeof queue === 'string') return context.abandon(queue);
  // [linux v6.1 drivers/char/hw_random/virtio-rng.c virtrng_info.data]
  const length = options.smpCacheBytes;
  const gpa = options.pages.alloc(length);
  if (gpa === undefined) return context.abandon('no memory for the buffer');
  return { ok: true, driver: new VirtioRngDriver(context, queue, { gpa, length }) };
}

/**
 * The guest's virtio-rng driver: one buffer, always with the device or with bytes left in it.
 * [linux v6.1 drivers/char/hw_random/virtio-rng.c]
 *
 * Deviates: the buffer is cleared before the device gets it, so that one that claims more than it
 * wrote cannot have us take the same bytes twice; and bytes that are left are kept until they were
 * read, where the kernel drops them after more than half.
 */
export class VirtioRngDriver {
  readonly features: bigint;
  readonly dma: DmaOps;
  readonly #context: DriverContext;
  readonly #queue: DriverQueue<Segment>;
  readonly #buffer: Segment;
  // The device has the buffer; else `#index` to `#available` are bytes to give.
  #isPending = false;
  #available = 0;
  #index = 0;

  /** Use {@link probeVirtioRng}. */
  constructor(context: DriverContext, queue: DriverQueue<Segment>, buffer: Segment) {
    this.#context = context;
    this.#queue = queue;
    this.#buffer = buffer;
    this.features = context.features;
    this.dma = context.dma;
    const work = new InterruptWork(() => this.#receive());
    context.start({ queue: () => work.run() });
    this.#request();
  }

  /**
   * Random bytes into `into`; how many. Fewer than asked for when the device has no more for now, or
   * gives none. [linux v6.1 drivers/char/hw_random/virtio-rng.c virtio_read]
   */
  read(into: Uint8Array): number {
    let done = 0;
    while (done < into.length) {
      if (this.#available === this.#index && !this.#fetch()) break;
      const bytes = Math.min(into.length - done, this.#available - this.#index);
      const at = this.#buffer.gpa + this.#index;
      this.#context.options.memory.read(at, into.subarray(done, done + bytes));
      this.#index += bytes;
      done += bytes;
      if (this.#index === this.#available) this.#request();
    }
    return done;
  }

  /** Resets the device and gives its memory back. [linux v6.1 drivers/char/hw_random/virtio-rng.c remove_common] */
  remove(): void {
    this.#context.close(() => {});
    this.#context.options.pages.free(this.#buffer.gpa, this.#buffer.length);
    this.#isPending = false;
    this.#available = 0;
    this.#index = 0;
  }

  // Waits for the device; whether there are bytes.
  #fetch(): boolean {
    if (!this.#isPending) this.#request();
    this.#context.waitUntil(() => !this.#isPending);
    return this.#available > this.#index;
  }

  /** [linux v6.1 drivers/char/hw_random/virtio-rng.c request_entropy] */
  #request(): void {
    if (this.#queue.isBroken) return;
    this.#available = 0;
    this.#index = 0;
    this.#context.options.memory.fill(this.#buffer.gpa, this.#buffer.length, 0);
    this.#isPending = this.#queue.add([], [this.#buffer], this.#buffer) === 'ok';
    this.#queue.kick();
  }

  // The length is the device's word: never more than the buffer has.
  // [linux v6.1 drivers/char/hw_random/virtio-rng.c copy_data]
  #receive(): void {
    const isGood = takeUsed(this.#queue, (_buffer, length) => {
      this.#isPending = false;
      this.#available = Math.min(length, this.#buffer.length);
    });
    if (!isGood) this.#isPending = false;
  }
}
