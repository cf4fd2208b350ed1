import type { DriverQueue } from '@pinhole/virtio';
import type { MapErrorRule } from '../../kernel-profiles/types.js';
import { type DriverContext, InterruptWork, takeUsed } from '../driver-context.js';
import type { BlkOutcome, RequestObject } from './blk-request.js';

/** Tries of a request that finds no room on the bus; the kernel has no such limit. */
const MAX_REQUEUES = 100;

/** One queue of the disk, and the requests that wait for room in it. */
export class BlkQueue {
  readonly ring: DriverQueue<RequestObject>;
  readonly #context: DriverContext;
  readonly #mapError: MapErrorRule | undefined;
  readonly #waiting: RequestObject[] = [];
  readonly #work: InterruptWork;
  #inFlight = 0;
  #hasAdded = false;

  constructor(
    context: DriverContext,
    ring: DriverQueue<RequestObject>,
    mapError: MapErrorRule | undefined,
  ) {
    this.ring = ring;
    this.#context = context;
    this.#mapError = mapError;
    this.#work = new InterruptWork(() => this.#handleUsed());
  }

  /** Requests that the device has. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Adds the request, or puts it behind those that wait. */
  add(request: RequestObject): void {
    if (this.#waiting.length > 0 || !this.#tryAdd(request)) this.#waiting.push(request);
  }

  /** Kicks the device if something was added. */
  kick(): void {
    if (!this.#hasAdded) return;
    this.#hasAdded = false;
    this.ring.kick();
  }

  /** The device may have used buffers. */
  handleInterrupt(): void {
    this.#work.run();
  }

  /** The device was reset: it has nothing any more. */
  forget(request: RequestObject): void {
    this.#inFlight -= 1;
    request.finish(this.#context.options.pages, { kind: 'hung' });
  }

  #handleUsed(): void {
    const { memory, pages } = this.#context.options;
    const isGood = takeUsed(this.ring, (request, usedLength) => {
      this.#inFlight -= 1;
      request.finish(pages, { kind: 'done', status: request.readStatus(memory), usedLength });
    });
    // There is room again; or there will never be.
    while (this.#waiting.length > 0) {
      if (isGood && !this.#tryAdd(this.#waiting[0] as RequestObject)) break;
      const request = this.#waiting.shift() as RequestObject;
      if (!isGood) this.#reject(request, 'broken');
    }
    this.kick();
  }

  // A full ring has the request wait for one in flight. A buffer that cannot be mapped fails it, or
  // the block layer tries it again later; with nothing in flight later is no better, and the kernel
  // would go on for ever. False: it is to wait. [linux v6.1 drivers/block/virtio_blk.c virtio_queue_rq]
  #tryAdd(request: RequestObject): boolean {
    const isRequeued = this.#mapError?.request === 'requeue';
    for (let tries = 0; ; tries += 1) {
      const free = this.ring.numFree;
      const added = this.ring.add(request.out, request.inn, request);
      if (added === 'ok') {
        this.#inFlight += 1;
        this.#hasAdded = true;
        return true;
      }
      // A full ring prods the device, which may have made room at once.
      if (added === 'ring-full' && this.ring.numFree > free) continue;
      const isNoRoom = added === 'no-dma-space';
      const mayWait = this.#inFlight > 0 && (added === 'ring-full' || (isNoRoom && isRequeued));
      if (mayWait) return false;
      if (isNoRoom && isRequeued && tries < MAX_REQUEUES) continue;
      if (isNoRoom && isRequeued) this.#giveUp(request, tries);
      else this.#reject(request, isNoRoom ? this.#noRoom() : added);
      return true;
    }
  }

  #noRoom(): string {
    const rule = this.#mapError;
    return `no room on the bus${rule === undefined ? '' : `: ${rule.errno}, an I/O error`}`;
  }

  // To whoever waits for it a livelock is a request that hangs.
  #giveUp(request: RequestObject, tries: number): void {
    const reason = `no room on the bus: ${this.#mapError?.errno}, requeued ${tries} times (a livelock)`;
    request.finish(this.#context.options.pages, { kind: 'hung', reason });
  }

  #reject(request: RequestObject, reason: string): void {
    const outcome: BlkOutcome = { kind: 'rejected', reason };
    request.finish(this.#context.options.pages, outcome);
  }
}
