import type { DmaOps } from '@pinhole/memory';
import {
  type ConsoleConfig,
  type ConsoleControl,
  consoleConfigParts,
  consoleRxQueue,
  type DriverQueue,
  decodeConsoleConfig,
  decodeConsoleControl,
  encodeConsoleControl,
  featureBits,
  type Segment,
  VIRTIO_CONSOLE_CONFIG_EMERG_WR,
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_CONTROL_RX,
  VIRTIO_CONSOLE_CONTROL_SIZE,
  VIRTIO_CONSOLE_CONTROL_TX,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_F_EMERG_WRITE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
  VIRTIO_CONSOLE_PORT_ADD,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
  VIRTIO_CONSOLE_PORT_REMOVE,
  VIRTIO_CONSOLE_RESIZE,
} from '@pinhole/virtio';
import {
  type DriverContext,
  InterruptWork,
  openDevice,
  takeUsed,
  type VirtioDriverOptions,
} from '../driver-context.js';
import { GuestPort } from './guest-port.js';

/** [linux v6.1 drivers/char/virtio_console.c features]; EMERG_WRITE for `emergencyWrite`. */
const SUPPORTED = featureBits(
  VIRTIO_CONSOLE_F_SIZE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_EMERG_WRITE,
);

/** Options of {@link probeVirtioConsole}. */
export interface VirtioConsoleDriverOptions extends VirtioDriverOptions {
  /** A port has input. */
  readonly onInput?: (port: GuestPort) => void;
}

/** A driver, or why there is none. */
export type ConsoleProbeResult =
  | { readonly ok: true; readonly driver: VirtioConsoleDriver }
  | { readonly ok: false; readonly message: string };

/** The queues of the device, by number. */
type Queues = readonly DriverQueue<Segment>[];

/** Finds the device and brings it up. [linux v6.1 drivers/char/virtio_console.c virtcons_probe] */
export function probeVirtioConsole(options: VirtioConsoleDriverOptions): ConsoleProbeResult {
  const opened = openDevice(options, SUPPORTED);
  if (!opened.ok) return opened;
  const { context } = opened;
  const isMultiport = context.has(VIRTIO_CONSOLE_F_MULTIPORT);
  const ports = isMultiport ? readConfig(context).maxNrPorts : 1;
  const count = isMultiport ? 2 * (ports + 1) : 2;
  const queues: DriverQueue<Segment>[] = [];
  for (let index = 0; index < count; index += 1) {
    const queue = context.openQueue<Segment>(index);
    if (typeof queue === 'string') return context.abandon(queue);
    queues.push(queue);
  }
  return { ok: true, driver: new VirtioConsoleDriver(options, context, queues, ports) };
}

/** The guest's console driver. [linux v6.1 drivers/char/virtio_console.c] */
export class VirtioConsoleDriver {
  readonly features: bigint;
  readonly dma: DmaOps;
  /** Control messages that made no sense. */
  badMessages = 0;
  readonly #options: VirtioConsoleDriverOptions;
  readonly #context: DriverContext;
  readonly #queues: Queues;
  readonly #maxPorts: number;
  readonly #isMultiport: boolean;
  readonly #ports = new Map<number, GuestPort>();
  // Those that the device took away: their buffers stay with it until the reset.
  readonly #removed: GuestPort[] = [];
  readonly #controlBuffers: Segment[] = [];

