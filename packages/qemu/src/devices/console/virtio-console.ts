import type { DmaSpace } from '@pinhole/memory';
import {
  consoleConfigParts,
  consoleRxQueue,
  type DeviceQueue,
  decodeConsoleConfig,
  decodeConsoleControl,
  encodeConsoleConfig,
  encodeConsoleControl,
  hasFeature,
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_CONTROL_RX,
  VIRTIO_CONSOLE_CONTROL_SIZE,
  VIRTIO_CONSOLE_CONTROL_TX,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_F_EMERG_WRITE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_PORT_ADD,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
  VIRTIO_ID_CONSOLE,
  type VirtioDeviceCore,
} from '@pinhole/virtio';
import { ElementBytes } from '../../element-bytes.js';
import { QemuError } from '../../errors.js';
import type { BufferMapper } from '../../qemu-mapper.js';
import { ALL_FEATURES, plugVirtioDevice, type VirtioDeviceSettings } from '../../virtio-device.js';
import type { ConsoleBackend, ConsolePort } from './console-backend.js';
import { SerialPort } from './serial-port.js';

/** Sizes of the queues. [qemu v7.2 hw/char/virtio-serial-bus.c virtio_serial_device_realize] */
const PORT_QUEUE_SIZE = 128;
const CONTROL_QUEUE_SIZE = 32;
/** Default and limit of the `max_ports` property. [qemu v7.2 hw/char/virtio-serial-bus.c virtio_serial_properties] */
const DEFAULT_PORTS = 31;
const MAX_PORTS = 511;
const CONFIG_SIZE = 12;

/** A port of the device: `virtconsole` or `virtserialport`. */
export interface ConsolePortOptions {
  readonly backend: ConsoleBackend;
  /** `nr`. Default: the next free one, of which the first console gets 0. */
  readonly id?: number;
  readonly name?: string;
  /** A `virtconsole`. Default true. */
  readonly isConsole?: boolean;
}

/** Options of {@link VirtioConsole}. */
export interface VirtioConsoleOptions extends VirtioDeviceSettings {
  readonly ports: readonly ConsolePortOptions[];
  /** `max_ports`: 31 by default; with 1 there are no control messages. */
  readonly maxPorts?: number;
  /** `emergency-write`: on by default. */
  readonly emergencyWrite?: boolean;
}

/**
 * virtio-serial with its ports, as QEMU does it. [qemu v7.2 hw/char/virtio-serial-bus.c]
 *
 * As in QEMU there is no size (F_SIZE), and a control message that finds no buffer is lost.
 * Deviates: ports are there from the start and stay.
 */
export class VirtioConsole {
  /** Where a driver meets the device. */
  readonly core: VirtioDeviceCore;
  /** The address space that the device works in, and why. */
  readonly space: DmaSpace;
  readonly spaceBecause: string;
  readonly mapper: BufferMapper;
  readonly #ports = new Map<number, SerialPort>();
  readonly #bytes: ElementBytes;
  readonly #control = new Uint8Array(VIRTIO_CONSOLE_CONTROL_SIZE);
  readonly #hasEmergencyWrite: boolean;
  #isReady = false;

  /** @throws QemuError `E_DEVICE_OPTIONS` */
  constructor(options: VirtioConsoleOptions) {
    const { maxPorts = DEFAULT_PORTS, emergencyWrite = true } = options;
    check('max_ports', maxPorts, maxPorts >= 1 && maxPorts <= MAX_PORTS, 'from 1 to 511');
    this.#bytes = new ElementBytes(options.memory);
    this.#hasEmergencyWrite = emergencyWrite;
    for (const port of options.ports) this.#addPort(port, maxPorts);
    const plugged = plugVirtioDevice(options, {
      deviceId: VIRTIO_ID_CONSOLE,
      defaultId: 'console0',
      features: [
        ...(maxPorts > 1 ? [VIRTIO_CONSOLE_F_MULTIPORT] : []),
        ...(emergencyWrite ? [VIRTIO_CONSOLE_F_EMERG_WRITE] : []),
      ],
      config: encodeConsoleConfig({ maxNrPorts: maxPorts }, emergencyWrite ? CONFIG_SIZE : 8),
      configFields: consoleConfigParts(ALL_FEATURES),
      queues: this.#queues(maxPorts),
      usesEventFds: false,
      hooks: {
        setStatus: (status) => this.#setStatus(status),
        setConfig: (config) => this.#emergencyWrite(decodeConsoleConfig(config).emergWr),
        resetQueue: (index) => {
          for (const port of this.#ports.values()) {
            if (consoleRxQueue(port.id) + 1 === index) port.dropHeld();
          }
        },
      },
    });
    this.core = plugged.core;
    this.space = plugged.space;
    this.spaceBecause = plugged.spaceBecause;
    this.mapper = plugged.mapper;
  }

  /** In the order in which they were given. */
  get ports(): readonly ConsolePort[] {
    return [...this.#ports.values()];
  }

  get #isMultiport(): boolean {
    return hasFeature(this.core.features, VIRTIO_CONSOLE_F_MULTIPORT);
  }

