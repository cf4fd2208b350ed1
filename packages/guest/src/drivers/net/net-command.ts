import type { DriverQueue, Segment } from '@pinhole/virtio';
import { VIRTIO_NET_CTRL_HDR_SIZE, VIRTIO_NET_OK } from '@pinhole/virtio';
import type { DriverContext } from '../driver-context.js';

/** What the ack holds before the device writes it. */
const ACK_NOT_WRITTEN = 0xff;

interface Command {
  /** Header, command-specific data, ack. */
  readonly object: Segment;
}

/**
 * The control queue: one command at a time, waited for.
 * [linux v6.1 drivers/net/virtio_net.c virtnet_send_command]
 */
export class NetCommandQueue {
  readonly #context: DriverContext;
  readonly #queue: DriverQueue<Command>;

  constructor(context: DriverContext, queue: DriverQueue<unknown>) {
    this.#context = context;
    this.#queue = queue as DriverQueue<Command>;
    queue.disableCallbacks();
  }

  /** False: the device refused, did not answer, or there is no room to ask. Each of `data` is a buffer. */
  send(kind: number, command: number, data: readonly Uint8Array[]): boolean {
    const { memory, pages } = this.#context.options;
    const header = VIRTIO_NET_CTRL_HDR_SIZE;
    const length = header + data.reduce((sum, part) => sum + part.length, 0) + 1;
    const gpa = pages.alloc(length);
    if (gpa === undefined) return false;
    const request: Command = { object: { gpa, length } };
    const ack = { gpa: gpa + length - 1, length: 1 };
    const parts: Segment[] = [];
    let next = gpa;
    for (const part of [Uint8Array.of(kind, command), ...data]) {
      memory.write(next, part);
      parts.push({ gpa: next, length: part.length });
      next += part.length;
    }
    memory.writeU8(ack.gpa, ACK_NOT_WRITTEN);
    if (this.#queue.add(parts, [ack], request) !== 'ok') {
      pages.free(gpa, length);
      return false;
    }
    this.#queue.kick();
    this.#context.waitUntil(() => this.#queue.hasUsed() || this.#queue.isBroken);
    // An answer to an older command, which was given up, may come before.
    for (let used = this.#queue.getUsed(); used?.kind === 'used'; used = this.#queue.getUsed()) {
      const { token } = used;
      const status = token === request ? memory.readU8(ack.gpa) : undefined;
      pages.free(token.object.gpa, token.object.length);
      if (status !== undefined) return status === VIRTIO_NET_OK;
    }
    return false;
  }

  /** The device was reset: it has the command no more. */
  forget(token: unknown): void {
    const { gpa, length } = (token as Command).object;
    this.#context.options.pages.free(gpa, length);
  }
}