  /** Use {@link probeVirtioConsole}. */
  constructor(
    options: VirtioConsoleDriverOptions,
    context: DriverContext,
    queues: Queues,
    maxPorts: number,
  ) {
    this.#options = options;
    this.#context = context;
    this.#queues = queues;
    this.#maxPorts = maxPorts;
    this.#isMultiport = context.has(VIRTIO_CONSOLE_F_MULTIPORT);
    this.features = context.features;
    this.dma = context.dma;
    const messages = new InterruptWork(() => this.#handleMessages());
    const sent = new InterruptWork(() => this.#reapSent());
    context.start({
      queue: (index) => {
        if (!this.#isMultiport || index < VIRTIO_CONSOLE_CONTROL_RX) this.#handlePort(index);
        else if (index === VIRTIO_CONSOLE_CONTROL_RX) messages.run();
        else if (index === VIRTIO_CONSOLE_CONTROL_TX) sent.run();
        else this.#handlePort(index);
      },
      config: () => this.#readSize(),
    });
    if (this.#isMultiport) {
      this.#fillControl();
      this.#send({ id: 0, event: VIRTIO_CONSOLE_DEVICE_READY, value: 1 });
    } else {
      this.#addPort(0);
      this.#readSize();
    }
  }

  /** The ports that are there, by number. */
  get ports(): ReadonlyMap<number, GuestPort> {
    return this.#ports;
  }

  /** Opens this end of a port, or closes it. False: there is no such port. */
  setOpen(id: number, isOpen: boolean): boolean {
    const port = this.#ports.get(id);
    if (port === undefined) return false;
    if (port.isGuestConnected === isOpen) return true;
    port.isGuestConnected = isOpen;
    if (this.#isMultiport) {
      this.#send({ id, event: VIRTIO_CONSOLE_PORT_OPEN, value: isOpen ? 1 : 0 });
    }
    return true;
  }

  /** A character past all queues. False: the device has no such thing. */
  emergencyWrite(byte: number): boolean {
    if (!this.#context.has(VIRTIO_CONSOLE_F_EMERG_WRITE)) return false;
    const { transport } = this.#context.options;
    transport.writeConfig(VIRTIO_CONSOLE_CONFIG_EMERG_WR, Uint8Array.of(byte & 0xff, 0, 0, 0));
    return true;
  }

  /** Resets the device, and gives all memory back. [linux v6.1 drivers/char/virtio_console.c virtcons_remove] */
  remove(): void {
    const { pages } = this.#context.options;
    this.#context.close((token, index) => {
      const object = token as Segment;
      if (index % 2 === 1) pages.free(object.gpa, object.length);
    });
    for (const port of [...this.#ports.values(), ...this.#removed.splice(0)]) port.release();
    this.#ports.clear();
    for (const { gpa, length } of this.#controlBuffers.splice(0)) pages.free(gpa, length);
  }

  #handlePort(index: number): void {
    const id = index < VIRTIO_CONSOLE_CONTROL_RX ? 0 : Math.floor(index / 2) - 1;
    const port = this.#ports.get(id);
    if (index % 2 === 0) port?.handleRx();
    else port?.handleTx();
  }

  /** [linux v6.1 drivers/char/virtio_console.c add_port] */
  #addPort(id: number): void {
    const rx = this.#queues[consoleRxQueue(id)];
    const tx = this.#queues[consoleRxQueue(id) + 1];
    if (rx === undefined || tx === undefined) return;
    const port = new GuestPort({
      id,
      context: this.#context,
      rx,
      tx,
      isMultiport: this.#isMultiport,
      onInput: (from) => this.#options.onInput?.(from),
    });
    this.#ports.set(id, port);
    port.fill();
  }

  // `value` of PORT_READY: 1 when the port can be used.
  #introduce(id: number): void {
    if (!this.#ports.has(id)) {
      // The queues of a port that was removed still hold its buffers.
      const back = this.#removed.findIndex((port) => port.id === id);
      const [port] = back < 0 ? [] : this.#removed.splice(back, 1);
      if (port === undefined) this.#addPort(id);
      else this.#ports.set(id, port);
    }
    this.#send({ id, event: VIRTIO_CONSOLE_PORT_READY, value: 1 });
  }

  #handleMessages(): void {
    const queue = this.#queues[VIRTIO_CONSOLE_CONTROL_RX] as DriverQueue<Segment>;
    const { memory } = this.#context.options;
    takeUsed(queue, (buffer, length) => {
      // The length is the device's word. [linux v6.1 drivers/char/virtio_console.c control_work_handler]
      const bytes = new Uint8Array(Math.min(length, buffer.length));
      memory.read(buffer.gpa, bytes);
      queue.add([], [buffer], buffer);
      const message = decodeConsoleControl(bytes);
      const rest = bytes.subarray(VIRTIO_CONSOLE_CONTROL_SIZE);
      if (message === undefined || !this.#handleMessage(message, rest)) this.badMessages += 1;
    });
    queue.kick();
  }

  /** False: the message makes no sense. [linux v6.1 drivers/char/virtio_console.c handle_control_message] */
  #handleMessage({ id, event, value }: ConsoleControl, rest: Uint8Array): boolean {
    if (event === VIRTIO_CONSOLE_PORT_ADD) {
      if (id >= this.#maxPorts) return false;
      this.#introduce(id);
      return true;
    }
    const port = this.#ports.get(id);
    if (port === undefined) return false;
    switch (event) {
      case VIRTIO_CONSOLE_PORT_REMOVE:
        this.#ports.delete(id);
        this.#removed.push(port);
        port.isHostConnected = false;
        return true;
      case VIRTIO_CONSOLE_CONSOLE_PORT:
        if (value === 0) return true;
        port.isConsole = true;
        this.setOpen(id, true);
        return true;
      case VIRTIO_CONSOLE_RESIZE:
        return this.#resize(port, rest);
      case VIRTIO_CONSOLE_PORT_OPEN:
        port.isHostConnected = value !== 0;
        return true;
      case VIRTIO_CONSOLE_PORT_NAME:
        port.name ??= text(rest);
        return true;
      default:
        return false;
    }
  }

  #resize(port: GuestPort, rest: Uint8Array): boolean {
    if (rest.length < 4) return false;
    if (!port.isConsole) return true;
    const view = new DataView(rest.buffer, rest.byteOffset, rest.length);
    port.size = { cols: view.getUint16(0, true), rows: view.getUint16(2, true) };
    return true;
  }

  /** With control messages the size comes in those. [linux v6.1 drivers/char/virtio_console.c config_work_handler] */
  #readSize(): void {
    const port = this.#ports.get(0);
    if (this.#isMultiport || port === undefined) return;
    if (!this.#context.has(VIRTIO_CONSOLE_F_SIZE)) return;
    const { cols, rows } = readConfig(this.#context);
    port.size = { cols, rows };
  }

  #fillControl(): void {
    const { pages } = this.#context.options;
    const queue = this.#queues[VIRTIO_CONSOLE_CONTROL_RX] as DriverQueue<Segment>;
    while (this.#controlBuffers.length < queue.size) {
      const gpa = pages.alloc(pages.pageSize);
      if (gpa === undefined) break;
      const buffer = { gpa, length: pages.pageSize };
      this.#controlBuffers.push(buffer);
      if (queue.add([], [buffer], buffer) !== 'ok') break;
    }
    queue.kick();
  }

  // A message that finds no room is lost. [linux v6.1 drivers/char/virtio_console.c __send_control_msg]
  #send(message: ConsoleControl): void {
    const { memory, pages } = this.#context.options;
    const queue = this.#queues[VIRTIO_CONSOLE_CONTROL_TX] as DriverQueue<Segment>;
    const bytes = encodeConsoleControl(message);
    const gpa = pages.alloc(bytes.length);
    if (gpa === undefined) return;
    const object = { gpa, length: bytes.length };
    memory.write(gpa, bytes);
    if (queue.add([object], [], object) === 'ok') queue.kick();
    else pages.free(gpa, bytes.length);
  }

  #reapSent(): void {
    const { pages } = this.#context.options;
    takeUsed(this.#queues[VIRTIO_CONSOLE_CONTROL_TX] as DriverQueue<Segment>, (object) =>
      pages.free(object.gpa, object.length),
    );
  }
}

function readConfig(context: DriverContext): ConsoleConfig {
  return decodeConsoleConfig(context.readConfig(consoleConfigParts(context.features)));
}

// Up to the first zero.
function text(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return String.fromCharCode(...bytes.subarray(0, end < 0 ? bytes.length : end));
}