  /** [qemu v7.2 hw/char/virtio-serial-bus.c virtser_port_device_realize] */
  #addPort(options: ConsolePortOptions, maxPorts: number): void {
    const { isConsole = true, backend, name } = options;
    // 0 is kept for a console.
    const first = isConsole && !this.#ports.has(0) ? 0 : 1;
    let id = options.id ?? first;
    if (options.id === undefined) while (this.#ports.has(id)) id += 1;
    check('nr', id, Number.isInteger(id) && id >= 0 && id < maxPorts, `below ${maxPorts}`);
    check('nr', id, !this.#ports.has(id), 'a port of its own');
    const isNameFree = [...this.#ports.values()].every((port) => port.name !== name);
    check('name', name, name === undefined || isNameFree, 'a name of its own');
    const port = new SerialPort({
      id,
      name,
      isConsole,
      backend,
      bytes: this.#bytes,
      core: () => this.core,
      rxQueue: consoleRxQueue(id),
      isReady: () => this.#isReady,
      sendOpen: (isOpen) => this.#send(id, VIRTIO_CONSOLE_PORT_OPEN, isOpen ? 1 : 0),
    });
    this.#ports.set(id, port);
  }

  #queues(maxPorts: number): {
    maxSize: number;
    handleOutput: (queue: DeviceQueue, index: number) => void;
  }[] {
    const rx = { maxSize: PORT_QUEUE_SIZE, handleOutput: this.#handleInput };
    const tx = { maxSize: PORT_QUEUE_SIZE, handleOutput: this.#handleOutput };
    const more = Array.from({ length: maxPorts - 1 }, () => [rx, tx]).flat();
    const controlRx = { maxSize: CONTROL_QUEUE_SIZE, handleOutput: () => {} };
    const controlTx = {
      maxSize: CONTROL_QUEUE_SIZE,
      handleOutput: (queue: DeviceQueue) => this.#handleControl(queue),
    };
    return [rx, tx, controlRx, controlTx, ...more];
  }

  readonly #handleInput = (_queue: DeviceQueue, index: number): void => {
    this.#ports.get(portOf(index))?.handleInput();
  };

  // A port that nobody has: what the guest writes is dropped.
  readonly #handleOutput = (queue: DeviceQueue, index: number): void => {
    const port = this.#ports.get(portOf(index));
    if (port !== undefined) {
      port.handleOutput();
      return;
    }
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      queue.push(element, 0);
    }
    this.core.notifyDriver(index);
  };

  /** [qemu v7.2 hw/char/virtio-serial-bus.c control_out] */
  #handleControl(queue: DeviceQueue): void {
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      const length = this.#bytes.readOut(element, 0, this.#control);
      this.#handleMessage(this.#control.subarray(0, length));
      queue.push(element, 0);
    }
    this.core.notifyDriver(VIRTIO_CONSOLE_CONTROL_TX);
  }

  /** What is short, or of no port, is ignored. [qemu v7.2 hw/char/virtio-serial-bus.c handle_control_message] */
  #handleMessage(bytes: Uint8Array): void {
    const message = decodeConsoleControl(bytes);
    if (message === undefined) return;
    const { id, event, value } = message;
    if (event === VIRTIO_CONSOLE_DEVICE_READY) {
      if (value === 0) return;
      for (const port of this.#ports.values()) this.#send(port.id, VIRTIO_CONSOLE_PORT_ADD, 1);
      return;
    }
    const port = this.#ports.get(id);
    if (port === undefined) return;
    if (event === VIRTIO_CONSOLE_PORT_OPEN) port.setGuestConnected(value !== 0);
    else if (event === VIRTIO_CONSOLE_PORT_READY && value !== 0) this.#introduce(port);
  }

  #introduce(port: SerialPort): void {
    if (port.isConsole) this.#send(port.id, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
    if (port.name !== undefined) {
      const name = Uint8Array.from([...port.name, '\0'], (char) => char.charCodeAt(0));
      this.#send(port.id, VIRTIO_CONSOLE_PORT_NAME, 1, name);
    }
    if (port.isHostConnected) this.#send(port.id, VIRTIO_CONSOLE_PORT_OPEN, 1);
  }

  /**
   * Without a buffer the message is lost; into one that is too short goes its beginning, and the
   * used length says all. [qemu v7.2 hw/char/virtio-serial-bus.c send_control_msg]
   */
  #send(id: number, event: number, value: number, more?: Uint8Array): void {
    const queue = this.core.queues[VIRTIO_CONSOLE_CONTROL_RX];
    if (queue === undefined || !queue.isConfigured || this.core.isBroken) return;
    const element = queue.pop();
    if (element === undefined) return;
    const bytes = encodeConsoleControl({ id, event, value }, more);
    this.#bytes.writeIn(element, 0, bytes);
    queue.push(element, bytes.length);
    this.core.notifyDriver(VIRTIO_CONSOLE_CONTROL_RX);
  }

  /** The first console whose other end is there gets the byte. [qemu v7.2 hw/char/virtio-serial-bus.c set_config] */
  #emergencyWrite(value: number): void {
    if (!this.#hasEmergencyWrite || value === 0) return;
    const consoles = [...this.#ports.values()].filter((port) => port.isConsole);
    consoles.find((port) => port.isHostConnected)?.emergencyWrite(value & 0xff);
  }

  /** [qemu v7.2 hw/char/virtio-serial-bus.c set_status] */
  #setStatus(status: number): void {
    this.#isReady = (status & VIRTIO_CONFIG_S_DRIVER_OK) !== 0;
    if (this.#isReady) {
      // Without control messages the guest cannot say that it opens its only port.
      if (!this.#isMultiport) this.#ports.get(0)?.setGuestConnected(true);
      return;
    }
    for (const port of this.#ports.values()) {
      port.dropHeld();
      port.setGuestConnected(false);
    }
  }
}

function portOf(queue: number): number {
  return queue < VIRTIO_CONSOLE_CONTROL_RX ? 0 : Math.floor(queue / 2) - 1;
}

function check(property: string, found: unknown, isValid: boolean, expected: string): void {
  if (isValid) return;
  throw new QemuError(
    'E_DEVICE_OPTIONS',
    `virtio-serial: expected ${property} to be ${expected}, found ${String(found)}`,
    { details: { property } },
  );
}
