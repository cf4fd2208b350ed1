/** What a port of a console is connected to: QEMU's character device. */
export interface ConsoleBackend {
  /**
   * The guest wrote: how many of the bytes were taken. A console's other bytes are lost; a serial
   * port holds them until `resume`. The bytes are good until the call returns.
   */
  write(bytes: Uint8Array): number;
  /** The guest opened the port, or closed it. */
  onGuest?(isOpen: boolean): void;
  /** The guest gave room for input. */
  onWritable?(): void;
}

/** A port of the device, as whoever is behind it uses it. */
export interface ConsolePort {
  readonly id: number;
  readonly isConsole: boolean;
  /** The guest has the port open. */
  readonly isGuestConnected: boolean;
  /** Somebody is at this end. */
  readonly isHostConnected: boolean;
  /** Input for the guest: how many bytes it took. Nothing is kept: `onWritable` says when to go on. */
  input(bytes: Uint8Array): number;
  /** How many bytes the guest would take, up to 4096. */
  readonly room: number;
  /** Connects this end, or disconnects it: what the guest writes then is dropped. */
  setOpen(isOpen: boolean): void;
  /** The backend takes bytes again. */
  resume(): void;
}

/** Bytes that a backend took, for tests and logs: at most `limit`, the newest. */
export class ConsoleLog implements ConsoleBackend {
  readonly #limit: number;
  #bytes: number[] = [];

  constructor(limit = 65_536) {
    this.#limit = limit;
  }

  get bytes(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }

  write(bytes: Uint8Array): number {
    this.#bytes.push(...bytes.subarray(Math.max(0, bytes.length - this.#limit)));
    if (this.#bytes.length > this.#limit) this.#bytes = this.#bytes.slice(-this.#limit);
    return bytes.length;
  }
}
