import type { DriverQueue, Segment } from '@pinhole/virtio';
import { type DriverContext, InterruptWork, takeUsed } from '../driver-context.js';

/** Bytes of one write at most. [linux v6.1 drivers/char/virtio_console.c port_fops_write] */
const MAX_WRITE = 32 * 1024;

interface Input {
  readonly buffer: Segment;
  length: number;
  done: number;
}

/** See {@link GuestPort}. */
export interface GuestPortOptions {
  readonly id: number;
  readonly context: DriverContext;
  readonly rx: DriverQueue<Segment>;
  readonly tx: DriverQueue<Segment>;
  /** There are control messages: the port is open when both ends say so. */
  readonly isMultiport: boolean;
  readonly onInput: (port: GuestPort) => void;
}

/** A port of the console device, on the guest's side. [linux v6.1 drivers/char/virtio_console.c struct port] */
export class GuestPort {
  readonly id: number;
  /** As the device gave it. */
  name: string | undefined;
  /** The port is a console, and its size in characters if the device told. */
  isConsole: boolean;
  size: { readonly cols: number; readonly rows: number } | undefined;
  /** The other end is there. */
  isHostConnected: boolean;
  /** This end is open: without, input is dropped. */
  isGuestConnected: boolean;
  readonly #options: GuestPortOptions;
  readonly #buffers: Segment[] = [];
  readonly #inputs: Input[] = [];
  readonly #rxWork: InterruptWork;
  readonly #txWork: InterruptWork;

  constructor(options: GuestPortOptions) {
    this.#options = options;
    this.id = options.id;
    this.isConsole = !options.isMultiport;
    this.isHostConnected = !options.isMultiport;
    this.isGuestConnected = !options.isMultiport;
    this.#rxWork = new InterruptWork(() => this.#receive());
    this.#txWork = new InterruptWork(() => {
      takeUsed(options.tx, (object) => this.#free(object));
    });
  }

  /** Bytes that wait to be read. */
  get available(): number {
    return this.#inputs.reduce((sum, { length, done }) => sum + length - done, 0);
  }

  /** Input into `into`; how many bytes. [linux v6.1 drivers/char/virtio_console.c fill_readbuf] */
  read(into: Uint8Array): number {
    const { memory } = this.#options.context.options;
    let count = 0;
    for (let input = this.#inputs[0]; input !== undefined && count < into.length; ) {
      const bytes = Math.min(input.length - input.done, into.length - count);
      const at = input.buffer.gpa + input.done;
      memory.read(at, into.subarray(count, count + bytes));
      input.done += bytes;
      count += bytes;
      if (input.done < input.length) break;
      this.#inputs.shift();
      this.#giveBack(input.buffer);
      input = this.#inputs[0];
    }
    if (count > 0) this.#options.rx.kick();
    return count;
  }

  /**
   * Writes; how many bytes were taken: none while the other end is away, or the queue is full.
   * [linux v6.1 drivers/char/virtio_console.c __send_to_port]
   */
  write(bytes: Uint8Array): number {
    if (!this.isHostConnected && !this.isConsole) return 0;
    const { memory, pages } = this.#options.context.options;
    let done = 0;
    while (done < bytes.length) {
      const length = Math.min(bytes.length - done, MAX_WRITE);
      const gpa = pages.alloc(length);
      if (gpa === undefined) break;
      const object = { gpa, length };
      memory.write(gpa, bytes.subarray(done, done + length));
      if (this.#options.tx.add([object], [], object) !== 'ok') {
        this.#free(object);
        break;
      }
      done += length;
    }
    if (done > 0) this.#options.tx.kick();
    return done;
  }

  /** Supplies the device with buffers. [linux v6.1 drivers/char/virtio_console.c fill_queue] */
  fill(): void {
    const { context, rx } = this.#options;
    const { pages } = context.options;
    while (this.#buffers.length < rx.size) {
      const gpa = pages.alloc(pages.pageSize);
      if (gpa === undefined) break;
      const buffer = { gpa, length: pages.pageSize };
      if (rx.add([], [buffer], buffer) !== 'ok') {
        this.#free(buffer);
        break;
      }
      this.#buffers.push(buffer);
    }
    rx.kick();
  }

  handleRx(): void {
    this.#rxWork.run();
  }

  handleTx(): void {
    this.#txWork.run();
  }

  /** The device was reset. */
  release(): void {
    for (const buffer of this.#buffers.splice(0)) this.#free(buffer);
    this.#inputs.splice(0);
  }

  // The length is the device's word: at most the buffer. [linux v6.1 drivers/char/virtio_console.c get_inbuf]
  #receive(): void {
    const before = this.#inputs.length;
    takeUsed(this.#options.rx, (buffer, length) => {
      this.#inputs.push({ buffer, length: Math.min(length, buffer.length), done: 0 });
    });
    if (!this.isGuestConnected) this.read(new Uint8Array(this.available));
    this.#skipEmpty();
    if (this.#inputs.length > before) this.#options.onInput(this);
  }

  // Buffers without bytes have nothing to wait for.
  #skipEmpty(): void {
    const empty = this.#inputs.filter(({ length }) => length === 0);
    if (empty.length === 0) return;
    const rest = this.#inputs.filter(({ length }) => length > 0);
    this.#inputs.splice(0, this.#inputs.length, ...rest);
    for (const { buffer } of empty) this.#giveBack(buffer);
    this.#options.rx.kick();
  }

  #giveBack(buffer: Segment): void {
    this.#options.rx.add([], [buffer], buffer);
  }

  #free({ gpa, length }: Segment): void {
    this.#options.context.options.pages.free(gpa, length);
  }
}
