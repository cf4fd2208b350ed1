import type { DeviceQueue, VirtioDeviceCore, VirtqueueElement } from '@pinhole/virtio';
import type { ElementBytes } from '../../element-bytes.js';
import type { ConsoleBackend, ConsolePort } from './console-backend.js';

/** What is given to the backend at once. */
const COPY_SIZE = 4096;

/** See {@link SerialPort}. */
export interface SerialPortOptions {
  readonly id: number;
  readonly name: string | undefined;
  readonly isConsole: boolean;
  readonly backend: ConsoleBackend;
  readonly bytes: ElementBytes;
  readonly core: () => VirtioDeviceCore;
  /** Number of its receive queue; the other is the next. */
  readonly rxQueue: number;
  /** DRIVER_OK is set. */
  readonly isReady: () => boolean;
  /** Tells the guest that this end opened or closed. */
  readonly sendOpen: (isOpen: boolean) => void;
}

/** A port of a virtio-serial device. [qemu v7.2 hw/char/virtio-serial-bus.c] */
export class SerialPort implements ConsolePort {
  readonly id: number;
  readonly name: string | undefined;
  readonly isConsole: boolean;
  isHostConnected = true;
  #isGuestConnected = false;
  #isThrottled = false;
  // The buffer of which the backend took only the first bytes.
  #held: { readonly element: VirtqueueElement; done: number } | undefined;
  readonly #options: SerialPortOptions;
  readonly #copy = new Uint8Array(COPY_SIZE);

  constructor(options: SerialPortOptions) {
    this.#options = options;
    this.id = options.id;
    this.name = options.name;
    this.isConsole = options.isConsole;
  }

  get isGuestConnected(): boolean {
    return this.#isGuestConnected;
  }

  /** [qemu v7.2 hw/char/virtio-serial-bus.c virtio_serial_guest_ready] */
  get room(): number {
    const queue = this.#rx();
    if (!this.#options.isReady() || !this.#isGuestConnected || queue === undefined) return 0;
    return queue.isEmpty() ? 0 : queue.availBytes(COPY_SIZE, 0).inBytes;
  }

  /** [qemu v7.2 hw/char/virtio-serial-bus.c write_to_port] */
  input(bytes: Uint8Array): number {
    const queue = this.#rx();
    if (queue === undefined || !this.isHostConnected || !this.#isGuestConnected) return 0;
    let done = 0;
    while (done < bytes.length) {
      const element = queue.pop();
      if (element === undefined) break;
      const length = this.#options.bytes.writeIn(element, 0, bytes.subarray(done));
      done += length;
      queue.push(element, length);
    }
    this.#options.core().notifyDriver(this.#options.rxQueue);
    return done;
  }

  /** [qemu v7.2 hw/char/virtio-serial-bus.c virtio_serial_open, virtio_serial_close] */
  setOpen(isOpen: boolean): void {
    if (isOpen === this.isHostConnected) return;
    this.isHostConnected = isOpen;
    if (!isOpen) {
      this.#isThrottled = false;
      this.dropHeld();
      this.#discard();
    }
    this.#options.sendOpen(isOpen);
  }

  /** [qemu v7.2 hw/char/virtio-serial-bus.c virtio_serial_throttle_port] */
  resume(): void {
    this.#isThrottled = false;
    if (this.isHostConnected) this.#flush();
  }

  /** The guest opened the port, or closed it. */
  setGuestConnected(isOpen: boolean): void {
    if (isOpen === this.#isGuestConnected) return;
    this.#isGuestConnected = isOpen;
    this.#options.backend.onGuest?.(isOpen);
  }

  /** The guest wrote. [qemu v7.2 hw/char/virtio-serial-bus.c handle_output] */
  handleOutput(): void {
    if (!this.isHostConnected) this.#discard();
    else if (!this.#isThrottled) this.#flush();
  }

  /** The guest gave buffers. [qemu v7.2 hw/char/virtio-serial-bus.c handle_input] */
  handleInput(): void {
    if (this.#isGuestConnected && this.isHostConnected) this.#options.backend.onWritable?.();
  }

  /** A byte that bypasses the queues. */
  emergencyWrite(byte: number): void {
    this.#options.backend.write(Uint8Array.of(byte));
  }

  /** Gives up the buffer that is held. [qemu v7.2 hw/char/virtio-serial-bus.c discard_throttle_data] */
  dropHeld(): void {
    if (this.#held !== undefined) this.#tx()?.detach(this.#held.element);
    this.#held = undefined;
  }

  /** [qemu v7.2 hw/char/virtio-serial-bus.c do_flush_queued_data] */
  #flush(): void {
    const queue = this.#tx();
    if (queue === undefined) return;
    while (!this.#isThrottled) {
      if (this.#held === undefined) {
        const element = queue.pop();
        if (element === undefined) break;
        this.#held = { element, done: 0 };
      }
      const held = this.#held;
      this.#writeHeld(held);
      // The backend may have closed the port.
      if (this.#held !== held) return;
      if (this.#isThrottled) break;
      this.#held = undefined;
      queue.push(held.element, 0);
    }
    this.#options.core().notifyDriver(this.#options.rxQueue + 1);
  }

  /** [qemu v7.2 hw/char/virtio-console.c flush_buf] */
  #writeHeld(held: { readonly element: VirtqueueElement; done: number }): void {
    const { backend, bytes } = this.#options;
    for (;;) {
      const count = bytes.readOut(held.element, held.done, this.#copy);
      if (count === 0) return;
      const taken = backend.write(this.#copy.subarray(0, count));
      if (this.#held !== held) return;
      // A console that waited for its backend would stop the guest: its bytes are lost.
      held.done += this.isConsole ? count : Math.min(Math.max(taken, 0), count);
      if (this.isConsole || taken >= count) continue;
      this.#isThrottled = true;
      return;
    }
  }

  /** [qemu v7.2 hw/char/virtio-serial-bus.c discard_vq_data] */
  #discard(): void {
    const queue = this.#tx();
    if (queue === undefined) return;
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      queue.push(element, 0);
    }
    this.#options.core().notifyDriver(this.#options.rxQueue + 1);
  }

  #rx(): DeviceQueue | undefined {
    return this.#queue(this.#options.rxQueue);
  }

  #tx(): DeviceQueue | undefined {
    return this.#queue(this.#options.rxQueue + 1);
  }

  // Only one that is set up, of a device that is not broken.
  #queue(index: number): DeviceQueue | undefined {
    const core = this.#options.core();
    const queue = core.queues[index];
    return queue?.isConfigured === true && !core.isBroken ? queue : undefined;
  }
}
