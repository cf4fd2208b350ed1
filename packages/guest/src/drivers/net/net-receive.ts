import type { GuestMemory } from '@pinhole/memory';
import {
  type DriverQueue,
  decodeNetHeader,
  type Segment,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_SIZE,
} from '@pinhole/virtio';
import { type DriverContext, InterruptWork } from '../driver-context.js';

/** Options of {@link NetReceiver}. */
export interface NetReceiverOptions {
  readonly context: DriverContext;
  readonly queue: DriverQueue<Segment>;
  /** Bytes of each buffer. */
  readonly bufferSize: number;
  /** MRG_RXBUF was negotiated. */
  readonly isMergeable: boolean;
  /** 12 bytes, or 10 for a legacy device. */
  readonly headerSize: number;
  readonly onFrame: (frame: Uint8Array) => void;
}

/**
 * A receive queue: keeps the device supplied with buffers, and puts packets together. Lengths and
 * `num_buffers` are the device's word: a packet that they make no sense for is dropped.
 * [linux v6.1 drivers/net/virtio_net.c receive_buf, receive_mergeable]
 */
export class NetReceiver {
  /** Packets that the device got wrong. */
  errors = 0;
  readonly #options: NetReceiverOptions;
  readonly #buffers: Segment[] = [];
  readonly #free: Segment[] = [];
  readonly #work: InterruptWork;

  constructor(options: NetReceiverOptions) {
    this.#options = options;
    this.#work = new InterruptWork(() => this.#receiveAll());
  }

  handleInterrupt(): void {
    this.#work.run();
  }

  /** Fills the queue with buffers; how many are with the device. [linux v6.1 drivers/net/virtio_net.c try_fill_recv] */
  fill(): number {
    const { context, queue, bufferSize } = this.#options;
    const { pages } = context.options;
    for (;;) {
      let buffer = this.#free.pop();
      if (buffer === undefined && this.#buffers.length < queue.size) {
        const gpa = pages.alloc(bufferSize);
        if (gpa !== undefined) {
          buffer = { gpa, length: bufferSize };
          this.#buffers.push(buffer);
        }
      }
      if (buffer === undefined) break;
      if (queue.add([], [buffer], buffer) === 'ok') continue;
      this.#free.push(buffer);
      break;
    }
    queue.kick();
    return this.#buffers.length - this.#free.length;
  }

  /** The device was reset: gives the buffers back. */
  release(): void {
    const { pages } = this.#options.context.options;
    for (const { gpa, length } of this.#buffers.splice(0)) pages.free(gpa, length);
    this.#free.splice(0);
  }

  #receiveAll(): void {
    const { queue } = this.#options;
    do {
      queue.disableCallbacks();
      for (let used = this.#next(); used !== undefined; used = this.#next()) this.#receive(used);
    } while (!queue.isBroken && !queue.enableCallbacks());
    if (!queue.isBroken && this.#free.length > 0) this.fill();
  }

  // The next used buffer and how much of it counts; it is free from now on.
  #next(): { readonly buffer: Segment; readonly length: number } | undefined {
    const used = this.#options.queue.getUsed();
    if (used === undefined || used.kind === 'bad-ring') return undefined;
    this.#free.push(used.token);
    return { buffer: used.token, length: used.length };
  }

  #receive(first: { readonly buffer: Segment; readonly length: number }): void {
    const { context, isMergeable, headerSize, onFrame } = this.#options;
    const { memory } = context.options;
    let isGood = first.length >= headerSize && first.length <= first.buffer.length;
    const bytes = new Uint8Array(VIRTIO_NET_HDR_SIZE);
    if (isGood) memory.read(first.buffer.gpa, bytes.subarray(0, headerSize));
    const { gsoType, numBuffers } = decodeNetHeader(bytes);
    const count = isGood && isMergeable ? numBuffers : 1;
    // No offload was negotiated, so there are no segments to be one packet.
    isGood &&= gsoType === VIRTIO_NET_HDR_GSO_NONE && count > 0;
    const parts = [isGood ? read(memory, first.buffer, headerSize, first.length) : bytes];
    // Also of a bad packet all buffers are taken.
    for (let i = 1; i < count; i += 1) {
      const used = this.#next();
      // `rx error: 2 buffers out of 3 missing`
      isGood &&= used !== undefined && used.length <= used.buffer.length;
      if (used === undefined) break;
      if (isGood) parts.push(read(memory, used.buffer, 0, used.length));
    }
    if (isGood) onFrame(join(parts));
    else this.errors += 1;
  }
}

function read(memory: GuestMemory, { gpa }: Segment, from: number, to: number): Uint8Array {
  const bytes = new Uint8Array(to - from);
  memory.read(gpa + from, bytes);
  return bytes;
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  const [first] = parts;
  if (parts.length === 1 && first !== undefined) return first;
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
